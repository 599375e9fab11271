//! The window interval by interval: what a comparison needs beside the window's own numbers.
//!
//! Each interval is a numerator and a denominator: of a counter its increase and the seconds, of a distribution the sum
//! and the count of what was observed. So over any set of intervals the rate or mean is Σ numerators / Σ denominators.

use std::collections::BTreeMap;

use crate::engine::Quantity as Q;

use super::view::{Counter, DistributionIncrease, View};

/// One quantity over the intervals that count.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the value over the whole window: that of a rate or ratio among the quantities, or of a distribution.
    pub name: String,
    /// Intervals in order of time. Those that were dropped are missing.
    pub intervals: Vec<Interval>,
}

/// What happened between two scrapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Place of the earlier scrape in the window's schedule.
    pub start_tick: u32,
    /// Place of the later one.
    pub end_tick: u32,
    /// Increase of a counter, or sum of what was observed, in the quantity's unit.
    pub numerator: f64,
    /// Seconds, or how many were observed.
    pub denominator: f64,
}

impl Series {
    /// The value over all intervals; none where nothing was observed.
    pub fn value(&self) -> Option<f64> {
        let total = |part: fn(&Interval) -> f64| self.intervals.iter().map(part).sum::<f64>();
        let denominator = total(|one| one.denominator);
        (denominator > 0.0)
            .then(|| total(|one| one.numerator) / denominator)
            .filter(|value| value.is_finite())
    }
}

/// Share of requests that failed, over all that ended or were rejected.
pub(super) const FAILURES: &str = "request_failure_ratio";

/// Share of looked-up prefix tokens that were found.
const HITS: &str = "prefix_cache_hit_ratio";

/// Rates, means and ratios interval by interval. TGI's time to first token has none: its mean is put together
/// from means of different requests.
pub(super) fn series_of(view: &View) -> Vec<Series> {
    let rates = [
        Q::PromptTokens,
        Q::PrefillTokens,
        Q::GenerationTokens,
        Q::RequestsFinished,
    ];
    let means = [
        Q::TimeToFirstToken,
        Q::InterTokenLatency,
        Q::TimePerOutputToken,
        Q::EndToEndLatency,
        Q::QueueTime,
        Q::PrefillTime,
        Q::DecodeTime,
        Q::StepTokens,
    ];
    let rates = rates.into_iter().map(|quantity| {
        let intervals = view.counters.get(&quantity).map(|one| &one.intervals);
        (
            format!("{}_per_second", quantity.name()),
            intervals.cloned().unwrap_or_default(),
        )
    });
    let means = means.into_iter().map(|quantity| {
        let intervals = match view.distributions.get(&quantity) {
            Some(increase) => increase.intervals.clone(),
            None if quantity == Q::TimePerOutputToken => output_token_times(view),
            None => Vec::new(),
        };
        (quantity.name().to_owned(), intervals)
    });
    rates
        .chain(means)
        .chain([
            (FAILURES.to_owned(), failures(view)),
            (HITS.to_owned(), hits(view)),
        ])
        .filter(|(_, intervals)| !intervals.is_empty())
        .map(|(name, intervals)| Series { name, intervals })
        .collect()
}

/// Decode time over the tokens after the first, as the window's mean is derived (vLLM before 0.11).
fn output_token_times(view: &View) -> Vec<Interval> {
    let of = |quantity| {
        let increase: Option<&DistributionIncrease> = view.distributions.get(&quantity);
        increase.map_or(&[][..], |increase| &increase.intervals)
    };
    joined(
        of(Q::DecodeTime),
        of(Q::GenerationLength),
        |times, lengths| (times.numerator, lengths.numerator - lengths.denominator),
    )
}

fn failures(view: &View) -> Vec<Interval> {
    let of = |quantity| {
        let counter: Option<&Counter> = view.counters.get(&quantity);
        counter
            .filter(|counter| counter.increase.is_some())
            .map(|counter| counter.intervals.as_slice())
    };
    let (errored, rejected) = (of(Q::RequestsErrored), of(Q::RequestsRejected));
    let Some(finished) = of(Q::RequestsFinished) else {
        return Vec::new();
    };
    let increase = |one: &Interval, other: &Interval| one.numerator + other.numerator;
    match (errored, rejected) {
        (None, None) => Vec::new(),
        (Some(errored), None) => joined(errored, finished, |failed, ended| {
            (failed.numerator, ended.numerator)
        }),
        (None, Some(rejected)) => joined(rejected, finished, |failed, ended| {
            (failed.numerator, increase(ended, failed))
        }),
        (Some(errored), Some(rejected)) => {
            let failed = joined(errored, rejected, |one, other| {
                (increase(one, other), other.numerator)
            });
            joined(&failed, finished, |failed, ended| {
                (failed.numerator, ended.numerator + failed.denominator)
            })
        }
    }
}

