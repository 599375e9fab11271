//! The agent is killed, at any instant and at every point where something is committed or written, and carries on: nothing
//! that was acknowledged is lost, nothing takes effect twice, and every workflow ends where it has to.

#[path = "killed/agents.rs"]
mod agents;
#[path = "killed/calls.rs"]
mod calls;
#[path = "killed/canaries.rs"]
mod canaries;
#[path = "killed/cut.rs"]
mod cut;
#[path = "killed/database.rs"]
mod database;
#[path = "killed/desk.rs"]
mod desk;
#[path = "killed/replicas.rs"]
mod replicas;
#[path = "killed/rig.rs"]
mod rig;
#[path = "killed/split.rs"]
mod split;
#[path = "killed/witness.rs"]
mod witness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::pb::{WorkflowOutcome, WorkflowStatus};
use tonic::transport::Channel;

use calls::{Callers, How, Said, Watcher, log, workflows};
use rig::{Random, Rig, Running, before, until, with_cap};

/// Of each instance.
const TARGETS: usize = 2;

/// What ends a life of the agent.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL at any instant.
    Instant,
    /// The same, and before it some commits that are done and say that they failed.
    ToldFailed,
    /// SIGKILL at this point.
    Point(&'static str),
    /// It is stopped for longer than others wait for it, and then goes on.
    StandsStill,
}

/// As many of each.
const FAULTS: [Fault; 8] = [
    Fault::Instant,
    Fault::Point("store::before_commit"),
    Fault::ToldFailed,
    Fault::Point("actuator::before_write"),
    Fault::Instant,
    Fault::Point("store::after_commit"),
    Fault::Instant,
    Fault::Point("actuator::after_write"),
];

/// How often the agent is killed: many times where the full figures are wanted.
fn kills() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_KILLS").ok();
    asked.map_or(50, |text| {
        text.parse().expect("PERFAGENT_TEST_KILLS is a number")
    })
}

/// What makes a run the same as one before.
fn seed() -> u64 {
    let seed = std::env::var("PERFAGENT_TEST_SEED").ok();
    let seed = seed.map_or_else(
        || u64::from(std::process::id()) << 20 | 1,
        |text| text.parse().unwrap(),
    );
    println!("PERFAGENT_TEST_SEED={seed}");
    seed
}

/// The fault of a round: each in its turn, and after so many rounds those that have not struck so often yet, for as many more.
fn next_fault(
    rig: &Rig,
    faults: &[Fault],
    (round, rounds): (usize, usize),
    least: usize,
) -> Option<Fault> {
    if round < rounds {
        return Some(faults[round % faults.len()]);
    }
    let struck = rig.struck();
    let lacks = |fault: &&Fault| {
        let times = fault.failpoint().and_then(|name| struck.get(name));
        fault.failpoint().is_some() && times.copied().unwrap_or(0) < least as u64
    };
    let goes_on = cfg!(feature = "failpoints") && round < 2 * rounds;
    faults.iter().find(lacks).copied().filter(|_| goes_on)
}

impl Fault {
    /// What it strikes by.
    fn failpoint(self) -> Option<&'static str> {
        match self {
            Self::Point(name) => Some(name),
            Self::ToldFailed => Some("store::told_failed"),
            Self::Instant | Self::StandsStill => None,
        }
    }

    /// As the agent reads it. It strikes at the first, or some later time; sooner where the agent is one of so many, which
    /// share the work.
    fn failpoints(self, random: &mut Random, agents: u64) -> String {
        match self {
            Self::Instant | Self::StandsStill => String::new(),
            Self::ToldFailed => format!("store::told_failed={}%return", 10 * agents),
            Self::Point(name) => {
                let skipped = match name.split_once("::") {
                    Some(("store", _)) => random.below(60 / agents.pow(2)),
                    Some(("actuator", _)) => random.below(6 / agents),
                    _ => random.below(2),
                };
                match skipped {
                    0 => format!("{name}=panic"),
                    skipped => format!("{name}={skipped}*off->panic"),
                }
            }
        }
    }

    /// Waits until the agent is dead.
    async fn strikes(self, running: &mut Running, after: Duration) {
        let patience = match self {
            Self::Point(_) if cfg!(feature = "failpoints") => Duration::from_secs(5),
            _ => after,
        };
        if tokio::time::timeout(patience, running.child.wait())
            .await
            .is_err()
        {
            running.child.start_kill().unwrap();
            running.child.wait().await.unwrap();
        }
    }
}

