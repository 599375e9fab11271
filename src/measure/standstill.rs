//! How long an engine has held requests and moved nothing.

use crate::engine::Quantity as Q;

use super::intervals::Interval;
use super::view::View;

/// Whatever an engine does shows in one of these.
const COUNTERS: [Q; 3] = [Q::GenerationTokens, Q::PrefillTokens, Q::PromptTokens];
const DISTRIBUTIONS: [Q; 3] = [Q::StepTokens, Q::PrefillStepTime, Q::DecodeStepTime];
/// vLLM counts no step that gives no token, and a long prompt is many of those: but what it has read fills the cache.
const GAUGES: [Q; 2] = [Q::KvCacheUsage, Q::KvReservedTokens];

/// Seconds at the end of the window in which requests were held at both ends of each interval, no token and no step was
/// counted, and the KV cache stayed as it was. None where the engine shows neither, or there is no interval.
pub(super) fn standstill_seconds(view: &View) -> Option<f64> {
    let held = [Q::RequestsRunning, Q::RequestsWaiting].map(|quantity| view.gauges.get(&quantity));
    let held_at = |tick: u32| {
        held.iter().flatten().any(|track| {
            let at = track.values.binary_search_by_key(&tick, |(at, _)| *at);
            at.is_ok_and(|at| track.values.get(at).is_some_and(|(_, value)| *value > 0.0))
        })
    };
    held.iter().flatten().next()?;
    let counted: Vec<&[Interval]> = COUNTERS
        .iter()
        .filter_map(|quantity| Some(view.counters.get(quantity)?.intervals.as_slice()))
        .filter(|intervals| !intervals.is_empty())
        .collect();
    let observed = DISTRIBUTIONS
        .iter()
        .filter_map(|quantity| Some(view.distributions.get(quantity)?.intervals.as_slice()));
    let observed: Vec<&[Interval]> = observed.collect();
    // counters tell how long an interval is
    let clock = counted.first()?;
    let rose = |all: &[&[Interval]], of: &Interval, part: fn(&Interval) -> f64| {
        all.iter().any(|intervals| {
            let place = |one: &Interval| (one.end_tick, one.start_tick);
            let at = intervals.binary_search_by_key(&place(of), place);
            at.is_ok_and(|at| intervals.get(at).is_some_and(|one| part(one) > 0.0))
        })
    };
    let fills = |of: &Interval| {
        GAUGES.iter().any(|quantity| {
            let at = |tick| {
                let values = &view.gauges.get(quantity)?.values;
                let at = values.binary_search_by_key(&tick, |(at, _)| *at).ok()?;
                values.get(at).map(|(_, value)| *value)
            };
            at(of.start_tick) != at(of.end_tick)
        })
    };
    let mut seconds = 0.0;
    let mut next = None;
    for interval in clock.iter().rev() {
        let joins = next.is_none_or(|start| start == interval.end_tick);
        let held = held_at(interval.start_tick) && held_at(interval.end_tick);
        let moved = rose(&counted, interval, |one| one.numerator)
            || rose(&observed, interval, |one| one.denominator)
            || fills(interval);
        if !joins || !held || moved {
            break;
        }
        seconds += interval.denominator;
        next = Some(interval.start_tick);
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::view::{Basis, Counter, DistributionIncrease, GaugeTrack, Rise};

    fn intervals(increases: &[f64], per_interval: f64) -> Vec<Interval> {
        (0..)
            .zip(increases)
            .map(|(tick, numerator)| Interval {
                start_tick: tick,
                end_tick: tick + 1,
                numerator: *numerator,
                denominator: per_interval,
            })
            .collect()
    }

    /// Tokens of each 5 seconds, and requests held at each scrape.
    fn view(tokens: &[f64], held: &[f64]) -> View {
        let mut view = View::default();
        let counter = Counter {
            total: 0.0,
            increase: Some(Rise {
                amount: 0.0,
                per_second: 0.0,
            }),
            intervals: intervals(tokens, 5.0),
            basis: Basis::Exact,
            source: "".into(),
        };
        view.counters.insert(Q::GenerationTokens, counter);
        let track = GaugeTrack {
            values: (0..).zip(held.iter().copied()).collect(),
            basis: Basis::Exact,
            source: "".into(),
        };
        view.gauges.insert(Q::RequestsRunning, track);
        view
    }

    #[test]
    fn only_the_end_counts_and_only_while_requests_are_held() {
        let told = |tokens: &[f64], held: &[f64]| standstill_seconds(&view(tokens, held));
        assert_eq!(told(&[9.0, 0.0, 0.0], &[3.0; 4]), Some(10.0));
        assert_eq!(told(&[0.0, 0.0, 9.0], &[3.0; 4]), Some(0.0));
        assert_eq!(told(&[9.0, 0.0, 0.0], &[3.0, 0.0, 3.0, 3.0]), Some(5.0));
        // idle
        assert_eq!(told(&[9.0, 0.0, 0.0], &[3.0, 0.0, 0.0, 0.0]), Some(0.0));
        assert_eq!(standstill_seconds(&View::default()), None);
    }

    #[test]
    fn a_prefill_that_steps_moves() {
        let mut view = view(&[0.0, 0.0, 0.0], &[1.0; 4]);
        view.distributions.insert(
            Q::StepTokens,
            DistributionIncrease {
                count: 3.0,
                sum: Some(6_144.0),
                buckets: None,
                intervals: intervals(&[2_048.0; 3], 1.0),
                basis: Basis::Exact,
                source: "".into(),
            },
        );
        assert_eq!(standstill_seconds(&view), Some(0.0));
    }

    #[test]
    fn a_cache_that_fills_moves() {
        let mut view = view(&[0.0, 0.0, 0.0], &[1.0; 4]);
        let usage = |last| GaugeTrack {
            values: vec![(0, 0.1), (1, 0.2), (2, 0.3), (3, last)],
            basis: Basis::Exact,
            source: "".into(),
        };
        view.gauges.insert(Q::KvCacheUsage, usage(0.4));
        assert_eq!(standstill_seconds(&view), Some(0.0));
        view.gauges.insert(Q::KvCacheUsage, usage(0.3));
        assert_eq!(standstill_seconds(&view), Some(5.0));
    }
}
