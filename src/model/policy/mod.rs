//! What runs in the next step, as each engine decides it.

mod sglang;
mod tgi;
mod vllm;

use super::engine::Engine;
use super::event::Sink;
use super::settings::{Policy, Settings};

/// Plans the next step.
pub(super) fn schedule(engine: &mut Engine, sink: &mut impl Sink) {
    match engine.settings.policy {
        Policy::Vllm => vllm::schedule(engine, sink),
        Policy::Sglang => sglang::schedule(engine, sink),
        Policy::Tgi => tgi::schedule(engine, sink),
    }
}

/// SGLang's estimate at the start; elsewhere nothing is estimated.
pub(super) fn initial_new_token_ratio(settings: &Settings) -> f64 {
    match settings.policy {
        Policy::Sglang => sglang::initial_new_token_ratio(settings),
        _ => 0.0,
    }
}

/// Tokens that running requests hold, or have set aside where the engine does that.
pub(super) fn reserved_tokens(engine: &Engine) -> u64 {
    let tokens = engine.running.iter().map(|id| {
        let request = engine.requests.look(*id);
        u64::from(match engine.settings.policy {
            Policy::Tgi => request.reserved_tokens,
            _ => request.tokens(),
        })
    });
    tokens.sum()
}
