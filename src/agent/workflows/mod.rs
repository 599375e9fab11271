//! Workflows: the verbs of callers, and what carries them on.
//!
//! ```text
//! verb ┐
//! task ┴→ commit: decide → one transaction of the store → log of events → watchers
//! task: next step → measure, plan, actuator → commit
//! ```

mod came;
mod canary;
mod draft;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod fake;
mod lease;
mod log;
mod look;
mod place;
mod plan;
mod quality;
mod route;
mod runner;
mod site;
mod snapshots;
mod start;
mod strategy;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod tidy;
mod verbs;
mod waits;
mod watch;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Agent, Error};
use crate::config::WorkflowsConfig;
use crate::store::{Advance, Once, Snapshot, Store, StoreError, micros};
use crate::webhook::of_transition;
use crate::workflow::{Command, Event, RecordedEvent, Workflow, decide, evolve};

use lease::Leases;

pub use log::LoggedEvent;
pub(super) use log::{EventLog, hinted};
pub use quality::{Prompt, PromptsError, read_prompts};
pub use snapshots::SnapshotsPage;
pub use start::{GateAsked, StartInstance, TimeoutsAsked, WorkflowStart};
pub use strategy::{CanaryAsked, StrategyAsked};
pub use verbs::{WorkflowVerb, WorkflowsPage};
pub use watch::{EventsPart, WatchFrom, WorkflowNews, WorkflowTold};

/// What the agent keeps of workflows beside the store.
#[derive(Debug)]
pub(super) struct Workflows {
    /// What has to be waked for each workflow that has not ended.
    tasks: Mutex<HashMap<String, Arc<Notify>>>,
    /// Workflows that nobody held when it was last looked, with their revisions and how often they were found so.
    idle: Mutex<HashMap<String, (u64, u32)>>,
    /// What this agent carries on.
    leases: Arc<Leases>,
    /// What workflows need, and how long they may take.
    policy: WorkflowsConfig,
    /// Callers have names.
    authenticates: bool,
    /// This process, among those that may hold leases.
    holder: String,
    stop: CancellationToken,
    /// A task came to its end.
    ended: Notify,
}

/// A workflow that nobody holds and that no task here knows is looked at again after so many looks: another version may
/// have made it readable.
const LOOKS_AGAIN: u32 = 30;
/// For tasks to come to the end of what they are about when the agent stops.
const STOP_TIME: Duration = Duration::from_secs(5);

impl Workflows {
    pub(super) fn new(policy: WorkflowsConfig, lease: Duration, authenticates: bool) -> Self {
        Self {
            tasks: Mutex::default(),
            idle: Mutex::default(),
            leases: Leases::new(lease),
            policy,
            authenticates,
            holder: Uuid::now_v7().to_string(),
            stop: CancellationToken::new(),
            ended: Notify::new(),
        }
    }

    /// Prompts that are asked with a change and without.
    fn quality_prompts(&self) -> Option<&Path> {
        self.policy.quality_prompts.as_deref()
    }

    /// This process, among those that may hold leases.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    fn has_tasks(&self) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        !tasks.is_empty()
    }

    fn has_task(&self, id: &str) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.contains_key(id)
    }

    /// Has a workflow looked at by its task, where it has one here.
    fn nudge(&self, id: &str) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = tasks.get(id) {
            wake.notify_one();
        }
    }

    /// Has a workflow looked at: by its task, or by a new one.
    fn wake(&self, agent: &Arc<Agent>, id: &str) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = tasks.get(id) {
            wake.notify_one();
            return;
        }
        if self.stop.is_cancelled() {
            return;
        }
        let wake = Arc::new(Notify::new());
        tasks.insert(id.to_owned(), wake.clone());
        agent.metrics.workflows_unfinished.inc();
        let (weak, id) = (Arc::downgrade(agent), id.to_owned());
        tokio::spawn(async move {
            runner::carry_on(weak.clone(), id.clone(), wake.clone()).await;
            let Some(agent) = weak.upgrade() else { return };
            let Some(workflows) = &agent.workflows else {
                return;
            };
            let mut tasks = workflows
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tasks.remove(&id);
            workflows.ended.notify_one();
            agent.metrics.workflows_unfinished.dec();
            drop(tasks);
            // somebody asked for something while it ended
            if futures_util::FutureExt::now_or_never(wake.notified()).is_some() {
                workflows.wake(&agent, &id);
            }
        });
    }
}

impl Drop for Workflows {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Agent {
    /// Carries on what had not ended when the agent before ended.
    pub(super) async fn resume_workflows(self: &Arc<Self>) -> Result<(), StoreError> {
        let (Some(store), Some(workflows)) = (&self.store, &self.workflows) else {
            return Ok(());
        };
        let idle = store.idle_workflows().await?;
        if !idle.is_empty() {
            tracing::info!(workflows = idle.len(), "carrying on workflows");
        }
        self.adopt(idle);
        let kept = workflows.policy.events_kept;
        tokio::spawn(tidy::forget_old_events(
            Arc::downgrade(self),
            store.clone(),
            kept,
            workflows.stop.clone(),
        ));
        Ok(())
    }

