use super::*;
use crate::agent::workflows::fake::FakeStore;

const SMALL: Measure = Measure {
    events: 4,
    bytes: 1 << 20,
    look: Duration::from_millis(2),
    bookmark: HEARTBEAT,
};

fn revisions(part: &Part) -> Vec<u64> {
    part.events.iter().map(|one| one.event.revision).collect()
}

async fn small() -> (Arc<FakeStore>, Arc<EventLog>) {
    let store = Arc::new(FakeStore::default());
    let log = EventLog::measured(store.clone(), SMALL).await.unwrap();
    (store, log)
}

#[tokio::test]
async fn what_is_recent_is_read_from_memory_and_what_is_not_from_the_store() {
    let (store, log) = small().await;
    for _ in 0..6 {
        log.committed(&store.go_on("w1", "a"));
    }
    let all = EventFilter::default();
    let reads = store.reads();
    assert_eq!(
        revisions(&log.read(2, &all, 9).await.unwrap()),
        [3, 4, 5, 6]
    );
    let part = log.read(3, &all, 2).await.unwrap();
    assert_eq!(
        (revisions(&part), part.read_to, part.more),
        (vec![4, 5], 5, true)
    );
    let none = log.read(6, &all, 9).await.unwrap();
    assert_eq!(
        (revisions(&none), none.read_to, none.more),
        (vec![], 6, false)
    );
    assert_eq!(store.reads(), reads);
    assert_eq!(revisions(&log.read(1, &all, 3).await.unwrap()), [2, 3, 4]);
    assert_eq!(store.reads(), reads + 1);
}

#[tokio::test]
async fn memory_is_bounded_by_bytes_too() {
    let store = Arc::new(FakeStore::default());
    let measure = Measure {
        events: 100,
        bytes: 1_000,
        ..SMALL
    };
    let log = EventLog::measured(store.clone(), measure).await.unwrap();
    for _ in 0..50 {
        log.committed(&store.go_on("w1", "a"));
    }
    let tail = log.tail();
    assert!(tail.bytes <= 1_000, "{}", tail.bytes);
    assert!(
        (2..40).contains(&tail.events.len()),
        "{}",
        tail.events.len()
    );
    assert_eq!(tail.end, 50);
}

#[tokio::test]
async fn filters_tell_how_far_was_read() {
    let (store, log) = small().await;
    for (workflow, instance) in [("w1", "a"), ("w2", "b"), ("w1", "a"), ("w2", "b")] {
        log.committed(&store.go_on(workflow, instance));
    }
    let of = |workflow: Option<&str>, instance: Option<&str>| EventFilter {
        workflow_id: workflow.map(str::to_owned),
        instance_id: instance.map(str::to_owned),
    };
    let part = log.read(0, &of(Some("w1"), None), 9).await.unwrap();
    assert_eq!((revisions(&part), part.read_to), (vec![1, 3], 4));
    let part = log.read(0, &of(None, Some("b")), 1).await.unwrap();
    assert_eq!(
        (revisions(&part), part.read_to, part.more),
        (vec![2], 2, true)
    );
}

/// Told late or out of turn, they are told in order; what is never told is found in the store.
#[tokio::test]
async fn a_gap_is_filled_from_the_store() {
    let (store, log) = small().await;
    let mut waiter = log.waiter(&EventFilter::default());
    let [first, second, third] = [(); 3].map(|()| store.go_on("w1", "a"));
    log.committed(&first);
    assert_eq!(log.end(), 1);
    log.committed(&third);
    assert_eq!(log.end(), 1);
    while log.end() < 3 {
        waiter.news().await;
    }
    log.committed(&second);
    assert_eq!(log.end(), 3);
    assert_eq!(log.tail().events.len(), 3);
    // by nobody told
    store.go_on("w1", "a");
    waiter.look();
    waiter.news().await;
    assert_eq!(log.end(), 4);
}

#[tokio::test]
async fn who_does_not_wait_is_forgotten_and_others_are_not_woken() {
    let (store, log) = small().await;
    let of = |id: &str| EventFilter {
        workflow_id: Some(id.to_owned()),
        instance_id: None,
    };
    let (mut first, again) = (log.waiter(&of("w1")), log.waiter(&of("w1")));
    let mut other = log.waiter(&of("w2"));
    log.committed(&store.go_on("w1", "a"));
    first.news().await;
    let woken = futures_util::FutureExt::now_or_never(other.news());
    assert!(woken.is_none());
    drop(again);
    assert!(log.has_readers());
    drop((first, other));
    assert!(!log.has_readers());
}
