//! The services as a client meets them.

use std::collections::HashMap;
use std::time::Duration;

use perfagent::edge::grpc::health_pb::health_check_response::ServingStatus;
use perfagent::edge::grpc::health_pb::health_client::HealthClient;
use perfagent::edge::grpc::health_pb::{HealthCheckRequest, HealthListRequest};
use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use perfagent::edge::grpc::pb::batch_collect_metrics_response::Result as BatchResult;

use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, request, vllm_body};

fn quantity(measurement: &pb::Measurement, name: &str) -> Option<f64> {
    let figures = measurement.figures.as_ref()?;
    let found = figures.quantities.iter().find(|one| one.name == name)?;
    match found.bound? {
        pb::quantity::Bound::Value(value) => Some(value),
        _ => None,
    }
}

#[tokio::test]
async fn a_window_is_measured_each_second() {
    let engine = counting_vllm(|count| 1_000 + 100 * count as u64).await;
    let agent = TestAgent::start().await;
    let answer = agent
        .metrics()
        .await
        .collect_metrics(request("vllm", &[&engine.url()], 2_000))
        .await
        .unwrap();
    let measurement = answer.into_inner().measurement.unwrap();
    let window = measurement.window.unwrap();
    assert_eq!(window.samples, 3);
    assert_eq!(window.kind(), pb::WindowKind::Interval);
    assert_eq!(measurement.engine_version.as_deref(), Some("0.32.0"));
    // two intervals of a hundred tokens
    assert_eq!(
        quantity(&measurement, "generation_tokens_increase"),
        Some(200.0)
    );
    let throughput = measurement.throughput_metrics.unwrap();
    let rate = throughput.tokens_per_second.unwrap();
    assert!((rate - 200.0 / window.observed_seconds.unwrap()).abs() < 1e-9);
    assert_eq!(throughput.generation_tokens_total, Some(1_200.0));
    assert_eq!(
        measurement.gpu_metrics.unwrap().num_requests_running,
        Some(2.0)
    );
    // not exported here, so not there: never 0
    assert_eq!(measurement.gpu_metrics.unwrap().cache_usage_perc, None);
}

#[tokio::test]
async fn an_unset_window_is_five_seconds_and_zero_is_totals() {
    let engine = counting_vllm(|count| 10 * count as u64).await;
    let agent = TestAgent::start().await;
    let mut unset = request("vllm", &[&engine.url()], 0);
    unset.window = None;
    let totals = agent.totals("vllm", &engine.url()).await.unwrap();
    let window = totals.window.unwrap();
    assert_eq!(
        (window.kind(), window.samples),
        (pb::WindowKind::SinceStart, 1)
    );
    let throughput = totals.throughput_metrics.unwrap();
    assert_eq!(throughput.tokens_per_second, None);
    assert!(throughput.generation_tokens_total.is_some());
    let measured = agent.metrics().await.collect_metrics(unset).await.unwrap();
    let window = measured.into_inner().measurement.unwrap().window.unwrap();
    assert_eq!(window.samples, 6);
    assert!(window.observed_seconds.unwrap() > 4.9, "{window:?}");
}

