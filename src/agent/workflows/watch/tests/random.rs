//! Watchers, and whatever may happen while they watch.

use std::collections::BTreeMap;

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::*;
use crate::workflow::RecordedEvent;

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
            .rfind(matching)
            .map_or(0, |last| last.revision);
        if watched && !watcher.ended {
            assert!(watcher.last >= end, "{} of {end}", watcher.last);
        }
    }
}
