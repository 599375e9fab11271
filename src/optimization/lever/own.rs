//! What levers have and optimizers of the operator's own need: knobs by version, limits, the model's terms.

use crate::analysis::{Finding, Treatment};
use crate::optimization::{Expectation, KnobChange, ModelChange, Proposal, Situation, expectation};

use super::draft::{change, undo_of};
use super::knob::has_knob;
use super::limits::refusal;

/// The text of a change that somebody else asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::optimization) struct Asked<'t> {
    pub(in crate::optimization) name: &'t str,
    pub(in crate::optimization) kind: Treatment,
    pub(in crate::optimization) title: &'t str,
    pub(in crate::optimization) reason: &'t str,
    pub(in crate::optimization) risks: &'t [String],
}

/// A change of a setting by its name; none where that is in force already.
///
/// # Errors
/// This engine, or this version of it, has no such setting.
pub(in crate::optimization) fn knob_to(
    situation: &Situation<'_>,
    name: &str,
    to: &str,
) -> Result<Option<KnobChange>, String> {
    let flag = has_knob(situation, name)?;
    let from = situation.in_force.value(&[name]).map(str::to_owned);
    let same = from.as_deref().is_some_and(|from| {
        let numbers = from.parse::<f64>().ok().zip(to.parse::<f64>().ok());
        from == to || numbers.is_some_and(|(from, to)| from == to)
    });
    Ok((!same).then(|| KnobChange {
        name: name.to_owned(),
        flag,
        from,
        to: Some(to.to_owned()),
    }))
}

/// The proposal, within the request's limits and the rules of safety.
///
/// # Errors
/// What forbids it.
pub(in crate::optimization) fn asked(
    situation: &Situation<'_>,
    asked: &Asked<'_>,
    found: &[&Finding],
    changes: Vec<KnobChange>,
) -> Result<Proposal, String> {
    let expectation = expectation::of(situation.in_force, &changes);
    if let Some(full) = situation
        .kv_full()
        .filter(|_| grows(&changes, &expectation))
    {
        return Err(format!("{full}: a bigger batch would only be preempted"));
    }
    let knobs = || {
        let changes = changes.iter();
        changes.filter_map(|change| situation.profile.knob(&change.name))
    };
    let other_answers = knobs().any(|knob| knob.changes_answers);
    let is_live = !changes.is_empty() && knobs().filter(|knob| knob.live).count() == changes.len();
    let mut one = change(asked.kind, found, changes);
    asked.title.clone_into(&mut one.title);
    asked.reason.clone_into(&mut one.reason);
    one.risks = asked.risks.to_vec();
    one.expectation = expectation;
    if is_live {
        one.needs_restart = false;
        one.prerequisites.clear();
        one.undo = format!("{}.", undo_of(&one.changes));
    }
    if other_answers {
        one = one.answers_may_change("the engine computes them in another way.");
    }
    let one = one.watch("What it was made for, and TTFT and ITL p99 beside it.");
    match refusal(situation.limits, asked.name, &one) {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(one),
    }
}

/// Whether more requests or tokens are taken at once than now.
fn grows(changes: &[KnobChange], expectation: &Expectation) -> bool {
    let batch = |one: &ModelChange| {
        matches!(
            one,
            ModelChange::MaxNumSeqs(_) | ModelChange::TokenBudget(_)
        )
    };
    let names = |change: &&KnobChange| match expectation {
        Expectation::Modelled(_) => true,
        // what the model cannot say of one may still be a bigger batch by another
        Expectation::NotPredictable(_) | Expectation::Assumed { .. } => {
            change.name.starts_with("max_")
        }
    };
    let larger = changes.iter().filter(names).any(|change| {
        let number =
            |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<f64>().ok());
        match (number(&change.from), number(&change.to)) {
            (Some(from), Some(to)) => to > from,
            // not known to be fewer
            (None, Some(_)) => true,
            _ => false,
        }
    });
    larger
        && match expectation {
            Expectation::Modelled(all) => all.iter().any(batch),
            Expectation::NotPredictable(_) | Expectation::Assumed { .. } => true,
        }
}
