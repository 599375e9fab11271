//! DECODE_BOUND, PREFILL_INTERFERENCE: tokens come slowly, always or by fits and starts.

use crate::analysis::check::{
    Answer, by_count, found, number, percent, seconds, severity_of_gap, unclear,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Finding, Severity, Treatment};
use crate::engine::Quantity as Q;
use crate::measure::{Bounded, Bucket};

/// Gaps between tokens below which nothing is said.
const FEWEST_GAPS: f64 = 50.0;
/// A quantile within a bucket is that many times the target before tokens are said to be late.
const INTERPOLATED_RATIO: f64 = 1.1;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let target = facts.targets.itl_p99_seconds;
    let Some(gaps) = facts.distribution(Q::InterTokenLatency) else {
        return by_steps(facts);
    };
    if gaps.count < FEWEST_GAPS {
        return Vec::new();
    }
    let (Some(mean), Some(median), Some(tail)) = (
        gaps.mean,
        facts.quantile(Q::InterTokenLatency, 0.5),
        facts.quantile(Q::InterTokenLatency, 0.99),
    ) else {
        return Vec::new();
    };
    let share = prefill_share(facts);
    let shared = share.is_some_and(|share| share >= facts.thresholds.prefill_share_ratio);
    let slow_median =
        matches!(median, Bounded::Value(value) | Bounded::AtLeast(value) if value > target);
    if slow_median {
        return decode_bound(facts, median.number().max(mean), gaps.count).answer();
    }
    let late = matches!(tail, Bounded::Value(value) | Bounded::AtLeast(value) if value > target);
    let stumbles = tail.number() >= facts.thresholds.itl_tail_ratio * median.number();
    // between the bounds of a bucket nothing is known: beyond is what a bound says, and by more than chance
    let surely = match tail {
        Bounded::Value(value) => {
            let decides = |bucket: &Bucket| {
                bucket.at_most >= value && bucket.above.is_some_and(|above| above >= target)
            };
            value > INTERPOLATED_RATIO * target
                && gaps
                    .buckets
                    .iter()
                    .find(|one| one.at_most >= value)
                    .is_none_or(decides)
        }
        _ => late,
    };
    if surely && stumbles && shared {
        return interference(facts, (median, tail), share.unwrap_or(0.0), gaps.count).answer();
    }
    if mean > target || (late && !stumbles) {
        return decode_bound(facts, mean, gaps.count).answer();
    }
    if late && share.is_none() {
        return vec![unclear(facts, Cause::PrefillInterference, Q::PrefillTokens)];
    }
    Vec::new()
}

/// TGI tells the times of its steps and no gaps: a prefill step holds up everything that decodes.
fn by_steps(facts: &Facts<'_>) -> Vec<Answer> {
    let told = [Q::DecodeStepTotalTime, Q::DecodeStepTime];
    let Some(decode) = told.into_iter().find_map(|one| facts.distribution(one)) else {
        let few = facts
            .increase(Q::GenerationTokens)
            .is_some_and(|tokens| tokens <= FEWEST_GAPS);
        return match facts.moves() && !few {
            true => vec![unclear(facts, Cause::DecodeBound, Q::InterTokenLatency)],
            false => Vec::new(),
        };
    };
    let target = facts.targets.itl_p99_seconds;
    let Some(step) = decode.mean.filter(|_| decode.count >= FEWEST_GAPS) else {
        return Vec::new();
    };
    if step > target {
        return decode_bound(facts, step, decode.count).answer();
    }
    let prefill = facts.distribution(Q::PrefillStepTime);
    // one in a hundred gaps has a prefill in it
    let Some((prefill, long)) = prefill
        .and_then(|one| Some((one, one.mean?)))
        .filter(|(one, long)| *long > target && one.count >= 0.01 * decode.count)
    else {
        return Vec::new();
    };
    let running = facts
        .gauge(Q::RequestsRunning)
        .map_or(0.0, |gauge| gauge.mean);
    if running < 2.0 || long < facts.thresholds.itl_tail_ratio * step {
        return Vec::new();
    }
    let share = prefill.count * long / (prefill.count * long + decode.count * step);
    interference(
        facts,
        (Bounded::Value(step), Bounded::Value(long)),
        share,
        decode.count,
    )
    .answer()
}

