//! What every store must do; each backend runs it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Once, OpenError, PredictionFilter, PredictionPlace, SqliteStore, Store, StoreError};
use crate::analysis::Slo;
use crate::instance::{DEFAULT_INTERVAL, DEFAULT_WINDOW, FieldViolation, InstanceSpec};
use crate::optimization::{Baseline, Ended, LedgerEntry, LedgerState, Origin};

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

fn with_window(seconds: u64) -> impl Fn(InstanceSpec) -> Result<InstanceSpec, Vec<FieldViolation>> {
    move |mut spec| {
        spec.window = Duration::from_secs(seconds);
        Ok(spec)
    }
}

async fn instances_are_kept(store: &dyn Store) {
    let b = store
        .create_instance(&spec("b"), None, at(0))
        .await
        .unwrap();
    let a = store
        .create_instance(&spec("a"), None, at(1))
        .await
        .unwrap();
    assert!(!a.repeated);
    assert_eq!(
        store.instances().await.unwrap(),
        [a.instance.clone(), b.instance.clone()]
    );
    let exists = store.create_instance(&spec("a"), None, at(2)).await;
    assert_eq!(exists, Err(StoreError::Exists("a".to_owned())));
    assert!(a.instance.revision > b.instance.revision);

    let stale = b.instance.revision;
    let updated = store
        .update_instance("a", a.instance.revision, &with_window(90), None, at(3))
        .await
        .unwrap();
    assert_eq!(updated.instance.spec.window, Duration::from_secs(90));
    assert_eq!(updated.instance.created_at, Some(at(1)));
    assert_eq!(updated.instance.updated_at, Some(at(3)));
    let current = updated.instance.revision.unwrap();
    let refused = store
        .update_instance("a", stale, &with_window(30), None, at(4))
        .await;
    let id = "a".to_owned();
    assert_eq!(
        refused,
        Err(StoreError::Changed {
            id: id.clone(),
            current
        })
    );
    let refused = store.delete_instance("a", stale, None, at(4)).await;
    assert_eq!(refused, Err(StoreError::Changed { id, current }));
    let wrong = |_| Err(vec![FieldViolation::new("window", "no")]);
    let refused = store.update_instance("a", None, &wrong, None, at(4)).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    assert_eq!(
        store.instances().await.unwrap(),
        [updated.instance.clone(), b.instance.clone()]
    );

    let deleted = store.delete_instance("a", None, None, at(5)).await.unwrap();
    assert_eq!(deleted.instance, updated.instance);
    for gone in [
        store.delete_instance("a", None, None, at(6)).await,
        store
            .update_instance("a", None, &with_window(30), None, at(6))
            .await,
    ] {
        assert_eq!(gone, Err(StoreError::NotFound("a".to_owned())));
    }
    assert_eq!(store.instances().await.unwrap(), [b.instance]);
}

async fn repeats_change_nothing(store: &dyn Store) {
    let first = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(0))
        .await
        .unwrap();
    let later = store
        .update_instance("r", None, &with_window(90), None, at(1))
        .await
        .unwrap();
    // the answer of then, though the instance has changed since
    let again = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(2))
        .await
        .unwrap();
    assert_eq!(again.instance, first.instance);
    assert!(again.repeated);
    assert_eq!(
        store.answered(&once("1", 1), at(2)).await.unwrap(),
        Some(again)
    );
    assert_eq!(store.answered(&once("9", 1), at(2)).await.unwrap(), None);
    let other = store
        .create_instance(&spec("r2"), Some(&once("1", 2)), at(3))
        .await;
    assert_eq!(other, Err(StoreError::RequestIdReused("1".to_owned())));
    // another caller's ids are another caller's
    let mut bob = once("1", 2);
    bob.principal = "bob".to_owned();
    let of_bob = store
        .create_instance(&spec("r2"), Some(&bob), at(4))
        .await
        .unwrap();
    assert!(!of_bob.repeated);
    // what was refused is not remembered
    let exists = store
        .create_instance(&spec("r"), Some(&once("2", 3)), at(5))
        .await;
    assert_eq!(exists, Err(StoreError::Exists("r".to_owned())));
    let deleted = store
        .delete_instance("r", later.instance.revision, Some(&once("3", 4)), at(6))
        .await
        .unwrap();
    let again = store
        .delete_instance("r", later.instance.revision, Some(&once("3", 4)), at(7))
        .await
        .unwrap();
    assert_eq!((again.instance, again.repeated), (deleted.instance, true));
    let created = store
        .create_instance(&spec("r"), Some(&once("2", 3)), at(8))
        .await
        .unwrap();
    assert!(!created.repeated);
    // a day later the id is forgotten
    let day = 24 * 3_600 + 1;
    let exists = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(day))
        .await;
    assert_eq!(exists, Err(StoreError::Exists("r".to_owned())));
}

