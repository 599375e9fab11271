//! What to change, over the wire: one answer whatever it is asked about, the guide's third use case, what is refused, and
//! predictions that are kept.

use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::edge::grpc::{convert_struct, pb};
use prost_types::Struct;
use tonic::Code;
use tonic_types::StatusExt;

use crate::compare::wire;
use crate::diagnosing::recorded;
use crate::errors::Seen;
use crate::fake::TestAgent;
use crate::instances::millis;
use crate::simulator::simulate;

const SATURATED: &str = "vllm-0.32.0/c-saturation";

fn settings<const N: usize>(of: [(&str, Option<&str>); N]) -> Option<Struct> {
    Some(convert_struct::struct_of(of))
}

fn bare(cause: &str) -> Vec<pb::Bottleneck> {
    vec![pb::Bottleneck {
        cause: cause.to_owned(),
        ..Default::default()
    }]
}

async fn recommend(
    agent: &TestAgent,
    request: pb::RecommendOptimizationsRequest,
) -> Result<pb::RecommendOptimizationsResponse, tonic::Status> {
    let mut client = agent.optimization().await;
    let answer = client.recommend_optimizations(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_target_and_its_measurement_are_advised_alike() {
    let agent = TestAgent::start().await;
    let engine = recorded(SATURATED).await;
    let target = pb::RecommendOptimizationsRequest {
        instance_id: "engine-1".to_owned(),
        metrics_url: engine.url(),
        window: Some(millis(1_000)),
        ..Default::default()
    };
    let of_target = recommend(&agent, target).await.unwrap();
    assert_eq!(of_target.advice(), pb::OptimizationAdvice::Change);
    assert_eq!(of_target.instance_type, "vllm");
    assert!(of_target.window.is_some() && !of_target.settings.is_empty());
    let first = &of_target.optimizations[0];
    assert!(
        first.treats.contains(&"SEQUENCE_CAP".to_owned()),
        "{first:?}"
    );
    let cap = &first.changes[0];
    assert_eq!(cap.flag, "--max-num-seqs");
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<u32>().unwrap();
    assert!(number(&cap.to_value) > number(&cap.from_value), "{cap:?}");
    for word in [&first.title, &first.description, &first.reason, &first.undo] {
        assert!(!word.is_empty(), "{first:?}");
    }
    // what is said to get better is what is predicted
    let prediction = first.prediction.as_ref().unwrap();
    for one in &prediction.quantities {
        assert!(
            one.ratio_low <= one.ratio && one.ratio <= one.ratio_high,
            "{one:?}"
        );
        assert!(
            (one.after - one.before * one.ratio).abs() <= 1e-9 * one.after.abs(),
            "{one:?}"
        );
        if (one.quantity.as_str(), one.statistic.as_str())
            == ("time_to_first_token_seconds", "mean")
        {
            assert_eq!(first.estimated_improvement["ttft"], 1.0 - one.ratio);
        }
    }
    assert_eq!(
        first.estimated_improvement.len(),
        prediction.quantities.len()
    );

    let of_measurement = pb::RecommendOptimizationsRequest {
        measurement: Some(wire(SATURATED)),
        ..Default::default()
    };
    let of_measurement = recommend(&agent, of_measurement).await.unwrap();
    assert_eq!(of_measurement.advice(), of_target.advice());
    let changes =
        |of: &pb::RecommendOptimizationsResponse| of.optimizations[0].changes[0].name.clone();
    assert_eq!(changes(&of_measurement), changes(&of_target));
}

/// Bottlenecks and settings alone: ranked, without numbers, and the answer says why.
#[tokio::test]
async fn without_a_measurement_settings_are_ranked_and_nothing_is_predicted() {
    let agent = TestAgent::start().await;
    let request = pb::RecommendOptimizationsRequest {
        instance_id: "vllm-1".to_owned(),
        instance_type: "vllm".to_owned(),
        bottlenecks: vec![pb::Bottleneck {
            r#type: pb::BottleneckType::QueueBuildup.into(),
            ..Default::default()
        }],
        current_config: settings([
            ("max_batch_size", Some("32")),
            ("quantization", None),
            ("no_such_setting", Some("1")),
        ]),
        ..Default::default()
    };
    let answer = recommend(&agent, request.clone()).await.unwrap();
    assert_eq!(answer.window, None);
    let first = &answer.optimizations[0];
    assert_eq!(first.changes[0].name, "max_num_seqs");
    assert_eq!(first.changes[0].from_value.as_deref(), Some("32"));
    for one in &answer.optimizations {
        assert!(!one.not_predictable_reason.is_empty(), "{one:?}");
        assert!(one.prediction.is_none() && one.estimated_improvement.is_empty());
    }
    let named = |remark: &String| remark.contains("no_such_setting");
    assert!(answer.remarks.iter().any(named), "{:?}", answer.remarks);
    let cap = answer
        .settings
        .iter()
        .find(|one| one.name == "max_num_seqs")
        .unwrap();
    assert_eq!(cap.value.as_deref(), Some("32"));
    assert_eq!(cap.source(), pb::SettingSource::Declared);

    let constrained = pb::RecommendOptimizationsRequest {
        constraints: Some(pb::OptimizationConstraints {
            no_restart: true,
            ..Default::default()
        }),
        ..request
    };
    let answer = recommend(&agent, constrained).await.unwrap();
    assert!(answer.optimizations.iter().all(|one| !one.needs_restart));
    assert!(!answer.left_out.is_empty());
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_its_field() {
    let agent = TestAgent::start().await;
    let seen = Seen::default();
    let told = || pb::RecommendOptimizationsRequest {
        instance_id: "vllm-1".to_owned(),
        instance_type: "vllm".to_owned(),
        bottlenecks: bare("SEQUENCE_CAP"),
        ..Default::default()
    };
    let cases = [
        (
            pb::RecommendOptimizationsRequest {
                metrics_url: "http://127.0.0.1:1/metrics".to_owned(),
                ..told()
            },
            "metrics_url",
        ),
        (
            pb::RecommendOptimizationsRequest {
                instance_type: "auto".to_owned(),
                ..told()
            },
            "instance_type",
        ),
        (
            pb::RecommendOptimizationsRequest {
                bottlenecks: bare("SEQUENCE_CAPS"),
                ..told()
            },
            "bottlenecks[0].cause",
        ),
        (
            pb::RecommendOptimizationsRequest {
                constraints: Some(pb::OptimizationConstraints {
                    must_hold: vec![pb::Slo::default()],
                    ..Default::default()
                }),
                ..told()
            },
            "constraints.must_hold[0].target",
        ),
    ];
    for (request, field) in cases {
        let status = recommend(&agent, request).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field, "{violations:?}");
    }
    let nobody = pb::RecommendOptimizationsRequest {
        instance_id: "nobody".to_owned(),
        ..Default::default()
    };
    let status = recommend(&agent, nobody).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::InstanceNotFound);
    let mut client = agent.optimization().await;
    let nothing = pb::PredictPerformanceRequest {
        measurement: Some(wire(SATURATED)),
        ..Default::default()
    };
    let status = client.predict_performance(nothing).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    for wrong in [
        pb::ListPredictionsRequest {
            page_token: "x".to_owned(),
            ..Default::default()
        },
        pb::ListPredictionsRequest {
            state: 9,
            ..Default::default()
        },
    ] {
        let status = client.list_predictions(wrong).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    }
}

#[tokio::test]
async fn the_settings_in_force_can_be_sent_back() {
    let agent = TestAgent::start().await;
    let engine = recorded(SATURATED).await;
    let request = pb::GetInstanceConfigRequest {
        instance_id: "engine-1".to_owned(),
        metrics_url: engine.url(),
        window: Some(millis(1_000)),
        ..Default::default()
    };
    let mut client = agent.optimization().await;
    let told = client
        .get_instance_config(request)
        .await
        .unwrap()
        .into_inner();
    let config = told.config.unwrap();
    for setting in &told.settings {
        let known = setting.state() == pb::SettingState::Known;
        assert_eq!(known, setting.value.is_some(), "{setting:?}");
        let unknown = setting.state() == pb::SettingState::Unknown;
        assert_ne!(
            config.fields.contains_key(&setting.name),
            unknown,
            "{setting:?}"
        );
    }
    assert!(
        told.settings
            .iter()
            .any(|one| one.state() == pb::SettingState::Known)
    );
    let request = pb::RecommendOptimizationsRequest {
        instance_id: "vllm-1".to_owned(),
        instance_type: "vllm".to_owned(),
        bottlenecks: bare("SEQUENCE_CAP"),
        current_config: Some(config),
        ..Default::default()
    };
    let answer = recommend(&agent, request).await.unwrap();
    let value = |settings: &[pb::SettingInForce]| {
        let cap = settings.iter().find(|one| one.name == "max_num_seqs");
        cap.unwrap().value.clone()
    };
    assert_eq!(value(&answer.settings), value(&told.settings));
}

#[tokio::test]
async fn the_settings_in_force_sent_back_as_a_change_leave_nothing_to_do() {
    let mut engines = Vec::new();
    for engine in ["vllm", "sglang", "tgi"] {
        let arguments = format!("--engine {engine} --speed 10");
        engines.push((engine, simulate(1, &arguments).await));
    }
    let agent = TestAgent::with(|config| {
        config.workflows.auto_approve = true;
        let actuator = "name = \"sim\"\ntype = \"simulator\"";
        config.actuators.push(toml::from_str(actuator).unwrap());
        for (engine, simulator) in &engines {
            let instance = format!(
                "instance_id = {engine:?}\nmetrics_url = {:?}\nscrape_interval = \"500ms\"\nwindow = \"2s\"\n\
                 actuator = \"sim\"",
                simulator.urls[0]
            );
            config.instances.push(toml::from_str(&instance).unwrap());
        }
    })
    .await;
    for (engine, _) in &engines {
        let request = pb::GetInstanceConfigRequest {
            instance_id: (*engine).to_owned(),
            ..Default::default()
        };
        let mut client = agent.optimization().await;
        let told = client.get_instance_config(request).await.unwrap();
        let config = told.into_inner().config.unwrap();
        assert!(config.fields.len() > 3, "{engine}: {config:?}");
        let request = pb::StartWorkflowRequest {
            request_id: uuid::Uuid::now_v7().to_string(),
            instance_id: (*engine).to_owned(),
            workflow_type: "config_change".to_owned(),
            changes: Some(config),
            ..Default::default()
        };
        let mut workflows = agent.workflows().await;
        let started = workflows.start_workflow(request).await.unwrap();
        let workflow_id = started.into_inner().workflow.unwrap().workflow_id;
        let watch = pb::WatchWorkflowRequest {
            workflow_id: workflow_id.clone(),
            ..Default::default()
        };
        let mut told = workflows.watch_workflow(watch).await.unwrap().into_inner();
        // it ends with its workflow
        while told.message().await.unwrap().is_some() {}
        let got = pb::GetWorkflowRequest { workflow_id };
        let got = workflows.get_workflow(got).await.unwrap().into_inner();
        let workflow = got.workflow.unwrap();
        assert_eq!(
            workflow.outcome(),
            pb::WorkflowOutcome::NothingToDo,
            "{engine}: {workflow:?}"
        );
    }
}

#[tokio::test]
async fn what_is_predicted_of_an_instance_is_kept_and_listed() {
    let agent = TestAgent::start().await;
    let engine = simulate(1, "--max-num-seqs 4 --clients 32 --speed 10").await;
    let registered = pb::RegisterInstanceRequest {
        instance_id: "sim-1".to_owned(),
        metrics_url: engine.urls[0].clone(),
        scrape_interval: Some(millis(500)),
        window: Some(millis(4_000)),
        ..Default::default()
    };
    agent
        .instances()
        .await
        .register_instance(registered)
        .await
        .unwrap();
    let mut client = agent.optimization().await;
    // of its first windows too little was seen
    let mut windows = agent
        .metrics()
        .await
        .watch_metrics(pb::WatchMetricsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    let predicted = loop {
        windows.message().await.unwrap().unwrap();
        let request = pb::PredictPerformanceRequest {
            instance_id: "sim-1".to_owned(),
            changes: settings([("max-num-seqs", Some("16"))]),
            ..Default::default()
        };
        match client.predict_performance(request).await {
            Ok(answer) if answer.get_ref().prediction.is_some() => break answer.into_inner(),
            other => assert!(tokio::time::Instant::now() < end, "{other:?}"),
        }
    };
    assert!(
        predicted.simulated && !predicted.prediction_id.is_empty(),
        "{predicted:?}"
    );
    assert_eq!(predicted.changes[0].from_value.as_deref(), Some("4"));
    assert_eq!(predicted.changes[0].to_value.as_deref(), Some("16"));
    let list = |request| async { agent.optimization().await.list_predictions(request).await };
    let all = list(pb::ListPredictionsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let kept = all
        .predictions
        .iter()
        .find(|one| one.prediction_id == predicted.prediction_id);
    let kept = kept.unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(kept.state(), pb::PredictionState::Open);
    assert_eq!(kept.origin(), pb::PredictionOrigin::Asked);
    assert_eq!((kept.lever.as_str(), kept.changes.len()), ("custom", 1));
    assert!(kept.predict_time.is_some() && kept.end_time.is_none() && kept.simulated);
    assert!(
        kept.quantities
            .iter()
            .all(|one| one.predicted.is_some() && one.actual.is_none())
    );
    for (instance_id, state, count) in [
        ("sim-1", pb::PredictionState::Open, all.predictions.len()),
        ("sim-1", pb::PredictionState::Closed, 0),
        ("another", pb::PredictionState::Unspecified, 0),
    ] {
        let some = list(pb::ListPredictionsRequest {
            instance_id: instance_id.to_owned(),
            state: state.into(),
            ..Default::default()
        });
        let some = some.await.unwrap().into_inner();
        assert_eq!(some.predictions.len(), count, "{instance_id} {state:?}");
    }
}
