//! What callers can do: start workflows, look at them, and say how they go on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use uuid::Uuid;

use super::start::{StartInstance, WorkflowStart, note_violation};
use super::{Workflows, came::Came, evolved, micros};
use crate::agent::instances::{once, request_id_violation};
use crate::agent::{Agent, Caller, Error, FieldViolation};
use crate::instance::InstanceSpec;
use crate::store::{EventFilter, NewWorkflow, Once, Store, StoreError, WorkflowFilter};
use crate::webhook::of_transition;
use crate::workflow::{
    Command, Event, RecordedEvent, Status, Step, StepEffect, Workflow, WorkflowKind, WorkflowSpec,
    decide, next_step,
};

/// How a workflow is to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum WorkflowVerb {
    /// Agree to its plan.
    Approve {
        /// Etag of the plan that was read; none for the plan as it is.
        etag: Option<String>,
        /// The caller's words.
        note: String,
    },
    /// Refuse its plan.
    Reject {
        /// The caller's words.
        note: String,
    },
    /// Let it stand still.
    Pause {
        /// The caller's words.
        note: String,
    },
    /// Let it go on.
    Resume {
        /// The caller's words.
        note: String,
    },
    /// End it.
    Cancel {
        /// Leave settings as they are that could not be restored.
        acknowledge: bool,
        /// The caller's words.
        note: String,
    },
    /// Restore what was changed.
    Rollback {
        /// The caller's words.
        note: String,
    },
}

/// A part of the list of workflows.
#[derive(Debug, Clone)]
pub struct WorkflowsPage {
    /// Workflows, the newest first.
    pub workflows: Vec<Workflow>,
    /// There are more.
    pub more: bool,
}

/// How often a verb is tried where the workflow moves on meanwhile.
const TRIES: u32 = 8;
/// Most workflows or snapshots of a page.
pub(super) const MAX_PAGE: u32 = 100;

