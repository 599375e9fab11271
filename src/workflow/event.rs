//! Events: what happened to a workflow, as the log keeps it for ever.
//!
//! An event is JSON `{"v": 1, "type": …, …}`. What was written once must be readable by every later version: fields are
//! only added, with a default for logs from before.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Failure;
use super::gate::Approval;
use super::plan::{Analysis, Baseline, MeasuredEffects, Plan};
use super::quality::QualityReport;
use super::spec::WorkflowSpec;
use super::state::RollbackCause;
use super::verdict::{Observation, Verdict};
use super::words::PauseReason;

/// Version of the form of events.
pub const EVENT_VERSION: u64 = 1;

/// An event in its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    /// Of which workflow.
    pub workflow_id: String,
    /// Of which instance.
    pub instance_id: String,
    /// Place in the log of all workflows: without gaps, in the order of the commits.
    pub revision: u64,
    /// Place among those of its workflow, from 1.
    pub sequence: u64,
    /// When, unix time in microseconds.
    pub at_us: i64,
    /// Who caused it: a principal, or `perfagent`.
    pub actor: String,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// It began.
    Started {
        /// What it is to do.
        spec: Box<WorkflowSpec>,
    },
    /// It is known what holds the instance back.
    Analysed {
        /// What.
        analysis: Box<Analysis>,
    },
    /// There is a plan.
    Planned {
        /// Which.
        plan: Box<Plan>,
    },
    /// There is nothing to change.
    NothingToDo {
        /// Why, in one line.
        headline: String,
    },
    /// Somebody agreed, and more have to.
    ApprovalGiven {
        /// Who.
        approval: Approval,
    },
    /// As many agreed as have to.
    Approved {
        /// Who did last; none where nobody has to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<Approval>,
    },
    /// The plan was refused.
    Rejected {
        /// Nobody refused it, but nobody approved it in time.
        #[serde(default)]
        timed_out: bool,
        /// In what words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// It stands still.
    Paused {
        /// Why.
        reason: PauseReason,
        /// The same in a sentence.
        message: String,
        /// Of drift, which target.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<u32>,
        /// Of drift, SHA-256 of the settings that were found, in hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
    /// It goes on.
    Resumed {
        /// In what words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// It was ended, and nothing is restored.
    Cancelled {
        /// Settings that could not be restored stay as they are.
        #[serde(default)]
        abandons: bool,
        /// In what words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// The settings are others than the plan was made for.
    PlanOutdated {
        /// How, a sentence.
        message: String,
    },
    /// A target finishes its requests before it is written.
    DrainStarted {
        /// Which, by its place in the plan.
        target: u32,
        /// It is about to take no new requests.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leaves_traffic: bool,
    },
    /// The settings of a target are about to be written.
    WriteIntended {
        /// Which, by its place in the plan.
        target: u32,
        /// Id of the operation.
        operation_id: String,
        /// Epoch of the lease.
        epoch: u64,
        /// How things are before the first write, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        baseline: Option<Box<Baseline>>,
    },
    /// The settings of a target are as planned.
    Written {
        /// Which.
        target: u32,
        /// Revision of its settings.
        revision: String,
    },
    /// A target is ready with its settings.
    Ready {
        /// Which.
        target: u32,
    },
    /// The targets that have the change were held against those that do not.
    Observed {
        /// After which step, counted from 0.
        step: u32,
        /// What was observed in the last window.
        observation: Box<Observation>,
        /// What all windows of this step say together, where it is time for it. FAIL is the beginning of the way back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Box<Verdict>>,
    },
    /// The same prompts were asked with the change and without. Answers that do not agree are the beginning of the way back.
    QualityChecked {
        /// What came of it.
        report: Box<QualityReport>,
    },
    /// The change stands, and what came of it is measured, or could not be.
    Completed {
        /// What came of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effects: Option<Box<MeasuredEffects>>,
    },
    /// The way back begins.
    RollbackStarted {
        /// How many there have been, with this one.
        attempt: u32,
        /// Why.
        cause: RollbackCause,
        /// Somebody who knows that others changed settings wants them overwritten.
        #[serde(default)]
        overwrites: bool,
        /// In a sentence.
        message: String,
        /// What went wrong, where that is why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// The settings of a target are about to be restored.
    RestoreIntended {
        /// Which.
        target: u32,
        /// Id of the operation.
        operation_id: String,
        /// Epoch of the lease.
        epoch: u64,
    },
    /// The settings of a target are those from before.
    Restored {
        /// Which.
        target: u32,
        /// Revision of its settings.
        revision: String,
    },
    /// Every target that was touched is as it was before.
    RolledBack,
    /// The way back could not be gone to its end.
    RollbackFailed {
        /// Why.
        failure: Failure,
    },
    /// It could not go on, and nothing was changed.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What the log calls an event, without what it carries.
pub type EventKind = &'static str;

/// An event that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A later version wrote it.
    #[error(
        "event of form {found}; this version reads up to {EVENT_VERSION}: run a newer perfagent"
    )]
    Newer {
        /// Its form.
        found: u64,
    },
    /// It is no event.
    #[error("event that cannot be read: {0}; if a newer perfagent wrote it, run that one")]
    Unreadable(String),
    /// It cannot follow what was before.
    #[error("event {event} cannot follow in phase {phase}")]
    OutOfPlace {
        /// What it is.
        event: EventKind,
        /// Where it came.
        phase: String,
    },
}

impl Event {
    /// What the log calls it.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Started { .. } => "started",
            Self::Analysed { .. } => "analysed",
            Self::Planned { .. } => "planned",
            Self::NothingToDo { .. } => "nothing_to_do",
            Self::ApprovalGiven { .. } => "approval_given",
            Self::Approved { .. } => "approved",
            Self::Rejected { .. } => "rejected",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Cancelled { .. } => "cancelled",
            Self::PlanOutdated { .. } => "plan_outdated",
            Self::DrainStarted { .. } => "drain_started",
            Self::WriteIntended { .. } => "write_intended",
            Self::Written { .. } => "written",
            Self::Ready { .. } => "ready",
            Self::Observed { .. } => "observed",
            Self::QualityChecked { .. } => "quality_checked",
            Self::Completed { .. } => "completed",
            Self::RollbackStarted { .. } => "rollback_started",
            Self::RestoreIntended { .. } => "restore_intended",
            Self::Restored { .. } => "restored",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed { .. } => "rollback_failed",
            Self::Failed { .. } => "failed",
        }
    }
}

