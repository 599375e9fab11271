//! How far the model itself is to be trusted, beyond what its members do not agree on.

use crate::optimization::prediction::PredictedQuantity as P;

/// What an interval is made of, in logarithms.
pub(super) struct Trust {
    /// Whatever is changed: what the model leaves out, and load that differs.
    always: f64,
    /// Times the predicted logarithm itself: the larger the change, the further from what was seen.
    change: f64,
    /// Times what two windows under the same load differ by.
    chance: f64,
    /// Times what members are apart.
    pub(super) members: f64,
    /// Times what the model misses of what was measured.
    mismatch: f64,
    /// Changes up to about this leave a member as far from what was measured as it was before; larger ones do not: what
    /// is left of a wait when the queue is gone has nothing to do with how long it was. None where a member's ratio counts.
    same: Option<f64>,
}

/// Set by the development half of the scenarios (`benches/prediction.rs`), for the narrowest intervals that hold about
/// nine in ten of them, and held against the other half.
pub(super) fn trust(quantity: P) -> Trust {
    let of = |always, change, chance, members, mismatch, same| Trust {
        always,
        change,
        chance,
        members,
        mismatch,
        same,
    };
    match quantity {
        P::GenerationTokensPerSecond => of(0.035, 0.04, 1.45, 0.73, 0.65, None),
        P::TimeToFirstTokenMean => of(0.085, 0.17, 0.74, 1.08, 0.42, Some(0.6)),
        P::TimeToFirstTokenP99 => of(0.04, 0.11, 1.20, 1.03, 0.57, Some(0.02)),
        P::InterTokenLatencyMean => of(0.015, 0.16, 1.70, 1.10, 0.80, None),
        P::InterTokenLatencyP99 => of(0.045, 0.05, 0.76, 0.81, 0.50, Some(0.6)),
        P::KvCacheUsage => of(0.06, 0.05, 1.14, 1.16, 0.50, None),
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
            self.mismatch * mismatch_ratio.ln(),
        ];
        parts.iter().map(|part| part * part).sum::<f64>().sqrt()
    }

    /// Share of what a member was off by before that it is off by after a change of this size.
    pub(super) fn still_off(&self, log_ratio: f64) -> f64 {
        self.same
            .map_or(1.0, |same| (-log_ratio.abs() / same).exp())
    }
}

/// The width, as a logarithm, beyond which intervals are made wider still, by this power; and what all are multiplied by.
/// Members that do not agree are wrong more often than they say.
const ORDINARY_WIDTH: f64 = 0.45;
const SHARE: f64 = 0.79;
const POWER: f64 = 0.25;

/// What the distance of an end from the middle is multiplied by, of an interval that is so wide.
pub(super) fn stretch(width: f64) -> f64 {
    SHARE * (width / ORDINARY_WIDTH).max(1.0).powf(POWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_wait_does_not_go_by_its_length() {
        let first = trust(P::TimeToFirstTokenMean);
        assert!(first.still_off(0.0) == 1.0 && first.still_off(-4.0) < 0.01);
        assert_eq!(trust(P::KvCacheUsage).still_off(-4.0), 1.0);
    }

    #[test]
    fn wide_intervals_become_wider() {
        assert_eq!((stretch(0.1), stretch(0.45)), (SHARE, SHARE));
        assert!(stretch(0.9) > SHARE && stretch(4.0) > 1.0);
    }
}
