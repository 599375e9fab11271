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

/// Seconds of a step.
///
/// A step reads the weights once, however many tokens it computes: up to the knee it is bound by memory and takes as
/// long as for so many tokens, beyond by computing each (the roofline of a matrix product; Williams, Waterman, Patterson
/// 2009). Attention reads keys and values of what is before each token, and some work is done for each request and each
/// step on the host. Prefill and decode share steps and differ in nothing else (Agrawal et al., Sarathi-Serve, OSDI
/// 2024, section 3). Left out: the stairs of tile sizes and captured graphs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Whatever is computed: scheduler, launch, sampling.
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
}

impl StepTime {
    /// Seconds of this step.
    pub fn seconds(&self, batch: &Batch) -> f64 {
        let tokens = batch.prefill_tokens + batch.decode_sequences + batch.speculated_tokens;
        self.fixed_seconds
            + self.token_seconds * f64::from(tokens).max(self.knee_tokens)
            + self.decode_sequence_seconds * f64::from(batch.decode_sequences)
            + self.decode_context_token_seconds * batch.decode_context_tokens as f64
            + self.prefill_context_token_seconds * batch.prefill_context_tokens as f64
    }

    /// Whether each part is what it is said to be.
    pub fn is_sound(&self) -> bool {
        let parts = [
            self.fixed_seconds,
            self.token_seconds,
            self.knee_tokens,
            self.decode_sequence_seconds,
            self.decode_context_token_seconds,
            self.prefill_context_token_seconds,
            self.frontend_seconds,
        ];
        // a step that takes no time would be repeated for ever at one instant
        parts.iter().all(|part| part.is_finite() && *part >= 0.0) && self.fixed_seconds > 0.0
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
        }
    }
}
