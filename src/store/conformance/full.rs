//! A disk that is full: reads stay, writes are refused, nothing that was acknowledged is lost, and it heals.

use super::{at, once, spec};
use crate::store::{SqliteStore, Store, StoreError};

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
