//! What a histogram's increments say.

/// Increments of one histogram over a window, bucket by bucket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Buckets {
    /// Upper bounds, rising; the last may be infinite.
    pub bounds: Vec<f64>,
    /// Observations within each bucket, not cumulative.
    pub counts: Vec<f64>,
}

/// A value that is known, or only known to lie beyond a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bounded {
    /// Known.
    Value(f64),
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bounded {
    /// The value or the bound.
    pub fn number(self) -> f64 {
        match self {
            Self::Value(number) | Self::AtMost(number) | Self::AtLeast(number) => number,
        }
    }
}

impl Buckets {
    /// What was observed between two cumulative readings; none where they cannot be compared.
    pub(super) fn between(bounds: &[f64], before: &[f64], after: &[f64]) -> Option<Self> {
        if bounds.is_empty() || before.len() != bounds.len() || after.len() != bounds.len() {
            return None;
        }
        let mut counts = Vec::with_capacity(bounds.len());
        let mut below = 0.0;
        for (before, after) in before.iter().zip(after) {
            let cumulative = after - before;
            // a scrape torn between two updates, or no histogram at all
            if cumulative < below {
                return None;
            }
            counts.push(cumulative - below);
            below = cumulative;
        }
        Some(Self {
            bounds: bounds.to_vec(),
            counts,
        })
    }

    /// Adds another window or replica. Only possible where the bounds agree.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let agree = self.bounds == other.bounds;
        if agree {
            for (total, more) in self.counts.iter_mut().zip(&other.counts) {
                *total += more;
            }
        }
        agree
    }

    /// Observations in all buckets.
    pub fn count(&self) -> f64 {
        self.counts.iter().sum()
    }

    /// The value that the share `q` of all observations does not exceed, interpolated within its bucket.
    ///
    /// In the first bucket nothing says how far below its bound the value lies, and in the infinite one how far
    /// above: there it is a bound. None where nothing was observed.
    pub fn quantile(&self, q: f64) -> Option<Bounded> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count;
        let mut below = 0.0;
        let mut lower = None;
        for (bound, inside) in self.bounds.iter().zip(&self.counts) {
            if *inside > 0.0 && below + inside >= rank {
                return Some(match lower {
                    _ if bound.is_infinite() => Bounded::AtLeast(lower?),
                    // durations and lengths cannot lie below a bound of 0
                    None if *bound <= 0.0 => Bounded::Value(*bound),
                    None => Bounded::AtMost(*bound),
                    Some(lower) => {
                        let part = ((rank - below) / inside).clamp(0.0, 1.0);
                        Bounded::Value(lower + (bound - lower) * part)
                    }
                });
            }
            below += inside;
            lower = Some(*bound);
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(bounds: &[f64], counts: &[f64]) -> Buckets {
        Buckets {
            bounds: bounds.to_vec(),
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn bounds_stay_bounds() {
        let all_fast = buckets(&[0.3, 0.5, f64::INFINITY], &[10.0, 0.0, 0.0]);
        assert_eq!(all_fast.quantile(0.5), Some(Bounded::AtMost(0.3)));
        let all_slow = buckets(&[0.3, 0.5, f64::INFINITY], &[0.0, 0.0, 10.0]);
        assert_eq!(all_slow.quantile(0.5), Some(Bounded::AtLeast(0.5)));
        let middle = buckets(&[0.3, 0.5, f64::INFINITY], &[0.0, 10.0, 0.0]);
        assert_eq!(middle.quantile(0.5), Some(Bounded::Value(0.4)));
        assert_eq!(buckets(&[0.3], &[0.0]).quantile(0.5), None);
        // SGLang's queue time has a first bound of 0
        let no_wait = buckets(&[0.0, 0.1], &[5.0, 1.0]);
        assert_eq!(no_wait.quantile(0.5), Some(Bounded::Value(0.0)));
    }

    #[test]
    fn a_single_infinite_bucket_says_nothing() {
        assert_eq!(buckets(&[f64::INFINITY], &[3.0]).quantile(0.5), None);
    }

    #[test]
    fn differences_need_the_same_shape_and_no_fall() {
        let bounds = [1.0, 2.0];
        let between = |before: &[f64], after: &[f64]| Buckets::between(&bounds, before, after);
        assert_eq!(
            between(&[1.0, 3.0], &[2.0, 6.0]).unwrap().counts,
            [1.0, 2.0]
        );
        assert_eq!(between(&[1.0, 3.0], &[2.0, 3.0]), None);
        assert_eq!(between(&[1.0], &[2.0, 3.0]), None);
        assert_eq!(Buckets::between(&[], &[], &[]), None);
    }

    proptest! {
        #[test]
        fn quantiles_lie_in_their_bucket_and_rise(
            counts in prop::collection::vec(0u32..50, 1..12),
            q in 0.0f64..1.0,
        ) {
            let bounds: Vec<f64> = (1..=counts.len()).map(|at| at as f64 * 0.5).collect();
            let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
            let buckets = Buckets { bounds: bounds.clone(), counts: counts.clone() };
            let upper = |value: Bounded| match value {
                Bounded::Value(value) | Bounded::AtMost(value) | Bounded::AtLeast(value) => value,
            };
            match buckets.quantile(q) {
                None => prop_assert_eq!(buckets.count(), 0.0),
                Some(value) => {
                    let value = upper(value);
                    let at = bounds.iter().position(|bound| value <= *bound).unwrap();
                    let below: f64 = counts.iter().take(at + 1).sum();
                    prop_assert!(below >= q * buckets.count() - 1e-9);
                    if let Some(higher) = buckets.quantile((q + 0.1).min(1.0)) {
                        prop_assert!(upper(higher) >= value);
                    }
                }
            }
        }
    }
}
