//! How many requests run at once.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{KnobChange, ModelChange, Proposal, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::{percent, seconds};
use super::grid::{above, below, nearest_of};
use super::knob::{Knob, knob};

pub(super) const NAME: &str = "sequence_cap";

/// A cap is raised by this at most at a time: what lies beyond was never seen.
const FURTHEST: f64 = 16.0;
/// With nothing measured the guides' first step.
const FIRST_STEP: f64 = 2.0;
/// A batch that is so full when it is looked at is full at times.
const OFTEN_FULL: f64 = 0.5;
/// vLLM captures graphs for batches up to this.
const CAPTURED: u32 = 512;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let mut raise = situation.treated(&[Cause::SequenceCap, Cause::AdmissionLimit]);
    // who is refused may have a place in a batch that is full
    raise.retain(|one| one.cause != Cause::AdmissionLimit || is_full(situation));
    let lower = situation.treated(&lowered_by(situation));
    let mut answers = Vec::new();
    if !raise.is_empty() {
        answers.push(raised(situation, &raise));
    }
    if !lower.is_empty() {
        answers.push(lowered(situation, &lower));
    }
    answers
}

/// Whether as many run as may.
fn is_full(situation: &Situation<'_>) -> bool {
    let cap = situation.in_force.number(&[cap_name(situation.engine())]);
    let running = situation.peak(Q::RequestsRunning);
    // who is refused finds it full between two scrapes
    cap.zip(running)
        .is_some_and(|(cap, running)| running >= cap * OFTEN_FULL)
}

/// Causes for which fewer requests at once may do.
fn lowered_by(situation: &Situation<'_>) -> Vec<Cause> {
    let mut causes = vec![Cause::BatchTooLarge];
    // held back without preemptions the cache is used to the full, and fewer requests would only wait longer
    if situation.preempts() || situation.measurement.is_none() {
        causes.push(Cause::KvCapacity);
    }
    let gap = situation.gap_seconds();
    if gap.is_some_and(|gap| gap > situation.targets.itl_p99_seconds) {
        causes.push(Cause::DecodeBound);
    }
    // fewer at once have fewer prompts among their steps; who waits already would only wait longer
    let waiting = situation.gauge(Q::RequestsWaiting);
    let gap = situation.gap_with_prompts_seconds();
    if gap.is_some_and(|gap| gap > situation.targets.itl_p99_seconds)
        && waiting.is_some_and(|waiting| waiting.mean < 1.0)
    {
        causes.push(Cause::PrefillInterference);
    }
    causes
}

pub(super) fn cap_name(engine: &str) -> &'static str {
    match engine {
        "sglang" => "max_running_requests",
        "tgi" => "max_batch_size",
        _ => "max_num_seqs",
    }
}

/// The cap in force: as told, or as seen.
pub(super) fn cap_in_force(situation: &Situation<'_>, knob: &Knob) -> Option<f64> {
    knob.number().or_else(|| {
        situation.found(Cause::SequenceCap)?;
        situation.peak(Q::RequestsRunning).map(f64::ceil)
    })
}

