//! Workflows for tests.

use crate::optimization::{Effect, KnobChange, PredictedQuantity};
use crate::workflow::{
    Analysis, Canary, Command, Event, Failure, FindingSummary, MeasuredEffect, MeasuredEffects,
    MeasuredValue, PlanDraft, PlanTarget, QualityReport, RecordedEvent, Refusal, Strategy,
    Workflow, WorkflowKind, WorkflowSpec, decide, decode_event, encode_event, evolve,
};
use crate::workflow::{Bounds, Evidence, JudgedQuantity, Observation, Pair, Traffic};

/// Who starts workflows in tests.
pub(crate) const STARTER: &str = "ada";
/// Who runs them.
pub(crate) const RUNNER: &str = "perfagent";
/// When tests begin, unix time in microseconds.
pub(crate) const BEGIN_US: i64 = 1_800_000_000_000_000;
/// A second in microseconds.
pub(crate) const SECOND_US: i64 = 1_000_000;

pub(crate) fn spec(kind: WorkflowKind) -> WorkflowSpec {
    WorkflowSpec {
        instance_id: "chat".to_owned(),
        kind,
        actuator: "unit".to_owned(),
        changes: [("max_num_seqs".to_owned(), Some("256".to_owned()))].into(),
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: false,
        auto_approve: false,
        gate: crate::workflow::GatePolicy::default(),
        strategy: Strategy::InPlace,
        timeouts: crate::workflow::Timeouts::default(),
        note: String::new(),
    }
}

pub(crate) fn start(spec: WorkflowSpec) -> Command {
    Command::Start {
        workflow_id: "w".to_owned(),
        spec: Box::new(spec),
    }
}

pub(crate) fn analysis() -> Analysis {
    Analysis {
        headline: "Too few sequences run at once.".to_owned(),
        findings: vec![FindingSummary {
            cause: "SEQUENCE_CAP".to_owned(),
            severity: "HIGH".to_owned(),
            description: "12 requests wait while the KV cache is half empty.".to_owned(),
        }],
        start_unix_seconds: 1_800_000_000.1,
        end_unix_seconds: 1_800_000_060.3,
        simulated: true,
        before: vec![MeasuredValue {
            quantity: PredictedQuantity::TimeToFirstTokenMean,
            value: 1.0 / 3.0,
        }],
    }
}

/// Note of a workflow whose change can make answers others.
pub(super) const ANSWERS: &str = "answers";

/// Of an optimization that goes out part by part, each window a look.
pub(crate) fn canaried() -> WorkflowSpec {
    WorkflowSpec {
        strategy: Strategy::Canary(Box::new(Canary {
            shares: vec![0.1, 0.5],
            warm_up_seconds: 5.0,
            observe_seconds: 240.0,
            decision_seconds: 600.0,
            ..Canary::default()
        })),
        ..spec(WorkflowKind::Optimization)
    }
}

/// A window of a minute, counted from 0, in which first tokens came so many times as late with the change as without.
pub(super) fn observation(at: u32, ratio: f64) -> Observation {
    let start = 1_800_000_000.0 + 60.0 * f64::from(at);
    // a little noise, the same at each run, and not the same on both sides
    let noise =
        |step: u32, side: u32| 1.0 + 0.02 * f64::from((step * 7 + side * 3 + at * 5) % 11) - 0.1;
    let pair = |step: u32| {
        let of = |side: u32, ratio: f64| 40.0 * 0.2 * ratio * noise(step, side);
        Pair::from([of(0, ratio), 40.0, of(1, 1.0), 40.0])
    };
    Observation {
        start_unix_seconds: start,
        end_unix_seconds: start + 60.0,
        first_tick: at * 12,
        last_tick: at * 12 + 12,
        evidence: Evidence::SameTime,
        control_start_unix_seconds: start,
        control_end_unix_seconds: start + 60.0,
        engine: "vllm".to_owned(),
        canary_replicas: 1,
        control_replicas: 1,
        simulated: true,
        control_simulated: true,
        bounds: Bounds::default(),
        saturated: false,
        traffic: Traffic {
            replica_seconds: [60.0, 60.0],
            requests: [480.0, 480.0],
            prompt_tokens: None,
            output_tokens: None,
        },
        dropped: Vec::new(),
        pairs: [(
            JudgedQuantity::TimeToFirstTokenMean,
            (0..12).map(pair).collect(),
        )]
        .into(),
        one_sided: Vec::new(),
    }
}

/// What came of asking ten prompts.
pub(super) fn report(passed: bool) -> QualityReport {
    QualityReport {
        prompts: 10,
        agreed: if passed { 10 } else { 2 },
        agreed_without: 10,
        common_ratio: 0.9,
        common_without_ratio: 1.0,
        needed_ratio: 0.95,
        passed,
    }
}

/// The same plan for a workflow that goes out as this one does.
pub(super) fn draft_of(spec: &WorkflowSpec, targets: usize) -> PlanDraft {
    let replicas: Vec<Option<String>> = (0..targets)
        .map(|at| Some(format!("http://r{at}/metrics")))
        .collect();
    let planned = spec
        .strategy
        .canary()
        .and_then(|canary| canary.planned(&replicas, Bounds::default()).ok());
    PlanDraft {
        changes_answers: spec.note == ANSWERS,
        strategy: planned.map_or(Strategy::InPlace, |canary| {
            Strategy::Canary(Box::new(canary))
        }),
        ..draft(targets)
    }
}

