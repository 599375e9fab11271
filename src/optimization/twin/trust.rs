//! How far the model itself is to be trusted: what it leaves out, and the chance in two windows.

use crate::optimization::prediction::PredictedQuantity as P;

/// Parts of the standard deviation of a predicted logarithm, beside what members do not agree on.
struct Trust {
    /// Whatever is changed.
    always: f64,
    /// Times the predicted logarithm itself: the larger the change, the further from what was seen.
    change: f64,
    /// Over the square root of the requests that finished in the window.
    chance: f64,
}

/// Set by the development half of the scenarios (`benches/prediction.rs`), and held against the other.
fn trust(quantity: P) -> Trust {
    let of = |always, change, chance| Trust {
        always,
        change,
        chance,
    };
    match quantity {
        P::GenerationTokensPerSecond => of(0.02, 0.10, 0.6),
        P::TimeToFirstTokenMean => of(0.08, 0.15, 1.0),
        P::TimeToFirstTokenP99 => of(0.12, 0.15, 1.5),
        P::InterTokenLatencyMean => of(0.03, 0.15, 0.3),
        P::InterTokenLatencyP99 => of(0.10, 0.15, 0.5),
        P::KvCacheUsage => of(0.06, 0.10, 0.6),
    }
}

/// Standard deviation of the logarithm of after over before, given what the members say.
pub(super) fn sigma(quantity: P, log_ratio: f64, finished: f64, mismatch_ratio: f64) -> f64 {
    let Trust {
        always,
        change,
        chance,
    } = trust(quantity);
    let parts = [
        always,
        change * log_ratio,
        chance / finished.max(1.0).sqrt(),
        mismatch_ratio.ln(),
    ];
    parts.iter().map(|part| part * part).sum::<f64>().sqrt()
}
