//! SPECULATION_LOSS: guesses that are mostly wrong.

use crate::analysis::check::{Answer, by_count, found, number, percent};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, Severity, Treatment};
use crate::engine::Quantity as Q;

/// Draft rounds below which nothing is said.
const FEWEST_DRAFTS: f64 = 50.0;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some((ratio, rounds)) = acceptance(facts) else {
        return Vec::new();
    };
    let threshold = facts.thresholds.speculation_acceptance_ratio;
    if ratio >= threshold || rounds < FEWEST_DRAFTS {
        return Vec::new();
    }
    let running = facts
        .gauge(Q::RequestsRunning)
        .map_or(0.0, |gauge| gauge.mean);
    let length = facts
        .value("speculation_accepted_length_tokens")
        .or_else(|| Some(facts.gauge(Q::ReportedAcceptedLength)?.mean));
    if length.is_some_and(|length| length >= facts.thresholds.speculation_paying_length_tokens)
        && step_tokens(facts, running)
            .is_some_and(|tokens| tokens < facts.thresholds.speculation_free_tokens)
    {
        return Vec::new();
    }
    let gives = length.map_or_else(String::new, |length| {
        format!(" a round gives {length:.1} tokens,")
    });
    let description = format!(
        "{} of guessed tokens are accepted:{gives} and every guess is computed, at a batch of {}",
        percent(ratio),
        number(running),
    );
    let evidence = facts
        .evidence()
        .value("speculation_acceptance_ratio")
        .against(Comparison::Below, threshold, "speculation_acceptance_ratio")
        .gauge_mean(Q::ReportedAcceptanceRatio)
        .against(Comparison::Below, threshold, "speculation_acceptance_ratio")
        .value("speculation_accepted_length_tokens")
        .gauge_mean(Q::RequestsRunning)
        .mean(Q::InterTokenLatency)
        .done();
    let severity = if running >= 16.0 {
        Severity::Medium
    } else {
        Severity::Low
    };
    found(Cause::SpeculationLoss, description, evidence)
        .severe(severity)
        .sure(by_count(0.75, rounds / 10.0))
        .treat(
            "Guess fewer tokens, only at small batches, or not at all; or take a draft that knows this traffic.",
            &[Treatment::SpeculativeDecoding],
        )
        .answer()
}

/// Tokens that a step checks: of each request one, and its guesses.
fn step_tokens(facts: &Facts<'_>, running: f64) -> Option<f64> {
    let drafted = facts.increase(Q::SpeculationDraftTokens)?;
    let rounds = facts
        .increase(Q::SpeculationDrafts)
        .filter(|rounds| *rounds > 0.0)?;
    Some(running * (1.0 + drafted / rounds))
}

/// Share of guesses that are right, and how many rounds tell it.
fn acceptance(facts: &Facts<'_>) -> Option<(f64, f64)> {
    if let Some(ratio) = facts.value("speculation_acceptance_ratio") {
        let rounds = facts.increase(Q::SpeculationDrafts);
        return Some((
            ratio,
            rounds.or_else(|| facts.increase(Q::SpeculationDraftTokens))?,
        ));
    }
    let reported = facts.gauge(Q::ReportedAcceptanceRatio)?;
    let tokens = facts.increase(Q::GenerationTokens)?;
    // 0 is shown before the first round too
    (reported.max > 0.0).then_some((reported.mean, tokens / 2.0))
}
