//! When a prediction closes, and when it expires.

use super::super::change::KnobChange;
use super::super::in_force::{InForce, SettingSource, SettingValue};
use super::super::prediction::{PredictedQuantity, QuantityPrediction};
use super::{ActualQuantity, Baseline, LedgerEntry, LedgerState, measured_replicas, told};
use crate::engine::Quantity;
use crate::measure::{Bounded, DropCause, Measurement, NoteCode, WindowKind};

/// How long a prediction waits for its change: seven days, in seconds.
pub const OPEN_SECONDS: f64 = 7.0 * 86_400.0;

/// Fewest finished requests that a window must have to be held against a prediction: of fewer, means and tails are chance.
const LEAST_REQUESTS: f64 = 20.0;
/// Prompts and outputs may be so many times as long or short as before.
const LENGTH_FACTOR: f64 = 1.25;
/// And requests may come so many times as often or rarely, beside what more the change itself lets through.
const LOAD_FACTOR: f64 = 2.0;
/// Numbers this near are the same setting: engines size their caches at each start, a little different each time.
const SAME_NUMBER_RATIO: f64 = 0.1;
/// Settings that an engine sets by itself from the others, and shows: they follow a change, and are none of their own.
const CONSEQUENCES: [&str; 3] = [
    "num_gpu_blocks",
    "max_total_num_tokens",
    "max_batch_total_tokens",
];

/// What becomes of a prediction by a measurement of its instance; none where it stays as it is.
///
/// It closes by a window that lies wholly after its settings were first seen in force, without a restart, with enough
/// requests and about the load that it was made for. It expires where something else has changed: it does not predict
/// that.
pub fn next(
    entry: &LedgerEntry,
    in_force: &InForce,
    measurement: &Measurement,
    now_unix_seconds: f64,
) -> Option<LedgerState> {
    let LedgerState::Open {
        seen_in_force_at_unix_seconds: seen,
    } = entry.state
    else {
        return None;
    };
    let window = measurement.window;
    if window.kind != WindowKind::Interval || window.end_unix_seconds <= entry.made_at_unix_seconds
    {
        return expired(entry, now_unix_seconds);
    }
    if let Some(reason) = another(entry, in_force, measurement) {
        return Some(LedgerState::Expired {
            at_unix_seconds: now_unix_seconds,
            reason,
        });
    }
    let open = |seen_in_force_at_unix_seconds| LedgerState::Open {
        seen_in_force_at_unix_seconds,
    };
    match (seen, is_in_force(entry, in_force, measurement)) {
        (None, false) => expired(entry, now_unix_seconds),
        (Some(_), false) => Some(open(None)),
        (None, true) => Some(open(Some(window.end_unix_seconds))),
        (Some(seen), true) => {
            let full = window.start_unix_seconds >= seen && !has_restarted(measurement);
            let actual = match full && is_comparable(entry, measurement) {
                true => actual(&entry.predicted, measurement),
                false => Vec::new(),
            };
            if actual.is_empty() {
                return expired(entry, now_unix_seconds);
            }
            Some(LedgerState::Closed {
                at_unix_seconds: now_unix_seconds,
                start_unix_seconds: window.start_unix_seconds,
                end_unix_seconds: window.end_unix_seconds,
                actual,
            })
        }
    }
}

/// What becomes of a prediction by the time that has passed; none where it stays as it is.
pub fn expired(entry: &LedgerEntry, now_unix_seconds: f64) -> Option<LedgerState> {
    let LedgerState::Open {
        seen_in_force_at_unix_seconds: seen,
    } = entry.state
    else {
        return None;
    };
    let over = now_unix_seconds - entry.made_at_unix_seconds > OPEN_SECONDS;
    over.then(|| LedgerState::Expired {
        at_unix_seconds: now_unix_seconds,
        reason: match seen {
            None => "The change was not seen in force on all replicas within 7 days.".to_owned(),
            Some(_) => "The change was made, but within 7 days there was no full window with about the load that it \
                        was predicted for."
                .to_owned(),
        },
    })
}

/// Why it is no longer what was predicted, as a sentence.
fn another(entry: &LedgerEntry, in_force: &InForce, measurement: &Measurement) -> Option<String> {
    let differs = |before: &Option<String>, now: &Option<String>| {
        before.is_some() && now.is_some() && before != now
    };
    let shown = |text: &Option<String>| text.clone().unwrap_or_default();
    let what = if measurement.engine != entry.engine {
        format!("The engine is {} now", measurement.engine)
    } else if measurement.simulated != entry.simulated {
        "A simulated engine has taken its place, or the other way round".to_owned()
    } else if differs(&entry.model_name, &measurement.model_name) {
        format!("The model is {} now", shown(&measurement.model_name))
    } else if differs(&entry.engine_version, &measurement.engine_version) {
        let now = shown(&measurement.engine_version);
        format!("The engine's version is {now} now")
    } else if settings_differ(measurement) {
        // a change on its way through the replicas
        return None;
    } else {
        let names: Vec<&str> = told(in_force)
            .filter(|(setting, now)| {
                let name = setting.name.as_str();
                let own = entry.changes.iter().any(|change| change.name == name);
                let before = entry.settings_before.get(name);
                let changed = before.is_some_and(|before| !is_about(before.as_deref(), *now));
                changed && !own && !CONSEQUENCES.contains(&name)
            })
            .map(|(setting, _)| setting.name.as_str())
            .collect();
        if names.is_empty() {
            return None;
        }
        format!("Other settings have changed as well: {}", names.join(", "))
    };
    Some(format!("{what}, which was not predicted."))
}

