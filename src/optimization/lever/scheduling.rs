//! What the host does between two steps.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Version;
use crate::optimization::{SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "scheduling";
/// vLLM schedules ahead by itself from here on.
const ASYNC_BY_DEFAULT: Version = Version::new(0, 14, 0);
const HOST: &str = "How long the host takes is not in the model.";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let host = situation.treated(&[Cause::HostBound]);
    let streamed = situation.treated(&[Cause::HostBound, Cause::Frontend]);
    let mut answers = Vec::new();
    match situation.engine() {
        "vllm" if !host.is_empty() => answers.push(ahead(situation, &host)),
        "sglang" if !host.is_empty() => {
            answers.push(overlap(situation, &host));
            answers.push(several_decodes(situation, &host));
        }
        _ => {}
    }
    if !streamed.is_empty() && situation.engine() != "tgi" {
        answers.push(coarser_stream(situation, &streamed));
    }
    answers
}

fn ahead(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Schedule the next step while one runs";
    let knob = knob(situation, TITLE, "async_scheduling")?;
    let by_itself = situation
        .version()
        .is_some_and(|version| version >= ASYNC_BY_DEFAULT);
    match (&knob.value, knob.is_on()) {
        (_, Some(true)) => return Err(Declined::new(TITLE, "it is on already")),
        (SettingValue::NotSet | SettingValue::Unknown, _) if by_itself => {
            let reason = "this version does so by itself where everything else goes with it";
            return Err(Declined::new(TITLE, reason));
        }
        _ => {}
    }
    let one = change(Treatment::Scheduling, found, vec![knob.to(true)])
        .not_predictable(HOST)
        .risk("It does not go with pipeline parallelism, or with some methods of guessing tokens ahead.")
        .watch("ITL p50 and generated tokens a second.");
    family(NAME, TITLE, vec![one], 0)
}

fn overlap(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Schedule the next step while one runs";
    let knob = knob(situation, TITLE, "disable_overlap_schedule")?;
    if knob.is_on() != Some(true) {
        return Err(Declined::new(
            TITLE,
            "it is not switched off, as far as anybody tells",
        ));
    }
    let one = change(Treatment::Scheduling, found, vec![knob.away()])
        .not_predictable(HOST)
        .risk("It does not go with pipeline parallelism, or with some methods of guessing tokens ahead.")
        .watch("ITL p50 and generated tokens a second.");
    family(NAME, TITLE, vec![one], 0)
}

fn several_decodes(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Decode several steps in a row";
    let knob = knob(situation, TITLE, "num_continuous_decode_steps")?;
    let now = knob.number().unwrap_or(1.0);
    let values = [2, 4, 8].into_iter().filter(|to| f64::from(*to) > now);
    let alternatives = values.map(|to: u32| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .not_predictable(HOST)
            .risk(format!(
                "A prompt waits for up to {to} decodes: the first token comes later."
            ))
            .watch("TTFT p99 and generated tokens a second.")
    });
    family(NAME, TITLE, alternatives.collect(), 0)
}

fn coarser_stream(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Stream several tokens at a time";
    let knob = knob(situation, TITLE, "stream_interval")?;
    let now = knob.number().unwrap_or(1.0);
    let values = [2, 4, 8, 16].into_iter().filter(|to| f64::from(*to) > now);
    let alternatives = values.map(|to: u32| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .not_predictable(HOST)
            .risk(format!(
                "Users see {to} tokens at once, and the measured gap between events grows with it."
            ))
            .watch("Generated tokens a second; ITL is not comparable with before.")
    });
    family(NAME, TITLE, alternatives.collect(), 1)
}
