//! What is kept of an instance's last six hours, minute by minute. Bounded, and lost with the process.

use std::collections::VecDeque;

use super::burn::{GoodBad, good_and_bad};
use super::slo::Slo;
use crate::engine::Quantity;
use crate::measure::{Measurement, WindowKind};

/// Minutes that are kept: six hours.
pub const MINUTES_KEPT: usize = 360;
/// Room is made for so many at a time.
const STEP: usize = 60;

/// An instance's last six hours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Minutes {
    /// Minutes that were measured, in order.
    minutes: VecDeque<Minute>,
    /// What they were counted for.
    slos: Vec<Slo>,
    /// Of each SLO a pair for each minute.
    pairs: Vec<VecDeque<Pair>>,
}

/// One minute that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Minute {
    number: u32,
    running: Known,
    waiting: Known,
    kv_usage_ratio: Known,
}

/// A number that may be unknown, in half the room of an `Option`.
#[derive(Debug, Clone, Copy)]
struct Known(f32);

impl Known {
    fn of(value: Option<f64>) -> Self {
        Self(value.map_or(f32::NAN, |value| value as f32))
    }

    fn get(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(f64::from(self.0))
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    good: Known,
    bad: Known,
}

impl Pair {
    fn of(pair: Option<GoodBad>) -> Self {
        Self {
            good: Known::of(pair.map(|pair| pair.good)),
            bad: Known::of(pair.map(|pair| pair.bad)),
        }
    }

    fn get(self) -> Option<GoodBad> {
        Some(GoodBad {
            good: self.good.get()?,
            bad: self.bad.get()?,
        })
    }
}

/// How much of an instance was used over the minutes that are known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Minutes that are known, of [`MINUTES_KEPT`].
    pub covered_minutes: u32,
    /// From the first to the last of them.
    pub span_minutes: u32,
    /// Most requests that ran at once; none where no minute tells.
    pub peak_running: Option<f64>,
    /// Most that waited.
    pub peak_waiting: Option<f64>,
    /// Largest share of the KV cache, 0 to 1.
    pub peak_kv_usage_ratio: Option<f64>,
}

impl Minutes {
    /// Keeps what a measurement that ends in this minute says. One that covers several minutes, since they are scraped less
    /// often, is spread over them evenly. A minute that is already there, and totals since the start, change nothing.
    pub fn record(&mut self, measurement: &Measurement, slos: &[Slo], minute: u64, covers: u32) {
        if measurement.window.kind == WindowKind::SinceStart {
            return;
        }
        let peak = |quantity| measurement.figures.gauge(quantity).map(|gauge| gauge.max);
        let usage = [
            peak(Quantity::RequestsRunning),
            peak(Quantity::RequestsWaiting),
            peak(Quantity::KvCacheUsage),
        ];
        let pairs = good_and_bad(measurement, slos);
        self.follow(slos);
        self.keep(&pairs, usage, minute, covers);
    }

    fn keep(
        &mut self,
        pairs: &[Option<GoodBad>],
        usage: [Option<f64>; 3],
        minute: u64,
        covers: u32,
    ) {
        let Ok(last) = u32::try_from(minute) else {
            return;
        };
        let kept = u32::try_from(MINUTES_KEPT).unwrap_or(u32::MAX);
        let first = (last + 1).saturating_sub(covers.clamp(1, kept));
        let new = self.minutes.back().map_or(0, |newest| newest.number + 1);
        let [running, waiting, kv_usage_ratio] = usage.map(Known::of);
        let parts = f64::from(last + 1 - first);
        for number in first.max(new)..=last {
            self.make_room(number);
            self.minutes.push_back(Minute {
                number,
                running,
                waiting,
                kv_usage_ratio,
            });
            for (kept, pair) in self.pairs.iter_mut().zip(pairs) {
                let part = pair.map(|pair| GoodBad {
                    good: pair.good / parts,
                    bad: pair.bad / parts,
                });
                kept.push_back(Pair::of(part));
            }
        }
    }

