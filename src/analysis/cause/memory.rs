//! KV_CAPACITY, KV_NEAR_CAPACITY: too little room for what requests have read and written.

use crate::analysis::check::{
    Answer, by_count, found, number, percent, seconds, severity_of_gap, severity_of_ttft, unclear,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Severity, Treatment};
use crate::analysis::queue::{Limit, limit, preempts, queue};
use crate::engine::Quantity as Q;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let usage = facts.gauge(Q::KvCacheUsage);
    let waits = queue(facts);
    let preempting = preempts(facts) == Some(true);
    // where tokens are late already, a larger batch would not do: that is no want of memory
    let late = facts
        .gap_seconds()
        .is_some_and(|gap| gap > facts.targets.itl_p99_seconds);
    let held_back =
        waits.filter(|queue| limit(facts, queue) == Limit::KvCache && (preempting || !late));
    if held_back.is_some() || preempting {
        return capacity(facts, held_back.map(|queue| queue.seconds), preempting);
    }
    let Some(usage) = usage else {
        let busy = facts
            .gauge(Q::RequestsRunning)
            .is_some_and(|running| running.mean > 0.0);
        let causes = [
            Some(Cause::KvNearCapacity).filter(|_| busy),
            Some(Cause::KvCapacity).filter(|_| busy && waits.is_some()),
        ];
        let causes = causes.into_iter().flatten();
        return causes
            .map(|cause| unclear(facts, cause, Q::KvCacheUsage))
            .collect();
    };
    let threshold = facts.thresholds.kv_near_ratio;
    let generates = facts.increase(Q::GenerationTokens) != Some(0.0);
    if usage.mean < threshold || waits.is_some() || !generates {
        return Vec::new();
    }
    let description = format!(
        "the KV cache is {} full on average, and nobody waits yet: the next burst is preempted or waits",
        percent(usage.mean)
    );
    let evidence = facts
        .evidence()
        .gauge_mean(Q::KvCacheUsage)
        .against(Comparison::AtLeast, threshold, "kv_near_ratio")
        .gauge_mean(Q::RequestsWaiting)
        .increase(Q::Preemptions)
        .done();
    let severity = match usage.mean {
        mean if mean >= 0.97 => Severity::Medium,
        _ => Severity::Low,
    };
    found(Cause::KvNearCapacity, description, evidence)
        .severe(severity)
        .sure(0.8)
        .treat(
            "Nothing is lost yet. Before the load grows, give the KV cache more memory or add a replica.",
            &[Treatment::KvCache, Treatment::Memory, Treatment::Scaling],
        )
        .answer()
}

fn capacity(facts: &Facts<'_>, queue_seconds: Option<f64>, preempting: bool) -> Vec<Answer> {
    let usage = facts.gauge(Q::KvCacheUsage);
    let preemptions = facts.increase(Q::Preemptions).filter(|_| preempting);
    let full = match usage {
        Some(usage) => format!("the KV cache is up to {} full", percent(usage.max)),
        None => "the KV cache has no room for what requests may need".to_owned(),
    };
    let running = facts.gauge(Q::RequestsRunning);
    let lost = preemptions.map(|count| {
        let finished = facts.increase(Q::RequestsFinished).unwrap_or(0.0);
        format!("{count:.0} preemptions while {finished:.0} requests finished")
    });
    let wait = queue_seconds.zip(running).map(|(wait, running)| {
        format!(
            "requests wait {} while only {} run",
            seconds(wait),
            number(running.mean)
        )
    });
    let effects: Vec<String> = [lost, wait].into_iter().flatten().collect();
    let description = format!("{full}: {}", effects.join(", and "));
    let lost_ratio = preemptions
        .zip(facts.increase(Q::RequestsFinished))
        .map_or(0.0, |(preemptions, finished)| {
            preemptions / finished.max(1.0)
        });
    let mut evidence = facts.evidence();
    if preempting {
        evidence = evidence
            .derived(
                "preemptions_per_request_ratio",
                lost_ratio,
                "preemptions / requests that finished",
            )
            .against(
                Comparison::AtLeast,
                facts.thresholds.preemption_ratio,
                "preemption_ratio",
            )
            .increase(Q::Preemptions);
    }
    let evidence = evidence
        .gauge_max(Q::KvCacheUsage)
        .against(
            Comparison::AtLeast,
            facts.thresholds.kv_full_ratio,
            "kv_full_ratio",
        )
        .gauge_mean(Q::KvReservedTokens)
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::RequestsWaiting)
        .against(
            Comparison::AtLeast,
            facts.thresholds.queue_requests,
            "queue_requests",
        )
        .mean(Q::QueueTime)
        .done();
    let gap = facts.gap_seconds().unwrap_or(0.0);
    let thrashing = match lost_ratio {
        ratio if ratio >= 1.0 => Severity::High,
        ratio if ratio >= 0.1 => Severity::Medium,
        _ => Severity::Low,
    };
    let severity = severity_of_ttft(facts, queue_seconds.unwrap_or(0.0))
        .max(thrashing)
        .max(if preempting {
            severity_of_gap(facts, gap)
        } else {
            Severity::Low
        });
    let told = usage.is_some() || preempting;
    let observed = facts.increase(Q::RequestsFinished).unwrap_or(0.0);
    let flags = match facts.engine() {
        "vllm" if !facts.since(0, 10, 2) => {
            "--gpu-memory-utilization up, --kv-cache-dtype fp8 (may change answers), or --max-num-seqs down to what fits"
        }
        "vllm" => {
            "--gpu-memory-utilization or --kv-cache-memory-bytes up, --kv-cache-dtype fp8 (may change answers), or --max-num-seqs down to what fits"
        }
        "sglang" => {
            "--mem-fraction-static up, --kv-cache-dtype fp8_e4m3 (may change answers); with retractions --schedule-conservativeness up, with a queue and usage below 0.9 down"
        }
        "tgi" => {
            "--cuda-memory-fraction up, --max-total-tokens down so that less is reserved for each request, --kv-cache-dtype fp8_e4m3fn (may change answers)"
        }
        _ => "more memory for the KV cache",
    };
    found(Cause::KvCapacity, description, evidence)
        .severe(severity)
        .sure(by_count(if told { 0.95 } else { 0.6 }, observed))
        .costs(CostKind::TtftSeconds, queue_seconds.unwrap_or(0.0))
        .treat(
            &format!("Give the KV cache more room: {flags}; else add replicas."),
            &[
                Treatment::KvCache,
                Treatment::Memory,
                Treatment::Quantization,
                Treatment::Scaling,
            ],
        )
        .answer()
}
