//! How long prompts and outputs are.

use std::sync::Arc;

use statrs::distribution::{ContinuousCDF, Normal};

/// A distribution of lengths in tokens; none is below 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Lengths {
    /// Always this.
    Fixed(u32),
    /// From one to the other, both included.
    Uniform {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// As lengths of real prompts and answers are: many short ones and a long tail.
    LogNormal {
        /// Half are below this.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Longer ones are cut here.
        max: u32,
    },
    /// A tail that is heavier than that: of a hundred times the least there are `100^-exponent` as many (Pareto).
    Pareto {
        /// None is below.
        least: f64,
        /// The smaller, the heavier the tail.
        exponent: f64,
        /// Longer ones are cut here.
        max: u32,
    },
    /// One of these, each as likely.
    Observed(Arc<[u32]>),
}

impl Lengths {
    /// The length below which the share `unit` of all lie; `unit` is in (0, 1).
    pub fn at(&self, unit: f64) -> u32 {
        let length = match self {
            Self::Fixed(length) => *length,
            Self::Uniform { min, max } => {
                let span = f64::from(max.saturating_sub(*min)) + 1.0;
                min.saturating_add((unit * span) as u32)
            }
            Self::LogNormal { median, sigma, max } => {
                let normal = Normal::standard().inverse_cdf(unit);
                // `as` saturates
                ((median * (sigma * normal).exp()).round() as u32).min(*max)
            }
            Self::Pareto {
                least,
                exponent,
                max,
            } => {
                let length = least * (1.0 - unit).powf(-1.0 / exponent);
                // `as` saturates
                (length.round() as u32).min(*max)
            }
            Self::Observed(lengths) => {
                let at = (unit * lengths.len() as f64) as usize;
                lengths.get(at).copied().unwrap_or(1)
            }
        };
        length.max(1)
    }

    /// The mean, by its quantiles.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(length) => f64::from((*length).max(1)),
            Self::Observed(lengths) if !lengths.is_empty() => {
                lengths
                    .iter()
                    .map(|length| f64::from((*length).max(1)))
                    .sum::<f64>()
                    / lengths.len() as f64
            }
            _ => {
                let steps = 10_000;
                let at = |step: i32| f64::from(self.at((f64::from(step) + 0.5) / f64::from(steps)));
                (0..steps).map(at).sum::<f64>() / f64::from(steps)
            }
        }
    }

    /// The longest there is.
    pub fn max(&self) -> u32 {
        self.at(1.0 - f64::EPSILON)
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Fixed(0) => Some("a length of 0 tokens".to_owned()),
            Self::Uniform { min, max } if *min == 0 || min > max => Some(format!(
                "lengths from {min} to {max}; from 1 to at least as many is meant"
            )),
            Self::LogNormal { median, sigma, max } => {
                let sound = median.is_finite()
                    && *median >= 1.0
                    && sigma.is_finite()
                    && *sigma >= 0.0
                    && *max > 0;
                (!sound).then(|| {
                    format!("lengths with median {median}, sigma {sigma}, at most {max}; median and maximum are at least 1")
                })
            }
            Self::Pareto {
                least,
                exponent,
                max,
            } => {
                let sound = least.is_finite()
                    && *least >= 1.0
                    && exponent.is_finite()
                    && *exponent > 0.0
                    && *max > 0;
                (!sound).then(|| {
                    format!("lengths from {least} on with exponent {exponent}, at most {max}; from 1 on, and an exponent above 0 is meant")
                })
            }
            Self::Observed(lengths) if lengths.is_empty() => {
                Some("no length was observed".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_they_are_said_to_be() {
        let uniform = Lengths::Uniform { min: 48, max: 96 };
        assert_eq!((uniform.at(1e-9), uniform.at(1.0 - 1e-9)), (48, 96));
        assert!((uniform.mean() - 72.0).abs() < 0.1);
        let tail = Lengths::LogNormal {
            median: 100.0,
            sigma: 1.0,
            max: 100_000,
        };
        assert_eq!(tail.at(0.5), 100);
        // exp(sigma² / 2) times the median
        assert!((tail.mean() / 164.9 - 1.0).abs() < 0.02, "{}", tail.mean());
        assert_eq!(
            Lengths::LogNormal {
                median: 100.0,
                sigma: 1.0,
                max: 120
            }
            .max(),
            120
        );
        let heavy = Lengths::Pareto {
            least: 50.0,
            exponent: 1.5,
            max: 1_000_000,
        };
        assert_eq!(heavy.at(1e-12), 50);
        assert_eq!(heavy.at(0.99), (50.0 * 100_f64.powf(1.0 / 1.5)) as u32);
        // exponent / (exponent - 1) times the least
        assert!((heavy.mean() / 150.0 - 1.0).abs() < 0.03);
        let observed = Lengths::Observed([3, 5].into());
        assert_eq!((observed.at(0.2), observed.at(0.7)), (3, 5));
        assert_eq!(observed.mean(), 4.0);
        for wrong in [
            Lengths::Fixed(0),
            Lengths::Uniform { min: 5, max: 4 },
            Lengths::Observed([].into()),
            Lengths::Pareto {
                least: 50.0,
                exponent: 0.0,
                max: 5,
            },
            Lengths::LogNormal {
                median: f64::NAN,
                sigma: 1.0,
                max: 5,
            },
        ] {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
    }
}
