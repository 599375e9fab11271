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
    /// Prefills take this share of the time, and stop all else meanwhile.
    PrefillTime { share: f64 },
    /// It cannot be told for want of this.
    Unknown(Q),
}

/// Names of the setting that says how many requests may run at once.
pub(super) const SEQUENCE_CAPS: &[&str] =
    &["max_num_seqs", "max_running_requests", "max_batch_size"];
/// Names of the setting that says how many tokens a step takes.
pub(super) const TOKEN_BUDGETS: &[&str] = &["max_num_batched_tokens", "chunked_prefill_size"];

/// Fewer scrapes do not show that a number stays.
const FEWEST_STILL: u32 = 4;
/// The queue, if requests wait for so long that users notice.
pub(super) fn queue<'m>(facts: &Facts<'m>) -> Option<Queue<'m>> {
    let waiting = facts.gauge(Q::RequestsWaiting)?;
    if waiting.mean < facts.thresholds.queue_requests || waiting.samples < 2 {
        return None;
    }
    // Little's law; of those that have begun, the engine tells it
    let served = facts.served_per_second().filter(|served| *served > 0.0);
    // while nothing moves nobody is served: that is no rate of service
    let window = facts.window_seconds();
    let moved = window - facts.value("held_without_progress_seconds").unwrap_or(0.0);
    let by_law = match served {
        Some(served) => waiting.mean / served * (moved / window).clamp(0.0, 1.0),
        None => window,
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
    if let Some(share) =
        prefill_time_share(facts).filter(|share| *share >= thresholds.prefill_saturated_ratio)
    {
        return Limit::PrefillTime { share };
    }
    if cap.is_none() && holds_still(facts, running, queue) {
        return Limit::SequenceCap {
            cap: running.max,
            told: false,
        };
    }
    match kv_holds_back(facts, queue) {
        Some(true) => return Limit::KvCache,
        None if cap.is_none() => return kv_unknown(facts, running, queue),
        _ => {}
    }
    if let Some((tokens, told)) = budget_in_use(facts) {
        return Limit::TokenBudget { tokens, told };
    }
    if cap.is_none() && level {
        return Limit::SequenceCap {
            cap: running.max,
            told: false,
        };
    }
    // what is left is found by leaving out the rest, and that must be known
    if let Err(missing) = seen_chunk(facts) {
        return Limit::Unknown(missing);
    }
    match full_of_prompts(facts) {
        None => Limit::Unknown(Q::StepTokens),
        Some((true, tokens)) => Limit::Prompts { tokens },
        // neither its steps nor its memory is full: that is not for want of room
        Some((false, _)) if cap.is_some() => Limit::Unknown(Q::StepTokens),
        Some((false, _)) if deferred.is_none() && counts_deferred(facts) => {
            Limit::Unknown(Q::RequestsWaitingDeferred)
        }
        Some((false, _)) => Limit::SequenceCap {
            cap: running.max,
            told: false,
        },
    }
}

/// Whether requests that wait for something else than room are among those that wait: vLLM since 0.20.
fn counts_deferred(facts: &Facts<'_>) -> bool {
    facts.since(0, 20, 0)
}

/// TGI reserves for the worst case, and does not tell of how much. While requests wait, a full reservation stays within
/// a request of its limit, and the batch varies with their sizes; a full batch stays, and what it reserves varies.
fn kv_unknown(facts: &Facts<'_>, running: &Gauge, queue: &Queue<'_>) -> Limit {
    // requests that run have something reserved
    let reserved = facts
        .gauge(Q::KvReservedTokens)
        .filter(|reserved| reserved.max > 0.0);
    let Some(reserved) = reserved else {
        return Limit::Unknown(Q::KvCacheUsage);
    };
    let steady =
        reserved.max - reserved.min <= facts.thresholds.reservation_range_ratio * reserved.max;
    // within a request of its limit; of a full batch the sum of sizes varies by more
    let place = reserved.max / running.max.max(1.0);
    let batch_stays = stays(facts, running) && reserved.max - reserved.min > 1.5 * place;
    let batch_varies = running.max - running.min >= 2.0
        && running.max - running.min > facts.thresholds.plateau_ratio * running.max;
    // at first there was room for all: what was held then says nothing of the limit
    if queue.waiting.min <= 0.0 {
        return Limit::Unknown(Q::KvCacheUsage);
    }
    // what is bounded stays nearest to its peak
    let below = |gauge: &Gauge| (gauge.max - gauge.mean) / gauge.max.max(f64::MIN_POSITIVE);
    if (steady && !batch_stays) || (batch_varies && below(reserved) <= below(running)) {
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
        preemptions >= facts.thresholds.min_preemptions
            && preemptions >= facts.thresholds.preemption_ratio * finished.unwrap_or(0.0),
    )
}

