//! What makes steps that compute the same differ in time.

use statrs::distribution::{ContinuousCDF, Normal};

use super::random::{Random, Use};
use super::step_time::StepTimeError;

/// How irregular steps are: each by a factor of its own, and now and then a pause of the host (garbage collection,
/// another process on its core). By default there is neither.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Jitter {
    /// Standard deviation of the logarithm of a step's time; its mean stays.
    pub sigma: f64,
    /// Share of steps that the host pauses in.
    pub pause_ratio: f64,
    /// Mean of such a pause, exponentially distributed.
    pub pause_seconds: f64,
}

/// What one step has of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawn {
    /// It takes this many times as long.
    pub(super) factor: f64,
    /// And waits so long for the host.
    pub(super) pause_seconds: f64,
}

impl Jitter {
    /// Of the step of this number.
    pub(super) fn draw(&self, random: Random, step: u64) -> Drawn {
        let factor = if self.sigma > 0.0 {
            let normal = Normal::standard().inverse_cdf(random.unit(Use::Jitter, step));
            // the mean of such a factor is 1
            (self.sigma * normal - self.sigma * self.sigma / 2.0).exp()
        } else {
            1.0
        };
        let pauses = self.pause_ratio > 0.0 && random.unit(Use::Pause, step) < self.pause_ratio;
        let pause_seconds = match pauses {
            true => self.pause_seconds * random.exponential(Use::PauseLength, step),
            false => 0.0,
        };
        Drawn {
            factor,
            pause_seconds,
        }
    }

    /// Whether it can be.
    pub(super) fn check(&self) -> Result<(), StepTimeError> {
        let refuse = |name, value, reason| {
            Err(StepTimeError {
                name,
                value,
                reason,
            })
        };
        if !(0.0..=2.0).contains(&self.sigma) {
            return refuse("jitter_sigma", self.sigma, "it is between 0 and 2");
        }
        if !(0.0..=1.0).contains(&self.pause_ratio) {
            let reason = "a share of steps is between 0 and 1";
            return refuse("pause_ratio", self.pause_ratio, reason);
        }
        if !(self.pause_seconds.is_finite() && self.pause_seconds >= 0.0) {
            return refuse("pause_seconds", self.pause_seconds, "seconds are 0 or more");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn steps_differ_and_their_mean_stays() {
        let jitter = Jitter {
            sigma: 0.3,
            pause_ratio: 0.01,
            pause_seconds: 0.05,
        };
        let random = Random::new(5);
        let count = 100_000_u64;
        let drawn: Vec<Drawn> = (0..count).map(|step| jitter.draw(random, step)).collect();
        let mean = |of: fn(&Drawn) -> f64| drawn.iter().map(of).sum::<f64>() / count as f64;
        let factor = mean(|one| one.factor);
        let log = mean(|one| one.factor.ln());
        let spread = mean(|one| one.factor.ln().powi(2)) - log * log;
        assert!((factor - 1.0).abs() < 0.005, "{factor}");
        assert!((spread.sqrt() / 0.3 - 1.0).abs() < 0.02, "{spread}");
        let pauses = drawn.iter().filter(|one| one.pause_seconds > 0.0).count() as f64;
        assert!((pauses / (0.01 * count as f64) - 1.0).abs() < 0.15);
        assert!((mean(|one| one.pause_seconds) / (0.01 * 0.05) - 1.0).abs() < 0.2);
        assert_eq!(drawn.first(), Some(&jitter.draw(random, 0)));
        let even = Jitter::default().draw(random, 7);
        assert_eq!((even.factor, even.pause_seconds), (1.0, 0.0));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let even = Jitter::default();
        assert_eq!(even.check(), Ok(()));
        for (jitter, name) in [
            (
                Jitter {
                    sigma: -0.1,
                    ..even
                },
                "jitter_sigma",
            ),
            (
                Jitter {
                    pause_ratio: f64::NAN,
                    ..even
                },
                "pause_ratio",
            ),
            (
                Jitter {
                    pause_seconds: f64::INFINITY,
                    ..even
                },
                "pause_seconds",
            ),
        ] {
            assert_eq!(jitter.check().unwrap_err().name, name);
        }
    }
}
