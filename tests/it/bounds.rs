//! Bounds on windows, batches, deadlines, connections and URLs, and what a reset within a window does.

use prost::Message;
use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::edge::grpc::pb;
use tonic::Code;

use crate::errors::{Seen, hint};
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, request};

#[tokio::test]
async fn windows_beyond_their_bounds_are_refused() {
    let agent = TestAgent::start().await;
    let engine = counting_vllm(|_| 1).await;
    let mut client = agent.metrics().await;
    let seen = Seen::default();
    let too_long = request("vllm", &[&engine.url()], 300_001);
    let status = client.collect_metrics(too_long).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    let mut late = tonic::Request::new(request("vllm", &[&engine.url()], 5_000));
    late.set_timeout(Duration::from_secs(3));
    let status = client.collect_metrics(late).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert!(status.message().contains("deadline"), "{status:?}");
    let mut negative = request("vllm", &[&engine.url()], 0);
    negative.window = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    let status = client.collect_metrics(negative).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert_eq!(engine.connections(), 0, "refused before anything is asked");
}

#[tokio::test]
async fn batches_beyond_their_bounds_are_refused() {
    let agent = TestAgent::start().await;
    let seen = Seen::default();
    let mut client = agent.metrics().await;
    for count in [0, 101] {
        let requests = vec![request("vllm", &["http://127.0.0.1:1/metrics"], 0); count];
        let batch = pb::BatchCollectMetricsRequest { requests };
        let status = client.batch_collect_metrics(batch).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    }
    let requests = vec![request("vllm", &["http://127.0.0.1:1/metrics"], 0); 100];
    let batch = pb::BatchCollectMetricsRequest { requests };
    let mut stream = client
        .batch_collect_metrics(batch)
        .await
        .unwrap()
        .into_inner();
    let mut results = 0;
    while stream.message().await.unwrap().is_some() {
        results += 1;
    }
    assert_eq!(results, 100);
}

/// What is asked comes back with its refusal, but no more of it than an id can be.
#[tokio::test]
async fn a_refusal_is_not_as_long_as_what_was_asked() {
    let agent = TestAgent::start().await;
    let mut client = agent.metrics().await;
    let batch = pb::BatchCollectMetricsRequest {
        requests: vec![pb::CollectMetricsRequest {
            instance_id: "x".repeat(3_000_000),
            ..Default::default()
        }],
    };
    let mut answers = client
        .batch_collect_metrics(batch)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.encoded_len() < 10_000, "{}", answer.encoded_len());
    assert!(answer.instance_id.starts_with("xxx"));
}

#[tokio::test]
async fn a_deadline_holds_in_mid_stream() {
    let agent = TestAgent::start().await;
    let slow = FakeEngine::start(|_, _| Answer::Hang).await;
    let quick = counting_vllm(|_| 1).await;
    let requests = vec![
        request("vllm", &[&quick.url()], 0),
        request("vllm", &[&slow.url()], 0),
    ];
    let mut batch = tonic::Request::new(pb::BatchCollectMetricsRequest { requests });
    batch.set_timeout(Duration::from_secs(4));
    let mut stream = agent
        .metrics()
        .await
        .batch_collect_metrics(batch)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().index, 0);
    let status = stream.message().await.unwrap_err();
    Seen::default().check(&status, Code::DeadlineExceeded, Reason::DeadlineExceeded);
}

#[tokio::test]
async fn one_peer_opens_at_most_32_connections_to_engines() {
    let agent = TestAgent::with(|config| config.scrape.timeout = Duration::from_secs(60)).await;
    let slow = FakeEngine::start(|_, _| Answer::Hang).await;
    let requests = vec![request("vllm", &[&slow.url()], 0); 100];
    let batch = pb::BatchCollectMetricsRequest { requests };
    let _stream = agent
        .metrics()
        .await
        .batch_collect_metrics(batch)
        .await
        .unwrap();
    let open = || slow.open.load(std::sync::atomic::Ordering::SeqCst);
    let reached = async {
        while open() < 32 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .expect("32 connections");
    // as many again could be open by now if nothing held them
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert!(open() <= 32);
    }
}

