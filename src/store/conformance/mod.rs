//! What every store must do; each backend runs it.

mod agents;
mod concurrent;
mod deliveries;
mod full;
mod instances;
mod leases;
mod log;
mod postgres;
mod predictions;
mod property;
mod snapshots;
mod support;
mod transfer;
mod unreadable;
mod webhooks;
mod workflows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Once, OpenError, SqliteStore, Store, StoreError, WorkflowStore};
use crate::analysis::Slo;
use crate::instance::{DEFAULT_INTERVAL, DEFAULT_WINDOW, InstanceSpec};

/// Everything, one after the other in one store that may hold other things.
async fn conforms(store: &dyn Store) {
    instances::instances_are_kept(store).await;
    instances::repeats_change_nothing(store).await;
    predictions::predictions_are_kept(store).await;
    workflows::conform(store).await;
    log::conforms(store).await;
    leases::conform(store).await;
    agents::conform(store).await;
    snapshots::conform(store).await;
    webhooks::conform(store).await;
    deliveries::conform(store).await;
}

fn spec(id: &str) -> InstanceSpec {
    InstanceSpec {
        instance_id: id.to_owned(),
        instance_type: Some("vllm".to_owned()),
        metrics_urls: vec![format!("http://{id}:8000/metrics")],
        scrape_interval: DEFAULT_INTERVAL,
        window: DEFAULT_WINDOW,
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        slos: Slo::defaults(),
        launch_args: vec!["--max-num-seqs".to_owned(), "64".to_owned()],
        actuator: Some("host".to_owned()),
    }
}

fn once(request_id: &str, digest: u8) -> Once {
    Once {
        principal: "alice".to_owned(),
        method: "RegisterInstance",
        request_id: request_id.to_owned(),
        digest: [digest; 32],
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    conforms(&store).await;
    let before = store.instances().await.unwrap();
    let refused = SqliteStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    assert_eq!(store.instances().await.unwrap(), before);
    unreadable::a_state_stops_its_own_workflow(&store).await;
    unreadable::an_event_stops_who_would_miss_it(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms_under_many_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    concurrent::the_log_is_followed_without_a_gap(&[Arc::new(store)]).await;
}

#[tokio::test]
async fn sqlite_reads_while_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let begun = support::start(&store, "0190-1", "a", None, at(0)).await;
    let begun = begun.unwrap().workflow;
    let writing = store.keep_writing().await;
    assert_eq!(store.workflow("0190-1").await, Ok(Some(begun)));
    assert_eq!(support::whole_log(&store, 0).await.len(), 1);
    assert_eq!(store.answered(&once("1", 1), at(0)).await, Ok(None));
    assert!(store.instances().await.is_ok());
    drop(writing);
    support::end(&store, "0190-1").await;
}

#[tokio::test]
async fn sqlite_keeps_workflows_and_forgets_who_held_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let begins = once("1", 1);
    let begun = support::start(&store, "0190-1", "a", Some(&begins), at(0)).await;
    let begun = begun.unwrap();
    let long = Duration::from_secs(3_600);
    let held = store.acquire_lease("0190-1", "one", long).await.unwrap();
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let state = Some(begun.workflow.clone());
    assert_eq!(store.workflow("0190-1").await, Ok(state.clone()));
    assert_eq!(store.answered_workflow(&begins, at(1)).await, Ok(state));
    assert_eq!(support::whole_log(&store, 0).await, begun.event.as_slice());
    // whoever had it is gone, and nobody waits for an hour
    let moved = Err(StoreError::Moved("0190-1".to_owned()));
    assert_eq!(support::renew(&store, &held, long).await, moved);
    let taken = store.acquire_lease("0190-1", "two", long).await.unwrap();
    assert!(taken.epoch > held.epoch);
}

#[tokio::test]
async fn a_store_from_before_webhooks_is_upgraded_with_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let begun = support::start(&store, "0190-1", "a", None, at(0)).await;
    let begun = begun.unwrap();
    // as the version before left it
    for table in [
        "agents",
        "instances_found",
        "delivery_attempts",
        "deliveries",
        "webhook_secrets",
        "webhooks",
    ] {
        store.run(&format!("DROP TABLE {table}")).await;
    }
    store.run("CREATE TABLE outbox (place INTEGER PRIMARY KEY, delivery_id TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, \
               receiver TEXT NOT NULL, body TEXT NOT NULL) STRICT")
        .await;
    store
        .run("DELETE FROM _sqlx_migrations WHERE version >= 5")
        .await;
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let state = Some(begun.workflow.clone());
    assert_eq!(store.workflow("0190-1").await, Ok(state));
    assert_eq!(support::whole_log(&store, 0).await, begun.event.as_slice());
    deliveries::conform(&store).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    store.pretend_schema(7).await;
    drop(store);
    let refused = SqliteStore::open(directory.path()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Newer {
                found: 7,
                known: 6,
                ..
            }
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("newer perfagent"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lock"), "").unwrap();
    let file = directory.path().join("perfagent.db");
    std::fs::write(&file, "no database, but somebody's").unwrap();
    let refused = SqliteStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "no database, but somebody's"
    );
}
