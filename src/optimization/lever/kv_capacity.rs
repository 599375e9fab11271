//! How much memory the KV cache has.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, Proposal, SettingSource, SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::percent;
use super::grid::{nearest, thin};
use super::knob::{Knob, knob};
use crate::optimization::expectation::memory_share;

pub(super) const NAME: &str = "kv_capacity";
const TITLE: &str = "Give the KV cache more memory";

/// By how much a cache that is set in bytes or blocks grows.
const TIMES: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
/// What the usual share of the memory may bring where nobody tells the present one: nothing, or a cache so many times as
/// large.
const UNTOLD_TIMES: (f64, f64) = (1.0, 4.0);
/// The same of a cache that a number bounds, without that.
const UNBOUNDED_TIMES: (f64, f64) = (1.5, 12.0);
/// As many requests as no engine runs at once.
const NO_CAP: u32 = 1_024;
const NO_START: &str = "Out of memory at the start or under load, if something else uses the accelerator: an outage of the replica.";
const WATCH: &str = "Memory of the accelerator through a peak, then preemptions and the KV cache.";
const GIB: f64 = 1_073_741_824.0;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let mut found = situation.treated(&[Cause::KvCapacity, Cause::KvNearCapacity, Cause::Capacity]);
    // what lacks computing time gains nothing from memory
    let short = situation.kv_full().is_some();
    found.retain(|one| one.cause != Cause::Capacity || short);
    match found.is_empty() {
        true => Vec::new(),
        false => vec![more(situation, &found)],
    }
}

fn more(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    let set = |name| {
        knob(situation, TITLE, name)
            .ok()
            .filter(|knob| knob.number().is_some())
    };
    match situation.engine() {
        "sglang" => match set("max_total_tokens") {
            Some(tokens) => exact(found, &tokens, Unit::Tokens),
            None => share(situation, found, &SGLANG),
        },
        "tgi" => match set(TGI.bound).filter(|_| is_declared(situation, TGI.bound)) {
            Some(tokens) => exact(found, &tokens, Unit::Tokens),
            None => share(situation, found, &TGI),
        },
        _ => {
            // what is set last wins: blocks over bytes over a share
            if let Some(blocks) = set("num_gpu_blocks_override") {
                return exact(found, &blocks, Unit::Blocks);
            }
            if let Some(bytes) = set("kv_cache_memory_bytes") {
                return exact(found, &bytes, Unit::Bytes);
            }
            share(situation, found, &VLLM)
        }
    }
    .map(|mut family| {
        family.alternatives = family
            .alternatives
            .into_iter()
            .map(|one| with_reason(situation, one))
            .collect();
        family
    })
}

fn with_reason(situation: &Situation<'_>, one: Proposal) -> Proposal {
    let peak = situation.peak(Q::KvCacheUsage);
    let running = situation.busiest(Q::RequestsRunning);
    match peak.zip(running) {
        Some((peak, running)) => one.because(&format!(
            "{} of it is in use at the peak, by {running:.0} requests on average.",
            percent(peak)
        )),
        None => one,
    }
}

enum Unit {
    Blocks,
    Bytes,
    Tokens,
}

/// The cache is set as such: it grows by exactly as much.
fn exact(found: &[&Finding], knob: &Knob, unit: Unit) -> Answer {
    let from = knob.told(TITLE)?;
    let alternatives = TIMES.iter().filter_map(|times| {
        let wanted = from * times;
        let to = match unit {
            // in whole GiB where it is that large
            Unit::Bytes if wanted >= 2.0 * GIB => (wanted / GIB).round() * GIB,
            _ => wanted.round(),
        };
        if to <= from {
            return None;
        }
        // vLLM keeps one block for itself
        let ratio = match unit {
            Unit::Blocks if from > 1.0 => (to - 1.0) / (from - 1.0),
            _ => to / from,
        };
        let needs = match unit {
            Unit::Blocks => format!("Free memory for {:.0} blocks more.", to - from),
            Unit::Tokens => format!("Free memory for {:.0} tokens more.", to - from),
            Unit::Bytes => format!(
                "{:.1} GiB more of free memory on each accelerator.",
                (to - from) / GIB
            ),
        };
        let kv = ModelChange::KvCapacity {
            low_ratio: ratio,
            high_ratio: ratio,
        };
        let one = change(Treatment::KvCache, found, vec![knob.to(format!("{to:.0}"))]);
        Some(
            one.modelled([kv])
                .needs(needs)
                .risk("Without that much free memory the engine does not start.")
                .watch("The start of the engine, then preemptions and the KV cache."),
        )
    });
    let mut alternatives: Vec<Proposal> = alternatives.collect();
    // bytes are a part of the memory that somebody set aside
    if !matches!(unit, Unit::Bytes) {
        alternatives.push(unbounded(found, knob));
    }
    // twice as much
    let guide = TIMES.iter().position(|times| *times == 2.0).unwrap_or(0);
    family(NAME, TITLE, alternatives, guide)
}

/// A setting that is a share of the memory.
struct Share {
    name: &'static str,
    largest: f64,
    /// What is usual and starts, to be set where nobody tells what is.
    usual: Option<f64>,
    /// The setting that bounds the cache before the share does, where that may be set and nobody tells.
    bound: &'static str,
}

