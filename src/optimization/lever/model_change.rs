//! Changes of settings in the model's terms, whoever asks for them.

use crate::optimization::{KnobChange, ModelChange, Situation};

use super::kv_capacity::pool_growth;

/// What changes of settings mean to the model.
///
/// # Errors
/// One that the model does not have, or whose value before is not known: why, as a sentence.
pub fn model_changes(
    situation: &Situation<'_>,
    changes: &[KnobChange],
) -> Result<Vec<ModelChange>, String> {
    let each = changes.iter().map(|change| model_change(situation, change));
    each.collect()
}

fn model_change(situation: &Situation<'_>, change: &KnobChange) -> Result<ModelChange, String> {
    let count = |to: Option<f64>| -> Result<u32, String> {
        let to = to.filter(|to| (1.0..=f64::from(u32::MAX)).contains(to));
        to.map(|to| to as u32)
            .ok_or_else(|| format!("{} is to be a number above 0", change.flag))
    };
    let number = |text: &Option<String>| {
        text.as_ref()?
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
    };
    let to = number(&change.to);
    let exactly = |kept: f64| match number(&change.from).zip(to) {
        Some((from, to)) if from > kept && to > kept => {
            let ratio = (to - kept) / (from - kept);
            Ok(ModelChange::KvCapacity {
                low_ratio: ratio,
                high_ratio: ratio,
            })
        }
        _ => Err(format!("{} in force is not known", change.flag)),
    };
    match change.name.as_str() {
        "max_num_seqs" | "max_running_requests" | "max_batch_size" => {
            Ok(ModelChange::MaxNumSeqs(count(to)?))
        }
        "max_num_batched_tokens" | "chunked_prefill_size" | "max_batch_prefill_tokens" => {
            Ok(ModelChange::TokenBudget(count(to)?))
        }
        "long_prefill_token_threshold" => {
            let bound = to.filter(|to| *to >= 1.0).map(|to| to as u32);
            Ok(ModelChange::LongPrefillThreshold(bound))
        }
        "max_num_queued_reqs" | "max_queued_requests" | "max_concurrent_requests" => {
            match &change.to {
                None => Ok(ModelChange::QueueBound(None)),
                Some(_) => Ok(ModelChange::QueueBound(Some(count(to)?))),
            }
        }
        "num_speculative_tokens" | "speculative_num_steps" | "speculate" => Ok(
            ModelChange::SpeculatedTokens(to.unwrap_or(0.0).clamp(0.0, 64.0) as u32),
        ),
        "schedule_conservativeness" => match to.filter(|to| *to >= 0.0) {
            Some(to) => Ok(ModelChange::Conservativeness(to)),
            None => Err(format!("{} is to be a number", change.flag)),
        },
        "num_gpu_blocks_override" => exactly(1.0),
        "kv_cache_memory_bytes" => exactly(0.0),
        "gpu_memory_utilization" | "mem_fraction_static" => match number(&change.from).zip(to) {
            Some((from, to)) if (0.01..=1.0).contains(&from) && to > 0.0 => {
                Ok(pool_growth(from, to))
            }
            _ => Err(format!("{} in force is not known", change.flag)),
        },
        _ => Err(format!(
            "{} is not in the model of {}",
            change.flag, situation.profile.title
        )),
    }
}
