//! How long a step takes.

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

/// Seconds of a step, linear in what is computed.
///
/// A step reads the weights once, however many tokens it computes (`fixed_seconds`, with the scheduler and the launch),
/// computes each token, and reads keys and values of what is before each. That is the usual model of decode and prefill
/// (Agrawal et al., Sarathi-Serve, OSDI 2024, section 3; Zhong et al., DistServe, OSDI 2024, appendix A). It does not
/// know steps in the curve from tile sizes and captured graphs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Whatever is computed.
    pub fixed_seconds: f64,
    /// For each token of a prompt.
    pub prefill_token_seconds: f64,
    /// For each token before one of a prompt.
    pub prefill_context_token_seconds: f64,
    /// For each request that decodes.
    pub decode_sequence_seconds: f64,
    /// For each token before one that is decoded.
    pub decode_context_token_seconds: f64,
    /// From a request's arrival until the scheduler knows of it, and from a token until the client has it.
    pub frontend_seconds: f64,
}

impl StepTime {
    /// Seconds of this step.
    pub fn seconds(&self, batch: &Batch) -> f64 {
        let decoded = batch.decode_sequences + batch.speculated_tokens;
        self.fixed_seconds
            + self.prefill_token_seconds * f64::from(batch.prefill_tokens)
            + self.prefill_context_token_seconds * batch.prefill_context_tokens as f64
            + self.decode_sequence_seconds * f64::from(decoded)
            + self.decode_context_token_seconds * batch.decode_context_tokens as f64
    }

    /// Whether each part is a time.
    pub fn is_sound(&self) -> bool {
        let parts = [
            self.fixed_seconds,
            self.prefill_token_seconds,
            self.prefill_context_token_seconds,
            self.decode_sequence_seconds,
            self.decode_context_token_seconds,
            self.frontend_seconds,
        ];
        // a step that takes no time would be repeated for ever at one instant
        parts.iter().all(|part| part.is_finite() && *part >= 0.0) && self.fixed_seconds > 0.0
    }
}

impl Default for StepTime {
    /// About an 8-billion-parameter model in 16 bits on one H100: 16 GB of weights at 3.35 TB/s, 16 GFLOP a token at
    /// 600 TFLOP/s, 128 KiB of keys and values a token.
    fn default() -> Self {
        Self {
            fixed_seconds: 6e-3,
            prefill_token_seconds: 27e-6,
            prefill_context_token_seconds: 3e-9,
            decode_sequence_seconds: 40e-6,
            decode_context_token_seconds: 45e-9,
            frontend_seconds: 2e-3,
        }
    }
}
