//! SEQUENCE_CAP, TOKEN_BUDGET, DEFERRED, CAPACITY, HEAD_OF_LINE in a queue: requests wait, and not for KV cache.

use crate::analysis::check::{
    Answer, by_count, found, number, percent, seconds, severity_of_ttft, unclear, unknown_setting,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Finding, Treatment};
use crate::analysis::queue::{
    Limit, Queue, TOKEN_BUDGETS, hardly_prefills, limit, preempts, queue,
};
use crate::engine::Quantity as Q;

use super::first_token::{head_of_line, lengths_missing};

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(queue) = queue(facts) else {
        return match facts.gauge(Q::RequestsWaiting) {
            Some(_) => Vec::new(),
            None => vec![unclear(facts, Cause::SequenceCap, Q::RequestsWaiting)],
        };
    };
    match limit(facts, &queue) {
        Limit::KvCache => match (exhausted(facts), preempts(facts)) {
            (Some(why), Some(false) | None) if tokens_are_late(facts) => {
                capacity(facts, &queue, &why).answer()
            }
            _ => Vec::new(),
        },
        Limit::Deferred => deferred(facts, queue.waiting.mean, queue.seconds).answer(),
        Limit::SequenceCap { .. } if facts.gap_seconds().is_none() => {
            undecided(facts, &queue, Q::InterTokenLatency)
        }
        Limit::SequenceCap { cap, told } => match exhausted(facts) {
            Some(why) => capacity(facts, &queue, &why).answer(),
            None => sequence_cap(facts, &queue, cap, told).answer(),
        },
        Limit::TokenBudget { tokens, told } if tokens < facts.thresholds.small_token_budget => {
            token_budget(facts, tokens, told, queue.seconds).answer()
        }
        Limit::TokenBudget { tokens, .. } => {
            let why = format!("steps are full of prompts, {tokens:.0} tokens each");
            prompts(facts, &queue, &why)
        }
        Limit::Prompts { tokens } => {
            let why = format!("steps are full of prompts, {tokens:.0} tokens on average");
            prompts(facts, &queue, &why)
        }
        Limit::PrefillTime { share } => {
            let why = format!("computing prompts takes {} of the time", percent(share));
            prompts(facts, &queue, &why)
        }
        Limit::Unknown(missing) => undecided(facts, &queue, missing),
    }
}

/// Prompts are more than steps take in.
fn prompts(facts: &Facts<'_>, queue: &Queue<'_>, why: &str) -> Vec<Answer> {
    if let Some(finding) = head_of_line(facts, queue.seconds) {
        return finding.answer();
    }
    match lengths_missing(facts) {
        Some(missing) => [Cause::HeadOfLine, Cause::Capacity]
            .map(|cause| unclear(facts, cause, missing))
            .into(),
        None => capacity(facts, queue, why).answer(),
    }
}

/// Requests wait, below the cap, with room in the KV cache, and the engine does not say what its steps take.
fn undecided(facts: &Facts<'_>, queue: &Queue<'_>, missing: Q) -> Vec<Answer> {
    if missing != Q::StepTokens {
        return [
            Cause::SequenceCap,
            Cause::KvCapacity,
            Cause::TokenBudget,
            Cause::Deferred,
            Cause::Capacity,
        ]
        .map(|cause| unclear(facts, cause, missing))
        .into();
    }
    if let Some((_, budget)) = facts.setting_number(TOKEN_BUDGETS)
        && budget < facts.thresholds.small_token_budget
        && budget > 0.0
    {
        return token_budget(facts, budget, true, queue.seconds).answer();
    }
    match facts.setting_number(TOKEN_BUDGETS) {
        // a queue that comes and goes between two scrapes, of bursts
        Some(_) if hardly_prefills(facts) => [Cause::SequenceCap, Cause::Capacity]
            .map(|cause| unclear(facts, cause, missing))
            .into(),
        Some((_, budget)) => {
            let why =
                format!("steps of {budget:.0} tokens do not take in prompts as fast as they come");
            prompts(facts, queue, &why)
        }
        None => vec![unknown_setting(
            Cause::TokenBudget,
            "max_num_batched_tokens",
            "requests wait though there are places and KV cache left, and the engine does not tell how many tokens a step takes",
            "declare the launch arguments, or let the agent read them (vLLM: VLLM_SERVER_DEV_MODE=1)",
        )],
    }
}

