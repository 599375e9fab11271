//! Every way in which a call can fail says so by its own reason, and the next call works.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use perfagent::agent::Reason;
use perfagent::edge::grpc::DOMAIN;
use perfagent::edge::grpc::health_pb::HealthCheckRequest;
use perfagent::edge::grpc::health_pb::health_client::HealthClient;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, gzip, request, vllm_body};

/// Reasons that a test has seen.
#[derive(Default)]
pub struct Seen(Mutex<BTreeSet<String>>);

impl Seen {
    /// Checks what must hold of every error, and notes its reason.
    pub fn check(&self, status: &Status, code: Code, reason: Reason) {
        assert_eq!(status.code(), code, "{status:?}");
        let info = status
            .get_details_error_info()
            .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(info.reason, reason.as_str(), "{status:?}");
        let retry = status.get_details_retry_info().is_some();
        let passes = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        assert_eq!(retry, passes, "RetryInfo on {status:?}");
        if reason == Reason::InvalidArgument {
            assert!(
                !status
                    .get_details_bad_request()
                    .unwrap()
                    .field_violations
                    .is_empty()
            );
        }
        self.0.lock().unwrap().insert(reason.as_str().to_owned());
    }
}

pub fn hint(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get("hint").cloned().unwrap_or_default()
}

