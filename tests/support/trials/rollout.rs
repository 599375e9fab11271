//! A change goes out: simulated replicas, what an agent scrapes of them, and the workflow's own machine that decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use perfagent::engine::{EngineProfile, Probed, Registry};
use perfagent::exposition::Options;
use perfagent::measure::{ReplicaSamples, Sample};
use perfagent::optimization::{
    Effect, PredictedQuantity, Prediction, PredictionBasis, QuantityPrediction,
};
use perfagent::simulator::{
    Deployment, FaultChange, Incident, Replica, Restart, Scenario, engine_name,
};
use perfagent::workflow::{
    Analysis, Bounds, Canary, Command, Event, GatePolicy, JudgedQuantity, Phase, PlanDraft,
    PlanTarget, RecordedEvent, Strategy, Timeouts, Verdict, VerdictWord, Workflow, WorkflowKind,
    WorkflowSpec, decide, evolve, observe, policy_of,
};

use super::super::diagnosis::{START_UNIX_SECONDS, probed};
use super::truth::Effects;
use super::{Changed, Trial};

/// How it ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) word: End,
    /// Of each part that was judged, the last verdict.
    pub(crate) verdicts: Vec<Verdict>,
    /// How long parts were observed, all together.
    pub(crate) observed_seconds: f64,
    /// Requests of the first part, and of those it was held against.
    pub(crate) requests: [f64; 2],
    pub(crate) replicas: u32,
}

/// What became of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// All have it.
    Promoted,
    /// It was undone.
    Failed,
    /// Somebody has to say.
    Inconclusive,
    /// It could not be compared.
    NotComparable,
}

const INTERVAL_SECONDS: f64 = 5.0;
const WINDOW_SECONDS: f64 = 60.0;
/// Before the change, to choose bounds from.
const BEFORE_SECONDS: f64 = 300.0;
/// After a part has the change.
const WARM_UP_SECONDS: f64 = 60.0;

/// What an agent makes of a trial. What a change costs is predicted as it truly is where its truth is given.
pub(crate) fn ended(trial: &Trial, predicted: Option<&Effects>) -> Result<Ended, String> {
    let mut pool = Pool::new(trial)?;
    let mut run = Run::begin(trial, &pool.before()?, predicted)?;
    let mut ended = Ended {
        word: End::Inconclusive,
        verdicts: Vec::new(),
        observed_seconds: 0.0,
        requests: [0.0, 0.0],
        replicas: pool.replicas(),
    };
    loop {
        let state = &run.state;
        run.now_us = micros(pool.now);
        match state.phase {
            Phase::Approved | Phase::RollingOut => run.report(Command::Intend {
                epoch: 1,
                baseline: None,
            }),
            Phase::Writing { target } => {
                pool.change(trial, target)?;
                run.report(Command::Written {
                    revision: "r1".to_owned(),
                });
            }
            Phase::AwaitingReady { .. } => {
                run.report(Command::Ready);
                if run.state.phase == Phase::Observing {
                    pool.window(WARM_UP_SECONDS)?;
                }
            }
            Phase::Observing if state.pause.is_some() => break,
            Phase::Observing if state.deadline_us.is_some_and(|at| run.now_us >= at) => {
                run.report(Command::TimeOver { problem: None });
            }
            Phase::Observing => {
                let after = pool.now;
                pool.window(WINDOW_SECONDS)?;
                run.now_us = micros(pool.now);
                let canary = run.state.canary().expect("a canary").clone();
                let split = canary.sides(run.state.step).0.len();
                let samples = pool.samples();
                let (changed, unchanged) = samples.split_at(split);
                let observed = observe(
                    &changed.iter().collect::<Vec<_>>(),
                    &unchanged.iter().collect::<Vec<_>>(),
                    &pool.profile,
                    &canary.bounds,
                    START_UNIX_SECONDS + after,
                );
                ended.observed_seconds += WINDOW_SECONDS;
                if let Ok(observation) = observed {
                    if run.state.step == 0 {
                        let [of_canary, of_control] = observation.traffic.requests;
                        ended.requests[0] += of_canary;
                        ended.requests[1] += of_control;
                    }
                    run.report(Command::Observed(Box::new(observation)));
                }
            }
            Phase::Measuring => {
                ended.word = End::Promoted;
                break;
            }
            Phase::RollingBack => {
                ended.word = End::Failed;
                break;
            }
            other => return Err(format!("it is {other:?}")),
        }
    }
    ended.verdicts = run.state.verdicts.values().cloned().collect();
    let last = ended.verdicts.last().map(|verdict| verdict.word);
    if ended.word == End::Inconclusive && last == Some(VerdictWord::NotComparable) {
        ended.word = End::NotComparable;
    }
    Ok(ended)
}

