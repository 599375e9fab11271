//! What goes wrong: an actuator that fails, lies or hangs, settings that others change, a process that ends anywhere.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bench::{BEFORE, Bench, Fault, cap, rollback};
use crate::agent::{Error, TimeoutsAsked, WorkflowStart, WorkflowVerb};
use crate::store::StoreError;
use crate::workflow::{Outcome, PauseReason, Phase, RollbackCause, Status, Workflow};

fn at_once() -> WorkflowStart {
    WorkflowStart {
        auto_approve: true,
        ..cap("8")
    }
}

fn changed() -> Vec<u8> {
    b"[\"--max-num-seqs\",\"8\",\"--api-key\",\"s3cret\"]\n".to_vec()
}

#[tokio::test]
async fn done_but_told_it_failed_comes_to_the_same() {
    for fault in [Fault::ToldFailed, Fault::HangsAfter] {
        let bench = Bench::new(1).await;
        bench.actuator.desk().fault = fault;
        let id = bench.start(at_once()).await.unwrap().workflow_id;
        let done = bench.ended(&id).await;
        assert_eq!(done.outcome, Some(Outcome::Applied), "{fault:?}: {done:#?}");
        assert_eq!(bench.actuator.contents(), [changed()]);
        bench.actuator.assert_once();
    }
}

#[tokio::test]
async fn a_failing_or_lying_actuator_is_said_and_rolled_back() {
    for fault in [Fault::Fails, Fault::Lies] {
        let bench = Bench::new(2).await;
        bench.actuator.desk().fault = fault;
        let id = bench.start(at_once()).await.unwrap().workflow_id;
        let rolling = |state: &Workflow| state.rollback.is_some();
        let state = bench.state(&id, rolling).await;
        assert_eq!(state.rollback.unwrap().cause, RollbackCause::Failure);
        bench.actuator.desk().fault = Fault::None;
        let done = bench.ended(&id).await;
        assert_eq!(done.status(), Status::RolledBack, "{fault:?}: {done:#?}");
        assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
        bench.actuator.assert_once();
    }
}

/// What failed in good order leaves nothing behind that could take effect later, and needs no restore that works.
#[tokio::test]
async fn what_failed_before_it_changed_anything_is_over() {
    let bench = Bench::new(1).await;
    bench.actuator.desk().fault = Fault::Fails;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert_eq!(bench.actuator.contents(), [BEFORE]);
}

/// What was not heard of could still take effect: only a restore that is known to have worked keeps it out.
#[tokio::test]
async fn what_may_come_late_is_restored_though_it_is_there_already() {
    let bench = Bench::new(1).await;
    bench.actuator.desk().fault = Fault::HangsBefore;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    let restoring = |state: &Workflow| matches!(state.phase, Phase::Restoring { .. });
    bench.state(&id, restoring).await;
    let before = bench.actuator.desk().writes;
    while bench.actuator.desk().writes < before + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.actuator.desk().fault = Fault::None;
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    let restored = bench.actuator.desk().targets[0].clone();
    assert_eq!(restored.content, BEFORE);
    assert_eq!(restored.operation_id, done.targets[0].operation_id);
    assert!(restored.epoch.is_some());
}

#[tokio::test]
async fn a_target_that_does_not_get_ready_is_rolled_back() {
    let bench = Bench::new(2).await;
    bench.actuator.desk().never_ready_with = Some("\"8\"");
    let start = WorkflowStart {
        timeouts: TimeoutsAsked {
            ready: Some(Duration::from_secs(1)),
            ..TimeoutsAsked::default()
        },
        ..at_once()
    };
    let id = bench.start(start).await.unwrap().workflow_id;
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
    // the second target was never touched
    assert_eq!(bench.actuator.desk().targets[1].revision, 1);
}

