//! What closes a prediction, what expires it, and what the record says.

use super::*;
use crate::measure::{
    Basis, Bounded, Distribution, DropCause, DroppedInterval, Figures, Gauge, Note, NoteCode,
    Quantile, QuantityValue, Replica, Window,
};
use crate::optimization::{PredictedQuantity, PredictionBasis};
use proptest::prelude::*;

const MADE_AT: f64 = 1_000.0;

fn setting(name: &str, value: &str, source: SettingSource) -> SettingInForce {
    SettingInForce {
        name: name.to_owned(),
        flag: format!("--{}", name.replace('_', "-")),
        value: match value {
            "" => SettingValue::NotSet,
            value => SettingValue::Known(value.to_owned()),
        },
        source,
        hint: None,
    }
}

fn settings(of: &[(&str, &str)]) -> InForce {
    let told = SettingSource::Endpoint("/server_info".to_owned());
    InForce {
        engine: "vllm".to_owned(),
        version: None,
        settings: of
            .iter()
            .map(|(name, value)| setting(name, value, told.clone()))
            .collect(),
    }
}

fn before() -> InForce {
    settings(&[
        ("max_num_seqs", "4"),
        ("num_gpu_blocks", "1000"),
        ("max_model_len", "4096"),
        ("quantization", ""),
    ])
}

fn after() -> InForce {
    settings(&[
        ("max_num_seqs", "64"),
        ("num_gpu_blocks", "700"),
        ("max_model_len", "4096"),
        ("quantization", ""),
    ])
}

/// A window of one replica, with so many generated tokens a second and so many finished requests.
fn window((start, end): (f64, f64), tokens: f64, requests: f64) -> Measurement {
    let value = |name: &'static str, value: f64| QuantityValue {
        name: name.into(),
        value: Bounded::Value(value),
        basis: Basis::Exact,
        source: "m".into(),
    };
    let figures = Figures {
        quantities: vec![
            value("generation_tokens_per_second", tokens),
            value("requests_finished_increase", requests),
            value("requests_finished_per_second", requests / (end - start)),
        ],
        distributions: vec![Distribution {
            name: "time_to_first_token_seconds".into(),
            count: requests,
            mean: Some(0.5),
            quantiles: vec![Quantile {
                q: 0.99,
                value: Bounded::AtMost(1.0),
            }],
            buckets: Vec::new(),
            basis: Basis::Exact,
            source: "m".into(),
        }],
        ..Figures::default()
    };
    Measurement {
        instance_id: "a".to_owned(),
        engine: "vllm".to_owned(),
        engine_version: Some("0.10.2".to_owned()),
        model_name: Some("m".to_owned()),
        simulated: false,
        window: Window {
            start_unix_seconds: start,
            end_unix_seconds: end,
            kind: WindowKind::Interval,
            observed_seconds: end - start,
            samples: 5,
        },
        replicas: vec![Replica {
            metrics_url: "http://a/metrics".to_owned(),
            outcome: Ok(Figures::default()),
            samples: 5,
            failed_scrapes: 0,
            dropped: Vec::new(),
        }],
        figures,
        settings: Vec::new(),
        notes: Vec::new(),
    }
}

pub(super) fn quantity(
    quantity: PredictedQuantity,
    before: f64,
    ratios: [f64; 3],
) -> QuantityPrediction {
    let [ratio_low, ratio, ratio_high] = ratios;
    QuantityPrediction {
        quantity,
        before,
        ratio,
        ratio_low,
        ratio_high,
    }
}

fn prediction() -> Prediction {
    Prediction {
        quantities: vec![
            quantity(
                PredictedQuantity::GenerationTokensPerSecond,
                100.0,
                [1.6, 2.0, 2.5],
            ),
            quantity(
                PredictedQuantity::TimeToFirstTokenMean,
                2.0,
                [0.3, 0.4, 0.5],
            ),
            quantity(PredictedQuantity::TimeToFirstTokenP99, 2.0, [0.3, 0.4, 0.5]),
        ],
        unpredicted: Vec::new(),
        basis: PredictionBasis {
            windows: 1,
            observed_requests: 60.0,
            simulated_requests: 1_000,
            simulations: 16,
            mismatch_ratio: 1.0,
            assumptions: Vec::new(),
            track_record: 0,
        },
    }
}

