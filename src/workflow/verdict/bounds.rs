//! From where on a latency is beyond what users accept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quantity::JudgedQuantity as J;
use crate::analysis::{Aggregation, Side, Slo};
use crate::engine::{EngineProfile, Quantity as Q};
use crate::measure::{Buckets, Knowledge, ReplicaSamples, View};

/// Latencies above these are beyond, in seconds. Each is a bound of the engine's buckets, so that what is beyond is
/// counted and not interpolated; none where the engine has no buckets, or nothing was observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Bounds {
    /// Of the time to first token.
    pub time_to_first_token_seconds: Option<f64>,
    /// Of the gap between tokens.
    pub inter_token_latency_seconds: Option<f64>,
    /// Of the end-to-end latency.
    pub end_to_end_latency_seconds: Option<f64>,
    /// Of the canary, where another one was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_time_to_first_token_seconds: Option<f64>,
    /// The same of the gap between tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_inter_token_latency_seconds: Option<f64>,
    /// The same of the end-to-end latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_end_to_end_latency_seconds: Option<f64>,
}

/// Share of all that lies beyond the bound of a tail, where nobody promised one: as much as is rare for users, and not so
/// rare that a canary of an hour would see a handful.
const TAIL_SHARE: f64 = 0.05;

/// A bound that fewer than this or more than the other lie beyond tells little of a tail.
const TELLING_SHARES: [f64; 2] = [0.005, 0.25];

/// A promise that is broken by more than this is none of a tail.
const MOST_BROKEN_SHARE: f64 = 0.5;

impl Bounds {
    /// Chosen from what the control did before anybody looked at the canary.
    ///
    /// Where an SLO promises a quantile, and some but not most of what the control does is beyond it, it is the bucket bound
    /// at the SLO or next below. Else it is the bucket bound with the share beyond nearest to 5 %, so that a worse tail is
    /// seen before it breaks a promise, or where none was made. Where a worse tail is accepted, the bound of the
    /// canary is as much larger, rounded up to a bucket bound.
    pub fn of(
        slos: &[Slo],
        control: &[&ReplicaSamples],
        profile: &EngineProfile,
        accepted_ratio: &BTreeMap<J, f64>,
    ) -> Self {
        let views: Vec<View> = control
            .iter()
            .map(|replica| {
                let knowledge = Knowledge {
                    version: replica.probed.version,
                    proven: replica.probed.proves_engine,
                };
                View::over(profile, &replica.samples, knowledge)
            })
            .collect();
        let gaps = match views.iter().all(tells_gaps) {
            true => Q::InterTokenLatency,
            false => Q::TimePerOutputToken,
        };
        let chosen = |quantity: Q, tail: J| {
            let buckets = merged(&views, quantity)?;
            let bound = bound_of(&buckets, promised(slos, quantity))?;
            let accepted = accepted_ratio.get(&tail).copied().filter(|one| *one > 1.0);
            let moved = accepted.map(|ratio| at_or_above(&buckets, bound * ratio).unwrap_or(bound));
            Some((bound, moved))
        };
        let first = chosen(Q::TimeToFirstToken, J::TimeToFirstTokenBeyond);
        let gap = chosen(gaps, J::InterTokenLatencyBeyond);
        let whole = chosen(Q::EndToEndLatency, J::EndToEndLatencyBeyond);
        let bound = |of: Option<(f64, Option<f64>)>| of.map(|(bound, _)| bound);
        let moved = |of: Option<(f64, Option<f64>)>| of.and_then(|(_, moved)| moved);
        Self {
            time_to_first_token_seconds: bound(first),
            inter_token_latency_seconds: bound(gap),
            end_to_end_latency_seconds: bound(whole),
            canary_time_to_first_token_seconds: moved(first),
            canary_inter_token_latency_seconds: moved(gap),
            canary_end_to_end_latency_seconds: moved(whole),
        }
    }

    /// Those of the canary, as if they were everybody's.
    pub(super) fn of_canary(self) -> Self {
        let own = |moved: Option<f64>, bound: Option<f64>| moved.or(bound);
        Self {
            time_to_first_token_seconds: own(
                self.canary_time_to_first_token_seconds,
                self.time_to_first_token_seconds,
            ),
            inter_token_latency_seconds: own(
                self.canary_inter_token_latency_seconds,
                self.inter_token_latency_seconds,
            ),
            end_to_end_latency_seconds: own(
                self.canary_end_to_end_latency_seconds,
                self.end_to_end_latency_seconds,
            ),
            ..Self::default()
        }
    }
}

