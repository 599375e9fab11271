//! PREFILL_BOUND, HEAD_OF_LINE, TOKEN_BUDGET without a queue, FRONTEND: first tokens come late though few wait.

use crate::analysis::check::{
    Answer, by_count, found, percent, seconds, severity_of_ttft, unclear,
};
use crate::analysis::facts::{Facts, FirstToken};
use crate::analysis::finding::{Cause, Comparison, CostKind, Finding, Treatment};
use crate::analysis::queue::{budget_in_use, queue, seen_chunk};
use crate::engine::Quantity as Q;
use crate::measure::Bounded;

use super::cache::{Prompts, cache_explains};
use super::waiting::{deferred, served, token_budget};

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(first) = facts.first_token() else {
        // long requests give tokens, and their first may have come before
        let finished = facts.increase(Q::RequestsFinished).unwrap_or(0.0);
        let missing = facts.figures.distribution(Q::TimeToFirstToken).is_none();
        return match finished >= facts.thresholds.min_requests || (missing && facts.moves()) {
            true => [Cause::PrefillBound, Cause::Frontend]
                .map(|cause| unclear(facts, cause, Q::TimeToFirstToken))
                .into(),
            false => Vec::new(),
        };
    };
    let Some(late) = facts.first_token_is_late() else {
        return vec![unclear(facts, Cause::PrefillBound, Q::TimeToFirstToken)];
    };
    if !late || facts.few_served() {
        return Vec::new();
    }
    let mut answers = Vec::new();
    let (queued, computed) = match (first.queue, first.prefill) {
        (Some(queued), Some(computed)) => (queued, computed),
        (None, _) => return vec![unclear(facts, Cause::PrefillBound, Q::QueueTime)],
        (_, None) => return vec![unclear(facts, Cause::PrefillBound, Q::PrefillTime)],
    };
    let outside = first.frontend.unwrap_or(0.0);
    let waits = queue(facts).is_some();
    let seen = facts.gauge(Q::RequestsWaiting).is_some();
    // beside a queue its share is small, and by how much the parts may be off is what it must exceed
    let needed = match waits {
        false => facts.thresholds.frontend_share_ratio * first.total,
        true => facts.targets.ttft_p50_seconds + off_by(facts, queued),
    };
    if outside >= needed && (waits || outside > queued) && seen {
        let finding = match deferred_seconds(facts) {
            // SGLang counts the wait for a grammar neither as queue nor as prefill
            Some(delay) if delay >= facts.thresholds.deferred_seen_ratio * outside => {
                let waiting = facts.gauge(Q::RequestsWaiting).map_or(0.0, |one| one.mean);
                deferred(facts, waiting, delay)
            }
            _ => frontend(facts, &first, (outside, needed)),
        };
        answers.push(Answer::Found(finding));
    }
    let half = facts.thresholds.ttft_share_ratio * first.total;
    match cache_explains(facts) {
        // whether prompts share anything is not seen: what else it may be is told after it
        Some(Prompts::MayBeFound) => {
            let else_found = prefill(facts, &first, computed, waits);
            let else_found = else_found
                .into_iter()
                .filter(|answer| computed >= half && matches!(answer, Answer::Found(_)));
            answers.extend(else_found);
            return answers;
        }
        Some(Prompts::WereFound) => return answers,
        None => {}
    }
    if computed >= half {
        answers.extend(prefill(facts, &first, computed, waits));
    } else if !waits && queued + computed >= half {
        // few wait at a time, and long
        match head_of_line(facts, queued + computed) {
            Some(finding) => answers.push(Answer::Found(finding)),
            // they wait, and are not among those that wait for room (vLLM before 0.20)
            None if facts.gauge(Q::RequestsWaitingDeferred).is_none() => {
                answers.push(unclear(facts, Cause::Deferred, Q::RequestsWaitingDeferred));
            }
            None => {}
        }
    }
    answers
}

