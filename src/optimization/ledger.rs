//! The ledger of predictions: what was predicted of a change, and what came of it.
//!
//! Every prediction is kept. It closes when the settings in force are what it was made for and a full window follows,
//! whoever changed them; else it expires. What closed says how far to trust the next one.

mod close;
mod record;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod record_tests;
mod room;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::KnobChange;
use super::in_force::{InForce, SettingInForce, SettingSource, SettingValue};
use super::prediction::{Prediction, QuantityPrediction};
use crate::engine::Quantity;
use crate::measure::{Measurement, WindowKind};

pub use close::{OPEN_SECONDS, expired, measured, next};
pub use record::{Coverage, LeverRecord, TrackRecord};
pub use room::{KEPT_SECONDS, MAX_ENTRIES, MAX_OPEN_OF_INSTANCE, superseded};

/// A prediction, and what came of it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct LedgerEntry {
    /// UUIDv7, so that ids are in the order of time.
    pub prediction_id: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Engine, as in `instance_type`.
    pub engine: String,
    /// Version as the engine writes it; none where it does not tell.
    pub engine_version: Option<String>,
    /// Served model, as the engine labels its series.
    pub model_name: Option<String>,
    /// The endpoint said that it is simulated: such predictions have a record of their own.
    pub simulated: bool,
    /// The lever, or the name of a custom optimizer; `custom` for changes that were asked about.
    pub lever: String,
    /// Settings that change.
    pub changes: Vec<KnobChange>,
    /// Replicas before and after, where their number changes.
    pub replicas: Option<(u32, u32)>,
    /// Settings that the engine or the operator told at the time, by name; none within for one that was not set.
    pub settings_before: BTreeMap<String, Option<String>>,
    /// What was predicted. Never empty.
    pub predicted: Vec<QuantityPrediction>,
    /// By what the half-widths of the intervals were multiplied for the record of that time; 1 without.
    pub widened_by: f64,
    /// When, unix time in seconds.
    pub made_at_unix_seconds: f64,
    /// What it was predicted from.
    pub baseline: Baseline,
    /// Why it was made.
    pub origin: Origin,
    /// What came of it.
    pub state: LedgerState,
}

/// What a prediction was made from.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct Baseline {
    /// Beginning of the window, unix time in seconds.
    pub start_unix_seconds: f64,
    /// Its end.
    pub end_unix_seconds: f64,
    /// Replicas that were measured.
    pub replicas: u32,
    /// Finished requests a second; none where the engine does not tell.
    pub requests_per_second: Option<f64>,
    /// Mean prompt tokens of a request; none where the engine does not tell.
    pub prompt_tokens: Option<f64>,
    /// Mean generated tokens of a request; none where the engine does not tell.
    pub generation_tokens: Option<f64>,
}

/// Why a prediction was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Origin {
    /// The agent recommended the change.
    Recommended,
    /// Somebody asked what it would do.
    Asked,
}

/// What came of a prediction.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LedgerState {
    /// Not yet known.
    Open {
        /// When the settings were first seen in force, unix time in seconds; none while they are not.
        seen_in_force_at_unix_seconds: Option<f64>,
    },
    /// The change was made and measured.
    Closed {
        /// When, unix time in seconds.
        at_unix_seconds: f64,
        /// Beginning of the window that was measured, unix time in seconds.
        start_unix_seconds: f64,
        /// Its end.
        end_unix_seconds: f64,
        /// What was measured of what was predicted. Never empty.
        actual: Vec<ActualQuantity>,
    },
    /// It will not be known.
    Expired {
        /// When, unix time in seconds.
        at_unix_seconds: f64,
        /// Why, as a sentence.
        reason: String,
    },
}

/// A quantity as it was after the change.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct ActualQuantity {
    /// Which.
    pub quantity: super::PredictedQuantity,
    /// As measured, in the quantity's unit.
    pub after: f64,
    /// After over before.
    pub ratio: f64,
    /// The predicted interval contains it.
    pub covered: bool,
}

/// Which state an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    /// Not yet.
    Open,
    /// Closed by a measurement.
    Closed,
    /// Without one.
    Expired,
}

/// What an entry is made of.
#[derive(Debug, Clone, Copy)]
pub struct Made<'m> {
    /// UUIDv7.
    pub prediction_id: &'m str,
    /// The lever, or the name of a custom optimizer.
    pub lever: &'m str,
    /// Settings that change.
    pub changes: &'m [KnobChange],
    /// Replicas before and after, where their number changes.
    pub replicas: Option<(u32, u32)>,
    /// What is predicted.
    pub prediction: &'m Prediction,
    /// By what the record multiplied the half-widths.
    pub widened_by: f64,
    /// Why.
    pub origin: Origin,
    /// The settings before.
    pub in_force: &'m InForce,
    /// What it was predicted from.
    pub measurement: &'m Measurement,
    /// Unix time in seconds.
    pub now_unix_seconds: f64,
}

