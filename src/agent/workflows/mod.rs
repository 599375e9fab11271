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
mod watch;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Agent, Error};
use crate::config::WorkflowsConfig;
use crate::store::{Advance, Once, Snapshot, Store, StoreError, micros};
use crate::webhook::of_transition;
use crate::workflow::{Command, Event, RecordedEvent, Workflow, decide, evolve};

pub(super) use log::EventLog;
pub use log::LoggedEvent;
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
    /// What workflows need, and how long they may take.
    policy: WorkflowsConfig,
    /// Callers have names.
    authenticates: bool,
    /// This process, among those that may hold leases.
    holder: String,
    stop: CancellationToken,
}

impl Workflows {
    pub(super) fn new(policy: WorkflowsConfig, authenticates: bool) -> Self {
        Self {
            tasks: Mutex::default(),
            policy,
            authenticates,
            holder: Uuid::now_v7().to_string(),
            stop: CancellationToken::new(),
        }
    }

    /// Prompts that are asked with a change and without.
    fn quality_prompts(&self) -> Option<&Path> {
        self.policy.quality_prompts.as_deref()
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
        let unfinished = store.unfinished_workflows().await?;
        if !unfinished.is_empty() {
            tracing::info!(workflows = unfinished.len(), "carrying on workflows");
        }
        for id in unfinished {
            workflows.wake(self, &id);
        }
        let kept = workflows.policy.events_kept;
        tokio::spawn(tidy::forget_old_events(
            store.clone(),
            kept,
            workflows.stop.clone(),
        ));
        Ok(())
    }

    /// Ends the tasks of workflows; what they had begun is carried on by the next agent.
    pub(super) fn stop_workflows(&self) {
        if let Some(workflows) = &self.workflows {
            workflows.stop.cancel();
        }
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
