//! SGLang's scheduler (`sglang/srt/managers/scheduler.py`, `schedule_policy.py`, 0.5.23): a prefill goes before the
//! decodes, by itself; a request begins if what the running ones will probably still need leaves room; where the guess
//! was too low, requests are retracted and the guess is raised.
//!
//! Left out: cache-aware order, mixed chunks, overlap of scheduler and device.

use crate::model::engine::{Engine, Planned};
use crate::model::event::Sink;
use crate::model::settings::Settings;

/// `SGLANG_INIT_NEW_TOKEN_RATIO`
const INITIAL_RATIO: f64 = 0.7;
/// `SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR`
const LEAST_OF_INITIAL: f64 = 0.14;
/// `SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS`
const DECAY_STEPS: f64 = 600.0;
/// `SGLANG_RETRACT_DECODE_STEPS`
const RETRACT_STEPS: u32 = 20;

pub(super) fn initial_new_token_ratio(settings: &Settings) -> f64 {
    (INITIAL_RATIO * settings.schedule_conservativeness).min(1.0)
}

pub(super) fn schedule(engine: &mut Engine, sink: &mut impl Sink) {
    prefill(engine, sink);
    if engine.plan.is_empty() {
        decode(engine, sink);
    }
}

/// The next part of a prompt that was begun, and new requests in what is left.
fn prefill(engine: &mut Engine, sink: &mut impl Sink) {
    let mut budget = engine.settings.max_num_batched_tokens;
    for &id in &engine.running {
        let request = engine.requests.get(id);
        if request.decodes() || budget == 0 {
            continue;
        }
        let tokens = request.missing().min(budget);
        // set aside when it began
        if engine
            .cache
            .grow(&mut request.held, request.computed + tokens)
        {
            engine.plan.push(Planned {
                id,
                tokens,
                guessed: 0,
            });
            budget -= tokens;
        }
    }
    let mut spoken_for = spoken_for(engine);
    while budget > 0
        && engine.running.len() < engine.settings.max_num_seqs as usize
        && let Some(&id) = engine.waiting.front()
    {
        let hit = engine.hit_tokens(id);
        let request = engine.requests.get(id);
        let all = request.tokens();
        let still = f64::from(request.spec.output_tokens - request.generated);
        let free = u64::from(engine.cache.free_blocks()) * u64::from(engine.settings.block_size);
        let needed = f64::from(all - hit) + still;
        if needed + spoken_for > free as f64 && !engine.running.is_empty() {
            return;
        }
        let tokens = (all - hit).min(budget);
        let Some(held) = engine
            .cache
            .begin(request.spec.prefix, hit, hit + tokens, all)
        else {
            return;
        };
        request.held = held;
        request.computed = hit;
        spoken_for += f64::from(all - hit - tokens) + still * engine.new_token_ratio;
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

/// Tokens that running requests will probably still need.
fn spoken_for(engine: &mut Engine) -> f64 {
    let ratio = engine.new_token_ratio;
    let requests = &mut engine.requests;
    let of = |id: &u32| {
        let request = requests.get(*id);
        let prompt = if request.decodes() {
            0
        } else {
            request.missing()
        };
        f64::from(prompt) + ratio * f64::from(request.spec.output_tokens - request.generated)
    };
    engine.running.iter().map(of).sum()
}

/// One token for each that runs.
fn decode(engine: &mut Engine, sink: &mut impl Sink) {
    let drafts = engine
        .settings
        .speculation
        .map_or(0, |speculation| speculation.tokens);
    let mut retracted = false;
    while engine.running.len() > 1 && !fits(engine, 1 + drafts) {
        retract(engine, sink);
        retracted = true;
    }
    if retracted {
        raise(engine);
    } else {
        let initial = initial_new_token_ratio(&engine.settings);
        let least = initial * LEAST_OF_INITIAL;
        engine.new_token_ratio =
            (engine.new_token_ratio - (initial - least) / DECAY_STEPS).max(least);
    }
    for &id in &engine.running {
        let request = engine.requests.get(id);
        let guessed = drafts.min(request.spec.output_tokens - request.generated - 1);
        let wanted = request.tokens() + guessed;
        if engine.cache.grow(&mut request.held, wanted) {
            engine.plan.push(Planned {
                id,
                tokens: 1 + guessed,
                guessed,
            });
        }
    }
}

/// Whether all can have so many tokens more.
fn fits(engine: &mut Engine, tokens: u32) -> bool {
    let mut blocks = 0;
    for &id in &engine.running {
        let request = engine.requests.get(id);
        let wanted = engine.cache.blocks_of(request.computed + tokens);
        blocks += wanted.saturating_sub(request.held.blocks());
    }
    blocks <= engine.cache.free_blocks()
}

/// The request that has had least goes back, the longest prompt of those: little is lost, and much is free.
fn retract(engine: &mut Engine, sink: &mut impl Sink) {
    let requests = &engine.requests;
    let least = engine.running.iter().enumerate().min_by_key(|(_, id)| {
        let request = requests.look(**id);
        (
            request.generated,
            std::cmp::Reverse(request.spec.prompt_tokens),
        )
    });
    let Some((at, _)) = least else { return };
    let id = engine.running.remove(at);
    engine.preempt(id, sink);
    engine.waiting.push_back(id);
}

/// What the requests have had, and some steps more, against all that they may have.
fn raise(engine: &mut Engine) {
    let requests = &mut engine.requests;
    let (mut had, mut all) = (0.0, 0.0);
    for id in &engine.running {
        let request = requests.get(*id);
        had += f64::from(request.generated) + f64::from(RETRACT_STEPS);
        all += f64::from(request.spec.output_tokens);
    }
    if all > 0.0 {
        engine.new_token_ratio = (had / all).min(1.0);
    }
}
