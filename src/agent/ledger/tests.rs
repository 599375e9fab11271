//! Memory follows the store, and what is open stays bounded.

use super::*;
use crate::optimization::{
    ActualQuantity, Baseline, KnobChange, MAX_OPEN_OF_INSTANCE, Origin, PredictedQuantity,
    QuantityPrediction,
};
use crate::store::SqliteStore;

pub(super) fn entry(number: u32, to: u32) -> LedgerEntry {
    let made_at = 1_000.0 + f64::from(number);
    LedgerEntry {
        prediction_id: format!("p-{number}"),
        instance_id: "a".to_owned(),
        engine: "vllm".to_owned(),
        engine_version: None,
        model_name: None,
        simulated: false,
        lever: "sequence_cap".to_owned(),
        changes: vec![KnobChange {
            name: "max_num_seqs".to_owned(),
            flag: "--max-num-seqs".to_owned(),
            from: Some("4".to_owned()),
            to: Some(to.to_string()),
        }],
        replicas: None,
        settings_before: BTreeMap::new(),
        predicted: vec![QuantityPrediction {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            before: 100.0,
            ratio: 2.0,
            ratio_low: 1.5,
            ratio_high: 2.5,
        }],
        widened_by: 1.0,
        made_at_unix_seconds: made_at,
        baseline: Baseline {
            start_unix_seconds: made_at - 60.0,
            end_unix_seconds: made_at,
            replicas: 1,
            requests_per_second: None,
            prompt_tokens: None,
            generation_tokens: None,
        },
        origin: Origin::Recommended,
        state: LedgerState::Open {
            seen_in_force_at_unix_seconds: None,
        },
    }
}

fn closed() -> LedgerState {
    LedgerState::Closed {
        at_unix_seconds: 2_000.0,
        start_unix_seconds: 1_900.0,
        end_unix_seconds: 1_960.0,
        actual: vec![ActualQuantity {
            quantity: PredictedQuantity::GenerationTokensPerSecond,
            after: 210.0,
            ratio: 2.1,
            covered: true,
        }],
    }
}

/// What is open, in memory and in the store, which agree.
async fn open(ledger: &Ledger, store: &SqliteStore) -> Vec<String> {
    let ids = |entries: Vec<LedgerEntry>| -> Vec<String> {
        let mut ids: Vec<String> = entries
            .into_iter()
            .map(|entry| entry.prediction_id)
            .collect();
        ids.sort();
        ids
    };
    let stored = ids(all_that_are(store, Ended::Open).await.unwrap());
    assert_eq!(ids(ledger.open_of("a")), stored);
    stored
}

#[tokio::test]
async fn the_same_prediction_is_kept_once_and_a_newer_one_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let ledger = Ledger::default();
    let two = vec![entry(1, 32), entry(2, 64)];
    assert_eq!(ledger.keep(&store, two).await.unwrap(), ["p-1", "p-2"]);
    // of the same window
    let mut again = entry(2, 64);
    again.prediction_id = "p-3".to_owned();
    assert_eq!(ledger.keep(&store, vec![again]).await.unwrap(), ["p-2"]);
    assert_eq!(
        ledger.keep(&store, vec![entry(4, 64)]).await.unwrap(),
        ["p-4"]
    );
    assert_eq!(open(&ledger, &store).await, ["p-1", "p-4"]);
    let after_restart = Ledger::default();
    after_restart.load(&store).await.unwrap();
    assert_eq!(open(&after_restart, &store).await, ["p-1", "p-4"]);
}

#[tokio::test]
async fn what_closes_says_how_far_to_trust_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let ledger = Ledger::default();
    let two = vec![entry(1, 32), entry(2, 64)];
    ledger.keep(&store, two).await.unwrap();
    assert_eq!(ledger.record(false).factor("sequence_cap"), (1.0, 0));
    let step = ledger.step(&store, "a", |entry| {
        (entry.prediction_id == "p-2").then(closed)
    });
    step.await.unwrap();
    assert_eq!(open(&ledger, &store).await, ["p-1"]);
    let (factor, rests_on) = ledger.record(false).factor("sequence_cap");
    assert!(factor < 1.0 && rests_on == 1, "{factor}");
    assert_eq!(ledger.record(true).factor("sequence_cap"), (1.0, 0));
    let after_restart = Ledger::default();
    after_restart.load(&store).await.unwrap();
    assert_eq!(after_restart.record(false), ledger.record(false));
}

#[tokio::test]
async fn what_is_open_is_bounded_and_expires() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let ledger = Ledger::default();
    let most = MAX_OPEN_OF_INSTANCE as u32;
    let many = (0..most + 10).map(|number| entry(number, number)).collect();
    ledger.keep(&store, many).await.unwrap();
    let left = open(&ledger, &store).await;
    assert_eq!(left.len(), MAX_OPEN_OF_INSTANCE);
    assert!(!left.contains(&"p-9".to_owned()) && left.contains(&"p-10".to_owned()));
    // they were made long ago
    tidy_up(&ledger, &store).await.unwrap();
    assert_eq!(open(&ledger, &store).await, Vec::<String>::new());
}

#[tokio::test]
async fn only_an_instance_with_open_predictions_wakes_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let ledger = Ledger::default();
    let waiting = || ledger.measured.lock().unwrap().len();
    ledger.measured(&"a".into());
    assert_eq!(waiting(), 0);
    ledger.keep(&store, vec![entry(1, 32)]).await.unwrap();
    for id in ["a", "a", "b"] {
        ledger.measured(&id.into());
    }
    assert_eq!(waiting(), 1);
    ledger.wake.notified().await;
    ledger.forget("a");
    assert_eq!(ledger.open_of("a"), Vec::new());
}

#[tokio::test]
async fn what_the_store_refuses_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let ledger = Ledger::default();
    store.leave_pages(0).await;
    let many = (0..MAX_OPEN_OF_INSTANCE as u32).map(|number| entry(number, number));
    let refused = ledger.keep(&store, many.collect()).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(open(&ledger, &store).await, Vec::<String>::new());
}
