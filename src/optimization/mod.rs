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
pub mod constraints;
mod declared;
mod in_force;
mod prediction;
mod proposal;
mod recommendation;
mod situation;
#[cfg(test)]
mod strategies;
mod who_says;

pub use arguments::{
    ArgumentChange, ArgumentPart, ChangedArguments, LaunchArguments, ShellError, quote, split_line,
};
pub use change::KnobChange;
pub use constraints::{Companion, Constrained, ConstraintError};
pub use declared::DeclaredSettings;
pub use in_force::{InForce, SettingInForce, SettingSource, SettingValue};
pub use prediction::{
    Effect, PredictedQuantity, Prediction, PredictionBasis, QuantityPrediction, Unpredicted,
};
pub use proposal::{Expectation, Family, ModelChange, Proposal};
pub use recommendation::{Advice, LeftOut, Optimization, Priority, Recommendation};
pub use situation::{Limits, Situation};
