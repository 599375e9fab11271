//! PREFIX_CACHE_OFF, COLD_PREFIX_CACHE: prompts are computed that might have been found.

use crate::analysis::check::{
    Answer, by_count, found, percent, seconds, severity_of_ttft, unclear, unknown_setting,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Finding, Treatment};
use crate::analysis::queue::{Limit, limit, queue};
use crate::engine::Quantity as Q;
use crate::measure::{Interval, Series};

use super::waiting::served;

/// How the prefix cache stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cache {
    Off,
    /// Hit ratios of the first and the last third of the window.
    Changing {
        first: f64,
        last: f64,
    },
    Works,
    Unknown,
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(delay) = cost_of_prompts(facts) else {
        return Vec::new();
    };
    match cache(facts) {
        Cache::Off => off(facts, delay).answer(),
        Cache::Changing { first, last } => cold(facts, delay, (first, last)).answer(),
        Cache::Works => Vec::new(),
        Cache::Unknown => match facts.increase(Q::PrefixCacheQueries) {
            None => vec![unclear(facts, Cause::PrefixCacheOff, Q::PrefixCacheQueries)],
            Some(_) => vec![unknown_setting(
                Cause::PrefixCacheOff,
                "disable_radix_cache",
                "no prompt token was found in the prefix cache, and the engine does not tell whether it is on",
                "let the agent read the settings, or declare the launch arguments",
            )],
        },
    }
}

/// Prompts that take long because of the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prompts {
    /// It is off, and would find what they share, if they share anything.
    MayBeFound,
    /// It found more of them at another time of the window.
    WereFound,
}

/// Whether the prefix cache is why prompts take long.
pub(super) fn cache_explains(facts: &Facts<'_>) -> Option<Prompts> {
    match cache(facts) {
        Cache::Off => Some(Prompts::MayBeFound),
        Cache::Changing { .. } => Some(Prompts::WereFound),
        Cache::Works | Cache::Unknown => None,
    }
}

/// Seconds of the first token that go into computing prompts, where users notice: in the request's own prefill, or in
/// a queue behind those of others.
fn cost_of_prompts(facts: &Facts<'_>) -> Option<f64> {
    if facts.first_token_is_late() != Some(true) || facts.few_served() {
        return None;
    }
    let first = facts.first_token()?;
    let computed = first.prefill.unwrap_or(0.0);
    let behind = queue(facts).filter(|queue| {
        matches!(
            limit(facts, queue),
            Limit::TokenBudget { .. }
                | Limit::Prompts { .. }
                | Limit::PrefillTime { .. }
                | Limit::Unknown(Q::StepTokens)
        )
    });
    let share = facts.thresholds.ttft_share_ratio * first.total;
    (computed >= share || behind.is_some())
        .then(|| computed + behind.map_or(0.0, |queue| queue.seconds))
}

fn cache(facts: &Facts<'_>) -> Cache {
    let switched_off = facts
        .setting(&["enable_prefix_caching"])
        .is_some_and(|(_, value)| value == "false")
        || facts
            .setting(&["disable_radix_cache"])
            .is_some_and(|(_, value)| value == "true");
    let prompts = facts.increase(Q::PromptTokens).unwrap_or(0.0);
    let Some(queries) = facts.increase(Q::PrefixCacheQueries) else {
        return if switched_off {
            Cache::Off
        } else {
            Cache::Unknown
        };
    };
    // vLLM looks nothing up while it is off
    if switched_off || (facts.engine() == "vllm" && queries == 0.0 && prompts > 0.0) {
        return Cache::Off;
    }
    let hits = facts.increase(Q::PrefixCacheHits).unwrap_or(0.0);
    let told = facts.setting(&["disable_radix_cache", "enable_prefix_caching"]);
    if queries > 0.0 && hits == 0.0 && told.is_none() {
        return Cache::Unknown;
    }
    let thirds = facts
        .series("prefix_cache_hit_ratio")
        .and_then(thirds)
        .filter(|_| queries > 0.0);
    let Some((first, last)) = thirds else {
        return Cache::Works;
    };
    let fills = last - first >= facts.thresholds.hit_rise_ratio;
    let forgets = first - last >= facts.thresholds.hit_rise_ratio;
    if (fills || forgets) && first.min(last) < facts.thresholds.cold_hit_ratio {
        Cache::Changing { first, last }
    } else {
        Cache::Works
    }
}

