//! Samples of one replica → what happened in between.

use std::borrow::Borrow;

use crate::engine::{Alias, EngineProfile, Quantity, QuantityKind, Version};

use super::doubts::disconnected;
use super::histogram::Buckets;
use super::intervals::Interval;
use super::sample::Sample;
use super::standstill::standstill_seconds;
use super::view::{
    Absence, Basis, Counter, DistributionIncrease, DropCause, DroppedInterval, GaugeTrack,
    Knowledge, Rise, View,
};

impl View {
    /// What happened over `samples`, which are in order of time. With a single sample there are totals and instants
    /// only, and distributions since the engine's start.
    pub fn over<S: Borrow<Sample>>(
        profile: &EngineProfile,
        samples: &[S],
        knowledge: Knowledge,
    ) -> Self {
        let samples: Vec<&Sample> = samples.iter().map(Borrow::borrow).collect();
        let window = WindowOf::new(profile, &samples, knowledge);
        let mut view = Self {
            // a sum of nothing is -0
            observed_seconds: window
                .kept
                .iter()
                .map(|interval| interval.seconds)
                .sum::<f64>()
                + 0.0,
            dropped: window.dropped.clone(),
            ..Self::default()
        };
        for quantity in profile.quantities() {
            let Some(chosen) = window.choose(quantity) else {
                view.absent.push(window.absence(quantity));
                continue;
            };
            match quantity.kind() {
                QuantityKind::Counter => {
                    let counter = window.counter(&chosen);
                    let told = counter
                        .as_ref()
                        .is_some_and(|counter| counter.increase.is_some());
                    if samples.len() > 1 && !told {
                        let nothing_counts = window.kept.is_empty() || chosen.alias.is_monotonic();
                        view.absent.push(if nothing_counts {
                            no_interval(quantity)
                        } else {
                            late_subtraction(quantity)
                        });
                    }
                    view.counters
                        .extend(counter.map(|counter| (quantity, counter)));
                }
                QuantityKind::Gauge => {
                    view.gauges.insert(quantity, window.gauge(&chosen));
                }
                QuantityKind::Distribution => match window.distribution(&chosen) {
                    Some(increase) => drop(view.distributions.insert(quantity, increase)),
                    None => view.absent.push(no_interval(quantity)),
                },
            }
        }
        if profile.disconnects_leave_no_finish && samples.len() > 1 && view.dropped.is_empty() {
            view.disconnected = disconnected(&view);
        }
        if profile.recounts_after_preemption && window.may_be_v0() {
            view.doubt_recounted();
        }
        view.standstill_seconds = standstill_seconds(&view);
        view
    }
}

/// Whether the engine started anew between two samples of a replica.
pub fn has_restarted(profile: &EngineProfile, before: &Sample, after: &Sample) -> bool {
    let samples = [before, after];
    let window = WindowOf::new(profile, &samples, Knowledge::default());
    window.restart(before, after).is_some()
}

fn no_interval(quantity: Quantity) -> Absence {
    Absence {
        quantity,
        reason: "no interval of this window counts".into(),
        hint: Some("measure again; a restart or a failed scrape fell into this window".into()),
    }
}

fn late_subtraction(quantity: Quantity) -> Absence {
    Absence {
        quantity,
        reason: "what is subtracted was counted later than what it is subtracted from".into(),
        hint: Some("measure over a longer window".into()),
    }
}

/// An interval that counts: positions of its two samples.
struct Kept {
    before: usize,
    after: usize,
    seconds: f64,
}

/// The alias by which a quantity is read throughout the window.
struct Chosen<'p> {
    at: usize,
    alias: &'p Alias,
    /// Where it is missing it is zero.
    zero_if_missing: bool,
    /// It is in no sample at all.
    implied: bool,
}

impl Chosen<'_> {
    fn basis(&self) -> Basis {
        match (self.implied, self.alias.approximate) {
            (true, _) => Basis::ImpliedZero,
            (false, true) => Basis::Approximate,
            (false, false) => Basis::Exact,
        }
    }
}

