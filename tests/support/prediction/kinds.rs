//! What is wrong with a scenario: load and settings that make it so, and what treats it.

use std::collections::BTreeMap;

use perfagent::analysis::Targets;
use perfagent::model::Policy;
use perfagent::optimization::KnobChange;
use perfagent::simulator::{BurstPart, RequestPart};
use serde_json::Value;

use super::generate::{Draft, text};
use super::{Kind, Treatment};

/// What is drawn from; some kinds are more often chosen than others.
pub(super) fn of(engine: Policy) -> &'static [Kind] {
    use Kind::*;
    match engine {
        Policy::Vllm => &[
            SequenceCap,
            SequenceCap,
            KvCapacity,
            KvCapacity,
            BudgetTooSmall,
            BudgetTooLarge,
            HeadOfLine,
            QueueBound,
            SpeculationLoss,
            BatchTooLarge,
            Capacity,
        ],
        Policy::Sglang => &[
            SequenceCap,
            SequenceCap,
            KvCapacity,
            KvCapacity,
            QueueBound,
            Conservativeness,
            BatchTooLarge,
            Capacity,
        ],
        Policy::Tgi => &[
            SequenceCap,
            SequenceCap,
            KvCapacity,
            KvCapacity,
            QueueBound,
            BatchTooLarge,
            Capacity,
        ],
    }
}

/// The flag of each engine that says the same.
pub(super) fn cap_flag(engine: Policy) -> &'static str {
    match engine {
        Policy::Vllm => "max-num-seqs",
        Policy::Sglang => "max-running-requests",
        Policy::Tgi => "max-batch-size",
    }
}

pub(super) fn share_flag(engine: Policy) -> &'static str {
    match engine {
        Policy::Vllm => "gpu-memory-utilization",
        Policy::Sglang => "mem-fraction-static",
        Policy::Tgi => "cuda-memory-fraction",
    }
}

pub(super) fn queue_flag(engine: Policy) -> &'static str {
    match engine {
        Policy::Vllm => "max-num-queued-reqs",
        Policy::Sglang => "max-queued-requests",
        Policy::Tgi => "max-concurrent-requests",
    }
}

pub(super) fn budget_flag(engine: Policy) -> &'static str {
    match engine {
        Policy::Vllm => "max-num-batched-tokens",
        Policy::Sglang => "chunked-prefill-size",
        Policy::Tgi => "max-batch-prefill-tokens",
    }
}

/// A change in the engine's spelling: `max-num-seqs` is `--max-num-seqs`, and the knob `max_num_seqs`.
pub(super) fn change(
    engine: Policy,
    settings: &BTreeMap<String, Value>,
    flag: &str,
    to: Option<String>,
) -> KnobChange {
    KnobChange {
        name: knob_name(engine, flag),
        flag: format!("--{flag}"),
        from: settings.get(flag).map(|value| number_in(&text(value))),
        to,
    }
}

/// The knob that a flag sets.
pub(super) fn knob_name(engine: Policy, flag: &str) -> String {
    match flag {
        // elsewhere it is the longest request
        "max-total-tokens" if engine == Policy::Sglang => "max_total_num_tokens".to_owned(),
        "speculative-config" => "num_speculative_tokens".to_owned(),
        other => other.replace('-', "_"),
    }
}

/// Of the JSON that `--speculative-config` takes, the number that is the knob; other values as they are.
pub(super) fn number_in(text: &str) -> String {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let tokens = json.and_then(|json| Some(json.get("num_speculative_tokens")?.to_string()));
    tokens.unwrap_or_else(|| text.to_owned())
}

pub(super) fn number(settings: &BTreeMap<String, Value>, name: &str) -> Option<u32> {
    settings.get(name).and_then(Value::as_u64)?.try_into().ok()
}

pub(super) fn cap(draft: &Draft) -> Option<u32> {
    number(&draft.settings, cap_flag(draft.engine))
}