/// Ratios over the first and the last third of the intervals.
fn thirds(series: &Series) -> Option<(f64, f64)> {
    let third = series.intervals.len() / 3;
    let ratio = |intervals: &[Interval]| {
        let whole: f64 = intervals.iter().map(|one| one.denominator).sum();
        let part: f64 = intervals.iter().map(|one| one.numerator).sum();
        (whole > 0.0).then(|| part / whole)
    };
    let first = series.intervals.get(..third)?;
    let last = series.intervals.get(series.intervals.len() - third..)?;
    Some((ratio(first)?, ratio(last)?))
}

fn off(facts: &Facts<'_>, delay: f64) -> Finding {
    let length = facts
        .mean(Q::PromptLength)
        .map_or_else(String::new, |tokens| {
            format!(" of {tokens:.0} tokens on average")
        });
    let description = format!(
        "the prefix cache is off, and computing prompts{length} costs {} of the first token",
        seconds(delay)
    );
    let evidence = facts
        .evidence()
        .mean(Q::TimeToFirstToken)
        .against(
            Comparison::AtLeast,
            facts.targets.ttft_p50_seconds,
            "slo:ttft_p50",
        )
        .increase(Q::PrefixCacheQueries)
        .mean(Q::PrefillTime)
        .mean(Q::QueueTime)
        .mean(Q::PromptLength)
        .done();
    let flag = match facts.engine() {
        "sglang" => "Start without --disable-radix-cache",
        _ => "Start with --enable-prefix-caching",
    };
    found(Cause::PrefixCacheOff, description, evidence)
        .severe(severity_of_ttft(facts, delay))
        // whether prompts begin alike cannot be seen while nothing is looked up
        .sure(by_count(0.75, served(facts)))
        .costs(CostKind::TtftSeconds, delay)
        .treat(
            &format!("{flag}: where prompts begin alike (system prompts, conversations), that part is computed once. If none do, it changes nothing."),
            &[Treatment::KvCache],
        )
}

fn cold(facts: &Facts<'_>, delay: f64, (first, last): (f64, f64)) -> Finding {
    let cold = facts.thresholds.cold_hit_ratio;
    let how = if last > first {
        format!(
            "is still filling ({} found at first, {} in the end)",
            percent(first),
            percent(last)
        )
    } else {
        format!(
            "forgets what comes again ({} found at first, {} in the end)",
            percent(first),
            percent(last)
        )
    };
    let description = format!(
        "the prefix cache {how}, and computing prompts costs {} of the first token",
        seconds(delay)
    );
    let evidence = facts
        .evidence()
        .value("prefix_cache_hit_ratio")
        .derived(
            "prefix_cache_hit_ratio_first_third",
            first,
            "prefix_cache_hit_ratio",
        )
        .against(Comparison::Below, cold, "cold_hit_ratio")
        .derived(
            "prefix_cache_hit_ratio_last_third",
            last,
            "prefix_cache_hit_ratio",
        )
        .against(Comparison::Below, cold, "cold_hit_ratio")
        .mean(Q::TimeToFirstToken)
        .mean(Q::PrefillTime)
        .gauge_mean(Q::KvCacheUsage)
        .done();
    let what = if last > first {
        "Wait until it is warm before judging or sending all traffic; warm new replicas with the usual beginnings."
    } else {
        "Give the KV cache more room, or send prompts that begin alike to the same replica."
    };
    found(Cause::ColdPrefixCache, description, evidence)
        .severe(severity_of_ttft(facts, delay))
        .sure(by_count(0.8, served(facts)))
        .costs(CostKind::TtftSeconds, delay)
        .treat(what, &[Treatment::KvCache, Treatment::Scheduling])
}
