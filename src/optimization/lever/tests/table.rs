//! Which lever treats what.

use crate::analysis::Cause;
use crate::optimization::lever::example::Case;
use crate::optimization::{Expectation, Proposal};

use super::changes_something;

/// Engine, version, cause, settings in force → lever and the flag that its first change sets.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Cause, &str, &str, &str)] = &[
    ("vllm", "0.33.0", Cause::SequenceCap, "max_num_seqs=32", "sequence_cap", "--max-num-seqs"),
    ("sglang", "0.5.23", Cause::SequenceCap, "max_running_requests=16", "sequence_cap", "--max-running-requests"),
    ("tgi", "3.3.6", Cause::SequenceCap, "max_batch_size=16", "sequence_cap", "--max-batch-size"),
    ("vllm", "0.8.5", Cause::BatchTooLarge, "max_num_seqs=512", "sequence_cap", "--max-num-seqs"),
    ("vllm", "0.33.0", Cause::KvCapacity, "max_num_seqs=64", "sequence_cap", "--max-num-seqs"),
    ("vllm", "0.33.0", Cause::TokenBudget, "max_num_batched_tokens=512", "token_budget", "--max-num-batched-tokens"),
    ("sglang", "0.5.23", Cause::PrefillBound, "chunked_prefill_size=2048", "token_budget", "--chunked-prefill-size"),
    ("tgi", "3.3.6", Cause::PrefillBound, "max_batch_prefill_tokens=4096", "token_budget", "--max-batch-prefill-tokens"),
    ("vllm", "0.33.0", Cause::Capacity, "max_num_batched_tokens=2048", "token_budget", "--max-num-batched-tokens"),
    ("vllm", "0.33.0", Cause::PrefillInterference, "max_num_batched_tokens=8192", "token_budget", "--max-num-batched-tokens"),
    ("vllm", "0.33.0", Cause::HeadOfLine, "", "long_prefill", "--long-prefill-token-threshold"),
    ("sglang", "0.5.23", Cause::HeadOfLine, "", "long_prefill", "--schedule-policy"),
    ("vllm", "0.24.0", Cause::PrefillInterference, "", "prefill_pacing", "--prefill-schedule-interval"),
    ("sglang", "0.5.23", Cause::PrefillInterference, "", "prefill_pacing", "--enable-mixed-chunk"),
    ("vllm", "0.33.0", Cause::KvCapacity, "gpu_memory_utilization=0.9", "kv_capacity", "--gpu-memory-utilization"),
    ("vllm", "0.33.0", Cause::KvCapacity, "gpu_memory_utilization=0.9 kv_cache_memory_bytes=1073741824", "kv_capacity", "--kv-cache-memory-bytes"),
    ("vllm", "0.33.0", Cause::KvNearCapacity, "gpu_memory_utilization=0.9 num_gpu_blocks_override=64", "kv_capacity", "--num-gpu-blocks-override"),
    ("sglang", "0.5.23", Cause::KvCapacity, "mem_fraction_static=0.8", "kv_capacity", "--mem-fraction-static"),
    ("tgi", "3.3.6", Cause::KvCapacity, "cuda_memory_fraction=0.5", "kv_capacity", "--cuda-memory-fraction"),
    ("vllm", "0.33.0", Cause::KvCapacity, "kv_cache_dtype=auto", "kv_dtype", "--kv-cache-dtype"),
    ("vllm", "0.33.0", Cause::PrefixCacheOff, "enable_prefix_caching=false block_size=16", "prefix_cache", "--enable-prefix-caching"),
    ("sglang", "0.5.23", Cause::PrefixCacheOff, "disable_radix_cache=true", "prefix_cache", "--disable-radix-cache"),
    ("sglang", "0.5.23", Cause::ColdPrefixCache, "schedule_policy=fcfs", "prefix_cache", "--schedule-policy"),
    ("vllm", "0.33.0", Cause::AdmissionLimit, "max_num_queued_reqs=8", "admission", "--max-num-queued-reqs"),
    ("tgi", "3.3.6", Cause::AdmissionLimit, "max_concurrent_requests=128", "admission", "--max-concurrent-requests"),
    ("vllm", "0.13.0", Cause::HostBound, "async_scheduling=false", "scheduling", "--async-scheduling"),
    ("sglang", "0.5.23", Cause::HostBound, "disable_overlap_schedule=true", "scheduling", "--disable-overlap-schedule"),
    ("vllm", "0.33.0", Cause::SpeculationLoss, "num_speculative_tokens=5 speculative_method=eagle", "speculation", "--speculative-config"),
    ("sglang", "0.5.23", Cause::SpeculationLoss, "speculative_num_steps=4", "speculation", "--speculative-algorithm"),
    ("vllm", "0.33.0", Cause::DecodeBound, "num_speculative_tokens=", "speculation", "--speculative-config"),
    ("vllm", "0.33.0", Cause::DecodeBound, "quantization=", "quantization", "--quantization"),
    ("tgi", "3.3.6", Cause::Capacity, "quantize=", "quantization", "--quantize"),
    ("vllm", "0.33.0", Cause::DecodeBound, "tensor_parallel_size=1", "parallelism", "--tensor-parallel-size"),
    ("vllm", "0.33.0", Cause::Frontend, "", "frontend", "--api-server-count"),
    ("sglang", "0.5.23", Cause::Frontend, "", "frontend", "--tokenizer-worker-num"),
    ("tgi", "3.3.6", Cause::Frontend, "validation_workers=2", "frontend", "--validation-workers"),
    ("sglang", "0.5.23", Cause::GraphCeiling, "cuda_graph_max_bs_decode=32", "graph_range", "--cuda-graph-max-bs-decode"),
    ("sglang", "0.5.10", Cause::GraphCeiling, "cuda_graph_max_bs=32", "graph_range", "--cuda-graph-max-bs"),
    ("vllm", "0.33.0", Cause::HostBound, "enforce_eager=true", "graph_range", "--enforce-eager"),
    ("tgi", "3.3.6", Cause::GraphCeiling, "", "graph_range", "--cuda-graphs"),
];