/// An event as the log keeps it. What is given can be read again, and is the same then.
///
/// # Errors
/// Numbers that JSON has no form for.
pub fn encode_event(event: &Event) -> Result<String, EventError> {
    let unreadable = |error: serde_json::Error| EventError::Unreadable(error.to_string());
    let mut value = serde_json::to_value(event).map_err(unreadable)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("v".to_owned(), Value::from(EVENT_VERSION));
    }
    let text = serde_json::to_string(&value).map_err(unreadable)?;
    // JSON has no infinity and no NaN: they become nulls, which nobody could read for ever after
    match decode_event(&text) {
        Ok(read) if read == *event => Ok(text),
        Ok(_) => Err(EventError::Unreadable(format!(
            "{} would not come back as it is",
            event.kind()
        ))),
        Err(error) => Err(error),
    }
}

/// An event from the log.
///
/// # Errors
/// One of a later form or of a type that this version does not know.
pub fn decode_event(text: &str) -> Result<Event, EventError> {
    let unreadable = |error: serde_json::Error| EventError::Unreadable(error.to_string());
    let value: Value = serde_json::from_str(text).map_err(unreadable)?;
    match value.get("v").and_then(Value::as_u64) {
        Some(found) if found > EVENT_VERSION => return Err(EventError::Newer { found }),
        Some(_) => {}
        None => return Err(EventError::Unreadable("it has no `v`".to_owned())),
    }
    serde_json::from_value(value).map_err(unreadable)
}