/// Whether about as many requests run at each scrape.
fn stays(facts: &Facts<'_>, running: &Gauge) -> bool {
    running.samples >= FEWEST_STILL
        && running.max > 0.0
        && running.max - running.mean <= facts.thresholds.still_ratio * running.max
}

/// Whether as many requests run at each scrape while what they hold varies: it is their number that is bounded.
pub(super) fn holds_still(facts: &Facts<'_>, running: &Gauge, queue: &Queue<'_>) -> bool {
    let usage = facts.gauge(Q::KvCacheUsage);
    stays(facts, running)
        && queue.waiting.min > 0.0
        && usage.is_some_and(|usage| usage.max - usage.min > facts.thresholds.plateau_ratio)
}

/// Share of the window that prefills take, where the engine tells the time of these steps (TGI).
fn prefill_time_share(facts: &Facts<'_>) -> Option<f64> {
    let prefill = facts.distribution(Q::PrefillStepTime)?;
    Some(prefill.count * prefill.mean? / facts.window_seconds())
}

/// Whether the KV cache is so full that the next request does not fit.
fn kv_holds_back(facts: &Facts<'_>, queue: &Queue<'_>) -> Option<bool> {
    let usage = facts.gauge(Q::KvCacheUsage)?;
    // SGLang holds room back for outputs to come
    let reserves =
        facts.engine() == "sglang" && usage.mean >= facts.thresholds.kv_reserving_full_ratio;
    let capacity = facts.gauge(Q::KvCapacityTokens).map(|gauge| gauge.last);
    let prompt = facts.mean(Q::PromptLength);
    let too_long = capacity
        .zip(prompt)
        .is_some_and(|(capacity, prompt)| (1.0 - usage.mean) * capacity < prompt);
    // where requests wait all the time for room, it is full all the time and not at its peak only
    let full = usage.max >= facts.thresholds.kv_full_ratio
        && (queue.waiting.min <= 0.0 || usage.mean >= facts.thresholds.kv_room_ratio);
    Some(full || reserves || too_long)
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
    let bound = seen_chunk(facts).ok()??;
    (bound < thresholds.small_token_budget * 0.5).then_some((bound, false))
}

/// Tokens of a prompt that are computed, not found: a request's mean.
fn computed_tokens(facts: &Facts<'_>) -> Option<f64> {
    let begun = facts
        .distribution(Q::TimeToFirstToken)
        .map(|first| first.count);
    let computed = facts.increase(Q::PrefillTokens);
    match begun.zip(computed) {
        Some((begun, computed)) => Some(computed / begun),
        // with what was found in a cache, if anything was: more than was computed
        None => facts.mean(Q::PromptLength),
    }
}

/// At most so many tokens of a prompt are computed in a step, by what is seen: a prefill that takes many times as long
/// as the longest gap between tokens of others took at least so many steps.
///
/// # Errors
/// What would have to be known to tell, where nothing else tells the budget.
pub(super) fn seen_chunk(facts: &Facts<'_>) -> Result<Option<f64>, Q> {
    // where prompts stop all others (SGLang, TGI) a long prefill shows in no gap but one
    if facts.engine() != "vllm" || facts.setting_number(TOKEN_BUDGETS).is_some() {
        return Ok(None);
    }
    let gaps = facts
        .distribution(Q::InterTokenLatency)
        .ok_or(Q::InterTokenLatency)?;
    let longest = gaps.buckets.last().ok_or(Q::InterTokenLatency)?.at_most;
    let prefill = facts.mean(Q::PrefillTime).ok_or(Q::PrefillTime)?;
    let running = facts.gauge(Q::RequestsRunning).ok_or(Q::RequestsRunning)?;
    let tokens = computed_tokens(facts).ok_or(Q::PrefillTokens)?;
    let steps = prefill / longest;
    Ok((running.mean >= 1.2 && steps >= 3.0).then(|| tokens / steps))
}

/// Whether most of what steps compute is prompts, and how many tokens a step computes.
fn full_of_prompts(facts: &Facts<'_>) -> Option<(bool, f64)> {
    let mean = facts.mean(Q::StepTokens)?;
    let running = facts.gauge(Q::RequestsRunning)?.mean;
    let full = mean > 4.0 * running.max(1.0) && !hardly_prefills(facts);
    Some((full, mean))
}

/// Whether the prefills of all requests, one after the other, would leave the engine free for most of the time: then
/// prompts are not what it is full of. By Little's law, as many are in their prefill on average.
pub(super) fn hardly_prefills(facts: &Facts<'_>) -> bool {
    facts
        .served_per_second()
        .zip(facts.mean(Q::PrefillTime))
        .is_some_and(|(served, prefill)| served * prefill < facts.thresholds.prefilling_requests)
}