/// By how much the rest of a mean time to first token may be off, in seconds, where requests wait. Engines tell the queue
/// time of those that finish, which began a decode earlier than those that get their first token now: meanwhile the queue
/// has grown, and at the ends of the window they are other requests.
fn off_by(facts: &Facts<'_>, queued: f64) -> f64 {
    let drift = facts
        .gauge(Q::RequestsWaiting)
        .zip(facts.served_per_second())
        .map_or(f64::INFINITY, |(waiting, served)| {
            (waiting.max - waiting.min) / served
        });
    let decode = facts.mean(Q::DecodeTime).or_else(|| {
        let tokens = facts.mean(Q::GenerationLength)?;
        Some(tokens * facts.gap_seconds()?)
    });
    let part = decode.unwrap_or(f64::INFINITY) / facts.window_seconds();
    part * (2.0 * drift + queued)
}

/// What a request waits for an adapter, a grammar or a transfer on average, by Little's law; of all replicas, as few
/// wait at a time, and scrapes see few of them.
fn deferred_seconds(facts: &Facts<'_>) -> Option<f64> {
    let facts = facts.of_instance();
    let waiting = facts.gauge(Q::RequestsWaitingDeferred)?.mean;
    let served = facts.served_per_second().filter(|served| *served > 0.0)?;
    Some(waiting / served)
}

fn prefill(facts: &Facts<'_>, first: &FirstToken, computed: f64, waits: bool) -> Vec<Answer> {
    if let Some((tokens, told)) = budget_in_use(facts)
        && tokens < facts.thresholds.small_token_budget
        && !waits
    {
        return token_budget(facts, tokens, told, computed).answer();
    }
    if let Some(finding) = head_of_line(facts, computed) {
        return vec![Answer::Found(finding)];
    }
    // the same is seen where steps are cut, or long prompts stand before short ones
    let missing = match seen_chunk(facts) {
        Err(missing) => Some((Cause::TokenBudget, missing)),
        Ok(_) => lengths_missing(facts).map(|missing| (Cause::HeadOfLine, missing)),
    };
    if let Some((cause, missing)) = missing {
        return vec![
            unclear(facts, cause, missing),
            unclear(facts, Cause::PrefillBound, missing),
        ];
    }
    let prompt = facts.mean(Q::PromptLength);
    let length = prompt.map_or_else(String::new, |tokens| {
        format!(" of {tokens:.0} tokens on average")
    });
    let description = format!(
        "first tokens take {}, {} of it computing prompts{length}",
        seconds(first.total),
        percent((computed / first.total).min(1.0)),
    );
    let evidence = facts
        .evidence()
        .mean(Q::TimeToFirstToken)
        .against(
            Comparison::AtLeast,
            facts.targets.ttft_p50_seconds,
            "slo:ttft_p50",
        )
        .mean(Q::PrefillTime)
        .mean(Q::PrefillStepTime)
        .mean(Q::QueueTime)
        .quantile(Q::TimeToFirstToken, 0.99, "p99")
        .mean(Q::PromptLength)
        .value("prefix_cache_hit_ratio")
        .done();
    found(Cause::PrefillBound, description, evidence)
        .severe(severity_of_ttft(facts, computed))
        .sure(by_count(0.85, served(facts)))
        .costs(CostKind::TtftSeconds, computed)
        .treat(
            "Compute prompts faster: more tensor parallelism, quantized weights, prefill on replicas of its own; or shorter prompts.",
            &[Treatment::Parallelism, Treatment::Quantization, Treatment::Scaling],
        )
        .answer()
}

/// What is missing to tell whether a few prompts are much longer than the others.
pub(super) fn lengths_missing(facts: &Facts<'_>) -> Option<Q> {
    let told = facts
        .distribution(Q::PromptLength)
        .is_some_and(|lengths| lengths.mean.is_some() && !lengths.quantiles.is_empty());
    (!told).then_some(Q::PromptLength)
}

