//! How many tokens a step, or a prefill, takes.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{KnobChange, ModelChange, Proposal, Situation};

use super::draft::{Answer, Declined, change, family};
use super::grid::{above, below, nearest_of};
use super::knob::{Knob, knob};

pub(super) const NAME: &str = "token_budget";

/// The largest default of the engines: what lies beyond pays on no accelerator that they know.
const LARGEST: f64 = 16_384.0;
/// Fewer tokens leave the weights' reading time unused in each step.
const SMALLEST: f64 = 256.0;
/// What vLLM's guide says for a steady gap between tokens.
const GUIDE_LOW: f64 = 2_048.0;
/// And for throughput: "above 8192".
const GUIDE_HIGH: f64 = 8_192.0;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let mut raise = situation.treated(&[Cause::TokenBudget, Cause::PrefillBound, Cause::Capacity]);
    let budget = situation
        .in_force
        .number(&[budget_name(situation.engine())]);
    // with a large budget, too much work is not a matter of how it is cut
    let small = budget.is_some_and(|budget| budget < 2.0 * situation.thresholds.small_token_budget);
    raise.retain(|one| one.cause != Cause::Capacity || small);
    let lower = situation.treated(&[Cause::PrefillInterference]);
    let mut answers = Vec::new();
    if !raise.is_empty() {
        answers.push(raised(situation, &raise));
    }
    if !lower.is_empty() {
        answers.push(lowered(situation, &lower));
    }
    answers
}

fn budget_name(engine: &str) -> &'static str {
    match engine {
        "sglang" => "chunked_prefill_size",
        "tgi" => "max_batch_prefill_tokens",
        _ => "max_num_batched_tokens",
    }
}

/// The budget in force; prompts are not cut at all where SGLang's is negative.
fn in_force(situation: &Situation<'_>, knob: &Knob, title: &str) -> Result<f64, Declined> {
    if let Some(budget) = knob.number() {
        return match budget > 0.0 {
            true => Ok(budget),
            false => Err(Declined::new(title, "prompts are not computed in parts")),
        };
    }
    // as the finding saw it
    let seen = situation.found(Cause::TokenBudget).and_then(|finding| {
        let evidence = &finding.evidence;
        let budget = evidence
            .iter()
            .find(|one| one.quantity == "step_token_budget")?;
        Some(budget.value.number())
    });
    seen.map_or_else(|| knob.told(title), Ok)
}

fn raised(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Take more tokens into a step";
    let knob = knob(situation, TITLE, budget_name(situation.engine()))?;
    if let Some(full) = situation.kv_full() {
        let reason = format!("{full}: larger steps take memory from it, and let more prompts in");
        return Err(Declined::new(TITLE, reason));
    }
    let from = in_force(situation, &knob, TITLE)?;
    let values = pages(situation, above(from, LARGEST));
    let guide = nearest_of(&values, GUIDE_HIGH.min(from * 4.0));
    let alternatives = values.into_iter().map(|to| {
        let one = change(Treatment::Batching, found, vec![knob.to(to)])
            .modelled([ModelChange::TokenBudget(to)])
            .risk("The gap between tokens grows for requests that share a step with a long prompt.")
            .risk("Larger steps need more memory for activations, which the KV cache gives.")
            .watch("ITL p99, and the size of the KV cache that the engine prints at its start.");
        recompiled(situation, one)
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn lowered(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Take fewer tokens into a step";
    let knob = knob(situation, TITLE, budget_name(situation.engine()))?;
    let from = in_force(situation, &knob, TITLE)?;
    let whole_prompts = situation.in_force.switch(&["enable_chunked_prefill"]) == Some(false);
    let fewest = match situation.in_force.number(&["max_model_len"]) {
        // without parts a whole prompt has to fit
        Some(longest) if whole_prompts => longest,
        _ => SMALLEST,
    };
    let mut values = pages(situation, below(from, fewest.max(from / 32.0)));
    let peak = situation.peak(Q::RequestsRunning);
    let cap = match situation.engine() {
        "vllm" => knob_of_cap(situation),
        _ => None,
    };
    // each running request has a token in each step
    values.retain(|to| peak.is_none_or(|peak| peak <= f64::from(*to)));
    let guide = nearest_of(&values, GUIDE_LOW.min(from / 2.0));
    let alternatives = values.into_iter().map(|to| {
        let mut changes: Vec<KnobChange> = vec![knob.to(to)];
        let mut modelled = vec![ModelChange::TokenBudget(to)];
        // vLLM does not start with fewer tokens a step than requests
        let over = cap
            .as_ref()
            .filter(|cap| cap.number().is_some_and(|cap| cap > f64::from(to)));
        if let Some(cap) = over {
            changes.push(cap.to(to));
            modelled.push(ModelChange::MaxNumSeqs(to));
        }
        let mut one = change(Treatment::Batching, found, changes)
            .modelled(modelled)
            .risk("Prompts are computed in more steps: the first token of long ones comes later.")
            .watch("TTFT p99, and requests that wait.");
        if let Some(cap) = cap.as_ref().filter(|cap| cap.number().is_none()) {
            one = one.needs(format!("{} of at most {to}.", cap.flag));
        }
        recompiled(situation, one)
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn knob_of_cap(situation: &Situation<'_>) -> Option<Knob> {
    knob(situation, "", "max_num_seqs").ok()
}

/// SGLang's parts are whole pages.
fn pages(situation: &Situation<'_>, values: Vec<u32>) -> Vec<u32> {
    let page = match situation.engine() {
        "sglang" => situation.in_force.number(&["page_size"]),
        _ => None,
    };
    let fits = |value: &u32| page.is_none_or(|page| page < 1.0 || f64::from(*value) % page == 0.0);
    values.into_iter().filter(fits).collect()
}

fn recompiled(situation: &Situation<'_>, one: Proposal) -> Proposal {
    match situation.engine() {
        "vllm" => one.needs("Time for the first start: vLLM compiles anew for another budget."),
        _ => one,
    }
}
