//! Workflows for tests, at fixed times; and golden files.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use crate::edge::cli::optimize::example::answer;
use crate::edge::grpc::pb;

pub(super) const ID: &str = "0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10";
const START: i64 = 1_767_225_600;

/// So many seconds after the workflow was started.
pub(super) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: START + seconds,
        nanos: 0,
    })
}

pub(super) fn now(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(START.unsigned_abs() + seconds)
}

/// Compares with a golden file; with UPDATE_GOLDEN=1 writes it.
pub(super) fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs; if it should, run UPDATE_GOLDEN=1 cargo test --lib cli::workflow\n{actual}"
    );
}

fn stages(reached: usize) -> Vec<pb::WorkflowStageRecord> {
    use pb::WorkflowStage as Stage;
    use pb::WorkflowStageStatus as Status;
    let way = [
        (Stage::Analysis, 0, 3),
        (Stage::Recommendation, 3, 4),
        (Stage::Approval, 4, 64),
        (Stage::Canary, 0, 0),
        (Stage::Validation, 0, 0),
        (Stage::Rollout, 64, 70),
        (Stage::Completion, 70, 135),
    ];
    let record = |(place, (stage, start, end)): (usize, (Stage, i64, i64))| {
        let left_out = matches!(stage, Stage::Canary | Stage::Validation);
        let status = match place.cmp(&reached) {
            _ if left_out => Status::Skipped,
            std::cmp::Ordering::Less => Status::Done,
            std::cmp::Ordering::Equal => Status::Running,
            std::cmp::Ordering::Greater => Status::NotStarted,
        };
        pb::WorkflowStageRecord {
            stage: stage.into(),
            status: status.into(),
            start_time: at(start).filter(|_| matches!(status, Status::Done | Status::Running)),
            end_time: at(end).filter(|_| status == Status::Done),
        }
    };
    way.into_iter().enumerate().map(record).collect()
}

/// Its plan waits for somebody.
pub(super) fn pending() -> pb::Workflow {
    let text = str::to_owned;
    let recommended = answer().optimizations.remove(0);
    let mut other = recommended.clone();
    other.optimization_id = text("token_budget-07d2aa31");
    other.title = text("Raise --max-num-batched-tokens from 2048 to 4096");
    pb::Workflow {
        workflow_id: text(ID),
        instance_id: text("vllm-1"),
        workflow_type: pb::WorkflowType::Optimization.into(),
        status: pb::WorkflowStatus::PendingApproval.into(),
        current_stage: pb::WorkflowStage::Approval.into(),
        progress: 4.0 / 7.0,
        requires_approval: true,
        headline: text("Raise --max-num-seqs from 4 to 32"),
        stages: stages(2),
        waiting_for: Some(pb::WorkflowWaitingFor {
            what: text("An approval by a principal whose role allows it."),
            since_time: at(4),
            until_time: at(604_804),
            then: text("It is rejected."),
            verbs: ["APPROVE", "REJECT", "CANCEL"].map(str::to_owned).to_vec(),
        }),
        findings: vec![pb::WorkflowFinding {
            cause: text("SEQUENCE_CAP"),
            severity: pb::Severity::High.into(),
            description: text("only 4 requests may run at once, and 22 wait"),
        }],
        plan: Some(pb::WorkflowPlan {
            etag: text("9b1c04d27f3e8a65"),
            headline: recommended.title.clone(),
            optimization_id: recommended.optimization_id.clone(),
            changes: recommended.changes.clone(),
            prediction: recommended.prediction.clone(),
            targets: vec![pb::WorkflowPlanTarget {
                name: text("vllm-1-0"),
                revision: text("r1"),
                needs_restart: true,
                launch_args: ["--max-num-seqs", "32", "--api-key", "***"]
                    .map(str::to_owned)
                    .to_vec(),
                ..pb::WorkflowPlanTarget::default()
            }],
            snapshot_id: text("0197c1a2-6a55-7000-8000-000000000001"),
            needs_restart: true,
            remarks: vec![text("Requests that run are cut off by the restart.")],
            strategy: pb::WorkflowStrategy::InPlace.into(),
            ..pb::WorkflowPlan::default()
        }),
        optimizations: vec![recommended, other],
        targets: vec![target(pb::WorkflowTargetState::Untouched, "")],
        actuator: text("simulator"),
        started_by: text("ann"),
        note: text("queue since Monday"),
        simulated: true,
        create_time: at(0),
        update_time: at(4),
        etag: text("e3"),
        revision: 3,
        ..pb::Workflow::default()
    }
}

fn target(state: pb::WorkflowTargetState, revision: &str) -> pb::WorkflowTarget {
    pb::WorkflowTarget {
        name: "vllm-1-0".to_owned(),
        state: state.into(),
        revision: revision.to_owned(),
        ..pb::WorkflowTarget::default()
    }
}

