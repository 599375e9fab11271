//! What happened on one replica, or on all of them, over a window: quantity by quantity, before it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{Quantity, Version};

use super::histogram::{Bounded, Buckets};
use super::intervals::Interval;

/// How far a value can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// What the engine counted.
    Exact,
    /// Interpolated within a histogram bucket.
    Interpolated,
    /// Stands in for the quantity, or is known to be a little off.
    Approximate,
    /// Not exported yet because it never happened: zero.
    ImpliedZero,
}

/// What is known of the engine beside its samples.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knowledge {
    /// Version, where an endpoint told it.
    pub version: Option<Version>,
    /// An endpoint proved the engine, even if its metrics are still empty.
    pub proven: bool,
}

/// What one replica did between its first and its last sample.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Counters.
    pub counters: BTreeMap<Quantity, Counter>,
    /// Gauges.
    pub gauges: BTreeMap<Quantity, GaugeTrack>,
    /// Distributions.
    pub distributions: BTreeMap<Quantity, DistributionIncrease>,
    /// Quantities that the profile knows and that are not there.
    pub absent: Vec<Absence>,
    /// Requests whose client went away, where the engine counts them only by what is missing.
    pub disconnected: Option<Bounded>,
    /// Seconds at the end of the window in which requests were held and nothing moved.
    pub standstill_seconds: Option<f64>,
    /// Seconds over which counters were differenced.
    pub observed_seconds: f64,
    /// Intervals that were left out.
    pub dropped: Vec<DroppedInterval>,
}

/// A counter over the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Value at the end, since the engine's start.
    pub total: f64,
    /// Rise over the intervals that count.
    pub increase: Option<Rise>,
    /// The same interval by interval; empty where there is no increase.
    pub intervals: Vec<Interval>,
    /// How far it can be trusted.
    pub basis: Basis,
    /// Where it was read.
    pub source: Arc<str>,
}

/// A rise over the intervals that count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// By how much.
    pub amount: f64,
    /// A second.
    pub per_second: f64,
}

/// A gauge at each sample of the window, by tick.
#[derive(Debug, Clone, PartialEq)]
pub struct GaugeTrack {
    /// Tick and value.
    pub values: Vec<(u32, f64)>,
    /// How far it can be trusted.
    pub basis: Basis,
    /// Where it was read.
    pub source: Arc<str>,
}

/// What a distribution gained over the window.
#[derive(Debug, Clone, PartialEq)]
pub struct DistributionIncrease {
    /// Observations.
    pub count: f64,
    /// Their sum.
    pub sum: Option<f64>,
    /// Bucket by bucket, where all samples have the same bounds.
    pub buckets: Option<Buckets>,
    /// Sum and count interval by interval; empty where there is no sum or no window.
    pub intervals: Vec<Interval>,
    /// How far it can be trusted.
    pub basis: Basis,
    /// Where it was read.
    pub source: Arc<str>,
}

/// A quantity that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// Which.
    pub quantity: Quantity,
    /// Why.
    pub reason: Arc<str>,
    /// What would make it appear, where that is known.
    pub hint: Option<Arc<str>>,
}

/// An interval between two samples that does not count.
#[derive(Debug, Clone, PartialEq)]
pub struct DroppedInterval {
    /// Beginning, unix time in seconds.
    pub start_unix_seconds: f64,
    /// End, unix time in seconds.
    pub end_unix_seconds: f64,
    /// Why.
    pub cause: DropCause,
}

/// Why an interval does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropCause {
    /// The engine started anew in between.
    Restart {
        /// What showed it.
        evidence: String,
    },
    /// The exposition's own timestamps did not move on.
    NotAdvanced,
}
