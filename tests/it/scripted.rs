//! An agent of whose workflows a test says what becomes of them: what a real one does only by chance.

use std::net::TcpListener;
use std::process::Output;
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, BoxStream, StreamExt};
use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::watch_workflow_response::Told;
use perfagent::edge::grpc::pb::workflow_service_server::{WorkflowService, WorkflowServiceServer};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::cli::run;

pub const ID: &str = "0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10";
pub const OTHER: &str = "0197c1a2-7a51-7d58-8f64-2a0c1f7f2d10";

/// One workflow and its log. What it is asked it keeps.
#[derive(Default)]
pub struct Script {
    pub workflows: Vec<pb::Workflow>,
    pub events: Vec<pb::WorkflowEvent>,
    /// Streams of the log break off after so many messages; those after the last go to the end.
    pub breaks: Vec<usize>,
    /// Streams of the log stay open after what there is.
    pub hangs: bool,
    pub asked: Vec<String>,
}

pub type Shared = Arc<Mutex<Script>>;

struct Scripted(Shared);

impl Scripted {
    fn first(&self) -> pb::Workflow {
        self.0.lock().unwrap().workflows[0].clone()
    }

    fn took(&self, what: String) {
        self.0.lock().unwrap().asked.push(what);
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// What a verb with a note does: it is noted, and answered with the first of the script.
macro_rules! noted {
    ($self:ident $name:literal $request:ident $response:ident) => {{
        let request = $request.into_inner();
        $self.took(format!(
            "{} {} {}",
            $name, request.workflow_id, request.note
        ));
        Ok(Response::new(pb::$response {
            workflow: Some($self.first()),
        }))
    }};
}

#[tonic::async_trait]
impl WorkflowService for Scripted {
    type WatchWorkflowStream = Stream<pb::WatchWorkflowResponse>;
    type WatchWorkflowsStream = Stream<pb::WatchWorkflowsResponse>;

    async fn reject_workflow(
        &self,
        request: Request<pb::RejectWorkflowRequest>,
    ) -> Result<Response<pb::RejectWorkflowResponse>, Status> {
        noted!(self "reject_workflow" request RejectWorkflowResponse)
    }

    async fn pause_workflow(
        &self,
        request: Request<pb::PauseWorkflowRequest>,
    ) -> Result<Response<pb::PauseWorkflowResponse>, Status> {
        noted!(self "pause_workflow" request PauseWorkflowResponse)
    }

    async fn resume_workflow(
        &self,
        request: Request<pb::ResumeWorkflowRequest>,
    ) -> Result<Response<pb::ResumeWorkflowResponse>, Status> {
        noted!(self "resume_workflow" request ResumeWorkflowResponse)
    }

    async fn rollback_workflow(
        &self,
        request: Request<pb::RollbackWorkflowRequest>,
    ) -> Result<Response<pb::RollbackWorkflowResponse>, Status> {
        noted!(self "rollback_workflow" request RollbackWorkflowResponse)
    }

    async fn cancel_workflow(
        &self,
        request: Request<pb::CancelWorkflowRequest>,
    ) -> Result<Response<pb::CancelWorkflowResponse>, Status> {
        let request = request.into_inner();
        self.took(format!(
            "cancel_workflow {} {}",
            request.workflow_id, request.acknowledge
        ));
        Ok(Response::new(pb::CancelWorkflowResponse {
            workflow: Some(self.first()),
        }))
    }

    async fn approve_workflow(
        &self,
        request: Request<pb::ApproveWorkflowRequest>,
    ) -> Result<Response<pb::ApproveWorkflowResponse>, Status> {
        let request = request.into_inner();
        self.took(format!(
            "approve_workflow {} {}",
            request.workflow_id, request.plan_etag
        ));
        Ok(Response::new(pb::ApproveWorkflowResponse {
            workflow: Some(self.first()),
        }))
    }

    async fn start_workflow(
        &self,
        request: Request<pb::StartWorkflowRequest>,
    ) -> Result<Response<pb::StartWorkflowResponse>, Status> {
        let request = request.into_inner();
        self.took(format!(
            "start_workflow {} {} {:?}",
            request.instance_id,
            request.workflow_type,
            request.changes.map(|changes| changes.fields)
        ));
        Ok(Response::new(pb::StartWorkflowResponse {
            workflow: Some(self.first()),
        }))
    }

    async fn get_workflow(
        &self,
        request: Request<pb::GetWorkflowRequest>,
    ) -> Result<Response<pb::GetWorkflowResponse>, Status> {
        let id = request.into_inner().workflow_id;
        let told = self.0.lock().unwrap();
        let found = told.workflows.iter().find(|one| one.workflow_id == id);
        let workflow = found.cloned();
        Ok(Response::new(pb::GetWorkflowResponse {
            workflow: Some(workflow.ok_or_else(|| Status::not_found("none"))?),
        }))
    }

    async fn list_workflows(
        &self,
        request: Request<pb::ListWorkflowsRequest>,
    ) -> Result<Response<pb::ListWorkflowsResponse>, Status> {
        let request = request.into_inner();
        let told = self.0.lock().unwrap();
        let is_asked_for = |one: &&pb::Workflow| {
            let of = request.instance_id.is_empty() || one.instance_id == request.instance_id;
            of && (request.statuses.is_empty() || request.statuses.contains(&one.status))
        };
        Ok(Response::new(pb::ListWorkflowsResponse {
            workflows: told
                .workflows
                .iter()
                .filter(is_asked_for)
                .cloned()
                .collect(),
            next_page_token: String::new(),
        }))
    }

    async fn watch_workflow(
        &self,
        request: Request<pb::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let request = request.into_inner();
        self.took(format!("watch_workflow {}", request.after_revision));
        let mut told = self.0.lock().unwrap();
        let all = told
            .events
            .iter()
            .filter(|event| event.revision > request.after_revision);
        let mut messages: Vec<Result<pb::WatchWorkflowResponse, Status>> = all
            .map(|event| {
                Ok(pb::WatchWorkflowResponse {
                    revision: event.revision,
                    told: Some(Told::Event(event.clone())),
                })
            })
            .collect();
        if !told.breaks.is_empty() {
            messages.truncate(told.breaks.remove(0));
            messages.push(Err(Status::unavailable("the stream has lived its time")));
        }
        let messages = stream::iter(messages);
        Ok(Response::new(match told.hangs {
            true => Box::pin(messages.chain(stream::pending())),
            false => Box::pin(messages),
        }))
    }

    async fn watch_workflows(
        &self,
        _: Request<pb::WatchWorkflowsRequest>,
    ) -> Result<Response<Self::WatchWorkflowsStream>, Status> {
        Err(Status::unauthenticated("no"))
    }

    async fn list_workflow_events(
        &self,
        request: Request<pb::ListWorkflowEventsRequest>,
    ) -> Result<Response<pb::ListWorkflowEventsResponse>, Status> {
        let after = request.into_inner().after_revision;
        let told = self.0.lock().unwrap();
        // a page of two
        let mut left = told
            .events
            .iter()
            .filter(|event| event.revision > after)
            .cloned();
        let events: Vec<pb::WorkflowEvent> = left.by_ref().take(2).collect();
        Ok(Response::new(pb::ListWorkflowEventsResponse {
            next_after_revision: events.last().map_or(after, |event| event.revision),
            events,
            more: left.next().is_some(),
        }))
    }

    async fn create_config_snapshot(
        &self,
        _: Request<pb::CreateConfigSnapshotRequest>,
    ) -> Result<Response<pb::CreateConfigSnapshotResponse>, Status> {
        Ok(Response::new(pb::CreateConfigSnapshotResponse::default()))
    }

    async fn list_config_snapshots(
        &self,
        _: Request<pb::ListConfigSnapshotsRequest>,
    ) -> Result<Response<pb::ListConfigSnapshotsResponse>, Status> {
        Ok(Response::new(pb::ListConfigSnapshotsResponse::default()))
    }
}

/// An agent that can be killed and started again at its address.
pub struct Fake {
    pub address: String,
    pub shared: Shared,
    runtime: Option<Runtime>,
}

impl Fake {
    pub async fn start(workflows: Vec<pb::Workflow>) -> Self {
        let shared = Shared::default();
        shared.lock().unwrap().workflows = workflows;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let runtime = Some(serve(listener, shared.clone()));
        Self {
            address,
            shared,
            runtime,
        }
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        let all = [&["workflow"], arguments, &["--server", &self.address]].concat();
        run(&all).await
    }

    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }

    pub fn with_events(&self, events: u64) {
        let events = (1..=events).map(|revision| pb::WorkflowEvent {
            revision,
            workflow_id: ID.to_owned(),
            instance_id: "vllm-1".to_owned(),
            r#type: format!("event{revision}"),
            ..pb::WorkflowEvent::default()
        });
        self.shared.lock().unwrap().events = events.collect();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Fake {
    /// Gone, with all its connections.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Again, at the address that it had.
    pub async fn restart(&mut self) {
        let listener = loop {
            // the address is free once the connections of before have gone
            match TcpListener::bind(&self.address) {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.runtime = Some(serve(listener, self.shared.clone()));
    }
}

/// In a runtime of its own, which ends with all that it does.
fn serve(listener: TcpListener, shared: Shared) -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(WorkflowServiceServer::new(Scripted(shared)));
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    runtime
}

pub fn workflow(id: &str, instance: &str, status: pb::WorkflowStatus) -> pb::Workflow {
    use pb::WorkflowStatus as Status;
    let open = [
        Status::PendingApproval,
        Status::Paused,
        Status::InProgress,
        Status::Approved,
    ];
    pb::Workflow {
        workflow_id: id.to_owned(),
        instance_id: instance.to_owned(),
        status: status.into(),
        done: !open.contains(&status),
        headline: "Raise --max-num-seqs from 4 to 32".to_owned(),
        plan: Some(pb::WorkflowPlan {
            etag: "e1".to_owned(),
            ..pb::WorkflowPlan::default()
        }),
        waiting_for: (status == Status::PendingApproval).then(|| pb::WorkflowWaitingFor {
            what: "An approval.".to_owned(),
            verbs: vec!["APPROVE".to_owned()],
            ..pb::WorkflowWaitingFor::default()
        }),
        ..pb::Workflow::default()
    }
}

pub fn pending() -> pb::Workflow {
    workflow(ID, "vllm-1", pb::WorkflowStatus::PendingApproval)
}
