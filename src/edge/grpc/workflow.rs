//! WorkflowService.

use std::future::Future;
use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::auth::caller_of;
use super::context::note_resource;
use super::convert_workflow::{self as write, Extent};
use super::convert_workflow_event::event;
use super::instances::{carried_through, page_start, page_token};
use super::metrics::{deadline_of, fits};
use super::pb;
use super::pb::workflow_service_server::WorkflowService;
use super::ready::Nothing;
use super::status::{refusal, status_of};
use super::workflow_request::{self as read, Asked, MAX_WAIT};
use super::workflow_watch;
use crate::agent::{
    Agent, Caller, Error, FieldViolation, LIMITS, Reason, StartInstance, WatchFrom, WorkflowVerb,
};
use crate::workflow::Workflow;

/// WorkflowService over the agent.
#[derive(Debug, Clone)]
pub(super) struct WorkflowHandler {
    pub(super) agent: Arc<Agent>,
    /// Nobody is kept waiting when the agent is told to stop.
    pub(super) draining: CancellationToken,
}

const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 100;
const DEFAULT_EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 500;
/// Room for the token.
const PAGE_MARGIN_BYTES: usize = 1_024;
/// What tells one entry of a list from the next.
const ENTRY_BYTES: usize = 8;

#[tonic::async_trait]
impl WorkflowService for WorkflowHandler {
    async fn start_workflow(
        &self,
        request: Request<pb::StartWorkflowRequest>,
    ) -> Result<Response<pb::StartWorkflowResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        note_resource(&request, &request.get_ref().instance_id);
        let agent = self.agent.clone();
        let started = carried_through(request, move |request| async move {
            let asked = read::start_of(request, deadline)?;
            is_of_engine(&agent, &asked)?;
            let Asked {
                start,
                request_id,
                wait,
                validate_only,
                ..
            } = asked;
            if validate_only {
                let left = deadline.map_or(MAX_WAIT, |deadline| deadline.left().mul_f64(0.9));
                let wait = wait.unwrap_or(MAX_WAIT).min(left);
                let state = agent.validate_workflow(&caller, start, wait).await?;
                return Ok((state, None));
            }
            let state = agent.start_workflow(&caller, start, &request_id).await?;
            Ok((state, wait))
        });
        let (mut state, wait) = started.await?;
        if let Some(wait) = wait {
            let id = state.workflow_id.clone();
            let ready = self.unless_draining(self.agent.plan_ready(&id, wait)).await;
            // it is started, whatever becomes of waiting for it
            if let Some(Ok(ready)) = ready {
                state = ready;
            }
        }
        Ok(Response::new(pb::StartWorkflowResponse {
            workflow: Some(fitting(&state)),
        }))
    }

    async fn get_workflow(
        &self,
        request: Request<pb::GetWorkflowRequest>,
    ) -> Result<Response<pb::GetWorkflowResponse>, Status> {
        let id = read::workflow_id(request.into_inner().workflow_id);
        let found = self.agent.workflow(&id.map_err(told)?).await;
        let state = found.map_err(told)?;
        let answer = pb::GetWorkflowResponse {
            workflow: Some(write::workflow(&state, Extent::Whole)),
        };
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    async fn list_workflows(
        &self,
        request: Request<pb::ListWorkflowsRequest>,
    ) -> Result<Response<pb::ListWorkflowsResponse>, Status> {
        let request = request.into_inner();
        let filter = read::filter_of(&request).map_err(told)?;
        let before = page_start(&request.page_token).map_err(told)?;
        let before = Some(before.as_str()).filter(|id| !id.is_empty());
        let size = sized(request.page_size, DEFAULT_PAGE, MAX_PAGE);
        let page = self.agent.workflows(&filter, before, size).await;
        let page = page.map_err(told)?;
        let all = page.workflows.iter();
        let (workflows, cut) = as_many_as_fit(all.map(|one| write::workflow(one, Extent::Listed)));
        let last = workflows.last().filter(|_| page.more || cut);
        let next_page_token = last.map_or_else(String::new, |last| page_token(&last.workflow_id));
        Ok(Response::new(pb::ListWorkflowsResponse {
            workflows,
            next_page_token,
        }))
    }

    async fn approve_workflow(
        &self,
        request: Request<pb::ApproveWorkflowRequest>,
    ) -> Result<Response<pb::ApproveWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let pb::ApproveWorkflowRequest {
                request_id,
                workflow_id,
                plan_etag,
                note,
            } = request;
            let etag = Some(plan_etag).filter(|etag| !etag.is_empty());
            let verb = WorkflowVerb::Approve { etag, note };
            (workflow_id, verb, request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::ApproveWorkflowResponse { workflow }))
    }

    async fn reject_workflow(
        &self,
        request: Request<pb::RejectWorkflowRequest>,
    ) -> Result<Response<pb::RejectWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let verb = WorkflowVerb::Reject { note: request.note };
            (request.workflow_id, verb, request.request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::RejectWorkflowResponse { workflow }))
    }

    async fn pause_workflow(
        &self,
        request: Request<pb::PauseWorkflowRequest>,
    ) -> Result<Response<pb::PauseWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let verb = WorkflowVerb::Pause { note: request.note };
            (request.workflow_id, verb, request.request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::PauseWorkflowResponse { workflow }))
    }

    async fn resume_workflow(
        &self,
        request: Request<pb::ResumeWorkflowRequest>,
    ) -> Result<Response<pb::ResumeWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let verb = WorkflowVerb::Resume { note: request.note };
            (request.workflow_id, verb, request.request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::ResumeWorkflowResponse { workflow }))
    }

    async fn cancel_workflow(
        &self,
        request: Request<pb::CancelWorkflowRequest>,
    ) -> Result<Response<pb::CancelWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let verb = WorkflowVerb::Cancel {
                acknowledge: request.acknowledge,
                note: request.note,
            };
            (request.workflow_id, verb, request.request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::CancelWorkflowResponse { workflow }))
    }

    async fn rollback_workflow(
        &self,
        request: Request<pb::RollbackWorkflowRequest>,
    ) -> Result<Response<pb::RollbackWorkflowResponse>, Status> {
        let answer = self.ask(request, |request| {
            let verb = WorkflowVerb::Rollback { note: request.note };
            (request.workflow_id, verb, request.request_id)
        });
        let workflow = Some(answer.await?);
        Ok(Response::new(pb::RollbackWorkflowResponse { workflow }))
    }

    type WatchWorkflowStream = Nothing<pb::WatchWorkflowResponse>;

    async fn watch_workflow(
        &self,
        request: Request<pb::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let from = read::watch_one(request.into_inner()).map_err(told)?;
        self.watched(from).await
    }

    type WatchWorkflowsStream = Nothing<pb::WatchWorkflowsResponse>;

    async fn watch_workflows(
        &self,
        request: Request<pb::WatchWorkflowsRequest>,
    ) -> Result<Response<Self::WatchWorkflowsStream>, Status> {
        let from = read::watch_all(request.into_inner()).map_err(told)?;
        self.watched(from).await
    }

    async fn list_workflow_events(
        &self,
        request: Request<pb::ListWorkflowEventsRequest>,
    ) -> Result<Response<pb::ListWorkflowEventsResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let (filter, wait) = read::events_of(&request, deadline).map_err(told)?;
        let size = sized(request.page_size, DEFAULT_EVENTS, MAX_EVENTS);
        let after = request.after_revision;
        let waiting = self.agent.workflow_events(after, &filter, size, wait);
        let Some(page) = self.unless_draining(waiting).await else {
            return Err(refusal(
                Code::Unavailable,
                Reason::Draining,
                "the agent is being stopped; call again, another agent may answer",
            ));
        };
        let page = page.map_err(told)?;
        let all = page.events.iter();
        let (events, cut) = as_many_as_fit(all.map(|one| event(&one.event)));
        let next_after_revision = match events.last() {
            Some(last) if cut => last.revision,
            _ => page.read_to_revision,
        };
        Ok(Response::new(pb::ListWorkflowEventsResponse {
            events,
            next_after_revision,
            more: page.more || cut,
        }))
    }

    async fn create_config_snapshot(
        &self,
        request: Request<pb::CreateConfigSnapshotRequest>,
    ) -> Result<Response<pb::CreateConfigSnapshotResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().instance_id);
        let agent = self.agent.clone();
        let taken = carried_through(request, move |request| async move {
            let pb::CreateConfigSnapshotRequest { instance_id, note } = request;
            agent.create_snapshot(&caller, &instance_id, &note).await
        });
        let snapshot = taken.await?;
        Ok(Response::new(pb::CreateConfigSnapshotResponse {
            snapshot: Some(write::snapshot(&snapshot)),
        }))
    }

    async fn list_config_snapshots(
        &self,
        request: Request<pb::ListConfigSnapshotsRequest>,
    ) -> Result<Response<pb::ListConfigSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let instance = read::instance_filter(request.instance_id).map_err(told)?;
        let before = page_start(&request.page_token).map_err(told)?;
        let before = Some(before.as_str()).filter(|id| !id.is_empty());
        let size = sized(request.page_size, DEFAULT_PAGE, MAX_PAGE);
        let page = self
            .agent
            .snapshots(instance.as_deref(), before, size)
            .await;
        let page = page.map_err(told)?;
        let (snapshots, cut) = as_many_as_fit(page.snapshots.iter().map(write::snapshot));
        let last = snapshots.last().filter(|_| page.more || cut);
        let next_page_token = last.map_or_else(String::new, |last| page_token(&last.snapshot_id));
        Ok(Response::new(pb::ListConfigSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }
}