fn case(engine: &str, version: &str, cause: Cause, settings: &str) -> Case {
    let case = Case::new(engine, version, &[cause]);
    settings.split_whitespace().fold(case, |case, setting| {
        let (name, value) = setting.split_once('=').unwrap();
        case.set(name, value)
    })
}

#[test]
fn each_cause_has_its_lever_and_flag() {
    for (engine, version, cause, settings, lever, flag) in TABLE {
        let families = case(engine, version, *cause, settings).of(lever);
        let family = families
            .first()
            .unwrap_or_else(|| panic!("{engine} {cause:?}: no {lever}"));
        let guide = &family.alternatives[family.without_prediction];
        assert_eq!(guide.changes[0].flag, *flag, "{engine} {cause:?}");
        for one in families.iter().flat_map(|family| &family.alternatives) {
            well_formed(one, *cause);
        }
    }
}

fn well_formed(one: &Proposal, cause: Cause) {
    assert_eq!(one.treats, [cause]);
    for change in &one.changes {
        assert!(changes_something(change), "{}", one.title);
        assert!(change.flag.starts_with("--"), "{}", one.title);
    }
    let texts = one.risks.iter().chain(&one.watch).chain(&one.prerequisites);
    for text in texts.chain([&one.reason, &one.undo]) {
        assert!(
            text.ends_with(['.', '!']) && text.len() > 8,
            "{}: `{text}`",
            one.title
        );
    }
    assert!(
        !one.watch.is_empty() && !one.undo.is_empty(),
        "{}",
        one.title
    );
    assert_eq!(one.needs_restart, !one.changes.is_empty(), "{}", one.title);
    if let Expectation::NotPredictable(why) = &one.expectation {
        assert!(why.ends_with('.'), "{}", one.title);
    }
}
