//! How sure each of several looks has to be, so that all together err no more often than one would.
//!
//! O'Brien and Fleming (Biometrics 35, 1979): an early look needs much more than the last, which needs little more than if
//! it were the only one. Looks add up the same intervals, so that what they see is a walk with independent steps; how
//! often it ever crosses a level line is worked out step by step (Armitage, McPherson and Rowe, J. Royal Statistical
//! Society A 132, 1969).

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::{Mutex, PoisonError};

use statrs::distribution::{ContinuousCDF, Normal};

/// For more looks than these errors are simply divided.
const MOST_LOOKS: u32 = 64;
/// So far below zero the walk does not come.
const LOWEST: f64 = -5.0;
/// Points of the walk in a standard deviation of a step.
const POINTS: f64 = 5.0;
/// The line is found to this part of it.
const HALVINGS: u32 = 24;

/// Chance of an error that the test of this look may have, where looks from `first` to `last` may each end it and all
/// together may err with this chance.
pub(super) fn level(look: u32, first: u32, last: u32, chance: f64) -> f64 {
    let last = last.max(1);
    let first = first.clamp(1, last);
    let look = look.clamp(first, last);
    if last > MOST_LOOKS {
        return chance / f64::from(last - first + 1);
    }
    let line = line(first, last, chance);
    let information = f64::from(look) / f64::from(last);
    1.0 - Normal::standard().cdf(line / information.sqrt())
}

/// How high the line is that a walk of variance 1 at the last look crosses at any look with this chance.
fn line(first: u32, last: u32, chance: f64) -> f64 {
    // the same few for every look of every canary, and costly
    static KNOWN: Mutex<BTreeMap<(u32, u32, u64), f64>> = Mutex::new(BTreeMap::new());
    let key = (first, last, chance.to_bits());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(line) = known().get(&key) {
        return *line;
    }
    let looks = f64::from(last - first + 1);
    let normal = Normal::standard();
    // one look, and looks that have nothing to do with each other
    let mut low = normal.inverse_cdf(1.0 - chance);
    let mut high = normal.inverse_cdf(1.0 - chance / looks) + 1e-6;
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        match crosses(middle, first, last) > chance {
            true => low = middle,
            false => high = middle,
        }
    }
    known().insert(key, high);
    high
}

/// Chance that the walk is above the line at any look.
fn crosses(line: f64, first: u32, last: u32) -> f64 {
    let step = (1.0 / f64::from(last)).sqrt();
    let count = ((line - LOWEST) / step * POINTS).ceil().max(2.0);
    let width = (line - LOWEST) / count;
    let points: Vec<f64> = (0..=count as u32)
        .map(|at| LOWEST + f64::from(at) * width)
        .collect();
    // of the trapezoid rule
    let weight = |at: usize| match at == 0 || at + 1 == points.len() {
        true => width / 2.0,
        false => width,
    };
    let begin = (f64::from(first) / f64::from(last)).sqrt();
    let mut density: Vec<f64> = points.iter().map(|at| bell(*at, begin)).collect();
    let steps: Vec<f64> = (0..=count as u32)
        .map(|apart| bell(f64::from(apart) * width, step))
        .collect();
    for _ in first..last {
        let next = (0..points.len()).map(|to| {
            let from = density.iter().enumerate();
            let sum = from.map(|(from, there)| {
                let moved = steps.get(from.abs_diff(to)).copied().unwrap_or(0.0);
                there * moved * weight(from)
            });
            sum.sum()
        });
        density = next.collect();
    }
    let below = density
        .iter()
        .enumerate()
        .map(|(at, there)| there * weight(at));
    1.0 - below.sum::<f64>()
}

/// Density of the normal distribution.
fn bell(at: f64, deviation: f64) -> f64 {
    (-(at / deviation).powi(2) / 2.0).exp() / (deviation * TAU.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_published() {
        // Jennison and Turnbull, Group Sequential Methods, 2000, table 2.3, of both sides at 0.1
        for (looks, published) in [(1, 1.645), (2, 1.678), (3, 1.710), (5, 1.751), (10, 1.801)] {
            let line = line(1, looks, 0.05);
            assert!((line - published).abs() < 0.004, "{looks}: {line}");
        }
    }

    #[test]
    fn all_looks_together_err_as_often_as_is_allowed() {
        let (first, last) = (3, 8);
        let levels: Vec<f64> = (first..=last)
            .map(|look| level(look, first, last, 0.05))
            .collect();
        assert!(levels.is_sorted());
        let mut bits = 9_u64;
        let mut unit = || {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut normal = || (-2.0 * unit().ln()).sqrt() * (TAU * unit()).cos();
        let walks = 40_000;
        let mut crossed = 0;
        for _ in 0..walks {
            let mut walk = 0.0;
            for look in 1..=last {
                walk += normal();
                let needed = Normal::standard().inverse_cdf(1.0 - level(look, first, last, 0.05));
                if look >= first && walk / f64::from(look).sqrt() > needed {
                    crossed += 1;
                    break;
                }
            }
        }
        let share = f64::from(crossed) / f64::from(walks);
        assert!((share - 0.05).abs() < 0.005, "{share}");
    }

    #[test]
    fn whatever_is_asked_there_is_a_level() {
        for (look, first, last) in [(0, 0, 0), (9, 3, 8), (1, 3, 8), (70, 1, 100), (5, 9, 8)] {
            let level = level(look, first, last, 0.05);
            assert!(
                level > 0.0 && level <= 0.05 + 1e-9,
                "{look} {first} {last}: {level}"
            );
        }
    }
}