const VLLM: Share = Share {
    name: "gpu_memory_utilization",
    largest: 0.98,
    // it is always told
    usual: None,
    bound: "",
};
const SGLANG: Share = Share {
    name: "mem_fraction_static",
    largest: 0.95,
    usual: Some(0.9),
    bound: "max_total_tokens",
};
const TGI: Share = Share {
    name: "cuda_memory_fraction",
    largest: 1.0,
    usual: Some(1.0),
    bound: "max_batch_total_tokens",
};

/// Whether a setting is set, and not only what the engine made of others.
fn is_declared(situation: &Situation<'_>, name: &str) -> bool {
    let told = situation.in_force.get(name);
    told.is_some_and(|one| one.source == SettingSource::Declared)
}

/// The cache has what is left of a share of the memory after the weights.
fn share(situation: &Situation<'_>, found: &[&Finding], of: &Share) -> Answer {
    let largest = of.largest;
    let knob = knob(situation, TITLE, of.name)?;
    if let (SettingValue::Unknown, Some(usual)) = (&knob.value, of.usual) {
        return untold(situation, found, &knob, usual, of.bound);
    }
    let from = knob.told(TITLE)?;
    if !(0.0..=1.0).contains(&from) || from == 0.0 {
        return Err(Declined::new(
            TITLE,
            format!("{} = {from} is no share of memory", knob.flag),
        ));
    }
    let values = shares(from, largest);
    if values.is_empty() {
        let reason = format!(
            "{} is at {from} already: more leaves the engine no memory to work with",
            knob.flag
        );
        return Err(Declined::new(TITLE, reason));
    }
    // half of what is left, as guides step towards what still starts
    let guide = nearest(&values, (from + largest) / 2.0);
    let alternatives = values.into_iter().map(|to| {
        let free = format!(
            "{} of the accelerator's memory more, which nothing else uses there.",
            percent(to - from)
        );
        change(Treatment::Memory, found, vec![knob.to(to)])
            .modelled([memory_share(from, to)])
            .needs(free)
            .risk("Out of memory at the start or under load: an outage of the replica.")
            .watch("Memory of the accelerator through a peak, then preemptions and the KV cache.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

/// Nobody tells the share: the usual one may be more than it has, and is no less safe than usual.
fn untold(
    situation: &Situation<'_>,
    found: &[&Finding],
    share: &Knob,
    usual: f64,
    bound: &'static str,
) -> Answer {
    let flag = &share.flag;
    let mut changes = vec![share.to(usual)];
    let mut title = format!("Set {flag} to {usual} unless it is that already");
    let bound = knob(situation, TITLE, bound)
        .ok()
        .filter(|bound| bound.value != SettingValue::NotSet);
    if let Some(bound) = &bound {
        changes.push(bound.away());
        title = format!("{title}, take away {}", bound.flag);
    }
    let mut modelled = vec![grown(UNTOLD_TIMES)];
    // it has no cap unless one is set, and a cap that nobody tells looks like a full cache
    let cap = knob(situation, TITLE, "max_batch_size")
        .ok()
        .filter(|cap| cap.value == SettingValue::Unknown && situation.engine() == "tgi");
    if let Some(cap) = &cap {
        changes.push(cap.away());
        title = format!("{title} and {}", cap.flag);
        modelled.push(ModelChange::MaxNumSeqs(NO_CAP));
    }
    let unknown = format!(
        "What {flag} is now is not known, and so not by how much the KV cache grows: declare the launch arguments, or give \
         current_config."
    );
    let mut one = change(Treatment::Memory, found, changes)
        .because(&format!("What {flag} is now is told nowhere."))
        .assumed(modelled, unknown)
        .needs(format!(
            "A look at the launch arguments: where {flag} is {usual} or more and nothing else bounds the KV cache, this \
             changes nothing."
        ))
        .risk(NO_START)
        .watch(WATCH);
    one.title = title;
    one.undo = format!("Give {flag} and what was taken away the values of now, and restart.");
    family(NAME, TITLE, vec![one], 0)
}

/// A bound on the cache is taken away: it then has what the share of the memory leaves.
fn unbounded(found: &[&Finding], knob: &Knob) -> Proposal {
    change(Treatment::KvCache, found, vec![knob.away()])
        .assumed(
            [grown(UNBOUNDED_TIMES)],
            format!(
                "How much memory there is without {} is not told, and so not by how much the KV cache grows.",
                knob.flag
            ),
        )
        .risk(NO_START)
        .watch(WATCH)
}

fn grown((low_ratio, high_ratio): (f64, f64)) -> ModelChange {
    ModelChange::KvCapacity {
        low_ratio,
        high_ratio,
    }
}

/// Shares above one, up to the largest that makes sense: in steps of a hundredth near the end, of 0.05 before.
fn shares(from: f64, largest: f64) -> Vec<f64> {
    let hundredths = (1..=100u32).filter(|at| {
        let value = f64::from(*at) / 100.0;
        let round = at % 5 == 0 || value > largest - 0.08;
        round && value > from + 0.004 && value <= largest + 1e-9
    });
    let all: Vec<f64> = hundredths.map(|at| f64::from(at) / 100.0).collect();
    thin(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_round_and_end_before_the_engine_has_none() {
        assert_eq!(shares(0.92, 0.98), [0.93, 0.94, 0.95, 0.96, 0.97, 0.98]);
        assert_eq!(shares(0.98, 0.98), Vec::<f64>::new());
        let many = shares(0.3, 0.98);
        assert!(many.len() <= 9 && many.is_sorted() && many[0] == 0.35);
    }
}