struct WindowOf<'p, 's> {
    profile: &'p EngineProfile,
    samples: &'s [&'s Sample],
    knowledge: Knowledge,
    /// The engine is at least this version.
    floor: Option<Version>,
    kept: Vec<Kept>,
    dropped: Vec<DroppedInterval>,
}

impl<'p, 's> WindowOf<'p, 's> {
    fn new(profile: &'p EngineProfile, samples: &'s [&'s Sample], knowledge: Knowledge) -> Self {
        let seen_floor = samples
            .iter()
            .filter_map(|sample| sample.version_floor)
            .max();
        let mut window = Self {
            profile,
            samples,
            knowledge,
            // a build from source may call itself 0.1.dev1
            floor: knowledge.version.max(seen_floor),
            kept: Vec::new(),
            dropped: Vec::new(),
        };
        for (before, pair) in samples.windows(2).enumerate() {
            let [earlier, later] = pair else { continue };
            let seconds = later.at_unix_seconds - earlier.at_unix_seconds;
            let cause = match window.restart(earlier, later) {
                Some(evidence) => DropCause::Restart { evidence },
                None if seconds <= 0.0 => DropCause::NotAdvanced,
                None => {
                    window.kept.push(Kept {
                        before,
                        after: before + 1,
                        seconds,
                    });
                    continue;
                }
            };
            window.dropped.push(DroppedInterval {
                start_unix_seconds: earlier.at_unix_seconds,
                end_unix_seconds: later.at_unix_seconds,
                cause,
            });
        }
        window
    }

    /// Only V1 tells when its series were created, and V0 was gone with 0.11.
    fn may_be_v0(&self) -> bool {
        let old = self
            .floor
            .is_none_or(|version| version < Version::new(0, 11, 0));
        let created = |sample: &&Sample| sample.incarnation.created_unix_seconds.is_some();
        old && !self.samples.iter().any(created)
    }

    /// What shows that the engine started anew between two samples.
    fn restart(&self, before: &Sample, after: &Sample) -> Option<String> {
        if let Some(evidence) = before.incarnation.differs(&after.incarnation) {
            return Some(evidence.to_owned());
        }
        let fell = |at: usize, alias: &Alias| {
            let earlier = before.scalar(at)?;
            let later = match after.scalar(at) {
                Some(later) => later,
                // a counter that began anew and has not been used yet
                None if self.implies_zero(at, alias) => 0.0,
                None => return None,
            };
            let falls = later < earlier - 1e-9 * earlier.abs();
            falls.then(|| format!("{} fell from {earlier} to {later}", alias.describe()))
        };
        let count_fell = |at: usize, alias: &Alias| {
            let earlier = before.distribution(at)?.count;
            let later = match after.distribution(at) {
                Some(reading) => reading.count,
                None if self.implies_zero(at, alias) => 0.0,
                None => return None,
            };
            (later < earlier)
                .then(|| format!("{}_count fell from {earlier} to {later}", alias.describe()))
        };
        self.profile
            .aliases
            .iter()
            .enumerate()
            .find_map(|(at, alias)| match alias.quantity.kind() {
                QuantityKind::Counter if alias.is_monotonic() => fell(at, alias),
                QuantityKind::Distribution => count_fell(at, alias),
                _ => None,
            })
    }

    fn proven(&self) -> bool {
        self.knowledge.proven
            || self
                .samples
                .iter()
                .any(|sample| sample.families_recognised > 0)
    }

    /// Whether the alias's absence means zero.
    fn implies_zero(&self, at: usize, alias: &Alias) -> bool {
        if !alias.lazy || !self.proven() {
            return false;
        }
        let family_seen = || {
            self.samples
                .iter()
                .any(|sample| sample.families_of.contains(&at))
        };
        if alias.needs_family && !family_seen() {
            return false;
        }
        // an engine that creates its series at the start has them all; a line that could not be read may be any
        let unlike_zero = |sample: &&Sample| {
            let created = sample.incarnation.created_unix_seconds.is_some();
            let lost = sample.bad_lines > 0 || sample.unreadable.contains(&at);
            lost || (created && self.profile.disconnects_leave_no_finish)
        };
        if self.samples.iter().any(unlike_zero) && !alias.needs_family {
            return false;
        }
        match (self.knowledge.version, self.floor) {
            (Some(_), Some(version)) => alias.covers(version),
            (_, floor) => {
                let new_enough = match (alias.since, floor) {
                    (None, _) => true,
                    (Some(since), Some(floor)) => since <= floor,
                    (Some(_), None) => false,
                };
                new_enough && alias.until.is_none()
            }
        }
    }

    fn choose(&self, quantity: Quantity) -> Option<Chosen<'p>> {
        let kind = quantity.kind();
        let exported = || {
            self.profile
                .aliases_of(quantity)
                .filter(|(_, alias)| alias.unsupported.is_none())
        };
        if let Some((at, alias)) =
            exported().find(|(at, _)| self.samples.iter().any(|sample| sample.has(kind, *at)))
        {
            return Some(Chosen {
                at,
                alias,
                zero_if_missing: self.implies_zero(at, alias),
                implied: false,
            });
        }
        let (at, alias) = exported().find(|(at, alias)| self.implies_zero(*at, alias))?;
        Some(Chosen {
            at,
            alias,
            zero_if_missing: true,
            implied: true,
        })
    }

