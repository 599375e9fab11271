//! How long a step takes.

use super::curve::Curve;
use super::jitter::Jitter;

/// What is computed in one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Batch {
    /// Tokens of prompts, and of what is computed again.
    pub prefill_tokens: u32,
    /// Tokens before each of them, summed: what their attention reads.
    pub prefill_context_tokens: u64,
    /// Requests that one token each is computed for.
    pub decode_sequences: u32,
    /// Tokens guessed ahead for them, beside that one.
    pub speculated_tokens: u32,
    /// Tokens before them, summed: keys and values that are read.
    pub decode_context_tokens: u64,
}

/// Seconds of a step.
///
/// A step reads the weights once, however many tokens it computes: up to the knee it is bound by memory and takes as
/// long as for so many tokens, beyond by computing each (the roofline of a matrix product; Williams, Waterman, Patterson
/// 2009). Attention reads keys and values of what is before each token, and some work is done for each request and each
/// step on the host. Prefill and decode share steps and differ in nothing else (Agrawal et al., Sarathi-Serve, OSDI
/// 2024, section 3). A decode step that no captured graph holds launches kernel by kernel. A [`Curve`] bends this, and a
/// [`Jitter`] makes equal steps differ. Left out: the stairs of tile sizes, and graphs of steps that compute prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Whatever is computed. By default scheduler, launch and sampling are in it.
    pub fixed_seconds: f64,
    /// For each token, of a prompt or decoded.
    pub token_seconds: f64,
    /// Fewer tokens take as long as so many.
    pub knee_tokens: f64,
    /// For each request that decodes, beside its token.
    pub decode_sequence_seconds: f64,
    /// For each token before one that is decoded.
    pub decode_context_token_seconds: f64,
    /// For each token before one of a prompt.
    pub prefill_context_token_seconds: f64,
    /// From a request's arrival until the scheduler knows of it, and from a token until the client has it.
    pub frontend_seconds: f64,
    /// Of every step, outside the accelerator, which waits meanwhile: scheduler, launch, sampling on the host.
    pub host_seconds: f64,
    /// Most sequences of a decode step that captured graphs hold; none where they hold all.
    pub graph_max_sequences: Option<u32>,
    /// A decode step beyond them takes the accelerator this many times as long.
    pub eager_factor: f64,
    /// How time follows the tokens of a step, where not as above.
    pub curve: Curve,
    /// How irregular steps are.
    pub jitter: Jitter,
}

/// A part of [`StepTime`] that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{name} = {value}: {reason}")]
pub struct StepTimeError {
    /// Which.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// What is meant.
    pub reason: &'static str,
}

impl StepTime {
    /// Seconds of this step, without jitter.
    pub fn seconds(&self, batch: &Batch) -> f64 {
        self.device_seconds(batch) + self.host_seconds
    }

    /// Of them, those of the accelerator.
    pub fn device_seconds(&self, batch: &Batch) -> f64 {
        let eager = self.is_eager(batch);
        let sequences = match batch.prefill_tokens == 0 && !eager {
            true => self.curve.sequences(batch.decode_sequences),
            false => batch.decode_sequences,
        };
        let tokens = f64::from(batch.prefill_tokens + sequences + batch.speculated_tokens);
        let seconds = self.fixed_seconds
            + self.token_seconds * self.curve.tokens(tokens, self.knee_tokens)
            + self.decode_sequence_seconds * f64::from(sequences)
            + self.decode_context_token_seconds * batch.decode_context_tokens as f64
            + self.prefill_context_token_seconds * batch.prefill_context_tokens as f64;
        if eager {
            seconds * self.eager_factor
        } else {
            seconds
        }
    }

    /// Whether it is a decode step of more sequences than captured graphs hold.
    pub fn is_eager(&self, batch: &Batch) -> bool {
        batch.prefill_tokens == 0
            && self
                .graph_max_sequences
                .is_some_and(|most| batch.decode_sequences > most)
    }

    /// Whether each part is what it is said to be.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), StepTimeError> {
        const SECONDS: &str = "seconds are 0 or more";
        let parts = [
            ("fixed_seconds", self.fixed_seconds, SECONDS),
            ("token_seconds", self.token_seconds, SECONDS),
            ("knee_tokens", self.knee_tokens, "tokens are 0 or more"),
            (
                "decode_sequence_seconds",
                self.decode_sequence_seconds,
                SECONDS,
            ),
            (
                "decode_context_token_seconds",
                self.decode_context_token_seconds,
                SECONDS,
            ),
            (
                "prefill_context_token_seconds",
                self.prefill_context_token_seconds,
                SECONDS,
            ),
            ("frontend_seconds", self.frontend_seconds, SECONDS),
            ("host_seconds", self.host_seconds, SECONDS),
        ];
        for (name, value, reason) in parts {
            if !(value.is_finite() && value >= 0.0) {
                return Err(StepTimeError {
                    name,
                    value,
                    reason,
                });
            }
        }
        // a step that takes no time would be repeated for ever at one instant
        if self.fixed_seconds == 0.0 {
            return Err(StepTimeError {
                name: "fixed_seconds",
                value: self.fixed_seconds,
                reason: "the fixed part is above 0",
            });
        }
        if !(self.eager_factor.is_finite() && self.eager_factor >= 1.0) {
            return Err(StepTimeError {
                name: "eager_factor",
                value: self.eager_factor,
                reason: "without a graph a step takes 1 or more times as long",
            });
        }
        self.curve.check()?;
        self.jitter.check()
    }
}

