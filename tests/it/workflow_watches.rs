//! Watching workflows over the wire: in order, once, without a gap, over disconnects, restarts, drains and compaction.

use std::time::Duration;

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::watch_workflow_response::Told as ToldOfOne;
use perfagent::edge::grpc::pb::watch_workflows_response::Told;
use perfagent::store::{EventFilter, StoreError};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::fake::TestAgent;
use crate::workflows::{approval, cancelled, over, pause, pending, resume, seed, spec, store};

fn of_one(id: &str, after_revision: u64, include_snapshot: bool) -> pb::WatchWorkflowRequest {
    pb::WatchWorkflowRequest {
        workflow_id: id.to_owned(),
        after_revision,
        include_snapshot,
    }
}

pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// The revision that an error tells to go on after.
pub fn revision(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info()?;
    info.metadata.get("revision")?.parse().ok()
}

/// What it is told up to a bookmark, or to the end.
async fn told(watch: &mut Streaming<pb::WatchWorkflowResponse>) -> (Vec<String>, bool) {
    let mut found = Vec::new();
    loop {
        let Some(message) = watch.message().await.unwrap() else {
            return (found, true);
        };
        let what = match message.told.unwrap() {
            ToldOfOne::Snapshot(state) => format!("snapshot at {}", state.revision),
            ToldOfOne::Event(event) => event.r#type,
            ToldOfOne::Bookmark(bookmark) => {
                assert!(bookmark.synced);
                found.push(format!("{} synced", message.revision));
                return (found, false);
            }
        };
        found.push(format!("{} {what}", message.revision));
    }
}

#[tokio::test]
async fn a_watch_tells_each_step_and_ends_with_its_workflow() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let watch = client.watch_workflow(of_one(&id, 0, false)).await;
    let mut watch = watch.unwrap().into_inner();
    let (first, ended) = told(&mut watch).await;
    assert_eq!(first, ["1 started", "2 analysed", "3 planned", "3 synced"]);
    assert!(!ended);
    let with_snapshot = client.watch_workflow(of_one(&id, 0, true)).await;
    let mut with_snapshot = with_snapshot.unwrap().into_inner();
    let (first, _) = told(&mut with_snapshot).await;
    assert_eq!(first, ["3 snapshot at 3", "3 synced"]);
    pause(&agent, &id).await;
    resume(&agent, &id).await;
    client.approve_workflow(approval(&id)).await.unwrap();
    for watch in [&mut watch, &mut with_snapshot] {
        let (rest, ended) = told(watch).await;
        assert_eq!(rest, ["4 paused", "5 resumed", "6 approved"]);
        assert!(ended);
    }
    // one that has ended is told, and ends
    let again = client.watch_workflow(of_one(&id, 4, true)).await.unwrap();
    let mut again = again.into_inner();
    let (first, _) = told(&mut again).await;
    assert_eq!(first, ["5 resumed", "6 approved", "6 synced"]);
    assert_eq!(told(&mut again).await, (Vec::new(), true));
}

#[tokio::test]
async fn a_watch_goes_on_with_another_agent_where_it_was() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, |_| {}).await;
    let mut watches = Vec::new();
    for _ in 0..30 {
        let mut client = agent.workflows().await;
        let watch = client.watch_workflow(of_one(&id, 0, false)).await;
        let mut watch = watch.unwrap().into_inner();
        assert_eq!(told(&mut watch).await.0.len(), 4);
        watches.push(watch);
    }
    agent.handle.stop();
    for watch in &mut watches {
        let status = watch.message().await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "DRAINING")
        );
        assert_eq!(revision(&status), Some(3));
    }
    agent.served.await.unwrap();
    let agent = over(&store, |config| {
        config.server.stream_lifetime = Duration::from_millis(200);
    })
    .await;
    pause(&agent, &id).await;
    let mut client = agent.workflows().await;
    let watch = client.watch_workflow(of_one(&id, 3, false)).await.unwrap();
    let mut watch = watch.into_inner();
    let (rest, _) = told(&mut watch).await;
    assert_eq!(rest, ["4 paused", "4 synced"]);
    let status = watch.message().await.unwrap_err();
    assert_eq!(reason(&status), "STREAM_LIFETIME");
    assert_eq!(revision(&status), Some(4));
}

