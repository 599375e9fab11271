//! A measurement: what happened on an instance over a window, and how far each value can be trusted.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::{Quantity, Setting};

use super::histogram::Bounded;
use super::intervals::Series;
use super::view::{Absence, Basis, DroppedInterval};

/// What happened on an instance over a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Id that the caller gave the instance.
    pub instance_id: String,
    /// Engine, as in `instance_type`.
    pub engine: String,
    /// Version as the engine writes it.
    pub engine_version: Option<String>,
    /// Served model, as the engine labels its series.
    pub model_name: Option<String>,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// When.
    pub window: Window,
    /// All replicas together.
    pub figures: Figures,
    /// Each replica.
    pub replicas: Vec<Replica>,
    /// Settings in force.
    pub settings: Vec<Setting>,
    /// What a reader must know to read the numbers right.
    pub notes: Vec<Note>,
}

/// When a measurement was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// First sample, unix time in seconds.
    pub start_unix_seconds: f64,
    /// Last sample, unix time in seconds.
    pub end_unix_seconds: f64,
    /// Whether there is a window at all.
    pub kind: WindowKind,
    /// Seconds over which counters were differenced: less than the window where intervals were dropped.
    pub observed_seconds: f64,
    /// Samples of the replica that has most.
    pub samples: u32,
}

/// What the numbers cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// From the first to the last sample.
    Interval,
    /// Since the engine's start: totals, no rates.
    SinceStart,
}

/// One replica's part.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    /// Its metrics URL.
    pub metrics_url: String,
    /// Its numbers, or why there are none.
    pub outcome: Result<Figures, ReplicaFailure>,
    /// Scrapes that were read.
    pub samples: u32,
    /// Scrapes that failed.
    pub failed_scrapes: u32,
    /// Intervals that do not count.
    pub dropped: Vec<DroppedInterval>,
}

/// Why a replica could not be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaFailure {
    /// Machine-readable reason, as in `ErrorInfo`.
    pub reason: String,
    /// A sentence with what to do about it.
    pub message: String,
}

/// The numbers of one replica or of the whole instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Single values: totals, increases, rates, ratios.
    pub quantities: Vec<QuantityValue>,
    /// Distributions.
    pub distributions: Vec<Distribution>,
    /// Instants over the window.
    pub gauges: Vec<Gauge>,
    /// What cannot be told, and why.
    pub absent: Vec<Absence>,
    /// Rates and means interval by interval. Of the whole instance only, and only over a window.
    pub series: Vec<Series>,
}

/// A single value.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantityValue {
    /// Name with its unit.
    pub name: Cow<'static, str>,
    /// Value, or the bound that is known of it.
    pub value: Bounded,
    /// How far it can be trusted.
    pub basis: Basis,
    /// The engine's metrics that it comes from.
    pub source: Arc<str>,
}

/// A distribution over the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Name with its unit.
    pub name: Cow<'static, str>,
    /// Observations.
    pub count: f64,
    /// Mean; none where nothing was observed or no sum is exported.
    pub mean: Option<f64>,
    /// Quantiles; none where no buckets are exported or nothing was observed.
    pub quantiles: Vec<Quantile>,
    /// Buckets with observations.
    pub buckets: Vec<Bucket>,
    /// How far count and mean can be trusted.
    pub basis: Basis,
    /// The engine's metrics that it comes from.
    pub source: Arc<str>,
}

/// One quantile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// Between 0 and 1.
    pub q: f64,
    /// Interpolated value, or the bound that is known of it.
    pub value: Bounded,
}

/// Observations between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Bound below, exclusive; none in the first bucket.
    pub above: Option<f64>,
    /// Bound above, inclusive; may be infinite.
    pub at_most: f64,
    /// Observations.
    pub count: f64,
}

/// Instants over the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Name with its unit.
    pub name: Cow<'static, str>,
    /// Smallest.
    pub min: f64,
    /// Mean of the samples.
    pub mean: f64,
    /// Largest.
    pub max: f64,
    /// Last.
    pub last: f64,
    /// How many samples.
    pub samples: u32,
    /// How far it can be trusted.
    pub basis: Basis,
    /// The engine's metrics that it comes from.
    pub source: Arc<str>,
}