fn change(to: Option<&str>) -> KnobChange {
    KnobChange {
        name: "max_num_seqs".to_owned(),
        flag: "--max-num-seqs".to_owned(),
        from: Some("4".to_owned()),
        to: to.map(str::to_owned),
    }
}

fn entry_of(changes: &[KnobChange], replicas: Option<(u32, u32)>) -> Option<LedgerEntry> {
    LedgerEntry::of(Made {
        prediction_id: "p",
        lever: "sequence_cap",
        changes,
        replicas,
        prediction: &prediction(),
        widened_by: 1.0,
        origin: Origin::Recommended,
        in_force: &before(),
        measurement: &window((MADE_AT - 60.0, MADE_AT), 100.0, 60.0),
        now_unix_seconds: MADE_AT,
    })
}

pub(super) fn entry() -> LedgerEntry {
    entry_of(&[change(Some("64"))], None).unwrap()
}

fn seen(at: f64) -> LedgerEntry {
    LedgerEntry {
        state: LedgerState::Open {
            seen_in_force_at_unix_seconds: Some(at),
        },
        ..entry()
    }
}

fn at(entry: &LedgerEntry, in_force: &InForce, measurement: &Measurement) -> Option<LedgerState> {
    next(
        entry,
        in_force,
        measurement,
        measurement.window.end_unix_seconds,
    )
}