    fn absence(&self, quantity: Quantity) -> Absence {
        let out_of_range = self.samples.iter().rev().find_map(|sample| {
            sample.out_of_range.iter().find(|reading| {
                self.profile
                    .aliases_of(quantity)
                    .any(|(at, _)| at == reading.alias)
            })
        });
        let aliases: Vec<&Alias> = self
            .profile
            .aliases_of(quantity)
            .map(|(_, alias)| alias)
            .collect();
        let unreadable = self.samples.iter().any(|sample| {
            let of_quantity = self.profile.aliases_of(quantity);
            of_quantity
                .into_iter()
                .any(|(at, _)| sample.unreadable.contains(&at))
        });
        let reason = if unreadable {
            let names: Vec<String> = aliases.iter().map(|alias| alias.describe()).collect();
            format!(
                "the engine exports {} with a value or a type that it cannot have",
                names.join(" or ")
            )
        } else if let Some(reading) = out_of_range {
            format!(
                "the engine reports {}, which is no share of 1",
                reading.value
            )
        } else if let Some(why) = aliases.iter().find_map(|alias| alias.unsupported.as_ref()) {
            why.to_string()
        } else {
            let names: Vec<String> = aliases.iter().map(|alias| alias.describe()).collect();
            format!("the engine does not export {}", names.join(" or "))
        };
        let since = aliases.iter().filter_map(|alias| alias.since).min();
        let hint = aliases
            .iter()
            .find_map(|alias| alias.hint.as_ref().map(ToString::to_string))
            .or_else(|| {
                let since = since?;
                self.floor
                    .is_none_or(|floor| floor < since)
                    .then(|| format!("{} exports it since {since}", self.profile.title))
            });
        Absence {
            quantity,
            reason: reason.into(),
            hint: hint.map(Into::into),
        }
    }

    fn scalar(&self, chosen: &Chosen<'_>, sample: usize) -> Option<f64> {
        self.samples
            .get(sample)?
            .scalar(chosen.at)
            .or_else(|| chosen.zero_if_missing.then_some(0.0))
    }

    fn interval(&self, kept: &Kept, numerator: f64, denominator: f64) -> Option<Interval> {
        Some(Interval {
            start_tick: self.samples.get(kept.before)?.tick,
            end_tick: self.samples.get(kept.after)?.tick,
            numerator,
            denominator,
        })
    }

