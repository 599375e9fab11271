//! The closed sets that a workflow speaks in.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[doc = $of:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident $word:literal,)+ }) => {
        $(#[doc = $of])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in stored events, and on the wire without its prefix.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// How a workflow is.
    Status {
        /// Its plan is ready, and somebody has to approve it.
        PendingApproval "PENDING_APPROVAL",
        /// Its plan is approved, and no runner has taken it yet.
        Approved "APPROVED",
        /// Its plan was rejected. It has ended, and nothing was changed.
        Rejected "REJECTED",
        /// It works.
        InProgress "IN_PROGRESS",
        /// It stands still until it is resumed.
        Paused "PAUSED",
        /// It has ended as it should; `outcome` says in what.
        Completed "COMPLETED",
        /// It has ended with an error, and nothing was changed.
        Failed "FAILED",
        /// Somebody has ended it before anything was changed, or has taken over what could not be restored.
        Cancelled "CANCELLED",
        /// It has ended, and the settings are what they were before it.
        RolledBack "ROLLED_BACK",
        /// It has ended, and the settings of some targets could not be restored. The instance stays locked.
        RollbackFailed "ROLLBACK_FAILED",
    }
}

words! {
    /// What a workflow is at, in the order of its way.
    Stage {
        /// What holds the instance back.
        Analysis "ANALYSIS",
        /// What to change, and what that is predicted to do.
        Recommendation "RECOMMENDATION",
        /// Somebody has to agree.
        Approval "APPROVAL",
        /// A part of the targets gets the change.
        Canary "CANARY",
        /// That part is judged against the rest.
        Validation "VALIDATION",
        /// The targets get the change.
        Rollout "ROLLOUT",
        /// What came of it is measured.
        Completion "COMPLETION",
        /// The settings from before are restored.
        Rollback "ROLLBACK",
    }
}

words! {
    /// What is to be done.
    WorkflowKind {
        /// What is recommended.
        Optimization "OPTIMIZATION",
        /// The caller's settings.
        ConfigChange "CONFIG_CHANGE",
        /// Settings as a snapshot has them.
        Restore "RESTORE",
        /// Nothing is changed: what holds the instance back, and what would help.
        Analysis "ANALYSIS",
    }
}

words! {
    /// In what a workflow ended.
    Outcome {
        /// The change is in force, and what came of it is measured.
        Applied "APPLIED",
        /// The change is in force; what came of it could not be measured.
        AppliedUnmeasured "APPLIED_UNMEASURED",
        /// The plan stands, and the instance has no actuator that could carry it out.
        NotApplied "NOT_APPLIED",
        /// Nothing to change was found.
        NothingToDo "NOTHING_TO_DO",
        /// An analysis was asked for, and is there.
        Analysed "ANALYSED",
        /// The settings from before are in force again.
        Restored "RESTORED",
        /// An operator has taken over what could not be restored.
        Abandoned "ABANDONED",
    }
}

words! {
    /// Why a workflow stands still.
    PauseReason {
        /// Somebody asked for it.
        Requested "REQUESTED",
        /// Somebody else changed the settings.
        Drift "DRIFT",
        /// Nobody approved in time, and the gate says to wait.
        ApprovalTimeout "APPROVAL_TIMEOUT",
        /// What was observed does not tell whether the change does harm.
        Inconclusive "INCONCLUSIVE",
    }
}

words! {
    /// What callers can do to a workflow.
    Verb {
        /// Agree to its plan.
        Approve "APPROVE",
        /// Refuse its plan.
        Reject "REJECT",
        /// Let it stand still.
        Pause "PAUSE",
        /// Let it go on.
        Resume "RESUME",
        /// End it; what was changed is restored.
        Cancel "CANCEL",
        /// Restore what was changed.
        Rollback "ROLLBACK",
    }
}

impl Status {
    /// The workflow does nothing any more, unless a rollback is asked for.
    pub fn has_ended(self) -> bool {
        matches!(
            self,
            Self::Rejected
                | Self::Completed
                | Self::Failed
                | Self::Cancelled
                | Self::RolledBack
                | Self::RollbackFailed
        )
    }
}

impl WorkflowKind {
    /// Whether it can lead to a change.
    pub fn changes(self) -> bool {
        self != Self::Analysis
    }
}
