//! Levers: what was found → alternatives of what to change. One family of settings a file.
//!
//! A lever knows no model and predicts nothing: it gives values worth trying, in the engine's own spelling, and what each
//! means in the model's terms; or says why it has none.

mod admission;
mod conservativeness;
mod draft;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(in crate::optimization) mod example;
mod facts;
mod frontend;
mod graphs;
mod grid;
mod knob;
mod kv_capacity;
mod kv_dtype;
mod limits;
mod long_prefill;
mod own;
mod parallelism;
mod prefill_pacing;
mod prefix_cache;
mod quantization;
mod replicas;
mod scheduling;
mod sequence_cap;
mod speculation;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod token_budget;
mod verdict;

use super::proposal::Family;
use super::recommendation::LeftOut;
use super::situation::Situation;

use draft::Answer;
pub(in crate::optimization) use limits::no_tuning;
pub(in crate::optimization) use own::{Asked, asked, knob_to};
pub use verdict::verdict_without_changes;

/// Alternatives for what was found, or why there are none.
type Lever = fn(&Situation<'_>) -> Vec<Answer>;

/// All levers, and what each changes. Those that can change answers come last.
const LEVERS: &[(&str, &str, Lever)] = &[
    (
        sequence_cap::NAME,
        "How many requests run at once.",
        sequence_cap::propose,
    ),
    (
        token_budget::NAME,
        "How many tokens a step, or a prefill, takes.",
        token_budget::propose,
    ),
    (
        long_prefill::NAME,
        "The part of one long prompt that a step takes, so that short ones are not blocked.",
        long_prefill::propose,
    ),
    (
        prefill_pacing::NAME,
        "How often prompts may share steps with requests that decode.",
        prefill_pacing::propose,
    ),
    (
        kv_capacity::NAME,
        "How much memory the KV cache has.",
        kv_capacity::propose,
    ),
    (
        conservativeness::NAME,
        "How much of the outputs to come SGLang sets room aside for.",
        conservativeness::propose,
    ),
    (
        prefix_cache::NAME,
        "Beginnings of prompts that are computed once.",
        prefix_cache::propose,
    ),
    (
        admission::NAME,
        "How many requests may wait before others are refused.",
        admission::propose,
    ),
    (
        scheduling::NAME,
        "What the host does between two steps.",
        scheduling::propose,
    ),
    (
        graphs::NAME,
        "Batches for which CUDA graphs are captured.",
        graphs::propose,
    ),
    (
        speculation::NAME,
        "Tokens guessed ahead.",
        speculation::propose,
    ),
    (
        frontend::NAME,
        "Processes that read requests and write answers.",
        frontend::propose,
    ),
    (
        replicas::NAME,
        "How many replicas there are.",
        replicas::propose,
    ),
    (
        parallelism::NAME,
        "Several accelerators for one replica.",
        parallelism::propose,
    ),
    (
        kv_dtype::NAME,
        "Fewer bytes for each token of the KV cache.",
        kv_dtype::propose,
    ),
    (
        quantization::NAME,
        "Fewer bytes for each weight.",
        quantization::propose,
    ),
];

/// Whether a lever asks for more hardware.
pub(in crate::optimization) fn takes_hardware(lever: &str) -> bool {
    [replicas::NAME, parallelism::NAME].contains(&lever)
}

/// Names of all levers.
pub fn lever_names() -> impl Iterator<Item = &'static str> {
    LEVERS.iter().map(|(name, _, _)| *name)
}

/// Each lever, and what it changes, as a sentence.
pub fn levers() -> impl Iterator<Item = (&'static str, &'static str)> {
    LEVERS.iter().map(|(name, changes, _)| (*name, *changes))
}

/// What to change about what was found, within the request's limits; and what was considered and left out.
pub fn families(situation: &Situation<'_>) -> (Vec<Family>, Vec<LeftOut>) {
    if situation.findings.is_empty() {
        return (Vec::new(), Vec::new());
    }
    if let Some(reason) = limits::no_tuning(situation) {
        let left_out = LeftOut {
            lever: "all".to_owned(),
            title: "Change settings".to_owned(),
            reason,
        };
        return (Vec::new(), vec![left_out]);
    }
    let (mut families, mut left_out) = (Vec::new(), Vec::new());
    for (name, _, lever) in LEVERS {
        for answer in lever(situation) {
            let answer = answer.and_then(|family| limits::within(situation.limits, family));
            match answer {
                Ok(family) => families.push(family),
                Err(declined) => left_out.push(LeftOut {
                    lever: (*name).to_owned(),
                    title: declined.title,
                    reason: declined.reason,
                }),
            }
        }
    }
    (families, left_out)
}