/// What a reader must know to read the numbers right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind.
    pub code: NoteCode,
    /// The replica it is about; none if about all.
    pub metrics_url: Option<String>,
    /// A sentence.
    pub message: String,
}

/// Kinds of notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteCode {
    /// The engine restarted in the window; that interval does not count.
    Restarted,
    /// The exposition's timestamps stood still; that interval does not count.
    NotAdvanced,
    /// Some scrapes of the window failed.
    ScrapesFailed,
    /// A replica could not be measured; the instance's numbers are without it.
    ReplicaFailed,
    /// Lines of the exposition could not be read.
    BadLines,
    /// Requests are held and nothing moves: the engine stalls, or its gauges are stale.
    HeldWithoutProgress,
    /// Replicas run with different settings.
    SettingsDiffer,
    /// The engine is idle and exports nothing yet.
    Idle,
    /// Two URLs lead to the same process, which is counted twice.
    SameProcess,
}

impl NoteCode {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Restarted,
        Self::NotAdvanced,
        Self::ScrapesFailed,
        Self::ReplicaFailed,
        Self::BadLines,
        Self::HeldWithoutProgress,
        Self::SettingsDiffer,
        Self::Idle,
        Self::SameProcess,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarted => "RESTARTED",
            Self::NotAdvanced => "NOT_ADVANCED",
            Self::ScrapesFailed => "SCRAPES_FAILED",
            Self::ReplicaFailed => "REPLICA_FAILED",
            Self::BadLines => "BAD_LINES",
            Self::HeldWithoutProgress => "HELD_WITHOUT_PROGRESS",
            Self::SettingsDiffer => "SETTINGS_DIFFER",
            Self::Idle => "IDLE",
            Self::SameProcess => "SAME_PROCESS",
        }
    }
}

impl Figures {
    /// A single value by its name.
    pub fn quantity(&self, name: &str) -> Option<&QuantityValue> {
        self.quantities.iter().find(|value| value.name == name)
    }

    /// A single value by its name, if it is known and not only bounded.
    pub fn value(&self, name: &str) -> Option<f64> {
        match self.quantity(name)?.value {
            Bounded::Value(value) => Some(value),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }
    }

    /// Requests that failed since the engine's start: errors and rejections, as far as the engine tells them. Aborts
    /// by the client stand apart.
    pub fn failed_requests(&self) -> Option<f64> {
        ["requests_errored_total", "requests_rejected_total"]
            .into_iter()
            .filter_map(|name| self.value(name))
            .reduce(|sum, part| sum + part)
    }

    /// Mean gap between two tokens of a request, in seconds. TGI does not tell it; its decode steps do, one token each.
    pub fn gap_seconds(&self) -> Option<f64> {
        let told = |quantity| {
            let observed = self.distribution(quantity)?;
            observed.mean.filter(|_| observed.count > 0.0)
        };
        [
            Quantity::InterTokenLatency,
            Quantity::DecodeStepTotalTime,
            Quantity::DecodeStepTime,
            Quantity::TimePerOutputToken,
        ]
        .into_iter()
        .find_map(told)
    }

    /// A distribution.
    pub fn distribution(&self, quantity: Quantity) -> Option<&Distribution> {
        self.distributions
            .iter()
            .find(|distribution| distribution.name == quantity.name())
    }

    /// A gauge.
    pub fn gauge(&self, quantity: Quantity) -> Option<&Gauge> {
        self.gauges
            .iter()
            .find(|gauge| gauge.name == quantity.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notes_are_listed() {
        // a new one must be given a place here, and one in the list
        let place = |code: &NoteCode| match code {
            NoteCode::Restarted => 0,
            NoteCode::NotAdvanced => 1,
            NoteCode::ScrapesFailed => 2,
            NoteCode::ReplicaFailed => 3,
            NoteCode::BadLines => 4,
            NoteCode::HeldWithoutProgress => 5,
            NoteCode::SettingsDiffer => 6,
            NoteCode::Idle => 7,
            NoteCode::SameProcess => 8,
        };
        let places: Vec<usize> = NoteCode::ALL.iter().map(place).collect();
        assert_eq!(places, Vec::from_iter(0..9));
    }
}