fn tokens_are_late(facts: &Facts<'_>) -> bool {
    let gap = facts.gap_seconds();
    gap.is_some_and(|gap| gap > facts.targets.itl_p99_seconds)
}

/// What a larger batch would run into.
fn exhausted(facts: &Facts<'_>) -> Option<String> {
    let usage = facts.gauge(Q::KvCacheUsage);
    if let Some(usage) = usage.filter(|usage| usage.mean >= facts.thresholds.kv_room_ratio) {
        return Some(format!("its KV cache is {} full", percent(usage.mean)));
    }
    let gap = facts.gap_seconds()?;
    (gap > facts.targets.itl_p99_seconds).then(|| format!("a token already takes {}", seconds(gap)))
}

fn sequence_cap(facts: &Facts<'_>, queue: &Queue<'_>, cap: f64, told: bool) -> Finding {
    let room = facts
        .gauge(Q::KvCacheUsage)
        .map(|usage| format!(" though the KV cache is {} full", percent(usage.mean)))
        .unwrap_or_default();
    let description = format!(
        "only {cap:.0} request{} may run at once{}, and {} wait {} for a place{room}",
        if cap < 1.5 { "" } else { "s" },
        if told { "" } else { " (seen, not told)" },
        number(queue.waiting.mean),
        seconds(queue.seconds),
    );
    let evidence = facts
        .evidence()
        .gauge_max(Q::RequestsRunning)
        .against(
            Comparison::AtLeast,
            cap,
            if told { "setting:max_num_seqs" } else { "" },
        )
        .gauge_mean(Q::RequestsWaiting)
        .against(
            Comparison::AtLeast,
            facts.thresholds.queue_requests,
            "queue_requests",
        )
        .gauge_mean(Q::KvCacheUsage)
        .against(
            Comparison::Below,
            facts.thresholds.kv_room_ratio,
            "kv_room_ratio",
        )
        .mean(Q::QueueTime)
        .mean(Q::InterTokenLatency)
        .against(
            Comparison::Below,
            facts.targets.itl_p99_seconds,
            "slo:itl_p99",
        )
        .done();
    let flag = match facts.engine() {
        "sglang" => "--max-running-requests (and --cuda-graph-max-bs-decode with it)",
        "tgi" => "--max-batch-size",
        _ => "--max-num-seqs",
    };
    let confidence = match (told, facts.gauge(Q::KvCacheUsage)) {
        (true, Some(_)) => 0.97,
        (false, Some(_)) => 0.85,
        _ => 0.65,
    };
    found(Cause::SequenceCap, description, evidence)
        .severe(severity_of_ttft(facts, queue.seconds))
        .sure(by_count(confidence, served(facts)))
        .costs(CostKind::TtftSeconds, queue.seconds)
        .treat(
            &format!(
                "Raise {flag} above {cap:.0}: there is KV cache and time between tokens left."
            ),
            &[Treatment::Batching],
        )
}

