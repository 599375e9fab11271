//! Beginnings of prompts that are computed once.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{KnobChange, Situation};

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "prefix_cache";
const TITLE: &str = "Keep beginnings of prompts";

/// Blocks of more tokens are those of hybrid and state-space models, where shared beginnings are rarely as long (vLLM
/// issues 54607 and 51198).
const LARGEST_BLOCK: f64 = 512.0;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let off = situation.treated(&[Cause::PrefixCacheOff]);
    if !off.is_empty() {
        answers.push(switched_on(situation, &off));
    }
    let cold = situation.treated(&[Cause::ColdPrefixCache]);
    if !cold.is_empty() {
        answers.push(longest_match(situation, &cold));
    }
    answers
}

fn switched_on(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    let block = situation.in_force.number(&["block_size", "page_size"]);
    if let Some(block) = block.filter(|block| *block > LARGEST_BLOCK) {
        let reason = format!(
            "a block has {block:.0} tokens, as with hybrid and state-space models: beginnings that are shared are rarely as long"
        );
        return Err(Declined::new(TITLE, reason));
    }
    let prompt = situation.mean(Q::PromptLength);
    if let Some((prompt, block)) = prompt.zip(block).filter(|(prompt, block)| prompt < block) {
        let reason = format!(
            "prompts have {prompt:.0} tokens on average, less than one block of {block:.0}: nothing can be shared"
        );
        return Err(Declined::new(TITLE, reason));
    }
    let changed = match situation.engine() {
        "sglang" => {
            let knob = knob(situation, TITLE, "disable_radix_cache")?;
            match knob.is_on() {
                Some(false) => return Err(Declined::new(TITLE, "it is on already")),
                // that it is off was found
                _ => KnobChange {
                    from: Some("true".to_owned()),
                    ..knob.away()
                },
            }
        }
        "tgi" => {
            let reason = "TGI has no flag for it: set the variable PREFIX_CACHING=true, with ATTENTION=flashinfer or flashdecoding; paged attention has none";
            return Err(Declined::new(TITLE, reason));
        }
        _ => {
            let knob = knob(situation, TITLE, "enable_prefix_caching")?;
            match knob.is_on() {
                Some(true) => return Err(Declined::new(TITLE, "it is on already")),
                _ => knob.to(true),
            }
        }
    };
    let one = change(Treatment::KvCache, found, vec![changed])
        .not_predictable("Nothing tells how much of their beginnings the prompts share while the cache is off.")
        .risk("Prompts that share nothing gain nothing, and each costs a little more to look up.")
        .risk("Some hybrid and state-space models cannot use it.")
        .watch("The hit ratio of the prefix cache after some minutes: below 5 % it does nothing, and may be taken away.");
    family(NAME, TITLE, vec![one], 0)
}

fn longest_match(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Take first what the prefix cache holds";
    if situation.engine() != "sglang" {
        let reason = "no setting warms a cache: it fills by itself, and one that forgets needs more KV cache, or requests that share a beginning on the same replica";
        return Err(Declined::new(TITLE, reason));
    }
    let knob = knob(situation, TITLE, "schedule_policy")?;
    if knob.text() == Some("lpm") {
        return Err(Declined::new(TITLE, "lpm is in force already"));
    }
    let one = change(Treatment::Scheduling, found, vec![knob.to("lpm")])
        .not_predictable("The model serves requests in their order of arrival.")
        .risk("Requests that share nothing wait for as long as others that do keep coming.")
        .risk("Sorting a long queue takes time of the host.")
        .watch("The hit ratio of the prefix cache, and TTFT p99.");
    family(NAME, TITLE, vec![one], 0)
}