/// Whether gaps between tokens are told.
pub(super) fn tells_gaps(view: &View) -> bool {
    view.distributions.contains_key(&Q::InterTokenLatency)
}

/// Buckets of all replicas; none where one has none or others.
fn merged(views: &[View], quantity: Q) -> Option<Buckets> {
    let mut all: Option<Buckets> = None;
    for view in views {
        let own = view.distributions.get(&quantity)?.buckets.as_ref()?;
        match &mut all {
            None => all = Some(own.clone()),
            Some(all) => {
                let same = all.bounds == own.bounds && all.counts.len() == own.counts.len();
                if !same {
                    return None;
                }
                for (sum, more) in all.counts.iter_mut().zip(&own.counts) {
                    *sum += more;
                }
            }
        }
    }
    all.filter(|buckets| buckets.count() > 0.0)
}

/// The strictest quantile that is promised of a latency.
fn promised(slos: &[Slo], quantity: Q) -> Option<f64> {
    let own = slos.iter().filter(|slo| {
        let of_tail = matches!(slo.aggregation, Aggregation::Quantile(q) if q >= 0.9);
        slo.quantity == quantity.name() && slo.comparison == Side::AtMost && of_tail
    });
    own.map(|slo| slo.target).reduce(f64::min)
}

/// The bound for these buckets.
fn bound_of(buckets: &Buckets, promised: Option<f64>) -> Option<f64> {
    let all = buckets.count();
    let mut below = 0.0;
    let shares: Vec<(f64, f64)> = buckets
        .bounds
        .iter()
        .zip(&buckets.counts)
        .map(|(bound, count)| {
            below += count;
            (*bound, (all - below).max(0.0) / all)
        })
        .filter(|(bound, _)| bound.is_finite())
        .collect();
    let of_promise = promised.and_then(|target| {
        let (bound, share) = shares.iter().rev().find(|(bound, _)| *bound <= target)?;
        (TELLING_SHARES[0]..=MOST_BROKEN_SHARE)
            .contains(share)
            .then_some(*bound)
    });
    let telling = || {
        let [least, most] = TELLING_SHARES;
        let far = |share: f64| (share / TAIL_SHARE).ln().abs();
        let of_tail = shares
            .iter()
            .filter(|(_, share)| (least..=most).contains(share));
        of_tail
            .min_by(|(_, one), (_, other)| far(*one).total_cmp(&far(*other)))
            .map(|(bound, _)| *bound)
    };
    let first_rare = || {
        let mut rare = shares.iter().filter(|(_, share)| *share <= TAIL_SHARE);
        rare.next().map(|(bound, _)| *bound)
    };
    of_promise.or_else(telling).or_else(first_rare)
}

/// The smallest finite bucket bound that is not below.
fn at_or_above(buckets: &Buckets, seconds: f64) -> Option<f64> {
    let mut finite = buckets.bounds.iter().filter(|bound| bound.is_finite());
    finite.find(|bound| **bound >= seconds).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[f64]) -> Buckets {
        Buckets {
            bounds: vec![0.1, 0.25, 0.5, 1.0, f64::INFINITY],
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn the_bound_is_one_of_the_buckets_and_tells_of_the_tail() {
        let usual = buckets(&[50.0, 30.0, 14.0, 5.0, 1.0]);
        // beyond 0.25 lie 20 %, beyond 0.5 6 %, beyond 1 1 %
        assert_eq!(bound_of(&usual, None), Some(0.5));
        assert_eq!(bound_of(&usual, Some(0.3)), Some(0.25), "next below");
        assert_eq!(bound_of(&usual, Some(1.0)), Some(1.0));
        // nobody comes near the promise: a worse tail is seen before
        assert_eq!(bound_of(&usual, Some(5.0)), Some(1.0));
        let fast = buckets(&[100.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(bound_of(&fast, Some(1.0)), Some(0.1));
        let broken = buckets(&[0.0, 10.0, 30.0, 55.0, 5.0]);
        assert_eq!(bound_of(&broken, Some(0.25)), Some(1.0));
        assert_eq!(at_or_above(&usual, 0.26), Some(0.5));
        assert_eq!(at_or_above(&usual, 2.0), None);
    }
}
