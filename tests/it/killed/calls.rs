//! Callers of an agent that may die at any time, and one who watches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::WorkflowStatus;
use perfagent::edge::grpc::pb::watch_workflows_response::Told;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use prost::Message;
use prost_types::value::Kind;
use tonic::Code;
use tonic::transport::Channel;

use super::rig::Random;
use crate::watch_validators::validators::{
    Connection, Filter, Item, Log, Logged, Watched, behind, check, digest,
};

type Client = WorkflowServiceClient<Channel>;

/// Whether something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Not,
    /// It was, and what came of it is not known.
    Tried,
    /// It was, and the agent said that it is so.
    Acknowledged,
}

/// A workflow that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    request_id: String,
    pub(super) instance_id: String,
    pub(super) cap: String,
    /// Known where the agent said so.
    pub(super) workflow_id: Option<String>,
    pub(super) rolled_back: Said,
    pub(super) cancelled: Said,
    done: bool,
}

/// What a caller wants of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Rollback,
    Cancel,
    Pause,
    Resume,
}

/// How changes go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    InPlace,
    /// To a third first.
    Canary,
}

/// Those who ask.
pub(super) struct Callers {
    how: How,
    random: Random,
    instances: Vec<String>,
    pub(super) asked: Vec<Asked>,
}

impl Callers {
    pub(super) fn new(instances: &[String], how: How, seed: u64) -> Self {
        Self {
            how,
            random: Random(seed | 1),
            instances: instances.to_vec(),
            asked: Vec::new(),
        }
    }

