//! Workflows where an actuator takes only so many at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::bench::{BEFORE, Bench, cap, rollback};
use crate::agent::{TimeoutsAsked, WorkflowStart, WorkflowVerb};
use crate::workflow::{Phase, Status};

fn at_once() -> WorkflowStart {
    WorkflowStart {
        auto_approve: true,
        ..cap("8")
    }
}

/// With room for nobody.
async fn full() -> Bench {
    let bench = Bench::new(1).await;
    bench.actuator.desk().room = Some(Arc::new(Semaphore::new(0)));
    bench
}

/// A workflow that asks for room to make its plan.
async fn waiting(bench: &Bench) -> String {
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    bench
        .state(&id, |state| state.phase == Phase::Planning)
        .await;
    id
}

#[tokio::test]
async fn who_waits_for_room_can_be_cancelled() {
    let bench = full().await;
    let id = waiting(&bench).await;
    let cancel = WorkflowVerb::Cancel {
        acknowledge: false,
        note: String::new(),
    };
    bench.ask(&id, cancel).await.unwrap();
    assert_eq!(bench.ended(&id).await.status(), Status::Cancelled);
}

#[tokio::test]
async fn it_goes_on_once_there_is_room_and_gives_it_back() {
    let bench = full().await;
    let id = waiting(&bench).await;
    let room = bench.actuator.desk().room.clone().unwrap();
    room.add_permits(1);
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::Completed, "{done:#?}");
    assert_eq!(room.available_permits(), 1);
}

#[tokio::test]
async fn who_waits_for_room_in_vain_is_told_so() {
    let bench = full().await;
    let start = WorkflowStart {
        timeouts: TimeoutsAsked {
            plan: Some(Duration::from_secs(1)),
            ..TimeoutsAsked::default()
        },
        ..at_once()
    };
    let id = bench.start(start).await.unwrap().workflow_id;
    let done = bench.ended(&id).await;
    let failure = done.failure.unwrap();
    assert!(failure.message.contains("max_concurrent"), "{failure:?}");
}

#[tokio::test]
async fn what_is_undone_waits_for_nobody() {
    let bench = Bench::new(1).await;
    bench.actuator.desk().loads_for = u32::MAX;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    let waits =
        |state: &crate::workflow::Workflow| matches!(state.phase, Phase::AwaitingReady { .. });
    bench.state(&id, waits).await;
    bench.actuator.desk().room = Some(Arc::new(Semaphore::new(0)));
    bench.ask(&id, rollback()).await.unwrap();
    bench.actuator.desk().loads_for = 0;
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert_eq!(bench.actuator.contents(), [BEFORE]);
}