#[tokio::test]
async fn what_others_change_is_not_overwritten_unless_somebody_says_so() {
    let theirs = b"[\"--max-num-seqs\",\"12\"]\n".to_vec();
    for resumes in [true, false] {
        let bench = Bench::new(1).await;
        bench.actuator.desk().loads_for = u32::MAX;
        let id = bench.start(at_once()).await.unwrap().workflow_id;
        bench
            .state(&id, |state| {
                matches!(state.phase, Phase::AwaitingReady { .. })
            })
            .await;
        bench.actuator.changed_by_others(0, &theirs);
        let paused = bench
            .state(&id, |state| state.status() == Status::Paused)
            .await;
        assert_eq!(paused.pause.unwrap().reason, PauseReason::Drift);
        bench.actuator.desk().loads_for = 0;
        assert_eq!(bench.actuator.contents(), [theirs.as_slice()]);
        if resumes {
            bench
                .ask(
                    &id,
                    WorkflowVerb::Resume {
                        note: String::new(),
                    },
                )
                .await
                .unwrap();
            assert_eq!(bench.ended(&id).await.outcome, Some(Outcome::Applied));
            assert_eq!(bench.actuator.contents(), [theirs.as_slice()]);
        } else {
            bench.ask(&id, rollback()).await.unwrap();
            assert_eq!(bench.ended(&id).await.status(), Status::RolledBack);
            assert_eq!(bench.actuator.contents(), [BEFORE]);
        }
    }
}

#[tokio::test]
async fn a_completed_change_that_others_changed_since_is_rolled_back_only_by_a_second_word() {
    let bench = Bench::new(1).await;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    bench.ended(&id).await;
    bench.actuator.changed_by_others(0, b"[]\n");
    bench.ask(&id, rollback()).await.unwrap();
    let failed = bench.ended(&id).await;
    assert_eq!(failed.status(), Status::RollbackFailed);
    assert_eq!(failed.failure.unwrap().reason, "DRIFT");
    assert_eq!(bench.actuator.contents(), [b"[]\n"]);
    let locked = bench.start(at_once()).await.unwrap_err();
    assert!(matches!(locked, Error::Store(StoreError::Locked { .. })));
    bench.ask(&id, rollback()).await.unwrap();
    bench
        .state(&id, |state| state.status() == Status::RolledBack)
        .await;
    assert_eq!(bench.actuator.contents(), [BEFORE]);
    bench.start(at_once()).await.unwrap();
}

#[tokio::test]
async fn a_rollback_that_fails_locks_the_instance_until_somebody_takes_over() {
    let bench = Bench::new(1).await;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    bench.ended(&id).await;
    bench.actuator.desk().fault = Fault::Unreadable;
    bench.ask(&id, rollback()).await.unwrap();
    let failed = bench.ended(&id).await;
    assert_eq!(failed.status(), Status::RollbackFailed, "{failed:#?}");
    let cancel = |acknowledge| WorkflowVerb::Cancel {
        acknowledge,
        note: String::new(),
    };
    bench.ask(&id, cancel(false)).await.unwrap_err();
    let over = bench.ask(&id, cancel(true)).await.unwrap();
    assert_eq!(
        (over.status(), over.outcome),
        (Status::Cancelled, Some(Outcome::Abandoned))
    );
    bench.actuator.desk().fault = Fault::None;
    bench.start(at_once()).await.unwrap();
}

#[tokio::test]
async fn a_process_that_ends_anywhere_is_carried_on() {
    // after each number of events, until one run gets through before it is ended
    for after in 1..12 {
        let mut bench = Bench::new(2).await;
        let id = bench.start(at_once()).await.unwrap().workflow_id;
        bench
            .state(&id, |state| {
                state.sequence >= after || state.status().has_ended()
            })
            .await;
        bench.end().await;
        bench.begin().await;
        let done = bench.ended(&id).await;
        assert_eq!(
            done.outcome,
            Some(Outcome::Applied),
            "after {after}: {done:#?}"
        );
        assert_eq!(bench.actuator.contents(), [changed(), changed()]);
        bench.actuator.assert_once();
    }
}

/// Where a fault comes, on the way of two targets.
#[derive(Debug, Clone, Copy)]
enum At {
    /// While this target is written.
    Write(u32),
    /// While this target gets ready.
    Ready(u32),
    /// While what came of it is measured.
    Measure,
}