#[tokio::test]
async fn engines_are_recognised() {
    let agent = TestAgent::start().await;
    for (body, engine) in [
        (vllm_body(1), "vllm"),
        (
            "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs 1\n".to_owned(),
            "sglang",
        ),
        (
            "# TYPE tgi_queue_size gauge\ntgi_queue_size 1\n".to_owned(),
            "tgi",
        ),
    ] {
        let fake = FakeEngine::of(body).await;
        for asked in ["", "auto", engine] {
            let found = agent.totals(asked, &fake.url()).await.unwrap();
            assert_eq!(found.instance_type, engine, "asked for `{asked}`");
        }
    }
    // an idle TGI is recognised by /info alone
    let idle = FakeEngine::start(|path, _| match path {
        "/metrics" => Answer::ok(""),
        "/info" => Answer::ok("{\"version\":\"3.3.6\",\"router\":\"text-generation-router\"}"),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await;
    let found = agent.totals("auto", &idle.url()).await.unwrap();
    assert_eq!(found.instance_type, "tgi");
    assert_eq!(found.notes[0].code, "IDLE");
    assert_eq!(quantity(&found, "requests_finished_total"), Some(0.0));
}

#[tokio::test]
async fn a_failed_replica_does_not_hide_the_others() {
    let good = counting_vllm(|count| 10 * count as u64).await;
    let gone = FakeEngine::of("").await.url();
    let agent = TestAgent::start().await;
    let answer = agent
        .metrics()
        .await
        .collect_metrics(request("vllm", &[&gone, &good.url()], 500))
        .await
        .unwrap();
    let measurement = answer.into_inner().measurement.unwrap();
    let [first, second] = measurement.replicas.as_slice() else {
        panic!("two replicas")
    };
    assert_eq!(first.failure.as_ref().unwrap().reason, "CONNECT_FAILED");
    assert!(first.figures.is_none());
    assert!(second.failure.is_none());
    assert!(
        measurement
            .notes
            .iter()
            .any(|note| note.code == "REPLICA_FAILED")
    );
    assert_eq!(
        quantity(&measurement, "generation_tokens_increase"),
        Some(10.0)
    );
}

#[tokio::test]
async fn a_replica_that_hangs_does_not_stretch_the_window_of_the_others() {
    let good = counting_vllm(|count| 10 * count as u64).await;
    let hanging = FakeEngine::start(|_, _| Answer::Hang).await;
    // a window stretched by the one that hangs would be as long as its timeout
    let agent = TestAgent::with(|config| config.scrape.timeout = Duration::from_secs(8)).await;
    for engine in ["vllm", "auto"] {
        let both = request(engine, &[&hanging.url(), &good.url()], 300);
        let answer = agent.metrics().await.collect_metrics(both).await.unwrap();
        let measurement = answer.into_inner().measurement.unwrap();
        let [first, second] = measurement.replicas.as_slice() else {
            panic!("two replicas")
        };
        assert_eq!(first.failure.as_ref().unwrap().reason, "SCRAPE_TIMED_OUT");
        assert_eq!(second.samples, 2);
        let observed = measurement.window.unwrap().observed_seconds.unwrap();
        assert!(observed < 7.0, "{observed} s, asked for 0.3");
    }
}

#[tokio::test]
async fn a_batch_answers_each_as_it_is_ready() {
    let engine = counting_vllm(|count| 10 * count as u64).await;
    let agent = TestAgent::start().await;
    let gone = FakeEngine::of("").await.url();
    let mut negative = request("vllm", &[&engine.url()], 0);
    negative.window = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    let requests = vec![
        request("vllm", &[&engine.url()], 1_000),
        request("vllm", &[&gone], 1_000),
        request("vllm", &[&engine.url()], 0),
        negative,
    ];
    let mut stream = agent
        .metrics()
        .await
        .batch_collect_metrics(pb::BatchCollectMetricsRequest { requests })
        .await
        .unwrap()
        .into_inner();
    let mut order = Vec::new();
    let mut results = HashMap::new();
    while let Some(answer) = stream.message().await.unwrap() {
        order.push(answer.index);
        results.insert(answer.index, answer.result.unwrap());
    }
    assert_eq!(results.len(), 4);
    let BatchResult::Failure(wrong) = &results[&3] else {
        panic!("{results:?}")
    };
    assert_eq!(wrong.reason, "INVALID_ARGUMENT");
    assert_eq!(order.last(), Some(&0), "the longest window comes last");
    assert!(matches!(&results[&0], BatchResult::Measurement(_)));
    let BatchResult::Failure(failure) = &results[&1] else {
        panic!("{results:?}")
    };
    assert_eq!(failure.reason, "CONNECT_FAILED");
    assert_eq!(failure.code, tonic::Code::Unavailable as i32);
    assert!(
        failure
            .hint
            .as_deref()
            .unwrap()
            .contains("check that the engine runs")
    );
}

#[tokio::test]
async fn the_agent_says_what_it_is_and_can() {
    let agent = TestAgent::start().await;
    let mut client = AgentServiceClient::new(agent.channel().await);
    let info = client
        .get_agent_info(pb::GetAgentInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.limits.unwrap().max_batch, 100);
    let capabilities = client
        .get_capabilities(pb::GetCapabilitiesRequest {})
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = capabilities
        .engines
        .iter()
        .map(|engine| engine.name.as_str())
        .collect();
    assert_eq!(names, ["vllm", "sglang", "tgi"]);
    let levers = &capabilities.optimizers;
    assert!(
        levers
            .iter()
            .any(|one| one.name == "sequence_cap" && !one.custom)
    );
    assert!(levers.iter().all(|one| one.description.ends_with('.')));
    let actuators = &capabilities.actuators;
    assert_eq!((actuators.len(), actuators[0].kind.as_str()), (1, "none"));
    let tgi = &capabilities.engines[2];
    assert!(
        !tgi.quantities
            .contains(&"inter_token_latency_seconds".to_owned())
    );
    assert!(
        capabilities
            .quantities
            .iter()
            .all(|quantity| !quantity.description.is_empty())
    );
}

#[tokio::test]
async fn health_is_as_its_proto_says() {
    let agent = TestAgent::start().await;
    let mut health = HealthClient::new(agent.channel().await);
    let of = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in [
        "",
        "perfagent.v1.AnalysisService",
        "perfagent.v1.MetricsService",
        "perfagent.v1.OptimizationService",
        "perfagent.v1.WebhookService",
        "perfagent.v1.WorkflowService",
        "perfagent.v1.AgentService",
    ] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(
        health.check(of("nothing")).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    let listed = health
        .list(HealthListRequest {})
        .await
        .unwrap()
        .into_inner()
        .statuses;
    assert_eq!(listed.len(), 8);
    // a Watch of an unknown service says so and stays open
    let mut unknown = health.watch(of("nothing")).await.unwrap().into_inner();
    let first = unknown.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let mut known = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(
        known.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    // at the end both learn why
    agent.handle.stop();
    assert_eq!(
        known.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    for stream in [&mut known, &mut unknown] {
        let end = stream.message().await.unwrap_err();
        assert_eq!(end.code(), tonic::Code::Unavailable);
    }
    agent.served.await.unwrap();
}

#[tokio::test]
async fn one_process_under_two_urls_is_told() {
    let engine = FakeEngine::of(
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.7e+09\n\
         # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total 5\n\
         # TYPE vllm:generation_tokens_created gauge\nvllm:generation_tokens_created 1.7e+09\n",
    )
    .await;
    let agent = TestAgent::start().await;
    let mut client = agent.metrics().await;
    // the same place in another spelling is seen at once
    let port = engine.address.port();
    for twin in [
        format!("http://127.1:{port}/./metrics"),
        format!("{}#a", engine.url()),
    ] {
        let status = client
            .collect_metrics(request("vllm", &[&engine.url(), &twin], 0))
            .await
            .unwrap_err();
        assert!(status.message().contains("twice"), "{status:?}");
    }
    // another name for it only by what it answers
    let twin = format!("http://localhost:{port}/metrics");
    let both = request("vllm", &[&engine.url(), &twin], 0);
    let answer = client.collect_metrics(both).await.unwrap();
    let notes = answer.into_inner().measurement.unwrap().notes;
    assert!(
        notes.iter().any(|note| note.code == "SAME_PROCESS"),
        "{notes:?}"
    );
}
