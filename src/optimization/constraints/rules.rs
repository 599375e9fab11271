//! The rules of each engine, from its own checks at the start (vLLM `config/scheduler.py`, SGLang
//! `arg_groups/validation_hook.py`, TGI `launcher/src/main.rs`).

use super::after::{After, Number};

/// A rule over settings.
#[derive(Debug)]
pub(super) struct Rule {
    /// As a sentence without its point.
    pub(super) says: &'static str,
    /// What it is about: changes of others do not break it.
    pub(super) knobs: &'static [&'static str],
    pub(super) holds: fn(&After<'_>) -> Holds,
}

/// Whether a rule holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Holds {
    Yes,
    /// What to see to, in words.
    Unknown(String),
    No {
        /// A change that would mend it: name of the knob, value.
        mend: Option<(&'static str, String)>,
        /// What to do, in words.
        instead: String,
    },
}

/// The rules of an engine.
pub(super) fn of(engine: &str) -> &'static [Rule] {
    match engine {
        "vllm" => VLLM,
        "sglang" => SGLANG,
        "tgi" => TGI,
        _ => &[],
    }
}

const VLLM: &[Rule] = &[
    Rule {
        says: "A step takes a token of each request at least, so the token budget is no less than the sequence cap",
        knobs: &["max_num_seqs", "max_num_batched_tokens"],
        holds: |after| after.at_most("max_num_seqs", "max_num_batched_tokens", true),
    },
    Rule {
        says: "Without chunked prefill a step takes a whole prompt, so the token budget is no less than the model's length",
        knobs: &[
            "max_num_batched_tokens",
            "max_model_len",
            "enable_chunked_prefill",
        ],
        holds: |after| match after.is_on("enable_chunked_prefill") {
            Some(true) => Holds::Yes,
            Some(false) => after.at_most("max_model_len", "max_num_batched_tokens", true),
            // on wherever the model supports it: only a clash is worth a word
            None => match after.at_most("max_model_len", "max_num_batched_tokens", false) {
                Holds::No { instead, .. } => {
                    Holds::Unknown(format!("see that chunked prefill is on, or {instead}"))
                }
                Holds::Yes | Holds::Unknown(_) => Holds::Yes,
            },
        },
    },
    Rule {
        says: "No more requests are active than the sequence cap has room for",
        knobs: &["max_num_active_seqs", "max_num_seqs"],
        holds: |after| after.at_most("max_num_active_seqs", "max_num_seqs", false),
    },
    Rule {
        says: "The threshold of long prompts is no more than the model's length",
        knobs: &["long_prefill_token_threshold", "max_model_len"],
        holds: |after| match after.number("long_prefill_token_threshold") {
            // no bound
            Number::Known(0.0) => Holds::Yes,
            _ => after.at_most("long_prefill_token_threshold", "max_model_len", false),
        },
    },
    Rule {
        says: "--gpu-memory-utilization has no effect while --kv-cache-memory-bytes is set",
        knobs: &["gpu_memory_utilization"],
        holds: |after| match after.is_set("kv_cache_memory_bytes") {
            Some(false) => Holds::Yes,
            Some(true) => Holds::No {
                mend: None,
                instead: "change --kv-cache-memory-bytes".to_owned(),
            },
            None => Holds::Unknown(
                "see that --kv-cache-memory-bytes is not set, which nobody tells".to_owned(),
            ),
        },
    },
    Rule {
        says: "Asynchronous scheduling does not go with pipeline parallelism",
        knobs: &["async_scheduling", "pipeline_parallel_size"],
        holds: |after| {
            let several = after.several("pipeline_parallel_size");
            after.not_both(
                ("async_scheduling", after.is_on("async_scheduling")),
                ("pipeline_parallel_size", several),
                None,
            )
        },
    },
    Rule {
        says: "Guessing tokens takes a method and their number",
        knobs: &["num_speculative_tokens", "speculative_method"],
        holds: |after| {
            let both = (
                after.is_set("num_speculative_tokens"),
                after.is_set("speculative_method"),
            );
            match both {
                (Some(tokens), Some(method)) if tokens == method => Holds::Yes,
                (Some(_), Some(_)) => Holds::No {
                    mend: None,
                    instead: "set both or neither".to_owned(),
                },
                _ => Holds::Unknown(
                    "see that --speculative-config has both; nobody tells".to_owned(),
                ),
            }
        },
    },
    Rule {
        says: "Without graphs their sizes have no effect",
        knobs: &["max_cudagraph_capture_size", "cuda_graph_sizes"],
        holds: |after| {
            after.not_both(
                (
                    "max_cudagraph_capture_size",
                    after.sets_any(&["max_cudagraph_capture_size", "cuda_graph_sizes"]),
                ),
                ("enforce_eager", after.is_on("enforce_eager")),
                None,
            )
        },
    },
];

