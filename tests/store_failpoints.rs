//! What the store does where a commit goes wrong: before it, after it, and told that it failed where it did not.
//! A program of its own, since failpoints are the whole process's.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use perfagent::store::{
    Advance, Committed, EventFilter, NewWorkflow, Once, SqliteStore, StoreError, WorkflowStore,
};
use perfagent::workflow::{
    Event, GatePolicy, PauseReason, RecordedEvent, Strategy, Timeouts, Workflow, WorkflowKind,
    WorkflowSpec, evolve,
};

const ID: &str = "0190-1";

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn once(request_id: &str) -> Once {
    Once {
        principal: "alice".to_owned(),
        method: "StartWorkflow",
        request_id: request_id.to_owned(),
        digest: [1; 32],
    }
}

fn evolved(state: Option<&Workflow>, recorded: &RecordedEvent) -> Result<Workflow, StoreError> {
    evolve(state.cloned(), recorded).map_err(|error| StoreError::Unreadable(error.to_string()))
}

async fn start(store: &SqliteStore, once: Option<&Once>) -> Result<Committed, StoreError> {
    let event = Event::Started {
        spec: Box::new(WorkflowSpec {
            instance_id: "a".to_owned(),
            kind: WorkflowKind::Analysis,
            actuator: "none".to_owned(),
            changes: BTreeMap::new(),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: false,
            auto_approve: false,
            gate: GatePolicy::default(),
            strategy: Strategy::InPlace,
            timeouts: Timeouts::default(),
            note: String::new(),
        }),
    };
    let start = NewWorkflow {
        workflow_id: ID,
        instance_id: "a",
        register: None,
        actor: "alice",
        event: &event,
        begin: &|recorded| evolved(None, recorded),
        deliver: &|_, _, _| Vec::new(),
    };
    store.start_workflow(&start, once, at()).await
}

async fn pause(store: &SqliteStore, state: &Workflow) -> Result<Committed, StoreError> {
    let event = Event::Paused {
        reason: PauseReason::Requested,
        message: String::new(),
        target: None,
        digest: None,
    };
    let evolve = |recorded: &RecordedEvent| evolved(Some(state), recorded);
    let advance = Advance {
        workflow_id: ID,
        expect_sequence: state.sequence,
        epoch: None,
        actor: "alice",
        event: &event,
        evolve: &evolve,
        snapshots: &[],
        deliver: &|_, _, _| Vec::new(),
    };
    store.advance_workflow(&advance, None, at()).await
}

async fn revisions(store: &SqliteStore) -> Vec<u64> {
    let page = store.events(0, &EventFilter::default(), 100).await.unwrap();
    page.events.iter().map(|event| event.revision).collect()
}

#[tokio::test]
async fn a_commit_that_fails_has_not_been() {
    let faults = fail::FailScenario::setup();
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    fail::cfg("store::before_commit", "1*return->off").unwrap();
    let refused = start(&store, Some(&once("1"))).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(store.workflow(ID).await, Ok(None));
    assert_eq!(store.answered_workflow(&once("1"), at()).await, Ok(None));
    // the same request again, and the revision that was not taken
    let begun = start(&store, Some(&once("1"))).await.unwrap();
    assert_eq!(begun.workflow.revision, 1);
    fail::cfg("store::before_commit", "1*return->off").unwrap();
    let refused = pause(&store, &begun.workflow).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    pause(&store, &begun.workflow).await.unwrap();
    assert_eq!(revisions(&store).await, [1, 2]);
    faults.teardown();
}

#[tokio::test]
async fn a_commit_that_was_told_to_have_failed_has_been() {
    let faults = fail::FailScenario::setup();
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    fail::cfg("store::told_failed", "1*return->off").unwrap();
    let told = start(&store, Some(&once("1"))).await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    // a repeat is answered, and does nothing twice
    let again = start(&store, Some(&once("1"))).await.unwrap();
    assert_eq!((again.workflow.revision, again.event), (1, None));
    // and without an id of the request it is seen that it is there
    assert_eq!(
        start(&store, None).await,
        Err(StoreError::Moved(ID.to_owned()))
    );
    fail::cfg("store::told_failed", "1*return->off").unwrap();
    let told = pause(&store, &again.workflow).await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    let moved = Err(StoreError::Moved(ID.to_owned()));
    assert_eq!(pause(&store, &again.workflow).await, moved);
    assert_eq!(revisions(&store).await, [1, 2]);
    faults.teardown();
}

#[tokio::test]
async fn who_is_broken_off_at_the_commit_holds_up_nobody() {
    let faults = fail::FailScenario::setup();
    let directory = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(SqliteStore::open(directory.path()).await.unwrap());
    let mut begun = start(&store, None).await.unwrap().workflow;
    for (place, is_done) in [
        ("store::before_commit", false),
        ("store::after_commit", true),
    ] {
        fail::cfg(place, "1*panic->off").unwrap();
        let (of_task, state) = (store.clone(), begun.clone());
        let broken = tokio::spawn(async move { pause(&of_task, &state).await }).await;
        assert!(broken.unwrap_err().is_panic());
        let again = pause(&store, &begun).await;
        match is_done {
            false => begun = again.unwrap().workflow,
            true => assert_eq!(again, Err(StoreError::Moved(ID.to_owned()))),
        }
    }
    assert_eq!(revisions(&store).await, [1, 2, 3]);
    faults.teardown();
}
