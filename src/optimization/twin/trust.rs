//! How far the model itself is to be trusted, beyond what its members do not agree on.

use crate::optimization::prediction::PredictedQuantity as P;

/// What an interval is made of, in logarithms.
pub(super) struct Trust {
    /// Whatever is changed: what the model leaves out, and load that differs.
    always: f64,
    /// Times the predicted logarithm itself: the larger the change, the further from what was seen.
    change: f64,
    /// Times what two windows under the same load differ by. The tails of neighbouring windows are less apart than those
    /// of members with other requests.
    chance: f64,
    /// Times what members are apart.
    pub(super) members: f64,
}

/// Set by the development half of the scenarios (`benches/prediction.rs`), for the narrowest intervals that hold about
/// nine in ten of them, and held against the other half.
pub(super) fn trust(quantity: P) -> Trust {
    let of = |always, change, chance, members| Trust {
        always,
        change,
        chance,
        members,
    };
    match quantity {
        P::GenerationTokensPerSecond => of(0.05, 0.10, 1.10, 0.95),
        P::TimeToFirstTokenMean => of(0.09, 0.15, 0.70, 1.10),
        P::TimeToFirstTokenP99 => of(0.07, 0.05, 0.60, 1.10),
        P::InterTokenLatencyMean => of(0.04, 0.30, 1.30, 0.95),
        P::InterTokenLatencyP99 => of(0.04, 0.05, 0.50, 0.85),
        P::KvCacheUsage => of(0.06, 0.05, 1.20, 1.10),
    }
}

impl Trust {
    /// Standard deviation by which each member's word is blurred, given the middle of what they say, what chance does
    /// between two windows, and how far the model misses what was measured.
    pub(super) fn sigma(&self, log_ratio: f64, chance: f64, mismatch_ratio: f64) -> f64 {
        let parts = [
            self.always,
            self.change * log_ratio,
            self.chance * chance,
            mismatch_ratio.ln() / 2.0,
        ];
        parts.iter().map(|part| part * part).sum::<f64>().sqrt()
    }
}
