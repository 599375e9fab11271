//! Snapshots: byte for byte, never written over, and lists that hold no content.

use super::at;
use super::support::{With, advance_with, failed, id, paused, snapshot, start};
use crate::store::{Snapshot, Store, StoreError};

pub(super) async fn conform(store: &dyn Store) {
    let (a, b, c) = ("0190-s1", "0190-s2", "0190-s3");
    assert_eq!(store.snapshot(a).await, Ok(None));
    let first = snapshot(a, "snap");
    store.put_snapshot(&first).await.unwrap();
    assert_eq!(store.snapshot(a).await, Ok(Some(first.clone())));
    // the same again is no news, and another does not take its place
    store.put_snapshot(&first).await.unwrap();
    let mut other = first.clone();
    other.targets[0].content.push(0);
    let refused = store.put_snapshot(&other).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(store.snapshot(a).await, Ok(Some(first.clone())));

    // with a transition: what was there, and what is to be written
    let before = Snapshot {
        workflow_id: Some(id(90)),
        targets: Vec::new(),
        ..snapshot(c, "snap")
    };
    let planned = Snapshot {
        workflow_id: Some(id(90)),
        is_planned: true,
        ..snapshot(b, "snap")
    };
    let begun = start(store, &id(90), "snap", None, at(0)).await.unwrap();
    let with = With {
        snapshots: &[before.clone(), planned.clone()],
        ..With::default()
    };
    let held = advance_with(store, &begun.workflow, &paused(), with)
        .await
        .unwrap();
    advance_with(store, &held.workflow, &failed(), With::default())
        .await
        .unwrap();
    assert_eq!(store.snapshot(b).await, Ok(Some(planned)));
    assert_eq!(store.snapshot(c).await, Ok(Some(before.clone())));

    let listed = |of: &Snapshot| {
        let mut of = of.clone();
        for target in &mut of.targets {
            target.content.clear();
        }
        of
    };
    let other = snapshot("0190-s4", "snap-2");
    store.put_snapshot(&other).await.unwrap();
    let of = Some("snap");
    let all = store.snapshots(of, None, 10).await.unwrap();
    assert_eq!(all, [listed(&before), listed(&first)]);
    assert_eq!(
        store.snapshots(of, None, 1).await.unwrap(),
        [listed(&before)]
    );
    assert_eq!(
        store.snapshots(of, Some(c), 10).await.unwrap(),
        [listed(&first)]
    );
    assert_eq!(store.snapshots(of, None, 0).await.unwrap(), []);
    let newest = store.snapshots(None, None, 2).await.unwrap();
    let ids: Vec<&str> = newest
        .iter()
        .map(|snapshot| snapshot.snapshot_id.as_str())
        .collect();
    assert!(
        newest[0] == listed(&other) || ids.contains(&"0190-there"),
        "{ids:?}"
    );
}