/// Another share of the memory that still holds one request; where the cache is bounded by a number, another number.
pub(super) fn kv_change(draft: &mut Draft, shares: &[f64]) -> (&'static str, String) {
    let flag = share_flag(draft.engine);
    for bound in [
        "num-gpu-blocks-override",
        "max-batch-total-tokens",
        "max-total-tokens",
    ] {
        let of_engine = bound != "max-total-tokens" || draft.engine == Policy::Sglang;
        if let Some(value) = number(&draft.settings, bound).filter(|_| of_engine) {
            let times = draft.dice.pick(&[1.2, 1.5, 2.0]);
            return (bound, ((f64::from(value) * times) as u32).to_string());
        }
    }
    let least = share_for(draft, f64::from(draft.lengths.longest) * 1.2);
    let fit: Vec<f64> = shares
        .iter()
        .copied()
        .filter(|share| *share > least)
        .collect();
    let share = draft.dice.pick(if fit.is_empty() { &[0.95] } else { &fit });
    (flag, share.to_string())
}

/// The share of memory that leaves so many tokens.
fn share_for(draft: &Draft, tokens: f64) -> f64 {
    let memory = &draft.hardware.memory;
    let gib = tokens * memory.kv_bytes_per_token / f64::from(1_u32 << 30);
    (memory.weights_gib + gib) / memory.device_gib
}

impl Draft {
    fn set(&mut self, flag: &str, value: impl Into<Value>) {
        self.settings.insert(flag.to_owned(), value.into());
    }

    fn set_share(&mut self, share: f64) {
        // shares are written with few digits
        let share = (share * 1_000.0).ceil() / 1_000.0;
        self.set(share_flag(self.engine), share);
    }

    fn cure(&mut self, flag: &str, to: Option<String>) {
        let change = change(self.engine, &self.settings, flag, to);
        self.cure.changes.push(change);
    }

    /// Requests a second that all replicas can serve, so many at once in each.
    fn capacity(&self, sequences: f64) -> f64 {
        let shape = &self.lengths;
        f64::from(self.replicas)
            * self
                .hardware
                .capacity(sequences, shape.prompt_mean, shape.output_mean)
    }

    /// So many at once that more are hardly faster, and tokens come in time; no more than have room.
    fn sweet_spot(&self, itl_seconds: f64) -> f64 {
        let shape = &self.lengths;
        let tokens = self.hardware.memory.tokens(0.88) as f64;
        let room = 0.6 * tokens / (shape.prompt_mean + shape.output_mean);
        let mut sequences = 1.0_f64;
        let slow = |sequences: f64| {
            let prefill = sequences * shape.prompt_mean / shape.output_mean;
            self.hardware
                .step_seconds(prefill, sequences, shape.prompt_mean + shape.output_mean)
                > itl_seconds
        };
        while sequences < room.min(160.0) && !slow(sequences * 1.3) {
            sequences *= 1.3;
        }
        sequences.floor().max(2.0)
    }

    /// A load that keeps about so many requests inside each replica; as many times what it serves, where it is open.
    fn demand(&mut self, sequences: f64, open: bool, times: f64) {
        if open {
            self.load.rate = Some(self.capacity(sequences) * times);
        } else {
            let clients = (sequences * times * f64::from(self.replicas))
                .round()
                .max(1.0);
            self.load.clients = Some(clients as u32);
            if self.dice.chance(0.3) {
                self.load.think_seconds = Some(self.dice.between(0.2, 1.0));
            }
        }
    }
}

