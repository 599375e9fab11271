//! How often prompts may share steps with requests that decode.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::Situation;

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "prefill_pacing";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::PrefillInterference]);
    match (situation.engine(), found.is_empty()) {
        ("vllm", false) => vec![interval(situation, &found)],
        ("sglang", false) => vec![mixed_chunk(situation, &found)],
        _ => Vec::new(),
    }
}

fn interval(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Let prompts in only every few steps";
    let knob = knob(situation, TITLE, "prefill_schedule_interval")?;
    let now = knob.number().unwrap_or(1.0);
    let values = [2, 3, 4, 6, 8]
        .into_iter()
        .filter(|to| f64::from(*to) != now);
    let alternatives = values.map(|to: u32| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .not_predictable("The model lets prompts in at each step.")
            .risk(format!(
                "A prompt takes up to {to} times as many steps: its first token comes later."
            ))
            .watch("TTFT p99, and requests that wait.")
    });
    family(NAME, TITLE, alternatives.collect(), 0)
}

fn mixed_chunk(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Compute prompts and decodes in one step";
    let knob = knob(situation, TITLE, "enable_mixed_chunk")?;
    if knob.is_on() == Some(true) {
        return Err(Declined::new(TITLE, "it is on already"));
    }
    let one = change(Treatment::Scheduling, found, vec![knob.to(true)])
        .not_predictable("How long a step of both takes was never measured here.")
        .risk("Some methods of guessing tokens ahead do not go with it.")
        .risk("The first token may come a little later.")
        .watch("ITL p99 and TTFT p99.");
    family(NAME, TITLE, vec![one], 0)
}