fn reason(state: Option<LedgerState>) -> String {
    match state {
        Some(LedgerState::Expired { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_closes_by_the_first_full_window_after_the_change() {
    let mut entry = entry();
    // as before
    assert_eq!(
        at(&entry, &before(), &window((1_000.0, 1_060.0), 100.0, 60.0)),
        None
    );
    // the change is seen in the middle of a window
    let state = at(&entry, &after(), &window((1_040.0, 1_100.0), 150.0, 80.0)).unwrap();
    let seen = LedgerState::Open {
        seen_in_force_at_unix_seconds: Some(1_100.0),
    };
    assert_eq!(state, seen);
    entry.state = state;
    assert_eq!(
        at(&entry, &after(), &window((1_085.0, 1_145.0), 200.0, 90.0)),
        None
    );
    let closed = at(&entry, &after(), &window((1_100.0, 1_160.0), 210.0, 100.0)).unwrap();
    let LedgerState::Closed { actual, .. } = closed else {
        panic!("{closed:?}");
    };
    // the 99th percentile is only bounded, and not held against it
    let throughput = ActualQuantity {
        quantity: PredictedQuantity::GenerationTokensPerSecond,
        after: 210.0,
        ratio: 2.1,
        covered: true,
    };
    let first_token = ActualQuantity {
        quantity: PredictedQuantity::TimeToFirstTokenMean,
        after: 0.5,
        ratio: 0.25,
        covered: false,
    };
    assert_eq!(actual, [throughput, first_token]);
}

#[test]
fn a_window_that_tells_nothing_does_not_close_it() {
    let entry = seen(1_100.0);
    let good = || window((1_100.0, 1_160.0), 210.0, 100.0);
    assert!(at(&entry, &after(), &good()).is_some());
    let mut few = good();
    few.figures = window((1_100.0, 1_160.0), 10.0, 19.0).figures;
    let restart = DroppedInterval {
        start_unix_seconds: 1_110.0,
        end_unix_seconds: 1_120.0,
        cause: DropCause::Restart {
            evidence: String::new(),
        },
    };
    let mut restarted = good();
    restarted.replicas[0].dropped.push(restart);
    let mut totals = good();
    totals.window.kind = WindowKind::SinceStart;
    let mut longer = good();
    let mean = |name: &'static str| Distribution {
        name: name.into(),
        mean: Some(900.0),
        ..longer.figures.distributions[0].clone()
    };
    let lengths = mean("request_prompt_tokens");
    longer.figures.distributions.push(lengths);
    let mut with_lengths = entry.clone();
    with_lengths.baseline.prompt_tokens = Some(300.0);
    let more_load = window((1_100.0, 1_160.0), 500.0, 60.0 * 2.0 * 2.5 + 1.0);
    for (entry, useless) in [
        (&entry, few),
        (&entry, restarted),
        (&entry, totals),
        (&with_lengths, longer),
        (&entry, more_load),
    ] {
        assert_eq!(at(entry, &after(), &useless), None, "{useless:?}");
    }
}

#[test]
fn a_change_that_is_taken_back_or_half_made_is_not_in_force() {
    let full = window((1_100.0, 1_160.0), 210.0, 100.0);
    let open = LedgerState::Open {
        seen_in_force_at_unix_seconds: None,
    };
    assert_eq!(at(&seen(1_100.0), &before(), &full), Some(open.clone()));
    let mut rolling = full.clone();
    rolling.notes.push(Note {
        code: NoteCode::SettingsDiffer,
        metrics_url: None,
        message: String::new(),
    });
    assert_eq!(at(&seen(1_100.0), &after(), &rolling), Some(open));
    assert_eq!(at(&entry(), &after(), &rolling), None);
    // of two changes one
    let mut second = change(Some("8192"));
    second.name = "max_num_batched_tokens".to_owned();
    let both = entry_of(&[change(Some("64")), second], None).unwrap();
    assert_eq!(at(&both, &after(), &full), None);
}

#[test]
fn replicas_are_part_of_the_change() {
    let more = entry_of(&[], Some((1, 2))).unwrap();
    let one = window((1_100.0, 1_160.0), 210.0, 100.0);
    assert_eq!(at(&more, &before(), &one), None);
    let mut two = one;
    two.replicas.push(two.replicas[0].clone());
    assert!(at(&more, &before(), &two).is_some());
    assert_eq!(at(&entry(), &after(), &two), None);
}

#[test]
fn what_was_not_predicted_expires_it() {
    let full = window((1_100.0, 1_160.0), 210.0, 100.0);
    let with = |name: &str, value: &str| {
        let mut changed = after();
        let told = SettingSource::Metric("m".to_owned());
        changed.settings.retain(|setting| setting.name != name);
        changed.settings.push(setting(name, value, told));
        changed
    };
    let entry = seen(1_100.0);
    for (name, value) in [("max_model_len", "8192"), ("quantization", "fp8")] {
        let reason = reason(at(&entry, &with(name, value), &full));
        assert!(reason.contains(name), "{reason}");
    }
    // caches are sized a little different at each start, and settings become known that were not
    for (name, value) in [("max_model_len", "4095"), ("block_size", "16")] {
        let state = at(&entry, &with(name, value), &full).unwrap();
        assert_eq!(state.ended(), Ended::Closed, "{name}");
    }
    let mut newer = full.clone();
    newer.engine_version = Some("0.11.0".to_owned());
    assert!(reason(at(&entry, &after(), &newer)).contains("0.11.0"));
    let mut other = full.clone();
    other.model_name = Some("n".to_owned());
    assert!(reason(at(&entry, &after(), &other)).contains("model is n"));
    let mut simulated = full;
    simulated.simulated = true;
    assert!(reason(at(&entry, &after(), &simulated)).contains("simulated"));
}

#[test]
fn a_flag_that_is_taken_away_leaves_the_default() {
    let entry = entry_of(&[change(None)], None).unwrap();
    let full = window((1_100.0, 1_160.0), 210.0, 100.0);
    let default = SettingSource::Default("of this version".to_owned());
    for (value, source, is_made) in [
        ("", SettingSource::Declared, true),
        ("256", default, true),
        ("128", SettingSource::Declared, false),
    ] {
        let mut now = settings(&[]);
        now.settings.push(setting("max_num_seqs", value, source));
        assert_eq!(at(&entry, &now, &full).is_some(), is_made, "{value}");
    }
}

#[test]
fn it_expires_after_a_week() {
    let week = MADE_AT + OPEN_SECONDS;
    assert_eq!(expired(&entry(), week), None);
    assert!(reason(expired(&entry(), week + 1.0)).contains("not seen in force"));
    assert!(reason(expired(&seen(1_100.0), week + 1.0)).contains("no full window"));
    let closed = LedgerEntry {
        state: LedgerState::Expired {
            at_unix_seconds: 0.0,
            reason: String::new(),
        },
        ..entry()
    };
    assert_eq!(expired(&closed, week + 1.0), None);
    assert_eq!(
        at(&closed, &after(), &window((1_100.0, 1_160.0), 1.0, 100.0)),
        None
    );
}

#[test]
fn what_cannot_be_held_against_anything_is_no_entry() {
    assert_eq!(entry_of(&[], None), None);
    assert_eq!(entry_of(&[], Some((2, 2))), None);
    assert!(entry_of(&[], Some((2, 3))).is_some());
}

#[test]
fn the_same_change_takes_the_place_of_an_open_one() {
    let other = entry_of(&[change(Some("32"))], None).unwrap();
    let open = [other.clone(), entry()];
    assert_eq!(superseded(&open, &entry()), [1]);
    let mut elsewhere = entry();
    elsewhere.instance_id = "b".to_owned();
    assert_eq!(superseded(&open, &elsewhere), Vec::<usize>::new());
    let many: Vec<LedgerEntry> = (0..MAX_OPEN_OF_INSTANCE)
        .map(|number| {
            let mut entry = entry_of(&[change(Some(&number.to_string()))], None).unwrap();
            entry.made_at_unix_seconds = 1_000.0 - number as f64;
            entry
        })
        .collect();
    let new = entry_of(&[change(Some("1000"))], None).unwrap();
    assert_eq!(superseded(&many, &new), [MAX_OPEN_OF_INSTANCE - 1]);
    assert_eq!(superseded(&many, &many[3]), [3]);
}

#[test]
fn an_entry_that_was_stored_comes_back() {
    let mut closed = entry();
    closed.state = at(
        &seen(1_100.0),
        &after(),
        &window((1_100.0, 1_160.0), 210.0, 100.0),
    )
    .unwrap();
    for entry in [entry(), seen(1_100.0), closed] {
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            serde_json::from_str::<LedgerEntry>(&text).unwrap(),
            entry,
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn no_window_from_before_the_change_closes(
        (start, length) in (0.0..2_000.0_f64, 1.0..300.0_f64),
    ) {
        let measured = window((start, start + length), 200.0, length * 1.5);
        let state = next(&seen(1_100.0), &after(), &measured, start + length);
        if state.is_some_and(|state| state.ended() == Ended::Closed) {
            prop_assert!(start >= 1_100.0);
        }
    }

    #[test]
    fn nothing_in_a_measurement_makes_it_panic(
        tokens in proptest::num::f64::ANY,
        requests in proptest::num::f64::ANY,
        gauge in proptest::num::f64::ANY,
    ) {
        let mut measured = window((1_200.0, 1_260.0), tokens, requests);
        measured.figures.gauges.push(Gauge {
            name: "kv_cache_usage_ratio".into(),
            min: gauge,
            mean: gauge,
            max: gauge,
            last: gauge,
            samples: 1,
            basis: Basis::Exact,
            source: "m".into(),
        });
        let state = at(&seen(1_100.0), &after(), &measured);
        if let Some(LedgerState::Closed { actual, .. }) = state {
            prop_assert!(actual.iter().all(|one| one.ratio.is_finite() && one.ratio > 0.0));
        }
    }
}
