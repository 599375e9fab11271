//! Workflows and snapshots of settings → protobuf.

use prost_types::Timestamp;

use super::convert::{duration, timestamp};
use super::convert_canary::{canary, quality, verdict};
use super::convert_optimization::{change, effect, optimization};
use super::pb;
use crate::store::{Snapshot, SnapshotTarget};
use crate::workflow::{
    Analysis, Approval, Failure, FindingSummary, GateKind, GatePolicy, MeasuredEffect,
    MeasuredEffects, OnTimeout, Outcome, PauseReason, Plan, PlanTarget, Stage, StageRecord,
    StageStatus, Status, Strategy, TargetPhase, TargetState, Workflow, WorkflowKind, progress,
    waiting_for,
};

/// How much of a workflow to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// Of a list: without what takes room.
    Listed,
}

/// A workflow.
pub(super) fn workflow(of: &Workflow, extent: Extent) -> pb::Workflow {
    let status = of.status();
    let whole = pb::Workflow {
        workflow_id: of.workflow_id.clone(),
        instance_id: of.spec.instance_id.clone(),
        workflow_type: kind(of.spec.kind).into(),
        status: status_of(status).into(),
        current_stage: stage(of.stage()).into(),
        progress: progress(of),
        requires_approval: of.requires_approval(),
        done: status.has_ended(),
        outcome: of.outcome.map(outcome).unwrap_or_default().into(),
        headline: of.headline.clone(),
        stages: of.stages.iter().map(stage_record).collect(),
        waiting_for: waiting_for(of).map(waiting),
        findings: findings(of.analysis.as_ref()),
        approvals: of
            .gate
            .iter()
            .flat_map(|gate| &gate.approvals)
            .map(approval)
            .collect(),
        targets: of.targets.iter().map(target).collect(),
        failure: of.failure.as_ref().map(failure),
        pause_reason: of
            .pause
            .as_ref()
            .map(|pause| pause_reason(pause.reason))
            .unwrap_or_default()
            .into(),
        rollback_attempts: of.rollback.as_ref().map_or(0, |rollback| rollback.attempt),
        gate: Some(gate(&of.spec.gate, of.gate.as_ref().map(|gate| gate.kind))),
        actuator: of.spec.actuator.clone(),
        started_by: of.started_by.clone(),
        note: of.spec.note.clone(),
        simulated: of.simulated,
        create_time: Some(instant(of.started_us)),
        update_time: Some(instant(of.updated_us)),
        etag: format!("r{}", of.revision),
        revision: of.revision,
        step: of.step,
        ..pb::Workflow::default()
    };
    match extent {
        Extent::Listed => whole,
        Extent::Whole => pb::Workflow {
            optimizations: of.plan.iter().flat_map(optimizations).collect(),
            plan: of.plan.as_ref().map(plan),
            effects: of.effects.as_ref().map(effects),
            quality: of.quality.as_ref().map(quality),
            verdicts: of
                .verdicts
                .iter()
                .map(|(step, said)| verdict(*step, said))
                .collect(),
            ..whole
        },
    }
}

/// What is recommended in a plan.
pub(super) fn optimizations(of: &Plan) -> Vec<pb::Optimization> {
    of.draft.optimizations.iter().map(optimization).collect()
}

/// A plan, without what it was chosen from.
pub(super) fn plan(of: &Plan) -> pb::WorkflowPlan {
    let draft = &of.draft;
    let predicted = effect(&draft.effect);
    pb::WorkflowPlan {
        etag: of.etag.clone(),
        headline: draft.headline.clone(),
        optimization_id: draft.chosen.clone().unwrap_or_default(),
        changes: draft.changes.iter().map(change).collect(),
        prediction: predicted.prediction,
        not_predictable_reason: predicted.not_predictable_reason,
        prediction_id: draft.prediction_id.clone().unwrap_or_default(),
        targets: draft.targets.iter().map(plan_target).collect(),
        snapshot_id: draft.snapshot_id.clone().unwrap_or_default(),
        changes_answers: draft.changes_answers,
        needs_restart: draft.needs_restart,
        remarks: draft.notes.clone(),
        strategy: match draft.strategy {
            Strategy::InPlace => pb::WorkflowStrategy::InPlace,
            Strategy::Canary(_) => pb::WorkflowStrategy::Canary,
        }
        .into(),
        canary: draft.strategy.canary().map(canary),
    }
}

fn plan_target(of: &PlanTarget) -> pb::WorkflowPlanTarget {
    pb::WorkflowPlanTarget {
        name: of.name.clone(),
        revision: of.revision.clone(),
        digest_before: of.digest_before.clone(),
        digest_after: of.digest_after.clone(),
        needs_restart: of.needs_restart,
        launch_args: of.launch_args.clone(),
    }
}

