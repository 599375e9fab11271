//! Samples of the replicas of one side → what the side did, interval by interval.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bounds::Bounds;
use super::observation::Side;
use super::quantity::JudgedQuantity as J;
use crate::engine::{EngineProfile, Quantity as Q};
use crate::measure::{Buckets, DropCause, Knowledge, ReplicaSamples, Sample, View};

/// Between two scrapes that every replica of a side has.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    pub(super) start_tick: u32,
    pub(super) end_tick: u32,
    pub(super) start_unix_seconds: f64,
    pub(super) end_unix_seconds: f64,
    /// Of all replicas together; none where it does not count.
    pub(super) counted: Option<Counted>,
    /// Why it does not count.
    pub(super) dropped: Option<String>,
}

/// What a side did in an interval.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    pub(super) sides: BTreeMap<J, Side>,
    pub(super) replica_seconds: f64,
    /// Requests that got their first token, or ended.
    pub(super) requests: f64,
    /// Sum and count of prompts, in tokens.
    pub(super) prompts: Option<Side>,
    /// Sum and count of outputs, in tokens.
    pub(super) outputs: Option<Side>,
    /// Requests were waiting at both scrapes of every replica.
    pub(super) saturated: bool,
}

/// What is counted, and from where on a latency is beyond.
pub(super) struct Counting<'p> {
    pub(super) profile: &'p EngineProfile,
    /// Of this side.
    pub(super) bounds: Bounds,
    /// Gaps between tokens are told; else the time per output token stands for them.
    pub(super) has_gaps: bool,
}

/// Scrapes of replicas after some time, by tick.
type ByTick<'s> = BTreeMap<u32, &'s Arc<Sample>>;

/// The intervals of replicas, beginning not before then.
pub(super) fn intervals_of(
    replicas: &[&ReplicaSamples],
    after_unix_seconds: f64,
    counting: &Counting<'_>,
) -> Vec<Interval> {
    let later = |sample: &&Arc<Sample>| sample.at_unix_seconds >= after_unix_seconds;
    let scrapes: Vec<ByTick<'_>> = replicas
        .iter()
        .map(|replica| {
            let later = replica.samples.iter().filter(later);
            later.map(|sample| (sample.tick, sample)).collect()
        })
        .collect();
    let Some((first, others)) = scrapes.split_first() else {
        return Vec::new();
    };
    let common = first.keys().copied().filter(|tick| {
        let has = |of: &ByTick<'_>| of.contains_key(tick);
        others.iter().all(has)
    });
    let common: BTreeSet<u32> = common.collect();
    let pairs = common.iter().zip(common.iter().skip(1));
    pairs
        .filter_map(|(start, end)| {
            let mut all: Option<Counted> = None;
            let mut dropped = None;
            for (replica, of) in replicas.iter().zip(&scrapes) {
                let between: Vec<Arc<Sample>> = of
                    .range(*start..=*end)
                    .map(|(_, sample)| (*sample).clone())
                    .collect();
                match counting.count(&between, replica) {
                    Ok(one) => {
                        all = Some(match all {
                            None => one,
                            Some(all) => all.plus(one),
                        })
                    }
                    Err(why) => dropped = Some(why),
                }
            }
            let at = |tick| Some(first.get(tick)?.at_unix_seconds);
            Some(Interval {
                start_tick: *start,
                end_tick: *end,
                start_unix_seconds: at(start)?,
                end_unix_seconds: at(end)?,
                counted: all.filter(|_| dropped.is_none()),
                dropped,
            })
        })
        .collect()
}