impl WorkflowHandler {
    /// Asks something of a workflow, and answers with how it is after it.
    async fn ask<M>(
        &self,
        request: Request<M>,
        read: fn(M) -> (String, WorkflowVerb, String),
    ) -> Result<pb::Workflow, Status>
    where
        M: About + Send + 'static,
    {
        let caller: Caller = caller_of(&request);
        note_resource(&request, request.get_ref().workflow_id());
        let agent = self.agent.clone();
        let asked = carried_through(request, move |request| async move {
            let (workflow_id, verb, request_id) = read(request);
            let id = read::workflow_id(workflow_id)?;
            agent.ask_workflow(&caller, &id, verb, &request_id).await
        });
        Ok(fitting(&asked.await?))
    }

    async fn watched<T>(&self, from: WatchFrom) -> Result<Response<Nothing<T>>, Status> {
        let news = self.agent.watch_workflows(from).await.map_err(told)?;
        Ok(workflow_watch::response(news))
    }

    /// None where the agent is told to stop before there is something.
    async fn unless_draining<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = waiting => Some(done),
            () = self.draining.cancelled() => None,
        }
    }
}

/// A request about one workflow.
trait About {
    fn workflow_id(&self) -> &str;
}

macro_rules! about {
    ($($request:ident)+) => {
        $(impl About for pb::$request {
            fn workflow_id(&self) -> &str {
                &self.workflow_id
            }
        })+
    };
}