fn target(of: &TargetState) -> pb::WorkflowTarget {
    pb::WorkflowTarget {
        name: of.name.clone(),
        state: target_state(of.phase).into(),
        operation_id: of.operation_id.clone().unwrap_or_default(),
        revision: of.revision.clone(),
    }
}

/// What holds the instance back.
pub(super) fn findings(of: Option<&Analysis>) -> Vec<pb::WorkflowFinding> {
    let all = of.map(|analysis| analysis.findings.as_slice());
    all.unwrap_or_default().iter().map(finding).collect()
}

fn finding(of: &FindingSummary) -> pb::WorkflowFinding {
    let severity = format!("SEVERITY_{}", of.severity.to_ascii_uppercase());
    pb::WorkflowFinding {
        cause: of.cause.clone(),
        severity: pb::Severity::from_str_name(&severity)
            .unwrap_or_default()
            .into(),
        description: of.description.clone(),
    }
}

/// What came of a change.
pub(super) fn effects(of: &MeasuredEffects) -> pb::WorkflowEffects {
    pb::WorkflowEffects {
        before_start_time: timestamp(of.before_start_unix_seconds),
        before_end_time: timestamp(of.before_end_unix_seconds),
        after_start_time: timestamp(of.after_start_unix_seconds),
        after_end_time: timestamp(of.after_end_unix_seconds),
        quantities: of.quantities.iter().map(measured).collect(),
        headline: of.headline.clone(),
    }
}

fn measured(of: &MeasuredEffect) -> pb::WorkflowEffect {
    let [predicted, low, high] = match of.predicted {
        Some(ends) => ends.map(Some),
        None => [None; 3],
    };
    pb::WorkflowEffect {
        quantity: of.quantity.quantity().to_owned(),
        statistic: of.quantity.statistic().to_owned(),
        before: of.before,
        after: of.after,
        ratio: of.ratio,
        predicted_ratio: predicted,
        predicted_ratio_low: low,
        predicted_ratio_high: high,
    }
}

/// What went wrong.
pub(super) fn failure(of: &Failure) -> pb::WorkflowFailure {
    pb::WorkflowFailure {
        reason: of.reason.clone(),
        message: of.message.clone(),
        hint: of.hint.clone(),
    }
}

fn approval(of: &Approval) -> pb::WorkflowApproval {
    pb::WorkflowApproval {
        principal: of.principal.clone(),
        approve_time: Some(instant(of.at_us)),
        note: of.note.clone(),
    }
}

fn gate(of: &GatePolicy, at: Option<GateKind>) -> pb::WorkflowGate {
    let timeout = std::time::Duration::try_from_secs_f64(of.timeout_seconds);
    pb::WorkflowGate {
        approvals: of.approvals,
        approvers: of.approvers.clone(),
        separate_requester: of.separate_requester,
        timeout: timeout.ok().and_then(duration),
        on_timeout: match of.on_timeout {
            OnTimeout::Reject => pb::WorkflowOnTimeout::Reject,
            OnTimeout::Hold => pb::WorkflowOnTimeout::Hold,
        }
        .into(),
        kind: gate_kind(at.unwrap_or(GateKind::BeforeCanary)).into(),
    }
}

fn gate_kind(of: GateKind) -> pb::WorkflowGateKind {
    match of {
        GateKind::BeforeCanary => pb::WorkflowGateKind::BeforeCanary,
        GateKind::BeforeRollout => pb::WorkflowGateKind::BeforeRollout,
    }
}

fn stage_record(of: &StageRecord) -> pb::WorkflowStageRecord {
    pb::WorkflowStageRecord {
        stage: stage(of.stage).into(),
        status: match of.status {
            StageStatus::NotStarted => pb::WorkflowStageStatus::NotStarted,
            StageStatus::Running => pb::WorkflowStageStatus::Running,
            StageStatus::Done => pb::WorkflowStageStatus::Done,
            StageStatus::Skipped => pb::WorkflowStageStatus::Skipped,
            StageStatus::Failed => pb::WorkflowStageStatus::Failed,
        }
        .into(),
        start_time: of.started_us.map(instant),
        end_time: of.ended_us.map(instant),
    }
}

fn waiting(of: crate::workflow::WaitingFor) -> pb::WorkflowWaitingFor {
    pb::WorkflowWaitingFor {
        what: of.what,
        since_time: Some(instant(of.since_us)),
        until_time: of.until_us.map(instant),
        then: of.then,
        verbs: of
            .verbs
            .iter()
            .map(|verb| verb.as_str().to_owned())
            .collect(),
    }
}

