//! vLLM: full for 0.8 to 0.33, V0 and V1; older ones by their aliases.
//!
//! Names, versions and pitfalls were read from vLLM's own sources and from recorded scrapes; the test
//! `aliases_occur_in_published_packages` holds them against names extracted from published packages.

use super::alias::{Alias, Combine, Part, Term};
use super::knobs;
use super::knobs::vllm::{MODELS, SERVER_INFO};
use super::profile::{EngineProfile, ProfileBuilder, VersionSource};
use super::quantity::Quantity as Q;
use super::settings::Endpoint;
use super::version::Version;

pub(super) fn profile() -> EngineProfile {
    let mut profile = ProfileBuilder {
        name: "vllm".into(),
        title: "vLLM".into(),
        versions: "0.8 to 0.33 in full, older ones by their aliases".into(),
        prefixes: vec!["vllm:".into()],
        aliases: [tokens(), requests(), scheduler(), gauges(), latencies()].concat(),
        no_metrics_hint:
            "vLLM serves /metrics on its API port; --disable-log-stats takes its metrics away"
                .into(),
    }
    .build()
    .with_total_suffix()
    .with_knobs(knobs::vllm::knobs());
    profile.markers = vec![
        ("vllm:mm_cache_queries".into(), Version::new(0, 11, 1)),
        ("vllm:prompt_tokens_cached".into(), Version::new(0, 16, 0)),
    ];
    profile.disconnects_leave_no_finish = true;
    profile.recounts_after_preemption = true;
    profile.settings_family = Some("vllm:cache_config_info".into());
    profile.endpoints = [VERSION, SERVER_INFO, MODELS]
        .map(|path| Endpoint {
            path: path.into(),
            fallback: false,
        })
        .into();
    profile.settings_hint =
        "Start vLLM with VLLM_SERVER_DEV_MODE=1, with which /server_info tells its settings".into();
    profile.version_sources = vec![VersionSource {
        path: VERSION.into(),
        pointer: "/version".into(),
    }];
    profile
}

const VERSION: &str = "/version";

fn tokens() -> Vec<Alias> {
    vec![
        Alias::value(Q::PromptTokens, "vllm:prompt_tokens").lazy(),
        Alias::value(Q::PrefillTokens, "vllm:prompt_tokens_by_source")
            .only("source", &["local_compute"])
            .since(0, 16, 0),
        Alias::value(Q::GenerationTokens, "vllm:generation_tokens").lazy(),
        Alias::value(Q::PrefixCacheQueries, "vllm:prefix_cache_queries").since(0, 9, 2),
        Alias::value(Q::PrefixCacheQueries, "vllm:gpu_prefix_cache_queries")
            .since(0, 7, 3)
            .until(0, 11, 1),
        Alias::value(Q::PrefixCacheHits, "vllm:prefix_cache_hits").since(0, 9, 2),
        Alias::value(Q::PrefixCacheHits, "vllm:gpu_prefix_cache_hits")
            .since(0, 7, 3)
            .until(0, 11, 1),
        Alias::value(
            Q::ExternalCacheQueries,
            "vllm:external_prefix_cache_queries",
        )
        .since(0, 11, 1),
        Alias::value(Q::ExternalCacheHits, "vllm:external_prefix_cache_hits").since(0, 11, 1),
    ]
}

fn requests() -> Vec<Alias> {
    const FINISHED: &str = "vllm:request_success";
    let finished = |quantity, reasons: &[&'static str]| {
        Alias::value(quantity, FINISHED).only("finished_reason", reasons)
    };
    vec![
        // despite its name the family counts every reason
        Alias::value(Q::RequestsFinished, FINISHED).lazy(),
        finished(Q::RequestsSucceeded, &["stop", "length"]).lazy(),
        finished(Q::RequestsStopped, &["stop"]).lazy(),
        finished(Q::RequestsLength, &["length"]).lazy(),
        // V1 does not count clients that went away here: see `requests_disconnected_increase`
        finished(Q::RequestsAborted, &["abort"])
            .lazy()
            .approximate(),
        finished(Q::RequestsErrored, &["error"]).since(0, 13, 0),
        finished(Q::RequestsRepetition, &["repetition"]).since(0, 22, 0),
        Alias::value(Q::RequestsRejected, "vllm:admission_rejections").since(0, 32, 0),
        // 0.20 reports clients' mistakes as 5xx here, so these never count as failures of the engine
        Alias::value(Q::RequestsInvalid, "http_requests")
            .only("status", &["4xx"])
            .only("handler", GENERATING)
            .lazy_in_family()
            .since(0, 9, 2)
            .approximate(),
        Alias::value(Q::HttpServerErrors, "http_requests")
            .only("status", &["5xx"])
            // V0 of the same versions has no HTTP families
            .lazy_in_family()
            .since(0, 9, 2)
            .approximate(),
    ]
}

/// Paths that take generation requests.
const GENERATING: &[&str] = &[
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/generate",
];

