//! What to change, with numbers: bottlenecks and settings in force → concrete changes, each with a predicted effect.
//!
//! ```text
//! settings in force ┐
//! findings ─────────┼→ levers: one family a file → families of proposals ┐
//! request's limits ─┘                                                    ├→ search → recommendation
//! measurement → twin (the model fitted to this instance) → prediction ───┘            ↓
//!                                  ledger: predicted beside actual ← measurements after the change
//! ```
//!
//! A lever proposes and knows no model; the twin predicts and knows no lever; the search chooses. What the fitted model
//! cannot know is not predicted, and says why.

mod arguments;
mod change;
mod combine;
pub mod constraints;
mod custom;
mod declared;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod example;
mod expectation;
mod improvement;
mod in_force;
mod ledger;
mod lever;
mod predict;
mod prediction;
mod promises;
mod proposal;
mod recommend;
mod recommendation;
mod score;
mod search;
mod situation;
#[cfg(test)]
mod strategies;
mod trade_off;
mod twin;
mod who_says;
mod words;

pub use arguments::{
    ArgumentChange, ArgumentPart, ChangedArguments, LaunchArguments, ShellError, quote, split_line,
};
pub use change::KnobChange;
pub use constraints::{Companion, Constrained, ConstraintError};
pub use custom::{
    ChangeValue, Computed, CustomOptimizer, CustomProposal, ExpressionError, MAX_OPTIMIZERS,
    MAX_SOURCE_BYTES, OptimizerEntry, OptimizerError, custom_proposals,
};
pub use declared::DeclaredSettings;
pub use in_force::{InForce, SettingInForce, SettingSource, SettingValue};
pub use ledger::{
    ActualQuantity, Baseline, Coverage, Ended, KEPT_SECONDS, LedgerEntry, LedgerState, LeverRecord,
    MAX_ENTRIES, MAX_OPEN_OF_INSTANCE, Made, OPEN_SECONDS, Origin, TrackRecord, expired, measured,
    next, superseded,
};
pub use lever::{families, lever_names, levers, verdict_without_changes};
pub use predict::predict;
pub use prediction::{
    Effect, PredictedQuantity, Prediction, PredictionBasis, QuantityPrediction, Unpredicted,
};
pub use promises::unsaid;
pub use proposal::{Expectation, Family, ModelChange, Proposal};
pub use recommend::recommend;
pub use recommendation::{Advice, LeftOut, Optimization, Priority, Recommendation};
pub use score::Service;
pub use situation::{Limits, Situation};
pub(crate) use trade_off::shown;
