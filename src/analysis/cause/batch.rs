//! BATCH_TOO_LARGE: larger batches cost latency and give no throughput, and both were seen.

use crate::analysis::check::{Answer, by_count, found, seconds, severity_of_gap, unclear};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Treatment};
use crate::engine::Quantity as Q;

use super::decode::prefill_share;

/// An interval of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    /// Requests that decoded, by Little's law: tokens a second times the seconds between two of a request.
    batch: f64,
    tokens_per_second: f64,
    gap_seconds: f64,
}

/// Fewer intervals show nothing.
const FEWEST_POINTS: usize = 3;
/// Among batches of at least this share of the largest, throughput is held against the batch.
const LARGE_SHARE: f64 = 0.5;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let points = points(facts);
    if points.is_empty() && facts.moves() && facts.distribution(Q::InterTokenLatency).is_none() {
        return vec![unclear(facts, Cause::BatchTooLarge, Q::InterTokenLatency)];
    }
    let largest = points.iter().map(|one| one.batch).fold(0.0, f64::max);
    let large: Vec<Point> = points
        .iter()
        .filter(|one| one.batch >= LARGE_SHARE * largest)
        .copied()
        .collect();
    let (Some(top), Some(low), Some(bottom)) = (
        large.iter().copied().max_by(by_batch),
        large.iter().copied().min_by(by_batch),
        points.iter().copied().min_by(by_batch),
    ) else {
        return Vec::new();
    };
    let spread = top.batch / bottom.batch.max(f64::MIN_POSITIVE);
    let enough = points.len() >= FEWEST_POINTS && low.batch >= 2.0;
    let Some(elasticity) = elasticity(&large).filter(|_| enough) else {
        return Vec::new();
    };
    let target = facts.targets.itl_p99_seconds;
    // it is the large batches that are late, in the mean or in the tail
    let tail = facts
        .quantile(Q::InterTokenLatency, 0.99)
        .is_some_and(|tail| tail.number() > target);
    let late = top.gap_seconds > target || (tail && top.gap_seconds > 1.2 * low.gap_seconds);
    let prompts =
        prefill_share(facts).is_some_and(|share| share >= facts.thresholds.mostly_prompts_ratio);
    if prompts
        || spread < facts.thresholds.batch_spread_ratio
        || elasticity > facts.thresholds.flat_elasticity_ratio
        || !late
    {
        return Vec::new();
    }
    let description = format!(
        "batches of {:.0} give {:.0} tokens/s, batches of {:.0} give {:.0}, and a token takes {} instead of {}",
        low.batch,
        low.tokens_per_second,
        top.batch,
        top.tokens_per_second,
        seconds(top.gap_seconds),
        seconds(low.gap_seconds),
    );
    let evidence = facts
        .evidence()
        .derived(
            "throughput_elasticity_ratio",
            elasticity,
            "d ln(tokens a second) / d ln(batch) over the large batches",
        )
        .against(
            Comparison::Below,
            facts.thresholds.flat_elasticity_ratio,
            "flat_elasticity_ratio",
        )
        .derived("batch_spread_ratio", spread, "tokens a second × gap")
        .against(
            Comparison::AtLeast,
            facts.thresholds.batch_spread_ratio,
            "batch_spread_ratio",
        )
        .mean(Q::InterTokenLatency)
        .quantile(Q::InterTokenLatency, 0.99, "p99")
        .done();
    let flag = match facts.engine() {
        "sglang" => "--max-running-requests",
        "tgi" => "--max-batch-size",
        _ => "--max-num-seqs",
    };
    found(Cause::BatchTooLarge, description, evidence)
        .severe(severity_of_gap(facts, top.gap_seconds))
        .sure(by_count(0.8, points.len() as f64 * 3.0))
        .costs(CostKind::ItlSeconds, top.gap_seconds - low.gap_seconds)
        .treat(
            &format!(
                "Lower {flag} towards {:.0}: throughput stays, tokens come sooner, and what is too much waits in the queue.",
                low.batch
            ),
            &[Treatment::Batching],
        )
        .answer()
}

fn by_batch(one: &Point, other: &Point) -> std::cmp::Ordering {
    one.batch.total_cmp(&other.batch)
}

fn points(facts: &Facts<'_>) -> Vec<Point> {
    let (Some(tokens), Some(gaps)) = (
        facts.series("generation_tokens_per_second"),
        facts.series("inter_token_latency_seconds"),
    ) else {
        return Vec::new();
    };
    let rates = tokens.intervals.iter();
    rates
        .filter_map(|rate| {
            let same = |gap: &&crate::measure::Interval| {
                (gap.start_tick, gap.end_tick) == (rate.start_tick, rate.end_tick)
            };
            let gap = gaps.intervals.iter().find(same)?;
            let tokens_per_second = rate.numerator / rate.denominator;
            let gap_seconds = gap.numerator / gap.denominator;
            let batch = tokens_per_second * gap_seconds;
            (batch.is_finite() && batch > 0.0).then_some(Point {
                batch,
                tokens_per_second,
                gap_seconds,
            })
        })
        .collect()
}

/// By how many percent throughput rises for a percent of batch: the slope of the logarithms, by least squares. None
/// where the batches hardly differ.
fn elasticity(points: &[Point]) -> Option<f64> {
    let count = points.len() as f64;
    let logs = || {
        points
            .iter()
            .map(|one| (one.batch.ln(), one.tokens_per_second.ln()))
    };
    let mean_batch = logs().map(|(batch, _)| batch).sum::<f64>() / count;
    let mean_rate = logs().map(|(_, rate)| rate).sum::<f64>() / count;
    let spread: f64 = logs().map(|(batch, _)| (batch - mean_batch).powi(2)).sum();
    let shared: f64 = logs()
        .map(|(batch, rate)| (batch - mean_batch) * (rate - mean_rate))
        .sum();
    // standard deviation of a twentieth: steps of one size
    (spread / count > 0.0025).then(|| shared / spread)
}
