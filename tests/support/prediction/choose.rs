//! How the set was chosen: seeds, one after another, whose scenario is what it says it is, as many of each kind as there
//! should be.
//!
//! `cargo bench --bench prediction -- --choose` prints the seeds anew, and `-- --grid` the set with the best that an
//! exhaustive search finds for each. The truth engine alone decides: nothing here predicts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use perfagent::model::Policy;
use serde_json::Value;

use super::truth::{Flags, Phase, Truth, score};
use super::{Kind, Part, Scenario, Treatment, grid, scenario};

/// How many of each kind there are in each half.
fn quota(engine: Policy, kind: Kind) -> usize {
    use Kind::*;
    match (engine, kind) {
        (Policy::Vllm, Healthy) => 42,
        (Policy::Vllm, SequenceCap) => 16,
        (Policy::Vllm, KvCapacity) => 16,
        (Policy::Vllm, BudgetTooSmall) => 10,
        (Policy::Vllm, BudgetTooLarge) => 12,
        (Policy::Vllm, HeadOfLine) => 8,
        (Policy::Vllm, QueueBound | BatchTooLarge) => 7,
        (Policy::Vllm, SpeculationLoss) => 6,
        (Policy::Vllm, Capacity) => 5,
        (Policy::Sglang, Healthy) => 18,
        (Policy::Sglang, SequenceCap | KvCapacity) => 11,
        (Policy::Sglang, Conservativeness | QueueBound) => 4,
        (Policy::Sglang, BatchTooLarge | Capacity) => 3,
        (Policy::Tgi, Healthy) => 11,
        (Policy::Tgi, SequenceCap | KvCapacity) => 7,
        (Policy::Tgi, QueueBound | BatchTooLarge | Capacity) => 3,
        _ => 0,
    }
}

/// The least violation of a troubled scenario: a fifth above one target.
const TROUBLED: f64 = 0.2;
/// The least of it that its cure takes away.
const CURED: f64 = 0.1;

/// Whether it is what it says it is: a healthy one violates nothing before and after; a troubled one does, and its cure
/// takes part of that away.
pub(crate) fn holds(scenario: &Scenario) -> Result<(), String> {
    let truth = Truth::of(scenario);
    let nothing = Flags::new();
    let of = |phase| {
        let summary = truth.with(phase, &nothing, None)?;
        // there is something to measure
        let requests: u64 = summary.finished.values().sum();
        if requests < 20 {
            return Err(format!("only {requests} requests finish"));
        }
        Ok(score(&summary, &scenario.targets).violation)
    };
    let (before, after) = (of(Phase::Before)?, of(Phase::After)?);
    if scenario.is_healthy() {
        return match before + after {
            0.0 => Ok(()),
            violation => Err(format!("violation {violation:.2} of a healthy one")),
        };
    }
    if before < TROUBLED || after < TROUBLED {
        return Err(format!("violation {before:.2} and {after:.2} only"));
    }
    let cured = score(&truth.after(&scenario.cure)?, &scenario.targets).violation;
    if after - cured < CURED {
        return Err(format!("cured from {after:.2} to {cured:.2} only"));
    }
    // a change is one that the engine takes
    for changes in &scenario.what_ifs {
        let treatment = Treatment {
            changes: changes.clone(),
            replicas: None,
        };
        truth.after(&treatment)?;
    }
    Ok(())
}

/// What a quota is of: the half, the engine's number, and what is wrong.
type Sort = (Part, u8, Kind);

/// Seeds that are tried.
const SEEDS: u64 = 40_000;

/// Seeds of the set, and how often each kind was refused and why.
pub(crate) fn seeds() -> (Vec<u64>, BTreeMap<String, usize>) {
    let next = AtomicU64::new(0);
    let counts: Mutex<BTreeMap<Sort, usize>> = Mutex::default();
    let chosen: Mutex<Vec<(Sort, u64)>> = Mutex::default();
    let refused: Mutex<BTreeMap<String, usize>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        break;
                    }
                    let scenario = scenario(seed);
                    let kind = (scenario.part(), scenario.engine as u8, scenario.kind);
                    let full = |counts: &BTreeMap<_, usize>| {
                        counts.get(&kind).copied().unwrap_or(0)
                            >= quota(scenario.engine, scenario.kind)
                    };
                    if full(&counts.lock().unwrap()) {
                        continue;
                    }
                    let tried = refused.lock().unwrap();
                    let name = format!("{:?} {:?}", scenario.engine, scenario.kind);
                    let many = tried.get(&name).copied().unwrap_or(0) > 400;
                    drop(tried);
                    if many {
                        continue;
                    }
                    match holds(&scenario) {
                        Ok(()) => {
                            *counts.lock().unwrap().entry(kind).or_default() += 1;
                            chosen.lock().unwrap().push((kind, seed));
                        }
                        Err(_) => *refused.lock().unwrap().entry(name).or_default() += 1,
                    }
                }
            });
        }
    });
    // whichever thread was first, the first seeds of each kind are taken
    let mut chosen = chosen.into_inner().unwrap();
    chosen.sort_unstable();
    let mut taken: BTreeMap<_, usize> = BTreeMap::new();
    chosen.retain(|(kind, seed)| {
        let taken = taken.entry(*kind).or_default();
        *taken += 1;
        let one = scenario(*seed);
        *taken <= quota(one.engine, one.kind)
    });
    let mut seeds: Vec<u64> = chosen.into_iter().map(|(_, seed)| seed).collect();
    seeds.sort_unstable();
    (seeds, refused.into_inner().unwrap())
}

/// The set as it is committed, where wanted with the best that a grid finds for each troubled one.
pub(crate) fn set(seeds: &[u64], with_grid: bool) -> String {
    let next = AtomicU64::new(0);
    let rows: Mutex<Vec<(u64, String)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(at).copied() else {
                        break;
                    };
                    let scenario = scenario(seed);
                    let best = match with_grid && grid::curable(&scenario) {
                        true => grid::best(&Truth::of(&scenario)),
                        false => BTreeMap::new(),
                    };
                    rows.lock().unwrap().push((seed, row(seed, &best)));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_unstable();
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    format!("scenario = [\n{}\n]\n", rows.join("\n"))
}

fn row(seed: u64, best: &BTreeMap<String, Value>) -> String {
    let flags: Vec<String> = best
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name} = '{text}'"),
            other => format!("{name} = {other}"),
        })
        .collect();
    match flags.is_empty() {
        true => format!("  {{ seed = {seed} }},"),
        false => format!("  {{ seed = {seed}, best = {{ {} }} }},", flags.join(", ")),
    }
}
