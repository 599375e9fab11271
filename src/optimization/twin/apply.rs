//! A change in the terms of a member.

use crate::model::{Arrival, Load, Policy, Settings, Speculation};
use crate::optimization::proposal::ModelChange;

use super::member::Member;

/// Settings and load of a member after a change; of `replicas` so far.
///
/// # Errors
/// Why an engine cannot be so, as a sentence.
pub(super) fn apply(
    member: &Member,
    replicas: u32,
    changes: &[ModelChange],
) -> Result<(Settings, Load), String> {
    let (mut settings, mut load) = (member.settings.clone(), member.load.clone());
    for change in changes {
        match *change {
            ModelChange::MaxNumSeqs(cap) => settings.max_num_seqs = cap,
            ModelChange::TokenBudget(tokens) => settings.max_num_batched_tokens = tokens,
            ModelChange::KvCapacity {
                low_ratio,
                high_ratio,
            } => {
                let ratio = low_ratio * (high_ratio / low_ratio).powf(member.kv_draw);
                let blocks = f64::from(settings.kv_blocks) * ratio;
                // `as` saturates
                settings.kv_blocks = blocks.round() as u32;
            }
            ModelChange::LongPrefillThreshold(tokens) => {
                settings.long_prefill_token_threshold = tokens;
            }
            ModelChange::QueueBound(requests) => settings.max_num_queued_reqs = requests,
            ModelChange::SpeculatedTokens(0) => settings.speculation = None,
            ModelChange::SpeculatedTokens(tokens) => {
                let known = settings.speculation.ok_or(
                    "nothing is guessed ahead now: nothing tells how many guesses would be right",
                )?;
                settings.speculation = Some(Speculation { tokens, ..known });
            }
            ModelChange::Conservativeness(value) => settings.schedule_conservativeness = value,
            ModelChange::Replicas(after) => {
                let share = f64::from(replicas) / f64::from(after.max(1));
                match &mut load.arrival {
                    Arrival::Poisson { rate_per_second }
                    | Arrival::Bursty {
                        rate_per_second, ..
                    } => *rate_per_second *= share,
                    Arrival::Closed { clients, .. } => {
                        *clients = (f64::from(*clients) * share).round().max(1.0) as u32;
                    }
                    Arrival::Trace(_) => {}
                }
            }
        }
    }
    // what the twin raised to have more room than is told gives way
    if settings.policy == Policy::Vllm && settings.max_num_batched_tokens < settings.max_num_seqs {
        return Err(format!(
            "a step of {} tokens is too small for {} requests at once",
            settings.max_num_batched_tokens, settings.max_num_seqs
        ));
    }
    settings.check().map_err(|error| error.to_string())?;
    Ok((settings, load))
}
