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
//! - Two sides: the difference of logarithms with Welch's degrees of freedom and Student's t. Where both were watched at
//!   the same times, of each interval the difference of the residuals: what the sides share, arrivals above all, cancels.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::intervals::Interval;

/// Fewer intervals say nothing about how much they vary.
pub(crate) const MIN_INTERVALS: usize = 5;

/// How much of the standard error of the autocorrelation is added to it. With 0.75, ten intervals and ρ = 0.5 there are
/// no more false differences than stated, out to levels of half a percent.
const CAUTION: f64 = 0.75;

/// Beyond this autocorrelation a window is too short to tell anything.
const MAX_AUTOCORRELATION: f64 = 0.9;

/// Logarithms nearer than this are equal but for rounding.
const ROUNDING: f64 = 1e-9;

/// A value over intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Ratio of sums.
    pub(crate) value: f64,
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
    pub(crate) fn of(intervals: &[&Interval]) -> Option<Self> {
        if intervals.len() < MIN_INTERVALS {
            return None;
        }
        let (value, residuals) = residuals(intervals.iter().copied());
        let (variance, degrees) = variance(&residuals);
        let estimate = Self {
            value,
            variance,
            degrees,
        };
        (value.is_finite() && estimate.variance.is_finite()).then_some(estimate)
    }
}

/// The ratio of sums, and the residual of each interval over the denominators of the others.
fn residuals<'i>(intervals: impl Iterator<Item = &'i Interval> + Clone) -> (f64, Vec<f64>) {
    let denominators: f64 = intervals.clone().map(|one| one.denominator).sum();
    let value = intervals.clone().map(|one| one.numerator).sum::<f64>() / denominators;
    let residuals = intervals
        .map(|one| (one.numerator - value * one.denominator) / (denominators - one.denominator))
        .collect();
    (value, residuals)
}

