//! What the paths beside `/metrics` answer.

use serde_json::{Value, json};

use super::{VERSION, Vllm};
use crate::model::Policy;
use crate::simulator::memory;

impl Vllm {
    /// vLLM keeps one block back.
    fn blocks(&self) -> u64 {
        u64::from(self.settings.kv_blocks) + 1
    }

    pub(super) fn cache_config(&self) -> Value {
        let settings = &self.settings;
        let tokens = self.blocks() * u64::from(settings.block_size);
        json!({
            "_block_size_resolved": true,
            "block_size": settings.block_size,
            "cache_dtype": "auto",
            "cache_hit_alignment_tokens": null,
            "effective_attention_block_size": settings.block_size,
            "enable_mamba_shared_prefix_checkpoint": false,
            "enable_prefix_caching": settings.prefix_caching,
            "gpu_memory_utilization": memory::share(Policy::Vllm, &self.given),
            "hash_block_size": null,
            "is_attention_free": false,
            "kv_cache_dtype_skip_layers": [],
            "kv_cache_layout": null,
            "kv_cache_max_concurrency": tokens as f64 / f64::from(settings.max_model_len),
            "kv_cache_memory_bytes": null,
            "kv_cache_size_tokens": tokens,
            "kv_offloading_backend": "native",
            "kv_offloading_size": null,
            "kv_sharing_fast_prefill": false,
            "mamba_block_size": null,
            "mamba_cache_dtype": "auto",
            "mamba_cache_mode": "none",
            "mamba_page_size_padded": null,
            "mamba_ssm_cache_dtype": "float32",
            "num_cpu_blocks": null,
            "num_gpu_blocks": self.blocks(),
            "num_gpu_blocks_override": self.given.has("num-gpu-blocks-override").then(|| self.blocks()),
            "prefix_cache_retention_interval": 0,
            "prefix_caching_hash_algo": "sha256",
            "prefix_match_unit": null,
            "replayssm_buffer_len": 16,
            "skip_page_size_padded": null,
            "sliding_window": null,
            "swa_bounded_replay": true,
            "use_kda_recoverssm": false,
            "use_replayssm": false,
            "user_specified_block_size": self.given.has("block-size"),
        })
    }

    /// What the paths of vLLM's server answer; none for those that it does not have.
    pub(in crate::simulator) fn answer(
        &self,
        path: &str,
        query: Option<&str>,
        model: &str,
    ) -> Option<Value> {
        match (path, query) {
            ("/version", _) => Some(json!({ "version": VERSION })),
            ("/server_info", Some("config_format=json")) => Some(self.server_info(model)),
            ("/v1/models", _) => Some(json!({
                "object": "list",
                "data": [{
                    "id": model,
                    "object": "model",
                    "created": self.created_unix_seconds as u64,
                    "owned_by": "vllm",
                    "root": model,
                    "parent": null,
                    "max_model_len": self.settings.max_model_len,
                    "permission": [],
                }],
            })),
            _ => None,
        }
    }

    /// As with `VLLM_SERVER_DEV_MODE=1`.
    fn server_info(&self, model: &str) -> Value {
        let settings = &self.settings;
        let speculative = settings.speculation.map(
            |speculation| json!({ "method": "ngram", "num_speculative_tokens": speculation.tokens }),
        );
        json!({ "vllm_config": {
            "model_config": {
                "model": model,
                "served_model_name": model,
                "dtype": "torch.bfloat16",
                "max_model_len": settings.max_model_len,
                "quantization": null,
                "enforce_eager": false,
            },
            "cache_config": self.cache_config(),
            "parallel_config": {
                "pipeline_parallel_size": 1,
                "tensor_parallel_size": 1,
                "data_parallel_size": 1,
            },
            "scheduler_config": {
                "runner_type": "generate",
                "max_num_batched_tokens": settings.max_num_batched_tokens,
                "max_num_seqs": settings.max_num_seqs,
                "long_prefill_token_threshold": settings.long_prefill_token_threshold.unwrap_or(0),
                "max_num_queued_reqs": settings.max_num_queued_reqs,
                "max_num_queued_tokens": null,
                "enable_chunked_prefill": settings.chunked_prefill,
                "policy": "fcfs",
                "scheduler_reserve_full_isl": settings.reserve_full_prompt,
                "watermark": 0.0,
                "async_scheduling": false,
                "stream_interval": 1,
            },
            "speculative_config": speculative,
        } })
    }
}

/// `str()` of Python.
pub(super) fn python_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
