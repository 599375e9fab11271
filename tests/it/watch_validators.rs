//! The validators of watches catch each violation, and only that.

#[path = "../support/watch_validators.rs"]
pub(crate) mod validators;

use validators::{
    Connection, Filter, Guarantee, Item, Log, Logged, Violation, Watched, behind, check, digest,
};

/// A log of two workflows that take turns, from revision 1; odd ones are of `a`.
fn log(events: u64) -> Vec<Logged> {
    let event = |revision: u64| Logged {
        revision,
        sequence: revision.div_ceil(2),
        workflow_id: if revision % 2 == 1 { "a" } else { "b" }.to_owned(),
        instance_id: "chat".to_owned(),
        digest: digest(&revision.to_be_bytes()),
    };
    (1..=events).map(event).collect()
}

fn event(revision: u64) -> Item {
    Item::Event(revision, digest(&revision.to_be_bytes()))
}

fn connection(after_revision: Option<u64>, items: impl IntoIterator<Item = Item>) -> Connection {
    Connection {
        after_revision,
        items: items.into_iter().collect(),
    }
}

fn all(connections: Vec<Connection>) -> Watched {
    Watched {
        filter: Filter::default(),
        connections,
    }
}

fn of_a(connections: Vec<Connection>) -> Watched {
    Watched {
        filter: Filter {
            workflow_id: Some("a".to_owned()),
            instance_id: None,
        },
        connections,
    }
}

fn violations(watched: &Watched) -> Vec<Violation> {
    let log = log(10);
    check(&Log::new(&log).unwrap(), watched)
}

/// Which guarantees are not kept.
fn broken(watched: &Watched) -> Vec<Guarantee> {
    let mut found: Vec<Guarantee> = violations(watched)
        .iter()
        .map(|violation| violation.guarantee)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_watch_that_keeps_its_guarantees_has_no_violation() {
    let watches = [
        all(vec![connection(Some(0), (1..=10).map(event))]),
        // over disconnects, one before anything came
        all(vec![
            connection(Some(0), [event(1), event(2), Item::Broken]),
            connection(Some(2), [Item::Broken]),
            connection(Some(2), [event(3), Item::Bookmark(3), event(4)]),
        ]),
        // from now on, and from a snapshot
        all(vec![connection(None, [event(7), event(8)])]),
        of_a(vec![connection(
            None,
            [Item::Snapshot(3), event(5), event(7), Item::Bookmark(8)],
        )]),
        all(vec![connection(
            None,
            [Item::Snapshot(0), Item::Bookmark(4), event(5)],
        )]),
        // a narrow filter goes on from a bookmark
        of_a(vec![
            connection(Some(0), [event(1), Item::Bookmark(2), Item::Broken]),
            connection(Some(2), [event(3)]),
        ]),
        // what was compacted is told as a snapshot
        all(vec![
            connection(Some(0), [event(1), Item::Broken]),
            connection(Some(1), [Item::Compacted(6)]),
            connection(None, [Item::Snapshot(0), Item::Bookmark(8), event(9)]),
        ]),
        // or is gone on after
        all(vec![
            connection(Some(0), [event(1), Item::Compacted(6)]),
            connection(Some(6), [event(7)]),
        ]),
        all(vec![]),
    ];
    for watched in watches {
        assert_eq!(violations(&watched), [], "{watched:?}");
    }
}

#[test]
fn what_comes_out_of_order_is_caught() {
    let watched = all(vec![connection(Some(0), [event(1), event(3), event(2)])]);
    assert_eq!(broken(&watched), [Guarantee::Ordered]);
}

#[test]
fn what_comes_twice_is_caught() {
    let watched = all(vec![connection(Some(0), [event(1), event(1), event(2)])]);
    assert_eq!(broken(&watched), [Guarantee::Unique]);
}

#[test]
fn what_is_not_whole_is_caught() {
    let half = Item::Event(2, digest(b"half of it"));
    let watched = all(vec![connection(Some(0), [event(1), half])]);
    assert_eq!(broken(&watched), [Guarantee::Atomic]);
    let invented = all(vec![connection(Some(10), [event(11)])]);
    assert_eq!(broken(&invented), [Guarantee::Atomic]);
}

#[test]
fn a_gap_is_caught() {
    let watched = all(vec![connection(Some(0), [event(1), event(3)])]);
    assert_eq!(broken(&watched), [Guarantee::Reliable]);
    let before_a_bookmark = all(vec![connection(Some(0), [event(1), Item::Bookmark(2)])]);
    assert_eq!(broken(&before_a_bookmark), [Guarantee::Reliable]);
    let of_others = of_a(vec![connection(Some(0), [event(1), event(2), event(3)])]);
    assert_eq!(broken(&of_others), [Guarantee::Reliable]);
    let after_a_snapshot = of_a(vec![connection(None, [Item::Snapshot(3), event(7)])]);
    assert_eq!(broken(&after_a_snapshot), [Guarantee::Reliable]);
}

#[test]
fn what_is_missed_or_repeated_by_who_resumes_is_caught() {
    let first = || connection(Some(0), [event(1), event(2), Item::Broken]);
    let missed = all(vec![first(), connection(Some(2), [event(4)])]);
    assert_eq!(broken(&missed), [Guarantee::Reliable, Guarantee::Resumable]);
    let repeated = all(vec![first(), connection(Some(2), [event(2), event(3)])]);
    assert_eq!(broken(&repeated), [Guarantee::Resumable]);
    let skipped = all(vec![first(), connection(Some(3), [event(4)])]);
    assert_eq!(broken(&skipped), [Guarantee::Resumable]);
    let from_now = all(vec![first(), connection(None, [Item::Bookmark(4)])]);
    assert_eq!(broken(&from_now), [Guarantee::Resumable]);
    let beyond_what_is_gone = all(vec![
        connection(Some(0), [event(1), Item::Compacted(4)]),
        connection(Some(5), [event(6)]),
    ]);
    assert_eq!(broken(&beyond_what_is_gone), [Guarantee::Resumable]);
}

#[test]
fn what_comes_at_or_below_a_bookmark_is_caught() {
    let late = of_a(vec![connection(
        Some(0),
        [event(1), Item::Bookmark(3), event(3), event(5)],
    )]);
    assert_eq!(broken(&late), [Guarantee::Bookmarkable]);
    let back = all(vec![connection(
        Some(0),
        [event(1), event(2), Item::Bookmark(2), Item::Bookmark(1)],
    )]);
    assert_eq!(broken(&back), [Guarantee::Bookmarkable]);
    let in_a_snapshot = of_a(vec![connection(None, [Item::Snapshot(5), event(5)])]);
    assert_eq!(broken(&in_a_snapshot), [Guarantee::Bookmarkable]);
}

#[test]
fn who_has_not_caught_up_is_told_what_is_missing() {
    let log = log(10);
    let log = Log::new(&log).unwrap();
    let some = of_a(vec![connection(Some(0), [event(1), Item::Bookmark(6)])]);
    assert_eq!(behind(&log, &some), [7, 9]);
    let up_to_now = of_a(vec![connection(Some(0), [Item::Bookmark(9)])]);
    assert_eq!(behind(&log, &up_to_now), [0; 0]);
}

#[test]
fn a_log_with_a_gap_is_no_log() {
    let mut gap = log(4);
    gap.remove(1);
    assert!(Log::new(&gap).is_err());
    let mut twice = log(4);
    twice[2].sequence = 1;
    assert!(Log::new(&twice).is_err());
}
