//! OVERPROVISIONED: far more than was ever used.

use crate::analysis::check::{Answer, found, percent, unclear};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, Severity, Treatment};
use crate::analysis::queue::SEQUENCE_CAPS;
use crate::engine::Quantity as Q;

/// Share of the sequence cap that may be used at the peak.
const CAP_SHARE: f64 = 0.1;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let window = facts.window_seconds();
    let (Some(running), Some(waiting)) = (
        facts.gauge(Q::RequestsRunning),
        facts.gauge(Q::RequestsWaiting),
    ) else {
        let long = window >= facts.thresholds.overprovisioned_window_seconds;
        return match long {
            true => vec![unclear(facts, Cause::Overprovisioned, Q::RequestsRunning)],
            false => Vec::new(),
        };
    };
    let works = facts
        .increase(Q::GenerationTokens)
        .is_some_and(|tokens| tokens > 0.0);
    if window < facts.thresholds.overprovisioned_window_seconds || waiting.max > 0.0 || !works {
        return Vec::new();
    }
    let replicas = facts.measurement.replicas.len().max(1) as f64;
    if let Some((_, cap)) = facts.setting_number(SEQUENCE_CAPS)
        && running.max > (CAP_SHARE * cap * replicas).max(1.0)
    {
        return Vec::new();
    }
    let Some(usage) = facts.gauge(Q::KvCacheUsage) else {
        return match running.max <= replicas {
            true => vec![unclear(facts, Cause::Overprovisioned, Q::KvCacheUsage)],
            false => Vec::new(),
        };
    };
    let threshold = facts.thresholds.overprovisioned_kv_ratio;
    if usage.max > threshold {
        return Vec::new();
    }
    let description = format!(
        "in {:.0} minutes at most {:.0} requests ran at once, nobody waited, and the KV cache was at most {} full",
        window / 60.0,
        running.max,
        percent(usage.max),
    );
    let evidence = facts
        .evidence()
        .gauge_max(Q::KvCacheUsage)
        .against(Comparison::Below, threshold, "overprovisioned_kv_ratio")
        .gauge_max(Q::RequestsRunning)
        .gauge_max(Q::RequestsWaiting)
        .done();
    found(Cause::Overprovisioned, description, evidence)
        .severe(Severity::Low)
        .sure(0.7)
        .treat(
            "If the window holds the busiest hours, fewer replicas or a smaller accelerator would do.",
            &[Treatment::Scaling],
        )
        .answer()
}
