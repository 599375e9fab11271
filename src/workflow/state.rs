//! How a workflow is: what its events lead to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canary::Canary;
use super::command::Failure;
use super::gate::GateState;
use super::plan::{Analysis, Baseline, MeasuredEffects, Plan};
use super::quality::QualityReport;
use super::spec::WorkflowSpec;
use super::verdict::{Observation, Verdict};
use super::words::{Outcome, PauseReason, Stage, Status, WorkflowKind};

/// A workflow.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Workflow {
    /// UUIDv7.
    pub workflow_id: String,
    /// What it was asked to do.
    pub spec: WorkflowSpec,
    /// Who started it.
    pub started_by: String,
    /// When, unix time in microseconds.
    pub started_us: i64,
    /// When its last event was, unix time in microseconds.
    pub updated_us: i64,
    /// How many events it has.
    pub sequence: u64,
    /// Revision of the last of them.
    pub revision: u64,
    /// What it is at.
    pub phase: Phase,
    /// Since when, unix time in microseconds.
    pub phase_since_us: i64,
    /// Until when the phase may take, unix time in microseconds; none where it may take for ever, and while it is paused.
    pub deadline_us: Option<i64>,
    /// It stands still.
    pub pause: Option<Pause>,
    /// Its way, in order; the way back is there only where it was gone.
    pub stages: Vec<StageRecord>,
    /// What was found out.
    pub analysis: Option<Analysis>,
    /// What is to be changed.
    pub plan: Option<Plan>,
    /// Who has agreed.
    pub gate: Option<GateState>,
    /// Where settings change, as in the plan.
    pub targets: Vec<TargetState>,
    /// How things were just before the first write.
    #[serde(default)]
    pub baseline: Option<Baseline>,
    /// Which part of the targets gets the change, or has it last, counted from 0.
    #[serde(default)]
    pub step: u32,
    /// What was observed since this part has it.
    #[serde(default)]
    pub observations: Vec<Observation>,
    /// The last verdict on each part.
    #[serde(default)]
    pub verdicts: BTreeMap<u32, Verdict>,
    /// What came of comparing answers.
    #[serde(default)]
    pub quality: Option<QualityReport>,
    /// How many operations there have been.
    pub operations: u32,
    /// The way back, where one was begun.
    pub rollback: Option<Rollback>,
    /// What came of the change.
    pub effects: Option<MeasuredEffects>,
    /// In what it ended.
    pub outcome: Option<Outcome>,
    /// What is said of it in one line.
    pub headline: String,
    /// What went wrong, the last of it.
    pub failure: Option<Failure>,
    /// Measurements that it rests on are of a simulated engine.
    pub simulated: bool,
}

/// What a workflow is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(tag = "phase", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// It is being found out what holds the instance back.
    Analysing,
    /// The plan is being made.
    Planning,
    /// Somebody has to agree.
    AwaitingApproval,
    /// They have, and no runner has begun yet.
    Approved,
    /// The next target is to be written.
    RollingOut,
    /// A target finishes its requests before it is written.
    Draining {
        /// Which, by its place in the plan.
        target: u32,
    },
    /// The settings of a target are being written: the intent is on disk.
    Writing {
        /// Which, by its place in the plan.
        target: u32,
    },
    /// A target has its settings, and is not ready yet.
    AwaitingReady {
        /// Which.
        target: u32,
    },
    /// A part of the targets has the change, and is held against the rest.
    Observing,
    /// It stood, and answers are compared, since the change can make them others.
    CheckingQuality,
    /// It stood, and somebody has to agree that more targets get the change.
    AwaitingPromotion,
    /// All targets have their settings; what came of it is being measured.
    Measuring,
    /// The next target is to be restored.
    RollingBack,
    /// The settings of a target are being restored: the intent is on disk.
    Restoring {
        /// Which.
        target: u32,
    },
    /// A target has its settings from before, and is not ready yet.
    AwaitingRestored {
        /// Which.
        target: u32,
    },
    /// Nothing more.
    Ended {
        /// How.
        status: Status,
    },
}