fn prediction(id: &str, instance_id: &str, made_at: f64, state: LedgerState) -> LedgerEntry {
    LedgerEntry {
        prediction_id: id.to_owned(),
        instance_id: instance_id.to_owned(),
        engine: "vllm".to_owned(),
        engine_version: None,
        model_name: None,
        simulated: false,
        lever: "sequence_cap".to_owned(),
        changes: Vec::new(),
        replicas: Some((1, 2)),
        settings_before: BTreeMap::from([("max_num_seqs".to_owned(), None)]),
        predicted: Vec::new(),
        widened_by: 1.0 / 3.0,
        made_at_unix_seconds: made_at,
        baseline: Baseline {
            start_unix_seconds: 0.1,
            end_unix_seconds: 0.3,
            replicas: 1,
            requests_per_second: Some(1.0 / 3.0),
            prompt_tokens: None,
            generation_tokens: None,
        },
        origin: Origin::Asked,
        state,
    }
}

fn open() -> LedgerState {
    LedgerState::Open {
        seen_in_force_at_unix_seconds: Some(0.7),
    }
}

fn expired(at_unix_seconds: f64, reason: &str) -> LedgerState {
    LedgerState::Expired {
        at_unix_seconds,
        reason: reason.to_owned(),
    }
}

async fn predictions_are_kept(store: &dyn Store) {
    let ids = async |filter: &PredictionFilter, after: Option<&PredictionPlace>, size| {
        let found = store.predictions(filter, after, size).await.unwrap();
        let ids = found.into_iter().map(|entry| entry.prediction_id);
        ids.collect::<Vec<String>>()
    };
    let all = PredictionFilter::default();
    let unix = |seconds: u64| 1_700_000_000.0 + seconds as f64 + 0.125;
    let mut a = prediction("1", "a", unix(1), open());
    let entries = [
        a.clone(),
        prediction("2", "b", unix(2), open()),
        prediction("4", "a", unix(3), open()),
        prediction("3", "a", unix(3), expired(unix(3), "")),
    ];
    store.put_predictions(&entries, &[]).await.unwrap();
    assert_eq!(ids(&all, None, 10).await, ["4", "3", "2", "1"]);
    // a page goes on where the one before ended, whatever comes in between
    assert_eq!(ids(&all, None, 2).await, ["4", "3"]);
    let new = prediction("5", "a", unix(9), open());
    store.put_predictions(&[new], &[]).await.unwrap();
    let place = PredictionPlace::of(&entries[3]);
    assert_eq!(ids(&all, Some(&place), 2).await, ["2", "1"]);
    let of_a = PredictionFilter {
        instance_id: Some("a".to_owned()),
        state: Some(Ended::Open),
        lever: Some("sequence_cap".to_owned()),
    };
    assert_eq!(ids(&of_a, None, 10).await, ["5", "4", "1"]);
    let of_other = PredictionFilter {
        lever: Some("kv_capacity".to_owned()),
        ..PredictionFilter::default()
    };
    assert_eq!(ids(&of_other, None, 10).await, Vec::<String>::new());
    // changed, superseded
    a.state = expired(unix(4), "over");
    store
        .put_predictions(std::slice::from_ref(&a), &["5".to_owned()])
        .await
        .unwrap();
    assert_eq!(ids(&of_a, None, 10).await, ["4"]);
    let stored = store.predictions(&all, None, 10).await.unwrap();
    assert_eq!(stored.last(), Some(&a));
    // an instance that is deleted takes its open ones with it
    let created = store.create_instance(&spec("a"), None, at(5)).await;
    created.unwrap();
    store.delete_instance("a", None, None, at(6)).await.unwrap();
    assert_eq!(ids(&of_a, None, 10).await, Vec::<String>::new());
    let mut ended = prediction("4", "a", unix(3), open());
    ended.state = expired(unix(6) - 0.125, "The instance was deleted.");
    let stored = store.predictions(&all, None, 1).await.unwrap();
    assert_eq!(stored, [ended]);
    // what is open is not forgotten for its age
    store.forget_predictions(at(3), 10).await.unwrap();
    assert_eq!(ids(&all, None, 10).await, ["4", "3", "2"]);
    store.forget_predictions(at(0), 2).await.unwrap();
    assert_eq!(ids(&all, None, 10).await, ["4", "2"]);
    store.forget_predictions(at(0), 0).await.unwrap();
    assert_eq!(ids(&all, None, 10).await, ["2"]);
}

#[tokio::test]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    instances_are_kept(&store).await;
    repeats_change_nothing(&store).await;
    predictions_are_kept(&store).await;
    let before = store.instances().await.unwrap();
    let refused = SqliteStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(store);
    let store = SqliteStore::open(directory.path()).await.unwrap();
    assert_eq!(store.instances().await.unwrap(), before);
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
                known: 3,
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
