//! How many replicas there are.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, Proposal, Situation};

use super::draft::{Answer, Declined, family, proposal};
use super::facts::percent;
use super::grid::{nearest_of, thin};

pub(super) const NAME: &str = "replicas";

/// What one more replica relieves.
const MORE: [Cause; 8] = [
    Cause::Capacity,
    Cause::KvCapacity,
    Cause::KvNearCapacity,
    Cause::PrefillBound,
    Cause::DecodeBound,
    Cause::PrefillInterference,
    Cause::AdmissionLimit,
    Cause::SequenceCap,
];

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let more = situation.treated(&MORE);
    let fewer = situation.treated(&[Cause::Overprovisioned]);
    let mut answers = Vec::new();
    if !more.is_empty() {
        answers.push(added(situation, &more));
    }
    if !fewer.is_empty() {
        answers.push(taken_away(situation, &fewer));
    }
    answers
}

fn count(situation: &Situation<'_>, title: &str) -> Result<u32, Declined> {
    let replicas = situation.replicas();
    replicas.ok_or_else(|| {
        Declined::new(
            title,
            "how many replicas there are is not known without a measurement",
        )
    })
}

fn added(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Add replicas";
    let now = count(situation, TITLE)?;
    let wanted = (f64::from(now) * demand(situation)).ceil();
    let wanted = wanted.clamp(f64::from(now + 1), f64::from(now.saturating_mul(4))) as u32;
    let mut counts: Vec<u32> = (now + 1..=now.saturating_add(4))
        .chain([now.saturating_mul(2), wanted])
        .collect();
    counts.sort_unstable();
    counts.dedup();
    let counts = thin(counts);
    let guide = nearest_of(&counts, f64::from(wanted));
    let alternatives = counts.into_iter().map(|to| {
        with_count(found, now, to)
            .because(&load(situation, now))
            .risk("It costs as much again for each replica.")
            .risk("Where the balancer keeps sending to the old ones, nothing changes.")
            .watch("Requests at each replica: they should be even.")
            .needs("Accelerators for them, and a balancer that spreads requests evenly.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

/// What asks for places over what has one.
fn demand(situation: &Situation<'_>) -> f64 {
    let running = situation.gauge(Q::RequestsRunning).map(|gauge| gauge.mean);
    let waiting = situation.gauge(Q::RequestsWaiting).map(|gauge| gauge.mean);
    match running.zip(waiting) {
        Some((running, waiting)) if running > 0.0 => (running + waiting) / running,
        _ => 1.0,
    }
}

fn load(situation: &Situation<'_>, now: u32) -> String {
    let running = situation.gauge(Q::RequestsRunning);
    let waiting = situation.gauge(Q::RequestsWaiting);
    let of = match now {
        1 => "the one replica".to_owned(),
        now => format!("{now} replicas"),
    };
    match running.zip(waiting) {
        Some((running, waiting)) => format!(
            "{:.0} requests run and {:.0} wait on average, on {of}.",
            running.mean, waiting.mean
        ),
        None => String::new(),
    }
}

fn taken_away(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Take replicas away";
    let now = count(situation, TITLE)?;
    if now < 2 {
        let reason = "there is only one: a smaller accelerator would do, or other models beside it";
        return Err(Declined::new(TITLE, reason));
    }
    let counts = thin((now.div_ceil(2)..now).collect());
    let usage = situation.peak(Q::KvCacheUsage);
    let reason = usage.map_or(String::new(), |usage| {
        format!("The KV cache was {} full at its peak.", percent(usage))
    });
    // one at a time
    let guide = counts.len().saturating_sub(1);
    let alternatives = counts.into_iter().map(|to| {
        with_count(found, now, to)
            .because(&reason)
            .risk("A burst, or the loss of a replica, leaves less behind.")
            .watch("TTFT p99 and requests that wait, through the busiest hour of a week.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn with_count(found: &[&Finding], now: u32, to: u32) -> Proposal {
    let verb = if to > now {
        "Add replicas"
    } else {
        "Take replicas away"
    };
    let mut one = proposal(
        Treatment::Scaling,
        found,
        format!("{verb}: {to} instead of {now}"),
    );
    one.replicas = Some((now, to));
    one.undo = format!("Go back to {now}.");
    one.modelled([ModelChange::Replicas(to)])
}
