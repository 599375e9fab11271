//! Requests that wait: for whom, and what for.

use crate::engine::Quantity as Q;
use crate::measure::{Bounded, Gauge};

use super::facts::Facts;

/// Requests that wait, and what it costs them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue<'m> {
    pub(super) waiting: &'m Gauge,
    /// What a request waits on average, in seconds.
    pub(super) seconds: f64,
}

/// What requests wait for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Limit {
    /// An adapter, a grammar, a transfer.
    Deferred,
    /// Room in the KV cache.
    KvCache,
    /// A place in the batch, which takes so many; told, or seen.
    SequenceCap { cap: f64, told: bool },
    /// Tokens in a step, which takes so many of them; told, or seen.
    TokenBudget { tokens: f64, told: bool },
    /// It cannot be told for want of this.
    Unknown(Q),
}

/// Names of the setting that says how many requests may run at once.
pub(super) const SEQUENCE_CAPS: &[&str] =
    &["max_num_seqs", "max_running_requests", "max_batch_size"];
/// Names of the setting that says how many tokens a step takes.
pub(super) const TOKEN_BUDGETS: &[&str] = &["max_num_batched_tokens", "chunked_prefill_size"];

/// The queue, if requests wait for so long that users notice.
pub(super) fn queue<'m>(facts: &Facts<'m>) -> Option<Queue<'m>> {
    let waiting = facts.gauge(Q::RequestsWaiting)?;
    if waiting.mean < facts.thresholds.queue_requests || waiting.samples < 2 {
        return None;
    }
    // Little's law; of those that have begun, the engine tells it
    let served = facts.served_per_second().filter(|served| *served > 0.0);
    let by_law = match served {
        Some(served) => waiting.mean / served,
        None => facts.window_seconds(),
    };
    let told = facts.mean(Q::QueueTime).unwrap_or(0.0);
    let seconds = by_law.max(told);
    (seconds > facts.targets.ttft_p50_seconds).then_some(Queue { waiting, seconds })
}

/// What the requests of a queue wait for.
pub(super) fn limit(facts: &Facts<'_>, queue: &Queue<'_>) -> Limit {
    let thresholds = facts.thresholds;
    let deferred = facts.gauge(Q::RequestsWaitingDeferred);
    if deferred.is_some_and(|one| one.mean >= thresholds.deferred_share_ratio * queue.waiting.mean)
    {
        return Limit::Deferred;
    }
    if preempts(facts) == Some(true) {
        return Limit::KvCache;
    }
    let Some(running) = facts.gauge(Q::RequestsRunning) else {
        return Limit::Unknown(Q::RequestsRunning);
    };
    let cap = facts.setting_number(SEQUENCE_CAPS).map(|(_, cap)| cap);
    if let Some(cap) = cap
        && running.max >= thresholds.cap_share_ratio * cap
    {
        return Limit::SequenceCap { cap, told: true };
    }
    // a batch that never changes though requests come and go is at its cap
    let level = running.samples > 2
        && running.mean >= running.max * (1.0 - thresholds.plateau_ratio)
        && queue.waiting.min > 0.0;
    match kv_holds_back(facts) {
        Some(true) => return Limit::KvCache,
        None if cap.is_none() && !level => return kv_unknown(facts, running),
        _ => {}
    }
    if let Some((tokens, told)) = budget_in_use(facts) {
        return Limit::TokenBudget { tokens, told };
    }
    match cap {
        // neither cap nor KV cache nor a told budget: what is left is what a step takes
        Some(_) => Limit::Unknown(Q::StepTokens),
        None => Limit::SequenceCap {
            cap: running.max,
            told: false,
        },
    }
}

/// TGI tells what it has reserved, and not of how much: a batch that varies under a reservation that does not is full.
fn kv_unknown(facts: &Facts<'_>, running: &Gauge) -> Limit {
    let Some(reserved) = facts.gauge(Q::KvReservedTokens) else {
        return Limit::Unknown(Q::KvCacheUsage);
    };
    let steady = |gauge: &Gauge| gauge.mean / gauge.max.max(f64::MIN_POSITIVE);
    if steady(reserved) > steady(running) {
        Limit::KvCache
    } else {
        Limit::SequenceCap {
            cap: running.max,
            told: false,
        }
    }
}

/// Whether so many requests are thrown out of the batch that it matters.
pub(super) fn preempts(facts: &Facts<'_>) -> Option<bool> {
    let preemptions = facts.increase(Q::Preemptions)?;
    let finished = facts
        .increase(Q::RequestsFinished)
        .filter(|finished| *finished > 0.0);
    Some(
        preemptions > 0.0
            && preemptions >= facts.thresholds.preemption_ratio * finished.unwrap_or(0.0),
    )
}

/// Whether the KV cache is so full that the next request does not fit.
fn kv_holds_back(facts: &Facts<'_>) -> Option<bool> {
    let usage = facts.gauge(Q::KvCacheUsage)?;
    let full = match facts.engine() {
        "sglang" => facts.thresholds.kv_reserving_full_ratio,
        _ => facts.thresholds.kv_full_ratio,
    };
    let capacity = facts.gauge(Q::KvCapacityTokens).map(|gauge| gauge.last);
    let prompt = facts.mean(Q::PromptLength);
    let too_long = capacity
        .zip(prompt)
        .is_some_and(|(capacity, prompt)| (1.0 - usage.max) * capacity < prompt);
    Some(usage.max >= full || too_long)
}

/// Tokens that steps are cut at, and whether the engine tells it.
pub(super) fn budget_in_use(facts: &Facts<'_>) -> Option<(f64, bool)> {
    let steps = facts.distribution(Q::StepTokens)?;
    let mean = steps.mean?;
    let running = facts.gauge(Q::RequestsRunning)?.mean;
    if let Some((_, budget)) = facts.setting_number(TOKEN_BUDGETS) {
        return (mean >= facts.thresholds.budget_share_ratio * budget).then_some((budget, true));
    }
    // steps that are mostly prompts, and most of them about as large as the largest
    let median = match facts.quantile(Q::StepTokens, 0.5)? {
        Bounded::Value(median) => median,
        Bounded::AtMost(_) | Bounded::AtLeast(_) => return None,
    };
    let largest = steps.buckets.last()?.at_most;
    let level = median >= facts.thresholds.budget_share_ratio * largest * 0.5;
    (level && largest.is_finite() && mean > 4.0 * running).then_some((largest, false))
}