/// A plan for so many targets.
pub(crate) fn draft(targets: usize) -> PlanDraft {
    let target = |place: usize| PlanTarget {
        name: format!("replica-{place}"),
        revision: format!("r{place}"),
        digest_before: format!("{:064}", place),
        digest_after: format!("{:064}", 100 + place),
        needs_restart: true,
        launch_args: vec!["--max-num-seqs".to_owned(), "256".to_owned()],
    };
    PlanDraft {
        headline: "--max-num-seqs from 64 to 256".to_owned(),
        optimizations: Vec::new(),
        chosen: None,
        changes: vec![KnobChange {
            name: "max_num_seqs".to_owned(),
            flag: "--max-num-seqs".to_owned(),
            from: Some("64".to_owned()),
            to: Some("256".to_owned()),
        }],
        effect: Effect::NotPredictable("nothing was fitted yet".to_owned()),
        prediction_id: None,
        targets: (0..targets).map(target).collect(),
        snapshot_id: (targets > 0).then(|| "before".to_owned()),
        planned_snapshot_id: (targets > 0).then(|| "after".to_owned()),
        strategy: Strategy::InPlace,
        changes_answers: false,
        needs_restart: true,
        notes: Vec::new(),
    }
}

pub(crate) fn effects() -> MeasuredEffects {
    MeasuredEffects {
        before_start_unix_seconds: 1_800_000_000.0,
        before_end_unix_seconds: 1_800_000_060.0,
        after_start_unix_seconds: 1_800_000_100.0,
        after_end_unix_seconds: 1_800_000_160.0,
        quantities: vec![MeasuredEffect {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            before: 101.3,
            after: 303.7,
            ratio: 303.7 / 101.3,
            predicted: Some([3.0, 2.5, 3.5]),
        }],
        headline: "Nothing holds it back.".to_owned(),
    }
}

pub(crate) fn failure() -> Failure {
    Failure {
        reason: "ACTUATOR_FAILED".to_owned(),
        message: "unit failed at `write`: no space left".to_owned(),
        hint: "Make room.".to_owned(),
    }
}

pub(crate) fn drifted(target: Option<u32>) -> Command {
    Command::Drifted {
        target,
        digest: "f00d".to_owned(),
        message: "Somebody else changed replica-0.".to_owned(),
    }
}

pub(crate) fn written() -> Command {
    Command::Written {
        revision: "r9".to_owned(),
    }
}

/// A workflow with its log, to which commands are put one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// How it is; none before it began.
    pub(crate) state: Option<Workflow>,
    /// All events so far.
    pub(crate) log: Vec<RecordedEvent>,
    /// What time it is, unix time in microseconds.
    pub(crate) now_us: i64,
}

impl Run {
    pub(crate) fn begin(spec: WorkflowSpec) -> Self {
        let mut run = Self {
            state: None,
            log: Vec::new(),
            now_us: BEGIN_US,
        };
        run.ask(STARTER, &start(spec)).unwrap();
        run
    }

    /// One for so many targets whose plan is ready.
    pub(crate) fn planned(spec: WorkflowSpec, targets: usize) -> Self {
        let mut run = Self::begin(spec);
        run.report(Command::Analysed(Box::new(analysis())));
        let draft = draft_of(&run.state().spec, targets);
        run.report(Command::Planned(Box::new(draft)));
        run
    }

    /// One for so many targets whose plan is approved.
    pub(crate) fn approved(targets: usize) -> Self {
        let mut run = Self::planned(spec(WorkflowKind::Optimization), targets);
        run.approve("bob").unwrap();
        run
    }

    /// One for so many targets of which the first is about to be written.
    pub(crate) fn writing(targets: usize) -> Self {
        let mut run = Self::approved(targets);
        run.report(Command::Intend {
            epoch: 1,
            baseline: None,
        });
        run
    }

    /// One whose targets, so many, all have their settings.
    pub(crate) fn measuring(targets: usize) -> Self {
        let mut run = Self::writing(targets);
        for place in 0..targets {
            if place > 0 {
                run.report(Command::Intend {
                    epoch: 1,
                    baseline: None,
                });
            }
            run.report(written());
            run.report(Command::Ready);
        }
        run
    }

    pub(crate) fn state(&self) -> &Workflow {
        self.state.as_ref().unwrap()
    }

    pub(crate) fn approve(&mut self, who: &str) -> Result<Event, Refusal> {
        let etag = self.state().plan.as_ref().map(|plan| plan.etag.clone());
        self.ask(
            who,
            &Command::Approve {
                etag: etag.unwrap_or_default(),
                note: String::new(),
            },
        )
    }

    /// What the runner reports, and has to be taken.
    pub(crate) fn report(&mut self, command: Command) -> Event {
        let asked = self.ask(RUNNER, &command);
        asked.unwrap_or_else(|refusal| panic!("{command:?}: {refusal:?} in {:?}", self.state))
    }

    /// Puts a command. What is decided is encoded, decoded and taken.
    pub(crate) fn ask(&mut self, who: &str, command: &Command) -> Result<Event, Refusal> {
        let event = decide(self.state.as_ref(), command, who, self.now_us)?;
        let text = encode_event(&event).unwrap();
        assert_eq!(decode_event(&text).as_ref(), Ok(&event), "{text}");
        let sequence = self.log.len() as u64 + 1;
        let recorded = RecordedEvent {
            workflow_id: "w".to_owned(),
            instance_id: "chat".to_owned(),
            // others write to the log too
            revision: 7 * sequence,
            sequence,
            at_us: self.now_us,
            actor: who.to_owned(),
            event: event.clone(),
        };
        let after = evolve(self.state.take(), &recorded);
        self.state = Some(after.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        self.log.push(recorded);
        Ok(event)
    }

    pub(crate) fn wait_seconds(&mut self, seconds: i64) {
        self.now_us += seconds * SECOND_US;
    }
}
