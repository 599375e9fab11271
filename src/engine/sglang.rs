//! SGLang: full for 0.4.6 to 0.5.23.
//!
//! Families of the tokenizer process appear at first use; those of the scheduler stand from the start. Request and
//! token totals are counted only when a request ends, so the rate of generated tokens is taken from
//! `realtime_tokens_total`, which moves while requests run.

use super::alias::{Alias, Combine, Part, Term};
use super::knobs;
use super::knobs::sglang::{LOADS, OLD_SERVER_INFO, SERVER_INFO};
use super::profile::{EngineProfile, ProfileBuilder, VersionSource};
use super::quantity::Quantity as Q;
use super::settings::Endpoint;
use super::version::Version;

pub(super) fn profile() -> EngineProfile {
    let mut profile = ProfileBuilder {
        name: "sglang".into(),
        title: "SGLang".into(),
        versions: "0.4.6 to 0.5.23 in full".into(),
        prefixes: vec!["sglang:".into()],
        aliases: [tokens(), requests(), scheduler(), gauges(), latencies()].concat(),
        no_metrics_hint: "SGLang serves metrics only when started with --enable-metrics".into(),
    }
    .build()
    .with_total_suffix()
    .with_knobs(knobs::sglang::knobs());
    profile.markers = vec![
        ("sglang:page_size".into(), Version::new(0, 5, 11)),
        ("sglang:fwd_occupancy".into(), Version::new(0, 5, 12)),
        ("sglang:startup_time_seconds".into(), Version::new(0, 5, 18)),
        (
            "sglang:scheduler_idle_seconds".into(),
            Version::new(0, 5, 20),
        ),
    ];
    profile.endpoints = vec![
        Endpoint {
            path: SERVER_INFO.into(),
            fallback: false,
        },
        Endpoint {
            path: OLD_SERVER_INFO.into(),
            fallback: true,
        },
        Endpoint {
            path: LOADS.into(),
            fallback: false,
        },
    ];
    profile.settings_hint = "Let the agent reach /server_info of SGLang".into();
    profile.version_sources = [SERVER_INFO, OLD_SERVER_INFO, LOADS]
        .map(|path| VersionSource {
            path: path.into(),
            pointer: "/version".into(),
        })
        .into();
    profile
}

fn tokens() -> Vec<Alias> {
    const REALTIME: &str = "sglang:realtime_tokens";
    const EFFECTIVE: &str = "sglang:prefill_effective_tokens";
    let realtime = |quantity, modes: &[&'static str]| {
        Alias::value(quantity, REALTIME)
            .only("mode", modes)
            .since(0, 5, 7)
    };
    vec![
        // retracted work is not counted again
        Alias::value(Q::PromptTokens, EFFECTIVE).since(0, 5, 18),
        realtime(Q::PromptTokens, &["prefill_compute", "prefill_cache"])
            .lazy()
            .approximate(),
        Alias::value(Q::PromptTokens, "sglang:prompt_tokens")
            .lazy()
            .approximate(),
        realtime(Q::PrefillTokens, &["prefill_compute"]).lazy(),
        // the first token of a request comes out of its prefill and is counted with that
        Alias::new(
            Q::GenerationTokens,
            vec![
                Term::value(REALTIME).only("mode", &["decode"]).required(),
                Term::part("sglang:time_to_first_token_seconds", Part::Count),
            ],
        )
        .since(0, 5, 7)
        .lazy(),
        // moves only when a request ends: up to 100 % off over a window
        Alias::value(Q::GenerationTokens, "sglang:generation_tokens")
            .lazy()
            .approximate(),
        Alias::value(Q::PrefixCacheQueries, EFFECTIVE).since(0, 5, 18),
        realtime(Q::PrefixCacheQueries, &["prefill_compute", "prefill_cache"]),
        Alias::value(Q::PrefixCacheQueries, "sglang:prompt_tokens")
            .lazy()
            .approximate(),
        Alias::value(Q::PrefixCacheHits, EFFECTIVE)
            .only("mode", &["device_hit", "host_hit", "storage_hit"])
            .since(0, 5, 18),
        realtime(Q::PrefixCacheHits, &["prefill_cache"]).lazy(),
        // a series `total` repeats the others since 0.5.10
        Alias::value(Q::PrefixCacheHits, "sglang:cached_tokens")
            .only("cache_source", &["device", "host", "storage"])
            .since(0, 5, 10)
            .lazy()
            .approximate(),
        Alias::value(Q::PrefixCacheHits, "sglang:cached_tokens")
            .until(0, 5, 9)
            .lazy()
            .approximate(),
    ]
}