/// Whether all of the change is made, on all replicas, and their number is what was predicted for.
fn is_in_force(entry: &LedgerEntry, in_force: &InForce, measurement: &Measurement) -> bool {
    let replicas = entry.replicas.map_or(entry.baseline.replicas, |(_, to)| to);
    let changes = entry.changes.iter();
    !settings_differ(measurement)
        && measured_replicas(measurement) == replicas
        && changes.clone().all(|change| is_made(change, in_force))
}

fn is_made(change: &KnobChange, in_force: &InForce) -> bool {
    let Some(setting) = in_force.get(&change.name) else {
        return false;
    };
    match (&change.to, &setting.value) {
        (Some(to), SettingValue::Known(value)) => is_same(to, value),
        (None, SettingValue::NotSet) => true,
        (None, SettingValue::Known(_)) => matches!(setting.source, SettingSource::Default(_)),
        _ => false,
    }
}

fn settings_differ(measurement: &Measurement) -> bool {
    let notes = &measurement.notes;
    notes
        .iter()
        .any(|note| note.code == NoteCode::SettingsDiffer)
}

fn is_same(one: &str, other: &str) -> bool {
    let numbers = (one.parse::<f64>().ok(), other.parse::<f64>().ok());
    match numbers {
        (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * one.abs().max(other.abs()),
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// The same, or as near as an engine comes by itself.
fn is_about(before: Option<&str>, now: Option<&str>) -> bool {
    let (Some(before), Some(now)) = (before, now) else {
        return before == now;
    };
    let near = match (before.parse::<f64>(), now.parse::<f64>()) {
        (Ok(before), Ok(now)) => {
            (before - now).abs() <= SAME_NUMBER_RATIO * before.abs().max(now.abs())
        }
        _ => false,
    };
    near || is_same(before, now)
}

fn has_restarted(measurement: &Measurement) -> bool {
    let dropped = measurement.replicas.iter().flat_map(|one| &one.dropped);
    let restarted = |cause: &DropCause| matches!(cause, DropCause::Restart { .. });
    let noted = measurement.notes.iter();
    dropped.into_iter().any(|one| restarted(&one.cause))
        || noted
            .into_iter()
            .any(|note| note.code == NoteCode::Restarted)
}

/// Whether the window has enough requests, of about the load that the prediction was made for.
fn is_comparable(entry: &LedgerEntry, measurement: &Measurement) -> bool {
    let figures = &measurement.figures;
    let finished = figures.value("requests_finished_increase");
    if finished.is_none_or(|finished| finished < LEAST_REQUESTS) {
        return false;
    }
    let (before, now) = (&entry.baseline, Baseline::of(measurement));
    let within = |before: Option<f64>, now: Option<f64>, (least, most): (f64, f64)| {
        let Some((before, now)) = before.zip(now) else {
            return true;
        };
        (least..=most).contains(&(now / before))
    };
    let lengths = (1.0 / LENGTH_FACTOR, LENGTH_FACTOR);
    let predicted = entry.predicted.iter();
    let more = predicted
        .filter(|one| one.quantity == PredictedQuantity::GenerationTokensPerSecond)
        .map(|one| one.ratio_high)
        .fold(1.0, f64::max);
    within(before.prompt_tokens, now.prompt_tokens, lengths)
        && within(before.generation_tokens, now.generation_tokens, lengths)
        && within(
            before.requests_per_second,
            now.requests_per_second,
            (1.0 / LOAD_FACTOR, LOAD_FACTOR * more),
        )
}

/// What was predicted and is known now. A bound is not a value.
fn actual(predicted: &[QuantityPrediction], measurement: &Measurement) -> Vec<ActualQuantity> {
    let actual = predicted.iter().filter_map(|one| {
        let after = measured(one.quantity, measurement)?;
        let ratio = after / one.before;
        (ratio.is_finite() && ratio > 0.0).then(|| ActualQuantity {
            quantity: one.quantity,
            after,
            ratio,
            covered: (one.ratio_low..=one.ratio_high).contains(&ratio),
        })
    });
    actual.collect()
}

/// What was measured of a quantity that can be predicted; none where the engine does not tell, or only a bound.
pub fn measured(quantity: PredictedQuantity, measurement: &Measurement) -> Option<f64> {
    let figures = &measurement.figures;
    let of = |quantity| figures.distribution(quantity);
    let p99 = |quantity| {
        let quantiles = &of(quantity)?.quantiles;
        match quantiles.iter().find(|one| one.q == 0.99)?.value {
            Bounded::Value(value) => Some(value),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }
    };
    match quantity {
        PredictedQuantity::GenerationTokensPerSecond => figures.value(quantity.quantity()),
        PredictedQuantity::TimeToFirstTokenMean => of(Quantity::TimeToFirstToken)?.mean,
        PredictedQuantity::TimeToFirstTokenP99 => p99(Quantity::TimeToFirstToken),
        PredictedQuantity::InterTokenLatencyMean => of(Quantity::InterTokenLatency)?.mean,
        PredictedQuantity::InterTokenLatencyP99 => p99(Quantity::InterTokenLatency),
        PredictedQuantity::KvCacheUsage => Some(figures.gauge(Quantity::KvCacheUsage)?.mean),
    }
}
