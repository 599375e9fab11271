//! How much memory the KV cache has.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, Proposal, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::percent;
use super::grid::{nearest, thin};
use super::knob::{Knob, knob};
use crate::optimization::expectation::memory_share;

pub(super) const NAME: &str = "kv_capacity";
const TITLE: &str = "Give the KV cache more memory";

/// By how much a cache that is set in bytes or blocks grows.
const TIMES: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
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
            None => share(situation, found, "mem_fraction_static", 0.95),
        },
        "tgi" => share(situation, found, "cuda_memory_fraction", 1.0),
        _ => {
            // what is set last wins: blocks over bytes over a share
            if let Some(blocks) = set("num_gpu_blocks_override") {
                return exact(found, &blocks, Unit::Blocks);
            }
            if let Some(bytes) = set("kv_cache_memory_bytes") {
                return exact(found, &bytes, Unit::Bytes);
            }
            share(situation, found, "gpu_memory_utilization", 0.98)
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
    let alternatives: Vec<Proposal> = alternatives.collect();
    // twice as much
    let guide = TIMES.iter().position(|times| *times == 2.0).unwrap_or(0);
    family(NAME, TITLE, alternatives, guide)
}

/// The cache has what is left of a share of the memory after the weights.
fn share(
    situation: &Situation<'_>,
    found: &[&Finding],
    name: &'static str,
    largest: f64,
) -> Answer {
    let knob = knob(situation, TITLE, name)?;
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
