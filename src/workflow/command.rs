//! What can be asked of a workflow, by callers and by its runner, and why it may be refused.

use super::plan::{Analysis, Baseline, MeasuredEffects, PlanDraft};
use super::quality::QualityReport;
use super::spec::WorkflowSpec;
use super::verdict::Observation;
use super::words::{Status, Verb};

/// What is asked of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// It begins. Of no workflow yet.
    Start {
        /// Its id.
        workflow_id: String,
        /// What it is to do.
        spec: Box<WorkflowSpec>,
    },
    /// A caller agrees to the plan of this etag.
    Approve {
        /// Etag of the plan that was read.
        etag: String,
        /// Their words.
        note: String,
    },
    /// A caller refuses the plan.
    Reject {
        /// Their words.
        note: String,
    },
    /// A caller lets it stand still.
    Pause {
        /// Their words.
        note: String,
    },
    /// A caller lets it go on.
    Resume {
        /// Their words.
        note: String,
    },
    /// A caller ends it.
    Cancel {
        /// They know that settings could not be restored, and take over.
        acknowledge: bool,
        /// Their words.
        note: String,
    },
    /// A caller wants the settings from before.
    Rollback {
        /// Their words.
        note: String,
    },
    /// The runner found out what holds the instance back.
    Analysed(Box<Analysis>),
    /// The runner has a plan.
    Planned(Box<PlanDraft>),
    /// The runner found nothing to change.
    NothingToDo {
        /// Why, in one line.
        headline: String,
    },
    /// The runner is about to write the settings of the next target, or to restore those of one.
    Intend {
        /// Epoch of its lease.
        epoch: u64,
        /// How things are before the first write; none where that is not known, and for all that follow.
        baseline: Option<Box<Baseline>>,
    },
    /// Settings changed since the plan was made; nothing of it is applied yet.
    PlanOutdated {
        /// What changed, a sentence.
        message: String,
    },
    /// The settings of the target that is written are what they should be.
    Written {
        /// Revision of the settings now, as the actuator gives it.
        revision: String,
    },
    /// The target that was written is ready.
    Ready,
    /// The next target is to finish its requests before it is written.
    Drain {
        /// It can be taken out of traffic, and is about to be.
        leaves_traffic: bool,
    },
    /// What was observed of the targets that have the change, beside those that do not.
    Observed(Box<Observation>),
    /// The same prompts were asked with the change and without.
    QualityChecked(Box<QualityReport>),
    /// What came of the change; none where it could not be measured in time.
    Measured(Option<Box<MeasuredEffects>>),
    /// Somebody else changed the settings of a target.
    Drifted {
        /// Which, by its place in the plan.
        target: Option<u32>,
        /// SHA-256 of the settings that were found, in hexadecimal.
        digest: String,
        /// Which, and how it differs; a sentence.
        message: String,
    },
    /// Every target is as it was before the workflow.
    AllRestored,
    /// The runner cannot go on.
    Fail(Failure),
    /// The time of the present phase is over.
    TimeOver {
        /// What stood in the way last, a sentence without its stop; none where nothing did.
        problem: Option<String>,
    },
}

/// Why a runner cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Failure {
    /// Word for programs: `ACTUATOR_FAILED`, `ACTUATOR_TIMED_OUT`, `NOT_MEASURED`, `HARMED`, `NOT_READY`, `TIME_OVER`,
    /// `INCONCLUSIVE`, `ANSWERS_DIFFER`, `DRIFT`, `INVALID`, `INTERNAL`.
    pub reason: String,
    /// What happened, a sentence.
    pub message: String,
    /// What to do about it, a sentence; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Word for programs.
    pub reason: RefusalReason,
    /// Why, a sentence with what to do.
    pub message: String,
    /// How the workflow is.
    pub status: Option<Status>,
}

/// Why a command was refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The verb means nothing in this status.
    WrongStatus,
    /// The plan is not ready yet.
    PlanNotReady,
    /// The plan is another one than the caller read.
    PlanChanged,
    /// Who asks may not approve this one.
    NotAnApprover,
    /// Who asks has approved it already.
    ApprovedAlready,
    /// Nothing was applied that could be rolled back.
    NothingApplied,
    /// A cancel that leaves settings as they are has to be acknowledged.
    AcknowledgeNeeded,
    /// What a runner reports is of another phase: it is late.
    Late,
}

impl Refusal {
    pub(super) fn new(reason: RefusalReason, status: Option<Status>, message: String) -> Self {
        Self {
            reason,
            message,
            status,
        }
    }

    pub(super) fn wrong_status(verb: Verb, status: Status, legal: &str) -> Self {
        let message = format!(
            "{} means nothing while a workflow is {}: {legal}",
            verb.as_str(),
            status.as_str()
        );
        Self::new(RefusalReason::WrongStatus, Some(status), message)
    }
}
