//! A disk that is full: reads stay, writes are refused, nothing that was acknowledged is lost, and it heals.

use super::concurrent::is_what_its_log_leads_to;
use super::support::{With, advance_with, id, paused, resumed, snapshot, start, whole_log};
use super::{at, once, spec};
use crate::store::{SqliteStore, Store, StoreError, WorkflowStore};

#[tokio::test]
async fn what_is_acknowledged_after_a_full_disk_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        // each round the disk is full, and then there is room
        store.leave_pages(0).await;
        let mut failed = false;
        for number in 0..200 {
            let id = format!("full-{round}-{number}");
            match store.create_instance(&spec(&id), None, at(0)).await {
                Ok(_) => acknowledged.push(id),
                Err(StoreError::Full(_)) => {
                    failed = true;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(failed, "the disk was full in round {round}");
        store.leave_pages(10_000).await;
        for number in 0..5 {
            let id = format!("room-{round}-{number}");
            store
                .create_instance(&spec(&id), Some(&once(&id, 1)), at(0))
                .await
                .unwrap();
            acknowledged.push(id);
        }
    }
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let stored = store.instances().await.unwrap();
    for id in &acknowledged {
        assert!(
            stored.iter().any(|instance| instance.id() == id),
            "{id} was acknowledged and is lost"
        );
    }
    assert_eq!(stored.len(), acknowledged.len());
}

#[tokio::test]
async fn workflows_outlast_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let mut state = start(&store, &id(1), "a", None, at(0))
        .await
        .unwrap()
        .workflow;
    let next = |state: &crate::workflow::Workflow| match state.pause {
        None => paused(),
        Some(_) => resumed(),
    };
    let mut refused = 0;
    for round in 0..3 {
        store.leave_pages(1).await;
        for number in 0.. {
            // settings need room
            let snapshots = [snapshot(&format!("0190-{round}-{number}"), "a")];
            let with = With {
                snapshots: &snapshots,
                ..With::default()
            };
            match advance_with(&store, &state, &next(&state), with).await {
                Ok(committed) => state = committed.workflow,
                Err(StoreError::Full(_)) => {
                    refused += 1;
                    assert_eq!(store.snapshot(&snapshots[0].snapshot_id).await, Ok(None));
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            assert!(number < 1_000, "the disk was never full");
        }
        // reads stay, and show what was acknowledged
        assert_eq!(store.workflow(&id(1)).await, Ok(Some(state.clone())));
        let log = whole_log(&store, 0).await;
        assert_eq!(log.last().map(|event| event.revision), Some(state.revision));
        // the other writes are refused in the same words
        store.leave_pages(0).await;
        let lots = "x".repeat(100_000);
        let mut large = snapshot("0190-large", "a");
        large.note.clone_from(&lots);
        let full = store.put_snapshot(&large).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        // room again: it goes on where it was
        store.leave_pages(10_000).await;
        let with = With {
            once: Some(&once(&format!("room-{round}"), 1)),
            ..With::default()
        };
        let went_on = advance_with(&store, &state, &next(&state), with).await;
        state = went_on.unwrap().workflow;
    }
    assert_eq!(refused, 3);
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    assert_eq!(store.workflow(&id(1)).await, Ok(Some(state.clone())));
    let log = whole_log(&store, 0).await;
    let revisions: Vec<u64> = log.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (1..=state.revision).collect::<Vec<u64>>());
    is_what_its_log_leads_to(&store, 0).await;
}
