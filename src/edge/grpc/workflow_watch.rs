//! What watchers of workflows are sent. The answers to WatchWorkflow and WatchWorkflows are the same on the wire, so an event
//! is written once for all who watch it.

use tokio_stream::{Stream, StreamExt};
use tonic::Response;

use super::convert_workflow_event::event;
use super::encoded::Framed;
use super::lifetime::ReadTo;
use super::pb;
use super::pb::watch_workflows_response::Told;
use super::ready::{self, Nothing};
use super::status::status_at;
use super::workflow::fitting;
use crate::agent::{Error, WorkflowNews, WorkflowTold};

/// The form of an event that is kept with it.
const EVENT_FORM: usize = 0;

/// The news, and how far their reader is.
pub(super) fn response<T>(
    news: impl Stream<Item = Result<WorkflowNews, Error>> + Send + 'static,
) -> Response<Nothing<T>> {
    let read_to = ReadTo::default();
    let noted = read_to.clone();
    let messages = news.map(move |news| match news {
        Ok(news) => {
            noted.note(news.revision);
            Ok(framed(&news))
        }
        Err(error) => Err(status_at(&error, noted.revision())),
    });
    ready::resumable(messages, read_to)
}

fn framed(news: &WorkflowNews) -> Framed {
    let message = |told| {
        Framed::of(&pb::WatchWorkflowsResponse {
            revision: news.revision,
            told: Some(told),
        })
    };
    match &news.told {
        WorkflowTold::Event(logged) => Framed::kept(&logged.forms, EVENT_FORM, || {
            message(Told::Event(event(&logged.event)))
        }),
        WorkflowTold::Snapshot(state) => message(Told::Snapshot(fitting(state))),
        WorkflowTold::Bookmark { synced } => {
            message(Told::Bookmark(pb::WatchBookmark { synced: *synced }))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn what_watchers_of_one_and_of_all_are_sent_is_the_same() {
        let event = pb::WorkflowEvent {
            revision: 7,
            ..pb::WorkflowEvent::default()
        };
        let workflow = pb::Workflow {
            workflow_id: "0198".to_owned(),
            ..pb::Workflow::default()
        };
        let bookmark = pb::WatchBookmark { synced: true };
        use pb::watch_workflow_response::Told as OfOne;
        for (of_all, of_one) in [
            (Told::Event(event.clone()), OfOne::Event(event)),
            (Told::Snapshot(workflow.clone()), OfOne::Snapshot(workflow)),
            (Told::Bookmark(bookmark), OfOne::Bookmark(bookmark)),
        ] {
            let sent = pb::WatchWorkflowsResponse {
                revision: 7,
                told: Some(of_all),
            };
            let read = pb::WatchWorkflowResponse::decode(sent.encode_to_vec().as_slice());
            let expected = pb::WatchWorkflowResponse {
                revision: 7,
                told: Some(of_one),
            };
            assert_eq!(read.unwrap(), expected);
        }
    }
}
