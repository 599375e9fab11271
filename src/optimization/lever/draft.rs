//! Proposals and refusals, piece by piece.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::{Expectation, Family, KnobChange, ModelChange, Proposal};

/// What a lever says of something that was found: alternatives, or why there are none.
pub(super) type Answer = Result<Family, Declined>;

/// Why a lever that treats what was found proposes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declined {
    /// What it would have been.
    pub(super) title: String,
    /// Why not, a sentence.
    pub(super) reason: String,
}

impl Declined {
    pub(super) fn new(title: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            reason: reason.into(),
        }
    }
}

/// A family.
///
/// # Errors
/// It has no alternatives.
pub(super) fn family(
    lever: &'static str,
    title: &str,
    alternatives: Vec<Proposal>,
    without_prediction: usize,
) -> Answer {
    let Some(last) = alternatives.len().checked_sub(1) else {
        return Err(Declined::new(title, "no other value makes sense here"));
    };
    Ok(Family {
        lever,
        alternatives,
        without_prediction: without_prediction.min(last),
    })
}

/// A change of settings, which needs a restart on every engine; for what was found.
pub(super) fn change(kind: Treatment, found: &[&Finding], changes: Vec<KnobChange>) -> Proposal {
    let title = changes.first().map(title_of).unwrap_or_default();
    let mut proposal = proposal(kind, found, title);
    proposal.undo = format!("{}, and restart.", undo_of(&changes));
    proposal.changes = changes;
    proposal.needs_restart = true;
    proposal.needs(
        "A restart: a replica serves nothing while it loads the model, and its caches start cold.",
    )
}

/// A proposal that is yet to be filled.
pub(super) fn proposal(kind: Treatment, found: &[&Finding], title: String) -> Proposal {
    Proposal {
        kind,
        title,
        reason: found.first().map(|one| reason_of(one)).unwrap_or_default(),
        treats: found.iter().map(|one| one.cause).collect(),
        changes: Vec::new(),
        replicas: None,
        expectation: Expectation::NotPredictable(String::new()),
        risks: Vec::new(),
        watch: Vec::new(),
        undo: String::new(),
        prerequisites: Vec::new(),
        changes_answers: false,
        needs_restart: false,
    }
}

/// The finding's sentence, or what its cause means where only that was given.
fn reason_of(finding: &Finding) -> String {
    let text = match finding.description.trim() {
        "" => finding.cause.description(),
        text => text,
    };
    let mut letters = text.chars();
    let first: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn title_of(change: &KnobChange) -> String {
    let KnobChange { flag, from, to, .. } = change;
    match (from.as_deref(), to.as_deref()) {
        (_, None) => format!("Take {flag} away"),
        (_, Some("true")) => format!("Switch {flag} on"),
        (_, Some("false")) => format!("Switch {flag} off"),
        (None, Some(to)) => format!("Set {flag} to {to}"),
        (Some(from), Some(to)) => {
            let numbers = from.parse::<f64>().ok().zip(to.parse::<f64>().ok());
            let verb = match numbers {
                Some((from, to)) if to > from => "Raise",
                Some(_) => "Lower",
                None => "Change",
            };
            format!("{verb} {flag} from {from} to {to}")
        }
    }
}

/// How changes are undone, a sentence without its end.
pub(super) fn undo_of(changes: &[KnobChange]) -> String {
    let each = changes.iter().map(|change| match &change.from {
        Some(from) => format!("set {} back to {from}", change.flag),
        None => format!("take {} away again", change.flag),
    });
    let all: Vec<String> = each.collect();
    let text = all.join(", ");
    let rest = text.get(1..).unwrap_or_default();
    let first = text.get(..1).unwrap_or_default().to_uppercase();
    format!("{first}{rest}")
}

impl Proposal {
    pub(super) fn modelled(mut self, changes: impl Into<Vec<ModelChange>>) -> Self {
        self.expectation = Expectation::Modelled(changes.into());
        self
    }

    /// What it may mean to the model, where nobody tells what it changes from.
    pub(super) fn assumed(
        mut self,
        changes: impl Into<Vec<ModelChange>>,
        unknown: impl Into<String>,
    ) -> Self {
        self.expectation = Expectation::Assumed {
            changes: changes.into(),
            unknown: unknown.into(),
        };
        self
    }

    pub(super) fn not_predictable(mut self, why: impl Into<String>) -> Self {
        self.expectation = Expectation::NotPredictable(why.into());
        self
    }

    pub(super) fn because(mut self, reason: &str) -> Self {
        self.reason = [self.reason.as_str(), reason].join(" ").trim().to_owned();
        self
    }

    pub(super) fn risk(mut self, text: impl Into<String>) -> Self {
        self.risks.push(text.into());
        self
    }

    pub(super) fn watch(mut self, text: impl Into<String>) -> Self {
        self.watch.push(text.into());
        self
    }

    pub(super) fn needs(mut self, text: impl Into<String>) -> Self {
        self.prerequisites.push(text.into());
        self
    }

    /// Says that answers may become others, and what is to be done before.
    pub(super) fn answers_may_change(mut self, why: &str) -> Self {
        self.changes_answers = true;
        self.risk(format!("Answers may become others, and worse: {why}")).needs(
            "A quality check of your own on the new setting: the same prompts, answers held against those of now.",
        )
    }
}

/// Whether one of these causes is among those found.
pub(super) fn has(found: &[&Finding], cause: Cause) -> bool {
    found.iter().any(|one| one.cause == cause)
}
