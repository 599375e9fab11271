//! What a view cannot tell for certain, and what it tells by what is missing.

use super::histogram::Bounded;
use super::view::{Basis, View};
use crate::engine::Quantity;

impl View {
    /// Each preemption made the engine count the prompt and its first token again.
    pub(super) fn doubt_recounted(&mut self) {
        let preempted = self
            .counters
            .get(&Quantity::Preemptions)
            .is_some_and(|counter| {
                // without a window it is the whole life that counts
                counter.increase.map_or(counter.total, |rise| rise.amount) > 0.0
            });
        if !preempted {
            return;
        }
        if let Some(prompts) = self.counters.get_mut(&Quantity::PromptTokens) {
            prompts.basis = Basis::Approximate;
        }
        if let Some(first_tokens) = self.distributions.get_mut(&Quantity::TimeToFirstToken) {
            first_tokens.basis = Basis::Approximate;
        }
    }
}

/// Requests that got a first token and were never finished, over the window.
///
/// What runs at an end of the window counts there too: exactly known while nothing runs at either end, else at most
/// this. vLLM V0 counts a first token again after each preemption, so with preemptions nothing is told.
pub(super) fn disconnected(view: &View) -> Option<Bounded> {
    let preempted = view.counters.get(&Quantity::Preemptions)?.increase?;
    if preempted.amount > 0.0 {
        return None;
    }
    let first_tokens = view.distributions.get(&Quantity::TimeToFirstToken)?.count;
    let finished = view.distributions.get(&Quantity::EndToEndLatency)?.count;
    let running = &view.gauges.get(&Quantity::RequestsRunning)?.values;
    let (_, running_before) = running.first()?;
    let (_, running_after) = running.last()?;
    let missing = first_tokens - finished;
    Some(if *running_before == 0.0 && *running_after == 0.0 {
        Bounded::Value(missing)
    } else {
        Bounded::AtMost(missing + running_before)
    })
}
