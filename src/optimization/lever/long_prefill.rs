//! The part of one long prompt that a step takes, so that short ones are not blocked.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::{Quantity as Q, Version};
use crate::optimization::{ModelChange, Situation};

use super::draft::{Answer, Declined, change, family, has};
use super::grid::nearest_of;
use super::knob::knob;

pub(super) const NAME: &str = "long_prefill";

const VALUES: [u32; 7] = [128, 256, 512, 1_024, 2_048, 4_096, 8_192];
/// What vLLM takes by itself where several long prompts may be computed at once.
const GUIDE_SHARE_OF_LONGEST: f64 = 0.04;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::HeadOfLine, Cause::PrefillInterference]);
    match (situation.engine(), found.is_empty()) {
        (_, true) => Vec::new(),
        ("sglang", _) if has(&found, Cause::HeadOfLine) => vec![shortest_first(situation, &found)],
        ("tgi", _) if has(&found, Cause::HeadOfLine) => vec![Err(Declined::new(
            "Bound the part of a long prompt in a step",
            "TGI has no setting for it: send long prompts to replicas of their own",
        ))],
        ("sglang" | "tgi", _) => Vec::new(),
        _ => vec![threshold(situation, &found)],
    }
}

fn threshold(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Bound the part of a long prompt in a step";
    let knob = knob(situation, TITLE, "long_prefill_token_threshold")?;
    let now = knob.number().filter(|now| *now > 0.0);
    let budget = situation.in_force.number(&["max_num_batched_tokens"]);
    let longest = situation.quantile(Q::PromptLength, 0.99);
    let binds = |value: &u32| {
        let value = f64::from(*value);
        let below = |bound: Option<f64>| bound.is_none_or(|bound| value < bound);
        below(budget) && below(longest) && Some(value) != now
    };
    let values: Vec<u32> = VALUES.into_iter().filter(binds).collect();
    if values.is_empty() {
        let reason = "steps, or the prompts themselves, are already shorter than any bound on them";
        return Err(Declined::new(TITLE, reason));
    }
    let wanted = match (situation.in_force.number(&["max_model_len"]), budget) {
        (Some(longest), _) => longest * GUIDE_SHARE_OF_LONGEST,
        (None, Some(budget)) => budget / 4.0,
        (None, None) => 1_024.0,
    };
    let guide = nearest_of(&values, wanted);
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .modelled([ModelChange::LongPrefillThreshold(Some(to))])
            .risk("Long prompts are computed in more steps: their own first token comes later.")
            .watch("TTFT p50 for the short ones, p99 for the long ones.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

/// SGLang orders its queue instead.
fn shortest_first(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Compute short prompts first";
    const POLICY: &str = "shortest-prefill-first";
    let knob = knob(situation, TITLE, "schedule_policy")?;
    // the first version that was read with it
    if situation
        .version()
        .is_none_or(|version| version < Version::new(0, 5, 23))
    {
        let reason = format!("only SGLang 0.5.23 and newer are known to have the policy {POLICY}");
        return Err(Declined::new(TITLE, reason));
    }
    if knob.text() == Some(POLICY) {
        return Err(Declined::new(
            TITLE,
            format!("{POLICY} is in force already"),
        ));
    }
    let one = change(Treatment::Scheduling, found, vec![knob.to(POLICY)])
        .not_predictable("The model serves requests in their order of arrival.")
        .risk("Long prompts wait for as long as short ones keep coming.")
        .watch("TTFT p99, which is that of the long ones.");
    family(NAME, TITLE, vec![one], 0)
}
