//! How far a rate or mean over some intervals can be trusted, and what the ratio of two of them can be.
//!
//! - Estimator: the ratio of sums, Σ numerators / Σ denominators. A mean of the intervals' own means would let an
//!   interval of one request count as much as one of a hundred.
//! - Its variance is linearised from the residuals `numerator − value × denominator`, each over the denominators of the
//!   others, which is the delete-one jackknife of a ratio to first order (Cochran, Sampling Techniques, 3rd ed., 6.17).
//! - What happens in one interval lasts into the next: queues. With lag-1 autocorrelation ρ of the residuals the
//!   variance grows by (1 + ρ) / (1 − ρ) and the intervals are worth fewer by as much (Law, Simulation Modeling and
//!   Analysis, 4.4). ρ from n intervals is too small by about (1 + 4ρ) / n (Marriott and Pope, Biometrika 41, 1954),
//!   and noisy: `CAUTION` of its standard errors, 1 / √n, are added. The tests hold what this gives.
//! - Two sides: the difference of logarithms with Welch's degrees of freedom and Student's t.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::intervals::Interval;

/// Fewer intervals say nothing about how much they vary.
pub(super) const MIN_INTERVALS: usize = 5;

/// How much of the standard error of the autocorrelation is added to it. With 0.75, ten intervals and ρ = 0.5 there are
/// no more false differences than stated, out to levels of half a percent.
const CAUTION: f64 = 0.75;

/// Beyond this autocorrelation a window is too short to tell anything.
const MAX_AUTOCORRELATION: f64 = 0.9;

/// Logarithms nearer than this are equal but for rounding.
const ROUNDING: f64 = 1e-9;

/// A value over intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Ratio of sums.
    pub(super) value: f64,
    /// Its variance.
    variance: f64,
    /// Degrees of freedom of the variance.
    degrees: f64,
}

/// Intervals in which something was observed: others say nothing about a mean.
pub(super) fn telling(intervals: &[Interval]) -> Vec<&Interval> {
    let tells = |interval: &&Interval| interval.denominator > 0.0;
    intervals.iter().filter(tells).collect()
}

impl Estimate {
    /// The estimate; none from fewer than [`MIN_INTERVALS`].
    pub(super) fn of(intervals: &[&Interval]) -> Option<Self> {
        if intervals.len() < MIN_INTERVALS {
            return None;
        }
        let count = intervals.len() as f64;
        let denominators: f64 = intervals.iter().map(|one| one.denominator).sum();
        let value = intervals.iter().map(|one| one.numerator).sum::<f64>() / denominators;
        let residuals: Vec<f64> = intervals
            .iter()
            .map(|one| (one.numerator - value * one.denominator) / (denominators - one.denominator))
            .collect();
        let squares: f64 = residuals.iter().map(|one| one * one).sum();
        let inflation = inflation(&residuals, squares);
        let estimate = Self {
            value,
            variance: (count - 1.0) / count * squares * inflation,
            degrees: (count / inflation - 1.0).max(1.0),
        };
        (value.is_finite() && estimate.variance.is_finite()).then_some(estimate)
    }
}

/// By how much neighbours that resemble each other enlarge the variance: 1 where they do not.
fn inflation(residuals: &[f64], squares: f64) -> f64 {
    if squares <= 0.0 {
        return 1.0;
    }
    let count = residuals.len() as f64;
    let products = residuals.iter().zip(residuals.iter().skip(1));
    let seen = products.map(|(one, next)| one * next).sum::<f64>() / squares;
    let unbiased = seen + (1.0 + 4.0 * seen) / count;
    let cautious = (unbiased + CAUTION / count.sqrt()).clamp(0.0, MAX_AUTOCORRELATION);
    (1.0 + cautious) / (1.0 - cautious)
}

/// How two values differ: of their logarithms, or of themselves where one is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    centre: f64,
    error: f64,
    degrees: f64,
}

impl Difference {
    /// Of candidate and baseline: their logarithms; none unless both are above zero.
    pub(super) fn of_logarithms(baseline: &Estimate, candidate: &Estimate) -> Option<Self> {
        if baseline.value <= 0.0 || candidate.value <= 0.0 {
            return None;
        }
        let relative = |side: &Estimate| side.variance / side.value / side.value;
        Self::between(
            (baseline.value.ln(), relative(baseline), baseline.degrees),
            (candidate.value.ln(), relative(candidate), candidate.degrees),
        )
    }