    fn counter(&self, chosen: &Chosen<'_>) -> Option<Counter> {
        let total = (0..self.samples.len())
            .rev()
            .find_map(|at| self.scalar(chosen, at))?;
        let rises = self.kept.iter().filter_map(|kept| {
            let before = self.scalar(chosen, kept.before)?;
            let after = self.scalar(chosen, kept.after)?;
            self.interval(kept, after - before, kept.seconds)
        });
        let mut intervals: Vec<Interval> = rises.collect();
        let total_of = |part: fn(&Interval) -> f64| intervals.iter().map(part).sum::<f64>();
        let amount = total_of(|one| one.numerator);
        let seconds = total_of(|one| one.denominator);
        // a difference of counters that fell is no count
        let usable = seconds > 0.0 && (chosen.alias.is_monotonic() || amount >= 0.0);
        let increase = usable.then(|| Rise {
            amount,
            per_second: amount / seconds,
        });
        if !usable {
            intervals.clear();
        }
        Some(Counter {
            total,
            increase,
            intervals,
            basis: chosen.basis(),
            source: self.profile.source_of(chosen.at),
        })
    }

    fn gauge(&self, chosen: &Chosen<'_>) -> GaugeTrack {
        let values = self
            .samples
            .iter()
            .enumerate()
            .filter_map(|(at, sample)| Some((sample.tick, self.scalar(chosen, at)?)))
            .collect();
        GaugeTrack {
            values,
            basis: chosen.basis(),
            source: self.profile.source_of(chosen.at),
        }
    }

    fn distribution(&self, chosen: &Chosen<'_>) -> Option<DistributionIncrease> {
        let mut increase = DistributionIncrease {
            count: 0.0,
            sum: Some(0.0),
            buckets: None,
            intervals: Vec::new(),
            basis: chosen.basis(),
            source: self.profile.source_of(chosen.at),
        };
        if let [only] = self.samples {
            if let Some(reading) = only.distribution(chosen.at) {
                increase.count = reading.count;
                increase.sum = reading.sum;
                let zeros = vec![0.0; reading.bounds.len()];
                increase.buckets = Buckets::between(&reading.bounds, &zeros, &reading.cumulative);
            }
            return Some(increase);
        }
        let mut covered = false;
        let mut comparable = true;
        for interval in &self.kept {
            let at = |sample: usize| self.samples.get(sample)?.distribution(chosen.at);
            let (before, after) = match (at(interval.before), at(interval.after)) {
                (Some(before), Some(after)) => (before.clone(), after),
                // it appeared in between
                (None, Some(after)) if chosen.zero_if_missing => {
                    let mut before = after.clone();
                    before.count = 0.0;
                    before.sum = before.sum.map(|_| 0.0);
                    before.cumulative.iter_mut().for_each(|value| *value = 0.0);
                    (before, after)
                }
                (None, None) if chosen.zero_if_missing => {
                    covered = true;
                    continue;
                }
                _ => continue,
            };
            covered = true;
            increase.count += after.count - before.count;
            let gained = after
                .sum
                .zip(before.sum)
                .map(|(after, before)| after - before);
            increase.sum = increase.sum.zip(gained).map(|(sum, gained)| sum + gained);
            let counted = after.count - before.count;
            let interval = gained.and_then(|gained| self.interval(interval, gained, counted));
            increase.intervals.extend(interval);
            let buckets = (before.bounds == after.bounds)
                .then(|| Buckets::between(&after.bounds, &before.cumulative, &after.cumulative))
                .flatten();
            comparable &= match (&mut increase.buckets, buckets) {
                (None, Some(buckets)) => {
                    increase.buckets = Some(buckets);
                    true
                }
                (Some(all), Some(buckets)) => all.add(&buckets),
                (_, None) => false,
            };
        }
        if !comparable {
            increase.buckets = None;
        }
        if increase.sum.is_none() {
            increase.intervals.clear();
        }
        covered.then_some(increase)
    }
}
