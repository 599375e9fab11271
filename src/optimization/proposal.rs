//! What a lever proposes, before anything is predicted.

use crate::analysis::{Cause, Treatment};

use super::change::KnobChange;

/// Alternatives of one lever for one reason: the search takes at most one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The lever: `sequence_cap`, `kv_capacity`, …
    pub lever: &'static str,
    /// In the order of their values. Never empty.
    pub alternatives: Vec<Proposal>,
    /// Which of them to take where nothing can be predicted: what the engine's own guide would say.
    pub without_prediction: usize,
}

/// One set of changes for one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The kind of change, as users know it.
    pub kind: Treatment,
    /// In a few words, with the numbers: `Raise --max-num-seqs from 4 to 32`.
    pub title: String,
    /// Why, in a sentence or two, from the evidence.
    pub reason: String,
    /// Findings that it treats.
    pub treats: Vec<Cause>,
    /// Settings that change, those that others are counted in first. Empty where no setting does.
    pub changes: Vec<KnobChange>,
    /// Replicas before and after, where their number changes.
    pub replicas: Option<(u32, u32)>,
    /// What it means to the model.
    pub expectation: Expectation,
    /// What may go wrong, a sentence each.
    pub risks: Vec<String>,
    /// What to watch after the change, a sentence each.
    pub watch: Vec<String>,
    /// How to undo it, a sentence.
    pub undo: String,
    /// What must hold before, a sentence each.
    pub prerequisites: Vec<String>,
    /// Answers may become others.
    pub changes_answers: bool,
    /// The engine has to be restarted.
    pub needs_restart: bool,
}

/// What a change means to the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// The model has all of it.
    Modelled(Vec<ModelChange>),
    /// The model has it, but nobody tells what it changes from: enough to rank it by, and no ground for numbers.
    Assumed {
        /// What it may mean.
        changes: Vec<ModelChange>,
        /// What is not known, as a sentence.
        unknown: String,
    },
    /// The fitted model cannot know it: why, as a sentence.
    NotPredictable(String),
}

impl Expectation {
    /// What the change means to the model, as far as it has it.
    pub fn model_changes(&self) -> Option<&[ModelChange]> {
        match self {
            Self::Modelled(changes) | Self::Assumed { changes, .. } => Some(changes),
            Self::NotPredictable(_) => None,
        }
    }

    /// Two at once; none where the model does not have one of them.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let changes = [self.model_changes()?, other.model_changes()?].concat();
        let unknown: Vec<&str> = [self, other]
            .into_iter()
            .filter_map(|one| match one {
                Self::Assumed { unknown, .. } => Some(unknown.as_str()),
                Self::Modelled(_) | Self::NotPredictable(_) => None,
            })
            .collect();
        Some(match unknown.is_empty() {
            true => Self::Modelled(changes),
            false => Self::Assumed {
                changes,
                unknown: unknown.join(" "),
            },
        })
    }
}

/// A change in the model's terms; of each replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModelChange {
    /// Requests that run at once.
    MaxNumSeqs(u32),
    /// Tokens of a step, or of a prefill.
    TokenBudget(u32),
    /// The KV cache becomes this many times as large, somewhere between.
    KvCapacity {
        /// At least.
        low_ratio: f64,
        /// At most.
        high_ratio: f64,
    },
    /// Tokens of one prompt that a step computes; none for no bound.
    LongPrefillThreshold(Option<u32>),
    /// Requests that may wait (TGI: be inside); none for no bound.
    QueueBound(Option<u32>),
    /// Tokens guessed ahead; 0 for none.
    SpeculatedTokens(u32),
    /// SGLang's share of output set aside.
    Conservativeness(f64),
    /// Replicas, which share the load evenly.
    Replicas(u32),
}
