//! What the paths beside `/metrics` answer.

use serde_json::{Value, json};

use crate::model::Gauges;

use super::{REPORT_STEPS, Sglang, VERSION};

impl Sglang {
    /// What the paths of SGLang's server answer; none for those that it does not have.
    pub(in crate::simulator) fn answer(
        &self,
        path: &str,
        model: &str,
        gauges: &Gauges,
    ) -> Option<Value> {
        let settings = &self.settings;
        match path {
            "/server_info" | "/get_server_info" => Some(json!({
                "version": VERSION,
                "model_path": model,
                "served_model_name": model,
                "max_running_requests": settings.max_num_seqs,
                // null where the cache is what the share of the memory leaves
                "max_total_tokens": self.tokens_are_set.then(|| settings.kv_tokens()),
                "mem_fraction_static": self.memory_share,
                "max_queued_requests": settings.max_num_queued_reqs,
                "page_size": settings.block_size,
                "context_length": settings.max_model_len,
                "chunked_prefill_size": settings.max_num_batched_tokens,
                "schedule_policy": "fcfs",
                "schedule_conservativeness": settings.schedule_conservativeness,
                "disable_radix_cache": !settings.prefix_caching,
                "kv_cache_dtype": "auto",
                "tp_size": 1,
                "pp_size": 1,
                "dp_size": 1,
                "disable_cuda_graph": false,
                "cuda_graph_max_bs_decode": self.graph_max_sequences,
                "decode_log_interval": REPORT_STEPS,
            })),
            "/v1/loads" => Some(json!({
                "version": VERSION,
                "dp_rank_count": 1,
                "loads": [{
                    "dp_rank": 0,
                    "num_running_reqs": gauges.running,
                    "num_waiting_reqs": gauges.waiting,
                    "token_usage": gauges.kv_usage_ratio,
                    "max_total_num_tokens": settings.kv_tokens(),
                    "max_running_requests": settings.max_num_seqs,
                }],
            })),
            "/model_info" => Some(json!({ "model_path": model, "is_generation": true })),
            "/v1/models" => Some(json!({
                "object": "list",
                "data": [{ "id": model, "object": "model", "owned_by": "sglang", "max_model_len": settings.max_model_len }],
            })),
            _ => None,
        }
    }
}
