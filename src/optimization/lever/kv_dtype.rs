//! Fewer bytes for each token of the KV cache.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::{SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "kv_dtype";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::KvCapacity]);
    match found.is_empty() {
        true => Vec::new(),
        false => vec![eight_bits(situation, &found)],
    }
}

fn eight_bits(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Keep the KV cache in 8 bits";
    let knob = knob(situation, TITLE, "kv_cache_dtype")?;
    match &knob.value {
        SettingValue::Unknown => {
            let reason = format!(
                "{} in force is not known; declare the launch arguments",
                knob.flag
            );
            return Err(Declined::new(TITLE, reason));
        }
        SettingValue::Known(dtype)
            if !["auto", "bf16", "bfloat16", "float16", "half"].contains(&dtype.as_str()) =>
        {
            return Err(Declined::new(
                TITLE,
                format!("it is kept as {dtype} already"),
            ));
        }
        SettingValue::Known(_) | SettingValue::NotSet => {}
    }
    let dtype = match situation.engine() {
        "sglang" => "fp8_e4m3",
        "tgi" => "fp8_e4m3fn",
        _ => "fp8",
    };
    let one = change(Treatment::KvCache, found, vec![knob.to(dtype)])
        .because("In 8 bits the same memory holds twice as many tokens as in 16.")
        .not_predictable("The cache holds twice as many tokens, by arithmetic; how fast attention is on 8 bits here was never measured.")
        .answers_may_change("attention reads rounded keys and values.")
        .risk("Not every attention backend has it: some start slower kernels, or not at all.")
        .watch("The quality check, then preemptions and ITL p99.");
    family(NAME, TITLE, vec![one], 0)
}
