//! From scrapes to a measurement. Pure: time and bodies come in from outside.

mod caution;
mod collect;
mod compare;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod compare_truth;
mod detect;
mod distribution;
mod doubts;
mod estimate;
mod figures;
mod histogram;
mod instance;
mod intervals;
mod measurement;
mod merge;
mod sample;
mod series;
mod standstill;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod view;
mod window;

pub use caution::{Caution, CautionCode};
pub use compare::{
    Better, CONFIDENCE, ComparedMeasurements, Comparison, Incomparable, Verdict, compare,
};
pub use detect::detect_engine;
pub use distribution::Share;
pub(crate) use estimate::{Difference, Estimate};
pub use figures::{DERIVED, QUANTILES};
pub use histogram::{Bounded, Buckets};
pub use instance::{InstanceSamples, ReplicaSamples};
pub use intervals::{Interval, Series};
pub use measurement::{
    Bucket, Distribution, Figures, Gauge, Measurement, Note, NoteCode, Quantile, QuantityValue,
    Replica, ReplicaFailure, Window, WindowKind,
};
pub use sample::{DistributionReading, Incarnation, Sample, ScalarReading};
pub use view::{
    Absence, Basis, Counter, DistributionIncrease, DropCause, DroppedInterval, GaugeTrack,
    Knowledge, Rise, View,
};
pub use window::has_restarted;