    /// Asks for this and that for as long as the agent lives.
    pub(super) async fn ask_on(&mut self, client: &Client) -> Infallible {
        loop {
            for instance in 0..self.instances.len() {
                self.ask_of(client, instance, false).await;
                let pause = self.random.below(60);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// Asks for a workflow of each instance, until each has one.
    pub(super) async fn start_all(&mut self, client: &Client) {
        for instance in 0..self.instances.len() {
            while self
                .asked
                .get(instance)
                .is_none_or(|asked| asked.workflow_id.is_none())
            {
                self.ask_of(client, instance, false).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// So many who ask at once, each of instances of their own.
    pub(super) fn several(
        instances: &[String],
        how: How,
        random: &mut Random,
        many: usize,
    ) -> Vec<Self> {
        let each = instances.len().div_ceil(many);
        let parts = instances.chunks(each);
        parts
            .map(|part| Self::new(part, how, random.below(1 << 40)))
            .collect()
    }

    /// All that was asked for.
    pub(super) fn together(several: Vec<Self>) -> Self {
        let mut several = several.into_iter();
        let mut all = several.next().expect("there is one");
        for one in several {
            all.instances.extend(one.instances);
            all.asked.extend(one.asked);
        }
        all
    }

    /// Asks for nothing new; whether all that was asked for has ended.
    pub(super) async fn finish(&mut self, client: &Client) -> bool {
        for instance in 0..self.instances.len() {
            self.ask_of(client, instance, true).await;
        }
        self.asked.iter().all(|asked| asked.done)
    }

    async fn ask_of(&mut self, client: &Client, instance: usize, finishes: bool) {
        let id = &self.instances[instance];
        let last = self
            .asked
            .iter()
            .rposition(|asked| asked.instance_id == *id);
        let at = match last {
            Some(at) if !self.asked[at].done => at,
            _ if finishes => return,
            _ => {
                self.asked.push(Asked {
                    request_id: uuid::Uuid::now_v7().to_string(),
                    instance_id: id.clone(),
                    cap: (8 + self.asked.len()).to_string(),
                    workflow_id: None,
                    rolled_back: Said::Not,
                    cancelled: Said::Not,
                    done: false,
                });
                self.asked.len() - 1
            }
        };
        let Some(id) = self.asked[at].workflow_id.clone() else {
            return start(client, self.how, &mut self.asked[at]).await;
        };
        let get = pb::GetWorkflowRequest {
            workflow_id: id.clone(),
        };
        let state = match client.clone().get_workflow(get).await {
            Ok(got) => got.into_inner().workflow.unwrap(),
            Err(status) => {
                let lost = status.code() == Code::NotFound;
                assert!(!lost, "{id} was acknowledged and is lost: {status:?}");
                return;
            }
        };
        if state.done {
            self.asked[at].done = true;
            return;
        }
        // a canary takes long, and most are to see its end
        let of = match self.how {
            How::InPlace => 100,
            How::Canary => 2_500,
        };
        let wish = match (state.status(), self.random.below(of)) {
            // nobody lets go further what was not proven
            (WorkflowStatus::Paused, _)
                if state.pause_reason() == pb::WorkflowPauseReason::Inconclusive =>
            {
                Wish::Rollback
            }
            (WorkflowStatus::Paused, _) => Wish::Resume,
            _ if finishes => return,
            (_, 0..3) => Wish::Rollback,
            (_, 3..5) => Wish::Cancel,
            (_, 5..10) => Wish::Pause,
            _ => return,
        };
        ask(client, &mut self.asked[at], id, wish).await;
    }
}

/// Starts it, or asks again whether it was started.
async fn start(client: &Client, how: How, asked: &mut Asked) {
    let cap = prost_types::Value {
        kind: Some(Kind::StringValue(asked.cap.clone())),
    };
    let request = pb::StartWorkflowRequest {
        request_id: asked.request_id.clone(),
        instance_id: asked.instance_id.clone(),
        workflow_type: "config_change".to_owned(),
        changes: Some(prost_types::Struct {
            fields: [("max_num_seqs".to_owned(), cap)].into(),
        }),
        auto_approve: true,
        canary: (how == How::Canary).then(canary),
        ..Default::default()
    };
    match client.clone().start_workflow(request).await {
        Ok(started) => {
            let workflow = started.into_inner().workflow.unwrap();
            asked.workflow_id = Some(workflow.workflow_id);
        }
        Err(status) => assert!(is_trouble(&status), "{asked:?}: {status:?}"),
    }
}

/// Short, as the windows of the instances are.
fn canary() -> pb::WorkflowCanary {
    let millis = |millis: u64| Duration::from_millis(millis).try_into().ok();
    pb::WorkflowCanary {
        shares: vec![0.3],
        warm_up: millis(200),
        observe: millis(10_000),
        drain: millis(300),
        ..Default::default()
    }
}

async fn ask(client: &Client, asked: &mut Asked, workflow_id: String, wish: Wish) {
    let mut client = client.clone();
    let before = (asked.rolled_back, asked.cancelled);
    match wish {
        Wish::Rollback => asked.rolled_back = asked.rolled_back.max(Said::Tried),
        Wish::Cancel => asked.cancelled = asked.cancelled.max(Said::Tried),
        Wish::Pause | Wish::Resume => {}
    }
    let answer = match wish {
        Wish::Rollback => {
            let request = pb::RollbackWorkflowRequest {
                workflow_id,
                ..Default::default()
            };
            client.rollback_workflow(request).await.err()
        }
        Wish::Cancel => {
            let request = pb::CancelWorkflowRequest {
                workflow_id,
                ..Default::default()
            };
            client.cancel_workflow(request).await.err()
        }
        Wish::Pause => {
            let request = pb::PauseWorkflowRequest {
                workflow_id,
                ..Default::default()
            };
            client.pause_workflow(request).await.err()
        }
        Wish::Resume => {
            let request = pb::ResumeWorkflowRequest {
                workflow_id,
                ..Default::default()
            };
            client.resume_workflow(request).await.err()
        }
    };
    match (answer, wish) {
        (None, Wish::Rollback) => asked.rolled_back = Said::Acknowledged,
        (None, Wish::Cancel) => asked.cancelled = Said::Acknowledged,
        // refused: nothing came of it
        (Some(status), _) if status.code() == Code::FailedPrecondition => {
            (asked.rolled_back, asked.cancelled) = before;
        }
        (Some(status), _) => assert!(is_trouble(&status), "{wish:?} of {asked:?}: {status:?}"),
        (None, _) => {}
    }
}

/// The agent died, or its store says that it cannot, or somebody was faster.
fn is_trouble(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted | Code::Internal
    )
}

/// One who watches all workflows, and goes on after each death where they were.
#[derive(Default)]
pub(super) struct Watcher {
    watched: Watched,
    /// How long after each beginning the agent first carried a workflow on, in seconds.
    pub(super) first_steps: Vec<f64>,
}

impl Watcher {
    /// Watches until this revision is known, or for ever.
    pub(super) async fn watch(&mut self, client: &Client, until: Option<u64>) {
        let known = self.watched.connections.iter();
        let known = known.filter_map(Connection::known).max();
        self.watched.connections.push(Connection {
            after_revision: known,
            items: Vec::new(),
        });
        let connection = self.watched.connections.last_mut().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut begin = Some(now.as_secs_f64());
        let request = pb::WatchWorkflowsRequest {
            after_revision: known.unwrap_or(0),
            ..Default::default()
        };
        if let Ok(stream) = client.clone().watch_workflows(request).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                connection.items.push(match message.told.unwrap() {
                    Told::Event(event) => {
                        assert_eq!(event.revision, message.revision);
                        let at = event
                            .event_time
                            .map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9);
                        let is_new = at.zip(begin).is_some_and(|(at, begin)| at > begin);
                        // what was committed before it died is told late, and is no step
                        if event.actor == "perfagent" && is_new {
                            self.first_steps.push(at.unwrap() - begin.take().unwrap());
                        }
                        Item::Event(event.revision, digest(&event.encode_to_vec()))
                    }
                    Told::Bookmark(_) => Item::Bookmark(message.revision),
                    Told::Snapshot(_) => Item::Snapshot(message.revision),
                });
                if until.is_some() && connection.known() >= until {
                    return;
                }
            }
        }
        connection.items.push(Item::Broken);
        std::future::pending().await
    }

    /// Whether everything has come.
    pub(super) fn knows(&self, log: &[Logged]) -> bool {
        behind(&Log::new(log).unwrap(), &self.watched).is_empty()
    }

    /// Every guarantee of a watch was kept, over all deaths.
    pub(super) fn assert_kept(&self, log: &[Logged]) {
        assert_eq!(self.watched.filter, Filter::default());
        let violations = check(&Log::new(log).unwrap(), &self.watched);
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// The whole log.
pub(super) async fn log(client: &Client) -> Vec<Logged> {
    let mut log = Vec::new();
    let mut after_revision = 0;
    loop {
        let request = pb::ListWorkflowEventsRequest {
            after_revision,
            page_size: 500,
            ..Default::default()
        };
        let page = client.clone().list_workflow_events(request).await;
        let page = page.unwrap().into_inner();
        log.extend(page.events.into_iter().map(|event| Logged {
            revision: event.revision,
            sequence: event.sequence,
            digest: digest(&event.encode_to_vec()),
            workflow_id: event.workflow_id,
            instance_id: event.instance_id,
        }));
        after_revision = page.next_after_revision;
        if !page.more {
            return log;
        }
    }
}

/// All workflows by their ids.
pub(super) async fn workflows(client: &Client) -> BTreeMap<String, pb::Workflow> {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListWorkflowsRequest {
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let page = client.clone().list_workflows(request).await;
        let page = page.unwrap().into_inner();
        let by_id = |workflow: pb::Workflow| (workflow.workflow_id.clone(), workflow);
        found.extend(page.workflows.into_iter().map(by_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}