fn micros(since_start: f64) -> i64 {
    ((START_UNIX_SECONDS + since_start) * 1e6) as i64
}

/// The deployment without the change, or with it; from `since` on where that is late.
pub(crate) fn deployment(trial: &Trial, change: Option<&Changed>) -> Result<Deployment, String> {
    let mut written: Scenario = trial.before.clone();
    let change = change.cloned().unwrap_or_default();
    for (name, value) in &change.settings {
        match value.is_null() {
            true => written.settings.remove(name),
            false => written.settings.insert(name.clone(), value.clone()),
        };
    }
    if let Some(timing) = change.timing {
        written.timing = timing;
    }
    let mut deployment = written.deployment().map_err(|error| error.to_string())?;
    if change.slowness.is_some() || change.failure_ratio.is_some() {
        deployment.incidents.push(Incident {
            at_seconds: change.from_share.map_or(0.0, |share| {
                begin_seconds(trial) + share * trial.observe_seconds
            }),
            replica: None,
            faults: FaultChange {
                stalled: None,
                slowness: change.slowness,
                failure_ratio: change.failure_ratio,
            },
            restart: None::<Restart>,
        });
    }
    Ok(deployment)
}

/// When the first part is observed.
fn begin_seconds(trial: &Trial) -> f64 {
    trial.warm_seconds + BEFORE_SECONDS + WARM_UP_SECONDS
}

/// Latencies beyond which requests are counted in a trial.
pub(crate) fn bounds(trial: &Trial) -> Result<Bounds, String> {
    let mut pool = Pool::new(trial)?;
    let before = pool.before()?;
    let before: Vec<&ReplicaSamples> = before.iter().collect();
    Ok(Bounds::of(
        &trial.slos,
        &before,
        &pool.profile,
        &BTreeMap::new(),
    ))
}

/// All replicas of a trial.
struct Pool {
    replicas: Vec<Replica>,
    profile: Arc<EngineProfile>,
    probed: Vec<Arc<Probed>>,
    scraped: Vec<Vec<Arc<Sample>>>,
    /// Seconds since the engines started.
    now: f64,
    tick: u32,
}

impl Pool {
    fn new(trial: &Trial) -> Result<Self, String> {
        let deployment = deployment(trial, None)?;
        let engine = engine_name(deployment.engine);
        let profile = Registry::builtin().get(engine).expect("built in").clone();
        let replicas = (0..deployment.replicas)
            .map(|number| Replica::new(&deployment, number, START_UNIX_SECONDS))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let probed = replicas
            .iter()
            .map(|replica| Arc::new(probed(&profile, replica, None, true)))
            .collect();
        Ok(Self {
            scraped: vec![Vec::new(); replicas.len()],
            replicas,
            profile,
            probed,
            now: trial.warm_seconds,
            tick: 0,
        })
    }

    fn replicas(&self) -> u32 {
        u32::try_from(self.replicas.len()).expect("few")
    }