/// Variance by the residuals, and its degrees of freedom.
fn variance(residuals: &[f64]) -> (f64, f64) {
    let count = residuals.len() as f64;
    let squares: f64 = residuals.iter().map(|one| one * one).sum();
    let inflation = inflation(residuals, squares);
    (
        (count - 1.0) / count * squares * inflation,
        (count / inflation - 1.0).max(1.0),
    )
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
pub(crate) struct Difference {
    centre: f64,
    error: f64,
    degrees: f64,
}

impl Difference {
    /// Of candidate and baseline: their logarithms; none unless both are above zero.
    pub(crate) fn of_logarithms(baseline: &Estimate, candidate: &Estimate) -> Option<Self> {
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
    pub(crate) fn of_values(baseline: &Estimate, candidate: &Estimate) -> Option<Self> {
        Self::between(
            (baseline.value, baseline.variance, baseline.degrees),
            (candidate.value, candidate.variance, candidate.degrees),
        )
    }

    /// Of intervals at the same times, baseline and candidate of each: their logarithms; none unless both values are above
    /// zero, and of fewer than [`MIN_INTERVALS`].
    pub(crate) fn of_paired_logarithms(pairs: &[(Interval, Interval)]) -> Option<Self> {
        Self::paired(pairs, |baseline, candidate| {
            let both = baseline > 0.0 && candidate > 0.0;
            both.then(|| (candidate.ln() - baseline.ln(), baseline, candidate))
        })
    }

    /// The same of the values themselves.
    pub(crate) fn of_paired_values(pairs: &[(Interval, Interval)]) -> Option<Self> {
        Self::paired(pairs, |baseline, candidate| {
            Some((candidate - baseline, 1.0, 1.0))
        })
    }

    /// `of` two values: how they differ, and what the residuals of each are divided by.
    fn paired(
        pairs: &[(Interval, Interval)],
        of: impl Fn(f64, f64) -> Option<(f64, f64, f64)>,
    ) -> Option<Self> {
        if pairs.len() < MIN_INTERVALS {
            return None;
        }
        let (baseline, of_baseline) = residuals(pairs.iter().map(|(one, _)| one));
        let (candidate, of_candidate) = residuals(pairs.iter().map(|(_, other)| other));
        let (centre, baseline_scale, candidate_scale) = of(baseline, candidate)?;
        let both = of_baseline.iter().zip(&of_candidate);
        let residuals: Vec<f64> = both
            .map(|(one, other)| other / candidate_scale - one / baseline_scale)
            .collect();
        let (variance, degrees) = variance(&residuals);
        Self::usable(centre, variance.sqrt(), degrees)
    }

    /// Centre, variance and degrees of freedom of each side (Welch, Biometrika 34, 1947).
    /// None where numbers that no engine has leave the range of a f64.
    fn between(baseline: (f64, f64, f64), candidate: (f64, f64, f64)) -> Option<Self> {
        let variance = baseline.1 + candidate.1;
        let parts = baseline.1.powi(2) / baseline.2 + candidate.1.powi(2) / candidate.2;
        let degrees = if parts > 0.0 {
            variance.powi(2) / parts
        } else {
            baseline.2 + candidate.2
        };
        Self::usable(candidate.0 - baseline.0, variance.sqrt(), degrees)
    }

    fn usable(centre: f64, error: f64, degrees: f64) -> Option<Self> {
        let centre = if centre.abs() <= ROUNDING {
            0.0
        } else {
            centre
        };
        let numbers = [centre, error, degrees];
        let usable = numbers.iter().all(|number| number.is_finite()) && degrees > 0.0;
        usable.then_some(Self {
            centre,
            error,
            degrees,
        })
    }

    /// How the two differ.
    pub(crate) fn centre(&self) -> f64 {
        self.centre
    }

    /// Its standard error.
    pub(crate) fn error(&self) -> f64 {
        self.error
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
    pub(crate) fn interval(&self, confidence: f64) -> Option<(f64, f64)> {
        let reach = self.quantile(0.5 + confidence / 2.0)? * self.error;
        Some((self.centre - reach, self.centre + reach))
    }

    /// The smallest difference that a test at this level finds with this probability.
    pub(crate) fn detectable(&self, level: f64, power: f64) -> Option<f64> {
        Some((self.quantile(1.0 - level / 2.0)? + self.quantile(power)?) * self.error)
    }

    /// The value that the share `p` of Student's t lies below.
    pub(crate) fn quantile(&self, p: f64) -> Option<f64> {
        self.student().map(|student| student.inverse_cdf(p))
    }

    fn student(&self) -> Option<StudentsT> {
        StudentsT::new(0.0, 1.0, self.degrees).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
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

    #[test]
    fn what_both_sides_share_cancels() {
        let interval = |at: u32, mean: f64| Interval {
            start_tick: at,
            end_tick: at + 1,
            numerator: mean * 10.0,
            denominator: 10.0,
        };
        // waves of load on both, and a tenth more on one
        let pairs: Vec<(Interval, Interval)> = (0..40)
            .map(|at| {
                let wave = 2.0 + f64::from(at).sin() + 0.001 * f64::from(at % 3);
                (interval(at, wave), interval(at, wave * 1.1))
            })
            .collect();
        let paired = Difference::of_paired_logarithms(&pairs).unwrap();
        assert!((paired.centre() - 1.1_f64.ln()).abs() < 1e-9);
        assert!(paired.error() < 1e-6, "{paired:?}");
        let side = |of: fn(&(Interval, Interval)) -> &Interval| {
            Estimate::of(&pairs.iter().map(of).collect::<Vec<_>>()).unwrap()
        };
        let apart = Difference::of_logarithms(&side(|pair| &pair.0), &side(|pair| &pair.1));
        assert!(apart.unwrap().error() > 0.1);
        assert_eq!(Difference::of_paired_values(&pairs[..4]), None);
    }
}
