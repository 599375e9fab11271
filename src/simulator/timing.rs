//! How long steps take, as a scenario says it.

use serde::Deserialize;

use crate::model::{Curve, Jitter, Policy, StepTime};

use super::flags::engine_name;
use super::scenario::ScenarioError;

/// How long steps take, in seconds; see [`StepTime`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingPart {
    /// Of every step.
    pub fixed_seconds: Option<f64>,
    /// For each token that is computed.
    pub token_seconds: Option<f64>,
    /// Fewer tokens take as long as so many.
    pub knee_tokens: Option<f64>,
    /// For each token before one of a prompt.
    pub prefill_context_token_seconds: Option<f64>,
    /// For each request that decodes.
    pub decode_sequence_seconds: Option<f64>,
    /// For each token before one that is decoded.
    pub decode_context_token_seconds: Option<f64>,
    /// Outside the scheduler.
    pub frontend_seconds: Option<f64>,
    /// Of every step, outside the accelerator, on top of the rest.
    pub host_seconds: Option<f64>,
    /// Whether the accelerator's own time is shown, where the engine has a switch for it (SGLang).
    pub device_timer: Option<bool>,
    /// Most sequences of a decode step that captured graphs hold.
    pub graph_max_sequences: Option<u32>,
    /// Decode steps beyond them take the accelerator this many times as long.
    pub eager_factor: Option<f64>,
    /// A decode step computes as many sequences as the next captured graph holds: 1, 2, 4, 8, 16, 24 and so on.
    pub padded_decodes: Option<bool>,
    /// How sharp the knee is: 1 adds memory and computing, the larger the sharper.
    pub knee_sharpness: Option<f64>,
    /// Beyond the knee, time grows with this power of the tokens.
    pub token_exponent: Option<f64>,
    /// Standard deviation of the logarithm of a step's time.
    pub jitter_sigma: Option<f64>,
    /// Share of steps that the host pauses in.
    pub pause_ratio: Option<f64>,
    /// Mean of such a pause.
    pub pause_seconds: Option<f64>,
    /// Share of guessed tokens that are right.
    pub acceptance_ratio: Option<f64>,
}

impl TimingPart {
    pub(super) fn step_time(&self) -> Result<StepTime, ScenarioError> {
        if let (None, Some(factor)) = (self.graph_max_sequences, self.eager_factor) {
            return Err(ScenarioError::Number(format!(
                "timing.eager_factor = {factor}: of decode steps beyond timing.graph_max_sequences, which is not given"
            )));
        }
        if let (Some(ratio), None) = (self.pause_ratio, self.pause_seconds) {
            return Err(ScenarioError::Number(format!(
                "timing.pause_ratio = {ratio}: of pauses of timing.pause_seconds, which is not given"
            )));
        }
        let default = StepTime::default();
        Ok(StepTime {
            fixed_seconds: self.fixed_seconds.unwrap_or(default.fixed_seconds),
            token_seconds: self.token_seconds.unwrap_or(default.token_seconds),
            knee_tokens: self.knee_tokens.unwrap_or(default.knee_tokens),
            prefill_context_token_seconds: self
                .prefill_context_token_seconds
                .unwrap_or(default.prefill_context_token_seconds),
            decode_sequence_seconds: self
                .decode_sequence_seconds
                .unwrap_or(default.decode_sequence_seconds),
            decode_context_token_seconds: self
                .decode_context_token_seconds
                .unwrap_or(default.decode_context_token_seconds),
            frontend_seconds: self.frontend_seconds.unwrap_or(default.frontend_seconds),
            host_seconds: self.host_seconds.unwrap_or(default.host_seconds),
            graph_max_sequences: self.graph_max_sequences,
            eager_factor: self.eager_factor.unwrap_or(default.eager_factor),
            curve: Curve {
                padded_decodes: self.padded_decodes.unwrap_or(false),
                knee_sharpness: self.knee_sharpness,
                token_exponent: self.token_exponent.unwrap_or(default.curve.token_exponent),
            },
            jitter: Jitter {
                sigma: self.jitter_sigma.unwrap_or(0.0),
                pause_ratio: self.pause_ratio.unwrap_or(0.0),
                pause_seconds: self.pause_seconds.unwrap_or(0.0),
            },
        })
    }

    pub(super) fn device_timer(&self, engine: Policy) -> Result<bool, ScenarioError> {
        let on = self.device_timer.unwrap_or(false);
        if on && engine != Policy::Sglang {
            return Err(ScenarioError::Number(format!(
                "timing.device_timer = true: {} has no such switch; sglang has",
                engine_name(engine)
            )));
        }
        Ok(on)
    }
}