/// Makes it so; what users were promised.
pub(super) fn apply(kind: Kind, draft: &mut Draft) -> Targets {
    let targets = draft.hardware.targets;
    let best = draft.sweet_spot(targets.itl_p99_seconds * 0.4);
    let open = draft.dice.chance(0.5);
    base(draft);
    match kind {
        Kind::Healthy => {
            let times = draft.dice.between(0.1, 0.6);
            draft.demand(best, open, times);
        }
        Kind::SequenceCap => {
            let cap = (best * draft.dice.log_between(0.06, 0.4)).round().max(1.0);
            draft.set(cap_flag(draft.engine), cap as u32);
            let times = if open {
                draft.dice.between(0.95, 1.5)
            } else {
                draft.dice.between(1.5, 4.0)
            };
            draft.demand(cap, open, times);
            draft.cure(
                cap_flag(draft.engine),
                Some((cap * 8.0).min(256.0).to_string()),
            );
        }
        Kind::KvCapacity => kv_capacity(draft, best, open),
        Kind::BudgetTooSmall => budget_too_small(draft, open),
        Kind::BudgetTooLarge => {
            let budget = draft.dice.pick(&[8_192, 16_384]);
            draft.set(budget_flag(draft.engine), budget);
            let times = draft.dice.between(0.3, 0.7);
            draft.demand(best, open, times);
            draft.cure(budget_flag(draft.engine), Some("1024".to_owned()));
        }
        Kind::HeadOfLine => {
            let long = (draft.dice.between(4_000.0, 6_500.0) * draft.hardware.lengths) as u32;
            draft.load.classes = vec![
                RequestPart {
                    weight: Some(9.0),
                    ..RequestPart::default()
                },
                RequestPart {
                    weight: Some(draft.dice.between(0.5, 2.0)),
                    prompt_tokens: Some(format!("{}..{}", long / 2, long).into()),
                    ..RequestPart::default()
                },
            ];
            draft.lengths.longest = draft.lengths.longest.max(long + draft.lengths.longest / 2);
            let times = draft.dice.between(0.25, 0.7);
            draft.demand(best, open, times);
            draft.cure("long-prefill-token-threshold", Some("512".to_owned()));
        }
        Kind::QueueBound => queue_bound(draft, best),
        Kind::SpeculationLoss => {
            let tokens = draft.dice.pick(&[4, 6, 8]);
            draft.set(
                "speculative-config",
                format!("{{\"num_speculative_tokens\": {tokens}}}"),
            );
            draft.acceptance_ratio = Some(draft.dice.between(0.03, 0.25));
            let times = draft.dice.between(0.6, 1.2);
            draft.demand(best, open, times);
            draft.cure("speculative-config", Some("0".to_owned()));
        }
        Kind::BatchTooLarge => return batch_too_large(draft),
        Kind::Conservativeness => {
            let value = draft.dice.pick(&[0.05, 0.1, 0.2]);
            draft.set("schedule-conservativeness", value);
            let wanted = best * draft.dice.between(0.2, 0.4);
            let tokens = tight_cache(draft, wanted);
            let share = share_for(draft, tokens);
            draft.set_share(share);
            let mean = draft.lengths.prompt_mean + draft.lengths.output_mean;
            let times = draft.dice.between(1.5, 3.0);
            draft.demand(tokens / mean, false, times);
            draft.cure("schedule-conservativeness", Some("1.0".to_owned()));
        }
        Kind::Capacity => {
            draft.replicas = 1;
            let times = draft.dice.between(1.05, 1.6);
            draft.demand(best, true, times);
            draft.cure.replicas = Some(2);
        }
    }
    targets
}

/// Settings that most deployments set, at values that hold up nobody.
fn base(draft: &mut Draft) {
    let longest = (draft.lengths.longest * 5 / 4).max(512);
    match draft.engine {
        Policy::Vllm => {
            draft.set("max-model-len", longest.next_multiple_of(1_024).max(8_192));
            let budget = draft.dice.pick(&[2_048, 2_048, 4_096]);
            draft.set("max-num-batched-tokens", budget);
            if draft.dice.chance(0.5) {
                draft.set("max-num-seqs", 256);
            }
        }
        Policy::Sglang => {
            let budget = draft.dice.pick(&[2_048, 4_096]);
            draft.set("chunked-prefill-size", budget);
            if draft.dice.chance(0.5) {
                draft.set("max-running-requests", 256);
            }
        }
        Policy::Tgi => {
            let longest = longest.next_multiple_of(1_024).max(4_096);
            draft.set("max-total-tokens", longest);
            draft.set("max-batch-prefill-tokens", longest);
            draft.set("max-concurrent-requests", 512);
            if draft.dice.chance(0.5) {
                draft.set("max-batch-size", 256);
            }
        }
    }
}

/// Tokens of a cache for so many requests of mean length, and of the longest; `max_model_len` is only as long as that.
fn tight_cache(draft: &mut Draft, sequences: f64) -> f64 {
    let longest = draft.lengths.longest.next_multiple_of(256) + 256;
    match draft.engine {
        Policy::Vllm => draft.set("max-model-len", longest),
        Policy::Sglang => draft.set("context-length", longest),
        Policy::Tgi => {
            draft.set("max-total-tokens", longest);
            draft.set("max-batch-prefill-tokens", longest);
        }
    }
    let mean = draft.lengths.prompt_mean + draft.lengths.output_mean;
    (sequences * mean).max(f64::from(longest) * 1.1)
}

