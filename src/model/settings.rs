//! What an operator sets.

/// Settings of an engine, in the model's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How it admits and schedules.
    pub policy: Policy,
    /// Requests that run at once.
    pub max_num_seqs: u32,
    /// Tokens of one step; with SGLang and TGI, of one prefill.
    pub max_num_batched_tokens: u32,
    /// Blocks of the KV cache that requests can have.
    pub kv_blocks: u32,
    /// Tokens of a block.
    pub block_size: u32,
    /// Prompt and output together are at most this.
    pub max_model_len: u32,
    /// Beginnings of prompts that were computed are kept and used again.
    pub prefix_caching: bool,
    /// A prompt is computed in parts, beside the decodes. Without it a step is either.
    pub chunked_prefill: bool,
    /// The part of a prompt computed in one step; none for no bound.
    pub long_prefill_token_threshold: Option<u32>,
    /// A request begins only if its whole prompt fits (vLLM since 0.19).
    pub reserve_full_prompt: bool,
    /// Requests that may wait, with TGI that may be inside; more are refused. None for no bound.
    pub max_num_queued_reqs: Option<u32>,
    /// Tokens guessed ahead.
    pub speculation: Option<Speculation>,
    /// Of the tokens that running requests may still have, the share that SGLang sets aside, times this.
    pub schedule_conservativeness: f64,
}

/// How an engine admits and schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// vLLM's V1 scheduler: decodes first, then prefills in what is left of the budget; blocks on demand, the newest is
    /// preempted where there are none.
    Vllm,
    /// SGLang: prefills before decodes; room is set aside by an estimate, requests are retracted where it was too low.
    Sglang,
    /// TGI: room for the longest possible output is set aside; a prefill pauses the decodes.
    Tgi,
}

/// Tokens guessed ahead and checked in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speculation {
    /// Guessed in each step.
    pub tokens: u32,
    /// Chance that a guess is right, given that those before it are.
    pub acceptance_ratio: f64,
}

/// Settings that no engine can have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{setting} = {value}: {reason}")]
pub struct SettingsError {
    /// Which.
    pub setting: &'static str,
    /// What it is.
    pub value: String,
    /// Why not, and what is possible.
    pub reason: String,
}

impl Default for Settings {
    /// vLLM's of version 0.33 on a device below 70 GiB, with a KV cache of 16,384 blocks.
    fn default() -> Self {
        Self {
            policy: Policy::Vllm,
            max_num_seqs: 256,
            max_num_batched_tokens: 2_048,
            kv_blocks: 16_384,
            block_size: 16,
            max_model_len: 8_192,
            prefix_caching: true,
            chunked_prefill: true,
            long_prefill_token_threshold: None,
            reserve_full_prompt: true,
            max_num_queued_reqs: None,
            speculation: None,
            schedule_conservativeness: 1.0,
        }
    }
}

impl Settings {
    /// Whether an engine can have them.
    ///
    /// # Errors
    /// The first setting that none can have.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |setting, value: String, reason: String| {
            Err(SettingsError {
                setting,
                value,
                reason,
            })
        };
        for (setting, value) in [
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("kv_blocks", self.kv_blocks),
            ("block_size", self.block_size),
            ("max_model_len", self.max_model_len),
        ] {
            if value == 0 {
                return refuse(
                    setting,
                    value.to_string(),
                    "at least 1 is needed".to_owned(),
                );
            }
        }
        // one token of each has to fit into a step
        if self.policy == Policy::Vllm && self.max_num_batched_tokens < self.max_num_seqs {
            let reason = format!(
                "it is at least max_num_seqs, which is {}",
                self.max_num_seqs
            );
            return refuse(
                "max_num_batched_tokens",
                self.max_num_batched_tokens.to_string(),
                reason,
            );
        }
        if !self.chunked_prefill && self.max_num_batched_tokens < self.max_model_len {
            let reason = format!(
                "without chunked prefill a whole prompt has to fit: at least {}",
                self.max_model_len
            );
            return refuse(
                "max_num_batched_tokens",
                self.max_num_batched_tokens.to_string(),
                reason,
            );
        }
        if self.kv_tokens() < u64::from(self.max_model_len) {
            let reason = format!(
                "one request of max_model_len = {} has to fit into {} tokens of KV cache",
                self.max_model_len,
                self.kv_tokens()
            );
            return refuse("kv_blocks", self.kv_blocks.to_string(), reason);
        }
        if let Some(speculation) = self.speculation
            && !(0.0..=1.0).contains(&speculation.acceptance_ratio)
        {
            let value = speculation.acceptance_ratio.to_string();
            return refuse(
                "acceptance_ratio",
                value,
                "it is between 0 and 1".to_owned(),
            );
        }
        if !(self.schedule_conservativeness.is_finite() && self.schedule_conservativeness >= 0.0) {
            let value = self.schedule_conservativeness.to_string();
            return refuse(
                "schedule_conservativeness",
                value,
                "it is 0 or more".to_owned(),
            );
        }
        Ok(())
    }

    /// Tokens of the KV cache.
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_size)
    }
}
