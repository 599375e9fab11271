//! TGI: full for 3, TGI 2 by the same names.
//!
//! Everything appears at first use, and an idle server answers with an empty body: then only `/info` tells that it
//! is TGI. The KV budget is not exported, so its use cannot be told as a share.

use super::alias::{Alias, Part, Term};
use super::knobs;
use super::knobs::tgi::INFO;
use super::profile::{EngineProfile, ProfileBuilder, VersionSource};
use super::quantity::Quantity as Q;
use super::settings::Endpoint;

pub(super) fn profile() -> EngineProfile {
    let mut profile = ProfileBuilder {
        name: "tgi".into(),
        title: "TGI".into(),
        versions: "3 in full, 2 by its aliases".into(),
        prefixes: vec!["tgi_".into()],
        aliases: [tokens(), requests(), gauges(), latencies()].concat(),
        no_metrics_hint:
            "an idle TGI exports nothing until its first request, and then only /info \
                          tells what it is; TGI serves /metrics on its main port, not on \
                          --prometheus-port"
                .into(),
    }
    .build()
    .with_knobs(knobs::tgi::knobs());
    profile.endpoints = vec![Endpoint {
        path: INFO.into(),
        fallback: false,
    }];
    profile.version_sources = vec![VersionSource {
        path: INFO.into(),
        pointer: "/version".into(),
    }];
    profile.settings_hint = "Let the agent reach /info of TGI, which tells some settings".into();
    // many a server has a version at /info
    profile.proof = Some(("/router".into(), "text-generation-router".into()));
    profile.empty_when_idle = true;
    profile
}

fn tokens() -> Vec<Alias> {
    const SKIPPED: &str = "tgi_request_skipped_tokens";
    vec![
        // counted when a request passes validation
        Alias::new(
            Q::PromptTokens,
            vec![Term::part("tgi_request_input_length", Part::Sum)],
        )
        .lazy()
        // counted again for each piece of an output above 1,024 tokens
        .approximate(),
        // one observation a step and sequence, whose value is what speculation added: moves while requests run
        Alias::new(
            Q::GenerationTokens,
            vec![
                Term::part(SKIPPED, Part::Sum),
                Term::part(SKIPPED, Part::Count),
            ],
        )
        .lazy(),
        Alias::unsupported(
            Q::PrefixCacheQueries,
            "TGI exports no prefix-cache counters",
        ),
        Alias::unsupported(
            Q::Preemptions,
            "TGI reserves the worst case and queues instead of preempting",
        ),
        Alias::new(
            Q::SpeculationAcceptedTokens,
            vec![Term::part(SKIPPED, Part::Sum)],
        )
        .lazy(),
    ]
}

fn requests() -> Vec<Alias> {
    let failed = |quantity, errors: &[&'static str]| {
        Alias::value(quantity, "tgi_request_failure")
            .only("err", errors)
            .lazy()
    };
    vec![
        Alias::new(
            Q::RequestsFinished,
            vec![
                Term::value("tgi_request_success"),
                Term::value("tgi_request_failure")
                    .only("err", &["generation", "incomplete", "dropped"]),
            ],
        )
        .lazy(),
        Alias::value(Q::RequestsSucceeded, "tgi_request_success").lazy(),
        // counted only when an abandoned request is taken from the queue
        failed(Q::RequestsAborted, &["dropped"]),
        failed(Q::RequestsErrored, &["generation", "incomplete"]),
        failed(Q::RequestsRejected, &["overloaded"]),
        failed(Q::RequestsInvalid, &["validation", "template"]),
        Alias::unsupported(
            Q::RequestsStopped,
            "TGI counts finished requests without their reason",
        ),
        Alias::unsupported(
            Q::RequestsLength,
            "TGI counts finished requests without their reason",
        ),
    ]
}

fn gauges() -> Vec<Alias> {
    vec![
        Alias::value(Q::RequestsRunning, "tgi_batch_current_size").lazy(),
        // keeps abandoned requests until they are popped
        Alias::value(Q::RequestsWaiting, "tgi_queue_size").lazy(),
        Alias::value(Q::KvReservedTokens, "tgi_batch_current_max_tokens").lazy(),
        Alias::value(Q::KvCapacityTokens, "tgi_batch_max_total_tokens")
            .hint("set before TGI's recorder exists; take it from the start-up log"),
        Alias::unsupported(
            Q::KvCacheUsage,
            "TGI reserves tokens for the worst case and does not export its KV budget",
        ),
    ]
}

fn latencies() -> Vec<Alias> {
    let lazy = |quantity, family| Alias::distribution(quantity, family).lazy();
    vec![
        // the mean follows from queue, validation and prefill once there are any
        Alias::unsupported(
            Q::TimeToFirstToken,
            "TGI exports no time to first token; its mean follows from others once requests were served",
        ),
        lazy(Q::EndToEndLatency, "tgi_request_duration"),
        lazy(Q::ValidationTime, "tgi_request_validation_duration"),
        lazy(Q::QueueTime, "tgi_request_queue_duration"),
        lazy(Q::InferenceTime, "tgi_request_inference_duration"),
        // inference time over tokens, prefill included: 34 to 65 % high under prefill-heavy load
        lazy(
            Q::TimePerOutputToken,
            "tgi_request_mean_time_per_token_duration",
        )
        .approximate(),
        Alias::unsupported(
            Q::InterTokenLatency,
            "TGI exports no inter-token latency; its time per token includes the prefill",
        ),
        lazy(Q::PrefillStepTime, "tgi_batch_forward_duration").only("method", &["prefill"]),
        lazy(Q::DecodeStepTime, "tgi_batch_forward_duration").only("method", &["decode"]),
        lazy(Q::DecodeStepTotalTime, "tgi_batch_inference_duration").only("method", &["decode"]),
        lazy(Q::BatchSize, "tgi_batch_next_size"),
        lazy(Q::PromptLength, "tgi_request_input_length").approximate(),
        lazy(Q::GenerationLength, "tgi_request_generated_tokens"),
        lazy(Q::MaxTokensAsked, "tgi_request_max_new_tokens"),
    ]
}
