//! Reading the log of workflows for as long as somebody looks: begun again after the last revision whenever it breaks off.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::edge::cli::connect::AgentChannel;
use crate::edge::grpc::pb;
use pb::watch_workflow_response::Told;
use pb::workflow_service_client::WorkflowServiceClient;

/// Whose events.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// Of one workflow.
    One(String),
    /// Of all of an instance; of all there are where it is empty.
    All(String),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) subject: Subject,
    /// Events after this revision; none for those that the subject begins with.
    pub(super) after_revision: Option<u64>,
    /// The workflow as it is after each event.
    pub(super) with_state: bool,
    /// How long an agent may be out of reach; none for ever.
    pub(super) give_up_after: Option<Duration>,
}

/// What is heard.
#[derive(Debug)]
pub(super) enum News {
    /// What the agent said; of a watch of many in the form of a watch of one.
    Told(Box<pb::WatchWorkflowResponse>),
    /// A workflow as it is.
    State(Box<pb::Workflow>),
    /// The agent cannot be reached, and is tried again.
    Lost(String),
    /// It is there again.
    Back,
    /// Events were not kept for as long as the agent was not heard of.
    Skipped,
    /// The workflow has ended, and is so.
    Ended(Box<pb::Workflow>),
    /// It is over.
    Failed(Box<Status>),
}

/// Between two tries to reach an agent that is gone.
const RETRY: Duration = Duration::from_millis(500);
/// Three bookmarks: an agent that says nothing for so long is not heard of any more.
const SILENCE: Duration = Duration::from_secs(45);
const GET_DEADLINE: Duration = Duration::from_secs(5);
/// The reader draws slowly at worst.
const ROOM: usize = 64;

/// What is heard from now on. Dropping it ends the calls.
pub(super) struct Heard {
    news: Receiver<News>,
    task: AbortHandle,
}

impl Heard {
    /// The next; none after the last. It can be waited for beside other things.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to listen.
pub(super) fn follow(channel_to: AgentChannel, asked: Asked) -> Heard {
    let (sender, news) = channel(ROOM);
    let stale = match &asked.subject {
        Subject::One(id) => BTreeSet::from([id.clone()]),
        Subject::All(_) => BTreeSet::new(),
    };
    let follower = Follower {
        stale,
        heard: false,
        client: WorkflowServiceClient::new(channel_to),
        after: asked.after_revision.unwrap_or(0),
        with_snapshot: matches!(asked.subject, Subject::All(_)),
        asked,
        sender,
        lost_at: None,
    };
    let task = tokio::spawn(async move {
        let sender = follower.sender.clone();
        let last = match follower.run().await {
            Ok(Some(ended)) => News::Ended(ended),
            Ok(None) => return,
            Err(status) => News::Failed(Box::new(status)),
        };
        // the reader may be gone
        let _ = sender.send(last).await;
    });
    Heard {
        news,
        task: task.abort_handle(),
    }
}

struct Follower {
    client: WorkflowServiceClient<AgentChannel>,
    asked: Asked,
    /// Whoever resumes after this revision misses nothing.
    after: u64,
    with_snapshot: bool,
    sender: Sender<News>,
    lost_at: Option<Instant>,
    /// Workflows that changed since they were last told as they are.
    stale: BTreeSet<String>,
    /// The stream that broke off told something before.
    heard: bool,
}

/// How reading a stream ended.
enum Broken {
    /// The reader is gone.
    Unheard,
    /// The agent, or what lies between, ended it.
    By(Status),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::By(status)
    }
}