/// Share of what is computed that is prompts.
pub(super) fn prefill_share(facts: &Facts<'_>) -> Option<f64> {
    let prompts = facts.increase(Q::PrefillTokens)?;
    let outputs = facts.increase(Q::GenerationTokens)?;
    (prompts + outputs > 0.0).then(|| prompts / (prompts + outputs))
}

fn decode_bound(facts: &Facts<'_>, gap: f64, observed: f64) -> Finding {
    let running = facts
        .gauge(Q::RequestsRunning)
        .map_or_else(String::new, |gauge| {
            format!(" with {} requests running", number(gauge.mean))
        });
    let target = facts.targets.itl_p99_seconds;
    let tail = facts.quantile(Q::InterTokenLatency, 0.99);
    let description = match tail {
        Some(tail) if gap <= target => format!(
            "one gap between tokens in a hundred takes {} or more, {} on average{running}: steps are slow",
            seconds(tail.number()),
            seconds(gap),
        ),
        _ => format!("a token takes {}{running}: each step is slow", seconds(gap)),
    };
    let name = "slo:itl_p99";
    let evidence = facts
        .evidence()
        .mean(Q::InterTokenLatency)
        .against(Comparison::AtLeast, target, name)
        .mean(Q::DecodeStepTotalTime)
        .against(Comparison::AtLeast, target, name)
        .mean(Q::DecodeStepTime)
        .against(Comparison::AtLeast, target, name)
        .quantile(Q::InterTokenLatency, 0.5, "p50")
        .against(Comparison::AtLeast, target, name)
        .quantile(Q::InterTokenLatency, 0.99, "p99")
        .against(Comparison::AtLeast, target, name)
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::KvCacheUsage)
        .done();
    found(Cause::DecodeBound, description, evidence)
        .severe(severity_of_gap(facts, gap))
        .sure(by_count(0.8, observed / 10.0))
        .costs(CostKind::ItlSeconds, gap - target)
        .treat(
            "Make steps faster: quantized weights or KV cache, more tensor parallelism, speculation at small batches; or smaller batches on more replicas.",
            &[
                Treatment::Quantization,
                Treatment::Parallelism,
                Treatment::SpeculativeDecoding,
                Treatment::Scaling,
            ],
        )
}

fn interference(
    facts: &Facts<'_>,
    (median, tail): (Bounded, Bounded),
    share: f64,
    observed: f64,
) -> Finding {
    let description = format!(
        "one gap between tokens in a hundred takes {} or more, half of them at most {}: prompts share steps with decodes ({} of what is computed)",
        seconds(tail.number()),
        seconds(median.number()),
        percent(share),
    );
    let evidence = facts
        .evidence()
        .quantile(Q::InterTokenLatency, 0.99, "p99")
        .against(
            Comparison::AtLeast,
            facts.targets.itl_p99_seconds,
            "slo:itl_p99",
        )
        .quantile(Q::InterTokenLatency, 0.5, "p50")
        .mean(Q::PrefillStepTime)
        .mean(Q::DecodeStepTime)
        .derived(
            "prefill_share_ratio",
            share,
            "prefill / (prefill + generated)",
        )
        .against(
            Comparison::AtLeast,
            facts.thresholds.prefill_share_ratio,
            "prefill_share_ratio",
        )
        .mean(Q::StepTokens)
        .done();
    let flag = match facts.engine() {
        "vllm" if !facts.since(0, 24, 0) => {
            "lower --max-num-batched-tokens, or --long-prefill-token-threshold"
        }
        "vllm" => {
            "lower --max-num-batched-tokens, or --prefill-schedule-interval and --long-prefill-token-threshold"
        }
        "sglang" => "lower --chunked-prefill-size, or --enable-mixed-chunk",
        "tgi" => "lower --max-batch-prefill-tokens",
        _ => "smaller prefill chunks",
    };
    // a token in a hundred: less than if all were
    let severity = severity_of_gap(facts, tail.number() / 2.0).min(Severity::High);
    found(Cause::PrefillInterference, description, evidence)
        .severe(severity)
        .sure(by_count(0.8, observed / 10.0))
        .costs(CostKind::ItlSeconds, tail.number() - median.number())
        .treat(
            &format!("Let less of a prompt into each step: {flag}. First tokens come a little later for it."),
            &[Treatment::Batching, Treatment::Scheduling],
        )
}
