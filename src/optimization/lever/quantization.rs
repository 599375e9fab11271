//! Fewer bytes for each weight.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::{SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "quantization";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::DecodeBound, Cause::KvCapacity, Cause::Capacity]);
    match found.is_empty() {
        true => Vec::new(),
        false => vec![eight_bits(situation, &found)],
    }
}

fn eight_bits(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Keep the weights in 8 bits";
    let name = match situation.engine() {
        "tgi" => "quantize",
        _ => "quantization",
    };
    let knob = knob(situation, TITLE, name)?;
    match &knob.value {
        SettingValue::NotSet => {}
        SettingValue::Known(format) => {
            return Err(Declined::new(
                TITLE,
                format!("they are kept as {format} already"),
            ));
        }
        SettingValue::Unknown => {
            let reason = format!(
                "{} in force is not known; declare the launch arguments",
                knob.flag
            );
            return Err(Declined::new(TITLE, reason));
        }
    }
    let one = change(Treatment::Quantization, found, vec![knob.to("fp8")])
        .because("Weights of 16 bits take half the memory in 8, and a step that waits for them reads half as much.")
        .not_predictable("How fast this accelerator computes in 8 bits was never measured here; only the bytes are arithmetic: half of those of 16 bits.")
        .answers_may_change("each weight is rounded to 8 bits.")
        .needs("An accelerator with 8-bit floating point (compute capability 8.9 or above for full speed), and weights of 16 bits.")
        .risk("With large batches, where steps are bound by computing, it may be no faster.")
        .watch("The quality check, then ITL p50 and the size of the KV cache at the start.");
    family(NAME, TITLE, vec![one], 0)
}
