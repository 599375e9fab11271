//! Any order of starts, transitions, leases and compactions, against a store that is a few maps in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::postgres::{Postgres, open};
use super::support::{
    With, advance_with, failed, id, paused, resumed, rollback_failed, start, started,
};
use super::{at, once};
use crate::store::{EventFilter, EventsPage, Lease, Once, SqliteStore, Store, StoreError};
use crate::workflow::{Event, RecordedEvent, Workflow, WorkflowKind, evolve};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

#[derive(Debug, Clone)]
enum Action {
    Start {
        workflow: u32,
        instance: u8,
        request: Option<(u8, u8)>,
    },
    Advance {
        workflow: u32,
        event: u8,
        is_late: bool,
        lease: Option<u8>,
        request: Option<(u8, u8)>,
    },
    Acquire {
        workflow: u32,
        holder: u8,
    },
    Release {
        lease: u8,
    },
    Compact {
        up_to: u64,
    },
    Read {
        after: u64,
        workflow: Option<u32>,
        size: u32,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let workflow = 0_u32..5;
    // few of them, so that they meet
    let request = proptest::option::weighted(0.3, (0_u8..4, 0_u8..2));
    let lease = proptest::option::weighted(0.5, 0_u8..6);
    prop_oneof![
        3 => (workflow.clone(), 0_u8..3, request.clone())
            .prop_map(|(workflow, instance, request)| Action::Start { workflow, instance, request }),
        8 => (workflow.clone(), 0_u8..5, proptest::bool::weighted(0.1), lease, request).prop_map(
            |(workflow, event, is_late, lease, request)| {
                Action::Advance { workflow, event, is_late, lease, request }
            }
        ),
        2 => (workflow.clone(), 0_u8..2).prop_map(|(workflow, holder)| Action::Acquire { workflow, holder }),
        1 => (0_u8..6).prop_map(|lease| Action::Release { lease }),
        1 => (0_u64..20).prop_map(|up_to| Action::Compact { up_to }),
        3 => (0_u64..20, proptest::option::of(workflow), 0_u32..4)
            .prop_map(|(after, workflow, size)| Action::Read { after, workflow, size }),
    ]
}

fn event_of(kind: u8) -> Event {
    match kind {
        0 => paused(),
        1 => resumed(),
        2 => failed(),
        3 => rollback_failed(),
        _ => Event::Cancelled {
            abandons: true,
            note: String::new(),
        },
    }
}

/// What a store is, by its trait.
#[derive(Default)]
struct Model {
    log: Vec<RecordedEvent>,
    compacted: u64,
    states: BTreeMap<String, Workflow>,
    answers: BTreeMap<u8, (u8, Workflow)>,
    /// Who holds which workflow, by which epoch.
    leases: BTreeMap<String, (String, u64)>,
    epoch: u64,
}

/// What a write gives: the state, and its event where it was not answered before.
type Outcome = Result<(Workflow, Option<RecordedEvent>), StoreError>;

impl Model {
    fn revision(&self) -> u64 {
        self.log.last().map_or(0, |event| event.revision)
    }

    fn answered(&self, request: Option<(u8, u8)>) -> Option<Outcome> {
        let (request, digest) = request?;
        let (before, state) = self.answers.get(&request)?;
        Some(match *before == digest {
            true => Ok((state.clone(), None)),
            false => Err(StoreError::RequestIdReused(request.to_string())),
        })
    }

    fn commit(
        &mut self,
        state: Option<Workflow>,
        recorded: RecordedEvent,
        request: Option<(u8, u8)>,
    ) -> Outcome {
        let next =
            evolve(state, &recorded).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let holder = self.states.values().find(|other| {
            other.spec.instance_id == recorded.instance_id
                && other.workflow_id != recorded.workflow_id
                && other.locks_instance()
        });
        if let Some(holder) = holder.filter(|_| next.locks_instance()) {
            return Err(StoreError::Locked {
                instance_id: recorded.instance_id,
                workflow_id: holder.workflow_id.clone(),
            });
        }
        if let Some((request, digest)) = request {
            self.answers.insert(request, (digest, next.clone()));
        }
        self.states.insert(next.workflow_id.clone(), next.clone());
        self.log.push(recorded.clone());
        Ok((next, Some(recorded)))
    }

    fn start(&mut self, workflow: u32, instance: &str, request: Option<(u8, u8)>) -> Outcome {
        if let Some(before) = self.answered(request) {
            return before;
        }
        if self.states.contains_key(&id(workflow)) {
            return Err(StoreError::Moved(id(workflow)));
        }
        let recorded = RecordedEvent {
            workflow_id: id(workflow),
            instance_id: instance.to_owned(),
            revision: self.revision() + 1,
            sequence: 1,
            at_us: 1_700_000_000_000_000,
            actor: "alice".to_owned(),
            event: started(instance, WorkflowKind::Optimization),
        };
        self.commit(None, recorded, request)
    }

    fn advance(
        &mut self,
        state: &Workflow,
        event: Event,
        epoch: Option<u64>,
        request: Option<(u8, u8)>,
    ) -> Outcome {
        if let Some(before) = self.answered(request) {
            return before;
        }
        let id = state.workflow_id.clone();
        let current = self.states.get(&id).map(|current| current.sequence);
        let held = self.leases.get(&id).map(|(_, epoch)| *epoch);
        if current != Some(state.sequence) || (epoch.is_some() && held != epoch) {
            return Err(StoreError::Moved(id));
        }
        let recorded = RecordedEvent {
            workflow_id: id,
            instance_id: state.spec.instance_id.clone(),
            revision: self.revision() + 1,
            sequence: state.sequence + 1,
            at_us: 1_700_000_005_000_000,
            actor: "bob".to_owned(),
            event,
        };
        self.commit(Some(state.clone()), recorded, request)
    }

