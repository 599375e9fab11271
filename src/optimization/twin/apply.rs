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

/// Replicas after a change over those before.
pub(super) fn replicas_ratio(replicas: u32, changes: &[ModelChange]) -> f64 {
    let after = changes.iter().rev().find_map(|change| match change {
        ModelChange::Replicas(after) => Some(*after),
        _ => None,
    });
    f64::from(after.unwrap_or(replicas)) / f64::from(replicas.max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{Lengths, RequestClass, StepTime};
    use crate::optimization::twin::outcome::{Plan, run};

    fn member(arrival: Arrival) -> Member {
        let class = RequestClass::of(Lengths::Fixed(100), Lengths::Fixed(50));
        let load = Load {
            arrival,
            classes: vec![class],
            split: Vec::new(),
            drift: None,
            seed: 1,
        };
        let (settings, step_time) = (Settings::default(), StepTime::default());
        let plan = Plan {
            warm_seconds: 1.0,
            seconds: 2.0,
            samples: 3,
            backlog: None,
            most_tokens: 1_000_000,
        };
        let before = run(&settings, step_time, &load, &plan).unwrap();
        Member {
            settings,
            step_time,
            load,
            closed: false,
            kv_draw: 0.5,
            weight: 1.0,
            before,
            again: None,
        }
    }

    #[test]
    fn a_change_is_made_and_what_cannot_be_is_refused() {
        let member = member(Arrival::Poisson {
            rate_per_second: 10.0,
        });
        let (settings, load) = apply(
            &member,
            2,
            &[
                ModelChange::MaxNumSeqs(32),
                ModelChange::KvCapacity {
                    low_ratio: 1.0,
                    high_ratio: 4.0,
                },
                ModelChange::Replicas(4),
            ],
        )
        .unwrap();
        assert_eq!(settings.max_num_seqs, 32);
        assert_eq!(settings.kv_blocks, 2 * member.settings.kv_blocks);
        assert_eq!(
            load.arrival,
            Arrival::Poisson {
                rate_per_second: 5.0
            }
        );
        for (change, word) in [
            (ModelChange::MaxNumSeqs(4_096), "too small"),
            (ModelChange::SpeculatedTokens(3), "how many guesses"),
            (
                ModelChange::KvCapacity {
                    low_ratio: 1e-3,
                    high_ratio: 1e-3,
                },
                "has to fit",
            ),
        ] {
            let reason = apply(&member, 1, &[change]).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn clients_are_shared_by_replicas_too() {
        let member = member(Arrival::Closed {
            clients: 9,
            think_seconds: 0.0,
        });
        let (_, load) = apply(&member, 1, &[ModelChange::Replicas(2)]).unwrap();
        assert_eq!(
            load.arrival,
            Arrival::Closed {
                clients: 5,
                think_seconds: 0.0
            }
        );
    }
}