/// It stands still.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pause {
    /// Why.
    pub reason: PauseReason,
    /// The same in a sentence.
    pub message: String,
    /// Who.
    pub by: String,
    /// Since when, unix time in microseconds.
    pub since_us: i64,
    /// What was left of the phase's time, in microseconds; none where it had no end, or where it begins anew.
    pub left_us: Option<i64>,
}

/// One stage of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct StageRecord {
    /// Which.
    pub stage: Stage,
    /// How it is.
    pub status: StageStatus,
    /// When it began, unix time in microseconds.
    pub started_us: Option<i64>,
    /// When it ended, unix time in microseconds.
    pub ended_us: Option<i64>,
}

/// How a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StageStatus {
    /// Its turn has not come.
    NotStarted,
    /// It is what the workflow is at.
    Running,
    /// It was gone through.
    Done,
    /// It was or will be left out.
    Skipped,
    /// The workflow left the way there.
    Failed,
}

/// A target whose settings change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct TargetState {
    /// Its name, as the actuator calls it.
    pub name: String,
    /// How it is.
    pub phase: TargetPhase,
    /// Id of the last operation on it.
    pub operation_id: Option<String>,
    /// Revision of its settings, as the actuator gave it last.
    pub revision: String,
    /// SHA-256 of settings that somebody else wrote, in hexadecimal, with which the workflow was resumed.
    pub accepted_digest: Option<String>,
    /// The workflow takes it out of traffic for its restarts. One that somebody else took out stays out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_traffic: bool,
}

/// How a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TargetPhase {
    /// As it was before the workflow.
    Untouched,
    /// Its settings are those from before, and it may take no new requests.
    Draining,
    /// It may have the new settings, or those from before.
    Writing,
    /// It has the new settings.
    Written,
    /// And is ready.
    Ready,
    /// It may have the settings from before again.
    Restoring,
    /// It has them.
    Restored,
    /// And is ready.
    RestoredReady,
}

impl TargetPhase {
    /// Its settings were not written yet.
    pub fn has_settings_from_before(self) -> bool {
        matches!(self, Self::Untouched | Self::Draining)
    }
}

/// The way back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rollback {
    /// How many there have been, with this one.
    pub attempt: u32,
    /// Why.
    pub cause: RollbackCause,
    /// Who asked for it; `perfagent` where nobody did.
    pub by: String,
    /// Settings that others wrote are overwritten.
    pub overwrites: bool,
}

/// Why the settings from before are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RollbackCause {
    /// Somebody asked for it.
    Requested,
    /// Somebody cancelled the workflow.
    Cancelled,
    /// Somebody refused to let the change go further, or nobody agreed in time.
    Rejected,
    /// Something went wrong.
    Failure,
}

