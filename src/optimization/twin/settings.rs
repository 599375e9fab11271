//! Settings in the model's terms; what nothing tells is drawn from what the engine may have.

use crate::model::{Policy, Settings, Speculation};
use crate::optimization::in_force::InForce;

use super::draws::Draws;
use super::observed::Observed;

/// Settings of an engine that may be this one.
pub(super) fn draw(
    observed: &Observed,
    in_force: &InForce,
    draws: &mut Draws,
    assumptions: &mut Vec<String>,
) -> Settings {
    let number = |names: &[&str]| in_force.number(names).filter(|value| *value >= 0.0);
    let whole = |names: &[&str]| number(names).map(|value| value as u32);
    let mut assume = |text: &str| {
        if !assumptions.iter().any(|known| known == text) {
            assumptions.push(text.to_owned());
        }
    };
    let policy = observed.policy;
    let running = observed.running.max.ceil().max(1.0) as u32;
    let (cap_names, caps): (&[&str], &[u32]) = match policy {
        Policy::Vllm => (&["max_num_seqs"], &[256, 1_024]),
        Policy::Sglang => (&["max_running_requests"], &[2_048]),
        Policy::Tgi => (&["max_batch_size"], &[1_024]),
    };
    let max_num_seqs = whole(cap_names).filter(|cap| *cap > 0).unwrap_or_else(|| {
        assume(
            "how many requests may run at once is not told: as many as the engine has by default",
        );
        // requests that wait may wait for a place
        match observed.waiting.mean >= 1.0 && draws.unit() < 0.5 {
            true => running,
            false => draws.one_of(caps).unwrap_or(256),
        }
    });
    // more were seen than are told to be possible: what is seen counts
    let max_num_seqs = max_num_seqs.max(running);
    let budget_names: &[&str] = match policy {
        Policy::Vllm => &["max_num_batched_tokens"],
        Policy::Sglang => &["chunked_prefill_size"],
        Policy::Tgi => &["max_batch_prefill_tokens"],
    };
    let budget = in_force.number(budget_names);
    let unbounded = budget.is_some_and(|tokens| tokens < 0.0);
    let mut max_num_batched_tokens = match budget {
        Some(tokens) if tokens >= 1.0 => tokens as u32,
        Some(_) => whole(&["max_prefill_tokens"]).unwrap_or(16_384),
        None => {
            assume("how many tokens a step takes is not told: one of the engine's defaults");
            draws
                .one_of(&[2_048, 4_096, 8_192, 16_384])
                .unwrap_or(2_048)
        }
    };
    if policy == Policy::Vllm {
        max_num_batched_tokens = max_num_batched_tokens.max(max_num_seqs);
    }
    let block_size = match policy {
        Policy::Vllm => whole(&["block_size"]).unwrap_or(16),
        Policy::Sglang => whole(&["page_size"]).unwrap_or(1),
        Policy::Tgi => 1,
    }
    .max(1);
    let (tokens, told) = kv_tokens(observed, in_force, block_size, draws);
    if !told {
        assume(
            "the size of the KV cache is not told: it follows from its use and the requests that ran",
        );
    }
    let mut kv_blocks = (tokens / f64::from(block_size)).floor().max(2.0) as u32;
    if policy == Policy::Vllm && told {
        // one is kept back
        kv_blocks -= 1;
    }
    let capacity = u64::from(kv_blocks) * u64::from(block_size);
    let longest = longest(observed);
    let max_model_len = whole(&["max_model_len", "context_length", "max_total_tokens"])
        .filter(|tokens| *tokens > 1)
        .unwrap_or(longest)
        .min(u32::try_from(capacity).unwrap_or(u32::MAX));
    let chunked_prefill = match policy {
        Policy::Vllm => in_force.switch(&["enable_chunked_prefill"]).unwrap_or(true),
        Policy::Sglang => !unbounded,
        Policy::Tgi => true,
    };
    if !chunked_prefill {
        max_num_batched_tokens = max_num_batched_tokens.max(max_model_len);
    }
    let prefix_caching = match policy {
        Policy::Sglang => !in_force.switch(&["disable_radix_cache"]).unwrap_or(false),
        _ => in_force.switch(&["enable_prefix_caching"]).unwrap_or(true),
    };
    let max_num_queued_reqs = whole(&[
        "max_num_queued_reqs",
        "max_queued_requests",
        "max_concurrent_requests",
    ]);
    // who is refused is refused at a bound
    let max_num_queued_reqs = max_num_queued_reqs.or_else(|| {
        let inside = match policy {
            Policy::Tgi => observed.running.max,
            _ => 0.0,
        };
        let wait = observed.waiting.max.max(1.0);
        observed
            .refuses()
            .then(|| (inside + wait * draws.log_between(1.0, 16.0)).round() as u32)
    });
    Settings {
        policy,
        max_num_seqs,
        max_num_batched_tokens,
        kv_blocks,
        block_size,
        max_model_len,
        prefix_caching,
        chunked_prefill,
        long_prefill_token_threshold: whole(&["long_prefill_token_threshold"])
            .filter(|tokens| *tokens > 0),
        reserve_full_prompt: in_force
            .version
            .is_none_or(|version| version >= crate::engine::Version::new(0, 19, 0)),
        max_num_queued_reqs,
        speculation: speculation(observed, in_force),
        schedule_conservativeness: number(&["schedule_conservativeness"]).unwrap_or(1.0),
    }
}