#[tokio::test]
async fn workflows_survive_kills() {
    let rig = Rig::of_one_engine(4, TARGETS).await;
    let survival = Survival::of(&rig, How::InPlace, &FAULTS, kills(), kills() / 16).await;
    let ends = check(&rig, &survival.callers, &survival.client).await;
    survival.tell(&rig, &ends);
    survival.assert_enough(&rig, &FAULTS, kills() / 16);
}

/// What was asked for while the agent was killed, once all of it has ended.
struct Survival {
    callers: Callers,
    watcher: Watcher,
    /// Of the agent that saw the end.
    client: WorkflowServiceClient<Channel>,
    events: usize,
    kills: usize,
    killed_at_any_instant: u32,
    took: Duration,
    told_failed: u64,
    _running: Running,
}

impl Survival {
    /// Kills the agent so often while callers ask for workflows, and on until each point has struck so often, and waits until
    /// all have ended.
    async fn of(rig: &Rig, how: How, faults: &[Fault], kills: usize, least: usize) -> Self {
        let mut random = Random(seed());
        let begin = Instant::now();
        rig.tell_failed(0.15);
        let mut callers = Callers::new(&rig.instances, how, random.below(1 << 40));
        let mut watcher = Watcher::default();
        let mut killed_at_any_instant = 0;
        let mut rounds = 0;
        while let Some(fault) = next_fault(rig, faults, (rounds, kills), least) {
            rounds += 1;
            let failpoints = fault.failpoints(&mut random, 1);
            let longest = match how {
                How::InPlace => 1_500,
                How::Canary => 4_000,
            };
            let after = Duration::from_millis(100 + random.below(longest - 100));
            let Some(mut running) = rig.serve(&failpoints).await else {
                continue;
            };
            let client = running.client.clone();
            tokio::select! {
                () = fault.strikes(&mut running, after) => {}
                never = callers.ask_on(&client) => match never {},
                () = watcher.watch(&client, None) => {}
            }
            killed_at_any_instant += u32::from(!matches!(fault, Fault::Point(_)));
        }
        let took = begin.elapsed();

        rig.tell_failed(0.0);
        let running = rig.serve("").await.expect("the agent serves");
        Self::at_the_end(
            rig,
            (callers, watcher),
            running,
            (rounds, killed_at_any_instant, took),
        )
        .await
    }

    /// Waits with the last agent until all that was asked for has ended and the watcher knows of it.
    async fn at_the_end(
        rig: &Rig,
        (mut callers, mut watcher): (Callers, Watcher),
        running: Running,
        (kills, killed_at_any_instant, took): (usize, u32, Duration),
    ) -> Self {
        let client = running.client.clone();
        until("all workflows have ended", async || {
            callers.finish(&client).await.then_some(())
        })
        .await;
        let log = log(&client).await;
        let last = log.last().map(|event| event.revision);
        let told = tokio::time::timeout(Duration::from_secs(60), watcher.watch(&client, last));
        told.await.expect("the watcher is told everything");
        assert!(watcher.knows(&log), "the watcher was not told everything");
        watcher.assert_kept(&log);
        watcher.first_steps.sort_by(f64::total_cmp);
        let desks = rig.instances.iter().map(|id| rig.desk(id));
        Self {
            callers,
            watcher,
            client,
            events: log.len(),
            kills,
            killed_at_any_instant,
            took,
            told_failed: desks.map(|desk| desk.told_failed).sum(),
            _running: running,
        }
    }