/// Its change is applied and measured.
pub(super) fn completed() -> pb::Workflow {
    let text = str::to_owned;
    let effect = |quantity: &str, before, after, predicted: Option<[f64; 3]>| pb::WorkflowEffect {
        quantity: text(quantity),
        statistic: text("mean"),
        before,
        after,
        ratio: after / before,
        predicted_ratio: predicted.map(|[middle, ..]| middle),
        predicted_ratio_low: predicted.map(|[_, low, _]| low),
        predicted_ratio_high: predicted.map(|[.., high]| high),
    };
    pb::Workflow {
        status: pb::WorkflowStatus::Completed.into(),
        outcome: pb::WorkflowOutcome::Applied.into(),
        current_stage: pb::WorkflowStage::Completion.into(),
        progress: 1.0,
        done: true,
        headline: text("Raised --max-num-seqs from 4 to 32: TTFT 4.7 s → 0.3 s"),
        stages: stages(7),
        waiting_for: None,
        approvals: vec![pb::WorkflowApproval {
            principal: text("bob"),
            approve_time: at(64),
            note: text("go"),
        }],
        targets: vec![target(pb::WorkflowTargetState::Ready, "r2")],
        effects: Some(pb::WorkflowEffects {
            quantities: vec![
                effect(
                    "time_to_first_token_seconds",
                    4.7,
                    0.3,
                    Some([0.0681, 0.04, 0.1277]),
                ),
                effect(
                    "inter_token_latency_seconds",
                    0.009,
                    0.018,
                    Some([1.2, 1.0, 1.5]),
                ),
                effect("kv_cache_usage_ratio", 0.004, 0.032, None),
            ],
            headline: text("nothing holds it back"),
            ..pb::WorkflowEffects::default()
        }),
        update_time: at(135),
        etag: text("e9"),
        revision: 9,
        ..pending()
    }
}

/// Its settings could not be restored.
pub(super) fn stuck() -> pb::Workflow {
    let text = str::to_owned;
    let mut stages = stages(5);
    for record in &mut stages {
        if record.stage() == pb::WorkflowStage::Rollout {
            record.status = pb::WorkflowStageStatus::Failed.into();
            record.end_time = at(70);
        }
    }
    stages.push(pb::WorkflowStageRecord {
        stage: pb::WorkflowStage::Rollback.into(),
        status: pb::WorkflowStageStatus::Failed.into(),
        start_time: at(70),
        end_time: at(90),
    });
    pb::Workflow {
        status: pb::WorkflowStatus::RollbackFailed.into(),
        current_stage: pb::WorkflowStage::Rollback.into(),
        done: true,
        progress: 1.0,
        stages,
        headline: text("vllm-1-0 could not be restored"),
        waiting_for: Some(pb::WorkflowWaitingFor {
            what: text("Somebody to see to settings that could not be restored."),
            since_time: at(90),
            verbs: ["ROLLBACK", "CANCEL"].map(str::to_owned).to_vec(),
            ..pb::WorkflowWaitingFor::default()
        }),
        targets: vec![target(pb::WorkflowTargetState::Restoring, "r2")],
        failure: Some(pb::WorkflowFailure {
            reason: text("ACTUATOR_TIMED_OUT"),
            message: text("the program did not answer within 30 s"),
            hint: text("see its log"),
        }),
        rollback_attempts: 1,
        update_time: at(90),
        revision: 8,
        ..pending()
    }
}

/// What led to [`completed`].
pub(super) fn events() -> Vec<pb::WorkflowEvent> {
    let told = [
        ("started", 0, "ann", "ann started it."),
        ("analysed", 3, "perfagent", "SEQUENCE_CAP holds it back."),
        (
            "planned",
            4,
            "perfagent",
            "Raise --max-num-seqs from 4 to 32",
        ),
        ("approved", 64, "bob", "bob approved it."),
        (
            "write_intended",
            64,
            "perfagent",
            "vllm-1-0 is about to get its settings.",
        ),
        ("written", 65, "perfagent", "vllm-1-0 has its settings."),
        ("ready", 70, "perfagent", "vllm-1-0 is ready."),
        (
            "completed",
            135,
            "perfagent",
            "The change is in force, and measured.",
        ),
    ];
    let event = |(place, (kind, seconds, actor, message)): (u64, (&str, i64, &str, &str))| {
        pb::WorkflowEvent {
            revision: place + 1,
            workflow_id: ID.to_owned(),
            instance_id: "vllm-1".to_owned(),
            sequence: place + 1,
            event_time: at(seconds),
            actor: actor.to_owned(),
            r#type: kind.to_owned(),
            message: message.to_owned(),
            ..pb::WorkflowEvent::default()
        }
    };
    (0..).zip(told).map(event).collect()
}