    /// Of candidate and baseline: the values themselves.
    pub(super) fn of_values(baseline: &Estimate, candidate: &Estimate) -> Option<Self> {
        Self::between(
            (baseline.value, baseline.variance, baseline.degrees),
            (candidate.value, candidate.variance, candidate.degrees),
        )
    }

    /// Centre, variance and degrees of freedom of each side (Welch, Biometrika 34, 1947).
    /// None where numbers that no engine has leave the range of a f64.
    fn between(baseline: (f64, f64, f64), candidate: (f64, f64, f64)) -> Option<Self> {
        let variance = baseline.1 + candidate.1;
        let parts = baseline.1.powi(2) / baseline.2 + candidate.1.powi(2) / candidate.2;
        let centre = candidate.0 - baseline.0;
        let difference = Self {
            centre: if centre.abs() <= ROUNDING {
                0.0
            } else {
                centre
            },
            error: variance.sqrt(),
            degrees: if parts > 0.0 {
                variance.powi(2) / parts
            } else {
                baseline.2 + candidate.2
            },
        };
        let numbers = [difference.centre, difference.error, difference.degrees];
        let usable = numbers.iter().all(|number| number.is_finite()) && difference.degrees > 0.0;
        usable.then_some(difference)
    }

    pub(super) fn is_positive(&self) -> bool {
        self.centre > 0.0
    }

    /// How likely a difference of this size is where there is none.
    pub(super) fn p_value(&self) -> f64 {
        if self.centre == 0.0 {
            return 1.0;
        }
        if self.error <= 0.0 {
            return 0.0;
        }
        match self.student() {
            Some(student) => (2.0 * student.sf(self.centre.abs() / self.error)).min(1.0),
            None => 1.0,
        }
    }

    /// Bounds of the interval with this confidence.
    pub(super) fn interval(&self, confidence: f64) -> Option<(f64, f64)> {
        let reach = self.quantile(0.5 + confidence / 2.0)? * self.error;
        Some((self.centre - reach, self.centre + reach))
    }

    /// The smallest difference that a test at this level finds with this probability.
    pub(super) fn detectable(&self, level: f64, power: f64) -> Option<f64> {
        Some((self.quantile(1.0 - level / 2.0)? + self.quantile(power)?) * self.error)
    }

    fn quantile(&self, p: f64) -> Option<f64> {
        self.student().map(|student| student.inverse_cdf(p))
    }

    fn student(&self) -> Option<StudentsT> {
        StudentsT::new(0.0, 1.0, self.degrees).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn difference(centre: f64, error: f64, degrees: f64) -> Difference {
        Difference {
            centre,
            error,
            degrees,
        }
    }

    #[test]
    fn students_t_is_as_in_the_tables() {
        // Abramowitz and Stegun, table 26.10
        for (degrees, p, expected) in [
            (1.0, 0.975, 12.706),
            (4.0, 0.975, 2.776),
            (9.0, 0.995, 3.250),
            (30.0, 0.975, 2.042),
            (120.0, 0.9995, 3.373),
        ] {
            let found = difference(0.0, 1.0, degrees).quantile(p).unwrap();
            assert!((found - expected).abs() < 1e-3, "{degrees} {p}: {found}");
        }
        let at_the_bound = difference(2.776, 1.0, 4.0).p_value();
        assert!((at_the_bound - 0.05).abs() < 1e-4, "{at_the_bound}");
    }

    #[test]
    fn every_request_counts_the_same() {
        let of = |means: &[(f64, f64)]| -> Vec<Interval> {
            let intervals = means.iter().enumerate();
            intervals
                .map(|(at, (mean, count))| Interval {
                    start_tick: at as u32,
                    end_tick: at as u32 + 1,
                    numerator: mean * count,
                    denominator: *count,
                })
                .collect()
        };
        // one slow request among four hundred
        let intervals = of(&[
            (1.0, 100.0),
            (1.0, 100.0),
            (9.0, 1.0),
            (1.0, 100.0),
            (1.0, 100.0),
        ]);
        let estimate = Estimate::of(&telling(&intervals)).unwrap();
        assert!((estimate.value - 409.0 / 401.0).abs() < 1e-12);
        let few = of(&[(1.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0)]);
        assert_eq!(Estimate::of(&telling(&few)), None);
    }
}
