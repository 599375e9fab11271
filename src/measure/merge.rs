//! Views of several replicas → one of the instance.
//!
//! Counts, rates and instants add up; ratios are weighted by KV capacity. What one replica cannot tell, the
//! instance cannot either: a sum over the others would be no sum.

use std::collections::BTreeMap;

use crate::engine::{Merge, Quantity};

use super::histogram::Bounded;
use super::intervals::{Interval, merge_observations, merge_rates};
use super::view::{Absence, Basis, Counter, DistributionIncrease, GaugeTrack, Rise, View};

impl View {
    /// The instance, from the views of the replicas that could be measured.
    pub fn merged(views: &[&View]) -> View {
        if let [only] = views {
            return (*only).clone();
        }
        let mut merged = View {
            observed_seconds: views
                .iter()
                .map(|view| view.observed_seconds)
                .fold(0.0, f64::max),
            ..View::default()
        };
        for quantity in Quantity::ALL.iter().copied() {
            merged.add_quantity(views, quantity);
        }
        // of the replica that has stood still longest; where one does not tell it, it may be longer
        let standstill = all(views, |view| view.standstill_seconds.as_ref());
        merged.standstill_seconds = standstill.into_iter().copied().reduce(f64::max);
        let disconnected = all(views, |view| view.disconnected.as_ref());
        merged.disconnected =
            disconnected
                .into_iter()
                .copied()
                .reduce(|all, one| match (all, one) {
                    (Bounded::Value(all), Bounded::Value(one)) => Bounded::Value(all + one),
                    (all, one) => Bounded::AtMost(all.number() + one.number()),
                });
        merged
    }

    fn add_quantity(&mut self, views: &[&View], quantity: Quantity) {
        let known = |view: &&&View| {
            view.counters.contains_key(&quantity)
                || view.gauges.contains_key(&quantity)
                || view.distributions.contains_key(&quantity)
        };
        let told = views.iter().filter(known).count();
        let absence = views
            .iter()
            .flat_map(|view| &view.absent)
            .find(|absence| absence.quantity == quantity);
        if told < views.len() {
            if told > 0 {
                self.absent.push(Absence {
                    quantity,
                    reason: format!(
                        "only {told} of {} replicas tell it: see each of them",
                        views.len()
                    )
                    .into(),
                    hint: absence.and_then(|absence| absence.hint.clone()),
                });
            } else {
                self.absent.extend(absence.cloned());
            }
            return;
        }
        if let Some(counter) = merge_counters(&all(views, |view| view.counters.get(&quantity))) {
            // a replica that has no rate leaves the instance without one, for the same reason
            if counter.increase.is_none() {
                self.absent.extend(absence.cloned());
            }
            self.counters.insert(quantity, counter);
        }
        let gauges = all(views, |view| view.gauges.get(&quantity));
        if let Some(gauge) = merge_gauges(&gauges, &weights(views, quantity)) {
            self.gauges.insert(quantity, gauge);
        }
        let distributions = all(views, |view| view.distributions.get(&quantity));
        if let Some(distribution) = merge_distributions(&distributions) {
            self.distributions.insert(quantity, distribution);
        }
    }
}

/// The value of every view; nothing unless each has one.
fn all<'v, T>(views: &[&'v View], get: impl Fn(&'v View) -> Option<&'v T>) -> Vec<&'v T> {
    let found: Vec<&T> = views.iter().filter_map(|view| get(view)).collect();
    if found.len() == views.len() {
        found
    } else {
        Vec::new()
    }
}

/// What each replica's value counts for.
fn weights(views: &[&View], quantity: Quantity) -> Vec<f64> {
    if quantity.merge() == Merge::Sum {
        return vec![1.0; views.len()];
    }
    let capacities = all(views, |view| view.gauges.get(&Quantity::KvCapacityTokens));
    let last: Vec<f64> = capacities
        .iter()
        .filter_map(|track| track.values.last().map(|(_, value)| *value))
        .filter(|capacity| *capacity > 0.0)
        .collect();
    let weights = if last.len() == views.len() {
        last
    } else {
        vec![1.0; views.len()]
    };
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// The least trustworthy of all; zeros that are only implied do not make a sum less exact.
pub(super) fn merge_basis(bases: impl Iterator<Item = Basis> + Clone) -> Basis {
    let order = [Basis::Approximate, Basis::Interpolated, Basis::Exact];
    order
        .into_iter()
        .find(|basis| bases.clone().any(|one| one == *basis))
        .unwrap_or(Basis::ImpliedZero)
}

fn merge_counters(counters: &[&Counter]) -> Option<Counter> {
    let first = counters.first()?;
    let rises: Vec<Rise> = counters
        .iter()
        .filter_map(|counter| counter.increase)
        .collect();
    // what was counted adds up, and so do the rates, though no two replicas have quite the same window
    let increase = (rises.len() == counters.len()).then(|| Rise {
        amount: rises.iter().map(|rise| rise.amount).sum(),
        per_second: rises.iter().map(|rise| rise.per_second).sum(),
    });
    Some(Counter {
        total: counters.iter().map(|counter| counter.total).sum(),
        intervals: match increase {
            Some(_) => merge_rates(&intervals_of(counters, |one| &one.intervals)),
            None => Vec::new(),
        },
        increase,
        basis: merge_basis(counters.iter().map(|counter| counter.basis)),
        source: first.source.clone(),
    })
}

fn intervals_of<'v, T>(
    replicas: &[&'v T],
    get: impl Fn(&'v T) -> &'v Vec<Interval>,
) -> Vec<&'v [Interval]> {
    replicas.iter().map(|one| get(one).as_slice()).collect()
}

/// Instant by instant, at those ticks at which every replica has a value.
fn merge_gauges(tracks: &[&GaugeTrack], weights: &[f64]) -> Option<GaugeTrack> {
    let first = tracks.first()?;
    let mut by_tick: BTreeMap<u32, (usize, f64)> = BTreeMap::new();
    for (track, weight) in tracks.iter().zip(weights) {
        for (tick, value) in &track.values {
            let (count, sum) = by_tick.entry(*tick).or_default();
            *count += 1;
            *sum += weight * value;
        }
    }
    let values: Vec<_> = by_tick
        .into_iter()
        .filter(|(_, (count, _))| *count == tracks.len())
        .map(|(tick, (_, sum))| (tick, sum))
        .collect();
    (!values.is_empty()).then(|| GaugeTrack {
        values,
        basis: merge_basis(tracks.iter().map(|track| track.basis)),
        source: first.source.clone(),
    })
}

fn merge_distributions(distributions: &[&DistributionIncrease]) -> Option<DistributionIncrease> {
    let (first, rest) = distributions.split_first()?;
    let mut merged = (*first).clone();
    merged.basis = merge_basis(distributions.iter().map(|one| one.basis));
    for one in rest {
        merged.count += one.count;
        merged.sum = merged.sum.zip(one.sum).map(|(a, b)| a + b);
        // nothing observed: nothing to compare bounds with
        if one.count == 0.0 && one.buckets.is_none() {
            continue;
        }
        merged.buckets = match (merged.buckets.take(), &one.buckets) {
            (Some(mut all), Some(buckets)) => all.add(buckets).then_some(all),
            (None, Some(buckets)) if merged.count == one.count => Some(buckets.clone()),
            _ => None,
        };
    }
    merged.intervals = match merged.sum {
        Some(_) => merge_observations(&intervals_of(distributions, |one| &one.intervals)),
        None => Vec::new(),
    };
    Some(merged)
}