fn requests() -> Vec<Alias> {
    const FINISHED: &str = "sglang:num_requests";
    const ABORTED: &str = "sglang:num_aborted_requests";
    const HTTP: &str = "sglang:http_responses";
    const GENERATING: &[&str] = &[
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/generate",
    ];
    let http = |quantity, codes: &[&'static str]| {
        Alias::value(quantity, HTTP)
            .only("endpoint", GENERATING)
            .only("status_code", codes)
            .since(0, 5, 8)
            .lazy()
            .approximate()
    };
    let succeeded = Alias::new(
        Q::RequestsSucceeded,
        vec![Term::value(FINISHED), Term::value(ABORTED).weight(-1.0)],
    )
    .since(0, 4, 7)
    .lazy()
    // aborts are counted among the finished, and sometimes later than they finish
    .approximate();
    vec![
        Alias::value(Q::RequestsFinished, FINISHED).lazy(),
        succeeded,
        // aborts were not told apart
        Alias::value(Q::RequestsSucceeded, FINISHED)
            .until(0, 4, 6)
            .lazy()
            .approximate(),
        Alias::value(Q::RequestsAborted, ABORTED)
            .since(0, 4, 7)
            .lazy(),
        http(Q::RequestsErrored, &["500", "502", "504"]),
        http(Q::RequestsRejected, &["429", "503"]),
        http(Q::RequestsInvalid, &["400", "404", "413", "422"]),
        http(Q::HttpServerErrors, &["500", "502", "503", "504"]),
        Alias::unsupported(
            Q::RequestsStopped,
            "SGLang counts finished requests without their reason",
        ),
        Alias::unsupported(
            Q::RequestsLength,
            "SGLang counts finished requests without their reason",
        ),
    ]
}

fn scheduler() -> Vec<Alias> {
    const PASSES: &str = "sglang:cuda_graph_passes";
    let forward = |family| {
        Alias::value(Q::ForwardSeconds, family)
            .hint("needs SGLANG_ENABLE_METRICS_DEVICE_TIMER=1 in the engine's environment")
    };
    vec![
        Alias::value(Q::Preemptions, "sglang:num_retracted_requests")
            .since(0, 5, 7)
            .lazy(),
        Alias::value(Q::GraphPasses, PASSES)
            .only("mode", &["decode_cuda_graph", "prefill_cuda_graph"])
            .since(0, 5, 7)
            .lazy(),
        Alias::value(Q::EagerPasses, PASSES)
            .only("mode", &["decode_none", "prefill_none"])
            .since(0, 5, 7)
            .lazy(),
        Alias::value(Q::GraphDecodePasses, PASSES)
            .only("mode", &["decode_cuda_graph"])
            .since(0, 5, 7)
            .lazy(),
        Alias::value(Q::EagerDecodePasses, PASSES)
            .only("mode", &["decode_none"])
            .since(0, 5, 7)
            .lazy(),
        forward("sglang:forward_execution_seconds").since(0, 5, 11),
        forward("sglang:gpu_execution_seconds")
            .since(0, 5, 7)
            .until(0, 5, 10),
        Alias::value(Q::SchedulerIdleSeconds, "sglang:scheduler_idle_seconds")
            .since(0, 5, 20)
            .lazy(),
        Alias::unsupported(
            Q::SpeculationDraftTokens,
            "SGLang reports speculation as gauges of its last interval",
        ),
    ]
}

