use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::super::fake::FakeStore;
use super::super::log::Measure;
use super::*;
use crate::workflow::RecordedEvent;

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

/// What happens while others watch.
#[derive(Debug, Clone)]
enum Act {
    /// An event of this workflow, and how its watchers hear of it.
    GoOn(u8, Word),
    End(u8, Word),
    /// What was held back is told, the last first.
    Tell,
    /// A watcher reads so much.
    Read(u8, u8),
    /// A watcher begins anew from where it was.
    Reconnect(u8),
    /// The agent does.
    Restart,
    Compact(u8),
    /// It is looked whether the store has more.
    Look,
}

#[derive(Debug, Clone, Copy)]
enum Word {
    AtOnce,
    Late,
    Never,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let word = || {
        prop_oneof![
            6 => Just(Word::AtOnce),
            2 => Just(Word::Late),
            1 => Just(Word::Never),
        ]
    };
    let act = prop_oneof![
        12 => (0_u8..6, word()).prop_map(|(workflow, word)| Act::GoOn(workflow, word)),
        4 => (0_u8..6, word()).prop_map(|(workflow, word)| Act::End(workflow, word)),
        3 => Just(Act::Tell),
        8 => (0_u8..5, 1_u8..9).prop_map(|(watcher, reads)| Act::Read(watcher, reads)),
        2 => (0_u8..5).prop_map(Act::Reconnect),
        1 => Just(Act::Restart),
        2 => (0_u8..100).prop_map(Act::Compact),
        2 => Just(Act::Look),
    ];
    prop::collection::vec(act, 1..120)
}

/// A watcher, and what it may be told next.
struct Watcher {
    from: WatchFrom,
    news: Option<News>,
    last: u64,
    /// Snapshots since the beginning, until they are complete.
    snapshots: Option<BTreeMap<String, Workflow>>,
    ended: bool,
}

impl Watcher {
    fn new(from: WatchFrom, last: u64) -> Self {
        Self {
            snapshots: from.include_snapshot.then(BTreeMap::new),
            from,
            news: None,
            last,
            ended: false,
        }
    }

    fn matches(&self, event: &RecordedEvent) -> bool {
        let is = |asked: &Option<String>, of: &String| asked.as_ref().is_none_or(|id| id == of);
        is(&self.from.workflow_id, &event.workflow_id)
            && is(&self.from.instance_id, &event.instance_id)
    }