    /// Forgets what is too old by this minute, and has room for one more.
    fn make_room(&mut self, number: u32) {
        let is_old = |minute: &Minute| number - minute.number >= MINUTES_KEPT as u32;
        while self.minutes.front().is_some_and(is_old) {
            self.minutes.pop_front();
            for pairs in &mut self.pairs {
                pairs.pop_front();
            }
        }
        if self.minutes.len() == self.minutes.capacity() {
            let more = STEP.min(MINUTES_KEPT - self.minutes.len());
            self.minutes.reserve_exact(more);
        }
        for pairs in &mut self.pairs {
            if pairs.len() == pairs.capacity() {
                pairs.reserve_exact(STEP.min(MINUTES_KEPT - pairs.len()));
            }
        }
    }

    /// Counts for these from now on. Of one that was not counted before, the minutes until now are missing.
    fn follow(&mut self, slos: &[Slo]) {
        if self.slos == slos {
            return;
        }
        let missing = || self.minutes.iter().map(|_| Pair::of(None)).collect();
        let pairs_of = |slo: &Slo| {
            let place = self.slos.iter().position(|known| known == slo);
            place.and_then(|place| self.pairs.get(place)).cloned()
        };
        let pairs = slos
            .iter()
            .map(|slo| pairs_of(slo).unwrap_or_else(missing))
            .collect();
        self.pairs = pairs;
        self.slos = slos.to_vec();
    }

    /// The newest minute that was measured.
    pub fn last(&self) -> Option<u64> {
        self.minutes.back().map(|minute| u64::from(minute.number))
    }

    /// Good and bad of an SLO over so many minutes up to this one, and how many of them are known.
    pub(super) fn sum(&self, slo: &Slo, end: u64, window_minutes: u32) -> (GoodBad, u32) {
        let within = |minute: &Minute| {
            let number = u64::from(minute.number);
            number <= end && end - number < u64::from(window_minutes)
        };
        let place = self.slos.iter().position(|known| known == slo);
        let pairs = place.and_then(|place| self.pairs.get(place));
        let pairs = pairs.into_iter().flatten();
        let (mut sum, mut covered) = (GoodBad::default(), 0);
        for (minute, pair) in self.minutes.iter().zip(pairs) {
            if let Some(pair) = pair.get().filter(|_| within(minute)) {
                sum.good += pair.good;
                sum.bad += pair.bad;
                covered += 1;
            }
        }
        (sum, covered)
    }

    /// How much was used, over the six hours up to this minute.
    pub fn usage(&self, now: u64) -> Usage {
        let recent = || {
            let minutes = self.minutes.iter();
            minutes.filter(|minute| {
                let number = u64::from(minute.number);
                number <= now && now - number < MINUTES_KEPT as u64
            })
        };
        let peak =
            |of: fn(&Minute) -> Known| recent().filter_map(|one| of(one).get()).reduce(f64::max);
        let first = recent().next().map_or(0, |minute| minute.number);
        Usage {
            covered_minutes: u32::try_from(recent().count()).unwrap_or(u32::MAX),
            span_minutes: recent()
                .next_back()
                .map_or(0, |last| last.number - first + 1),
            peak_running: peak(|minute| minute.running),
            peak_waiting: peak(|minute| minute.waiting),
            peak_kv_usage_ratio: peak(|minute| minute.kv_usage_ratio),
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let text = |slo: &Slo| slo.name.capacity() + slo.quantity.capacity();
        let pairs = |pairs: &VecDeque<Pair>| pairs.capacity() * size_of::<Pair>();
        size_of::<Self>()
            + self.minutes.capacity() * size_of::<Minute>()
            + self.slos.capacity() * size_of::<Slo>()
            + self.slos.iter().map(text).sum::<usize>()
            + self.pairs.capacity() * size_of::<VecDeque<Pair>>()
            + self.pairs.iter().map(pairs).sum::<usize>()
    }
}

#[cfg(test)]
impl Minutes {
    /// Counts these pairs, as if they had been measured.
    pub(super) fn count(
        &mut self,
        slos: &[Slo],
        pairs: &[Option<GoodBad>],
        minute: u64,
        covers: u32,
    ) {
        self.follow(slos);
        self.keep(pairs, [None; 3], minute, covers);
    }
}
