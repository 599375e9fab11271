//! Targets leave traffic before they are restarted, and come back once they serve.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::bench::{BEFORE, Bench, cap, engine, rollback, until};
use crate::agent::{CanaryAsked, StrategyAsked, WorkflowStart};
use crate::workflow::{Phase, Status, TargetPhase};

/// Two targets, an engine each, that requests are routed to.
async fn routed() -> Bench {
    let mut urls = Vec::new();
    for _ in 0..2 {
        urls.push(engine(Arc::new(AtomicBool::new(true)), Arc::default()).await);
    }
    let known = urls.clone();
    let bench = Bench::with(2, |config| {
        config.instances[0].metrics_url = None;
        config.instances[0].metrics_urls = known;
    })
    .await;
    for (target, url) in bench.actuator.desk().targets.iter_mut().zip(urls) {
        target.metrics_url = Some(url);
        target.takes_requests = Some(true);
    }
    bench
}

fn canary(drain: Duration) -> WorkflowStart {
    WorkflowStart {
        auto_approve: true,
        strategy: StrategyAsked::Canary(CanaryAsked {
            shares: vec![0.5],
            drain: Some(drain),
            ..CanaryAsked::default()
        }),
        ..cap("8")
    }
}

#[tokio::test]
async fn capacity_is_back_before_traffic_is_on_the_way_there_and_back() {
    let bench = routed().await;
    let started = bench.start(canary(Duration::ZERO)).await.unwrap();
    let id = started.workflow_id;
    bench
        .state(&id, |state| state.phase == Phase::Observing)
        .await;
    // out while it serves, and back when it serves again
    assert_eq!(
        bench.actuator.desk().routed,
        [(0, false, true), (0, true, true)]
    );
    bench.ask(&id, rollback()).await.unwrap();
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert_eq!(
        bench.actuator.desk().routed[2..],
        [(0, false, true), (0, true, true)]
    );
    assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
    bench.actuator.assert_once();
}

#[tokio::test]
async fn a_target_that_was_only_taken_out_of_traffic_is_put_back() {
    let mut bench = routed().await;
    let long = Duration::from_secs(600);
    let started = bench.start(canary(long)).await.unwrap();
    let id = started.workflow_id;
    let is_out = |bench: &Bench| bench.actuator.desk().targets[0].takes_requests == Some(false);
    until(async || is_out(&bench).then_some(())).await;
    let state = bench.agent().workflow(&id).await.unwrap();
    assert_eq!(state.targets[0].phase, TargetPhase::Draining);
    // whoever carries it on knows
    bench.end().await;
    bench.begin().await;
    assert!(is_out(&bench));
    bench.ask(&id, rollback()).await.unwrap();
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert!(!is_out(&bench));
    assert_eq!(bench.actuator.contents(), [BEFORE, BEFORE]);
    assert_eq!(bench.actuator.desk().targets[1].takes_requests, Some(true));
}

#[tokio::test]
async fn a_target_that_somebody_else_took_out_of_traffic_stays_out() {
    let bench = routed().await;
    bench.actuator.desk().targets[0].takes_requests = Some(false);
    let started = bench.start(canary(Duration::ZERO)).await.unwrap();
    let id = started.workflow_id;
    bench
        .state(&id, |state| state.phase == Phase::Observing)
        .await;
    bench.ask(&id, rollback()).await.unwrap();
    let done = bench.ended(&id).await;
    assert_eq!(done.status(), Status::RolledBack, "{done:#?}");
    assert_eq!(bench.actuator.desk().routed, []);
    assert_eq!(bench.actuator.desk().targets[0].takes_requests, Some(false));
}