    fn tell(&self, rig: &Rig, ends: &BTreeMap<String, u32>) {
        let steps = &self.watcher.first_steps;
        let step = |share: usize| steps.get(steps.len() * share / 100).unwrap_or(&f64::NAN);
        println!(
            "{} kills in {:.0?}, {} at any instant; failpoints that struck: {:?}; writes that took effect and said that \
             they failed: {}; {} workflows ended {ends:?}; {} events; after a restart the first step came in {:.1} s \
             (median), {:.1} s (90 %); lost 0, applied twice 0, wrong ends 0",
            self.kills,
            self.took,
            self.killed_at_any_instant,
            rig.struck(),
            self.told_failed,
            self.callers.asked.len(),
            self.events,
            step(50),
            step(90),
        );
    }

    /// Nothing is proven where too little went wrong.
    fn assert_enough(&self, rig: &Rig, faults: &[Fault], least: usize) {
        assert!(self.told_failed as usize >= least, "too few faults");
        assert!(self.callers.asked.len() >= least, "too few workflows");
        if !cfg!(feature = "failpoints") {
            return;
        }
        let struck = rig.struck();
        for fault in faults {
            let Some(name) = fault.failpoint() else {
                continue;
            };
            let times = struck.get(name).copied().unwrap_or(0);
            assert!(times as usize >= least, "{name} struck only {times} times");
        }
    }
}

/// Whether all is as it has to be, and how many ended in what.
async fn check(
    rig: &Rig,
    callers: &Callers,
    client: &WorkflowServiceClient<Channel>,
) -> BTreeMap<String, u32> {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let states = workflows(client).await;
    assert_eq!(
        states.len(),
        callers.asked.len(),
        "as many as were asked for, and no more"
    );
    for id in &rig.instances {
        let desk = rig.desk(id);
        let mut contents: Vec<Vec<u8>> = (0..TARGETS).map(before).collect();
        let mut operations = 0;
        for asked in callers
            .asked
            .iter()
            .filter(|asked| asked.instance_id == *id)
        {
            let state = &states[asked.workflow_id.as_deref().expect("acknowledged")];
            let prefix = format!("{}.", state.workflow_id);
            let of_it = desk.applies.keys().filter(|key| key.starts_with(&prefix));
            let of_it = of_it.count();
            operations += of_it;
            let status = state.status();
            let said = asked.rolled_back.max(asked.cancelled);
            let may = match status {
                WorkflowStatus::Completed => said != Said::Acknowledged,
                WorkflowStatus::RolledBack => said != Said::Not,
                WorkflowStatus::Cancelled => {
                    asked.cancelled != Said::Not && asked.rolled_back != Said::Acknowledged
                }
                _ => false,
            };
            assert!(may, "{asked:?} ended wrong: {state:?}");
            match status {
                WorkflowStatus::Completed => {
                    let outcome = state.outcome();
                    let applied = [WorkflowOutcome::Applied, WorkflowOutcome::AppliedUnmeasured];
                    assert!(applied.contains(&outcome), "{state:?}");
                    assert_eq!(of_it, TARGETS, "{state:?}");
                    for content in &mut contents {
                        *content = with_cap(content, &asked.cap);
                    }
                }
                WorkflowStatus::Cancelled => assert_eq!(of_it, 0, "{state:?}"),
                _ => assert!(of_it <= 2 * TARGETS, "{state:?}"),
            }
            *ends.entry(status.as_str_name().to_owned()).or_default() += 1;
        }
        assert_eq!(desk.contents(), contents, "settings of {id}");
        let twice: Vec<_> = desk.applies.iter().filter(|one| *one.1 != 1).collect();
        assert!(twice.is_empty(), "took effect twice: {twice:?}");
        assert_eq!(desk.applies.len(), operations, "operations of nobody");
    }
    ends
}