    /// Has workflows looked at that nobody holds, with their revisions. Those that are as they were seen before are not
    /// looked at again, or seldom where no task here knows them.
    pub(super) fn adopt(self: &Arc<Self>, idle: Vec<(String, u64)>) {
        let Some(workflows) = &self.workflows else {
            return;
        };
        let lock = || {
            workflows
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let before = std::mem::take(&mut *lock());
        let mut seen = HashMap::with_capacity(idle.len());
        for (id, revision) in idle {
            let looks = match before.get(&id) {
                Some((same, looks)) if *same == revision => looks.wrapping_add(1),
                _ => 0,
            };
            if looks == 0 || looks % LOOKS_AGAIN == 0 && !workflows.has_task(&id) {
                workflows.wake(self, &id);
            }
            seen.insert(id, (revision, looks));
        }
        *lock() = seen;
    }

    /// Whether a workflow has a task here.
    pub(super) fn has_task(&self, id: &str) -> bool {
        let workflows = self.workflows.as_ref();
        workflows.is_some_and(|workflows| workflows.has_task(id))
    }

    /// Has a workflow looked at by its task, where it has one here.
    pub(super) fn nudge(&self, id: &str) {
        if let Some(workflows) = &self.workflows {
            workflows.nudge(id);
        }
    }

    /// Ends the tasks of workflows; what they had begun is carried on by the next agent.
    pub(super) fn stop_workflows(&self) {
        if let Some(workflows) = &self.workflows {
            workflows.stop.cancel();
        }
    }

    /// Ends what the agent does by itself, and gives up what it holds, so that another agent takes over at once. What is
    /// under way at an engine has some seconds to come to an end.
    pub async fn stop(&self) {
        self.stop_workflows();
        self.stop_webhooks();
        if let Some(workflows) = &self.workflows {
            let ended = async {
                while workflows.has_tasks() {
                    workflows.ended.notified().await;
                }
            };
            if tokio::time::timeout(STOP_TIME, ended).await.is_err() {
                tracing::warn!(
                    "workflows are carried on by the next agent when their leases are over"
                );
            }
        }
        self.leave().await;
    }

    /// What keeps workflows.
    fn workflows_and_store(&self) -> Result<(&Arc<Workflows>, &Arc<dyn Store>), Error> {
        let both = self.workflows.as_ref().zip(self.store.as_ref());
        both.ok_or(Error::NoStore)
    }

    /// Commits what comes of a command, and tells those who watch.
    async fn commit(
        self: &Arc<Self>,
        state: &Workflow,
        command: &Command,
        actor: &str,
        epoch: Option<u64>,
        snapshots: &[Snapshot],
        once: Option<&Once>,
    ) -> Result<Workflow, Error> {
        self.may_act()?;
        let (_, store) = self.workflows_and_store()?;
        let now = SystemTime::now();
        let event = decide(Some(state), command, actor, micros(now))?;
        let next = |recorded: &RecordedEvent| evolved(Some(state.clone()), recorded);
        let labels = self.labels_of(&state.spec.instance_id);
        let advance = Advance {
            workflow_id: &state.workflow_id,
            expect_sequence: state.sequence,
            epoch,
            actor,
            event: &event,
            evolve: &next,
            snapshots,
            deliver: &|recorded, after, webhooks| {
                of_transition(Some(state), recorded, after, &labels, webhooks)
            },
        };
        strike_before(&event);
        let committed = store.advance_workflow(&advance, once, now).await?;
        strike_after(&event);
        if let Some(recorded) = &committed.event {
            tracing::info!(
                workflow_id = recorded.workflow_id,
                instance_id = recorded.instance_id,
                revision = recorded.revision,
                actor = recorded.actor,
                "workflow: {}",
                recorded.event.kind()
            );
            self.metrics.workflow_event(recorded.event.kind());
            if matches!(recorded.event, Event::Ready { .. }) {
                // a replica that was restarted is measured from now on
                self.fleet.retry(&recorded.instance_id);
            }
            self.event_log()?.committed(recorded);
            self.has_to_deliver(committed.deliveries);
        }
        Ok(committed.workflow)
    }
}

fn evolved(state: Option<Workflow>, recorded: &RecordedEvent) -> Result<Workflow, StoreError> {
    evolve(state, recorded).map_err(|error| {
        StoreError::Unreadable(format!("workflow {}: {error}", recorded.workflow_id))
    })
}

/// Points of canaries and of ways back, where tests kill the agent.
fn strike_before(event: &Event) {
    match event {
        Event::Observed { verdict: None, .. } => {
            failpoint!("canary::before_window");
        }
        Event::Observed { .. } => {
            failpoint!("canary::before_verdict");
        }
        Event::RestoreIntended { .. } => {
            failpoint!("rollback::before_restore");
        }
        _ => {}
    }
}

fn strike_after(event: &Event) {
    match event {
        Event::Observed {
            verdict: Some(_), ..
        } => {
            failpoint!("canary::after_verdict");
        }
        Event::Restored { .. } => {
            failpoint!("rollback::after_restored");
        }
        _ => {}
    }
}