impl Agent {
    /// Starts a workflow. A repeat of the same request answers as before.
    ///
    /// # Errors
    /// What is wrong with the request, an instance that there is not or that another workflow has, an approval that may not
    /// be left out, the store.
    pub async fn start_workflow(
        self: &Arc<Self>,
        caller: &Caller,
        start: WorkflowStart,
        request_id: &str,
    ) -> Result<Workflow, Error> {
        if let Some(wrong) = request_id_violation(request_id) {
            return Err(Error::Invalid(vec![wrong]));
        }
        let (workflows, store) = self.workflows_and_store()?;
        let once = once(caller, "StartWorkflow", request_id, &start);
        if let Some(before) = answered(&**store, once.as_ref()).await? {
            return Ok(before);
        }
        let (spec, register) = self.checked(workflows, &start).await?;
        // written to its end, whether or not the caller waits for it
        let (agent, principal) = (self.clone(), caller.principal.clone());
        let started =
            tokio::spawn(async move { agent.begin(spec, register, principal, once).await });
        started.await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!("the write was broken off: {error}")).into())
        })
    }

    async fn begin(
        self: Arc<Self>,
        spec: WorkflowSpec,
        register: Option<InstanceSpec>,
        principal: String,
        once: Option<Once>,
    ) -> Result<Workflow, Error> {
        self.may_act()?;
        let (workflows, store) = self.workflows_and_store()?;
        let turn = match register {
            // the fleet follows the store in the order of the commits
            Some(_) => Some(self.writes.clone().lock_owned().await),
            None => None,
        };
        let workflow_id = Uuid::now_v7().to_string();
        let now = SystemTime::now();
        let event = first_event(&workflow_id, &spec, &principal, micros(now))?;
        let labels = match &register {
            Some(given) => given.labels.clone(),
            None => self.labels_of(&spec.instance_id),
        };
        let committed = store
            .start_workflow(
                &NewWorkflow {
                    workflow_id: &workflow_id,
                    instance_id: &spec.instance_id,
                    register: register.as_ref(),
                    actor: &principal,
                    event: &event,
                    begin: &|recorded| evolved(None, recorded),
                    deliver: &|recorded, after, webhooks| {
                        of_transition(None, recorded, after, &labels, webhooks)
                    },
                },
                once.as_ref(),
                now,
            )
            .await?;
        if register.is_some() {
            self.follow(&**store, &spec.instance_id).await?;
        }
        drop(turn);
        if let Some(recorded) = &committed.event {
            tracing::info!(
                workflow_id,
                instance_id = spec.instance_id,
                actor = principal,
                "workflow: started"
            );
            self.metrics.workflow_event(recorded.event.kind());
            self.event_log()?.committed(recorded);
            self.has_to_deliver(committed.deliveries);
        }
        workflows.wake(&self, &committed.workflow.workflow_id);
        Ok(committed.workflow)
    }

    /// What a workflow would do: analysed and planned, and nothing of it kept.
    ///
    /// # Errors
    /// What [`Agent::start_workflow`] gives, and a plan that is not ready in time.
    pub async fn validate_workflow(
        self: &Arc<Self>,
        caller: &Caller,
        start: WorkflowStart,
        wait: Duration,
    ) -> Result<Workflow, Error> {
        let (workflows, _) = self.workflows_and_store()?;
        let (spec, given) = self.checked(workflows, &start).await?;
        let id = Uuid::now_v7().to_string();
        let mut state: Option<Workflow> = None;
        let place = |state: &Option<Workflow>, event: Event| RecordedEvent {
            workflow_id: id.clone(),
            instance_id: spec.instance_id.clone(),
            revision: 0,
            sequence: state.as_ref().map_or(0, |state| state.sequence) + 1,
            at_us: micros(SystemTime::now()),
            actor: caller.principal.clone(),
            event,
        };
        let event = first_event(&id, &spec, &caller.principal, micros(SystemTime::now()))?;
        let first = place(&state, event);
        state = Some(evolved(None, &first)?);
        let until = tokio::time::Instant::now() + wait;
        while let Some(now) = &state {
            let site = match &given {
                Some(given) => self.site_of_given(given).ok_or(Error::NoStore)?,
                None => match self.site_of(now) {
                    Ok(site) => site,
                    Err(_) => return Err(Error::NoActuator(spec.instance_id.clone())),
                },
            };
            let came = match next_step(now) {
                Step::Do(StepEffect::Analyse) => {
                    tokio::time::timeout_at(until, self.analyse(&site)).await
                }
                Step::Do(StepEffect::Plan) => {
                    tokio::time::timeout_at(until, self.make_plan(&site, now, false)).await
                }
                _ => break,
            };
            match came {
                Ok(Came::Command(command, _)) => {
                    let event = decide(
                        Some(now),
                        &command,
                        &caller.principal,
                        micros(SystemTime::now()),
                    )?;
                    let recorded = place(&state, event);
                    state = Some(evolved(state, &recorded)?);
                }
                Ok(Came::Later { after, .. }) if tokio::time::Instant::now() + after < until => {
                    tokio::time::sleep(after).await;
                }
                Ok(Came::Later { problem, .. }) => return Err(not_planned(&problem)),
                Ok(Came::NotOurs) | Err(_) => {
                    return Err(not_planned("it takes longer than there was time"));
                }
            }
        }
        state.ok_or(Error::NoStore)
    }

    /// Waits until the plan of a workflow is ready, or it has ended, or the time is over; and answers as it is then.
    ///
    /// # Errors
    /// A workflow that there is not, the store.
    pub async fn plan_ready(
        self: &Arc<Self>,
        workflow_id: &str,
        wait: Duration,
    ) -> Result<Workflow, Error> {
        let until = tokio::time::Instant::now() + wait;
        let about = EventFilter {
            workflow_id: Some(workflow_id.to_owned()),
            instance_id: None,
        };
        let mut waiter = self.event_log()?.waiter(&about);
        loop {
            waiter.look();
            let state = self.workflow(workflow_id).await?;
            if state.plan.is_some() || state.status() != Status::InProgress {
                return Ok(state);
            }
            if tokio::time::timeout_at(until, waiter.news()).await.is_err() {
                return Ok(state);
            }
        }
    }

    /// A workflow.
    ///
    /// # Errors
    /// A workflow that there is not, the store.
    pub async fn workflow(&self, workflow_id: &str) -> Result<Workflow, Error> {
        let (_, store) = self.workflows_and_store()?;
        let found = store.workflow(workflow_id).await?;
        Ok(found.ok_or_else(|| StoreError::NoWorkflow(workflow_id.to_owned()))?)
    }

    /// Workflows, the newest first, from before this id on.
    ///
    /// # Errors
    /// The store.
    pub async fn workflows(
        &self,
        filter: &WorkflowFilter,
        before: Option<&str>,
        size: u32,
    ) -> Result<WorkflowsPage, Error> {
        let (_, store) = self.workflows_and_store()?;
        let size = size.clamp(1, MAX_PAGE);
        let mut workflows = store.workflows(filter, before, size + 1).await?;
        let more = workflows.len() > size as usize;
        workflows.truncate(size as usize);
        Ok(WorkflowsPage { workflows, more })
    }

    /// Has a workflow go on as the caller wants. A repeat of the same request answers as before.
    ///
    /// # Errors
    /// A verb that the workflow's state refuses, a workflow that there is not, the store.
    pub async fn ask_workflow(
        self: &Arc<Self>,
        caller: &Caller,
        workflow_id: &str,
        verb: WorkflowVerb,
        request_id: &str,
    ) -> Result<Workflow, Error> {
        let wrong: Vec<FieldViolation> = request_id_violation(request_id)
            .into_iter()
            .chain(note_violation(verb.note()))
            .collect();
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        let (_, store) = self.workflows_and_store()?;
        let once = once(caller, verb.method(), request_id, &(workflow_id, &verb));
        if let Some(before) = answered(&**store, once.as_ref()).await? {
            return Ok(before);
        }
        let (agent, principal, id) = (
            self.clone(),
            caller.principal.clone(),
            workflow_id.to_owned(),
        );
        let asked =
            tokio::spawn(async move { agent.say(&id, &verb, &principal, once.as_ref()).await });
        asked.await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!("the write was broken off: {error}")).into())
        })
    }

    async fn say(
        self: Arc<Self>,
        id: &str,
        verb: &WorkflowVerb,
        principal: &str,
        once: Option<&Once>,
    ) -> Result<Workflow, Error> {
        let (workflows, _) = self.workflows_and_store()?;
        let mut tries = 0;
        loop {
            let state = self.workflow(id).await?;
            let command = verb.command(&state);
            match self
                .commit(&state, &command, principal, None, &[], once)
                .await
            {
                Ok(workflow) => {
                    workflows.wake(&self, id);
                    return Ok(workflow);
                }
                // it has moved on: what is asked is held against how it is now
                Err(Error::Store(StoreError::Moved(_))) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// What a workflow is to do, and the instance that is registered with it.
    async fn checked(
        &self,
        workflows: &Workflows,
        start: &WorkflowStart,
    ) -> Result<(WorkflowSpec, Option<InstanceSpec>), Error> {
        let (actuator, register) = match &start.instance {
            StartInstance::Known(id) => {
                let known = self.instance(id)?;
                (known.instance.spec.actuator.clone(), None)
            }
            StartInstance::Given(spec) => {
                let violations = spec.violations(self.engines());
                if !violations.is_empty() {
                    return Err(Error::Invalid(violations));
                }
                self.check_urls(&spec.metrics_urls)?;
                match self.instance(&spec.instance_id) {
                    // registered already, in the same words or in more of them
                    Ok(known) if known.instance.spec.is_target_of(spec) => {
                        (known.instance.spec.actuator.clone(), None)
                    }
                    Ok(_) => return Err(StoreError::Exists(spec.instance_id.clone()).into()),
                    Err(_) => {
                        self.check_room(&spec.instance_id, spec.metrics_urls.len())?;
                        (None, Some((**spec).clone()))
                    }
                }
            }
        };
        let actuator = actuator.unwrap_or_else(|| "none".to_owned());
        let spec = start.spec(&workflows.policy, &actuator, workflows.authenticates)?;
        if spec.kind == WorkflowKind::Restore {
            let drives = self
                .actuators
                .get(&actuator)
                .is_some_and(|actuator| actuator.drives());
            if !drives {
                return Err(Error::NoActuator(spec.instance_id));
            }
            let id = spec.snapshot_id.as_deref().unwrap_or_default();
            let snapshot = self.stored_snapshot(id).await?;
            if snapshot.instance_id != spec.instance_id || snapshot.is_planned {
                return Err(Error::NoSnapshot(id.to_owned()));
            }
        }
        if spec.kind == WorkflowKind::ConfigChange && register.is_none() {
            self.check_changes(&spec.instance_id, &spec.changes).await?;
        }
        Ok((spec, register))
    }
}

impl WorkflowVerb {
    fn note(&self) -> &str {
        match self {
            Self::Approve { note, .. }
            | Self::Reject { note }
            | Self::Pause { note }
            | Self::Resume { note }
            | Self::Cancel { note, .. }
            | Self::Rollback { note } => note,
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Approve { .. } => "ApproveWorkflow",
            Self::Reject { .. } => "RejectWorkflow",
            Self::Pause { .. } => "PauseWorkflow",
            Self::Resume { .. } => "ResumeWorkflow",
            Self::Cancel { .. } => "CancelWorkflow",
            Self::Rollback { .. } => "RollbackWorkflow",
        }
    }

    fn command(&self, state: &Workflow) -> Command {
        match self.clone() {
            Self::Approve { etag, note } => Command::Approve {
                etag: etag.unwrap_or_else(|| {
                    let plan = state.plan.as_ref();
                    plan.map(|plan| plan.etag.clone()).unwrap_or_default()
                }),
                note,
            },
            Self::Reject { note } => Command::Reject { note },
            Self::Pause { note } => Command::Pause { note },
            Self::Resume { note } => Command::Resume { note },
            Self::Cancel { acknowledge, note } => Command::Cancel { acknowledge, note },
            Self::Rollback { note } => Command::Rollback { note },
        }
    }
}

fn first_event(
    workflow_id: &str,
    spec: &WorkflowSpec,
    principal: &str,
    now_us: i64,
) -> Result<Event, Error> {
    let start = Command::Start {
        workflow_id: workflow_id.to_owned(),
        spec: Box::new(spec.clone()),
    };
    Ok(decide(None, &start, principal, now_us)?)
}

async fn answered(store: &dyn Store, once: Option<&Once>) -> Result<Option<Workflow>, StoreError> {
    match once {
        Some(once) => store.answered_workflow(once, SystemTime::now()).await,
        None => Ok(None),
    }
}

fn not_planned(problem: &str) -> Error {
    Error::NotPlanned(problem.to_owned())
}
