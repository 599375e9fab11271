//! The best that settings could do, by trying them all on the truth engine.

use std::collections::BTreeMap;

use perfagent::model::{Policy, Settings};
use serde_json::Value;

use super::Scenario;
use super::truth::{EQUAL, Flags, Phase, Score, Truth, score};

/// Points that are run for the whole window, after all were run for a part of it.
const FINALISTS: usize = 6;
/// That part.
const SHORT: f64 = 0.4;

/// The flags of the best point: of those that are no worse, the one with the fewest changes. None where it is best as
/// it is.
pub(crate) fn best(truth: &Truth<'_>) -> BTreeMap<String, Value> {
    let scenario = truth.scenario;
    let short = |flags: &Flags| {
        let deployment = truth.deployment(Phase::After, flags, None).ok()?;
        let seconds = scenario.window_seconds * SHORT;
        Some(score(
            &truth.run(&deployment, seconds).ok()?,
            &scenario.targets,
        ))
    };
    let mut tried: Vec<(Flags, Score)> = points(truth)
        .into_iter()
        .filter_map(|flags| Some((flags.clone(), short(&flags)?)))
        .collect();
    tried.sort_by(|(a, one), (b, other)| order(one, other).then(a.len().cmp(&b.len())));
    let mut best = (Flags::new(), gain_of(truth, &Flags::new()));
    for (flags, _) in tried.into_iter().take(FINALISTS) {
        let found = gain_of(truth, &flags);
        if found.beats(&best.1) {
            best = (flags, found);
        }
    }
    // what is taken away is written as null elsewhere; TOML has none
    best.0
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_else(|| "default".into())))
        .collect()
}

/// Flags as they are written in the set.
pub(crate) fn written(best: &BTreeMap<String, Value>) -> Flags {
    best.iter()
        .map(|(name, value)| {
            let value = (value.as_str() != Some("default")).then(|| value.clone());
            (name.clone(), value)
        })
        .collect()
}

fn gain_of(truth: &Truth<'_>, flags: &Flags) -> Score {
    let summary = truth.with(Phase::After, flags, None);
    summary.map_or(
        Score {
            violation: f64::INFINITY,
            tokens_per_second: 0.0,
        },
        |summary| score(&summary, &truth.scenario.targets),
    )
}

/// The better one first. Violations count in steps that are equal: so this is an order, which [`Score::beats`] is not.
fn order(one: &Score, other: &Score) -> std::cmp::Ordering {
    let steps = |of: &Score| (of.violation / EQUAL).round();
    steps(one)
        .total_cmp(&steps(other))
        .then(other.tokens_per_second.total_cmp(&one.tokens_per_second))
}

/// Every point of the grid: all values of all knobs that the model has.
fn points(truth: &Truth<'_>) -> Vec<Flags> {
    let mut points = vec![Flags::new()];
    for (flag, values) in axes(truth) {
        let changed: Vec<Flags> = points
            .iter()
            .flat_map(|point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.insert(flag.to_owned(), value.clone());
                    point
                })
            })
            .collect();
        points.extend(changed);
    }
    points
}

/// Knobs, each with the values that it may take beside the present one.
fn axes(truth: &Truth<'_>) -> Vec<(&'static str, Vec<Option<Value>>)> {
    let scenario = truth.scenario;
    let deployment = truth.deployment(Phase::After, &Flags::new(), None);
    let deployment = deployment.expect("it runs as it is");
    let now = deployment.settings(&deployment.flags).expect("it runs");
    let caps = caps(&now);
    let some = |values: &[u32], now: u32| -> Vec<Option<Value>> {
        let others = values.iter().filter(|value| **value != now);
        others.map(|value| Some((*value).into())).collect()
    };
    let queue = |flag| match now.max_num_queued_reqs {
        Some(bound) if bound < 100 => vec![(flag, vec![Some(2_000.into())])],
        _ => Vec::new(),
    };
    let has = |flag: &str| scenario.base.settings.contains_key(flag);
    let mut axes = Vec::new();
    match scenario.engine {
        Policy::Vllm => {
            axes.push(("max-num-seqs", some(&caps, now.max_num_seqs)));
            let budgets = some(&[512, 2_048, 8_192], now.max_num_batched_tokens);
            axes.push(("max-num-batched-tokens", budgets));
            axes.push(kv(has, "gpu-memory-utilization", "num-gpu-blocks-override"));
            axes.push(("long-prefill-token-threshold", some(&[512], 0)));
            axes.extend(queue("max-num-queued-reqs"));
            if has("speculative-config") {
                let one = Value::from("{\"num_speculative_tokens\": 1}");
                axes.push(("speculative-config", vec![None, Some(one)]));
            }
        }
        Policy::Sglang => {
            axes.push(("max-running-requests", some(&caps, now.max_num_seqs)));
            let budgets = some(&[2_048, 8_192], now.max_num_batched_tokens);
            axes.push(("chunked-prefill-size", budgets));
            axes.push(kv(has, "mem-fraction-static", "max-total-tokens"));
            let others = [0.3, 1.0].map(|value| Some(value.into()));
            axes.push(("schedule-conservativeness", others.to_vec()));
            axes.extend(queue("max-queued-requests"));
        }
        Policy::Tgi => {
            axes.push(("max-batch-size", some(&caps, now.max_num_seqs)));
            let longest = now.max_model_len;
            let budgets = some(&[longest, 2 * longest], now.max_num_batched_tokens);
            axes.push(("max-batch-prefill-tokens", budgets));
            axes.push(kv(has, "cuda-memory-fraction", "max-batch-total-tokens"));
            axes.extend(queue("max-concurrent-requests"));
        }
    }
    axes
}

/// As much of the memory as is allowed; where a number bounds the cache, without that.
fn kv(
    has: impl Fn(&str) -> bool,
    share: &'static str,
    bound: &'static str,
) -> (&'static str, Vec<Option<Value>>) {
    match has(bound) {
        true => (bound, vec![None]),
        false => (share, vec![Some(0.95.into())]),
    }
}

/// Caps from half to eight times the present one, no more than most engines take.
fn caps(now: &Settings) -> Vec<u32> {
    let cap = f64::from(now.max_num_seqs);
    let mut caps: Vec<u32> = [0.5, 2.0, 4.0, 8.0]
        .iter()
        .map(|times| ((cap * times).round() as u32).clamp(1, 512))
        .collect();
    // where the present one binds nobody, smaller ones may help
    if now.max_num_seqs > 128 {
        caps.extend([16, 48]);
    }
    caps.sort_unstable();
    caps.dedup();
    caps
}

/// By how much the violation falls, from one to the other.
pub(crate) fn gain(before: &Score, after: &Score) -> f64 {
    before.violation - after.violation
}

/// Whether a scenario has anything that settings can mend, by as much.
pub(crate) fn curable(scenario: &Scenario) -> bool {
    !scenario.is_healthy() && scenario.cure.replicas.is_none()
}
