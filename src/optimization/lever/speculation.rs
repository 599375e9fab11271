//! Tokens guessed ahead.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{KnobChange, ModelChange, Proposal, SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::percent;
use super::knob::{Knob, knob};

pub(super) const NAME: &str = "speculation";

/// Guessing pays while steps wait for memory and not for computing: with few requests in a batch.
const LOW_BATCH: f64 = 8.0;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let loses = situation.treated(&[Cause::SpeculationLoss]);
    if !loses.is_empty() {
        return vec![less(situation, &loses)];
    }
    let slow = situation.treated(&[Cause::DecodeBound]);
    match slow.is_empty() {
        true => Vec::new(),
        false => vec![begin(situation, &slow)],
    }
}

fn tokens_name(engine: &str) -> &'static str {
    match engine {
        "sglang" => "speculative_num_steps",
        "tgi" => "speculate",
        _ => "num_speculative_tokens",
    }
}

fn less(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Guess fewer tokens ahead, or none";
    let knob = knob(situation, TITLE, tokens_name(situation.engine()))?;
    let now = knob.number().unwrap_or(0.0);
    let fewer = [1u32, 2, 3, 4]
        .into_iter()
        .filter(|to| f64::from(*to) < now);
    let acceptance = situation.value("speculation_acceptance_ratio");
    let reason = acceptance.map_or(String::new(), |ratio| {
        format!("{} of the guessed tokens were right.", percent(ratio))
    });
    let filled = |changes: Vec<KnobChange>, tokens: u32| {
        change(Treatment::SpeculativeDecoding, found, changes)
            .because(&reason)
            .modelled([ModelChange::SpeculatedTokens(tokens)])
            .risk("With few requests at once, each gets its tokens more slowly than by guesses that hit.")
            .watch("ITL p50 and generated tokens a second, at the same load.")
    };
    let mut off = filled(switched_off(situation, &knob), 0);
    off.title = "Guess no tokens ahead".to_owned();
    let fewer = fewer.filter_map(|to| {
        let mut one = filled(set_to(situation, &knob, to)?, to);
        one.title = format!("Guess {to} tokens ahead instead of {now:.0}");
        Some(one)
    });
    let alternatives: Vec<Proposal> = [off].into_iter().chain(fewer).collect();
    family(NAME, TITLE, alternatives, 0)
}

/// Takes away all that guessing was set with.
fn switched_off(situation: &Situation<'_>, knob: &Knob) -> Vec<KnobChange> {
    let (switch, rest): (&str, &[&'static str]) = match situation.engine() {
        "sglang" => (
            "speculative_algorithm",
            &[
                "speculative_algorithm",
                "speculative_num_steps",
                "speculative_num_draft_tokens",
                "speculative_eagle_topk",
            ],
        ),
        "tgi" => return vec![knob.away()],
        _ => (
            "num_speculative_tokens",
            &["speculative_method", "num_speculative_tokens"],
        ),
    };
    let knobs = rest
        .iter()
        .filter_map(|name| self::knob(situation, "", name).ok());
    let set = |knob: &Knob| knob.name == switch || knob.text().is_some();
    knobs.filter(set).map(|knob| knob.away()).collect()
}

/// None where the rest of what is set with it is not known.
fn set_to(situation: &Situation<'_>, knob: &Knob, tokens: u32) -> Option<Vec<KnobChange>> {
    if situation.engine() != "sglang" {
        return Some(vec![knob.to(tokens)]);
    }
    // one more is checked than guessed, where guesses do not branch
    let branches = situation.in_force.number(&["speculative_eagle_topk"]);
    let drafts = self::knob(situation, "", "speculative_num_draft_tokens").ok()?;
    (branches.is_none_or(|branches| branches == 1.0))
        .then(|| vec![knob.to(tokens), drafts.to(tokens + 1)])
}

fn begin(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Guess tokens ahead from the prompt";
    let running = situation.busiest(Q::RequestsRunning);
    if let Some(running) = running.filter(|running| *running > LOW_BATCH) {
        let reason = format!(
            "{running:.0} requests run at once: guessing pays only with few, where steps wait for memory"
        );
        return Err(Declined::new(TITLE, reason));
    }
    let name = match situation.engine() {
        "sglang" => "speculative_algorithm",
        engine => tokens_name(engine),
    };
    let knob = knob(situation, TITLE, name)?;
    let guesses = situation
        .value("speculation_draft_tokens_increase")
        .is_some_and(|count| count > 0.0);
    match &knob.value {
        SettingValue::Known(value) if value != "0" => {
            return Err(Declined::new(TITLE, "tokens are guessed already"));
        }
        _ if guesses => return Err(Declined::new(TITLE, "tokens are guessed already")),
        SettingValue::Unknown if situation.measurement.is_none() => {
            let reason = format!(
                "{} in force is not known; declare the launch arguments",
                knob.flag
            );
            return Err(Declined::new(TITLE, reason));
        }
        _ => {}
    }
    let changes = match situation.engine() {
        "sglang" => vec![knob.to("NGRAM")],
        "tgi" => vec![knob.to(2)],
        _ => {
            let method = self::knob(situation, TITLE, "speculative_method")?;
            vec![method.to("ngram"), knob.to(4)]
        }
    };
    let one = change(Treatment::SpeculativeDecoding, found, changes)
        .not_predictable("How many guesses would be right depends on what is written, and was never measured here.")
        .risk("Where outputs do not repeat their prompts, each step costs more and gives nothing.")
        .watch("The share of guesses that are right: below 40 % take it away again.");
    family(NAME, TITLE, vec![one], 0)
}
