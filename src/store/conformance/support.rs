//! Workflows to write down: small ones, as `evolve` makes them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::store::{
    Advance, Committed, EventFilter, Lease, NewWorkflow, Once, Snapshot, SnapshotTarget, Store,
    StoreError,
};
use crate::webhook::NewDelivery;
use crate::workflow::{
    Event, Failure, GatePolicy, PauseReason, RecordedEvent, Strategy, Timeouts, Workflow,
    WorkflowKind, WorkflowSpec, evolve,
};

use super::at;

/// What there is of workflow `number`: in the order of the numbers, as UUIDv7 are in the order of time.
pub(super) fn id(number: u32) -> String {
    format!("0190-{number:08}")
}

/// Has one lease for longer.
pub(super) async fn renew(
    store: &dyn Store,
    lease: &Lease,
    time: Duration,
) -> Result<(), StoreError> {
    let renewed = store
        .renew_leases(std::slice::from_ref(lease), time)
        .await?;
    match renewed.contains(&lease.workflow_id) {
        true => Ok(()),
        false => Err(StoreError::Moved(lease.workflow_id.clone())),
    }
}

pub(super) fn started(instance_id: &str, kind: WorkflowKind) -> Event {
    Event::Started {
        spec: Box::new(WorkflowSpec {
            instance_id: instance_id.to_owned(),
            kind,
            actuator: "host".to_owned(),
            changes: BTreeMap::from([
                ("max_num_seqs".to_owned(), Some("64".to_owned())),
                ("enforce_eager".to_owned(), None),
            ]),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: true,
            auto_approve: false,
            gate: GatePolicy::default(),
            strategy: Strategy::InPlace,
            timeouts: Timeouts {
                // what decimals cannot say exactly comes back as it was
                plan_seconds: 0.1 + 0.2,
                ..Timeouts::default()
            },
            note: "it's \"slow\" \u{1f422}\n".to_owned(),
        }),
    }
}

pub(super) fn paused() -> Event {
    Event::Paused {
        reason: PauseReason::Requested,
        message: "alice paused it.".to_owned(),
        target: None,
        digest: None,
    }
}

pub(super) fn resumed() -> Event {
    Event::Resumed {
        note: String::new(),
    }
}

pub(super) fn failed() -> Event {
    Event::Failed {
        failure: Failure {
            reason: "INTERNAL".to_owned(),
            message: "It broke.".to_owned(),
            hint: String::new(),
        },
    }
}

/// It ends, and what it changed could not be restored: the instance stays locked.
pub(super) fn rollback_failed() -> Event {
    Event::RollbackFailed {
        failure: Failure {
            reason: "ACTUATOR_FAILED".to_owned(),
            message: "The host is gone.".to_owned(),
            hint: String::new(),
        },
    }
}

pub(super) fn evolved(
    state: Option<&Workflow>,
    recorded: &RecordedEvent,
) -> Result<Workflow, StoreError> {
    evolve(state.cloned(), recorded).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) async fn start(
    store: &dyn Store,
    workflow_id: &str,
    instance_id: &str,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Committed, StoreError> {
    let event = started(instance_id, WorkflowKind::Optimization);
    let start = NewWorkflow {
        workflow_id,
        instance_id,
        register: None,
        actor: "alice",
        event: &event,
        begin: &|recorded| evolved(None, recorded),
        deliver: &|_, _, _| Vec::new(),
    };
    store.start_workflow(&start, once, now).await
}

/// Another event of a workflow that is as it was read.
pub(super) async fn advance(
    store: &dyn Store,
    state: &Workflow,
    event: &Event,
) -> Result<Committed, StoreError> {
    advance_with(store, state, event, With::default()).await
}

/// What else there may be to a transition.
#[derive(Default)]
pub(super) struct With<'w> {
    pub(super) epoch: Option<u64>,
    pub(super) snapshots: &'w [Snapshot],
    pub(super) deliveries: &'w [NewDelivery],
    pub(super) once: Option<&'w Once>,
    pub(super) fails: Option<StoreError>,
}

pub(super) async fn advance_with(
    store: &dyn Store,
    state: &Workflow,
    event: &Event,
    with: With<'_>,
) -> Result<Committed, StoreError> {
    let evolve = |recorded: &RecordedEvent| match &with.fails {
        Some(error) => Err(error.clone()),
        None => evolved(Some(state), recorded),
    };
    let advance = Advance {
        workflow_id: &state.workflow_id,
        expect_sequence: state.sequence,
        epoch: with.epoch,
        actor: "bob",
        event,
        evolve: &evolve,
        snapshots: with.snapshots,
        deliver: &|_, _, _| with.deliveries.to_vec(),
    };
    store.advance_workflow(&advance, with.once, at(5)).await
}

/// The end of the log.
pub(super) async fn revision(store: &dyn Store) -> u64 {
    let for_ever = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    store.revision_before(for_ever).await.unwrap()
}

/// Fails it, so that its instance is free for the next test.
pub(super) async fn end(store: &dyn Store, workflow_id: &str) {
    let state = store.workflow(workflow_id).await.unwrap().unwrap();
    advance(store, &state, &failed()).await.unwrap();
}

/// All that a store has of the log.
pub(super) async fn whole_log(store: &dyn Store, after: u64) -> Vec<RecordedEvent> {
    let page = store.events(after, &EventFilter::default(), 100_000).await;
    let page = page.unwrap();
    assert!(!page.more);
    page.events
}

/// A delivery to `pager`, in order with those of the same workflow.
pub(super) fn delivery(id: &str) -> NewDelivery {
    NewDelivery {
        delivery_id: id.to_owned(),
        webhook_id: "pager".to_owned(),
        ordered_by: "workflow/0190-o".to_owned(),
        kind: "workflow.status_changed".to_owned(),
        workflow_id: Some("0190-o".to_owned()),
        instance_id: "o".to_owned(),
        revision: Some(7),
        body: "{\"type\":\"workflow.status_changed\"}".to_owned(),
    }
}

pub(super) fn snapshot(id: &str, instance_id: &str) -> Snapshot {
    let target = |name: &str, content: &[u8]| SnapshotTarget {
        name: name.to_owned(),
        revision: "r7".to_owned(),
        digest: "ab".repeat(32),
        launch_args: vec!["--max-num-seqs".to_owned(), "***".to_owned()],
        content: content.to_vec(),
    };
    Snapshot {
        snapshot_id: id.to_owned(),
        instance_id: instance_id.to_owned(),
        actuator: "host".to_owned(),
        created_us: 1_700_000_000_000_001,
        created_by: "alice".to_owned(),
        workflow_id: None,
        note: "before the upgrade".to_owned(),
        is_planned: false,
        // not in the order of the names, and any bytes
        targets: vec![target("b", &[0, 255, 10, 13]), target("a", b"")],
    }
}
