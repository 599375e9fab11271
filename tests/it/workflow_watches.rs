//! Watching workflows over the wire: in order, once, without a gap, over disconnects, restarts, drains and compaction.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::watch_workflow_response::Told as ToldOfOne;
use perfagent::edge::grpc::pb::watch_workflows_response::Told;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::store::{EventFilter, Store, StoreError};
use perfagent::workflow::{Event, PauseReason, RecordedEvent};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::fake::TestAgent;
use crate::workflows::{
    approval, cancelled, commit, over, pause, pending, resume, seed, spec, store,
};

fn of_one(id: &str, after_revision: u64, include_snapshot: bool) -> pb::WatchWorkflowRequest {
    pb::WatchWorkflowRequest {
        workflow_id: id.to_owned(),
        after_revision,
        include_snapshot,
    }
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// The revision that an error tells to go on after.
fn revision(status: &Status) -> Option<u64> {
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

/// How much the long test does: as much as `tests/run` has time for, or as `tests/run full` asks.
fn asked(variable: &str, or: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => or,
    }
}

/// Numbers as random as a test needs them, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a watcher was told, in the order in which it was.
#[derive(Default)]
struct Record {
    instance_id: String,
    events: Vec<(u64, String, u64)>,
    /// Revision of a bookmark, and how many events came before it.
    bookmarks: Vec<(u64, usize)>,
    /// Messages, disconnects of its own, and ends that the agent gave it.
    messages: usize,
    disconnects: usize,
    ends: BTreeMap<String, usize>,
}

/// Watches until it is told that nothing is left up to this revision; comes again whatever happens.
async fn watcher(
    number: u64,
    agents: watch::Receiver<SocketAddr>,
    mut last_revision: watch::Receiver<u64>,
) -> Record {
    let mut random = Random(number);
    let instance_id = match number % 3 {
        0 => format!("i{}", number % WORKFLOWS),
        _ => String::new(),
    };
    let mut record = Record {
        instance_id,
        ..Record::default()
    };
    let mut after = 0;
    loop {
        let address = *agents.borrow();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let Ok(channel) = endpoint.connect().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut client: WorkflowServiceClient<Channel> = WorkflowServiceClient::new(channel);
        // 0 is from now on: the first of all is before the first event
        let request = pb::WatchWorkflowsRequest {
            instance_id: record.instance_id.clone(),
            after_revision: after,
            include_snapshot: false,
        };
        let Ok(stream) = client.watch_workflows(request).await else {
            continue;
        };
        let mut stream = stream.into_inner();
        let stays = 1 + random.below(400);
        for _ in 0..stays {
            let message = tokio::select! {
                message = stream.message() => message,
                _ = last_revision.changed() => continue,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => panic!("a watch of all ended"),
                Err(status) => {
                    let ended = reason(&status);
                    if let Some(told) = revision(&status) {
                        assert_eq!(told, after, "{ended}");
                    }
                    *record.ends.entry(ended).or_default() += 1;
                    break;
                }
            };
            record.messages += 1;
            match message.told.unwrap() {
                Told::Snapshot(_) => panic!("nobody asked for it"),
                Told::Event(event) => {
                    assert_eq!(event.revision, message.revision);
                    record
                        .events
                        .push((event.revision, event.workflow_id, event.sequence));
                }
                Told::Bookmark(_) => record
                    .bookmarks
                    .push((message.revision, record.events.len())),
            }
            after = message.revision;
            let last = *last_revision.borrow();
            if last > 0 && after >= last {
                return record;
            }
        }
        record.disconnects += 1;
        if *last_revision.borrow() > 0 && random.below(4) == 0 {
            // by itself it would be told after 15 seconds only
            tokio::task::yield_now().await;
        }
    }
}

const WORKFLOWS: u64 = 8;

async fn whole_log(store: &dyn Store) -> Vec<RecordedEvent> {
    let (mut log, mut after) = (Vec::new(), 0);
    loop {
        let page = store
            .events(after, &EventFilter::default(), 500)
            .await
            .unwrap();
        log.extend(page.events);
        after = page.read_to_revision;
        if !page.more {
            return log;
        }
    }
}

/// Half of them by calls, half in the store without a word to the agent, as another agent would.
async fn writes(
    store: Arc<dyn Store>,
    agents: watch::Receiver<SocketAddr>,
    number: u64,
    id: String,
    events: usize,
) {
    let instance = format!("i{number}");
    let mut paused = false;
    let mut written = 0;
    while written < events {
        if number % 2 == 0 {
            let event = match paused {
                true => Event::Resumed {
                    note: String::new(),
                },
                false => Event::Paused {
                    reason: PauseReason::Requested,
                    message: "For a while.".to_owned(),
                    target: None,
                    digest: None,
                },
            };
            commit(&*store, &id, &instance, &event).await;
        } else {
            let address = *agents.borrow();
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let Ok(channel) = endpoint.connect().await else {
                continue;
            };
            let mut client = WorkflowServiceClient::new(channel);
            // each connection for a while
            for _ in 0..200 {
                if written >= events {
                    return;
                }
                let done = match paused {
                    true => client
                        .resume_workflow(pb::ResumeWorkflowRequest {
                            workflow_id: id.clone(),
                            ..Default::default()
                        })
                        .await
                        .map(|_| ()),
                    false => client
                        .pause_workflow(pb::PauseWorkflowRequest {
                            workflow_id: id.clone(),
                            ..Default::default()
                        })
                        .await
                        .map(|_| ()),
                };
                match done {
                    Ok(()) => {
                        paused = !paused;
                        written += 1;
                    }
                    Err(_) => {
                        // whether it was done: how it is tells
                        let state = store.workflow(&id).await.unwrap().unwrap();
                        paused = state.pause.is_some();
                        break;
                    }
                }
            }
            continue;
        }
        paused = !paused;
        written += 1;
    }
}

/// The figures of the issue: 10,000 events here; `PERFAGENT_WATCH_EVENTS=100000 PERFAGENT_WATCHERS=50` in full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_come_and_go_are_told_everything_once() {
    let events = asked("PERFAGENT_WATCH_EVENTS", 10_000);
    let watchers = asked("PERFAGENT_WATCHERS", 20);
    let restarts = 3;
    let (store, _state) = store().await;
    let mut ids = Vec::new();
    for number in 0..WORKFLOWS {
        ids.push(pending(&*store, &format!("i{number}")).await);
    }
    let short = |config: &mut perfagent::config::Config| {
        config.server.stream_lifetime = Duration::from_secs(2);
    };
    let mut agent = over(&store, short).await;
    let (address, addresses) = watch::channel(agent.address);
    let (end, ends) = watch::channel(0);
    let watching: Vec<_> = (0..watchers as u64)
        .map(|number| tokio::spawn(watcher(number, addresses.clone(), ends.clone())))
        .collect();
    let each = events / ids.len();
    let mut writing = tokio::task::JoinSet::new();
    for (number, id) in (0..).zip(&ids) {
        writing.spawn(writes(
            store.clone(),
            addresses.clone(),
            number,
            id.clone(),
            each,
        ));
    }
    // restarts are spread over the writes
    for restart in 1..=restarts {
        let at = (events * restart / (restarts + 1)) as u64;
        while end_of(&*store).await < at {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        agent.handle.stop();
        agent.served.await.unwrap();
        agent = over(&store, short).await;
        address.send(agent.address).unwrap();
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    // all of them have something to say at the end
    for (number, id) in ids.iter().enumerate() {
        commit(&*store, id, &format!("i{number}"), &cancelled()).await;
    }
    let log = whole_log(&*store).await;
    let last = log.last().unwrap().revision;
    assert!(log.len() >= events, "{} of {events}", log.len());
    end.send(last).unwrap();
    let mut messages = 0;
    let mut disconnects = 0;
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for watching in watching {
        let record = watching.await.unwrap();
        check(&record, &log);
        messages += record.messages;
        disconnects += record.disconnects;
        for (reason, count) in record.ends {
            *told.entry(reason).or_default() += count;
        }
    }
    println!(
        "{} events, {watchers} watchers: {messages} messages, {disconnects} connections, ended by {told:?}",
        log.len()
    );
    // a run in which nothing went wrong proves nothing
    assert!(disconnects >= watchers * 3, "{disconnects}");
    assert!(
        told.contains_key("DRAINING") && told.contains_key("STREAM_LIFETIME"),
        "{told:?}"
    );
}

async fn end_of(store: &dyn Store) -> u64 {
    let none = EventFilter {
        workflow_id: Some(String::new()),
        instance_id: None,
    };
    store.events(0, &none, 1).await.unwrap().read_to_revision
}

/// In order, once, without a gap, from the first event that it was told on; and each bookmark is true.
fn check(record: &Record, log: &[RecordedEvent]) {
    let matching: Vec<&RecordedEvent> = log
        .iter()
        .filter(|event| record.instance_id.is_empty() || event.instance_id == record.instance_id)
        .collect();
    let begin = match record.bookmarks.first() {
        // where it began to watch
        Some((revision, 0)) => *revision,
        _ => record
            .events
            .first()
            .map_or(0, |(revision, _, _)| revision - 1),
    };
    let due: Vec<(u64, String, u64)> = matching
        .iter()
        .filter(|event| event.revision > begin)
        .map(|event| (event.revision, event.workflow_id.clone(), event.sequence))
        .collect();
    assert_eq!(record.events.len(), due.len());
    assert_eq!(record.events, due);
    for (revision, before) in &record.bookmarks {
        let told = record
            .events
            .get(*before)
            .is_none_or(|(next, _, _)| next > revision);
        assert!(told, "a bookmark at {revision} before an event of it");
    }
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