impl Counting<'_> {
    /// One replica over its scrapes; the text says why they do not count.
    fn count(&self, samples: &[Arc<Sample>], of: &ReplicaSamples) -> Result<Counted, String> {
        let knowledge = Knowledge {
            version: of.probed.version,
            proven: of.probed.proves_engine,
        };
        let view = View::over(self.profile, samples, knowledge);
        if let Some(dropped) = view.dropped.first() {
            return Err(match &dropped.cause {
                DropCause::Restart { evidence } => {
                    format!("{} restarted ({evidence})", of.metrics_url)
                }
                DropCause::NotAdvanced => {
                    format!("the clock of {} stood still", of.metrics_url)
                }
            });
        }
        let seconds = view.observed_seconds;
        let gaps = match self.has_gaps {
            true => Q::InterTokenLatency,
            false => Q::TimePerOutputToken,
        };
        let bounds = &self.bounds;
        let mut sides = BTreeMap::new();
        for (quantity, mean, beyond, bound) in [
            (
                Q::TimeToFirstToken,
                J::TimeToFirstTokenMean,
                J::TimeToFirstTokenBeyond,
                bounds.time_to_first_token_seconds,
            ),
            (
                gaps,
                J::InterTokenLatencyMean,
                J::InterTokenLatencyBeyond,
                bounds.inter_token_latency_seconds,
            ),
            (
                Q::EndToEndLatency,
                J::EndToEndLatencyMean,
                J::EndToEndLatencyBeyond,
                bounds.end_to_end_latency_seconds,
            ),
        ] {
            let Some(increase) = view.distributions.get(&quantity) else {
                continue;
            };
            let side = |numerator| Side {
                numerator,
                denominator: increase.count,
            };
            sides.extend(increase.sum.map(|sum| (mean, side(sum))));
            let count = |bound| match (&increase.buckets, increase.count > 0.0) {
                (Some(buckets), _) => count_beyond(buckets, bound),
                // of nothing, nothing was beyond
                (None, false) => Some(0.0),
                (None, true) => None,
            };
            let count = bound.and_then(count);
            sides.extend(count.map(|count| (beyond, side(count))));
        }
        sides.extend(failures(&view).map(|side| (J::FailureShare, side)));
        let tokens = rise(&view, Q::GenerationTokens).map(|numerator| Side {
            numerator,
            denominator: seconds,
        });
        sides.extend(tokens.map(|side| (J::GenerationTokensPerSecond, side)));
        let lengths = |quantity| {
            let increase = view.distributions.get(&quantity)?;
            Some(Side {
                numerator: increase.sum?,
                denominator: increase.count,
            })
        };
        let begun = view.distributions.get(&Q::TimeToFirstToken);
        let ended = || rise(&view, Q::RequestsFinished);
        let waiting = view.gauges.get(&Q::RequestsWaiting);
        Ok(Counted {
            sides,
            replica_seconds: seconds,
            requests: begun
                .map(|one| one.count)
                .or_else(ended)
                .unwrap_or_default(),
            prompts: lengths(Q::PromptLength),
            outputs: lengths(Q::GenerationLength),
            saturated: waiting.is_some_and(|track| {
                let mut values = track.values.iter();
                track.values.len() > 1 && values.all(|(_, value)| *value > 0.0)
            }),
        })
    }
}

/// Observations above a bound of the buckets; none where the bound is none of theirs.
fn count_beyond(buckets: &Buckets, bound: f64) -> Option<f64> {
    let at = buckets.bounds.iter().position(|known| *known == bound)?;
    Some(buckets.counts.iter().skip(at + 1).sum())
}

fn rise(view: &View, quantity: Q) -> Option<f64> {
    Some(view.counters.get(&quantity)?.increase?.amount)
}

/// Failed and refused requests, of all that ended; none where neither is told.
fn failures(view: &View) -> Option<Side> {
    let finished = rise(view, Q::RequestsFinished)?;
    let errored = rise(view, Q::RequestsErrored);
    let rejected = rise(view, Q::RequestsRejected);
    let failed = match (errored, rejected) {
        (None, None) => return None,
        (errored, rejected) => errored.unwrap_or(0.0) + rejected.unwrap_or(0.0),
    };
    Some(Side {
        numerator: failed,
        denominator: finished + rejected.unwrap_or(0.0),
    })
}

impl Counted {
    /// Of several replicas or intervals; what one does not tell nobody knows of all.
    pub(super) fn plus(mut self, other: Self) -> Self {
        let both = |one: Option<Side>, other: Option<Side>| Some(one?.plus(other?));
        self.sides = self
            .sides
            .into_iter()
            .filter_map(|(quantity, side)| {
                Some((quantity, side.plus(*other.sides.get(&quantity)?)))
            })
            .collect();
        self.replica_seconds += other.replica_seconds;
        self.requests += other.requests;
        self.prompts = both(self.prompts, other.prompts);
        self.outputs = both(self.outputs, other.outputs);
        self.saturated &= other.saturated;
        self
    }
}
