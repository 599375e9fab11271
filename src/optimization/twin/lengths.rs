//! Lengths from a histogram: within a bucket nothing tells where they lie, but the mean of all of them does.

use crate::measure::Distribution;
use crate::model::Lengths;

/// Lengths that stand for all: enough for a 99th percentile.
const POINTS: usize = 200;
/// How far beyond the last finite bound the longest may lie.
const BEYOND: f64 = 2.0;

/// Lengths with the shares of the buckets and the mean that was measured; `tail` stretches the longest bucket, 1 for as
/// it is, and all others follow from the mean.
pub(super) fn of(distribution: &Distribution, tail: f64) -> Lengths {
    let mean = distribution.mean.unwrap_or(1.0).max(1.0);
    let Some(longest) = distribution.buckets.last() else {
        // no buckets: the geometric distribution is what memoryless ends give
        return Lengths::Observed(
            (0..POINTS)
                .map(|at| round(-mean * (1.0 - unit(at)).ln()))
                .collect(),
        );
    };
    let finite = |bound: f64, above: f64| match bound.is_finite() {
        true => bound,
        false => above.max(1.0) * BEYOND,
    };
    let last = longest.above.unwrap_or(0.0);
    let all: f64 = distribution.buckets.iter().map(|one| one.count).sum();
    let at = |share: f64, skew: f64| {
        let mut left = share * all;
        for bucket in &distribution.buckets {
            if left > bucket.count {
                left -= bucket.count;
                continue;
            }
            let low = bucket.above.unwrap_or(0.0).max(1.0);
            let mut high = finite(bucket.at_most, low).max(low);
            if bucket.above.unwrap_or(0.0) >= last {
                high = low + (high - low) * tail;
            }
            let part = (left / bucket.count.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            // between the bounds as even as their logarithms, pulled to one end by the skew
            return low * (high / low).powf(part.powf(skew));
        }
        finite(longest.at_most, last)
    };
    let mean_of = |skew: f64| (0..POINTS).map(|n| at(unit(n), skew)).sum::<f64>() / POINTS as f64;
    // the mean falls as the skew rises
    let (mut low, mut high) = (0.05_f64, 20.0_f64);
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        match mean_of(middle) > mean {
            true => low = middle,
            false => high = middle,
        }
    }
    let skew = (low * high).sqrt();
    // what the buckets cannot give: an old window's long requests among the sums
    let scale = mean / mean_of(skew).max(1.0);
    Lengths::Observed(
        (0..POINTS)
            .map(|n| round(at(unit(n), skew) * scale))
            .collect(),
    )
}

/// The same with so many tokens less each, and so much in all that the mean is right.
pub(super) fn without(lengths: &Lengths, tokens: u32) -> Lengths {
    match lengths {
        Lengths::Observed(all) => {
            let wanted = (lengths.mean() - f64::from(tokens)).max(1.0);
            let scale = wanted / lengths.mean().max(1.0);
            Lengths::Observed(
                all.iter()
                    .map(|one| round(f64::from(*one) * scale))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn unit(at: usize) -> f64 {
    (at as f64 + 0.5) / POINTS as f64
}

fn round(tokens: f64) -> u32 {
    // `as` saturates
    tokens.round().max(1.0) as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::measure::{Basis, Bucket};
    use proptest::prelude::*;

    fn distribution(buckets: &[(f64, f64, f64)], mean: f64) -> Distribution {
        Distribution {
            name: "prompt_length_tokens".into(),
            count: buckets.iter().map(|(_, _, count)| count).sum(),
            mean: Some(mean),
            quantiles: Vec::new(),
            buckets: buckets
                .iter()
                .map(|(above, at_most, count)| Bucket {
                    above: (*above > 0.0).then_some(*above),
                    at_most: *at_most,
                    count: *count,
                })
                .collect(),
            basis: Basis::Exact,
            source: "test".into(),
        }
    }

    fn share_up_to(lengths: &Lengths, most: u32) -> f64 {
        let Lengths::Observed(all) = lengths else {
            panic!("{lengths:?}");
        };
        all.iter().filter(|one| **one <= most).count() as f64 / all.len() as f64
    }

    #[test]
    fn lengths_have_the_shares_and_the_mean_that_were_measured() {
        let measured = distribution(
            &[
                (50.0, 100.0, 30.0),
                (100.0, 200.0, 50.0),
                (1_000.0, 2_000.0, 20.0),
            ],
            400.0,
        );
        for tail in [0.7, 1.0, 1.5] {
            let lengths = of(&measured, tail);
            assert!(
                (lengths.mean() / 400.0 - 1.0).abs() < 0.02,
                "{tail}: {}",
                lengths.mean()
            );
            assert!((share_up_to(&lengths, 210) - 0.8).abs() < 0.03);
        }
    }

    #[test]
    fn what_is_found_in_a_cache_is_not_computed() {
        let lengths = of(&distribution(&[(50.0, 100.0, 10.0)], 80.0), 1.0);
        assert!((without(&lengths, 32).mean() - 48.0).abs() < 1.0);
    }

    #[test]
    fn a_mean_alone_is_spread_like_ends_without_memory() {
        let lengths = of(&distribution(&[], 100.0), 1.0);
        assert!((lengths.mean() / 100.0 - 1.0).abs() < 0.02);
        assert!((share_up_to(&lengths, 69) - 0.5).abs() < 0.02);
    }

    proptest! {
        /// Engines may say anything: bounds at infinity, a mean outside its buckets.
        #[test]
        fn lengths_are_always_some(
            bounds in prop::collection::vec(0.5f64..1e6, 0..6),
            last_is_infinite: bool,
            mean in 0.0f64..1e7,
            tail in 0.5f64..2.0,
        ) {
            let mut bounds = bounds;
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
            if last_is_infinite {
                bounds.push(f64::INFINITY);
            }
            let mut above = 0.0;
            let buckets: Vec<_> = bounds
                .iter()
                .map(|bound| {
                    let bucket = (above, *bound, 3.0);
                    above = *bound;
                    bucket
                })
                .collect();
            let lengths = of(&distribution(&buckets, mean), tail);
            prop_assert!(lengths.mean() >= 1.0);
        }
    }
}