fn hits(view: &View) -> Vec<Interval> {
    let of = |quantity| {
        let counter: Option<&Counter> = view.counters.get(&quantity);
        counter.map_or(&[][..], |counter| &counter.intervals)
    };
    joined(
        of(Q::PrefixCacheHits),
        of(Q::PrefixCacheQueries),
        |hits, queries| (hits.numerator, queries.numerator),
    )
}

/// Numerator and denominator of the intervals that both have.
fn joined(
    one: &[Interval],
    other: &[Interval],
    value: impl Fn(&Interval, &Interval) -> (f64, f64),
) -> Vec<Interval> {
    let others: BTreeMap<(u32, u32), &Interval> = other.iter().map(|one| (key(one), one)).collect();
    one.iter()
        .filter_map(|one| {
            let (numerator, denominator) = value(one, others.get(&key(one))?);
            Some(Interval {
                numerator,
                denominator,
                ..*one
            })
        })
        .collect()
}

/// In order of time.
fn key(interval: &Interval) -> (u32, u32) {
    (interval.end_tick, interval.start_tick)
}

/// Rates of several replicas: they add up, over the intervals that every replica has. One that is missing would look
/// like a dip.
pub(super) fn merge_rates(replicas: &[&[Interval]]) -> Vec<Interval> {
    let count = replicas.len() as f64;
    let mut merged: BTreeMap<(u32, u32), (usize, Interval)> = BTreeMap::new();
    for interval in replicas.iter().copied().flatten() {
        let none = Interval {
            numerator: 0.0,
            denominator: 0.0,
            ..*interval
        };
        let (told, sum) = merged.entry(key(interval)).or_insert((0, none));
        *told += 1;
        sum.numerator += interval.numerator / interval.denominator;
        sum.denominator += interval.denominator / count;
    }
    merged
        .into_values()
        .filter(|(told, _)| *told == replicas.len())
        .map(|(_, rate)| Interval {
            numerator: rate.numerator * rate.denominator,
            ..rate
        })
        .collect()
}

/// Observations of several replicas: sums and counts add up, over the replicas that have the interval.
pub(super) fn merge_observations(replicas: &[&[Interval]]) -> Vec<Interval> {
    let mut merged: BTreeMap<(u32, u32), Interval> = BTreeMap::new();
    for interval in replicas.iter().copied().flatten() {
        let none = Interval {
            numerator: 0.0,
            denominator: 0.0,
            ..*interval
        };
        let sum = merged.entry(key(interval)).or_insert(none);
        sum.numerator += interval.numerator;
        sum.denominator += interval.denominator;
    }
    merged.into_values().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn interval(end_tick: u32, numerator: f64, denominator: f64) -> Interval {
        Interval {
            start_tick: end_tick - 1,
            end_tick,
            numerator,
            denominator,
        }
    }

    #[test]
    fn a_replica_that_misses_an_interval_is_no_dip() {
        let whole = [interval(1, 10.0, 1.0), interval(2, 20.0, 2.0)];
        let late = [interval(2, 60.0, 2.0)];
        let rates = merge_rates(&[&whole, &late]);
        assert_eq!(rates, [interval(2, 80.0, 2.0)]);
        let observed = merge_observations(&[&whole, &late]);
        assert_eq!(observed, [interval(1, 10.0, 1.0), interval(2, 80.0, 4.0)]);
    }

    #[test]
    fn rates_add_up_though_no_two_replicas_are_scraped_at_once() {
        let rates = merge_rates(&[&[interval(1, 100.0, 1.0)], &[interval(1, 150.0, 1.5)]]);
        let series = Series {
            name: String::new(),
            intervals: rates,
        };
        assert!((series.value().unwrap() - 200.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_never_observed_has_no_value() {
        let silent = Series {
            name: String::new(),
            intervals: vec![interval(1, 0.0, 0.0)],
        };
        assert_eq!(silent.value(), None);
    }
}
