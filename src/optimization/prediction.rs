//! What is predicted of a change, and what that rests on.

use serde::{Deserialize, Serialize};

/// What is predicted of a change.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Numbers.
    Predicted(Prediction),
    /// Nothing can be said: why, as a sentence.
    NotPredictable(String),
}

/// Predicted effects of a change on what users and operators see.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Prediction {
    /// What can be said, each quantity once.
    pub quantities: Vec<QuantityPrediction>,
    /// What cannot be said.
    pub unpredicted: Vec<Unpredicted>,
    /// What all of it rests on.
    pub basis: PredictionBasis,
}

/// A quantity that is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictedQuantity {
    /// Generated tokens a second, of all replicas.
    GenerationTokensPerSecond,
    /// Mean time to first token.
    TimeToFirstTokenMean,
    /// Its 99th percentile.
    TimeToFirstTokenP99,
    /// Mean gap between tokens.
    InterTokenLatencyMean,
    /// Its 99th percentile.
    InterTokenLatencyP99,
    /// Mean share of the KV cache in use.
    KvCacheUsage,
}

impl PredictedQuantity {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::GenerationTokensPerSecond,
        Self::TimeToFirstTokenMean,
        Self::TimeToFirstTokenP99,
        Self::InterTokenLatencyMean,
        Self::InterTokenLatencyP99,
        Self::KvCacheUsage,
    ];

    /// The quantity's name with its unit, as in a measurement.
    pub fn quantity(self) -> &'static str {
        match self {
            Self::GenerationTokensPerSecond => "generation_tokens_per_second",
            Self::TimeToFirstTokenMean | Self::TimeToFirstTokenP99 => "time_to_first_token_seconds",
            Self::InterTokenLatencyMean | Self::InterTokenLatencyP99 => {
                "inter_token_latency_seconds"
            }
            Self::KvCacheUsage => "kv_cache_usage_ratio",
        }
    }

    /// What of it: `value`, `mean` or `p99`.
    pub fn statistic(self) -> &'static str {
        match self {
            Self::GenerationTokensPerSecond => "value",
            Self::TimeToFirstTokenMean | Self::InterTokenLatencyMean | Self::KvCacheUsage => "mean",
            Self::TimeToFirstTokenP99 | Self::InterTokenLatencyP99 => "p99",
        }
    }

    /// Whether users are better off with more of it; none where it depends.
    pub fn more_is_better(self) -> Option<bool> {
        match self {
            Self::GenerationTokensPerSecond => Some(true),
            Self::KvCacheUsage => None,
            _ => Some(false),
        }
    }
}

/// One quantity after a change against before.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct QuantityPrediction {
    /// Which.
    pub quantity: PredictedQuantity,
    /// As measured before, in the quantity's unit.
    pub before: f64,
    /// After over before: the middle of what is likely.
    pub ratio: f64,
    /// After over before: 5 % lie below.
    pub ratio_low: f64,
    /// After over before: 5 % lie above.
    pub ratio_high: f64,
}

impl QuantityPrediction {
    /// The value after the change, in the quantity's unit: the middle, and the ends of the 90 % interval.
    pub fn after(&self) -> [f64; 3] {
        [self.ratio, self.ratio_low, self.ratio_high].map(|ratio| self.before * ratio)
    }
}

/// A quantity of which nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Unpredicted {
    /// Which.
    pub quantity: PredictedQuantity,
    /// Why, as a sentence.
    pub reason: String,
}

/// What a prediction rests on.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct PredictionBasis {
    /// Windows that the times of steps were fitted to.
    pub windows: u32,
    /// Requests that finished in the window.
    pub observed_requests: f64,
    /// Requests that finished in simulations, before and after the change together.
    pub simulated_requests: u64,
    /// Simulations that the intervals come from.
    pub simulations: u32,
    /// By how much the fitted model misses what was measured, in the worst of the main quantities: 0.05 for a twentieth.
    pub mismatch_ratio: f64,
    /// What was assumed because nothing tells it, a sentence each.
    pub assumptions: Vec<String>,
    /// Predictions of this lever that the intervals were widened or narrowed by; 0 where there is no record yet.
    pub track_record: u32,
}
