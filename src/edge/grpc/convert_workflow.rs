//! Workflows and snapshots of settings → protobuf.

use prost_types::Timestamp;

use super::convert::{duration, timestamp};
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
        gate: Some(gate(&of.spec.gate)),
        actuator: of.spec.actuator.clone(),
        started_by: of.started_by.clone(),
        note: of.spec.note.clone(),
        simulated: of.simulated,
        create_time: Some(instant(of.started_us)),
        update_time: Some(instant(of.updated_us)),
        etag: format!("r{}", of.revision),
        revision: of.revision,
        ..pb::Workflow::default()
    };
    match extent {
        Extent::Listed => whole,
        Extent::Whole => pb::Workflow {
            optimizations: of.plan.iter().flat_map(optimizations).collect(),
            plan: of.plan.as_ref().map(plan),
            effects: of.effects.as_ref().map(effects),
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
        }
        .into(),
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

fn gate(of: &GatePolicy) -> pb::WorkflowGate {
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
        kind: gate_kind(GateKind::BeforeCanary).into(),
    }
}

fn gate_kind(of: GateKind) -> pb::WorkflowGateKind {
    match of {
        // the other is not waited at yet
        GateKind::BeforeCanary | GateKind::BeforeRollout => pb::WorkflowGateKind::BeforeCanary,
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
    }
}