fn raised(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Let more requests run at once";
    let knob = knob(situation, TITLE, cap_name(situation.engine()))?;
    if let Some(full) = situation.kv_full() {
        let reason = format!("{full}: a bigger batch would only be preempted");
        return Err(Declined::new(TITLE, reason));
    }
    let gap = situation.gap_seconds();
    if let Some(gap) = gap.filter(|gap| *gap > situation.targets.itl_p99_seconds) {
        let reason = format!(
            "a token already takes {}: a bigger batch makes it later",
            seconds(gap)
        );
        return Err(Declined::new(TITLE, reason));
    }
    let Some(from) = cap_in_force(situation, &knob) else {
        return Err(knob
            .told(TITLE)
            .err()
            .unwrap_or_else(|| Declined::new(TITLE, "the cap in force is not known")));
    };
    let values = above(from, furthest(situation, from));
    let wanted = situation
        .busiest(Q::RequestsRunning)
        .map_or(from * FIRST_STEP, |running| {
            let waiting = situation.busiest(Q::RequestsWaiting).unwrap_or(0.0);
            (running + waiting).max(from * FIRST_STEP)
        });
    let guide = nearest_of(&values, wanted);
    let alternatives = values.into_iter().map(|to| {
        let (companions, modelled) = companions(situation, to);
        let changes = companions.into_iter().chain([knob.to(to)]).collect();
        let mut one = change(Treatment::Batching, found, changes);
        one.title = raised_title(&knob, from, to);
        let one = one.because(&room(situation)).modelled(modelled);
        with_risks(situation, one, to)
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

/// No further than what the KV cache holds and what asks for a place.
fn furthest(situation: &Situation<'_>, from: f64) -> f64 {
    let by_kv = situation
        .busiest(Q::RequestsRunning)
        .zip(situation.busiest(Q::KvCacheUsage))
        .filter(|(running, usage)| *running > 0.0 && *usage > 0.0)
        .map_or(f64::INFINITY, |(running, usage)| {
            running * situation.thresholds.kv_full_ratio / usage
        });
    // twice what is there now: those that wait may be few because others went away
    let by_demand = situation
        .busiest(Q::RequestsRunning)
        .zip(situation.busiest(Q::RequestsWaiting))
        .map_or(f64::INFINITY, |(running, waiting)| {
            2.0 * (running + waiting)
        });
    // at least one step, which the prediction may turn down
    (from * FURTHEST).min(by_kv).min(by_demand).max(from * 1.5)
}

fn raised_title(knob: &Knob, from: f64, to: u32) -> String {
    match knob.text() {
        Some(_) => format!("Raise {} from {from:.0} to {to}", knob.flag),
        None => format!("Raise {} from {from:.0} (seen) to {to}", knob.flag),
    }
}

/// What has to change with it, and what all of it means to the model.
fn companions(situation: &Situation<'_>, to: u32) -> (Vec<KnobChange>, Vec<ModelChange>) {
    let mut modelled = vec![ModelChange::MaxNumSeqs(to)];
    let mut changes = Vec::new();
    match situation.engine() {
        // vLLM does not start with fewer tokens a step than requests
        "vllm" => {
            let budget = knob(situation, "", "max_num_batched_tokens").ok();
            let short =
                budget.filter(|budget| budget.number().is_some_and(|now| now < f64::from(to)));
            if let Some(budget) = short {
                changes.push(budget.to(to));
                modelled.insert(0, ModelChange::TokenBudget(to));
            }
        }
        // beyond the captured graphs decodes run kernel by kernel, several times as slow
        "sglang" => {
            let graphs = super::graphs::range(situation);
            let short =
                graphs.filter(|graphs| graphs.number().is_some_and(|now| now < f64::from(to)));
            changes.extend(short.map(|graphs| graphs.to(to)));
        }
        _ => {}
    }
    (changes, modelled)
}

fn room(situation: &Situation<'_>) -> String {
    let usage = situation.gauge(Q::KvCacheUsage);
    usage.map_or(String::new(), |usage| {
        format!(
            "The KV cache is {} full on average, {} at its peak.",
            percent(usage.mean),
            percent(situation.peak(Q::KvCacheUsage).unwrap_or(usage.max))
        )
    })
}

fn with_risks(situation: &Situation<'_>, one: Proposal, to: u32) -> Proposal {
    let mut one = one
        .risk("Each token takes a little longer, as more requests share a step.")
        .watch("The gap between tokens (ITL p99), the KV cache and preemptions: none should rise above its target.");
    if situation.gauge(Q::KvCacheUsage).is_none() {
        one = one.risk("Nothing tells how full the KV cache is: preemptions may begin.");
    }
    match situation.engine() {
        "vllm" => {
            one = one.risk(
                "Buffers and captured graphs grow with the cap and take memory from the KV cache.",
            );
            if to > CAPTURED {
                one = one.risk(format!(
                    "Graphs are captured for up to {CAPTURED} requests by default: larger batches run slower."
                ));
            }
            if situation
                .in_force
                .value(&["max_num_batched_tokens"])
                .is_none()
            {
                one = one.needs(format!("--max-num-batched-tokens of at least {to}."));
            }
        }
        "sglang"
            if super::graphs::range(situation).is_none_or(|graphs| graphs.number().is_none()) =>
        {
            one = one.needs(format!(
                "Decode graphs captured for {to} requests (--cuda-graph-max-bs-decode): beyond them decodes are several times as slow."
            ));
        }
        "tgi" => {
            one = one.risk("Models that compute prompts in parts ignore --max-batch-size.");
        }
        _ => {}
    }
    one
}

fn lowered(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Let fewer requests run at once";
    let knob = knob(situation, TITLE, cap_name(situation.engine()))?;
    let peak = situation.peak(Q::RequestsRunning);
    // a cap above what ever ran would change nothing
    let from = match (knob.number(), peak) {
        (Some(cap), Some(peak)) => cap.min(peak),
        (Some(cap), None) => cap,
        (None, Some(peak)) => peak,
        (None, None) => knob.told(TITLE)?,
    };
    let values = below(from, (from / FURTHEST).max(1.0));
    let guide = nearest_of(&values, from / 1.5);
    let alternatives = values.into_iter().map(|to| {
        let reason = peak.map_or(String::new(), |peak| {
            format!("Up to {peak:.0} ran at once.")
        });
        change(Treatment::Batching, found, vec![knob.to(to)])
            .because(&reason)
            .modelled([ModelChange::MaxNumSeqs(to)])
            .risk("Requests may wait longer for a place, and the first token with them.")
            .watch("Requests waiting, TTFT p99 and preemptions.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}