    /// What a store's answer has to be, where its epoch is this one.
    fn acquire(
        &mut self,
        workflow_id: String,
        holder: &str,
        epoch: u64,
    ) -> Result<Lease, StoreError> {
        if !self.states.contains_key(&workflow_id) {
            return Err(StoreError::NoWorkflow(workflow_id));
        }
        if let Some((other, _)) = self.leases.get(&workflow_id)
            && other != holder
        {
            let holder = other.clone();
            return Err(StoreError::Leased {
                workflow_id,
                holder,
            });
        }
        assert!(epoch > self.epoch, "{epoch} after {}", self.epoch);
        self.epoch = epoch;
        self.leases
            .insert(workflow_id.clone(), (holder.to_owned(), epoch));
        Ok(Lease {
            workflow_id,
            holder: holder.to_owned(),
            epoch,
        })
    }

    fn compact(&mut self, up_to: u64) -> u64 {
        let is_needed = |event: &&RecordedEvent| {
            event.revision > self.compacted && self.states[&event.workflow_id].locks_instance()
        };
        let needed = self.log.iter().find(is_needed);
        let free = needed.map_or(self.revision(), |event| event.revision - 1);
        self.compacted = self.compacted.max(up_to.min(free));
        self.compacted
    }

    fn read(&self, after: u64, filter: &EventFilter, size: u32) -> Result<EventsPage, StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted {
                oldest_revision: self.compacted,
            });
        }
        let matches = |event: &&RecordedEvent| {
            let id = filter.workflow_id.as_ref();
            event.revision > after && id.is_none_or(|id| *id == event.workflow_id)
        };
        let mut events: Vec<RecordedEvent> = self.log.iter().filter(matches).cloned().collect();
        let more = events.len() > size as usize;
        events.truncate(size as usize);
        let read_to_revision = match more {
            true => events.last().map_or(after, |last| last.revision),
            false => self.revision().max(after),
        };
        Ok(EventsPage {
            events,
            read_to_revision,
            more,
        })
    }
}

/// Of a store's answer what a model gives.
fn outcome(committed: Result<crate::store::Committed, StoreError>) -> Outcome {
    committed.map(|committed| (committed.workflow, committed.event))
}

async fn run(store: &dyn Store, actions: &[Action]) {
    let mut model = Model::default();
    let mut leases: Vec<Lease> = Vec::new();
    let once_of =
        |request: Option<(u8, u8)>| request.map(|(id, digest)| once(&id.to_string(), digest));
    for action in actions {
        match action.clone() {
            Action::Start {
                workflow,
                instance,
                request,
            } => {
                let instance = format!("i{instance}");
                let once: Option<Once> = once_of(request);
                let did = start(store, &id(workflow), &instance, once.as_ref(), at(0)).await;
                assert_eq!(outcome(did), model.start(workflow, &instance, request));
            }
            Action::Advance {
                workflow,
                event,
                is_late,
                lease,
                request,
            } => {
                let Some(mut state) = model.states.get(&id(workflow)).cloned() else {
                    continue;
                };
                if is_late {
                    state.sequence -= 1;
                }
                // a lease that was had once, of this workflow or another
                let lease = lease.and_then(|lease| leases.iter().rev().nth(lease.into()));
                let epoch = lease.map(|lease| lease.epoch);
                let once = once_of(request);
                let with = With {
                    epoch,
                    once: once.as_ref(),
                    ..With::default()
                };
                let did = advance_with(store, &state, &event_of(event), with).await;
                let expected = model.advance(&state, event_of(event), epoch, request);
                assert_eq!(outcome(did), expected);
            }
            Action::Acquire { workflow, holder } => {
                let holder = format!("h{holder}");
                let did = store.acquire_lease(&id(workflow), &holder, HOUR).await;
                leases.extend(did.clone().ok());
                let epoch = did.as_ref().map_or(0, |lease| lease.epoch);
                assert_eq!(did, model.acquire(id(workflow), &holder, epoch));
            }
            Action::Release { lease } => {
                let Some(lease) = leases.iter().rev().nth(lease.into()) else {
                    continue;
                };
                store.release_lease(lease).await.unwrap();
                let held = |(_, epoch): &(String, u64)| *epoch == lease.epoch;
                if model.leases.get(&lease.workflow_id).is_some_and(held) {
                    model.leases.remove(&lease.workflow_id);
                }
            }
            Action::Compact { up_to } => {
                let did = store.compact_events(up_to).await;
                assert_eq!(did, Ok(model.compact(up_to)));
            }
            Action::Read {
                after,
                workflow,
                size,
            } => {
                let filter = EventFilter {
                    workflow_id: workflow.map(id),
                    ..EventFilter::default()
                };
                let did = store.events(after, &filter, size).await;
                assert_eq!(did, model.read(after, &filter, size));
            }
        }
    }
    let all = EventFilter::default();
    let log = store.events(model.compacted, &all, 1_000).await;
    assert_eq!(log, model.read(model.compacted, &all, 1_000));
    let unfinished = model.states.values();
    let unfinished: Vec<String> = unfinished
        .filter(|state| !state.status().has_ended())
        .map(|state| state.workflow_id.clone())
        .collect();
    assert_eq!(store.unfinished_workflows().await, Ok(unfinished));
    for (workflow_id, state) in model.states {
        assert_eq!(store.workflow(&workflow_id).await, Ok(Some(state)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_store_does_what_its_trait_says(actions in proptest::collection::vec(action(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            run(&SqliteStore::open(directory.path()).await.unwrap(), &actions).await;
            let url = Postgres::shared().database().await;
            run(&open(&url).await, &actions).await;
        });
    }
}
