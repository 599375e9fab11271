//! The same of changes that go to a part first: whatever dies when, what harms is undone and goes no further, and what
//! does not goes to all.

use std::collections::BTreeMap;

use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::pb::{WorkflowOutcome, WorkflowStatus};
use tonic::transport::Channel;

use super::calls::{Callers, How, Said, workflows};
use super::rig::{Rig, before, with_cap};
use super::{Fault, Survival};
use crate::slowed::harms;

/// Of each instance; one of them is the first part.
const TARGETS: usize = 3;

/// As many of each.
const FAULTS: [Fault; 10] = [
    Fault::Instant,
    Fault::Point("canary::before_window"),
    Fault::Point("canary::before_verdict"),
    Fault::ToldFailed,
    Fault::Point("canary::after_verdict"),
    Fault::Instant,
    Fault::Point("rollback::before_restore"),
    Fault::Point("actuator::after_write"),
    Fault::Point("rollback::after_restored"),
    Fault::Point("store::after_commit"),
];

/// How often the agent is killed: many times where the full figures are wanted.
fn kills() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_CANARY_KILLS").ok();
    asked.map_or(20, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_CANARY_KILLS is a number")
    })
}

#[tokio::test]
async fn canaries_survive_kills() {
    let rig = Rig::of_an_engine_each(4, TARGETS).await;
    let survival = Survival::of(&rig, How::Canary, &FAULTS, kills(), kills() / 20).await;
    let ends = check(&rig, &survival.callers, &survival.client).await;
    survival.tell(&rig, &ends);
    survival.assert_enough(&rig, &FAULTS, kills() / 20);
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
        let of_it = callers.asked.iter();
        for asked in of_it.filter(|asked| asked.instance_id == *id) {
            let state = &states[asked.workflow_id.as_deref().expect("acknowledged")];
            let prefix = format!("{}.", state.workflow_id);
            let writes = desk.applies.keys().filter(|key| key.starts_with(&prefix));
            let writes = writes.count();
            operations += writes;
            let harm = harms(asked.cap.parse().unwrap());
            let said = asked.rolled_back.max(asked.cancelled);
            let status = state.status();
            let reason = state.failure.as_ref().map(|of| of.reason.as_str());
            let may = match status {
                WorkflowStatus::Completed => !harm && said != Said::Acknowledged,
                // by the verdict, or because somebody asked for it
                WorkflowStatus::RolledBack => {
                    (harm && reason == Some("HARMED")) || said != Said::Not
                }
                WorkflowStatus::Cancelled => {
                    asked.cancelled != Said::Not && asked.rolled_back != Said::Acknowledged
                }
                _ => false,
            };
            assert!(may, "{asked:?} ended wrong: {state:?}");
            match status {
                WorkflowStatus::Completed => {
                    assert_eq!(state.outcome(), WorkflowOutcome::Applied, "{state:?}");
                    assert_eq!(writes, TARGETS, "{state:?}");
                    for content in &mut contents {
                        *content = with_cap(content, &asked.cap);
                    }
                }
                WorkflowStatus::Cancelled => assert_eq!(writes, 0, "{state:?}"),
                // what was not proven went to the first part only
                _ if harm => assert!(writes <= 2, "{state:?}"),
                _ => assert!(writes <= 2 * TARGETS, "{state:?}"),
            }
            let end = match reason {
                Some(reason) => format!("{} {reason}", status.as_str_name()),
                None => status.as_str_name().to_owned(),
            };
            *ends.entry(end).or_default() += 1;
        }
        assert_eq!(desk.contents(), contents, "settings of {id}");
        let twice: Vec<_> = desk.applies.iter().filter(|one| *one.1 != 1).collect();
        assert!(twice.is_empty(), "took effect twice: {twice:?}");
        assert_eq!(desk.applies.len(), operations, "operations of nobody");
    }
    ends
}