/// Tokens of the KV cache, and whether somebody tells.
fn kv_tokens(
    observed: &Observed,
    in_force: &InForce,
    block_size: u32,
    draws: &mut Draws,
) -> (f64, bool) {
    let by_blocks = in_force
        .number(&["num_gpu_blocks", "num_gpu_blocks_override"])
        .map(|blocks| blocks * f64::from(block_size));
    let told = observed
        .kv_tokens
        .or(by_blocks)
        .or_else(|| in_force.number(&["max_total_num_tokens", "max_batch_total_tokens"]));
    if let Some(tokens) = told.filter(|tokens| *tokens >= 1.0) {
        return (tokens, true);
    }
    let mean = |length: &crate::measure::Distribution| length.mean.unwrap_or(1.0);
    let request = mean(&observed.prompt) + mean(&observed.output) / 2.0;
    let held = observed.running.mean * request;
    let by_usage = observed
        .kv_usage
        .filter(|usage| *usage > 0.02)
        .map(|usage| held / usage);
    // while requests wait, what is reserved is near its limit, unless they wait for something else
    let (full, room) = (draws.unit() < 0.5, draws.log_between(1.2, 8.0));
    let by_reservation = observed
        .reserved_tokens
        .filter(|tokens| *tokens > 0.0)
        .map(|tokens| match observed.waiting.min > 0.0 {
            true if full => tokens * 1.02,
            true => tokens * room,
            false => tokens * 4.0,
        });
    let guess = by_usage.or(by_reservation).unwrap_or(8.0 * held);
    (guess.max(f64::from(longest(observed))), false)
}

/// A length that no request exceeds.
fn longest(observed: &Observed) -> u32 {
    let most = |length: &crate::measure::Distribution| {
        let last = length.buckets.last();
        last.map_or(length.mean.unwrap_or(1.0) * 8.0, |bucket| {
            match bucket.at_most.is_finite() {
                true => bucket.at_most,
                false => bucket.above.unwrap_or(1.0) * 2.0,
            }
        })
    };
    (most(&observed.prompt) + most(&observed.output))
        .ceil()
        .max(2.0) as u32
}

/// Tokens guessed ahead, with the chance that gives as many right ones as were seen.
fn speculation(observed: &Observed, in_force: &InForce) -> Option<Speculation> {
    let drafted = observed.drafted.map(|tokens| tokens.round());
    let tokens = in_force
        .number(&["num_speculative_tokens", "speculative_num_draft_tokens"])
        .or(drafted)
        .filter(|tokens| *tokens >= 1.0)? as u32;
    // without any draft in the window it is off, whatever the setting says
    let length = observed.accepted_length?;
    // a round gives 1 + a + a² + … tokens
    let given = |ratio: f64| {
        (0..=tokens)
            .map(|power| ratio.powi(power as i32))
            .sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        match given(middle) < length {
            true => low = middle,
            false => high = middle,
        }
    }
    Some(Speculation {
        tokens,
        acceptance_ratio: (low + high) / 2.0,
    })
}