    /// What all do before anything changes.
    fn before(&mut self) -> Result<Vec<ReplicaSamples>, String> {
        self.window(BEFORE_SECONDS)?;
        Ok(self.samples())
    }

    /// A replica gets the change, and is as if it always had had it: what it does until it is warm does not count.
    fn change(&mut self, trial: &Trial, target: u32) -> Result<(), String> {
        let deployment = deployment(trial, Some(&trial.change))?;
        let mut changed = Replica::new(&deployment, target, START_UNIX_SECONDS)
            .map_err(|error| error.to_string())?;
        changed.run_until(self.now);
        self.replicas[target as usize] = changed;
        Ok(())
    }

    /// Lets time pass, and scrapes.
    fn window(&mut self, seconds: f64) -> Result<(), String> {
        for scraped in &mut self.scraped {
            scraped.clear();
        }
        self.scrape()?;
        let end = self.now + seconds;
        while self.now + INTERVAL_SECONDS <= end + 1e-9 {
            self.now += INTERVAL_SECONDS;
            self.tick += 1;
            self.scrape()?;
        }
        Ok(())
    }

    fn scrape(&mut self) -> Result<(), String> {
        for (replica, scraped) in self.replicas.iter_mut().zip(&mut self.scraped) {
            replica.run_until(self.now);
            let text = replica.metrics(false);
            let at = replica.now_unix_seconds();
            let read = Sample::read(&self.profile, text.as_bytes(), at, &Options::default());
            let (mut sample, _) = read.map_err(|error| error.to_string())?;
            sample.tick = self.tick;
            scraped.push(Arc::new(sample));
        }
        Ok(())
    }

    fn samples(&self) -> Vec<ReplicaSamples> {
        let all = self.scraped.iter().zip(&self.probed).enumerate();
        all.map(|(at, (samples, probed))| ReplicaSamples {
            metrics_url: url(at),
            samples: samples.clone(),
            failed_scrapes: 0,
            last_failure: None,
            probed: probed.clone(),
        })
        .collect()
    }
}

fn url(at: usize) -> String {
    format!("http://r{at}/metrics")
}

/// A workflow, to which commands are put one after the other.
struct Run {
    state: Workflow,
    sequence: u64,
    now_us: i64,
}

const WHO: &str = "perfagent";

impl Run {
    /// One whose change is about to go to the first part.
    fn begin(
        trial: &Trial,
        before: &[ReplicaSamples],
        predicted: Option<&Effects>,
    ) -> Result<Self, String> {
        let asked = Canary {
            warm_up_seconds: WARM_UP_SECONDS,
            observe_seconds: trial.observe_seconds,
            drain_seconds: 0.0,
            ..Canary::default()
        };
        let effect = match predicted {
            Some(effects) => Effect::Predicted(prediction(effects)),
            None => Effect::NotPredictable("a caller's own settings".to_owned()),
        };
        let policy = policy_of(&asked, predicted.map(|_| &effect));
        let profile = Registry::builtin()
            .get(trial.before.engine.as_deref().unwrap_or("vllm"))
            .expect("built in")
            .clone();
        let samples: Vec<&ReplicaSamples> = before.iter().collect();
        let bounds = Bounds::of(&trial.slos, &samples, &profile, &policy.accepted_ratio);
        let urls: Vec<Option<String>> = (0..before.len()).map(|at| Some(url(at))).collect();
        let canary = asked
            .planned(&urls, bounds)
            .map_err(|error| error.to_string())?;
        let spec = WorkflowSpec {
            instance_id: "pool".to_owned(),
            kind: WorkflowKind::Optimization,
            actuator: "simulator".to_owned(),
            changes: BTreeMap::new(),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: false,
            auto_approve: true,
            gate: GatePolicy::default(),
            strategy: Strategy::Canary(Box::new(asked)),
            timeouts: Timeouts::default(),
            note: String::new(),
        };
        let now_us = micros(0.0);
        let start = Command::Start {
            workflow_id: "w".to_owned(),
            spec: Box::new(spec),
        };
        let event = decide(None, &start, WHO, now_us).map_err(|refusal| format!("{refusal:?}"))?;
        let state = evolve(None, &recorded(1, now_us, event)).map_err(|error| error.to_string())?;
        let mut run = Self {
            state,
            sequence: 1,
            now_us,
        };
        run.report(Command::Analysed(Box::new(Analysis {
            headline: "seeded".to_owned(),
            findings: Vec::new(),
            start_unix_seconds: START_UNIX_SECONDS,
            end_unix_seconds: START_UNIX_SECONDS + BEFORE_SECONDS,
            simulated: true,
            before: Vec::new(),
        })));
        run.report(Command::Planned(Box::new(draft(
            before.len(),
            Strategy::Canary(Box::new(canary)),
            effect,
        ))));
        Ok(run)
    }

