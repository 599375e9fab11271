//! What holds an engine back, and why: measurement → findings, root cause first.
//!
//! ```text
//! measurement → facts (each replica's) → checks: one family of causes a file → findings → ranking → diagnosis
//!             → SLOs: compliance and margin;  minutes of good and bad → burn rates
//! diagnosis after diagnosis → watch: opened, changed, resolved
//! ```
//!
//! A check answers with a finding, with nothing, or with what it would need to know.

mod burn;
mod cause;
mod check;
mod compliance;
mod diagnosis;
#[cfg(test)]
mod example;
mod facts;
mod finding;
mod health;
mod implied;
mod minutes;
mod queue;
mod ranking;
mod slo;
mod slo_text;
mod thresholds;
mod watch;

pub use burn::{Burn, BurnPair, ErrorBudget, GoodBad, MINUTES_BUDGET, error_budgets};
pub use compliance::{Compliance, ComplianceStatus, Measured, Missing, evaluate};
pub use diagnosis::{Diagnosis, Verdict, diagnose};
pub use finding::{
    BottleneckType, Cause, Comparison, Cost, CostKind, Evidence, Finding, Severity, Treatment,
    Unclear,
};
pub use health::{Deduction, DeductionSource, HealthScore, health_score};
pub use implied::{ImpliedKind, ImpliedSetting, implied_settings};
pub use minutes::{MINUTES_KEPT, Minutes, Usage};
pub use slo::{Aggregation, MAX_SLOS, Side, Slo};
pub use slo_text::{SloText, SloTextError};
pub use thresholds::{Targets, ThresholdError, ThresholdInfo, Thresholds};
pub use watch::{Change, ChangeKind, Open, Tracker};
