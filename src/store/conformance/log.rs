//! The log: in order, without gaps, read from anywhere, and forgotten from its beginning.

use super::at;
use super::support::{advance, end, failed, id, paused, revision, start, whole_log};
use crate::store::{EventFilter, Store, StoreError};

pub(super) async fn conforms(store: &dyn Store) {
    it_is_read_page_by_page(store).await;
    it_is_forgotten_from_its_beginning(store).await;
}

async fn it_is_read_page_by_page(store: &dyn Store) {
    let before = revision(store).await;
    // a, b, b, a, b
    let a = start(store, &id(60), "a", None, at(0)).await.unwrap();
    let b = start(store, &id(61), "b", None, at(1)).await.unwrap();
    let b = advance(store, &b.workflow, &paused()).await.unwrap();
    advance(store, &a.workflow, &failed()).await.unwrap();
    advance(store, &b.workflow, &failed()).await.unwrap();
    let log = whole_log(store, before).await;
    let revisions: Vec<u64> = log.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (before + 1..=before + 5).collect::<Vec<u64>>());
    let sequences: Vec<u64> = log.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 1, 2, 2, 3]);

    let of_a = EventFilter {
        workflow_id: Some(id(60)),
        ..EventFilter::default()
    };
    let on_b = EventFilter {
        instance_id: Some("b".to_owned()),
        ..EventFilter::default()
    };
    let neither = EventFilter {
        workflow_id: Some(id(60)),
        instance_id: Some("b".to_owned()),
    };
    let all = EventFilter::default();
    // events at these places, read up to there, and whether there is more
    for (filter, after, size, places, read_to, more) in [
        (&all, 0, 2, vec![1, 2], 2, true),
        (&all, 2, 2, vec![3, 4], 4, true),
        (&all, 4, 2, vec![5], 5, false),
        (&all, 3, 2, vec![4, 5], 5, false),
        (&all, 5, 2, vec![], 5, false),
        (&all, 0, 0, vec![], 0, true),
        (&all, 5, 0, vec![], 5, false),
        // what does not match is passed over, to the end
        (&of_a, 0, 2, vec![1, 4], 5, false),
        (&of_a, 0, 1, vec![1], 1, true),
        (&of_a, 4, 1, vec![], 5, false),
        (&on_b, 0, 2, vec![2, 3], 3, true),
        (&on_b, 3, 2, vec![5], 5, false),
        (&neither, 0, 2, vec![], 5, false),
        // beyond the end
        (&all, 9, 2, vec![], 9, false),
    ] {
        let page = store.events(before + after, filter, size).await.unwrap();
        let found: Vec<u64> = page
            .events
            .iter()
            .map(|event| event.revision - before)
            .collect();
        let case = format!("{filter:?} after {after}, {size} at most");
        assert_eq!(found, places, "{case}");
        assert_eq!(page.read_to_revision - before, read_to, "{case}");
        assert_eq!(page.more, more, "{case}");
        for event in &page.events {
            assert!(log.contains(event), "{case}");
        }
    }
}

async fn it_is_forgotten_from_its_beginning(store: &dyn Store) {
    // later than all before; what ends them does so at(5), as where clocks were set back
    let then = |seconds: u64| at(1_000_000 + seconds);
    let first = start(store, &id(70), "c", None, then(0)).await.unwrap();
    let running = start(store, &id(71), "d", None, then(1)).await.unwrap();
    end(store, &id(70)).await;
    let begun = first.event.unwrap().revision;
    assert_eq!(store.revision_before(then(0)).await, Ok(begun - 1));
    assert_eq!(store.revision_before(then(1)).await, Ok(begun));
    assert_eq!(store.revision_before(then(2)).await, Ok(begun + 2));
    let earlier = whole_log(store, begun - 1).await;

    assert_eq!(store.compact_events(0).await, Ok(0));
    assert_eq!(store.compact_events(begun - 1).await, Ok(begun - 1));
    let gone = StoreError::Compacted {
        oldest_revision: begun - 1,
    };
    let all = EventFilter::default();
    assert_eq!(store.events(begun - 2, &all, 10).await, Err(gone.clone()));
    // it is gone for whom nothing of it would matter, too: nobody can know
    let of_d = EventFilter {
        workflow_id: Some(id(71)),
        ..EventFilter::default()
    };
    assert_eq!(store.events(0, &of_d, 10).await, Err(gone));
    assert_eq!(whole_log(store, begun - 1).await, earlier);
    // once more, and less, change nothing
    assert_eq!(store.compact_events(begun - 1).await, Ok(begun - 1));
    assert_eq!(store.compact_events(3).await, Ok(begun - 1));
    // up to the first event of what still runs, and not what came after it either
    assert_eq!(store.compact_events(u64::MAX).await, Ok(begun));
    assert_eq!(whole_log(store, begun).await, earlier[1..]);
    // states stay
    assert!(store.workflow(&id(70)).await.unwrap().is_some());
    assert_eq!(store.revision_before(at(0)).await, Ok(begun));

    let end = advance(store, &running.workflow, &failed()).await.unwrap();
    let end = end.event.unwrap().revision;
    assert_eq!(store.compact_events(u64::MAX).await, Ok(end));
    assert_eq!(whole_log(store, end).await, []);
    assert_eq!(store.revision_before(at(0)).await, Ok(end));
    assert_eq!(revision(store).await, end);
    // revisions go on
    let next = start(store, &id(72), "c", None, at(0)).await.unwrap();
    assert_eq!(next.event.unwrap().revision, end + 1);
    assert_eq!(store.revision_before(at(0)).await, Ok(end));
    super::support::end(store, &id(72)).await;
}
