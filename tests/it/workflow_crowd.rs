//! Many watchers that come and go while much happens, over restarts of the agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::watch_workflows_response::Told;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::store::{EventFilter, Store, StoreError};
use perfagent::workflow::{Event, PauseReason, RecordedEvent};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::workflow_watches::{reason, revision};
use crate::workflows::{cancelled, commit, over, pending, store, try_commit};

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

async fn is_paused(store: &dyn Store, id: &str) -> bool {
    loop {
        match store.workflow(id).await {
            Ok(state) => return state.unwrap().pause.is_some(),
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
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
        if number.is_multiple_of(2) {
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
            match try_commit(&*store, &id, &instance, &event).await {
                Ok(_) => {}
                // a disk that many wait for
                Err(StoreError::Unavailable(_)) => {
                    paused = is_paused(&*store, &id).await;
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
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
                        paused = is_paused(&*store, &id).await;
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

/// The figures of the issue: 10,000 events here; `PERFAGENT_TEST_WATCH_EVENTS=100000 PERFAGENT_TEST_WATCHERS=50` in full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_come_and_go_are_told_everything_once() {
    let events = asked("PERFAGENT_TEST_WATCH_EVENTS", 10_000);
    let watchers = asked("PERFAGENT_TEST_WATCHERS", 20);
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
