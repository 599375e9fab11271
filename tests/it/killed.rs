//! The agent is killed, at any instant and at every point where something is committed or written, and carries on: nothing
//! that was acknowledged is lost, nothing takes effect twice, and every workflow ends where it has to.

#[path = "killed/calls.rs"]
mod calls;
#[path = "killed/rig.rs"]
mod rig;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::pb::{WorkflowOutcome, WorkflowStatus};
use tonic::transport::Channel;

use calls::{Callers, Said, Watcher, log, workflows};
use rig::{Random, Rig, Running, TARGETS, before, until, with_cap};

/// What ends a life of the agent.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL at any instant.
    Instant,
    /// The same, and before it some commits that are done and say that they failed.
    ToldFailed,
    /// SIGKILL at this point.
    Point(&'static str),
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

impl Fault {
    /// As the agent reads it. It strikes at the first, or some later time.
    fn failpoints(self, random: &mut Random) -> String {
        match self {
            Self::Instant => String::new(),
            Self::ToldFailed => "store::told_failed=10%return".to_owned(),
            Self::Point(name) => {
                let skipped = match name.starts_with("store") {
                    true => random.below(60),
                    false => random.below(6),
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
    let kills = kills();
    let seed = std::env::var("PERFAGENT_TEST_SEED").ok();
    let seed = seed.map_or_else(
        || u64::from(std::process::id()) << 20 | 1,
        |text| text.parse().unwrap(),
    );
    println!("PERFAGENT_TEST_SEED={seed}");
    let mut random = Random(seed);
    let begin = Instant::now();
    let rig = Rig::new(4).await;
    rig.tell_failed(0.15);
    let mut callers = Callers::new(&rig.instances, random.below(1 << 40));
    let mut watcher = Watcher::default();
    let mut killed_at_any_instant = 0;
    for round in 0..kills {
        let fault = FAULTS[round % FAULTS.len()];
        let failpoints = fault.failpoints(&mut random);
        let after = Duration::from_millis(100 + random.below(1_400));
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
    let survived = begin.elapsed();

    rig.tell_failed(0.0);
    let running = rig.serve("").await.expect("the agent serves");
    let client = &running.client;
    until("all workflows have ended", async || {
        callers.finish(client).await.then_some(())
    })
    .await;
    let log = log(client).await;
    let last = log.last().map(|event| event.revision);
    let told = tokio::time::timeout(Duration::from_secs(60), watcher.watch(client, last));
    told.await.expect("the watcher is told everything");
    assert!(watcher.knows(&log), "the watcher was not told everything");
    watcher.assert_kept(&log);
    let ends = check(&rig, &callers, client).await;
    let desks = rig.instances.iter().map(|id| rig.desk(id));
    let told_failed: u64 = desks.map(|desk| desk.told_failed).sum();
    let struck = rig.struck();
    watcher.first_steps.sort_by(f64::total_cmp);
    let steps = &watcher.first_steps;
    let step = |share: usize| steps.get(steps.len() * share / 100).unwrap_or(&f64::NAN);
    println!(
        "{kills} kills in {survived:.0?}, {killed_at_any_instant} at any instant; failpoints that struck: {struck:?}; \
         writes that took effect and said that they failed: {told_failed}; {} workflows ended {ends:?}; \
         {} events; after a restart the first step came in {:.1} s (median), {:.1} s (90 %); lost 0, applied twice 0, \
         wrong ends 0",
        callers.asked.len(),
        log.len(),
        step(50),
        step(90),
    );
    let least = kills / 16;
    assert!(told_failed as usize >= least, "too few faults");
    assert!(callers.asked.len() >= least, "too few workflows");
    if cfg!(feature = "failpoints") {
        let points = FAULTS.iter().filter_map(|fault| match fault {
            Fault::Point(name) => Some(*name),
            Fault::ToldFailed => Some("store::told_failed"),
            Fault::Instant => None,
        });
        for name in points {
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
) -> BTreeMap<&'static str, u32> {
    let mut ends: BTreeMap<&'static str, u32> = BTreeMap::new();
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
            *ends.entry(status.as_str_name()).or_default() += 1;
        }
        assert_eq!(desk.contents, contents, "settings of {id}");
        let twice: Vec<_> = desk.applies.iter().filter(|one| *one.1 != 1).collect();
        assert!(twice.is_empty(), "took effect twice: {twice:?}");
        assert_eq!(desk.applies.len(), operations, "operations of nobody");
    }
    ends
}
