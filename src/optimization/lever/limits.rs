//! What must not be done: by the request, or because nothing can be told yet.

use crate::measure::{NoteCode, WindowKind};
use crate::optimization::{Family, KnobChange, Limits, Proposal, Situation};

use super::draft::Declined;

/// Why no setting should be changed on what was measured: it says nothing of how the engine serves.
pub(in crate::optimization) fn no_tuning(situation: &Situation<'_>) -> Option<String> {
    let measurement = situation.measurement?;
    let noted = |code| measurement.notes.iter().any(|note| note.code == code);
    if measurement.window.kind == WindowKind::SinceStart {
        return Some(
            "totals since the engine's start say nothing of now; measure over a window".to_owned(),
        );
    }
    if noted(NoteCode::Restarted) {
        return Some(
            "the engine restarted in the window: its caches are cold; measure again when it has served for some minutes"
                .to_owned(),
        );
    }
    if noted(NoteCode::Idle) {
        return Some("the engine is idle: measure again under load".to_owned());
    }
    let first_tokens = || {
        let begun = measurement
            .figures
            .distribution(crate::engine::Quantity::TimeToFirstToken)?;
        Some(begun.count)
    };
    let finished = measurement.figures.value("requests_finished_increase");
    let observed = [finished, first_tokens()]
        .into_iter()
        .flatten()
        .reduce(f64::max)?;
    (observed < situation.thresholds.min_requests).then(|| {
        format!(
            "only {observed:.0} requests were served in the window: too few to tune by; measure under load, or for longer"
        )
    })
}

/// What the request's limits leave of a family.
///
/// # Errors
/// Nothing.
pub(super) fn within(limits: &Limits, family: Family) -> Result<Family, Declined> {
    let guide = family.alternatives.get(family.without_prediction).cloned();
    let mut refused = None;
    let mut alternatives = Vec::new();
    for one in family.alternatives {
        match refusal(limits, family.lever, &one) {
            None => alternatives.push(one),
            Some(reason) => {
                refused.get_or_insert((one.title.clone(), reason));
            }
        }
    }
    if let (true, Some((title, reason))) = (alternatives.is_empty(), refused) {
        return Err(Declined::new(title, reason));
    }
    let kept = alternatives
        .iter()
        .position(|one| Some(one) == guide.as_ref());
    Ok(Family {
        lever: family.lever,
        alternatives,
        without_prediction: kept.unwrap_or(0),
    })
}

/// Why the request does not allow a change.
pub(super) fn refusal(limits: &Limits, lever: &str, one: &Proposal) -> Option<&'static str> {
    if limits.no_restart && one.needs_restart {
        return Some("it needs a restart, and the request allows none");
    }
    if limits.no_answer_change && one.changes_answers {
        return Some("answers may become others, and the request does not allow it");
    }
    let spreads = one.changes.iter().any(KnobChange::spreads);
    let more_or_fewer = one.replicas.is_some() || spreads || lever == super::parallelism::NAME;
    if limits.fixed_gpu_count && more_or_fewer {
        return Some("it takes another number of GPUs, and the request fixes it");
    }
    None
}
