//! The ledger of predictions.

use std::collections::BTreeMap;

use super::{at, spec};
use crate::optimization::{Baseline, Ended, LedgerEntry, LedgerState, Origin};
use crate::store::{PredictionFilter, PredictionPlace, Store};

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

pub(super) async fn predictions_are_kept(store: &dyn Store) {
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
    let changed = std::slice::from_ref(&a);
    assert_eq!(store.advance_predictions(changed).await.unwrap(), ["1"]);
    store
        .put_predictions(&[], &["5".to_owned(), "1".to_owned()])
        .await
        .unwrap();
    assert_eq!(ids(&of_a, None, 10).await, ["4"]);
    // it has ended, whoever else thinks that it goes on or that nobody needs it
    let other = [prediction("1", "a", unix(1), open())];
    let advanced = store.advance_predictions(&other).await;
    assert_eq!(advanced.unwrap(), Vec::<String>::new());
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
