//! What holds an instance back, over the wire: one answer whatever it is asked about, refused with the field that is
//! wrong, and watched.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::analysis::{Cause, Thresholds};
use perfagent::edge::grpc::pb;
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

use crate::captures::{Capture, capture};
use crate::compare::wire;
use crate::errors::Seen;
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, vllm_body};
use crate::instances::{configured, millis};
use crate::simulator::simulate;

/// Longer than a machine that runs all tests at once takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A recorded engine, whose second scrape is the last that was recorded; each says when it was, so that every window over
/// it is the same.
pub async fn recorded(name: &'static str) -> FakeEngine {
    let recording = capture(name);
    let scrapes = [1, recording.scrapes()].map(|n| stamped(&recording, n));
    FakeEngine::start(move |path, count| match path {
        "/metrics" => Answer::ok(scrapes[count.min(1)].clone()),
        other => match recording.answer(other) {
            Some(answer) => Answer::ok(answer.to_string()),
            None => Answer::Plain(404, Vec::new()),
        },
    })
    .await
}

fn stamped(recording: &Capture, n: usize) -> String {
    let body = String::from_utf8(recording.body(n)).unwrap();
    let millis = (recording.time(n) * 1e3).round();
    let lines = body
        .lines()
        .map(|line| match line.is_empty() || line.starts_with('#') {
            true => format!("{line}\n"),
            false => format!("{line} {millis}\n"),
        });
    lines.collect()
}

async fn detect(
    agent: &TestAgent,
    request: pb::DetectBottlenecksRequest,
) -> Result<pb::DetectBottlenecksResponse, tonic::Status> {
    let answer = agent.analysis().await.detect_bottlenecks(request).await?;
    Ok(answer.into_inner())
}

fn of_target(url: &str) -> pb::DetectBottlenecksRequest {
    pb::DetectBottlenecksRequest {
        instance_id: "engine-1".to_owned(),
        metrics_url: url.to_owned(),
        window: Some(millis(1_000)),
        ..Default::default()
    }
}

fn of_instance(id: &str) -> pb::DetectBottlenecksRequest {
    pb::DetectBottlenecksRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    }
}

