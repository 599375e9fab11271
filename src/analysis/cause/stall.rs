//! STALL: requests are held, and nothing moves.

use crate::analysis::check::{Answer, found, seconds, unclear, unknown_setting};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Severity, Treatment};
use crate::engine::Quantity as Q;

const STANDSTILL: &str = "held_without_progress_seconds";

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let limit = facts.thresholds.stall_seconds;
    let held = [Q::RequestsRunning, Q::RequestsWaiting].map(|quantity| facts.gauge(quantity));
    let last: f64 = held.iter().flatten().map(|gauge| gauge.last).sum();
    let Some(stood) = facts.value(STANDSTILL) else {
        return match held.iter().flatten().next() {
            Some(_) if last > 0.0 => vec![unclear(facts, Cause::Stall, Q::GenerationTokens)],
            Some(_) => Vec::new(),
            None => vec![unclear(facts, Cause::Stall, Q::RequestsRunning)],
        };
    };
    if stood < limit && stood >= limit / 2.0 {
        return vec![unknown_setting(
            Cause::Stall,
            STANDSTILL,
            &format!(
                "nothing has moved for {}, which is not yet a stall",
                seconds(stood)
            ),
            "watch for some seconds more (--window)",
        )];
    }
    if stood < limit {
        // those that run may be held and not be seen
        let unseen = [Q::RequestsRunning, Q::RequestsWaiting]
            .into_iter()
            .find(|quantity| facts.gauge(*quantity).is_none());
        return match unseen {
            Some(missing) => vec![unclear(facts, Cause::Stall, missing)],
            None => Vec::new(),
        };
    }
    let description = format!(
        "{last:.0} requests are held, and for {} no token and no engine step was counted",
        seconds(stood)
    );
    let evidence = facts
        .evidence()
        .value(STANDSTILL)
        .against(Comparison::AtLeast, limit, "stall_seconds")
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::RequestsWaiting)
        .increase(Q::GenerationTokens)
        .done();
    found(Cause::Stall, description, evidence)
        .severe(Severity::Critical)
        // the longer, the surer; gauges may be stale after all requests went away at once
        .sure((0.8 + 0.19 * ((stood - limit) / limit).min(1.0)).min(0.99))
        .costs(CostKind::FailedRequests, last)
        .treat(
            "Take the replica out of traffic and restart the engine; keep its log and a stack dump first. /health and /metrics may go on answering while the engine core is dead.",
            &[Treatment::Scaling],
        )
        .answer()
}
