//! Workflows: from an analysis over an approval to an applied change, or back to exactly where it was. Pure.
//!
//! ```text
//! command ┐
//! state ──┴→ decide → event, or refusal ──→ evolve → state ──→ next_step → what its runner does ──→ command
//! ```
//!
//! The ordered log of events is the truth; [`Workflow`] is what the events of one workflow lead to. An effect on an engine
//! is committed as an intent before it is begun, and is a write of a desired state, so that one that is repeated after a
//! crash changes nothing.

mod canary;
mod command;
mod decide;
mod event;
mod evolve;
mod gate;
mod judge;
mod looks;
mod part;
mod plan;
mod quality;
mod report;
mod spec;
mod state;
mod step;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
pub(crate) mod tests;
mod verdict;
mod view;
mod words;

pub use canary::{Canary, NoCanary};
pub use command::{Command, Failure, Refusal, RefusalReason};
pub use decide::decide;
pub use event::{
    EVENT_VERSION, Event, EventError, EventKind, RecordedEvent, decode_event, encode_event,
};
pub use evolve::evolve;
pub use gate::{Approval, GateKind, GatePolicy, GateState, OnTimeout};
pub use judge::{Judgement, Seen, Windows, harm, judge};
pub use looks::{policy_of, verdict_policy};
pub use plan::{
    Analysis, Baseline, FindingSummary, MeasuredEffect, MeasuredEffects, MeasuredValue, Plan,
    PlanDraft, PlanTarget, Strategy,
};
pub use quality::{Answers, QualityPolicy, QualityReport, quality};
pub use spec::{Timeouts, WorkflowSpec};
pub use state::{
    Pause, Phase, Rollback, RollbackCause, StageRecord, StageStatus, TargetPhase, TargetState,
    Workflow,
};
pub use step::{Effect as StepEffect, Step, next_step};
pub use verdict::{
    Bounds, Evidence, JudgedQuantity, Mode, NotObserved, Observation, Pair, PolicyError,
    QuantityVerdict, Side, Traffic, Verdict, VerdictPolicy, VerdictWord, observe, verdict,
};
pub use view::{WaitingFor, progress, waiting_for};
pub use words::{Outcome, PauseReason, Stage, Status, Verb, WorkflowKind};

/// Id of the operation that writes the settings of a target: the same for each repeat of it.
pub fn operation_id(workflow_id: &str, number: u32) -> String {
    format!("{workflow_id}.{number}")
}