fn capacity(facts: &Facts<'_>, queue: &Queue<'_>, why: &str) -> Finding {
    let running = facts
        .gauge(Q::RequestsRunning)
        .map_or(0.0, |gauge| gauge.mean);
    let description = format!(
        "{} requests wait {} behind {} that run, and {why}: more comes in than this hardware serves",
        number(queue.waiting.mean),
        seconds(queue.seconds),
        number(running),
    );
    let evidence = facts
        .evidence()
        .gauge_mean(Q::RequestsWaiting)
        .against(
            Comparison::AtLeast,
            facts.thresholds.queue_requests,
            "queue_requests",
        )
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::KvCacheUsage)
        .mean(Q::InterTokenLatency)
        .mean(Q::DecodeStepTime)
        .mean(Q::StepTokens)
        .mean(Q::QueueTime)
        .done();
    found(Cause::Capacity, description, evidence)
        .severe(severity_of_ttft(facts, queue.seconds))
        .sure(by_count(0.8, served(facts)))
        .costs(CostKind::TtftSeconds, queue.seconds)
        .treat(
            "Add replicas or faster hardware, or refuse what cannot be served in time: no setting is enough.",
            &[Treatment::Scaling, Treatment::Quantization],
        )
}

/// Also where nobody waits: prompts that are cut into many steps take as long.
pub(super) fn token_budget(facts: &Facts<'_>, tokens: f64, told: bool, delay: f64) -> Finding {
    let description = format!(
        "steps are cut at {}{tokens:.0} tokens, and first tokens come {} later for it",
        if told { "" } else { "about " },
        seconds(delay),
    );
    let evidence = facts
        .evidence()
        .mean(Q::StepTokens)
        .against(
            Comparison::AtLeast,
            facts.thresholds.budget_share_ratio * tokens,
            "budget_share_ratio",
        )
        .derived("step_token_budget", tokens, "setting, or the largest steps")
        .against(
            Comparison::Below,
            facts.thresholds.small_token_budget,
            "small_token_budget",
        )
        .gauge_mean(Q::RequestsWaiting)
        .mean(Q::QueueTime)
        .mean(Q::PrefillTime)
        .done();
    let flag = match facts.engine() {
        "sglang" => "--chunked-prefill-size",
        "tgi" => "--max-batch-prefill-tokens",
        _ => "--max-num-batched-tokens",
    };
    found(Cause::TokenBudget, description, evidence)
        .severe(severity_of_ttft(facts, delay))
        .sure(by_count(if told { 0.9 } else { 0.7 }, served(facts)))
        .costs(CostKind::TtftSeconds, delay)
        .treat(
            &format!(
                "Raise {flag} to {:.0} or more, as far as the gap between tokens allows.",
                facts.thresholds.small_token_budget
            ),
            &[Treatment::Batching],
        )
}

/// Also where few wait at a time: it is not the queue that says so then.
pub(super) fn deferred(facts: &Facts<'_>, waiting: f64, delay: f64) -> Finding {
    let deferred = facts
        .gauge(Q::RequestsWaitingDeferred)
        .map_or(0.0, |gauge| gauge.mean);
    let description = format!(
        "{} of {} waiting requests wait {} for an adapter, a grammar or a KV transfer, not for room",
        number(deferred),
        number(waiting.max(deferred)),
        seconds(delay),
    );
    let evidence = facts
        .evidence()
        .gauge_mean(Q::RequestsWaitingDeferred)
        .against(
            Comparison::AtLeast,
            facts.thresholds.deferred_share_ratio * waiting,
            "deferred_share_ratio",
        )
        .gauge_mean(Q::RequestsWaiting)
        .gauge_mean(Q::RequestsRunning)
        .mean(Q::QueueTime)
        .done();
    let what = match facts.engine() {
        "sglang" => {
            "Look at the grammars: another --grammar-backend, schemas that come again, a newer version."
        }
        _ => {
            "With LoRA raise --max-loras; with structured output look at the grammar backend; with a KV connector at the transfer."
        }
    };
    found(Cause::Deferred, description, evidence)
        .severe(severity_of_ttft(facts, delay))
        .sure(by_count(0.9, served(facts)))
        .costs(CostKind::TtftSeconds, delay)
        .treat(what, &[Treatment::Scheduling, Treatment::Memory])
}

pub(super) fn served(facts: &Facts<'_>) -> f64 {
    facts.served_per_second().unwrap_or(0.0) * facts.window_seconds()
}
