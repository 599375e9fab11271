//! Requests that wait: for whom, and what for.

use crate::engine::Quantity as Q;
use crate::measure::Gauge;

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
    /// Steps are full of prompts, of so many tokens on average, and nothing says that they are cut.
    Prompts { tokens: f64 },
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
        None if cap.is_none() => return kv_unknown(facts, running, queue),
        _ => {}
    }
    if let Some((tokens, told)) = budget_in_use(facts) {
        return Limit::TokenBudget { tokens, told };
    }
    if let Some(tokens) = full_of_prompts(facts).filter(|_| cap.is_some() || !level) {
        return Limit::Prompts { tokens };
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

/// TGI reserves for the worst case, and does not tell of how much: a batch that varies in size while requests wait is
/// held back by what they may need, one that does not by how many they are.
fn kv_unknown(facts: &Facts<'_>, running: &Gauge, queue: &Queue<'_>) -> Limit {
    if facts.gauge(Q::KvReservedTokens).is_none() {
        return Limit::Unknown(Q::KvCacheUsage);
    }
    let varies = (running.max - running.min).max(0.0);
    let by_one = varies <= 1.0 || varies <= facts.thresholds.plateau_ratio * running.max;
    if by_one || queue.waiting.min <= 0.0 {
        Limit::SequenceCap {
            cap: running.max,
            told: false,
        }
    } else {
        Limit::KvCache
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
    // SGLang holds room back for outputs to come
    let reserves =
        facts.engine() == "sglang" && usage.mean >= facts.thresholds.kv_reserving_full_ratio;
    let capacity = facts.gauge(Q::KvCapacityTokens).map(|gauge| gauge.last);
    let prompt = facts.mean(Q::PromptLength);
    let too_long = capacity
        .zip(prompt)
        .is_some_and(|(capacity, prompt)| (1.0 - usage.mean) * capacity < prompt);
    Some(usage.max >= facts.thresholds.kv_full_ratio || reserves || too_long)
}

/// Tokens that steps are cut at so that it shows, and whether the engine tells it.
pub(super) fn budget_in_use(facts: &Facts<'_>) -> Option<(f64, bool)> {
    let thresholds = facts.thresholds;
    if let Some((_, budget)) = facts
        .setting_number(TOKEN_BUDGETS)
        .filter(|(_, tokens)| *tokens > 0.0)
    {
        let steps = facts.mean(Q::StepTokens);
        let full = steps.is_some_and(|mean| mean >= thresholds.budget_share_ratio * budget);
        let cut = computed_tokens(facts)? >= 2.0 * budget;
        return (full || cut).then_some((budget, true));
    }
    let bound = seen_chunk(facts)?;
    (bound < thresholds.small_token_budget * 0.5).then_some((bound, false))
}

/// Tokens of a prompt that are computed, not found: a request's mean.
fn computed_tokens(facts: &Facts<'_>) -> Option<f64> {
    let begun = facts.distribution(Q::TimeToFirstToken)?.count;
    let computed = facts
        .increase(Q::PrefillTokens)
        .or_else(|| facts.increase(Q::PromptTokens))?;
    Some(computed / begun)
}

/// At most so many tokens of a prompt are computed in a step, by what is seen: a prefill that takes many times as long
/// as the longest gap between tokens of others took at least so many steps.
fn seen_chunk(facts: &Facts<'_>) -> Option<f64> {
    // vLLM shares steps between prompts and others; where prompts stop all others there is no such gap
    let longest = facts
        .distribution(Q::InterTokenLatency)?
        .buckets
        .last()?
        .at_most;
    let prefill = facts.mean(Q::PrefillTime)?;
    let others = facts.gauge(Q::RequestsRunning)?.mean >= 1.2;
    let steps = prefill / longest;
    (others && steps >= 3.0).then(|| computed_tokens(facts).map(|tokens| tokens / steps))?
}

/// Tokens of a step where most of what steps compute is prompts.
fn full_of_prompts(facts: &Facts<'_>) -> Option<f64> {
    let mean = facts.mean(Q::StepTokens)?;
    let running = facts.gauge(Q::RequestsRunning)?.mean;
    (mean > 4.0 * running.max(1.0)).then_some(mean)
}
