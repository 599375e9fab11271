mod random;

use std::pin::Pin;

use futures_util::{FutureExt, StreamExt};

use super::super::fake::FakeStore;
use super::super::log::Measure;
use super::*;

type News = Pin<Box<dyn Stream<Item = Result<WorkflowNews, Error>> + Send>>;

/// Nothing is done by the clock.
const LONG: Measure = Measure {
    events: 100,
    bytes: 1 << 20,
    look: Duration::from_secs(3_600),
    bookmark: Duration::from_secs(3_600),
};

async fn small(events: usize) -> (Arc<FakeStore>, Arc<EventLog>) {
    let store = Arc::new(FakeStore::default());
    let log = reopened(&store, events).await;
    (store, log)
}

async fn reopened(store: &Arc<FakeStore>, events: usize) -> Arc<EventLog> {
    let measure = Measure { events, ..LONG };
    EventLog::measured(store.clone(), measure).await.unwrap()
}

async fn watching(log: &Arc<EventLog>, from: WatchFrom) -> News {
    Box::pin(watch(log.clone(), from).await.unwrap())
}

fn of(workflow_id: &str) -> WatchFrom {
    WatchFrom {
        workflow_id: Some(workflow_id.to_owned()),
        ..WatchFrom::default()
    }
}

fn told(news: &WorkflowNews) -> (u64, String) {
    let what = match &news.told {
        WorkflowTold::Snapshot(state) => format!("{} at {}", state.workflow_id, state.revision),
        WorkflowTold::Event(event) => event.event.event.kind().to_owned(),
        WorkflowTold::Bookmark { synced: true } => "synced".to_owned(),
        WorkflowTold::Bookmark { synced: false } => "not synced".to_owned(),
    };
    (news.revision, what)
}

/// All that there is now, and whether the watch has ended.
fn all(news: &mut News) -> (Vec<(u64, String)>, bool) {
    let mut found = Vec::new();
    loop {
        match news.next().now_or_never() {
            Some(Some(one)) => found.push(told(&one.unwrap())),
            Some(None) => return (found, true),
            None => return (found, false),
        }
    }
}

fn shown(found: &[(u64, String)]) -> Vec<String> {
    let one = |(revision, what): &(u64, String)| format!("{revision} {what}");
    found.iter().map(one).collect()
}

#[tokio::test]
async fn a_workflow_is_told_from_its_first_event_to_its_end() {
    let (store, log) = small(100).await;
    log.committed(&store.go_on("w1", "a"));
    log.committed(&store.go_on("w2", "b"));
    let mut news = watching(&log, of("w1")).await;
    let (found, ended) = all(&mut news);
    assert_eq!(shown(&found), ["1 started", "2 synced"]);
    assert!(!ended);
    log.committed(&store.go_on("w1", "a"));
    log.committed(&store.go_on("w2", "b"));
    log.committed(&store.cancel("w1", "a"));
    let (found, ended) = all(&mut news);
    assert_eq!(shown(&found), ["3 paused", "5 cancelled"]);
    assert!(ended);
    // afterwards the same, and how it is with a snapshot
    let (found, ended) = all(&mut watching(&log, of("w1")).await);
    let whole = ["1 started", "3 paused", "5 cancelled", "5 synced"];
    assert_eq!(shown(&found), whole);
    assert!(ended);
    let with_snapshot = WatchFrom {
        include_snapshot: true,
        ..of("w1")
    };
    let (found, ended) = all(&mut watching(&log, with_snapshot.clone()).await);
    assert_eq!(shown(&found), ["5 w1 at 5", "5 synced"]);
    assert!(ended);
    let resumed = WatchFrom {
        after_revision: Some(3),
        ..with_snapshot
    };
    let (found, ended) = all(&mut watching(&log, resumed).await);
    assert_eq!(shown(&found), ["5 cancelled", "5 synced"]);
    assert!(ended);
}