impl Follower {
    /// The workflow as it ended; none where the reader left.
    async fn run(mut self) -> Result<Option<Box<pb::Workflow>>, Status> {
        loop {
            let read = match self.open().await {
                Ok(stream) => {
                    self.found().await;
                    self.read(stream).await
                }
                // a stream that breaks off is no news while the next one is had at once
                Err(status) => {
                    self.lost(&status).await;
                    Err(Broken::By(status))
                }
            };
            let ended = match (read, self.asked.subject.clone()) {
                (Ok(()), Subject::One(id)) => self.get(&id).await,
                (Ok(()), Subject::All(_)) | (Err(Broken::Unheard), _) => return Ok(None),
                (Err(Broken::By(status)), _) => Err(status),
            };
            match ended {
                Ok(workflow) => return Ok(Some(Box::new(workflow))),
                Err(status) => self.wait_after(status).await?,
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, Status> {
        let (after_revision, include_snapshot) = (self.after, self.with_snapshot);
        Ok(match &self.asked.subject {
            Subject::One(id) => {
                let request = pb::WatchWorkflowRequest {
                    workflow_id: id.clone(),
                    after_revision,
                    include_snapshot,
                };
                Stream::One(self.client.watch_workflow(request).await?.into_inner())
            }
            Subject::All(instance) => {
                let request = pb::WatchWorkflowsRequest {
                    instance_id: instance.clone(),
                    after_revision,
                    include_snapshot,
                };
                Stream::All(self.client.watch_workflows(request).await?.into_inner())
            }
        })
    }

    async fn read(&mut self, mut stream: Stream) -> Result<(), Broken> {
        self.heard = false;
        self.tell_states().await?;
        loop {
            let silent = |_| Status::unavailable("nothing was heard of the agent for 45 s");
            let next = tokio::time::timeout(SILENCE, stream.next());
            let Some(message) = next.await.map_err(silent)?? else {
                return Ok(());
            };
            self.after = self.after.max(message.revision);
            self.heard = true;
            if let Some(Told::Event(event)) = &message.told {
                self.stale.insert(event.workflow_id.clone());
            }
            self.tell(News::Told(Box::new(message))).await?;
            self.tell_states().await?;
        }
    }

    /// How those are that have changed, where that is asked for.
    async fn tell_states(&mut self) -> Result<(), Broken> {
        while let Some(id) = self
            .stale
            .first()
            .cloned()
            .filter(|_| self.asked.with_state)
        {
            let workflow = self.get(&id).await?;
            self.tell(News::State(Box::new(workflow))).await?;
            self.stale.remove(&id);
        }
        Ok(())
    }

    async fn get(&mut self, id: &str) -> Result<pb::Workflow, Status> {
        let mut request = tonic::Request::new(pb::GetWorkflowRequest {
            workflow_id: id.to_owned(),
        });
        request.set_timeout(GET_DEADLINE);
        let answer = self.client.get_workflow(request).await?.into_inner();
        answer
            .workflow
            .ok_or_else(|| Status::unknown("an answer without a workflow"))
    }

    async fn tell(&self, news: News) -> Result<(), Broken> {
        self.sender.send(news).await.map_err(|_| Broken::Unheard)
    }

    async fn lost(&mut self, status: &Status) {
        if self.lost_at.is_none() && passes(status) {
            self.lost_at = Some(Instant::now());
            // a reader that is gone is noticed elsewhere
            let _ = self.tell(News::Lost(status.message().to_owned())).await;
        }
    }

    async fn found(&mut self) {
        if self.lost_at.take().is_some() {
            let _ = self.tell(News::Back).await;
        }
    }

    /// Waits as long as is asked for where the call may succeed later.
    async fn wait_after(&mut self, status: Status) -> Result<(), Status> {
        let is_first = self.asked.after_revision == Some(self.after)
            || (self.after == 0 && self.with_snapshot);
        if status.code() == Code::OutOfRange && !is_first {
            // what was missed is not kept any more; how things are is
            let _ = self.tell(News::Skipped).await;
            (self.after, self.with_snapshot) = (0, true);
            self.asked.after_revision = None;
            return Ok(());
        }
        if !passes(&status) {
            return Err(status);
        }
        let gone = self.lost_at.map(|since| since.elapsed());
        if let (Some(gone), Some(most)) = (gone, self.asked.give_up_after)
            && gone >= most
        {
            return Err(status);
        }
        let asked = status.get_details_retry_info();
        let asked = asked.and_then(|info| info.retry_delay).unwrap_or_default();
        // the first is made at once: most streams end because they have lived long enough
        let pause = match gone {
            None if self.heard => asked,
            _ => asked.max(RETRY),
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether the same call may succeed later. What breaks on the way has no details.
pub(super) fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted => true,
        Code::Unknown | Code::Cancelled | Code::Internal => status.details().is_empty(),
        _ => false,
    }
}

enum Stream {
    One(Streaming<pb::WatchWorkflowResponse>),
    All(Streaming<pb::WatchWorkflowsResponse>),
}

impl Stream {
    async fn next(&mut self) -> Result<Option<pb::WatchWorkflowResponse>, Status> {
        use pb::watch_workflows_response::Told as ToldOfAll;
        Ok(match self {
            Self::One(stream) => stream.message().await?,
            Self::All(stream) => stream
                .message()
                .await?
                .map(|message| pb::WatchWorkflowResponse {
                    revision: message.revision,
                    told: message.told.map(|told| match told {
                        ToldOfAll::Snapshot(of) => Told::Snapshot(of),
                        ToldOfAll::Event(of) => Told::Event(of),
                        ToldOfAll::Bookmark(of) => Told::Bookmark(of),
                    }),
                }),
        })
    }
}