impl LedgerEntry {
    /// A new entry; none where there is nothing to be held to: no number, no change, or no window before it.
    pub fn of(made: Made<'_>) -> Option<Self> {
        let Made { measurement, .. } = made;
        let is_number = |one: &&QuantityPrediction| {
            [one.before, one.ratio, one.ratio_low, one.ratio_high]
                .iter()
                .all(|number| number.is_finite() && *number > 0.0)
        };
        let quantities = made.prediction.quantities.iter();
        let predicted: Vec<QuantityPrediction> = quantities.filter(is_number).copied().collect();
        let changes =
            !made.changes.is_empty() || made.replicas.is_some_and(|(from, to)| from != to);
        if predicted.is_empty() || !changes || measurement.window.kind != WindowKind::Interval {
            return None;
        }
        Some(Self {
            prediction_id: made.prediction_id.to_owned(),
            instance_id: measurement.instance_id.clone(),
            engine: measurement.engine.clone(),
            engine_version: measurement.engine_version.clone(),
            model_name: measurement.model_name.clone(),
            simulated: measurement.simulated,
            lever: made.lever.to_owned(),
            changes: made.changes.to_vec(),
            replicas: made.replicas,
            settings_before: told(made.in_force)
                .map(|(setting, value)| (setting.name.clone(), value.map(str::to_owned)))
                .collect(),
            predicted,
            widened_by: made.widened_by,
            made_at_unix_seconds: made.now_unix_seconds,
            baseline: Baseline::of(measurement),
            origin: made.origin,
            state: LedgerState::Open {
                seen_in_force_at_unix_seconds: None,
            },
        })
    }

    /// Whether it is about the same change of the same instance.
    pub fn is_about_the_same_as(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id
            && self.replicas.map(|(_, to)| to) == other.replicas.map(|(_, to)| to)
            && self.settings_after() == other.settings_after()
    }

    /// Takes over whose advice the change is from an earlier entry about the same: who asks what advice would do, or takes
    /// it, does not make it their own.
    pub fn keep_advice_of(&mut self, earlier: &Self) {
        if self.is_about_the_same_as(earlier)
            && earlier.origin == Origin::Recommended
            && self.origin == Origin::Asked
        {
            self.lever.clone_from(&earlier.lever);
            self.origin = Origin::Recommended;
        }
    }

    fn settings_after(&self) -> BTreeMap<&str, Option<&str>> {
        let changes = self.changes.iter();
        changes
            .map(|change| (change.name.as_str(), change.to.as_deref()))
            .collect()
    }
}

impl LedgerState {
    /// Which it is.
    pub fn ended(&self) -> Ended {
        match self {
            Self::Open { .. } => Ended::Open,
            Self::Closed { .. } => Ended::Closed,
            Self::Expired { .. } => Ended::Expired,
        }
    }
}

impl Ended {
    /// The word in the store and on the wire, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Closed => "CLOSED",
            Self::Expired => "EXPIRED",
        }
    }
}

impl Baseline {
    fn of(measurement: &Measurement) -> Self {
        let figures = &measurement.figures;
        let mean = |quantity| figures.distribution(quantity).and_then(|one| one.mean);
        let known = |value: Option<f64>| value.filter(|value| value.is_finite() && *value > 0.0);
        Self {
            start_unix_seconds: measurement.window.start_unix_seconds,
            end_unix_seconds: measurement.window.end_unix_seconds,
            replicas: measured_replicas(measurement),
            requests_per_second: known(figures.value("requests_finished_per_second")),
            prompt_tokens: known(mean(Quantity::PromptLength)),
            generation_tokens: known(mean(Quantity::GenerationLength)),
        }
    }
}

fn measured_replicas(measurement: &Measurement) -> u32 {
    let replicas = measurement.replicas.iter();
    let measured = replicas.filter(|replica| replica.outcome.is_ok()).count();
    u32::try_from(measured).unwrap_or(u32::MAX)
}

/// The settings that the engine or the operator tells. What only follows from the load comes and goes with it.
fn told(in_force: &InForce) -> impl Iterator<Item = (&SettingInForce, Option<&str>)> {
    let told = |setting: &&SettingInForce| {
        matches!(
            setting.source,
            SettingSource::Metric(_) | SettingSource::Endpoint(_) | SettingSource::Declared
        )
    };
    in_force.settings.iter().filter(told).filter_map(|setting| {
        Some((
            setting,
            match &setting.value {
                SettingValue::Known(value) => Some(value.as_str()),
                SettingValue::NotSet => None,
                SettingValue::Unknown => return None,
            },
        ))
    })
}
