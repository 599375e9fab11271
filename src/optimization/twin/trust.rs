//! How far the model itself is to be trusted, beyond what its members do not agree on.

use crate::optimization::prediction::PredictedQuantity as P;

/// Parts of the standard deviation of a predicted logarithm.
struct Trust {
    /// Whatever is changed: what the model leaves out, and load that differs.
    always: f64,
    /// Times the predicted logarithm itself: the larger the change, the further from what was seen.
    change: f64,
}

/// Set by the development half of the scenarios (`benches/prediction.rs`), and held against the other.
fn trust(quantity: P) -> Trust {
    let of = |always, change| Trust { always, change };
    match quantity {
        P::GenerationTokensPerSecond => of(0.03, 0.10),
        P::TimeToFirstTokenMean => of(0.06, 0.10),
        P::TimeToFirstTokenP99 => of(0.08, 0.10),
        P::InterTokenLatencyMean => of(0.03, 0.12),
        P::InterTokenLatencyP99 => of(0.08, 0.12),
        P::KvCacheUsage => of(0.06, 0.10),
    }
}

/// Standard deviation of the logarithm of after over before, given the middle of what the members say and what chance
/// does between two windows.
pub(super) fn sigma(quantity: P, log_ratio: f64, chance: f64, mismatch_ratio: f64) -> f64 {
    let Trust { always, change } = trust(quantity);
    let parts = [always, change * log_ratio, chance, mismatch_ratio.ln()];
    parts.iter().map(|part| part * part).sum::<f64>().sqrt()
}