fn kv_capacity(draft: &mut Draft, best: f64, open: bool) {
    let wanted = best * draft.dice.between(0.15, 0.45);
    let tokens = tight_cache(draft, wanted);
    let of_share = draft.dice.chance(0.6);
    if of_share {
        let share = share_for(draft, tokens);
        draft.set_share(share);
        draft.cure(share_flag(draft.engine), Some("0.95".to_owned()));
    } else {
        let (flag, per) = match draft.engine {
            Policy::Vllm => ("num-gpu-blocks-override", 16.0),
            Policy::Sglang => ("max-total-tokens", 1.0),
            Policy::Tgi => ("max-batch-total-tokens", 1.0),
        };
        draft.set(flag, (tokens / per).ceil() as u32 + 2);
        draft.cure(flag, None);
    }
    let mean = draft.lengths.prompt_mean + draft.lengths.output_mean;
    let times = if open {
        draft.dice.between(0.9, 1.4)
    } else {
        draft.dice.between(1.5, 3.5)
    };
    draft.demand(tokens / mean, open, times);
}

fn budget_too_small(draft: &mut Draft, open: bool) {
    let budget = draft.dice.pick(&[128, 192, 256]);
    draft.set("max-num-batched-tokens", budget);
    let cap = draft.dice.pick(&[64, 128]);
    draft.set("max-num-seqs", cap);
    // a prompt takes so many steps
    let shape = &draft.lengths;
    let step = draft.hardware.step_seconds(f64::from(budget), 0.0, 0.0);
    let rate = f64::from(draft.replicas) * f64::from(budget)
        / step
        / (shape.prompt_mean + shape.output_mean);
    if open {
        draft.load.rate = Some(rate * draft.dice.between(0.8, 1.1));
    } else {
        let clients = draft.dice.between(8.0, 40.0) * f64::from(draft.replicas);
        draft.load.clients = Some(clients as u32);
    }
    draft.cure("max-num-batched-tokens", Some("2048".to_owned()));
}

fn queue_bound(draft: &mut Draft, best: f64) {
    let cap = (best * 0.6).round().max(2.0) as u32;
    draft.set(cap_flag(draft.engine), cap);
    let bound = match draft.engine {
        Policy::Tgi => cap + draft.dice.pick(&[1, 2]),
        _ => draft.dice.pick(&[1, 2, 3]),
    };
    draft.set(queue_flag(draft.engine), bound);
    let rate = draft.capacity(f64::from(cap)) * draft.dice.between(0.55, 0.8);
    draft.load.rate = Some(rate);
    let period_seconds = draft.dice.between(8.0, 15.0);
    draft.load.bursts = Some(BurstPart {
        factor: draft.dice.between(2.0, 4.0),
        seconds: period_seconds * 0.15,
        period_seconds,
    });
    draft.cure(queue_flag(draft.engine), Some("1000".to_owned()));
}

/// Users who were promised a pace, and can wait for the first token.
fn batch_too_large(draft: &mut Draft) -> Targets {
    let targets = draft.hardware.targets;
    let clients = draft.sweet_spot(targets.itl_p99_seconds) * draft.dice.between(0.8, 1.3);
    let clients = clients.round().max(8.0);
    draft.load.clients = Some((clients * f64::from(draft.replicas)) as u32);
    let shape = &draft.lengths;
    let step = |sequences: f64| {
        let prefill = sequences * shape.prompt_mean / shape.output_mean;
        draft
            .hardware
            .step_seconds(prefill, sequences, shape.prompt_mean + shape.output_mean)
    };
    let (whole, half) = (step(clients), step(clients / 2.0));
    draft.cure(
        cap_flag(draft.engine),
        Some((clients / 2.0).round().to_string()),
    );
    Targets {
        ttft_p50_seconds: 20.0,
        ttft_p99_seconds: 60.0,
        itl_p99_seconds: (whole * half).sqrt(),
        ..targets
    }
}

impl Treatment {
    pub(super) fn is_none(&self) -> bool {
        self.changes.is_empty() && self.replicas.is_none()
    }
}