#[tokio::test]
async fn whatever_fails_between_the_first_write_and_the_end_everything_is_as_before() {
    let all = [
        At::Write(0),
        At::Write(1),
        At::Ready(0),
        At::Ready(1),
        At::Measure,
    ];
    for at in all {
        for fault in [Fault::Fails, Fault::Lies] {
            if !matches!(at, At::Write(_)) && fault == Fault::Lies {
                continue;
            }
            let bench = Bench::new(2).await;
            // each target is held at its loading, so that the fault comes where it is meant to
            bench.actuator.desk().loads_for = u32::MAX;
            if let At::Write(0) = at {
                bench.actuator.desk().fault = fault;
            }
            let start = WorkflowStart {
                timeouts: TimeoutsAsked {
                    ready: Some(Duration::from_secs(2)),
                    observe: Some(Duration::from_secs(2)),
                    ..TimeoutsAsked::default()
                },
                ..at_once()
            };
            let id = bench.start(start).await.unwrap().workflow_id;
            let loading = async |target| {
                let is = move |state: &Workflow| {
                    state.rollback.is_some() || state.phase == Phase::AwaitingReady { target }
                };
                bench.state(&id, is).await;
            };
            match at {
                At::Write(0) => {}
                At::Write(_) => {
                    loading(0).await;
                    bench.actuator.desk().fault = fault;
                    bench.actuator.desk().loads_for = 0;
                }
                At::Ready(0) => loading(0).await,
                At::Ready(_) => {
                    loading(0).await;
                    bench.actuator.desk().never_ready_with = None;
                    bench.actuator.desk().targets[0].loaded();
                    loading(1).await;
                }
                At::Measure => {
                    bench.actuator.desk().loads_for = 0;
                    bench
                        .state(&id, |state| state.phase == Phase::Measuring)
                        .await;
                    bench.serves.store(false, Ordering::SeqCst);
                }
            }
            let rolling = bench.state(&id, |state| state.rollback.is_some()).await;
            assert_eq!(rolling.rollback.unwrap().cause, RollbackCause::Failure);
            bench.actuator.desk().fault = Fault::None;
            bench.actuator.desk().loads_for = 0;
            let done = bench.ended(&id).await;
            assert_eq!(
                done.status(),
                Status::RolledBack,
                "{at:?} {fault:?}: {done:#?}"
            );
            assert_eq!(
                bench.actuator.contents(),
                [BEFORE, BEFORE],
                "{at:?} {fault:?}"
            );
            bench.actuator.assert_once();
        }
    }
}

#[tokio::test]
async fn what_is_secret_in_settings_is_nowhere_but_in_the_snapshot() {
    let bench = Bench::new(1).await;
    let id = bench.start(at_once()).await.unwrap().workflow_id;
    let done = bench.ended(&id).await;
    let state = format!("{}{done:?}", serde_json::to_string(&done).unwrap());
    let filter = crate::store::EventFilter::default();
    let events = bench
        .agent()
        .workflow_events(0, &filter, 100, Duration::ZERO)
        .await
        .unwrap();
    let snapshots = bench.agent().snapshots(None, None, 10).await.unwrap();
    let shown = format!(
        "{state}{events:?}{snapshots:?}{:?}",
        bench.actuator.desk().settings(0)
    );
    assert!(shown.contains("api-key") && !shown.contains("s3cret"));
}

#[tokio::test]
async fn a_change_that_stalls_the_engine_is_rolled_back_while_it_is_paused_too() {
    for pauses in [true, false] {
        let bench = Bench::with(1, |config| {
            config.thresholds.insert("stall_seconds".to_owned(), 1.0);
            config.instances[0].window = Some(Duration::from_secs(2));
        })
        .await;
        bench.actuator.desk().loads_for = u32::MAX;
        let id = bench.start(at_once()).await.unwrap().workflow_id;
        let loading = |state: &Workflow| matches!(state.phase, Phase::AwaitingReady { .. });
        bench.state(&id, loading).await;
        if pauses {
            let pause = WorkflowVerb::Pause {
                note: String::new(),
            };
            bench.ask(&id, pause).await.unwrap();
        }
        bench.stalls.store(true, Ordering::SeqCst);
        bench.actuator.desk().loads_for = 0;
        let rolling = bench.state(&id, |state| state.rollback.is_some()).await;
        assert_eq!(rolling.failure.unwrap().reason, "HARMED");
        let done = bench.ended(&id).await;
        assert_eq!(done.status(), Status::RolledBack, "{pauses}: {done:#?}");
        assert_eq!(bench.actuator.contents(), [BEFORE]);
    }
}