impl Workflow {
    /// How it is.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Ended { status } => status,
            _ if self.pause.is_some() => Status::Paused,
            Phase::AwaitingApproval | Phase::AwaitingPromotion => Status::PendingApproval,
            Phase::Approved => Status::Approved,
            _ => Status::InProgress,
        }
    }

    /// The stage that it is at, or was at last.
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Analysing => Stage::Analysis,
            Phase::Planning => Stage::Recommendation,
            Phase::AwaitingApproval | Phase::Approved => Stage::Approval,
            Phase::RollingOut
            | Phase::Draining { .. }
            | Phase::Writing { .. }
            | Phase::AwaitingReady { .. } => match self.is_first_part() {
                true => Stage::Canary,
                false => Stage::Rollout,
            },
            Phase::Observing | Phase::CheckingQuality | Phase::AwaitingPromotion => {
                match self.is_first_part() {
                    true => Stage::Validation,
                    false => Stage::Rollout,
                }
            }
            Phase::Measuring => Stage::Completion,
            Phase::RollingBack | Phase::Restoring { .. } | Phase::AwaitingRestored { .. } => {
                Stage::Rollback
            }
            Phase::Ended { .. } => self
                .stages
                .iter()
                .rev()
                .find(|record| record.started_us.is_some())
                .map_or(Stage::Analysis, |record| record.stage),
        }
    }

    /// Whether no other workflow may run on its instance.
    pub fn locks_instance(&self) -> bool {
        let status = self.status();
        !status.has_ended() || status == Status::RollbackFailed
    }

    /// Whether settings of a target may be others than before, or whether it takes requests.
    pub fn has_touched(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.phase != TargetPhase::Untouched)
    }

    /// Whether settings of a target may be others than before.
    pub fn has_written(&self) -> bool {
        self.targets
            .iter()
            .any(|target| !target.phase.has_settings_from_before())
    }

    /// How the change goes out part by part, where it does.
    pub fn canary(&self) -> Option<&Canary> {
        self.plan.as_ref()?.draft.strategy.canary()
    }

    /// The last verdict on the part that has the change last.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdicts.get(&self.step)
    }

    fn is_first_part(&self) -> bool {
        self.canary().is_some() && self.step == 0
    }

    /// Whether all targets of this part have the change, and there are others to hold them against.
    pub fn is_to_be_observed(&self) -> bool {
        let part = self.canary().filter(|canary| !canary.is_last(self.step));
        let changed = part.and_then(|canary| canary.changed_after(self.step));
        changed.is_some_and(|changed| self.next_target() == Some(changed))
    }

    /// Whether somebody has to agree before the next part of the targets gets the change.
    pub fn needs_promotion(&self) -> bool {
        let gated = |canary: &Canary| match self.step {
            0 => canary.gate_before_rollout || canary.gate_each_step,
            _ => canary.gate_each_step,
        };
        // where nothing compares them, somebody has to
        let answers = self.can_change_answers() && self.quality.is_none();
        let asked = self.canary().is_some_and(gated) && !self.spec.auto_approve;
        answers || asked
    }

    /// Whether answers are to be compared before the next part of the targets gets the change.
    pub fn needs_quality_check(&self) -> bool {
        let is_asked = self.canary().is_some_and(|canary| canary.quality.is_some());
        is_asked && self.can_change_answers() && self.quality.is_none()
    }

    fn can_change_answers(&self) -> bool {
        let plan = self.plan.as_ref();
        self.step == 0 && plan.is_some_and(|plan| plan.draft.changes_answers)
    }

    /// Whether it stands still because what was observed does not tell.
    pub fn is_held_undecided(&self) -> bool {
        let undecided = |pause: &Pause| pause.reason == PauseReason::Inconclusive;
        self.pause.as_ref().is_some_and(undecided)
    }

    /// Whether it stands still because somebody else changed settings.
    pub fn is_held_for_drift(&self) -> bool {
        let drift = |pause: &Pause| pause.reason == PauseReason::Drift;
        self.pause.as_ref().is_some_and(drift)
    }

    /// Whether it waits at a gate, or will.
    pub fn requires_approval(&self) -> bool {
        self.spec.kind != WorkflowKind::Analysis && !self.spec.auto_approve
    }

    /// The first target that was not written yet.
    pub fn next_target(&self) -> Option<u32> {
        self.place_of(TargetPhase::has_settings_from_before)
    }

    /// The target to restore next: those that were touched last come first.
    pub fn next_to_restore(&self) -> Option<u32> {
        let open = |phase| !matches!(phase, TargetPhase::Untouched | TargetPhase::RestoredReady);
        let last = self.targets.iter().rposition(|target| open(target.phase));
        last.and_then(|place| u32::try_from(place).ok())
    }

    /// A target by its place.
    pub fn target(&self, place: u32) -> Option<&TargetState> {
        self.targets.get(usize::try_from(place).ok()?)
    }

    fn place_of(&self, is: impl Fn(TargetPhase) -> bool) -> Option<u32> {
        let place = self.targets.iter().position(|target| is(target.phase))?;
        u32::try_from(place).ok()
    }
}

impl Phase {
    /// It is on its way back.
    pub fn is_rollback(self) -> bool {
        matches!(
            self,
            Self::RollingBack | Self::Restoring { .. } | Self::AwaitingRestored { .. }
        )
    }

    /// An effect may be under way whose intent is on disk.
    pub fn has_intent(self) -> bool {
        matches!(self, Self::Writing { .. } | Self::Restoring { .. })
    }
}