#[tokio::test]
async fn every_reason_is_given_when_it_should_be() {
    let seen = Seen::default();
    let agent = TestAgent::with(|config| {
        config.scrape.timeout = Duration::from_secs(3);
        config.server.max_calls = 1_010;
    })
    .await;
    let healthy = counting_vllm(|_| 1).await;

    // the target
    let cases = [
        (
            Answer::Plain(404, Vec::new()),
            Code::FailedPrecondition,
            Reason::HttpStatus,
            "API port",
        ),
        (
            Answer::Plain(503, Vec::new()),
            Code::Unavailable,
            Reason::HttpStatus,
            "log",
        ),
        (
            Answer::ok("<html>"),
            Code::FailedPrecondition,
            Reason::NotMetrics,
            "/metrics",
        ),
        (
            Answer::ok("[]"),
            Code::FailedPrecondition,
            Reason::NotMetrics,
            "/metrics",
        ),
        (
            Answer::ok("a b c\n"),
            Code::FailedPrecondition,
            Reason::NotMetrics,
            "/metrics",
        ),
        (
            Answer::ok("node_load1 1\n"),
            Code::FailedPrecondition,
            Reason::NoKnownMetrics,
            "--disable-log-stats",
        ),
        (
            Answer::ok(""),
            Code::FailedPrecondition,
            Reason::NoKnownMetrics,
            "--disable-log-stats",
        ),
        (
            Answer::ok("tgi_queue_size 1\n"),
            Code::FailedPrecondition,
            Reason::WrongEngine,
            "auto",
        ),
        (
            Answer::Broken,
            Code::Unavailable,
            Reason::AnswerBroken,
            "try again",
        ),
        (
            Answer::Hang,
            Code::Unavailable,
            Reason::ScrapeTimedOut,
            "timeout",
        ),
        (
            Answer::Huge {
                bytes: 100_000_000,
                announced: true,
            },
            Code::FailedPrecondition,
            Reason::AnswerTooLarge,
            "metrics endpoint",
        ),
        (
            Answer::Huge {
                bytes: 100_000_000,
                announced: false,
            },
            Code::FailedPrecondition,
            Reason::AnswerTooLarge,
            "metrics endpoint",
        ),
        (
            Answer::Gzip(gzip(&vec![b'#'; 64 << 20])),
            Code::FailedPrecondition,
            Reason::AnswerTooLarge,
            "metrics endpoint",
        ),
    ];
    for (answer, code, reason, told) in cases {
        let cell = Mutex::new(Some(answer));
        let engine = FakeEngine::start(move |path, _| match path {
            "/metrics" => cell
                .lock()
                .unwrap()
                .take()
                .unwrap_or(Answer::Plain(404, Vec::new())),
            _ => Answer::Plain(404, Vec::new()),
        })
        .await;
        let status = agent.totals("vllm", &engine.url()).await.unwrap_err();
        seen.check(&status, code, reason);
        assert!(
            hint(&status).contains(told),
            "{reason:?}: {}",
            hint(&status)
        );
        agent
            .totals("vllm", &healthy.url())
            .await
            .expect("the next request works");
    }
    let status = agent
        .totals("sglang", "http://127.0.0.1:1/metrics")
        .await
        .unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::ConnectFailed);
    let plain = healthy.url().replace("http:", "https:");
    let status = agent.totals("vllm", &plain).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::TlsFailed);
    assert!(hint(&status).contains("https at all"));
    let not_started = FakeEngine::start(|_, _| Answer::Plain(404, Vec::new())).await;
    let status = agent
        .totals("sglang", &not_started.url())
        .await
        .unwrap_err();
    assert!(
        hint(&status).contains("--enable-metrics"),
        "{}",
        hint(&status)
    );
    let status = agent
        .totals("", "http://no-such-host.invalid/metrics")
        .await
        .unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::ResolveFailed);
    let status = agent
        .totals("", "http://169.254.169.254/metrics")
        .await
        .unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::UrlRefused);

    // replicas together
    let other = FakeEngine::of("# TYPE tgi_queue_size gauge\ntgi_queue_size 1\n").await;
    let mut client = agent.metrics().await;
    // told at once, and not when the window has passed: the call would last longer than the test
    let both = request("auto", &[&healthy.url(), &other.url()], 290_000);
    let status = client.collect_metrics(both).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::MixedEngines);
    let dying = FakeEngine::start(|path, count| match (path, count) {
        ("/metrics", 0) => Answer::ok(vllm_body(1)),
        _ => Answer::Plain(500, Vec::new()),
    })
    .await;
    let status = client
        .collect_metrics(request("vllm", &[&dying.url()], 300))
        .await
        .unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::TooFewSamples);

    // the request
    let status = client
        .collect_metrics(request("vlm", &["metrics"], 0))
        .await
        .unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    let fields: Vec<String> = status
        .get_details_bad_request()
        .unwrap()
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    assert_eq!(fields, ["instance_type", "metrics_url"]);
    let status = client
        .collect_metrics(request(&"x".repeat(5 << 20), &[], 0))
        .await
        .unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::RequestTooLarge);
    let status = raw(
        &agent,
        "/perfagent.v1.MetricsService/CollectMetrics",
        b"\xff\xff",
    )
    .await;
    seen.check(&status, Code::Internal, Reason::MalformedRequest);
    let status = raw(&agent, "/perfagent.v1.MetricsService/Nothing", b"").await;
    seen.check(&status, Code::Unimplemented, Reason::UnknownMethod);
    let status = raw(&agent, "/nothing.Service/Nothing", b"").await;
    seen.check(&status, Code::Unimplemented, Reason::UnknownMethod);

    let mut compressing = agent
        .patient_metrics()
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let packed = request("vllm", &[&healthy.url()], 0);
    let status = compressing.collect_metrics(packed).await.unwrap_err();
    seen.check(&status, Code::Unimplemented, Reason::UnsupportedEncoding);
    // URLs that are none are wrong arguments, not refusals
    for url in [
        "vllm:8000/metrics",
        "ftp://host/metrics",
        "http://u:p@host/metrics",
        "metrics",
    ] {
        let status = agent.totals("vllm", url).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
        assert!(!status.message().contains("u:p"), "{status:?}");
    }

    // the answer
    let many: String = (0..300)
        .map(|at| format!("vllm:num_requests_running{{engine=\"{at}\"}} 1\n"))
        .collect();
    let status = agent
        .totals("vllm", &FakeEngine::of(many).await.url())
        .await
        .unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::AnswerTooLarge);
    let wide = FakeEngine::of(many_buckets()).await;
    let same = FakeEngine::of(many_buckets()).await;
    let both = request("vllm", &[&wide.url(), &same.url()], 0);
    let status = client.collect_metrics(both).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::ResponseTooLarge);

    // the call
    let slow = FakeEngine::start(|_, _| Answer::Hang).await;
    let mut late = tonic::Request::new(request("vllm", &[&slow.url()], 0));
    late.set_timeout(Duration::from_millis(100));
    let status = agent
        .patient_metrics()
        .collect_metrics(late)
        .await
        .unwrap_err();
    seen.check(&status, Code::DeadlineExceeded, Reason::DeadlineExceeded);

    // too much at once: of one peer, and of all
    let mut health = HealthClient::new(agent.channel().await);
    let status = health
        .check(HealthCheckRequest {
            service: "nothing".to_owned(),
        })
        .await
        .unwrap_err();
    seen.check(&status, Code::NotFound, Reason::UnknownService);
    let mut open = Vec::new();
    for _ in 0..1_000 {
        open.push(health.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let status = agent.totals("vllm", &healthy.url()).await.unwrap_err();
    seen.check(&status, Code::ResourceExhausted, Reason::TooManyStreams);
    drop(open);
    let recovered = async {
        while agent.totals("vllm", &healthy.url()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recovered)
        .await
        .expect("recovers");
    let small = TestAgent::with(|config| config.server.max_calls = 1).await;
    let mut health = HealthClient::new(small.channel().await);
    let mut held = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let status = small.totals("vllm", &healthy.url()).await.unwrap_err();
    seen.check(&status, Code::ResourceExhausted, Reason::TooManyCalls);
    // probes and Prometheus still get through
    let probed = crate::http::get(&small, "/healthz", "localhost").await;
    assert!(probed.starts_with("HTTP/1.1 200"), "{probed}");

    // who calls
    crate::access::provoke(&seen).await;

    // the end
    held.message().await.unwrap();
    small.handle.stop();
    held.message().await.unwrap();
    let status = held.message().await.unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::Draining);

    crate::instance_refusals::every_refusal(&seen).await;
    crate::workflow_refusals::every_refusal(&seen).await;
    crate::webhooks::every_refusal(&seen).await;
    let short = TestAgent::with(|config| {
        config.server.stream_lifetime = Duration::from_millis(100);
    })
    .await;
    let mut health = HealthClient::new(short.channel().await);
    let watched = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    watched.message().await.unwrap();
    let status = watched.message().await.unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::StreamLifetime);

    let all: BTreeSet<String> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(*seen.0.lock().unwrap(), all);
}

/// A body that is small enough, but whose every bucket is worth telling.
fn many_buckets() -> String {
    let mut body = String::new();
    for family in [
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_inference_time_seconds",
        "request_prompt_tokens",
    ] {
        body += &format!("# TYPE vllm:{family} histogram\n");
        for at in 1..4_000 {
            body += &format!("vllm:{family}_bucket{{le=\"{at}\"}} {at}\n");
        }
        body += &format!(
            "vllm:{family}_bucket{{le=\"+Inf\"}} 4000\nvllm:{family}_sum 1\nvllm:{family}_count 4000\n"
        );
    }
    body
}

/// Calls a method with bytes that are no message of it.
async fn raw(agent: &TestAgent, path: &'static str, message: &'static [u8]) -> Status {
    let mut client = tonic::client::Grpc::new(agent.channel().await);
    client.ready().await.unwrap();
    let request = tonic::Request::new(message);
    let answer = client
        .unary(request, PathAndQuery::from_static(path), RawCodec)
        .await;
    answer.map(|_| ()).unwrap_err()
}

pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = &'static [u8];
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = &'static [u8];
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
