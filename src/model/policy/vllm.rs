//! vLLM's V1 scheduler (`vllm/v1/core/sched/scheduler.py`, 0.33): running requests first, in their order, then waiting
//! ones, within one budget of tokens; prompts in parts where that is on.
//!
//! Left out: priorities, asynchronous scheduling; LoRA, grammars and transfers between engines but for the time for which
//! requests are skipped.

use crate::model::engine::{Engine, Planned};
use crate::model::event::Sink;
use crate::model::request::Id;

pub(super) fn schedule(engine: &mut Engine, sink: &mut impl Sink) {
    let mut budget = engine.settings.max_num_batched_tokens;
    let preempted = run_on(engine, &mut budget, sink);
    // a request that was preempted is not let in again at once
    if !preempted {
        admit(engine, budget, sink);
    }
}

/// Running requests go on; whether one of them was preempted.
fn run_on(engine: &mut Engine, budget: &mut u32, sink: &mut impl Sink) -> bool {
    let drafts = engine
        .settings
        .speculation
        .map_or(0, |speculation| speculation.tokens);
    let mut preempted = false;
    let mut at = 0;
    while *budget > 0
        && let Some(&id) = engine.running.get(at)
    {
        let request = engine.requests.get(id);
        let decodes = request.decodes();
        // no more is guessed than the request may still have
        let room = request.spec.output_tokens - request.generated - u32::from(decodes);
        let guessed = if decodes { drafts.min(room) } else { 0 };
        let mut tokens = bounded(
            request.missing() + guessed,
            engine.settings.long_prefill_token_threshold,
        );
        tokens = tokens.min(*budget);
        // what is cut off is guesses first: the scheduler takes as many as the budget leaves
        let guessed = guessed.min(tokens.saturating_sub(request.missing()));
        let wanted = request.computed + tokens;
        if !make_room(engine, id, wanted, &mut preempted, sink) {
            break;
        }
        engine.plan.push(Planned {
            id,
            tokens,
            guessed,
        });
        *budget -= tokens;
        at += 1;
    }
    preempted
}

/// Room for a running request, at the cost of the newest; false where it was itself the newest.
fn make_room(
    engine: &mut Engine,
    id: Id,
    wanted: u32,
    preempted: &mut bool,
    sink: &mut impl Sink,
) -> bool {
    loop {
        let request = engine.requests.get(id);
        if engine.cache.grow(&mut request.held, wanted) {
            return true;
        }
        let Some(victim) = engine.running.pop() else {
            return false;
        };
        engine.preempt(victim, sink);
        engine.waiting.push_front(victim);
        *preempted = true;
        if victim == id {
            return false;
        }
    }
}

/// Waiting requests begin, the oldest first, until one does not fit.
fn admit(engine: &mut Engine, mut budget: u32, sink: &mut impl Sink) {
    while budget > 0
        && engine.running.len() < engine.settings.max_num_seqs as usize
        && let Some(&id) = engine.waiting.front()
    {
        let hit = engine.hit_tokens(id);
        let request = engine.requests.get(id);
        let all = request.tokens();
        let mut tokens = bounded(all - hit, engine.settings.long_prefill_token_threshold);
        if !engine.settings.chunked_prefill && tokens > budget {
            return;
        }
        tokens = tokens.min(budget);
        let wanted = if engine.settings.reserve_full_prompt {
            all
        } else {
            hit + tokens
        };
        let Some(held) = engine
            .cache
            .begin(request.spec.prefix, hit, hit + tokens, wanted)
        else {
            return;
        };
        request.held = held;
        request.computed = hit;
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

fn bounded(tokens: u32, threshold: Option<u32>) -> u32 {
    threshold
        .filter(|threshold| *threshold > 0)
        .map_or(tokens, |threshold| tokens.min(threshold))
}