fn target_state(of: TargetPhase) -> pb::WorkflowTargetState {
    match of {
        TargetPhase::Untouched => pb::WorkflowTargetState::Untouched,
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::optimization::{Effect, KnobChange, PredictedQuantity, example};
    use crate::workflow::{Event, PlanDraft, RecordedEvent, Timeouts, WorkflowSpec, evolve};

    #[test]
    fn words_are_those_of_the_protos() {
        for one in Status::ALL {
            let word = format!("WORKFLOW_STATUS_{}", one.as_str());
            assert_eq!(status_of(*one).as_str_name(), word);
        }
        for one in Stage::ALL {
            let word = format!("WORKFLOW_STAGE_{}", one.as_str());
            assert_eq!(stage(*one).as_str_name(), word);
        }
        for one in Outcome::ALL {
            let word = format!("WORKFLOW_OUTCOME_{}", one.as_str());
            assert_eq!(outcome(*one).as_str_name(), word);
        }
        for one in PauseReason::ALL {
            let word = format!("WORKFLOW_PAUSE_REASON_{}", one.as_str());
            assert_eq!(pause_reason(*one).as_str_name(), word);
        }
        for one in WorkflowKind::ALL {
            let word = format!("WORKFLOW_TYPE_{}", one.as_str());
            assert_eq!(kind(*one).as_str_name(), word);
        }
    }

    fn spec() -> WorkflowSpec {
        WorkflowSpec {
            instance_id: "vllm-1".to_owned(),
            kind: WorkflowKind::ConfigChange,
            actuator: "host".to_owned(),
            changes: BTreeMap::new(),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: false,
            auto_approve: false,
            gate: GatePolicy::default(),
            strategy: Strategy::InPlace,
            timeouts: Timeouts::default(),
            note: "A try.".to_owned(),
        }
    }

    fn after(events: Vec<Event>) -> Workflow {
        let mut state = None;
        for (sequence, event) in (1..).zip(events) {
            let recorded = RecordedEvent {
                workflow_id: "0198".to_owned(),
                instance_id: "vllm-1".to_owned(),
                revision: 10 + sequence,
                sequence,
                at_us: 1_790_000_000_123_456 + i64::try_from(sequence).unwrap(),
                actor: "alice".to_owned(),
                event,
            };
            state = Some(evolve(state, &recorded).unwrap());
        }
        state.unwrap()
    }

    fn analysis() -> Analysis {
        Analysis {
            headline: "Requests queue.".to_owned(),
            findings: vec![FindingSummary {
                cause: "SEQUENCE_CAP".to_owned(),
                severity: "HIGH".to_owned(),
                description: "Running at the cap of 4.".to_owned(),
            }],
            start_unix_seconds: 0.0,
            end_unix_seconds: 60.0,
            simulated: true,
            before: Vec::new(),
        }
    }

    fn planned() -> Plan {
        let ttft = (PredictedQuantity::TimeToFirstTokenMean, 4.0, 0.25);
        Plan {
            etag: "e7a9".to_owned(),
            draft: PlanDraft {
                headline: "max_num_seqs 4 → 32".to_owned(),
                optimizations: Vec::new(),
                chosen: None,
                changes: vec![KnobChange {
                    name: "max_num_seqs".to_owned(),
                    flag: "--max-num-seqs".to_owned(),
                    from: Some("4".to_owned()),
                    to: Some("32".to_owned()),
                }],
                effect: Effect::Predicted(example::prediction(&[ttft])),
                prediction_id: Some("0199".to_owned()),
                targets: vec![PlanTarget {
                    name: "a".to_owned(),
                    revision: "7".to_owned(),
                    digest_before: "00".to_owned(),
                    digest_after: "01".to_owned(),
                    needs_restart: true,
                    launch_args: vec!["--max-num-seqs".to_owned(), "32".to_owned()],
                }],
                snapshot_id: Some("0197".to_owned()),
                planned_snapshot_id: Some("0196".to_owned()),
                strategy: Strategy::InPlace,
                changes_answers: false,
                needs_restart: true,
                notes: vec!["The engine is restarted.".to_owned()],
            },
        }
    }

    #[test]
    fn a_workflow_is_told_whole_or_without_what_takes_room() {
        let state = after(vec![
            Event::Started {
                spec: Box::new(spec()),
            },
            Event::Analysed {
                analysis: Box::new(analysis()),
            },
            Event::Planned {
                plan: Box::new(planned()),
            },
        ]);
        let told = workflow(&state, Extent::Whole);
        assert_eq!(told.status(), pb::WorkflowStatus::PendingApproval);
        assert_eq!(told.current_stage(), pb::WorkflowStage::Approval);
        assert_eq!(told.workflow_type(), pb::WorkflowType::ConfigChange);
        assert!(told.requires_approval && told.simulated && !told.done);
        assert!(
            (told.progress - 2.0 / 7.0).abs() < 1e-9,
            "{}",
            told.progress
        );
        assert_eq!(told.revision, 13);
        assert_eq!(told.create_time.unwrap().nanos, 123_457_000);
        assert_eq!(told.update_time.unwrap().nanos, 123_459_000);
        assert_eq!(told.findings[0].severity(), pb::Severity::High);
        let plan = told.plan.as_ref().unwrap();
        assert_eq!(
            (plan.etag.as_str(), plan.snapshot_id.as_str()),
            ("e7a9", "0197")
        );
        assert_eq!(plan.prediction.as_ref().unwrap().quantities[0].after, 1.0);
        assert_eq!(plan.changes[0].to_value.as_deref(), Some("32"));
        let waiting = told.waiting_for.as_ref().unwrap();
        assert_eq!(waiting.verbs, ["APPROVE", "REJECT", "CANCEL"]);
        assert!(waiting.until_time.is_some());
        assert_eq!(told.targets[0].state(), pb::WorkflowTargetState::Untouched);
        assert_eq!(
            told.gate.as_ref().unwrap().timeout.unwrap().seconds,
            604_800
        );
        let listed = workflow(&state, Extent::Listed);
        assert_eq!((listed.plan, listed.effects), (None, None));
        assert_eq!(listed.waiting_for, told.waiting_for);
    }

    #[test]
    fn what_was_measured_stands_beside_what_was_predicted() {
        let of = |predicted| {
            measured(&MeasuredEffect {
                quantity: PredictedQuantity::TimeToFirstTokenMean,
                before: 4.0,
                after: 1.2,
                ratio: 0.3,
                predicted,
            })
        };
        let told = of(Some([0.25, 0.2, 0.4]));
        assert_eq!(
            (told.quantity.as_str(), told.statistic.as_str()),
            ("time_to_first_token_seconds", "mean")
        );
        assert_eq!(
            (
                told.predicted_ratio,
                told.predicted_ratio_low,
                told.predicted_ratio_high
            ),
            (Some(0.25), Some(0.2), Some(0.4))
        );
        assert_eq!(of(None).predicted_ratio, None);
    }

    #[test]
    fn instants_before_1970_are_instants_too() {
        assert_eq!(
            instant(-1),
            Timestamp {
                seconds: -1,
                nanos: 999_999_000
            }
        );
        assert_eq!(
            instant(1_500_000),
            Timestamp {
                seconds: 1,
                nanos: 500_000_000
            }
        );
    }

    /// Settings may hold secrets.
    #[test]
    fn a_snapshot_shows_no_content() {
        let told = snapshot(&Snapshot {
            snapshot_id: "0197".to_owned(),
            instance_id: "vllm-1".to_owned(),
            actuator: "host".to_owned(),
            created_us: 0,
            created_by: "alice".to_owned(),
            workflow_id: None,
            note: String::new(),
            is_planned: false,
            targets: vec![SnapshotTarget {
                name: "a".to_owned(),
                revision: "7".to_owned(),
                digest: "00".to_owned(),
                launch_args: vec!["--api-key".to_owned(), "***".to_owned()],
                content: b"--api-key canary-secret".to_vec(),
            }],
        });
        assert!(!format!("{told:?}").contains("canary-secret"));
        assert_eq!(told.targets[0].launch_args, ["--api-key", "***"]);
    }
}
