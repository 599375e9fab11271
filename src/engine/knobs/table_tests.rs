//! What holds of all knob tables.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::engine::Registry;

#[test]
fn tables_are_consistent() {
    for profile in Registry::builtin().iter() {
        for (at, knob) in profile.knobs.iter().enumerate() {
            let told = format!("{} {}", profile.name, knob.name);
            let others = || profile.knobs.iter().skip(at + 1);
            assert!(others().all(|other| other.name != knob.name), "{told}");
            let shares = |other: &Knob| {
                other.flag == knob.flag && !other.shares_its_flag() && !other.derived
            };
            assert!(knob.derived || !others().any(shares), "{told}: flag");
            assert!(knob.derived || knob.flag.starts_with("--"), "{told}");
            let values = knob.defaults.iter().flat_map(|rule| match &rule.fact {
                DefaultFact::Is(value) => std::slice::from_ref(value),
                DefaultFact::OneOf(values, _) => values,
                DefaultFact::Chosen(_) | DefaultFact::NotSet => &[],
            });
            for value in values {
                // in the spelling that a check gives
                assert_eq!(knob.check(value).as_deref(), Ok(*value), "{told}");
            }
            let known = knob.derived || !knob.defaults.is_empty();
            assert!(known, "{told}: no default");
            let ends = knob.since.zip(knob.until);
            assert!(ends.is_none_or(|(since, until)| since < until), "{told}");
            let ordered = knob.defaults.is_sorted_by_key(|rule| rule.since);
            assert!(ordered, "{told}: defaults out of order");
            for rule in &knob.defaults {
                assert!(
                    rule.since.is_none_or(|since| knob.is_in(Some(since))),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn knobs_are_in_the_versions_that_have_them() {
    let registry = Registry::builtin();
    // last version without, first version with
    for (engine, name, without, with) in [
        ("vllm", "max_num_active_seqs", "0.30.0", "0.31.0"),
        ("vllm", "prefill_schedule_interval", "0.23.0", "0.24.0"),
        ("vllm", "scheduler_reserve_full_isl", "0.18.0", "0.19.0"),
        ("vllm", "watermark", "0.23.0", "0.24.0"),
        ("vllm", "max_num_queued_reqs", "0.28.0", "0.29.0"),
        ("vllm", "max_num_queued_tokens", "0.28.0", "0.29.0"),
        ("vllm", "async_scheduling", "0.9.2", "0.10.0"),
        ("vllm", "stream_interval", "0.11.0", "0.11.1"),
        ("vllm", "kv_cache_memory_bytes", "0.10.1", "0.10.2"),
        ("vllm", "api_server_count", "0.9.0", "0.9.1"),
        ("vllm", "performance_mode", "0.16.0", "0.17.0"),
        ("vllm", "swap_space", "0.18.0", "0.17.1"),
        ("vllm", "cuda_graph_sizes", "0.11.1", "0.11.0"),
        ("vllm", "max_cudagraph_capture_size", "0.11.0", "0.11.1"),
        ("sglang", "cuda_graph_max_bs", "0.5.20", "0.5.15"),
        ("sglang", "cuda_graph_max_bs_decode", "0.5.12", "0.5.15"),
        ("sglang", "prefill_decode_interval", "0.5.15", "0.5.20"),
        ("sglang", "speculative_adaptive", "0.5.10", "0.5.12"),
    ] {
        let knob = registry.get(engine).unwrap().knob(name).unwrap();
        assert!(!knob.is_in(without.parse().ok()), "{name} in {without}");
        assert!(knob.is_in(with.parse().ok()), "{name} not in {with}");
        assert_eq!(knob.is_in(None), knob.until.is_none(), "{name}");
    }
    // those that levers reach for, in all versions
    for (engine, names) in [
        (
            "vllm",
            "max_num_seqs max_num_batched_tokens gpu_memory_utilization kv_cache_dtype enable_prefix_caching \
             long_prefill_token_threshold policy quantization tensor_parallel_size data_parallel_size max_loras",
        ),
        (
            "sglang",
            "max_running_requests chunked_prefill_size mem_fraction_static schedule_conservativeness \
             disable_radix_cache kv_cache_dtype quantization tp_size dp_size enable_mixed_chunk",
        ),
        (
            "tgi",
            "max_concurrent_requests max_batch_prefill_tokens max_batch_size cuda_graphs speculate quantize \
             kv_cache_dtype num_shard cuda_memory_fraction max_batch_total_tokens max_total_tokens",
        ),
    ] {
        let profile = registry.get(engine).unwrap();
        for name in names.split_whitespace() {
            let knob = profile.knob(name).unwrap();
            assert_eq!((knob.since, knob.until), (None, None), "{engine} {name}");
            assert!(!knob.trades.is_empty(), "{engine} {name}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_version() {
    let registry = Registry::builtin();
    let default = |engine: &str, name: &str, version: &str| {
        let profile = registry.get(engine).unwrap();
        profile.knob(name).unwrap().default_in(version.parse().ok())
    };
    let certain = |value: &str| DefaultValue::Certain(value.to_owned());
    assert_eq!(
        default("vllm", "gpu_memory_utilization", "0.19.1"),
        certain("0.9")
    );
    assert_eq!(
        default("vllm", "gpu_memory_utilization", "0.20.0"),
        certain("0.92")
    );
    assert_eq!(
        default("vllm", "async_scheduling", "0.13.0"),
        certain("false")
    );
    assert_eq!(
        default("vllm", "async_scheduling", "0.14.0"),
        DefaultValue::Chosen
    );
    assert_eq!(
        default("vllm", "max_num_queued_reqs", "0.32.0"),
        DefaultValue::NotSet
    );
    assert!(matches!(
        default("vllm", "max_num_seqs", "0.32.0"),
        DefaultValue::OneOf(_)
    ));
    assert!(matches!(
        default("sglang", "chunked_prefill_size", "0.5.23"),
        DefaultValue::OneOf(_)
    ));
    assert_eq!(
        default("tgi", "max_concurrent_requests", "3.3.6"),
        certain("128")
    );
}