fn scheduler() -> Vec<Alias> {
    const SPECULATION: &str = "appears when a speculative config is set";
    vec![
        Alias::value(Q::Preemptions, "vllm:num_preemptions").lazy(),
        Alias::value(Q::SpeculationDrafts, "vllm:spec_decode_num_drafts")
            .since(0, 8, 5)
            .hint(SPECULATION),
        Alias::value(
            Q::SpeculationDraftTokens,
            "vllm:spec_decode_num_draft_tokens",
        )
        .hint(SPECULATION),
        Alias::value(
            Q::SpeculationAcceptedTokens,
            "vllm:spec_decode_num_accepted_tokens",
        )
        .hint(SPECULATION),
        Alias::unsupported(Q::GraphPasses, "vLLM prints CUDA-graph use only to its log"),
        Alias::unsupported(
            Q::GraphDecodePasses,
            "vLLM prints CUDA-graph use only to its log (--cudagraph-metrics)",
        ),
    ]
}

fn gauges() -> Vec<Alias> {
    const WAITING: &str = "vllm:num_requests_waiting_by_reason";
    let capacity = |labels: &[&'static str]| {
        labels
            .iter()
            .map(|label| Term::part("vllm:cache_config_info", Part::Label((*label).into())))
            .collect()
    };
    vec![
        Alias::value(Q::RequestsRunning, "vllm:num_requests_running"),
        Alias::value(Q::RequestsWaiting, "vllm:num_requests_waiting"),
        Alias::value(Q::RequestsWaitingCapacity, WAITING)
            .only("reason", &["capacity"])
            .since(0, 20, 0),
        Alias::value(Q::RequestsWaitingDeferred, WAITING)
            .only("reason", &["deferred"])
            .since(0, 20, 0),
        Alias::value(Q::RequestsSwapped, "vllm:num_requests_swapped").until(0, 9, 0),
        Alias::value(Q::KvCacheUsage, "vllm:kv_cache_usage_perc").since(0, 9, 2),
        Alias::value(Q::KvCacheUsage, "vllm:gpu_cache_usage_perc").until(0, 11, 1),
        Alias::new(Q::KvCapacityTokens, capacity(&["kv_cache_size_tokens"]))
            .combine(Combine::Product)
            .since(0, 32, 0),
        // hybrid models have groups of other block sizes, and one block is kept back
        Alias::new(
            Q::KvCapacityTokens,
            capacity(&["num_gpu_blocks", "block_size"]),
        )
        .combine(Combine::Product)
        .approximate(),
        Alias::value(
            Q::ReportedTokensPerSecond,
            "vllm:avg_generation_throughput_toks_per_s",
        )
        .until(0, 6, 6),
        Alias::value(Q::ReportedHitRatio, "vllm:gpu_prefix_cache_hit_rate").until(0, 9, 0),
        Alias::value(
            Q::ReportedAcceptanceRatio,
            "vllm:spec_decode_draft_acceptance_rate",
        )
        .until(0, 9, 2),
        Alias::value(Q::EngineAwake, "vllm:engine_sleep_state")
            .only("sleep_state", &["awake"])
            .since(0, 11, 1),
    ]
}

fn latencies() -> Vec<Alias> {
    let lazy = |quantity, family| Alias::distribution(quantity, family).lazy();
    vec![
        lazy(Q::TimeToFirstToken, "vllm:time_to_first_token_seconds"),
        lazy(Q::InterTokenLatency, "vllm:inter_token_latency_seconds").since(0, 10, 2),
        // the same samples under their old name; the per-request TPOT is another, newer metric
        lazy(Q::InterTokenLatency, "vllm:time_per_output_token_seconds").until(0, 14, 0),
        Alias::distribution(
            Q::TimePerOutputToken,
            "vllm:request_time_per_output_token_seconds",
        )
        .since(0, 11, 0),
        lazy(Q::EndToEndLatency, "vllm:e2e_request_latency_seconds"),
        lazy(Q::QueueTime, "vllm:request_queue_time_seconds").since(0, 6, 6),
        Alias::distribution(Q::QueueTime, "vllm:time_in_queue_requests").until(0, 9, 0),
        lazy(Q::PrefillTime, "vllm:request_prefill_time_seconds").since(0, 6, 6),
        lazy(Q::DecodeTime, "vllm:request_decode_time_seconds").since(0, 6, 6),
        lazy(Q::InferenceTime, "vllm:request_inference_time_seconds").since(0, 6, 6),
        lazy(Q::StepTokens, "vllm:iteration_tokens_total").since(0, 6, 6),
        lazy(Q::PromptLength, "vllm:request_prompt_tokens"),
        lazy(Q::GenerationLength, "vllm:request_generation_tokens"),
        lazy(Q::MaxTokensAsked, "vllm:request_params_max_tokens").since(0, 6, 6),
        Alias::distribution(Q::RequestPreemptions, "vllm:request_num_preemptions").since(0, 30, 0),
    ]
}
