//! Optimizers that the operator defined: a condition over measurement and settings, the change, the text.

mod allowed;
mod entry;
mod expression;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod expression_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod variables;

use cel::Value;

use crate::analysis::Treatment;

use super::lever::{Asked, asked, knob_to, no_tuning};
use super::proposal::Proposal;
use super::recommendation::{LeftOut, Priority};
use super::situation::Situation;

pub use entry::{
    ChangeValue, Computed, CustomOptimizer, MAX_OPTIMIZERS, OptimizerEntry, OptimizerError,
};
pub use expression::{ExpressionError, MAX_SOURCE_BYTES};

use entry::To;
use expression::{Expression, NoValue};
use variables::Variables;

/// What an optimizer of the operator's own proposes.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomProposal {
    /// Name of the optimizer.
    pub optimizer: String,
    /// The kind of change; none where the operator gave none. The proposal's own says nothing then.
    pub kind: Option<Treatment>,
    /// How much it matters, as the operator says.
    pub priority: Priority,
    /// The change.
    pub proposal: Proposal,
}

/// What the operator's optimizers propose, within the request's limits; and which could not be told. One whose condition
/// is false says nothing.
pub fn custom_proposals(
    optimizers: &[CustomOptimizer],
    situation: &Situation<'_>,
) -> (Vec<CustomProposal>, Vec<LeftOut>) {
    let engine = &*situation.profile.name;
    let meant = |one: &&CustomOptimizer| {
        one.engines.is_empty() || one.engines.iter().any(|name| name == engine)
    };
    let mut meant = optimizers.iter().filter(meant).peekable();
    let (mut proposals, mut left_out) = (Vec::new(), Vec::new());
    if meant.peek().is_none() {
        return (proposals, left_out);
    }
    let variables = Variables::of(situation);
    let unfit = no_tuning(situation);
    for optimizer in meant {
        let answer = match holds(&optimizer.when, &variables) {
            Ok(false) => continue,
            Ok(true) if let Some(reason) = &unfit => Err(reason.clone()),
            Ok(true) => propose(optimizer, situation, &variables),
            Err(reason) => Err(reason),
        };
        match answer {
            Ok(proposal) => proposals.push(CustomProposal {
                optimizer: optimizer.name.clone(),
                kind: optimizer.kind,
                priority: optimizer.priority,
                proposal,
            }),
            Err(reason) => left_out.push(LeftOut {
                lever: optimizer.name.clone(),
                title: optimizer.title.clone(),
                reason,
            }),
        }
    }
    (proposals, left_out)
}

fn holds(when: &Expression, variables: &Variables) -> Result<bool, String> {
    match when.value(variables) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(_) => Err("its condition is neither true nor false".to_owned()),
        Err(why) => Err(said("its condition", why)),
    }
}

fn said(what: &str, why: NoValue) -> String {
    match why {
        NoValue::Missing(key) => {
            format!("{what} asks for {key}, which is not known here; has(…) tells whether it is")
        }
        NoValue::Failed(reason) => format!("{what} cannot be computed: {reason}"),
    }
}

fn propose(
    optimizer: &CustomOptimizer,
    situation: &Situation<'_>,
    variables: &Variables,
) -> Result<Proposal, String> {
    let mut changes = Vec::new();
    for (setting, to) in &optimizer.changes {
        let to = match to {
            To::Literal(text) => text.clone(),
            To::Computed(expression) => {
                let value = expression
                    .value(variables)
                    .map_err(|why| said(setting, why))?;
                text_of(&value)
                    .ok_or_else(|| format!("{setting} gives no number, text or switch"))?
            }
        };
        changes.extend(knob_to(situation, setting, &to)?);
    }
    if changes.is_empty() {
        return Err("what it sets is in force already".to_owned());
    }
    let text = Asked {
        name: &optimizer.name,
        kind: optimizer.kind.unwrap_or(Treatment::Scheduling),
        title: &optimizer.title,
        reason: &optimizer.reason,
        risks: &optimizer.risks,
    };
    asked(
        situation,
        &text,
        &situation.treated(&optimizer.treats),
        changes,
    )
}

/// Whole numbers without a point, others with at most six digits after it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Bool(on) => Some(on.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Float(number) if number.is_finite() && number.abs() < 1e18 => {
            let rounded = (number * 1e6).round() / 1e6;
            Some(rounded.to_string())
        }
        Value::String(text) if !text.is_empty() && text.len() <= 256 => Some(text.to_string()),
        _ => None,
    }
}