/// A snapshot, without the settings themselves.
pub(super) fn snapshot(of: &Snapshot) -> pb::ConfigSnapshot {
    pb::ConfigSnapshot {
        snapshot_id: of.snapshot_id.clone(),
        instance_id: of.instance_id.clone(),
        actuator: of.actuator.clone(),
        create_time: Some(instant(of.created_us)),
        created_by: of.created_by.clone(),
        workflow_id: of.workflow_id.clone().unwrap_or_default(),
        note: of.note.clone(),
        targets: of.targets.iter().map(snapshot_target).collect(),
    }
}

fn snapshot_target(of: &SnapshotTarget) -> pb::ConfigSnapshotTarget {
    pb::ConfigSnapshotTarget {
        name: of.name.clone(),
        revision: of.revision.clone(),
        digest: of.digest.clone(),
        launch_args: of.launch_args.clone(),
    }
}

/// An instant of unix time in microseconds.
pub(super) fn instant(at_us: i64) -> Timestamp {
    let nanos = at_us.rem_euclid(1_000_000) * 1_000;
    Timestamp {
        seconds: at_us.div_euclid(1_000_000),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

/// What is to be done.
pub(super) fn kind(of: WorkflowKind) -> pb::WorkflowType {
    match of {
        WorkflowKind::Optimization => pb::WorkflowType::Optimization,
        WorkflowKind::ConfigChange => pb::WorkflowType::ConfigChange,
        WorkflowKind::Restore => pb::WorkflowType::Restore,
        WorkflowKind::Analysis => pb::WorkflowType::Analysis,
    }
}

pub(super) fn status_of(of: Status) -> pb::WorkflowStatus {
    match of {
        Status::PendingApproval => pb::WorkflowStatus::PendingApproval,
        Status::Approved => pb::WorkflowStatus::Approved,
        Status::Rejected => pb::WorkflowStatus::Rejected,
        Status::InProgress => pb::WorkflowStatus::InProgress,
        Status::Paused => pb::WorkflowStatus::Paused,
        Status::Completed => pb::WorkflowStatus::Completed,
        Status::Failed => pb::WorkflowStatus::Failed,
        Status::Cancelled => pb::WorkflowStatus::Cancelled,
        Status::RolledBack => pb::WorkflowStatus::RolledBack,
        Status::RollbackFailed => pb::WorkflowStatus::RollbackFailed,
    }
}

fn stage(of: Stage) -> pb::WorkflowStage {
    match of {
        Stage::Analysis => pb::WorkflowStage::Analysis,
        Stage::Recommendation => pb::WorkflowStage::Recommendation,
        Stage::Approval => pb::WorkflowStage::Approval,
        Stage::Canary => pb::WorkflowStage::Canary,
        Stage::Validation => pb::WorkflowStage::Validation,
        Stage::Rollout => pb::WorkflowStage::Rollout,
        Stage::Completion => pb::WorkflowStage::Completion,
        Stage::Rollback => pb::WorkflowStage::Rollback,
    }
}

fn outcome(of: Outcome) -> pb::WorkflowOutcome {
    match of {
        Outcome::Applied => pb::WorkflowOutcome::Applied,
        Outcome::AppliedUnmeasured => pb::WorkflowOutcome::AppliedUnmeasured,
        Outcome::NotApplied => pb::WorkflowOutcome::NotApplied,
        Outcome::NothingToDo => pb::WorkflowOutcome::NothingToDo,
        Outcome::Analysed => pb::WorkflowOutcome::Analysed,
        Outcome::Restored => pb::WorkflowOutcome::Restored,
        Outcome::Abandoned => pb::WorkflowOutcome::Abandoned,
    }
}

/// Why one stands still.
pub(super) fn pause_reason(of: PauseReason) -> pb::WorkflowPauseReason {
    match of {
        PauseReason::Requested => pb::WorkflowPauseReason::Requested,
        PauseReason::Drift => pb::WorkflowPauseReason::Drift,
        PauseReason::ApprovalTimeout => pb::WorkflowPauseReason::ApprovalTimeout,
        PauseReason::Inconclusive => pb::WorkflowPauseReason::Inconclusive,
    }
}

fn target_state(of: TargetPhase) -> pb::WorkflowTargetState {
    match of {
        TargetPhase::Untouched => pb::WorkflowTargetState::Untouched,
        TargetPhase::Draining => pb::WorkflowTargetState::Draining,
        TargetPhase::Writing => pb::WorkflowTargetState::Writing,
        TargetPhase::Written => pb::WorkflowTargetState::Written,
        TargetPhase::Ready => pb::WorkflowTargetState::Ready,
        TargetPhase::Restoring => pb::WorkflowTargetState::Restoring,
        TargetPhase::Restored => pb::WorkflowTargetState::Restored,
        TargetPhase::RestoredReady => pb::WorkflowTargetState::RestoredReady,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
