//! What a change of settings means to the model.

use super::change::KnobChange;
use super::in_force::InForce;
use super::proposal::{Expectation, ModelChange};

/// Share of an accelerator's memory that the KV cache has at least. Somebody who has set the share of the engine too small
/// for its weights has hardly any left.
const LEAST_KV_SHARE: f64 = 0.02;

/// What changes of settings mean to the model, or why the fitted model cannot know it.
pub(crate) fn of(in_force: &InForce, changes: &[KnobChange]) -> Expectation {
    let mut found = Vec::new();
    for change in changes {
        match modelled(in_force, change) {
            Ok(change) => found.extend(change),
            Err(reason) => return Expectation::NotPredictable(reason),
        }
    }
    Expectation::Modelled(found)
}

/// One change; none where it changes nothing that the model has.
fn modelled(in_force: &InForce, change: &KnobChange) -> Result<Option<ModelChange>, String> {
    let flag = &change.flag;
    let Some(to) = &change.to else {
        return match change.name.as_str() {
            "long_prefill_token_threshold" => Ok(Some(ModelChange::LongPrefillThreshold(None))),
            "max_num_queued_reqs" | "max_queued_requests" => {
                Ok(Some(ModelChange::QueueBound(None)))
            }
            "num_speculative_tokens"
            | "speculative_num_draft_tokens"
            | "speculative_algorithm"
            | "speculative_method" => Ok(Some(ModelChange::SpeculatedTokens(0))),
            _ => Err(format!(
                "without {flag} the engine's default holds, and nothing tells what that is here: give the value"
            )),
        };
    };
    if change.flag == "--speculative-config" {
        return speculation(to).map(Some);
    }
    let number: Option<f64> = to.parse().ok().filter(|number: &f64| number.is_finite());
    let whole = || {
        number
            .filter(|number| *number >= 0.0 && *number <= f64::from(u32::MAX))
            .map(|number| number as u32)
            .ok_or_else(|| format!("{flag} {to}: the model takes a whole number"))
    };
    let from = change
        .from
        .as_deref()
        .or_else(|| in_force.value(&[change.name.as_str()]))
        .and_then(|from| from.parse::<f64>().ok())
        .filter(|from| *from > 0.0);
    let ratio = || {
        number
            .zip(from)
            .filter(|(to, _)| *to > 0.0)
            .map(|(to, from)| (from, to))
            .ok_or_else(|| {
                format!(
                    "what {flag} is now is not known, and so not by how much the KV cache changes: declare the launch \
                     arguments, or give current_config"
                )
            })
    };
    Ok(Some(match change.name.as_str() {
        "max_num_seqs" | "max_running_requests" | "max_batch_size" => {
            ModelChange::MaxNumSeqs(whole()?)
        }
        "max_num_batched_tokens" | "max_batch_prefill_tokens" => ModelChange::TokenBudget(whole()?),
        "chunked_prefill_size" if number.is_some_and(|number| number > 0.0) => {
            ModelChange::TokenBudget(whole()?)
        }
        "long_prefill_token_threshold" => {
            ModelChange::LongPrefillThreshold(Some(whole()?).filter(|tokens| *tokens > 0))
        }
        "max_num_queued_reqs" | "max_queued_requests" | "max_concurrent_requests" => {
            ModelChange::QueueBound(Some(whole()?))
        }
        "num_speculative_tokens"
        | "speculative_num_draft_tokens"
        | "speculative_num_steps"
        | "speculate" => ModelChange::SpeculatedTokens(whole()?),
        "schedule_conservativeness" => ModelChange::Conservativeness(
            number.ok_or_else(|| format!("{flag} {to}: the model takes a number"))?,
        ),
        // on TGI a bound of one request
        "max_total_tokens" if in_force.engine != "sglang" => {
            return Err(format!("the model does not have {flag}"));
        }
        "num_gpu_blocks_override"
        | "num_gpu_blocks"
        | "kv_cache_memory_bytes"
        | "max_total_num_tokens"
        | "max_total_tokens"
        | "max_batch_total_tokens" => {
            let (from, to) = ratio()?;
            // vLLM keeps one block back
            let kept = f64::from(u8::from(change.name.starts_with("num_gpu_blocks")));
            let ratio = (to - kept).max(1.0) / (from - kept).max(1.0);
            ModelChange::KvCapacity {
                low_ratio: ratio,
                high_ratio: ratio,
            }
        }
        "gpu_memory_utilization" | "mem_fraction_static" | "cuda_memory_fraction" => {
            let (from, to) = ratio()?;
            memory_share(from, to)
        }
        _ => {
            return Err(format!(
                "the model is fitted to what this engine does now, and that does not tell what {flag} changes"
            ));
        }
    }))
}

/// vLLM's flag for guessing ahead takes JSON, or one of its values where that is what is known.
fn speculation(to: &str) -> Result<ModelChange, String> {
    let value: serde_json::Value = serde_json::from_str(to)
        .map_err(|error| format!("--speculative-config {to}: {error}; it takes a JSON object"))?;
    let tokens = match &value {
        serde_json::Value::Number(_) => value.as_u64(),
        _ => value
            .get("num_speculative_tokens")
            .and_then(serde_json::Value::as_u64),
    };
    tokens
        .and_then(|tokens| u32::try_from(tokens).ok())
        .map(ModelChange::SpeculatedTokens)
        .ok_or_else(|| {
            format!("--speculative-config {to}: the model needs num_speculative_tokens, and that the method stays")
        })
}

/// By how much the KV cache changes with the engine's share of the memory. Weights and buffers take the same of it
/// before and after, so all of the difference is the cache's: relative to a cache that has at most the whole share and at
/// least a fiftieth of the memory.
pub(super) fn memory_share(from: f64, to: f64) -> ModelChange {
    let whole = to / from;
    let cache = LEAST_KV_SHARE.min(from);
    let least = (cache + to - from).max(cache * 0.1) / cache;
    ModelChange::KvCapacity {
        low_ratio: whole.min(least),
        high_ratio: whole.max(least),
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_share_of_the_memory_is_at_least_as_much_more_cache() {
        let ratios = |from, to| match memory_share(from, to) {
            ModelChange::KvCapacity {
                low_ratio,
                high_ratio,
            } => (low_ratio, high_ratio),
            other => panic!("{other:?}"),
        };
        let (low, high) = ratios(0.9, 0.95);
        assert!((low - 0.95 / 0.9).abs() < 1e-9 && (high - 3.5).abs() < 1e-9);
        let (low, high) = ratios(0.95, 0.9);
        assert!((low - 0.1).abs() < 1e-9 && (high - 0.9 / 0.95).abs() < 1e-9);
    }
}