/// A few long prompts in front of many short ones.
pub(super) fn head_of_line(facts: &Facts<'_>, delay: f64) -> Option<Finding> {
    let lengths = facts.distribution(Q::PromptLength)?;
    let mean = lengths.mean?;
    let median = facts.quantile(Q::PromptLength, 0.5)?.number();
    let long = facts.quantile(Q::PromptLength, 0.99)?.number();
    let skew = mean / median.max(1.0);
    // the long ones themselves may take long: it is the others that must not
    let others = |q, target: f64| {
        let told = facts.quantile(Q::TimeToFirstToken, q);
        told.is_none_or(|value| !matches!(value, Bounded::AtMost(_)) && value.number() > target)
    };
    let felt =
        others(0.5, facts.targets.ttft_p50_seconds) || others(0.9, facts.targets.ttft_p99_seconds);
    if skew < facts.thresholds.prompt_skew_ratio || !felt {
        return None;
    }
    let description = format!(
        "half of the prompts have at most {median:.0} tokens, a few up to {long:.0}: the short ones wait {} behind them",
        seconds(delay)
    );
    let evidence = facts
        .evidence()
        .derived("prompt_skew_ratio", skew, &lengths.source)
        .against(
            Comparison::AtLeast,
            facts.thresholds.prompt_skew_ratio,
            "prompt_skew_ratio",
        )
        .mean(Q::PromptLength)
        .quantile(Q::PromptLength, 0.5, "p50")
        .quantile(Q::PromptLength, 0.99, "p99")
        .quantile(Q::TimeToFirstToken, 0.5, "p50")
        .mean(Q::QueueTime)
        .mean(Q::PrefillTime)
        .done();
    let what = match facts.engine() {
        "vllm" => {
            "Cap the part that long prompts take of a step (--long-prefill-token-threshold), or lower --max-num-batched-tokens; or send them to replicas of their own."
        }
        "sglang" => {
            "Let short prompts go first (--schedule-policy shortest-prefill-first), cut long ones smaller (--chunked-prefill-size); or send them to replicas of their own."
        }
        _ => "Send long prompts to replicas of their own.",
    };
    Some(
        found(Cause::HeadOfLine, description, evidence)
            .severe(severity_of_ttft(facts, delay))
            .sure(by_count(0.8, served(facts)))
            .costs(CostKind::TtftSeconds, delay)
            .treat(what, &[Treatment::Scheduling, Treatment::Batching]),
    )
}

/// With what it has to be at least, in seconds.
fn frontend(facts: &Facts<'_>, first: &FirstToken, (outside, needed): (f64, f64)) -> Finding {
    let description = format!(
        "first tokens take {}, {} of it outside queue and prefill: tokeniser, HTTP or streaming",
        seconds(first.total),
        percent((outside / first.total).min(1.0)),
    );
    let evidence = facts
        .evidence()
        .derived("ttft_frontend_seconds", outside, "TTFT - queue - prefill")
        .against(Comparison::AtLeast, needed, "frontend_share_ratio")
        .mean(Q::TimeToFirstToken)
        .mean(Q::ValidationTime)
        .mean(Q::QueueTime)
        .mean(Q::PrefillTime)
        .done();
    let flag = match facts.engine() {
        "vllm" if !facts.since(0, 23, 0) => {
            "more front-end processes (--api-server-count), more CPU cores"
        }
        "vllm" => {
            "more front-end processes (--api-server-count), VLLM_USE_FASTOKENS=1, more CPU cores"
        }
        "sglang" => "more tokeniser processes (--tokenizer-worker-num), more CPU cores",
        "tgi" => "more --validation-workers, more CPU cores",
        _ => "more front-end processes",
    };
    found(Cause::Frontend, description, evidence)
        .severe(severity_of_ttft(facts, outside))
        .sure(by_count(0.8, served(facts)))
        .costs(CostKind::TtftSeconds, outside)
        .treat(
            &format!("Give the front end more: {flag}."),
            &[Treatment::Parallelism],
        )
}
