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