fn gauges() -> Vec<Alias> {
    vec![
        Alias::value(Q::RequestsRunning, "sglang:num_running_reqs"),
        // with prefill and decode apart, requests also wait in queues of their own
        Alias::new(
            Q::RequestsWaiting,
            vec![
                Term::value("sglang:num_queue_reqs").required(),
                Term::value("sglang:num_grammar_queue_reqs"),
                Term::value("sglang:num_prefill_bootstrap_queue_reqs"),
                Term::value("sglang:num_prefill_prealloc_queue_reqs"),
                Term::value("sglang:num_decode_prealloc_queue_reqs"),
                Term::value("sglang:num_decode_transfer_queue_reqs"),
            ],
        ),
        Alias::value(Q::RequestsWaitingDeferred, "sglang:num_grammar_queue_reqs").since(0, 4, 7),
        // the fullest pool, exactly; `token_usage` is the same rounded to a hundredth
        Alias::new(
            Q::KvCacheUsage,
            vec![
                Term::value("sglang:full_token_usage").required(),
                Term::value("sglang:swa_token_usage"),
                Term::value("sglang:mamba_usage"),
            ],
        )
        .combine(Combine::Max)
        .since(0, 5, 10),
        Alias::value(Q::KvCacheUsage, "sglang:token_usage").approximate(),
        Alias::value(Q::KvCapacityTokens, "sglang:max_total_num_tokens").since(0, 5, 6),
        Alias::value(Q::ReportedTokensPerSecond, "sglang:gen_throughput"),
        Alias::value(Q::ReportedHitRatio, "sglang:cache_hit_rate"),
        Alias::value(Q::ReportedAcceptanceRatio, "sglang:spec_accept_rate").since(0, 5, 4),
        Alias::value(Q::ReportedAcceptedLength, "sglang:spec_accept_length"),
        Alias::value(Q::NewTokenRatio, "sglang:new_token_ratio").since(0, 5, 6),
    ]
}

fn latencies() -> Vec<Alias> {
    let lazy = |quantity, family| Alias::distribution(quantity, family).lazy();
    vec![
        lazy(Q::TimeToFirstToken, "sglang:time_to_first_token_seconds"),
        lazy(Q::InterTokenLatency, "sglang:inter_token_latency_seconds"),
        lazy(
            Q::TimePerOutputToken,
            "sglang:request_time_per_output_token_seconds",
        )
        .since(0, 5, 22),
        lazy(Q::EndToEndLatency, "sglang:e2e_request_latency_seconds"),
        lazy(Q::QueueTime, "sglang:queue_time_seconds").since(0, 5, 3),
        Alias::distribution(Q::QueueTime, "sglang:queue_time_s")
            .since(0, 5, 2)
            .until(0, 5, 2),
        Alias::new(
            Q::PrefillTime,
            vec![Term::part(
                "sglang:per_stage_req_latency_seconds",
                Part::Distribution,
            )],
        )
        .only("stage", &["prefill_forward", "chunked_prefill"])
        .since(0, 5, 3)
        .lazy()
        .approximate(),
        Alias::distribution(Q::DecodeTime, "sglang:per_stage_req_latency_seconds")
            .only("stage", &["decode_forward"])
            .since(0, 5, 3)
            .approximate(),
        lazy(Q::PromptLength, "sglang:prompt_tokens_histogram")
            .since(0, 4, 7)
            .hint("older versions need --collect-tokens-histogram"),
        lazy(Q::GenerationLength, "sglang:generation_tokens_histogram")
            .since(0, 4, 7)
            .hint("older versions need --collect-tokens-histogram"),
    ]
}