#[tokio::test]
async fn what_is_unfinished_comes_first_and_then_the_log() {
    let (store, _state) = store().await;
    let first = pending(&*store, "a").await;
    seed(&*store, spec("b"), &[cancelled()]).await;
    let third = pending(&*store, "c").await;
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let request = |after_revision, instance_id: &str| pb::WatchWorkflowsRequest {
        instance_id: instance_id.to_owned(),
        after_revision,
        include_snapshot: true,
    };
    let next = async |watch: &mut Streaming<pb::WatchWorkflowsResponse>| {
        let message = watch.message().await.unwrap().unwrap();
        let what = match message.told.unwrap() {
            Told::Snapshot(state) => state.workflow_id,
            Told::Event(event) => event.r#type,
            Told::Bookmark(bookmark) => format!("synced {}", bookmark.synced),
        };
        (message.revision, what)
    };
    let mut all = client
        .watch_workflows(request(0, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut all).await, (0, first.clone()));
    assert_eq!(next(&mut all).await, (0, third));
    assert_eq!(next(&mut all).await, (8, "synced true".to_owned()));
    let mut one = client
        .watch_workflows(request(0, "a"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut one).await, (0, first.clone()));
    assert_eq!(next(&mut one).await, (8, "synced true".to_owned()));
    pause(&agent, &first).await;
    for watch in [&mut all, &mut one] {
        assert_eq!(next(watch).await, (9, "paused".to_owned()));
    }
    // with a revision there is no snapshot
    let mut later = client
        .watch_workflows(request(7, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut later).await, (8, "planned".to_owned()));
}

#[tokio::test]
async fn what_is_compacted_is_said_and_what_is_left_is_told() {
    let (store, _state) = store().await;
    seed(&*store, spec("a"), &[cancelled()]).await;
    let id = pending(&*store, "b").await;
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let after = |after_revision| pb::WatchWorkflowsRequest {
        after_revision,
        ..pb::WatchWorkflowsRequest::default()
    };
    // what is being read goes on
    let mut reading = client.watch_workflows(after(1)).await.unwrap().into_inner();
    assert_eq!(reading.message().await.unwrap().unwrap().revision, 2);
    assert_eq!(store.compact_events(2).await.unwrap(), 2);
    assert_eq!(reading.message().await.unwrap().unwrap().revision, 3);
    pause(&agent, &id).await;
    // an agent that has nothing in memory reads all from the store
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let status = client.watch_workflows(after(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let info = status.get_details_error_info().unwrap();
    let oldest: u64 = info.metadata["oldest_revision"].parse().unwrap();
    let mut watch = client
        .watch_workflows(after(oldest))
        .await
        .unwrap()
        .into_inner();
    for revision in 3..=6 {
        assert_eq!(watch.message().await.unwrap().unwrap().revision, revision);
    }
    // a workflow that has not ended is there from its first event on
    let watch = client.watch_workflow(of_one(&id, 0, false)).await.unwrap();
    let (whole, _) = told(&mut watch.into_inner()).await;
    let expected = [
        "3 started",
        "4 analysed",
        "5 planned",
        "6 paused",
        "6 synced",
    ];
    assert_eq!(whole, expected);
    let gone = store.events(1, &EventFilter::default(), 9).await;
    assert!(matches!(gone, Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn nobody_watches_what_is_not_there() {
    let agent = TestAgent::start().await;
    let mut client = agent.workflows().await;
    let id = uuid::Uuid::now_v7().to_string();
    let status = client
        .watch_workflow(of_one(&id, 0, true))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "WORKFLOW_NOT_FOUND")
    );
}
