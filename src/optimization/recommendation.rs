//! What is recommended.

use serde::{Deserialize, Serialize};

use crate::analysis::{Cause, Treatment};

use super::change::KnobChange;
use super::prediction::Effect;

/// What to do about an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// In short.
    pub advice: Advice,
    /// The same in one line.
    pub headline: String,
    /// Changes, the best first. Empty unless the advice is to change something.
    pub optimizations: Vec<Optimization>,
    /// What was considered and left out.
    pub left_out: Vec<LeftOut>,
    /// What a reader must know, a sentence each: keys that were not understood, settings that nobody tells.
    pub notes: Vec<String>,
}

/// What to do, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Change settings.
    Change,
    /// Nothing: it serves as it should.
    NothingToDo,
    /// No setting will do: more replicas, or other hardware.
    AddCapacity,
    /// Something is wrong that no setting mends: a stall, errors, a slow replica.
    Repair,
    /// Nothing can be told yet.
    CannotTell,
}

/// Changes that belong together, with what they are expected to do.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Optimization {
    /// The same for the same lever and changes: `sequence_cap-1f3a9c02`.
    pub id: String,
    /// The lever, or the name of a custom optimizer.
    pub lever: String,
    /// The kind of change; none for one that the operator defined without a kind.
    pub kind: Option<Treatment>,
    /// How much it matters.
    pub priority: Priority,
    /// In a few words, with the numbers.
    pub title: String,
    /// Why, from the evidence.
    pub reason: String,
    /// Findings that it treats.
    pub treats: Vec<Cause>,
    /// Settings that change.
    pub changes: Vec<KnobChange>,
    /// Replicas before and after, where their number changes.
    pub replicas: Option<(u32, u32)>,
    /// What is predicted.
    pub effect: Effect,
    /// What is given for what is gained, a sentence; none where nothing gets worse.
    pub trade_off: Option<String>,
    /// What may go wrong.
    pub risks: Vec<String>,
    /// What to watch after the change.
    pub watch: Vec<String>,
    /// How to undo it.
    pub undo: String,
    /// What must hold before.
    pub prerequisites: Vec<String>,
    /// Answers may become others.
    pub changes_answers: bool,
    /// The engine has to be restarted.
    pub needs_restart: bool,
}

/// How much an optimization matters: by the severity of what it treats, and by what it is predicted to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Priority {
    /// Worth it when there is nothing else.
    Low,
    /// Worth it.
    Medium,
    /// Users feel it.
    High,
    /// Users are not served without it.
    Critical,
}

impl Priority {
    /// The word on the wire, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

/// Something that was considered, and is not recommended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The lever, or the name of a custom optimizer.
    pub lever: String,
    /// What it would have been.
    pub title: String,
    /// Why not, a sentence.
    pub reason: String,
}

impl Advice {
    /// The word on the wire, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "CHANGE",
            Self::NothingToDo => "NOTHING_TO_DO",
            Self::AddCapacity => "ADD_CAPACITY",
            Self::Repair => "REPAIR",
            Self::CannotTell => "CANNOT_TELL",
        }
    }
}
