//! What holds an engine back, and why: measurement → findings, root cause first.
//!
//! ```text
//! measurement → facts (each replica's) → checks: one family of causes a file → findings → ranking → diagnosis
//!             → SLOs: compliance and margin;  minutes of good and bad → burn rates
//! diagnosis after diagnosis → watch: opened, changed, resolved
//! ```
//!
//! A check answers with a finding, with nothing, or with what it would need to know.

mod cause;
mod check;
mod diagnosis;
mod facts;
mod finding;
mod queue;
mod ranking;
mod thresholds;
mod watch;

pub use diagnosis::{Diagnosis, Verdict, diagnose};
pub use finding::{
    BottleneckType, Cause, Comparison, Cost, CostKind, Evidence, Finding, Severity, Treatment,
    Unclear,
};
pub use thresholds::{Targets, ThresholdError, ThresholdInfo, Thresholds};
pub use watch::{Change, ChangeKind, Open, Tracker};