#[tokio::test]
async fn refused_urls_are_never_connected_to() {
    // an agent that serves other machines fetches only what is listed
    let engine = counting_vllm(|_| 1).await;
    let mut through = TestAgent::with(|config| {
        config.server.listen = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        config.server.insecure_listen = true;
    })
    .await;
    let seen = Seen::default();
    let port = engine.address.port();
    let at = |host: &str| format!("http://{host}:{port}/metrics");
    through.address = ([127, 0, 0, 1], through.address.port()).into();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0.0.0.0",
    ] {
        let status = through.totals("vllm", &at(host)).await.unwrap_err();
        seen.check(&status, Code::PermissionDenied, Reason::UrlRefused);
    }
    assert_eq!(engine.connections(), 0);
    // redirects are not followed to where the URL itself could not go
    let redirecting = FakeEngine::start(|_, _| Answer::Plain(302, Vec::new())).await;
    let agent = TestAgent::start().await;
    let status = agent.totals("vllm", &redirecting.url()).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::HttpStatus);
    assert!(hint(&status).contains("redirects"));
}

#[tokio::test]
async fn a_counter_reset_in_mid_window_is_told() {
    let engine = counting_vllm(|count| [1_000, 1_100, 50, 150][count.min(3)]).await;
    let agent = TestAgent::start().await;
    let answer = agent
        .metrics()
        .await
        .collect_metrics(request("vllm", &[&engine.url()], 3_000))
        .await;
    let measurement = answer.unwrap().into_inner().measurement.unwrap();
    assert_eq!(measurement.notes[0].code, "RESTARTED");
    let replica = &measurement.replicas[0];
    assert_eq!(replica.dropped_intervals[0].cause, "RESTARTED");
    let rate = measurement
        .throughput_metrics
        .unwrap()
        .tokens_per_second
        .unwrap();
    let observed = measurement.window.unwrap().observed_seconds.unwrap();
    assert!(
        (rate - 200.0 / observed).abs() < 1e-9,
        "{rate} over {observed}"
    );
}

#[tokio::test]
async fn registered_instances_do_not_go_round_the_bounds() {
    let agent = TestAgent::start().await;
    let seen = Seen::default();
    let mut client = agent.instances().await;
    let urls = |at: usize| -> Vec<String> {
        (0..64)
            .map(|replica| format!("http://127.0.0.1:{}/{at}", replica + 1))
            .collect()
    };
    let mut wide = Vec::new();
    for at in 0..20 {
        let mut one = crate::instances::registration(&format!("i-{at}"), "");
        one.metrics_urls = urls(at);
        one.scrape_interval = None;
        one.window = None;
        client.register_instance(one).await.unwrap();
        wide.push(pb::CollectMetricsRequest {
            instance_id: format!("i-{at}"),
            window: Some(prost_types::Duration::default()),
            ..pb::CollectMetricsRequest::default()
        });
    }
    // 1,280 replicas, though no URL is in the request
    let batch = pb::BatchCollectMetricsRequest { requests: wide };
    let status = agent
        .metrics()
        .await
        .batch_collect_metrics(batch)
        .await
        .unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    // 10,000 replicas in all, by updates too
    let mut refused = None;
    for at in 20..200 {
        let one = crate::instances::registration(&format!("i-{at}"), "http://127.0.0.1:1/metrics");
        client.register_instance(one).await.unwrap();
        let wider = pb::Instance {
            instance_id: format!("i-{at}"),
            metrics_urls: urls(at),
            ..pb::Instance::default()
        };
        let update = pb::UpdateInstanceRequest {
            instance: Some(wider),
            ..Default::default()
        };
        if let Err(status) = client.update_instance(update).await {
            refused = Some((at, status));
            break;
        }
    }
    let (at, status) = refused.expect("it is refused");
    seen.check(&status, Code::ResourceExhausted, Reason::TooManyInstances);
    // 156 instances of 64 are 9,984
    assert_eq!(at, 156);
}

#[tokio::test]
async fn probes_are_answered_when_calls_are_not() {
    use perfagent::edge::grpc::health_pb::HealthCheckRequest;
    use perfagent::edge::grpc::health_pb::health_client::HealthClient;
    let agent = TestAgent::with(|config| config.server.max_calls = 1).await;
    let mut health = HealthClient::new(agent.channel().await);
    let _held = health.watch(HealthCheckRequest::default()).await.unwrap();
    let engine = counting_vllm(|_| 1).await;
    let status = agent.totals("vllm", &engine.url()).await.unwrap_err();
    Seen::default().check(&status, Code::ResourceExhausted, Reason::TooManyCalls);
    health.check(HealthCheckRequest::default()).await.unwrap();
}