about! {
    ApproveWorkflowRequest
    RejectWorkflowRequest
    PauseWorkflowRequest
    ResumeWorkflowRequest
    CancelWorkflowRequest
    RollbackWorkflowRequest
}

fn told(error: Error) -> Status {
    status_of(&error)
}

/// Whether a registered instance is of the engine that the caller takes it for.
fn is_of_engine(agent: &Agent, asked: &Asked) -> Result<(), Error> {
    let (Some(engine), StartInstance::Known(id)) = (&asked.engine, &asked.start.instance) else {
        return Ok(());
    };
    let state = agent.instance(id)?;
    let latest = state.latest.as_ref().map(|latest| latest.engine());
    let known = state.instance.spec.instance_type.as_deref().or(latest);
    match known {
        Some(known) if known != engine => Err(Error::Invalid(vec![FieldViolation::new(
            "instance_type",
            format!("instance {id} is of type {known}"),
        )])),
        _ => Ok(()),
    }
}

/// A workflow whole, or without what takes room where that is too much.
pub(super) fn fitting(state: &Workflow) -> pb::Workflow {
    let whole = write::workflow(state, Extent::Whole);
    match whole.encoded_len() + PAGE_MARGIN_BYTES <= LIMITS.response_bytes {
        true => whole,
        false => write::workflow(state, Extent::Listed),
    }
}

pub(super) fn sized(asked: u32, default: u32, most: u32) -> u32 {
    match asked {
        0 => default,
        size => size.min(most),
    }
}

/// Entries of a list until the answer is full, at least one, and whether any is left.
pub(super) fn as_many_as_fit<T: Message>(entries: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut taken = Vec::new();
    let mut bytes = PAGE_MARGIN_BYTES;
    for entry in entries {
        bytes += entry.encoded_len() + ENTRY_BYTES;
        if bytes > LIMITS.response_bytes && !taken.is_empty() {
            return (taken, true);
        }
        taken.push(entry);
    }
    (taken, false)
}