    /// What its runner reports, and has to be taken.
    fn report(&mut self, command: Command) {
        let event = decide(Some(&self.state), &command, WHO, self.now_us)
            .unwrap_or_else(|refusal| panic!("{command:?}: {refusal:?}"));
        self.sequence += 1;
        let recorded = recorded(self.sequence, self.now_us, event);
        self.state = evolve(Some(self.state.clone()), &recorded).expect("an event of it");
    }
}

fn recorded(sequence: u64, at_us: i64, event: Event) -> RecordedEvent {
    RecordedEvent {
        workflow_id: "w".to_owned(),
        instance_id: "pool".to_owned(),
        revision: sequence,
        sequence,
        at_us,
        actor: WHO.to_owned(),
        event,
    }
}

fn draft(targets: usize, strategy: Strategy, effect: Effect) -> PlanDraft {
    let target = |place: usize| PlanTarget {
        name: format!("replica-{place}"),
        revision: "r0".to_owned(),
        digest_before: format!("{place:064}"),
        digest_after: format!("{:064}", 100 + place),
        needs_restart: true,
        launch_args: Vec::new(),
    };
    PlanDraft {
        headline: "seeded".to_owned(),
        optimizations: Vec::new(),
        // what is recommended costs what is predicted
        chosen: matches!(effect, Effect::Predicted(_)).then(|| "chosen".to_owned()),
        changes: Vec::new(),
        effect,
        prediction_id: None,
        targets: (0..targets).map(target).collect(),
        snapshot_id: Some("before".to_owned()),
        planned_snapshot_id: Some("after".to_owned()),
        strategy,
        changes_answers: false,
        needs_restart: true,
        notes: Vec::new(),
    }
}

/// A prediction that is right: its interval holds what truly comes, and little more.
fn prediction(effects: &Effects) -> Prediction {
    let of = |quantity, ratio: Option<f64>| {
        let ratio = ratio?;
        Some(QuantityPrediction {
            quantity,
            before: 1.0,
            ratio,
            ratio_low: ratio * 0.9,
            ratio_high: ratio * 1.1,
        })
    };
    let mean = |judged| effects.ratio(judged);
    Prediction {
        quantities: [
            of(
                PredictedQuantity::TimeToFirstTokenMean,
                mean(JudgedQuantity::TimeToFirstTokenMean),
            ),
            of(PredictedQuantity::TimeToFirstTokenP99, effects.p99[0]),
            of(
                PredictedQuantity::InterTokenLatencyMean,
                mean(JudgedQuantity::InterTokenLatencyMean),
            ),
            of(PredictedQuantity::InterTokenLatencyP99, effects.p99[1]),
        ]
        .into_iter()
        .flatten()
        .collect(),
        unpredicted: Vec::new(),
        basis: PredictionBasis {
            windows: 1,
            observed_requests: 1_000.0,
            simulated_requests: 2_000,
            simulations: 10,
            mismatch_ratio: 0.05,
            assumptions: Vec::new(),
            track_record: 0,
        },
    }
}