fn of_measurement(measurement: pb::Measurement) -> pb::DetectBottlenecksRequest {
    pb::DetectBottlenecksRequest {
        measurement: Some(measurement),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_target_and_its_measurement_give_the_same_answer() {
    let agent = TestAgent::start().await;
    for name in [
        "vllm-0.32.0/c-saturation",
        "vllm-0.32.0/d-kv-pressure",
        "vllm-0.10.1/a-idle",
        "sglang-0.5.23/c-saturation",
        "tgi-3.3.6/c-saturation",
    ] {
        let asked = recorded(name).await;
        let measured = recorded(name).await;
        let of_target = detect(&agent, of_target(&asked.url())).await.unwrap();
        let collect = pb::CollectMetricsRequest {
            instance_id: "engine-1".to_owned(),
            metrics_url: measured.url(),
            window: Some(millis(1_000)),
            ..Default::default()
        };
        let collected = agent.metrics().await.collect_metrics(collect).await;
        let measurement = collected.unwrap().into_inner().measurement.unwrap();
        let given = of_measurement(measurement.clone());
        let of_measurement = detect(&agent, given).await.unwrap();
        assert_eq!(of_target, of_measurement, "{name}");
        assert_eq!(of_target.window, measurement.window, "{name}");
        assert_eq!(of_target.instance_type, measurement.instance_type);
        assert!(!of_target.stale && of_target.last_failure.is_none());
        assert_ne!(of_target.verdict(), pb::DiagnosisVerdict::Unspecified);
        assert!(!of_target.headline.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn an_instance_and_its_measurement_give_the_same_answer() {
    let engine = counting_vllm(|count| count as u64 * 10).await;
    let agent =
        TestAgent::with(|config| config.instances = vec![configured("a", &engine.url())]).await;
    let mut metrics = agent.metrics().await;
    let same_window = async {
        loop {
            // windows follow each other: three calls may be about one or not
            let before = detect(&agent, of_instance("a")).await;
            let collect = pb::CollectMetricsRequest {
                instance_id: "a".to_owned(),
                ..Default::default()
            };
            let collected = metrics.collect_metrics(collect).await;
            if let (Ok(before), Ok(collected)) = (before, collected) {
                let measurement = collected.into_inner().measurement.unwrap();
                if before.window == measurement.window {
                    return (before, measurement);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (of_instance_, measurement) = tokio::time::timeout(PATIENCE, same_window).await.unwrap();
    // settings may have been told in between, which change nothing here
    let given = pb::DetectBottlenecksRequest {
        instance_id: "a".to_owned(),
        ..of_measurement(measurement)
    };
    let of_measurement = detect(&agent, given).await.unwrap();
    assert_eq!(of_instance_.verdict, of_measurement.verdict);
    assert_eq!(of_instance_.bottlenecks, of_measurement.bottlenecks);
    assert_eq!(of_instance_.unclear, of_measurement.unclear);
    assert_eq!(of_instance_.window, of_measurement.window);
    // with a window it is measured now
    let now = pb::DetectBottlenecksRequest {
        window: Some(millis(300)),
        ..of_instance("a")
    };
    let now = detect(&agent, now).await.unwrap();
    assert_eq!(now.window.unwrap().samples, 2);
    assert_eq!(now.instance_id, "a");
}

#[tokio::test]
async fn requests_that_are_wrong_are_named_by_field() {
    let agent = TestAgent::start().await;
    let seen = Seen::default();
    let good = wire("vllm-0.32.0/c-saturation");
    let basic = pb::Measurement {
        figures: None,
        settings: Vec::new(),
        ..good.clone()
    };
    let mut broken = good.clone();
    broken.figures.as_mut().unwrap().quantities[3].bound = None;
    let threshold = |name: &str, value| HashMap::from([(name.to_owned(), value)]);
    let cases = [
        (of_instance("Not an id"), "instance_id", "lower-case"),
        (of_measurement(basic), "measurement.figures", "view FULL"),
        (
            of_measurement(broken),
            "measurement.figures.quantities[3].bound",
            "must be set",
        ),
        (
            pb::DetectBottlenecksRequest {
                metrics_url: "http://127.0.0.1:1/metrics".to_owned(),
                ..of_measurement(good.clone())
            },
            "metrics_url",
            "must be empty beside a measurement",
        ),
        (
            pb::DetectBottlenecksRequest {
                window: Some(millis(1_000)),
                ..of_measurement(good.clone())
            },
            "window",
            "has its own",
        ),
        (
            pb::DetectBottlenecksRequest {
                instance_id: "another".to_owned(),
                ..of_measurement(good.clone())
            },
            "instance_id",
            "that of the measurement",
        ),
        (
            pb::DetectBottlenecksRequest {
                instance_type: "tgi".to_owned(),
                ..of_measurement(good.clone())
            },
            "instance_type",
            "that of the measurement",
        ),
        (
            pb::DetectBottlenecksRequest {
                thresholds: threshold("stall_second", 3.0),
                ..of_measurement(good.clone())
            },
            "thresholds[\"stall_second\"]",
            "did you mean `stall_seconds`?",
        ),
        (
            pb::DetectBottlenecksRequest {
                thresholds: threshold("stall_seconds", f64::NAN),
                ..of_target("http://127.0.0.1:1/metrics")
            },
            "thresholds[\"stall_seconds\"]",
            "a number from 1 to 300",
        ),
        (
            pb::DetectBottlenecksRequest {
                window: Some(millis(301_000)),
                ..of_target("http://127.0.0.1:1/metrics")
            },
            "window",
            "longer than 300 s",
        ),
    ];
    for (request, field, told) in cases {
        let status = detect(&agent, request).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].field, field);
        assert!(violations[0].description.contains(told), "{violations:?}");
    }
    let status = detect(&agent, of_instance("nobody")).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::InstanceNotFound);
    let refused = of_target("http://169.254.169.254/metrics");
    let status = detect(&agent, refused).await.unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::UrlRefused);
    let gone = of_target("http://127.0.0.1:1/metrics");
    let status = detect(&agent, gone).await.unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::ConnectFailed);
}

/// Whatever is wrong, a client has room for the refusal: beyond 16 KiB of headers its whole connection breaks.
#[tokio::test]
async fn a_refusal_is_no_longer_than_a_client_takes() {
    let agent = TestAgent::start().await;
    let good = wire("vllm-0.32.0/c-saturation");
    let thresholds = |count: usize, length: usize| -> HashMap<String, f64> {
        let name = |at| (format!("{}{at}", "0".repeat(length)), 1.0);
        (0..count).map(name).collect()
    };
    let refused = async |request| {
        let status = detect(&agent, request).await.unwrap_err();
        Seen::default().check(&status, Code::InvalidArgument, Reason::InvalidArgument);
        let bytes = status.message().len() + status.details().len();
        assert!(bytes < 6_000, "{bytes}: {status:?}");
        status.get_details_bad_request().unwrap().field_violations
    };
    for (count, length, field) in [
        (30, 8, "thresholds[\"000000000\"]"),
        (50_000, 8, "thresholds"),
        (1, 1_000_000, &format!("thresholds[\"{}\"]", "0".repeat(80))),
        (30, 1_000, &format!("thresholds[\"{}\"]", "0".repeat(80))),
    ] {
        let request = pb::DetectBottlenecksRequest {
            thresholds: thresholds(count, length),
            ..of_measurement(good.clone())
        };
        assert_eq!(refused(request).await[0].field, field);
    }
    let urls = pb::DetectBottlenecksRequest {
        metrics_urls: (0..64).map(|at| format!("gopher://{at}/")).collect(),
        ..of_instance("a")
    };
    let told = refused(urls).await.len();
    assert!((2..64).contains(&told), "{told}");
    let slos = pb::EvaluateSlosRequest {
        measurement: Some(good),
        slos: vec![
            pb::Slo {
                name: "a".to_owned(),
                quantity: "x".repeat(400_000),
                target: Some(pb::slo::Target::AtMost(1.0)),
                ..Default::default()
            };
            8
        ],
        ..Default::default()
    };
    let status = agent.analysis().await.evaluate_slos(slos).await;
    let status = status.unwrap_err();
    Seen::default().check(&status, Code::InvalidArgument, Reason::InvalidArgument);
}

#[tokio::test]
async fn causes_and_thresholds_are_listed_with_what_is_in_force() {
    let agent = TestAgent::with(|config| {
        config.thresholds.insert("stall_seconds".to_owned(), 7.5);
    })
    .await;
    let mut client = pb::agent_service_client::AgentServiceClient::new(agent.channel().await);
    let asked = pb::GetCapabilitiesRequest {};
    let listed = client.get_capabilities(asked).await.unwrap().into_inner();
    assert_eq!(listed.causes.len(), Cause::ALL.len());
    for cause in &listed.causes {
        assert_ne!(cause.r#type(), pb::BottleneckType::Unspecified, "{cause:?}");
        assert!(cause.description.ends_with('.'), "{cause:?}");
    }
    assert_eq!(listed.thresholds.len(), Thresholds::TABLE.len());
    for one in &listed.thresholds {
        let is_changed = one.name == "stall_seconds";
        let expected = if is_changed { 7.5 } else { one.default_value };
        assert_eq!(one.value, expected, "{one:?}");
        assert!(one.min <= one.default_value && one.default_value <= one.max);
        assert!(one.reason.ends_with('.'), "{one:?}");
    }
}

async fn watch(agent: &TestAgent, ids: &[&str]) -> Streaming<pb::WatchBottlenecksResponse> {
    let request = pb::WatchBottlenecksRequest {
        instance_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    let stream = agent.analysis().await.watch_bottlenecks(request).await;
    stream.unwrap().into_inner()
}

/// The next message; heartbeats are passed over.
async fn next(
    stream: &mut Streaming<pb::WatchBottlenecksResponse>,
) -> Option<pb::WatchBottlenecksResponse> {
    let found = async {
        loop {
            let message = stream.message().await.unwrap();
            let event = message.as_ref().map(|message| message.event());
            if event != Some(pb::BottleneckEvent::Heartbeat) {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("a message comes")
}

async fn until(
    stream: &mut Streaming<pb::WatchBottlenecksResponse>,
    event: pb::BottleneckEvent,
) -> pb::WatchBottlenecksResponse {
    loop {
        let message = next(stream).await.expect("the stream goes on");
        if message.event() == event {
            return message;
        }
    }
}

#[tokio::test]
async fn a_watch_begins_with_how_things_are_and_shows_what_is_missing() {
    let on = Arc::new(AtomicBool::new(true));
    let answers = on.clone();
    let engine = FakeEngine::start(move |path, count| match path {
        "/metrics" if answers.load(Ordering::SeqCst) => Answer::ok(vllm_body(count as u64 * 10)),
        _ => Answer::Plain(503, Vec::new()),
    })
    .await;
    let agent = TestAgent::start().await;
    // where nothing is to be told, the caller knows that it watches
    let mut of_all = watch(&agent, &[]).await;
    let first = of_all.message().await.unwrap().unwrap();
    assert_eq!(first.event(), pb::BottleneckEvent::Heartbeat);
    let one = crate::instances::registration("a", &engine.url());
    agent
        .instances()
        .await
        .register_instance(one)
        .await
        .unwrap();
    let current = until(&mut of_all, pb::BottleneckEvent::Current).await;
    assert_eq!(current.instance_id, "a");
    assert_eq!(current.state(), pb::InstanceState::Up);
    assert!(current.window_end_time.is_some() && current.failure.is_none());
    let mut of_one = watch(&agent, &["a"]).await;
    assert_eq!(
        next(&mut of_one).await.unwrap().event(),
        pb::BottleneckEvent::Current
    );
    on.store(false, Ordering::SeqCst);
    let missing = until(&mut of_one, pb::BottleneckEvent::Missing).await;
    assert_eq!(missing.state(), pb::InstanceState::Down);
    assert_eq!(missing.failure.unwrap().reason, "HTTP_STATUS");
    on.store(true, Ordering::SeqCst);
    // told once, and not for each window that is missing
    let back = next(&mut of_one).await.unwrap();
    assert_eq!(back.event(), pb::BottleneckEvent::Current);
    assert!(back.sequence > missing.sequence);
    let delete = pb::DeleteInstanceRequest {
        instance_id: "a".to_owned(),
        ..Default::default()
    };
    agent
        .instances()
        .await
        .delete_instance(delete)
        .await
        .unwrap();
    until(&mut of_one, pb::BottleneckEvent::Removed).await;
    assert!(of_one.message().await.unwrap().is_none());
    until(&mut of_all, pb::BottleneckEvent::Removed).await;
    let nobody = pb::WatchBottlenecksRequest {
        instance_ids: vec!["nobody".to_owned()],
        ..Default::default()
    };
    let refused = agent.analysis().await.watch_bottlenecks(nobody).await;
    let seen = Seen::default();
    seen.check(
        &refused.unwrap_err(),
        Code::NotFound,
        Reason::InstanceNotFound,
    );
}

#[tokio::test]
async fn what_is_found_again_opens_and_what_is_treated_is_resolved() {
    let engine = simulate(1, "--max-num-seqs 4 --clients 32 --speed 20").await;
    let agent =
        TestAgent::with(|config| config.instances = vec![configured("a", &engine.urls[0])]).await;
    let mut stream = watch(&agent, &["a"]).await;
    let of_cap = |message: &pb::WatchBottlenecksResponse| {
        let told = message.bottleneck.as_ref().unwrap();
        let told = told.bottleneck.as_ref().unwrap();
        told.cause == Cause::SequenceCap.as_str()
    };
    let opened = loop {
        let message = until(&mut stream, pb::BottleneckEvent::Opened).await;
        if of_cap(&message) {
            break message;
        }
    };
    assert!(opened.simulated && opened.failure.is_none());
    let open = opened.bottleneck.clone().unwrap();
    assert!(opened.open.contains(&open), "{opened:?}");
    let found = open.bottleneck.unwrap();
    assert_eq!(found.r#type(), pb::BottleneckType::QueueBuildup);
    assert_ne!(found.severity(), pb::Severity::Unspecified);
    assert!(found.explained_by.is_empty() && found.confidence > 0.5);
    let deciding = &found.evidence[0];
    assert_eq!(found.metric_name, deciding.quantity);
    assert_eq!(
        found.current_value.map(pb::evidence::Bound::Value),
        deciding.bound
    );
    assert_eq!(found.threshold, deciding.threshold);
    assert_eq!(found.time, opened.window_end_time);
    // who comes later is told what is open
    let mut later = watch(&agent, &["a"]).await;
    let current = next(&mut later).await.unwrap();
    assert_eq!(current.event(), pb::BottleneckEvent::Current);
    let causes = |of: &[pb::OpenBottleneck]| -> Vec<String> {
        let found = of.iter().filter_map(|one| one.bottleneck.as_ref());
        found.map(|one| one.cause.clone()).collect()
    };
    assert!(causes(&current.open).contains(&found.cause));
    // and the instance says the same when it is asked
    let asked = detect(&agent, of_instance("a")).await.unwrap();
    assert_eq!(asked.verdict(), pb::DiagnosisVerdict::Findings);
    assert_eq!(asked.bottlenecks[0].cause, found.cause);
    assert!(asked.simulated);

    let restart = serde_json::json!({ "settings": { "max_num_seqs": 64 } });
    engine.post("/simulator/restart", restart).await;
    for stream in [&mut stream, &mut later] {
        let resolved = loop {
            let message = until(stream, pb::BottleneckEvent::Resolved).await;
            if of_cap(&message) {
                break message;
            }
        };
        assert!(!causes(&resolved.open).contains(&found.cause));
        let was = resolved.bottleneck.unwrap();
        assert_eq!(was.open_time, open.open_time);
    }
}
