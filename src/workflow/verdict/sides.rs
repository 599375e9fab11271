//! One quantity over several observations, on both sides.

use super::observation::{Evidence, Observation, Pair, Side};
use super::policy::VerdictPolicy;
use super::quantity::JudgedQuantity as J;
use crate::measure::{Difference, Estimate, Interval};

/// Intervals of one quantity.
#[derive(Debug, Clone)]
pub(super) enum Sides {
    /// Of control and canary at the same times.
    Paired(Vec<(Interval, Interval)>),
    /// Of different times.
    Apart {
        control: Vec<Interval>,
        canary: Vec<Interval>,
    },
}

/// Sums of one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Total {
    /// None where nothing was observed.
    pub(super) value: Option<f64>,
    /// Denominators.
    pub(super) count: f64,
}

impl Sides {
    /// Of these observations, in order of time; none where none has the quantity. Pairs that cannot be are left out, and a
    /// control's window from before the change counts once however many observations are held against it.
    pub(super) fn of(observations: &[&Observation], quantity: J) -> Option<Self> {
        let pairs = |of: &Observation| -> Vec<Pair> {
            let all = of.pairs.get(&quantity).map_or(&[][..], Vec::as_slice);
            all.iter().copied().filter(Pair::is_sound).collect()
        };
        if observations
            .iter()
            .all(|one| !one.pairs.contains_key(&quantity))
        {
            return None;
        }
        let paired = observations
            .iter()
            .all(|one| one.evidence == Evidence::SameTime);
        if paired {
            let all = observations.iter().flat_map(|one| pairs(one));
            // of neither side anything: it says nothing of either
            let told = all.filter(|pair| pair.control.denominator + pair.canary.denominator > 0.0);
            let told = told.enumerate();
            return Some(Self::Paired(
                told.map(|(at, pair)| (interval(at, pair.control), interval(at, pair.canary)))
                    .collect(),
            ));
        }
        let mut known: Vec<(f64, f64)> = Vec::new();
        let mut control = Vec::new();
        for one in observations {
            let window = (one.control_start_unix_seconds, one.control_end_unix_seconds);
            if !known.contains(&window) {
                known.push(window);
                control.extend(pairs(one).into_iter().map(|pair| pair.control));
            }
        }
        let canary = observations.iter().flat_map(|one| pairs(one));
        let canary = canary.map(|pair| pair.canary);
        Some(Self::Apart {
            control: intervals(control.into_iter()),
            canary: intervals(canary),
        })
    }

    pub(super) fn canary(&self) -> Total {
        match self {
            Self::Paired(pairs) => Total::of(pairs.iter().map(|(_, canary)| canary)),
            Self::Apart { canary, .. } => Total::of(canary.iter()),
        }
    }

    pub(super) fn control(&self) -> Total {
        match self {
            Self::Paired(pairs) => Total::of(pairs.iter().map(|(control, _)| control)),
            Self::Apart { control, .. } => Total::of(control.iter()),
        }
    }

    /// Intervals in which something was observed on both sides.
    pub(super) fn intervals(&self) -> u32 {
        let tells = |one: &&Interval| one.denominator > 0.0;
        let count = match self {
            Self::Paired(pairs) => {
                let both = pairs
                    .iter()
                    .filter(|(control, canary)| tells(&control) && tells(&canary));
                both.count()
            }
            Self::Apart { control, canary } => {
                let [control, canary] =
                    [control, canary].map(|side| side.iter().filter(tells).count());
                control.min(canary)
            }
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Why there is too little to judge by.
    pub(super) fn too_few(&self, quantity: J, policy: &VerdictPolicy) -> Option<String> {
        let (intervals, least) = (self.intervals(), policy.least_intervals);
        if intervals < least {
            return Some(format!(
                "{intervals} intervals in which it was observed on both sides, and at least {least} are needed"
            ));
        }
        // of a rate the count is seconds
        let fewer = self.canary().count.min(self.control().count);
        let least = policy.least_requests;
        let few = quantity != J::GenerationTokensPerSecond && fewer < f64::from(least);
        few.then(|| format!("{fewer} on one side, and at least {least} are needed"))
    }

    /// How the logarithms of the values differ.
    pub(super) fn logarithms(&self) -> Option<Difference> {
        match self {
            Self::Paired(pairs) => Difference::of_paired_logarithms(pairs),
            Self::Apart { control, canary } => {
                let [control, canary] = [estimate(control)?, estimate(canary)?];
                Difference::of_logarithms(&control, &canary)
            }
        }
    }

    /// How the values differ.
    pub(super) fn values(&self) -> Option<Difference> {
        match self {
            Self::Paired(pairs) => Difference::of_paired_values(pairs),
            Self::Apart { control, canary } => {
                let [control, canary] = [estimate(control)?, estimate(canary)?];
                Difference::of_values(&control, &canary)
            }
        }
    }
}

fn estimate(intervals: &[Interval]) -> Option<Estimate> {
    Estimate::of(&intervals.iter().collect::<Vec<_>>())
}

fn intervals(sides: impl Iterator<Item = Side>) -> Vec<Interval> {
    let told = sides.filter(|side| side.denominator > 0.0);
    told.enumerate()
        .map(|(at, side)| interval(at, side))
        .collect()
}

fn interval(at: usize, side: Side) -> Interval {
    let start_tick = u32::try_from(at).unwrap_or(u32::MAX - 1);
    Interval {
        start_tick,
        end_tick: start_tick.saturating_add(1),
        numerator: side.numerator,
        denominator: side.denominator,
    }
}

impl Total {
    fn of<'i>(intervals: impl Iterator<Item = &'i Interval>) -> Self {
        let (numerator, count) = intervals.fold((0.0, 0.0), |(sum, count), one| {
            (sum + one.numerator, count + one.denominator)
        });
        let value = (count > 0.0).then(|| numerator / count);
        Self {
            value: value.filter(|value| value.is_finite()),
            count,
        }
    }
}