impl Default for StepTime {
    /// About an 8-billion-parameter model in 16 bits on one H100: 16 GFLOP a token at 600 TFLOP/s, 16 GB of weights at
    /// 3.35 TB/s (the time of 178 tokens), 128 KiB of keys and values a token.
    fn default() -> Self {
        Self {
            fixed_seconds: 1.5e-3,
            token_seconds: 27e-6,
            knee_tokens: 178.0,
            decode_sequence_seconds: 10e-6,
            decode_context_token_seconds: 45e-9,
            prefill_context_token_seconds: 1e-9,
            frontend_seconds: 2e-3,
            host_seconds: 0.0,
            graph_max_sequences: None,
            eager_factor: 1.0,
            curve: Curve::default(),
            jitter: Jitter::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decodes(decode_sequences: u32) -> Batch {
        Batch {
            decode_sequences,
            decode_context_tokens: 1_000,
            ..Batch::default()
        }
    }

    #[test]
    fn the_host_is_on_top_of_the_accelerator() {
        let plain = StepTime::default();
        let hosted = StepTime {
            host_seconds: 0.02,
            ..plain
        };
        let batch = decodes(4);
        assert_eq!(plain.seconds(&batch), plain.device_seconds(&batch));
        assert_eq!(hosted.device_seconds(&batch), plain.seconds(&batch));
        assert_eq!(hosted.seconds(&batch), plain.seconds(&batch) + 0.02);
    }

    #[test]
    fn decodes_beyond_the_captured_graphs_take_longer_on_the_accelerator() {
        let plain = StepTime::default();
        let captured = StepTime {
            graph_max_sequences: Some(8),
            eager_factor: 3.0,
            host_seconds: 0.01,
            ..plain
        };
        let seconds = |batch: &Batch| captured.seconds(batch) - 0.01;
        let near = |one: f64, other: f64| (one - other).abs() < 1e-12;
        assert!(near(seconds(&decodes(8)), plain.seconds(&decodes(8))));
        assert!(near(seconds(&decodes(9)), 3.0 * plain.seconds(&decodes(9))));
        // a step with prompts in it is none of decode
        let mixed = Batch {
            prefill_tokens: 100,
            ..decodes(9)
        };
        assert!(near(seconds(&mixed), plain.seconds(&mixed)));
        assert!(!captured.is_eager(&mixed) && !plain.is_eager(&decodes(9_000)));
    }

    #[test]
    fn padding_is_of_decode_steps_within_the_graphs() {
        let padded = StepTime {
            curve: Curve {
                padded_decodes: true,
                ..Curve::default()
            },
            graph_max_sequences: Some(16),
            ..StepTime::default()
        };
        let plain = StepTime::default();
        let of_sequence = plain.decode_sequence_seconds;
        let more = |batch: &Batch| padded.seconds(batch) - plain.seconds(batch);
        assert!((more(&decodes(9)) - 7.0 * of_sequence).abs() < 1e-12);
        assert_eq!(more(&decodes(17)), 0.0);
        let mixed = Batch {
            prefill_tokens: 100,
            ..decodes(9)
        };
        assert_eq!(more(&mixed), 0.0);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let plain = StepTime::default();
        assert_eq!(plain.check(), Ok(()));
        for (step_time, name) in [
            (
                StepTime {
                    host_seconds: -1.0,
                    ..plain
                },
                "host_seconds",
            ),
            (
                StepTime {
                    eager_factor: 0.5,
                    ..plain
                },
                "eager_factor",
            ),
            (
                StepTime {
                    knee_tokens: f64::NAN,
                    ..plain
                },
                "knee_tokens",
            ),
            (
                StepTime {
                    fixed_seconds: 0.0,
                    ..plain
                },
                "fixed_seconds",
            ),
            (
                StepTime {
                    jitter: Jitter {
                        sigma: -1.0,
                        ..Jitter::default()
                    },
                    ..plain
                },
                "jitter_sigma",
            ),
            (
                StepTime {
                    curve: Curve {
                        token_exponent: 3.0,
                        ..Curve::default()
                    },
                    ..plain
                },
                "token_exponent",
            ),
        ] {
            assert_eq!(step_time.check().unwrap_err().name, name);
        }
    }
}