#[tokio::test]
async fn without_news_there_is_a_bookmark_that_moves_on() {
    let store = Arc::new(FakeStore::default());
    let measure = Measure {
        bookmark: Duration::from_millis(2),
        ..LONG
    };
    let log = EventLog::measured(store.clone(), measure).await.unwrap();
    log.committed(&store.go_on("w1", "a"));
    let mut news = watching(&log, of("w1")).await;
    let first = news.next().await.unwrap().unwrap();
    assert_eq!(told(&first), (1, "started".to_owned()));
    for _ in 0..2 {
        let bookmark = news.next().await.unwrap().unwrap();
        assert_eq!(told(&bookmark), (1, "synced".to_owned()));
    }
    // what others did is read over
    log.committed(&store.go_on("w2", "b"));
    let mut bookmark = news.next().await.unwrap().unwrap();
    while bookmark.revision < 2 {
        bookmark = news.next().await.unwrap().unwrap();
    }
    assert_eq!(told(&bookmark), (2, "synced".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_at_once() {
    let (store, log) = small(2).await;
    for _ in 0..5 {
        log.committed(&store.go_on("w1", "a"));
    }
    log.committed(&store.cancel("w1", "a"));
    store.compact(3);
    let refused = |from| watch(log.clone(), from).map(|watched| watched.err().unwrap());
    let gone = Error::Store(StoreError::Compacted { oldest_revision: 3 });
    assert_eq!(refused(of("w1")).await, gone);
    let after = |after| WatchFrom {
        after_revision: Some(after),
        ..WatchFrom::default()
    };
    assert_eq!(refused(after(2)).await, gone);
    assert!(watch(log.clone(), after(3)).await.is_ok());
    let none = Error::Store(StoreError::NoWorkflow("w9".to_owned()));
    assert_eq!(refused(of("w9")).await, none);
    let Error::Invalid(violations) = refused(after(7)).await else {
        panic!("taken");
    };
    assert_eq!(violations[0].field, "after_revision");
}

/// Of all that have not ended at one revision, however they go on while they are told.
#[tokio::test]
async fn snapshots_are_of_one_revision() {
    let (store, log) = small(100).await;
    for (workflow, instance) in [("w1", "a"), ("w2", "b"), ("w3", "c"), ("w1", "a")] {
        log.committed(&store.go_on(workflow, instance));
    }
    log.committed(&store.cancel("w3", "c"));
    let from = WatchFrom {
        include_snapshot: true,
        ..WatchFrom::default()
    };
    let mut news = watching(&log, from.clone()).await;
    let first = news.next().await.unwrap().unwrap();
    assert_eq!(told(&first), (0, "w1 at 4".to_owned()));
    log.committed(&store.cancel("w2", "b"));
    log.committed(&store.go_on("w4", "d"));
    let (found, _) = all(&mut news);
    assert_eq!(
        shown(&found),
        ["0 w2 at 2", "6 cancelled", "7 started", "7 synced"]
    );
    // of one instance
    let from = WatchFrom {
        instance_id: Some("a".to_owned()),
        ..from
    };
    let (found, _) = all(&mut watching(&log, from).await);
    assert_eq!(shown(&found), ["0 w1 at 4", "7 synced"]);
}

#[tokio::test]
async fn a_page_waits_until_there_is_something_or_its_time_is_over() {
    let (store, log) = small(2).await;
    let all = EventFilter::default();
    let of = |id: &str| EventFilter {
        workflow_id: Some(id.to_owned()),
        instance_id: None,
    };
    for _ in 0..40 {
        log.committed(&store.go_on("w1", "a"));
    }
    // more than a read from the store
    let long = page(&log, 0, &all, 39, Duration::ZERO).await.unwrap();
    assert_eq!(
        (long.events.len(), long.read_to_revision, long.more),
        (39, 39, true)
    );
    let before = Instant::now();
    let waited = page(&log, 40, &all, 9, Duration::from_secs(7))
        .await
        .unwrap();
    assert_eq!(before.elapsed().as_secs(), 7);
    assert_eq!((waited.events.len(), waited.read_to_revision), (0, 40));
    let waiting = async {
        let filter = of("w1");
        page(&log, 40, &filter, 9, Duration::from_secs(60))
            .await
            .unwrap()
    };
    let committing = async {
        log.committed(&store.go_on("w2", "b"));
        tokio::task::yield_now().await;
        log.committed(&store.go_on("w1", "a"));
    };
    let (answer, ()) = tokio::join!(waiting, committing);
    let revisions: Vec<u64> = answer.events.iter().map(|one| one.event.revision).collect();
    assert_eq!(
        (revisions, answer.read_to_revision, answer.more),
        (vec![42], 42, false)
    );
    // from the first that is kept
    for (workflow, instance) in [("w1", "a"), ("w2", "b")] {
        log.committed(&store.cancel(workflow, instance));
    }
    store.compact(30);
    let kept = page(&log, 0, &all, 5, Duration::ZERO).await.unwrap();
    assert_eq!(kept.events[0].event.revision, 31);
    let gone = page(&log, 29, &all, 5, Duration::ZERO).await.unwrap_err();
    assert_eq!(
        gone,
        Error::Store(StoreError::Compacted {
            oldest_revision: 30
        })
    );
    let none = page(&log, 0, &of("w9"), 5, Duration::ZERO)
        .await
        .unwrap_err();
    assert_eq!(none, Error::Store(StoreError::NoWorkflow("w9".to_owned())));
}

/// The store knows of an end before watchers are told.
#[tokio::test]
async fn what_has_just_ended_is_not_left_out() {
    let (store, log) = small(100).await;
    log.committed(&store.go_on("w1", "a"));
    let ending = store.cancel("w1", "a");
    let from = WatchFrom {
        include_snapshot: true,
        ..WatchFrom::default()
    };
    let mut news = watching(&log, from).await;
    log.committed(&ending);
    let (found, _) = all(&mut news);
    assert_eq!(shown(&found), ["0 w1 at 1", "2 cancelled", "2 synced"]);
}
