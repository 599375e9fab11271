//! TGI's v3 router (`backends/v3/src/queue.rs`, `backend.rs`, 3.3.7): a request begins if its prompt and the longest
//! output that it may have fit beside those that run; so none is ever preempted. Prefills pause the decodes, where the
//! model cannot do both in one step.
//!
//! Left out: the waiting ratio against running requests, which needs the wall clock; beams.

use crate::model::engine::{Engine, Planned};
use crate::model::event::Sink;

/// `--max-waiting-tokens`: so many decode steps go before new requests are let in again.
const DECODES_BEFORE_PREFILL: u32 = 20;

pub(super) fn schedule(engine: &mut Engine, sink: &mut impl Sink) {
    let mut budget = engine.settings.max_num_batched_tokens;
    if engine.settings.chunked_prefill {
        // one step does both
        decode(engine, &mut budget);
        admit(engine, budget, sink);
        return;
    }
    let may_wait = !engine.running.is_empty() && engine.decodes_in_a_row < DECODES_BEFORE_PREFILL;
    if !may_wait {
        admit(engine, budget, sink);
    }
    if engine.plan.is_empty() {
        engine.decodes_in_a_row += 1;
        decode(engine, &mut budget);
    } else {
        engine.decodes_in_a_row = 0;
    }
}

fn decode(engine: &mut Engine, budget: &mut u32) {
    let drafts = engine
        .settings
        .speculation
        .map_or(0, |speculation| speculation.tokens);
    for &id in &engine.running {
        let request = engine.requests.get(id);
        let decodes = request.decodes();
        let guessed = if decodes {
            drafts.min(request.spec.output_tokens - request.generated - 1)
        } else {
            0
        };
        // the budget is one of prompts
        let tokens = if decodes {
            1 + guessed
        } else {
            request.missing().min(*budget)
        };
        if tokens == 0 {
            continue;
        }
        // set aside when it began
        if engine
            .cache
            .grow(&mut request.held, request.computed + tokens)
        {
            engine.plan.push(Planned {
                id,
                tokens,
                guessed,
            });
        }
        if !decodes {
            *budget -= tokens;
        }
    }
}

fn admit(engine: &mut Engine, mut budget: u32, sink: &mut impl Sink) {
    let mut reserved = super::reserved_tokens(engine);
    let all_tokens = engine.settings.kv_tokens();
    while budget > 0
        && engine.running.len() < engine.settings.max_num_seqs as usize
        && let Some(&id) = engine.waiting.front()
    {
        let hit = engine.hit_tokens(id);
        let request = engine.requests.get(id);
        let prompt = request.tokens();
        let longest = u64::from(prompt) + u64::from(request.spec.output_tokens - request.generated);
        // in whole blocks, as the pages of the cache are
        let block = u64::from(engine.settings.block_size);
        let longest = longest.div_ceil(block) * block;
        if reserved + longest > all_tokens {
            return;
        }
        let tokens = (prompt - hit).min(budget);
        if !engine.settings.chunked_prefill && tokens < prompt - hit {
            return;
        }
        let Some(held) = engine
            .cache
            .begin(request.spec.prefix, hit, hit + tokens, prompt)
        else {
            return;
        };
        request.held = held;
        request.computed = hit;
        request.reserved_tokens = u32::try_from(longest).unwrap_or(u32::MAX);
        reserved += longest;
        engine.waiting.pop_front();
        engine.running.push(id);
        engine.plan.push(Planned {
            id,
            tokens,
            guessed: 0,
        });
        engine.note_scheduled(id, hit, sink);
        budget -= tokens;
    }
}