    async fn connect(&mut self, log: &Arc<EventLog>, store: &FakeStore) {
        if self.news.is_some() || self.ended {
            return;
        }
        loop {
            let fresh = self.from.include_snapshot && self.snapshots.is_some();
            if fresh {
                self.snapshots = Some(BTreeMap::new());
            }
            let from = WatchFrom {
                after_revision: (!fresh).then_some(self.last),
                ..self.from.clone()
            };
            match watch(log.clone(), from).await {
                Ok(news) => {
                    self.news = Some(Box::pin(news));
                    return;
                }
                Err(Error::Store(StoreError::NoWorkflow(_))) => return,
                Err(Error::Store(StoreError::Compacted { oldest_revision })) => {
                    assert!(oldest_revision > self.last && oldest_revision == store.compacted());
                    self.last = oldest_revision;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn read(&mut self, store: &FakeStore) -> bool {
        let Some(news) = &mut self.news else {
            return false;
        };
        match news.next().now_or_never() {
            None => return false,
            Some(None) => {
                let id = self.from.workflow_id.as_ref().unwrap();
                assert!(store.state(id).unwrap().status().has_ended());
                self.news = None;
                self.ended = true;
            }
            Some(Some(Err(Error::Store(StoreError::Compacted { oldest_revision })))) => {
                assert!(oldest_revision > self.last);
                self.news = None;
                self.last = oldest_revision;
                self.snapshots = None;
            }
            Some(Some(one)) => self.check(one.unwrap(), store),
        }
        true
    }

    fn check(&mut self, news: WorkflowNews, store: &FakeStore) {
        let log = store.log();
        if let WorkflowTold::Snapshot(state) = news.told {
            let snapshots = self.snapshots.as_mut().unwrap();
            let again = snapshots.insert(state.workflow_id.clone(), *state);
            assert!(again.is_none());
            return;
        }
        if let Some(snapshots) = self.snapshots.take() {
            // all of them as they were at one revision, which is before what is told now
            let then = match &news.told {
                WorkflowTold::Event(event) => event.event.revision - 1,
                _ => news.revision,
            };
            let mut states = BTreeMap::new();
            for event in log.iter().filter(|event| event.revision <= then) {
                if self.matches(event) {
                    let before = states.remove(&event.workflow_id);
                    states.insert(event.workflow_id.clone(), evolve(before, event).unwrap());
                }
            }
            states.retain(|_, state: &mut Workflow| !state.status().has_ended());
            assert_eq!(snapshots, states);
            self.last = then;
        }
        let mut next = log
            .iter()
            .filter(|event| event.revision > self.last && event.revision <= news.revision)
            .filter(|event| self.matches(event));
        match &news.told {
            WorkflowTold::Event(event) => {
                assert_eq!(next.next(), Some(&event.event));
                assert_eq!(news.revision, event.event.revision);
            }
            _ => assert!(news.revision >= self.last),
        }
        assert_eq!(next.next(), None, "left out");
        self.last = news.revision;
    }
}

/// The first two are watched by name; of the others there is a new one when one has ended.
fn workflow(store: &FakeStore, number: u8) -> (String, String) {
    let instance = format!("i{}", number / 2);
    let has_ended = |id: &String| {
        let state = store.state(id);
        state.is_some_and(|state| state.status().has_ended())
    };
    if number < 2 {
        return (format!("w{number}"), instance);
    }
    let mut ids = (0..).map(|turn| format!("w{number}-{turn}"));
    (ids.find(|id| !has_ended(id)).unwrap(), instance)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In order, once, without a gap, whatever becomes of connections, of the agent, of what it hears and of the log.
    #[test]
    fn nothing_is_left_out_or_told_twice(acts in acts(), room in 1_usize..8) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(play(acts, room));
    }
}

async fn play(acts: Vec<Act>, room: usize) {
    let (store, mut log) = small(room).await;
    let mut watchers = [
        Watcher::new(of("w0"), 0),
        Watcher::new(of("w1"), 0),
        Watcher::new(
            WatchFrom {
                instance_id: Some("i1".to_owned()),
                ..WatchFrom::default()
            },
            0,
        ),
        Watcher::new(WatchFrom::default(), 0),
        Watcher::new(
            WatchFrom {
                include_snapshot: true,
                ..WatchFrom::default()
            },
            0,
        ),
    ];
    let mut late = Vec::new();
    for act in acts {
        // what fills gaps has its turn
        tokio::task::yield_now().await;
        match act {
            Act::GoOn(number, word) | Act::End(number, word) => {
                let (id, instance) = workflow(&store, number);
                let state = store.state(&id);
                let over = state
                    .as_ref()
                    .is_some_and(|state| state.status().has_ended());
                if over || (state.is_none() && matches!(act, Act::End(..))) {
                    continue;
                }
                let event = match act {
                    Act::GoOn(..) => store.go_on(&id, &instance),
                    _ => store.cancel(&id, &instance),
                };
                match word {
                    Word::AtOnce => log.committed(&event),
                    Word::Late => late.push(event),
                    Word::Never => {}
                }
            }
            Act::Tell => {
                for event in late.drain(..).rev() {
                    log.committed(&event);
                }
            }
            Act::Read(number, reads) => {
                let watcher = &mut watchers[usize::from(number)];
                watcher.connect(&log, &store).await;
                for _ in 0..reads {
                    watcher.read(&store);
                }
            }
            Act::Reconnect(number) => watchers[usize::from(number)].news = None,
            Act::Restart => {
                late.clear();
                for watcher in &mut watchers {
                    watcher.news = None;
                }
                log = reopened(&store, room).await;
            }
            Act::Compact(percent) => {
                let end = log.end() * u64::from(percent) / 100;
                store.compact(end.max(store.compacted()));
            }
            Act::Look => log.catch_up().await.unwrap(),
        }
    }
    // whatever was told late or never is told now
    log.catch_up().await.unwrap();
    for watcher in &mut watchers {
        watcher.connect(&log, &store).await;
        let watched = watcher.news.is_some() || watcher.ended;
        while watcher.read(&store) {}
        if watcher.news.is_none() {
            // from where the log is kept
            watcher.connect(&log, &store).await;
            while watcher.read(&store) {}
        }
        let matching = |event: &&RecordedEvent| watcher.matches(event);
        let end = store
            .log()
            .iter()
            .filter(matching)
            .next_back()
            .map_or(0, |last| last.revision);
        if watched && !watcher.ended {
            assert!(watcher.last >= end, "{} of {end}", watcher.last);
        }
    }
}
