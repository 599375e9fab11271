//! Whole runs, as callers see them.

use super::bench::{BEFORE, Bench, approve, cap, of, rollback};
use crate::agent::{Caller, Error, WorkflowStart, WorkflowVerb};
use crate::store::{StoreError, WorkflowFilter};
use crate::workflow::{
    Outcome, PauseReason, Phase, RefusalReason, Stage, StageStatus, Status, WorkflowKind,
};
use std::time::Duration;

#[tokio::test]
async fn a_change_is_planned_approved_applied_measured_and_rolled_back_by_hand() {
    let bench = Bench::new(2).await;
    let started = bench.start(cap("8")).await.unwrap();
    assert_eq!(started.status(), Status::InProgress);
    let id = started.workflow_id;
    let planned = bench
        .agent()
        .plan_ready(&id, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(planned.status(), Status::PendingApproval, "{planned:#?}");
    let plan = planned.plan.clone().unwrap();
    let targets: Vec<&str> = plan
        .draft
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    assert_eq!(targets, ["t0", "t1"]);
    assert_eq!(
        plan.draft.targets[0].launch_args,
        ["--max-num-seqs", "8", "--api-key", "***"]
    );
    // nothing is touched before somebody agrees
    assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
    let other = bench.ask(&id, approve(Some("another"))).await.unwrap_err();
    assert!(
        matches!(other, Error::Workflow(refusal) if refusal.reason == RefusalReason::PlanChanged)
    );
    bench.ask(&id, approve(Some(&plan.etag))).await.unwrap();

    let done = bench.ended(&id).await;
    assert_eq!(
        (done.status(), done.outcome),
        (Status::Completed, Some(Outcome::Applied)),
        "{done:#?}"
    );
    assert!(!done.effects.unwrap().quantities.is_empty());
    let after = b"[\"--max-num-seqs\",\"8\",\"--api-key\",\"s3cret\"]\n";
    assert_eq!(bench.actuator.contents(), [after, after]);
    let skipped = |stage| {
        done.stages
            .iter()
            .any(|one| one.stage == stage && one.status == StageStatus::Skipped)
    };
    assert!(skipped(Stage::Canary) && skipped(Stage::Validation));

    // what was there before is a snapshot, and what is planned is none that is shown
    let page = bench.agent().snapshots(Some("a"), None, 10).await.unwrap();
    let ids: Vec<&str> = page
        .snapshots
        .iter()
        .map(|one| one.snapshot_id.as_str())
        .collect();
    assert_eq!(ids, [plan.draft.snapshot_id.as_deref().unwrap()]);

    bench.ask(&id, rollback()).await.unwrap();
    let back = bench.ended(&id).await;
    assert_eq!(
        (back.status(), back.outcome),
        (Status::RolledBack, Some(Outcome::Restored))
    );
    assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
    bench.actuator.assert_once();
}

#[tokio::test]
async fn a_snapshot_is_restored_byte_for_byte() {
    let bench = Bench::new(1).await;
    let agent = bench.agent();
    let snapshot = agent
        .create_snapshot(&Caller::anonymous(), "a", "good")
        .await
        .unwrap();
    let change = WorkflowStart {
        auto_approve: true,
        ..cap("8")
    };
    let id = bench.start(change).await.unwrap().workflow_id;
    assert_eq!(bench.ended(&id).await.outcome, Some(Outcome::Applied));
    assert_ne!(bench.actuator.contents(), [BEFORE]);
    let restore = WorkflowStart {
        snapshot_id: Some(snapshot.snapshot_id),
        auto_approve: true,
        ..of(WorkflowKind::Restore)
    };
    let id = bench.start(restore.clone()).await.unwrap().workflow_id;
    let done = bench.ended(&id).await;
    assert_eq!(done.outcome, Some(Outcome::Applied), "{done:#?}");
    assert_eq!(done.plan.unwrap().draft.changes[0].to.as_deref(), Some("4"));
    assert_eq!(bench.actuator.contents(), [BEFORE]);
    let again = bench.start(restore).await.unwrap().workflow_id;
    assert_eq!(
        bench.ended(&again).await.outcome,
        Some(Outcome::NothingToDo)
    );
}

#[tokio::test]
async fn without_an_actuator_a_plan_is_approved_and_not_applied() {
    let bench = Bench::new(0).await;
    let id = bench.start(cap("8")).await.unwrap().workflow_id;
    let planned = bench
        .agent()
        .plan_ready(&id, Duration::from_secs(60))
        .await
        .unwrap();
    assert!(planned.requires_approval());
    assert_eq!(planned.status(), Status::PendingApproval, "{planned:#?}");
    let done = bench.ask(&id, approve(None)).await.unwrap();
    assert_eq!(
        (done.status(), done.outcome),
        (Status::Completed, Some(Outcome::NotApplied))
    );
    let refused = bench.ask(&id, rollback()).await.unwrap_err();
    assert!(
        matches!(refused, Error::Workflow(refusal) if refusal.reason == RefusalReason::NothingApplied)
    );
}

#[tokio::test]
async fn an_analysis_changes_nothing_and_needs_nobody() {
    let bench = Bench::new(1).await;
    let id = bench
        .start(of(WorkflowKind::Analysis))
        .await
        .unwrap()
        .workflow_id;
    let done = bench.ended(&id).await;
    assert_eq!(
        (done.status(), done.outcome),
        (Status::Completed, Some(Outcome::Analysed))
    );
    assert!(done.analysis.is_some() && !done.requires_approval());
    // it serves as it should
    let id = bench
        .start(of(WorkflowKind::Optimization))
        .await
        .unwrap()
        .workflow_id;
    let done = bench.ended(&id).await;
    assert_eq!(
        (done.status(), done.outcome),
        (Status::Completed, Some(Outcome::NothingToDo)),
        "{done:#?}"
    );
    assert_eq!(bench.actuator.desk().writes, 0);
}

#[tokio::test]
async fn one_workflow_an_instance_and_a_repeat_is_the_same() {
    let bench = Bench::new(1).await;
    let request = "6f1b6c1e-0e0a-4f8e-9d53-0d5a1d0b7f11";
    let caller = Caller::anonymous();
    let first = bench
        .agent()
        .start_workflow(&caller, cap("8"), request)
        .await
        .unwrap();
    let second = bench.start(cap("16")).await.unwrap_err();
    let held = |error| matches!(error, Error::Store(StoreError::Locked { workflow_id, .. }) if workflow_id == first.workflow_id);
    assert!(held(second));
    let again = bench
        .agent()
        .start_workflow(&caller, cap("8"), request)
        .await
        .unwrap();
    assert_eq!(again, first);
    let reused = bench
        .agent()
        .start_workflow(&caller, cap("9"), request)
        .await
        .unwrap_err();
    assert!(matches!(
        reused,
        Error::Store(StoreError::RequestIdReused(_))
    ));
    bench
        .ask(
            &first.workflow_id,
            WorkflowVerb::Cancel {
                acknowledge: false,
                note: String::new(),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        bench.ended(&first.workflow_id).await.status(),
        Status::Cancelled
    );
    bench.start(cap("16")).await.unwrap();
    let all = bench
        .agent()
        .workflows(&WorkflowFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(all.workflows.len(), 2);
}

#[tokio::test]
async fn a_dry_run_keeps_nothing() {
    let bench = Bench::new(1).await;
    let caller = Caller::anonymous();
    let would = bench
        .agent()
        .validate_workflow(&caller, cap("8"), Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(would.status(), Status::PendingApproval);
    assert_eq!(
        would.plan.unwrap().draft.changes[0].to.as_deref(),
        Some("8")
    );
    let all = bench
        .agent()
        .workflows(&WorkflowFilter::default(), None, 10)
        .await
        .unwrap();
    assert!(all.workflows.is_empty());
    assert!(
        bench
            .agent()
            .snapshots(None, None, 10)
            .await
            .unwrap()
            .snapshots
            .is_empty()
    );
    assert_eq!(bench.actuator.desk().writes, 0);
}

#[tokio::test]
async fn a_plan_that_does_not_hold_any_more_is_made_anew() {
    let bench = Bench::new(1).await;
    let id = bench.start(cap("8")).await.unwrap().workflow_id;
    let pending = |state: &crate::workflow::Workflow| state.status() == Status::PendingApproval;
    let first = bench.state(&id, pending).await.plan.unwrap();
    bench
        .actuator
        .changed_by_others(0, b"[\"--max-num-seqs\",\"6\"]\n");
    bench.ask(&id, approve(Some(&first.etag))).await.unwrap();
    let second = bench
        .state(&id, |state| {
            pending(state)
                && state
                    .plan
                    .as_ref()
                    .is_some_and(|plan| plan.etag != first.etag)
        })
        .await;
    assert!(second.gate.unwrap().approvals.is_empty());
    let late = bench
        .ask(&id, approve(Some(&first.etag)))
        .await
        .unwrap_err();
    assert!(
        matches!(late, Error::Workflow(refusal) if refusal.reason == RefusalReason::PlanChanged)
    );
    bench
        .ask(&id, approve(Some(&second.plan.unwrap().etag)))
        .await
        .unwrap();
    assert_eq!(bench.ended(&id).await.outcome, Some(Outcome::Applied));
}

#[tokio::test]
async fn a_pause_holds_before_the_next_target_and_a_resume_goes_on() {
    let bench = Bench::new(2).await;
    bench.actuator.desk().loads_for = u32::MAX;
    let id = bench
        .start(WorkflowStart {
            auto_approve: true,
            ..cap("8")
        })
        .await
        .unwrap()
        .workflow_id;
    bench
        .state(&id, |state| {
            matches!(state.phase, Phase::AwaitingReady { .. })
        })
        .await;
    let paused = bench
        .ask(
            &id,
            WorkflowVerb::Pause {
                note: "wait".to_owned(),
            },
        )
        .await
        .unwrap();
    assert_eq!(paused.status(), Status::Paused);
    assert_eq!(paused.pause.unwrap().reason, PauseReason::Requested);
    assert_eq!(paused.deadline_us, None);
    bench.actuator.desk().loads_for = 0;
    let resumed = bench
        .ask(
            &id,
            WorkflowVerb::Resume {
                note: String::new(),
            },
        )
        .await
        .unwrap();
    assert!(resumed.deadline_us.is_some());
    assert_eq!(bench.ended(&id).await.outcome, Some(Outcome::Applied));
    bench.actuator.assert_once();
}