const SGLANG: &[Rule] = &[
    Rule {
        says: "Chunks of prompts end where pages end, so the chunk size is a multiple of the page size",
        knobs: &["chunked_prefill_size", "page_size"],
        holds: |after| match (
            after.number("chunked_prefill_size"),
            after.number("page_size"),
        ) {
            (Number::Known(chunk), _) if chunk <= 0.0 => Holds::Yes,
            (_, Number::Known(1.0)) => Holds::Yes,
            (Number::Known(chunk), Number::Known(page)) if chunk % page == 0.0 => Holds::Yes,
            (Number::Known(chunk), Number::Known(page)) => Holds::No {
                mend: None,
                instead: format!(
                    "set --chunked-prefill-size to {}",
                    (chunk / page).ceil() * page
                ),
            },
            _ => Holds::Unknown(
                "see that --page-size divides --chunked-prefill-size; nobody tells both".to_owned(),
            ),
        },
    },
    Rule {
        says: "Pipeline parallelism does not go with the overlap of steps",
        knobs: &["pp_size", "disable_overlap_schedule"],
        holds: |after| {
            after.not_both(
                ("pp_size", after.several("pp_size")),
                (
                    "disable_overlap_schedule",
                    after.is_on("disable_overlap_schedule").map(|off| !off),
                ),
                Some(("disable_overlap_schedule", "true")),
            )
        },
    },
    Rule {
        says: "Guessing tokens goes with pipeline parallelism in special set-ups only",
        knobs: &["pp_size", "speculative_algorithm"],
        holds: |after| {
            after.not_both(
                ("pp_size", after.several("pp_size")),
                (
                    "speculative_algorithm",
                    after.is_set("speculative_algorithm"),
                ),
                None,
            )
        },
    },
    Rule {
        says: "Mixing prompts into decodes takes prompts in chunks",
        knobs: &["enable_mixed_chunk", "chunked_prefill_size"],
        holds: |after| {
            let whole = match after.number("chunked_prefill_size") {
                Number::Known(size) => Some(size <= 0.0),
                // by default there are chunks
                Number::NotSet | Number::Unknown => Some(false),
            };
            after.not_both(
                ("enable_mixed_chunk", after.is_on("enable_mixed_chunk")),
                ("chunked_prefill_size", whole),
                None,
            )
        },
    },
    Rule {
        says: "Mixing prompts into decodes does not go with every way of guessing tokens",
        knobs: &["enable_mixed_chunk", "speculative_algorithm"],
        holds: |after| {
            after.not_both(
                ("enable_mixed_chunk", after.is_on("enable_mixed_chunk")),
                (
                    "speculative_algorithm",
                    after.is_set("speculative_algorithm"),
                ),
                None,
            )
        },
    },
    Rule {
        says: "The cache in the host's memory extends the prefix cache, which must be on",
        knobs: &["enable_hierarchical_cache", "disable_radix_cache"],
        holds: |after| {
            after.not_both(
                (
                    "enable_hierarchical_cache",
                    after.is_on("enable_hierarchical_cache"),
                ),
                ("disable_radix_cache", after.is_on("disable_radix_cache")),
                None,
            )
        },
    },
    Rule {
        says: "Without graphs their sizes have no effect",
        knobs: &["cuda_graph_max_bs", "cuda_graph_max_bs_decode"],
        holds: |after| {
            after.not_both(
                (
                    "cuda_graph_max_bs_decode",
                    after.sets_any(&["cuda_graph_max_bs_decode", "cuda_graph_max_bs"]),
                ),
                ("disable_cuda_graph", after.is_on("disable_cuda_graph")),
                None,
            )
        },
    },
    Rule {
        says: "The number of guesses has no effect without a way of guessing",
        knobs: &[
            "speculative_num_steps",
            "speculative_eagle_topk",
            "speculative_num_draft_tokens",
        ],
        holds: |after| {
            let any = [
                "speculative_num_steps",
                "speculative_eagle_topk",
                "speculative_num_draft_tokens",
            ]
            .iter()
            .any(|name| after.is_changed(name) && after.is_set(name) == Some(true));
            match after.is_set("speculative_algorithm").filter(|_| any) {
                Some(false) => Holds::No {
                    mend: None,
                    instead: "set --speculative-algorithm".to_owned(),
                },
                Some(true) => Holds::Yes,
                None if any => Holds::Unknown(
                    "see that --speculative-algorithm is set, which nobody tells".to_owned(),
                ),
                None => Holds::Yes,
            }
        },
    },
];

const TGI: &[Rule] = &[
    Rule {
        says: "A prompt leaves room for a token of output, so it is shorter than the whole request may be",
        knobs: &["max_input_tokens", "max_total_tokens"],
        holds: |after| after.below("max_input_tokens", "max_total_tokens", false),
    },
    Rule {
        says: "A batch takes one request at least, so its tokens are no fewer than those of a request",
        knobs: &["max_total_tokens", "max_batch_total_tokens"],
        holds: |after| after.at_most("max_total_tokens", "max_batch_total_tokens", false),
    },
    Rule {
        says: "A prefill takes a whole prompt, so its tokens are no fewer than those of a prompt",
        knobs: &["max_input_tokens", "max_batch_prefill_tokens"],
        holds: |after| after.at_most("max_input_tokens", "max_batch_prefill_tokens", true),
    },
    Rule {
        says: "A prefill is part of a batch, so its tokens are no more than those of the batch",
        knobs: &["max_batch_prefill_tokens", "max_batch_total_tokens"],
        holds: |after| after.at_most("max_batch_prefill_tokens", "max_batch_total_tokens", false),
    },
    Rule {
        says: "TGI takes either a type of the weights or a quantization",
        knobs: &["dtype", "quantize"],
        holds: |after| {
            after.not_both(
                ("dtype", after.is_set("dtype")),
                ("quantize", after.is_set("quantize")),
                None,
            )
        },
    },
];
