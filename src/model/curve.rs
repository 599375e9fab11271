//! How the time of a step follows its tokens, beyond a bound by memory and a straight line.

use super::step_time::StepTimeError;

/// What bends the roofline of [`StepTime`](super::StepTime). By default nothing does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// A decode step computes as many sequences as the next captured graph holds.
    pub padded_decodes: bool,
    /// How sharp the knee is: memory and computing take `(memory^s + computing^s)^(1/s)`. None where the longer of the
    /// two is all of it.
    pub knee_sharpness: Option<f64>,
    /// Beyond the knee, time grows with this power of the tokens.
    pub token_exponent: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            padded_decodes: false,
            knee_sharpness: None,
            token_exponent: 1.0,
        }
    }
}

impl Curve {
    /// Tokens that a step takes as long as, if each took the same time.
    pub(super) fn tokens(&self, tokens: f64, knee: f64) -> f64 {
        let longer = tokens.max(knee);
        let joined = match self.knee_sharpness {
            Some(sharpness) if longer > 0.0 => {
                let shorter = tokens.min(knee) / longer;
                longer * (1.0 + shorter.powf(sharpness)).powf(1.0 / sharpness)
            }
            _ => longer,
        };
        let knee = knee.max(1.0);
        if self.token_exponent == 1.0 || joined <= knee {
            return joined;
        }
        knee * (joined / knee).powf(self.token_exponent)
    }

    /// Sequences that are computed for so many in a decode step.
    pub(super) fn sequences(&self, sequences: u32) -> u32 {
        if self.padded_decodes {
            captured(sequences)
        } else {
            sequences
        }
    }

    /// Whether it can be.
    pub(super) fn check(&self) -> Result<(), StepTimeError> {
        if let Some(value) = self.knee_sharpness
            && !(1.0..=100.0).contains(&value)
        {
            return Err(StepTimeError {
                name: "knee_sharpness",
                value,
                reason: "it is between 1 (both times are added) and 100",
            });
        }
        let value = self.token_exponent;
        if !(0.5..=2.0).contains(&value) {
            return Err(StepTimeError {
                name: "token_exponent",
                value,
                reason: "it is between 0.5 and 2",
            });
        }
        Ok(())
    }
}

/// The least captured size that holds so many sequences: 1, 2, 4, each eighth up to 256, each sixteenth up to 512
/// (`cudagraph_capture_sizes` of vLLM 0.33). Larger ones are not captured.
fn captured(sequences: u32) -> u32 {
    match sequences {
        0..=2 | 513.. => sequences,
        3..=4 => 4,
        5..=256 => sequences.next_multiple_of(8),
        257..=512 => sequences.next_multiple_of(16),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn by_default_it_is_a_roofline() {
        let plain = Curve::default();
        assert_eq!(plain.tokens(10.0, 178.0), 178.0);
        assert_eq!(plain.tokens(500.0, 178.0), 500.0);
        assert_eq!(plain.tokens(0.0, 0.0), 0.0);
        assert_eq!(plain.sequences(9), 9);
        assert_eq!(plain.check(), Ok(()));
    }

    #[test]
    fn a_soft_knee_is_above_both_lines_and_comes_to_them() {
        let soft = Curve {
            knee_sharpness: Some(2.0),
            ..Curve::default()
        };
        let at_knee = soft.tokens(100.0, 100.0);
        assert!((at_knee - 100.0 * 2_f64.sqrt()).abs() < 1e-9);
        for (tokens, line) in [(1.0, 100.0), (10_000.0, 10_000.0)] {
            let found = soft.tokens(tokens, 100.0);
            assert!(found > line && found < line * 1.001, "{found}");
        }
        assert_eq!(soft.tokens(0.0, 0.0), 0.0);
    }

    #[test]
    fn beyond_the_knee_time_grows_with_the_power() {
        let bent = Curve {
            token_exponent: 0.9,
            ..Curve::default()
        };
        assert_eq!(bent.tokens(50.0, 100.0), 100.0);
        let ratio = bent.tokens(800.0, 100.0) / bent.tokens(400.0, 100.0);
        assert!((ratio - 2_f64.powf(0.9)).abs() < 1e-9);
        // without a knee, from one token on
        assert!((bent.tokens(16.0, 0.0) - 16_f64.powf(0.9)).abs() < 1e-9);
    }

    #[test]
    fn batches_are_padded_to_captured_sizes() {
        let padded = Curve {
            padded_decodes: true,
            ..Curve::default()
        };
        let sizes = [0, 1, 2, 3, 5, 8, 9, 250, 257, 512, 600].map(|of| padded.sequences(of));
        assert_eq!(sizes, [0, 1, 2, 4, 8, 8, 16, 256, 272, 512, 600]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let plain = Curve::default();
        for (curve, name) in [
            (
                Curve {
                    knee_sharpness: Some(0.5),
                    ..plain
                },
                "knee_sharpness",
            ),
            (
                Curve {
                    token_exponent: f64::NAN,
                    ..plain
                },
                "token_exponent",
            ),
        ] {
            assert_eq!(curve.check().unwrap_err().name, name);
        }
    }
}
