//! What the buckets of a distribution say beyond the quantiles that are shown.

use super::histogram::Bounded;
use super::measurement::{Bucket, Distribution};

/// A share of observations, 0 to 1, as far as buckets tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// This much for certain.
    pub at_least: f64,
    /// No more than this.
    pub at_most: f64,
    /// What lies between, spread evenly over the bucket. None in the first and in the infinite bucket, where nothing says
    /// how far they reach.
    pub interpolated: Option<f64>,
}

impl Share {
    /// The rest.
    pub fn complement(self) -> Self {
        Self {
            at_least: 1.0 - self.at_most,
            at_most: 1.0 - self.at_least,
            interpolated: self.interpolated.map(|share| 1.0 - share),
        }
    }
}

impl Distribution {
    /// The value that the share `q` of all observations does not exceed, interpolated within its bucket; in the first and
    /// in the infinite bucket a bound. None where there are no buckets or nothing was observed.
    pub fn quantile(&self, q: f64) -> Option<Bounded> {
        let rank = q.clamp(0.0, 1.0) * self.observed()?;
        let mut below = 0.0;
        for Bucket {
            above,
            at_most,
            count,
        } in &self.buckets
        {
            if *count > 0.0 && below + count >= rank {
                return Some(match above {
                    _ if at_most.is_infinite() => Bounded::AtLeast((*above)?),
                    // durations and lengths cannot lie below a bound of 0
                    None if *at_most <= 0.0 => Bounded::Value(*at_most),
                    None => Bounded::AtMost(*at_most),
                    Some(above) => {
                        let part = ((rank - below) / count).clamp(0.0, 1.0);
                        Bounded::Value(above + (at_most - above) * part)
                    }
                });
            }
            below += count;
        }
        None
    }

    /// The share of observations that do not exceed the limit. None where there are no buckets or nothing was observed.
    pub fn share_at_most(&self, limit: f64) -> Option<Share> {
        let all = self.observed()?;
        let (mut certain, mut straddling, mut part) = (0.0, 0.0, Some(0.0));
        for Bucket {
            above,
            at_most,
            count,
        } in &self.buckets
        {
            if *at_most <= limit {
                certain += count;
            } else if above.is_none_or(|above| above < limit) {
                straddling += count;
                part = above
                    .filter(|_| at_most.is_finite())
                    .map(|above| (limit - above) / (at_most - above) * count);
            }
        }
        Some(Share {
            at_least: certain / all,
            at_most: (certain + straddling) / all,
            interpolated: part.map(|part| (certain + part) / all),
        })
    }

    /// Observations in all buckets; none where there are none.
    fn observed(&self) -> Option<f64> {
        let all: f64 = self.buckets.iter().map(|bucket| bucket.count).sum();
        (all > 0.0).then_some(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::measure::{Basis, Buckets};
    use proptest::prelude::*;

    fn distribution(bounds: &[f64], counts: &[f64]) -> Distribution {
        let above = std::iter::once(None).chain(bounds.iter().copied().map(Some));
        let buckets = bounds.iter().zip(counts).zip(above);
        Distribution {
            name: "time_to_first_token_seconds".into(),
            count: counts.iter().sum(),
            mean: None,
            quantiles: Vec::new(),
            buckets: buckets
                .filter(|((_, count), _)| **count > 0.0)
                .map(|((at_most, count), above)| Bucket {
                    above,
                    at_most: *at_most,
                    count: *count,
                })
                .collect(),
            basis: Basis::Exact,
            source: "m".into(),
        }
    }

    #[test]
    fn shares_are_exact_at_a_bound_and_bounded_within_a_bucket() {
        let inf = f64::INFINITY;
        let some = distribution(&[0.1, 0.5, inf], &[50.0, 40.0, 10.0]);
        let at = |limit| some.share_at_most(limit).unwrap();
        let exactly = |share| Share {
            at_least: share,
            at_most: share,
            interpolated: Some(share),
        };
        assert_eq!(at(0.1), exactly(0.5));
        assert_eq!(at(0.5), exactly(0.9));
        let inside = at(0.3);
        assert_eq!((inside.at_least, inside.at_most), (0.5, 0.9));
        assert!((inside.interpolated.unwrap() - 0.7).abs() < 1e-9);
        for (limit, low, high) in [(0.05, 0.0, 0.5), (2.0, 0.9, 1.0)] {
            let unknown = at(limit);
            assert_eq!((unknown.at_least, unknown.at_most), (low, high));
            assert_eq!(unknown.interpolated, None, "{limit}");
        }
        assert_eq!(distribution(&[0.1], &[0.0]).share_at_most(0.1), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_histogram(
            counts in prop::collection::vec(0u32..20, 2..10),
            q in 0.0f64..1.0,
        ) {
            let mut bounds: Vec<f64> = (0..counts.len()).map(|at| at as f64 * 0.25).collect();
            *bounds.last_mut().unwrap() = f64::INFINITY;
            let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
            let expected = Buckets { bounds: bounds.clone(), counts: counts.clone() }.quantile(q);
            prop_assert_eq!(distribution(&bounds, &counts).quantile(q), expected);
        }

        #[test]
        fn the_share_below_a_quantile_is_the_quantile(
            counts in prop::collection::vec(1u32..20, 3..10),
            q in 0.01f64..0.99,
        ) {
            let bounds: Vec<f64> = (1..=counts.len()).map(|at| at as f64 * 0.25).collect();
            let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
            let one = distribution(&bounds, &counts);
            if let Some(Bounded::Value(value)) = one.quantile(q) {
                let share = one.share_at_most(value).unwrap();
                prop_assert!((share.interpolated.unwrap() - q).abs() < 1e-6);
                prop_assert!(share.at_least <= q + 1e-9 && q <= share.at_most + 1e-9);
            }
        }
    }
}
