//! A load that becomes another one.

use super::load::LoadError;

/// From some time on, more or fewer requests come: as many as before times a factor, which is reached evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// In the end there are this many times as many.
    pub factor: f64,
    /// When it begins, in seconds.
    pub from_seconds: f64,
    /// How long it takes; 0 for at once.
    pub over_seconds: f64,
}

impl Drift {
    /// How many times as many there are at this time.
    pub fn factor_at(&self, seconds: f64) -> f64 {
        let since = seconds - self.from_seconds;
        if since < 0.0 {
            1.0
        } else if since >= self.over_seconds {
            self.factor
        } else {
            1.0 + (self.factor - 1.0) * since / self.over_seconds
        }
    }

    /// When as many have come as would have come by `seconds` without it.
    pub(super) fn reached(&self, seconds: f64) -> f64 {
        let more = seconds - self.from_seconds;
        if more <= 0.0 {
            return seconds;
        }
        let in_ramp = self.over_seconds * (1.0 + self.factor) / 2.0;
        let since = if more < in_ramp {
            // since + slope * since² = more
            let slope = (self.factor - 1.0) / (2.0 * self.over_seconds);
            2.0 * more / (1.0 + (1.0 + 4.0 * slope * more).max(0.0).sqrt())
        } else {
            self.over_seconds + (more - in_ramp) / self.factor
        };
        self.from_seconds + since
    }

    /// When the factor is this one, which is between 1 and the last.
    pub(super) fn when(&self, factor: f64) -> f64 {
        self.from_seconds + self.over_seconds * (factor - 1.0) / (self.factor - 1.0)
    }

    /// Whether it can be.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let sound = self.factor.is_finite()
            && (0.01..=100.0).contains(&self.factor)
            && [self.from_seconds, self.over_seconds]
                .iter()
                .all(|seconds| seconds.is_finite() && *seconds >= 0.0);
        if sound {
            return Ok(());
        }
        Err(LoadError(format!(
            "a drift to {} times the load from {} s on over {} s; a factor from 0.01 to 100, and 0 s or more",
            self.factor, self.from_seconds, self.over_seconds
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_inverse_of_what_has_come() {
        for factor in [0.25, 1.0, 3.0] {
            for over_seconds in [0.0, 40.0] {
                let drift = Drift {
                    factor,
                    from_seconds: 20.0,
                    over_seconds,
                };
                // what has come by a time, added up
                let (step, mut come) = (0.001, 0.0);
                for at in 0..120_000 {
                    let time = f64::from(at) * step;
                    if at % 10_000 == 0 {
                        let found = drift.reached(come);
                        assert!((found - time).abs() < 0.01, "{drift:?} {time} {found}");
                    }
                    come += drift.factor_at(time + step / 2.0) * step;
                }
            }
        }
    }

    #[test]
    fn a_factor_has_its_time() {
        let drift = Drift {
            factor: 3.0,
            from_seconds: 20.0,
            over_seconds: 40.0,
        };
        assert_eq!(drift.when(2.0), 40.0);
        assert_eq!(drift.factor_at(40.0), 2.0);
        assert_eq!((drift.factor_at(0.0), drift.factor_at(99.0)), (1.0, 3.0));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let sound = Drift {
            factor: 2.0,
            from_seconds: 0.0,
            over_seconds: 0.0,
        };
        assert!(sound.check().is_ok());
        for wrong in [
            Drift {
                factor: 0.0,
                ..sound
            },
            Drift {
                from_seconds: -1.0,
                ..sound
            },
            Drift {
                over_seconds: f64::NAN,
                ..sound
            },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
