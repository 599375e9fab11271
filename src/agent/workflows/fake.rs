//! A store in memory that has a log and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::store::{
    Advance, Committed, EventFilter, EventsPage, Lease, NewWorkflow, Once, Snapshot, StoreError,
    WorkflowFilter, WorkflowStore,
};
use crate::workflow::{
    Event, GatePolicy, PauseReason, RecordedEvent, Strategy, Timeouts, Workflow, WorkflowKind,
    WorkflowSpec, evolve,
};

#[derive(Debug, Default)]
pub(super) struct FakeStore(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    events: Vec<RecordedEvent>,
    states: BTreeMap<String, Workflow>,
    compacted: u64,
    reads: usize,
}

impl FakeStore {
    /// How often the log was read.
    pub(super) fn reads(&self) -> usize {
        self.0.lock().unwrap().reads
    }

    pub(super) fn log(&self) -> Vec<RecordedEvent> {
        self.0.lock().unwrap().events.clone()
    }

    pub(super) fn state(&self, id: &str) -> Option<Workflow> {
        self.0.lock().unwrap().states.get(id).cloned()
    }

    /// Forgets the log up to here, but nothing of workflows that have not ended.
    pub(super) fn compact(&self, up_to: u64) {
        let mut kept = self.0.lock().unwrap();
        let needed = |event: &&RecordedEvent| {
            let state = kept.states.get(&event.workflow_id).unwrap();
            !state.status().has_ended()
        };
        let needed = kept
            .events
            .iter()
            .find(needed)
            .map(|event| event.revision - 1);
        let end = up_to.min(needed.unwrap_or(u64::MAX));
        kept.compacted = kept.compacted.max(end);
    }

    pub(super) fn compacted(&self) -> u64 {
        self.0.lock().unwrap().compacted
    }

    /// Starts a workflow, or has it paused and resumed by turns.
    pub(super) fn go_on(&self, workflow_id: &str, instance_id: &str) -> RecordedEvent {
        let paused = self.state(workflow_id).map(|state| state.pause.is_some());
        let event = match paused {
            None => Event::Started {
                spec: Box::new(spec(instance_id)),
            },
            Some(false) => Event::Paused {
                reason: PauseReason::Requested,
                message: "For a while.".to_owned(),
                target: None,
                digest: None,
            },
            Some(true) => Event::Resumed {
                note: String::new(),
            },
        };
        self.commit(workflow_id, instance_id, event)
    }

    pub(super) fn cancel(&self, workflow_id: &str, instance_id: &str) -> RecordedEvent {
        let event = Event::Cancelled {
            abandons: false,
            note: String::new(),
        };
        self.commit(workflow_id, instance_id, event)
    }

    fn commit(&self, workflow_id: &str, instance_id: &str, event: Event) -> RecordedEvent {
        let mut kept = self.0.lock().unwrap();
        let before = kept.states.remove(workflow_id);
        let event = RecordedEvent {
            workflow_id: workflow_id.to_owned(),
            instance_id: instance_id.to_owned(),
            revision: u64::try_from(kept.events.len()).unwrap() + 1,
            sequence: before.as_ref().map_or(0, |state| state.sequence) + 1,
            at_us: 1_790_000_000_000_000,
            actor: "alice".to_owned(),
            event,
        };
        let after = evolve(before, &event).unwrap();
        kept.states.insert(workflow_id.to_owned(), after);
        kept.events.push(event.clone());
        event
    }
}

fn spec(instance_id: &str) -> WorkflowSpec {
    WorkflowSpec {
        instance_id: instance_id.to_owned(),
        kind: WorkflowKind::Optimization,
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
    }
}

#[async_trait]
impl WorkflowStore for FakeStore {
    async fn workflow(&self, workflow_id: &str) -> Result<Option<Workflow>, StoreError> {
        Ok(self.state(workflow_id))
    }

    async fn workflows(
        &self,
        filter: &WorkflowFilter,
        _: Option<&str>,
        size: u32,
    ) -> Result<Vec<Workflow>, StoreError> {
        let kept = self.0.lock().unwrap();
        let of = |state: &&Workflow| {
            let instance = filter.instance_id.as_ref();
            instance.is_none_or(|id| *id == state.spec.instance_id)
                && filter.statuses.contains(&state.status())
        };
        let size = usize::try_from(size).unwrap();
        Ok(kept
            .states
            .values()
            .filter(of)
            .take(size)
            .cloned()
            .collect())
    }

    async fn unfinished_workflows(&self) -> Result<Vec<String>, StoreError> {
        let kept = self.0.lock().unwrap();
        let unfinished = kept.states.values().filter(|one| !one.status().has_ended());
        Ok(unfinished.map(|one| one.workflow_id.clone()).collect())
    }

    async fn events(
        &self,
        after_revision: u64,
        filter: &EventFilter,
        size: u32,
    ) -> Result<EventsPage, StoreError> {
        let mut kept = self.0.lock().unwrap();
        kept.reads += 1;
        if after_revision < kept.compacted {
            return Err(StoreError::Compacted {
                oldest_revision: kept.compacted,
            });
        }
        let is = |asked: &Option<String>, of: &String| asked.as_ref().is_none_or(|id| id == of);
        let mut found = kept
            .events
            .iter()
            .filter(|event| event.revision > after_revision)
            .filter(|event| is(&filter.workflow_id, &event.workflow_id))
            .filter(|event| is(&filter.instance_id, &event.instance_id));
        let size = usize::try_from(size).unwrap();
        let events: Vec<_> = found.by_ref().take(size).cloned().collect();
        let more = found.next().is_some();
        let end = u64::try_from(kept.events.len()).unwrap();
        let read_to_revision = match (more, events.last()) {
            (true, Some(last)) => last.revision,
            _ => end.max(after_revision),
        };
        Ok(EventsPage {
            events,
            read_to_revision,
            more,
        })
    }

    async fn idle_workflows(&self) -> Result<Vec<(String, u64)>, StoreError> {
        unreachable!("watchers carry nothing on")
    }

    async fn start_workflow(
        &self,
        _: &NewWorkflow<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Committed, StoreError> {
        unreachable!("watchers only read")
    }

    async fn advance_workflow(
        &self,
        _: &Advance<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Committed, StoreError> {
        unreachable!("watchers only read")
    }

    async fn answered_workflow(
        &self,
        _: &Once,
        _: SystemTime,
    ) -> Result<Option<Workflow>, StoreError> {
        unreachable!("watchers ask for nothing")
    }

    async fn compact_events(&self, _: u64) -> Result<u64, StoreError> {
        unreachable!("watchers only read")
    }

    async fn revision_before(&self, _: SystemTime) -> Result<u64, StoreError> {
        unreachable!("watchers know revisions")
    }

    async fn acquire_lease(&self, _: &str, _: &str, _: Duration) -> Result<Lease, StoreError> {
        unreachable!("watchers hold nothing")
    }

    async fn renew_leases(&self, _: &[Lease], _: Duration) -> Result<BTreeSet<String>, StoreError> {
        unreachable!("watchers hold nothing")
    }

    async fn release_lease(&self, _: &Lease) -> Result<(), StoreError> {
        unreachable!("watchers hold nothing")
    }

    async fn put_snapshot(&self, _: &Snapshot) -> Result<(), StoreError> {
        unreachable!("watchers only read")
    }

    async fn snapshot(&self, _: &str) -> Result<Option<Snapshot>, StoreError> {
        unreachable!("watchers see no settings")
    }

    async fn snapshots(
        &self,
        _: Option<&str>,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<Snapshot>, StoreError> {
        unreachable!("watchers see no settings")
    }
}
