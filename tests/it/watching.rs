//! Instances that are scraped in the background: answered at once, watched live, each by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::edge::grpc::pb;
use tonic::{Code, Streaming};

use crate::errors::Seen;
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, vllm_body};
use crate::instances::{configured, millis, registration};

/// Longer than a machine that runs all tests at once takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until an instance is in this state, and gives it.
pub async fn until_state(agent: &TestAgent, id: &str, state: pb::InstanceState) -> pb::Instance {
    let mut client = agent.instances().await;
    let reached = async {
        loop {
            let get = pb::GetInstanceRequest {
                instance_id: id.to_owned(),
            };
            let found = client
                .get_instance(get)
                .await
                .unwrap()
                .into_inner()
                .instance
                .unwrap();
            if found.status.as_ref().unwrap().state() == state {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("{id} is never {state:?}"))
}

async fn latest(agent: &TestAgent, id: &str) -> Result<pb::CollectMetricsResponse, tonic::Status> {
    let request = pb::CollectMetricsRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    };
    Ok(agent
        .metrics()
        .await
        .collect_metrics(request)
        .await?
        .into_inner())
}

async fn watch(agent: &TestAgent, ids: &[&str]) -> Streaming<pb::WatchMetricsResponse> {
    let request = pb::WatchMetricsRequest {
        instance_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..pb::WatchMetricsRequest::default()
    };
    agent
        .metrics()
        .await
        .watch_metrics(request)
        .await
        .unwrap()
        .into_inner()
}

/// The next message that is as wanted.
async fn next(
    stream: &mut Streaming<pb::WatchMetricsResponse>,
    wanted: impl Fn(&pb::WatchMetricsResponse) -> bool,
) -> pb::WatchMetricsResponse {
    let found = async {
        loop {
            let message = stream.message().await.unwrap().expect("the stream goes on");
            if wanted(&message) {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("the message comes")
}

fn is(event: pb::WatchEvent) -> impl Fn(&pb::WatchMetricsResponse) -> bool {
    move |message| message.event() == event
}

/// A vLLM that can be turned off and on, and counts its scrapes.
async fn switchable() -> (FakeEngine, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(true));
    let answers = on.clone();
    let engine = FakeEngine::start(move |path, count| match path {
        "/metrics" if answers.load(Ordering::SeqCst) => Answer::ok(vllm_body(count as u64 * 10)),
        "/version" => Answer::ok("{\"version\":\"0.32.0\"}"),
        _ => Answer::Plain(503, Vec::new()),
    })
    .await;
    (engine, on)
}

#[tokio::test]
async fn a_registered_instance_is_answered_at_once_from_its_last_window() {
    let engine = counting_vllm(|count| count as u64 * 10).await;
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    client
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    let several = |message: &pb::WatchMetricsResponse| {
        let window = message
            .measurement
            .as_ref()
            .and_then(|measured| measured.window.as_ref());
        let has_version = message
            .measurement
            .as_ref()
            .is_some_and(|m| m.engine_version.is_some());
        has_version && window.is_some_and(|window| window.samples >= 4)
    };
    let told = next(&mut stream, several).await.measurement.unwrap();
    let scraped = engine.connections();
    let answer = latest(&agent, "a").await.unwrap();
    assert!(!answer.stale && answer.last_failure.is_none());
    let measured = answer.measurement.unwrap();
    assert_eq!(measured.instance_id, "a");
    assert_eq!(measured.instance_type, "vllm");
    assert_eq!(measured.engine_version.as_deref(), Some("0.32.0"));
    // ten tokens a scrape, five scrapes a second, and a little later each time by the jitter
    for measured in [&told, &measured] {
        let window = measured.window.as_ref().unwrap();
        let tokens = measured
            .throughput_metrics
            .unwrap()
            .tokens_per_second
            .unwrap();
        let expected = f64::from(window.samples - 1) * 10.0 / window.observed_seconds.unwrap();
        assert!(
            (tokens - expected).abs() < 1e-6 * expected,
            "{tokens} {expected}"
        );
    }
    // answers cost the engine nothing; its own scrapes go on
    for _ in 0..200 {
        latest(&agent, "a").await.unwrap();
    }
    assert!(
        engine.connections() - scraped < 100,
        "{}",
        engine.connections()
    );
    // with a window it is measured now
    let now = pb::CollectMetricsRequest {
        instance_id: "a".to_owned(),
        window: Some(millis(300)),
        view: pb::MeasurementView::Basic.into(),
        ..Default::default()
    };
    let answer = agent
        .metrics()
        .await
        .collect_metrics(now)
        .await
        .unwrap()
        .into_inner();
    let measured = answer.measurement.unwrap();
    assert_eq!(measured.window.unwrap().samples, 2);
    assert!(
        measured.figures.is_none() && measured.settings.is_empty(),
        "basic"
    );
    assert!(
        measured
            .throughput_metrics
            .unwrap()
            .tokens_per_second
            .is_some()
    );
}

#[tokio::test]
async fn an_engine_that_dies_is_told_and_comes_back_by_itself() {
    let (engine, on) = switchable().await;
    let agent =
        TestAgent::with(|config| config.instances = vec![configured("a", &engine.url())]).await;
    let mut stream = watch(&agent, &["a"]).await;
    next(&mut stream, is(pb::WatchEvent::Window)).await;
    on.store(false, Ordering::SeqCst);
    let missing = next(&mut stream, is(pb::WatchEvent::Missing)).await;
    assert_eq!(missing.state(), pb::InstanceState::Down);
    assert!(
        missing.measurement.is_none(),
        "nothing of before is shown as now"
    );
    let failure = missing.failure.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.code),
        ("HTTP_STATUS", Code::Unavailable as i32)
    );
    assert!(missing.window_end_time.is_some());
    // what there was is still there, marked
    let stale = async {
        loop {
            let answer = latest(&agent, "a").await.unwrap();
            if answer.stale {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, stale).await.unwrap();
    assert_eq!(answer.last_failure.unwrap().reason, "HTTP_STATUS");
    assert!(answer.measurement.is_some());
    on.store(true, Ordering::SeqCst);
    let back = next(&mut stream, is(pb::WatchEvent::Window)).await;
    assert_eq!(back.state(), pb::InstanceState::Up);
    assert!(!latest(&agent, "a").await.unwrap().stale);
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other() {
    let hanging = FakeEngine::start(|_, _| Answer::Hang).await;
    let engine = counting_vllm(|count| count as u64).await;
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    let mut both = registration("both", &hanging.url());
    both.metrics_urls = vec![engine.url()];
    both.scrape_interval = Some(millis(4_000));
    both.window = Some(millis(60_000));
    client.register_instance(both).await.unwrap();
    client
        .register_instance(registration("good", &engine.url()))
        .await
        .unwrap();
    until_state(&agent, "good", pb::InstanceState::Up).await;
    // the replica that answers is shown while the other is still waited for
    let mut stream = watch(&agent, &["both"]).await;
    let first = next(&mut stream, is(pb::WatchEvent::Window)).await;
    assert_eq!(first.sequence, 1);
    let replicas = first.measurement.unwrap().replicas;
    assert!(replicas[0].figures.is_none() && replicas[1].figures.is_some());
    // and then what is wrong with the other, under the same number
    let second = next(&mut stream, |message| message.failure.is_some()).await;
    assert_eq!(
        (second.sequence, second.state()),
        (1, pb::InstanceState::Degraded)
    );
    assert_eq!(second.failure.unwrap().reason, "SCRAPE_TIMED_OUT");
}

#[tokio::test]
async fn another_engine_behind_the_same_url_is_recognised() {
    let tgi = Arc::new(AtomicBool::new(false));
    let is_tgi = tgi.clone();
    let engine =
        FakeEngine::start(
            move |path, count| match (path, is_tgi.load(Ordering::SeqCst)) {
                ("/metrics", false) => Answer::ok(vllm_body(count as u64)),
                ("/metrics", true) => Answer::ok("# TYPE tgi_queue_size gauge\ntgi_queue_size 3\n"),
                _ => Answer::Plain(404, Vec::new()),
            },
        )
        .await;
    let agent = TestAgent::start().await;
    agent
        .instances()
        .await
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    next(&mut stream, is(pb::WatchEvent::Window)).await;
    tgi.store(true, Ordering::SeqCst);
    let changed = next(&mut stream, |message| {
        message
            .measurement
            .as_ref()
            .is_some_and(|measured| measured.instance_type == "tgi")
    });
    let measured = changed.await.measurement.unwrap();
    assert_eq!(
        measured.gpu_metrics.unwrap().num_requests_waiting,
        Some(3.0)
    );
    // nothing of the other engine is in it
    let tokens = measured.throughput_metrics.unwrap().generation_tokens_total;
    assert!(tokens.is_none_or(|tokens| tokens == 0.0), "{tokens:?}");
}

#[tokio::test]
async fn a_restart_asks_for_settings_and_version_again() {
    let version = Arc::new(AtomicUsize::new(31));
    let told = version.clone();
    let engine = FakeEngine::start(move |path, count| match path {
        "/metrics" => {
            let version = told.load(Ordering::SeqCst) as u64;
            // what it counted begins anew with the version
            Answer::ok(vllm_body((40 - version) * 1_000_000 + count as u64))
        }
        "/version" => Answer::ok(format!(
            "{{\"version\":\"0.{}.0\"}}",
            told.load(Ordering::SeqCst)
        )),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await;
    let agent = TestAgent::start().await;
    agent
        .instances()
        .await
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    let of = |wanted: &'static str| {
        move |message: &pb::WatchMetricsResponse| {
            let measured = message.measurement.as_ref();
            measured.is_some_and(|measured| measured.engine_version.as_deref() == Some(wanted))
        }
    };
    next(&mut stream, of("0.31.0")).await;
    version.store(32, Ordering::SeqCst);
    next(&mut stream, of("0.32.0")).await;
}

/// An engine that was restarted is asked anew; where it says what it said before, there is nothing to tell twice.
#[tokio::test]
async fn a_window_is_told_again_only_where_something_new_is_known() {
    // from 300 tokens back to 0 each third scrape
    let engine = counting_vllm(|count| 100 * (count as u64 % 3)).await;
    let agent = TestAgent::start().await;
    let mut instances = agent.instances().await;
    instances
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    let mut events = watch(&agent, &["a"]).await;
    let (mut before, mut restarts) = (pb::WatchMetricsResponse::default(), 0);
    while restarts < 4 {
        let event = next(&mut events, |_| true).await;
        assert_ne!(event, before, "told twice");
        let whole = event.measurement.iter();
        let replicas = whole.flat_map(|measurement| &measurement.replicas);
        restarts += replicas
            .map(|replica| replica.dropped_intervals.len())
            .sum::<usize>();
        before = event;
    }
}

#[tokio::test]
async fn a_watch_of_all_tells_what_comes_and_goes() {
    let engine = counting_vllm(|count| count as u64).await;
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    let labelled = |id: &str, team: &str| {
        let mut one = registration(id, &engine.url());
        one.labels = [("team".to_owned(), team.to_owned())].into();
        one
    };
    let request = pb::WatchMetricsRequest {
        labels: [("team".to_owned(), "a".to_owned())].into(),
        view: pb::MeasurementView::Basic.into(),
        ..pb::WatchMetricsRequest::default()
    };
    let mut stream = agent
        .metrics()
        .await
        .watch_metrics(request)
        .await
        .unwrap()
        .into_inner();
    client
        .register_instance(labelled("other", "b"))
        .await
        .unwrap();
    client
        .register_instance(labelled("mine", "a"))
        .await
        .unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(
        first.event(),
        pb::WatchEvent::Heartbeat,
        "nothing yet, told at once"
    );
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.instance_id, "mine", "nothing of the other team");
    // another label, another watch
    let moved = pb::Instance {
        instance_id: "mine".to_owned(),
        labels: [("team".to_owned(), "c".to_owned())].into(),
        ..pb::Instance::default()
    };
    let moved = pb::UpdateInstanceRequest {
        instance: Some(moved),
        ..Default::default()
    };
    client.update_instance(moved).await.unwrap();
    let removed = next(&mut stream, is(pb::WatchEvent::Removed)).await;
    assert_eq!(removed.instance_id, "mine");
    // a watch of one ends with it
    let mut only = watch(&agent, &["other"]).await;
    let gone = pb::DeleteInstanceRequest {
        instance_id: "other".to_owned(),
        ..Default::default()
    };
    client.delete_instance(gone).await.unwrap();
    next(&mut only, is(pb::WatchEvent::Removed)).await;
    assert!(only.message().await.unwrap().is_none());
    let nothing = pb::WatchMetricsRequest {
        instance_ids: vec!["other".to_owned()],
        ..Default::default()
    };
    let status = agent
        .metrics()
        .await
        .watch_metrics(nothing)
        .await
        .unwrap_err();
    Seen::default().check(&status, Code::NotFound, Reason::InstanceNotFound);
}

#[tokio::test]
async fn an_engine_that_hangs_is_never_shown_with_its_old_numbers() {
    let hangs = Arc::new(AtomicBool::new(false));
    let silent = hangs.clone();
    let engine = FakeEngine::start(move |path, count| match path {
        _ if silent.load(Ordering::SeqCst) => Answer::Hang,
        "/metrics" => Answer::ok(vllm_body(count as u64 * 10)),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await;
    let agent = TestAgent::start().await;
    let one = registration("a", &engine.url());
    agent
        .instances()
        .await
        .register_instance(one)
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    let last = next(&mut stream, |message| message.sequence >= 5).await;
    hangs.store(true, Ordering::SeqCst);
    let mut end = last.window_end_time;
    loop {
        let message = next(&mut stream, |message| message.sequence > 5).await;
        if message.event() == pb::WatchEvent::Missing {
            assert_eq!(message.state(), pb::InstanceState::Down);
            assert_eq!(message.failure.unwrap().reason, "SCRAPE_TIMED_OUT");
            break;
        }
        // a window that was still measured is a later one
        assert!(
            message.window_end_time.unwrap().nanos != end.unwrap().nanos,
            "told twice"
        );
        end = message.window_end_time;
    }
}

#[tokio::test]
async fn endpoints_that_hang_hold_up_no_scrape() {
    let engine = FakeEngine::start(|path, count| match path {
        "/metrics" => Answer::ok(vllm_body(count as u64 * 10)),
        _ => Answer::Hang,
    })
    .await;
    let agent = TestAgent::start().await;
    let one = registration("a", &engine.url());
    agent
        .instances()
        .await
        .register_instance(one)
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    let many = next(&mut stream, |message| {
        let window = message
            .measurement
            .as_ref()
            .and_then(|measured| measured.window.as_ref());
        window.is_some_and(|window| window.samples >= 10)
    });
    assert!(
        many.await
            .measurement
            .unwrap()
            .throughput_metrics
            .unwrap()
            .tokens_per_second
            .is_some()
    );
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_what_it_missed_and_sees_its_end() {
    let engine = counting_vllm(|count| count as u64).await;
    let agent = TestAgent::with(|config| {
        config.server.stream_lifetime = Duration::from_secs(6);
    })
    .await;
    let mut client = agent.instances().await;
    // the whole of it is soon more than fits into the windows of HTTP/2
    for at in 0..40 {
        client
            .register_instance(registration(&format!("i-{at}"), &engine.url()))
            .await
            .unwrap();
    }
    let mut slow = watch(&agent, &[]).await;
    let (mut missed, mut told) = (0, BTreeMap::new());
    let end = loop {
        let message = match tokio::time::timeout(PATIENCE, slow.message())
            .await
            .expect("ends")
        {
            Ok(message) => message.expect("the stream goes on"),
            Err(end) => break end,
        };
        // slower than the fleet, whatever this machine does
        tokio::time::sleep(Duration::from_millis(20)).await;
        if message.event() != pb::WatchEvent::Heartbeat {
            missed += message.missed_windows;
            let before = told.insert(message.instance_id.clone(), message.sequence);
            assert!(before.is_none_or(|before| before <= message.sequence));
            let first = before.is_none() || before == Some(message.sequence);
            let between = message.sequence - before.unwrap_or(message.sequence);
            assert_eq!(message.missed_windows, if first { 0 } else { between - 1 });
        }
    };
    Seen::default().check(&end, Code::Unavailable, Reason::StreamLifetime);
    assert!(missed > 0, "it was slow: {told:?}");
}

#[tokio::test]
async fn streams_end_after_their_lifetime_and_when_the_agent_is_stopped() {
    let seen = Seen::default();
    let short = TestAgent::with(|config| {
        config.server.stream_lifetime = Duration::from_millis(300);
    })
    .await;
    let mut stream = watch(&short, &[]).await;
    stream.message().await.unwrap();
    let end = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .unwrap()
        .unwrap_err();
    seen.check(&end, Code::Unavailable, Reason::StreamLifetime);
    let agent = TestAgent::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = watch(&agent, &[]).await;
        stream.message().await.unwrap();
        streams.push(stream);
    }
    agent.handle.stop();
    for stream in &mut streams {
        let end = tokio::time::timeout(PATIENCE, stream.message())
            .await
            .unwrap()
            .unwrap_err();
        seen.check(&end, Code::Unavailable, Reason::Draining);
    }
    tokio::time::timeout(PATIENCE, agent.served)
        .await
        .expect("the agent ends")
        .unwrap();
}

#[tokio::test]
async fn a_batch_takes_registered_instances_too() {
    let engine = counting_vllm(|count| count as u64).await;
    let agent = TestAgent::start().await;
    agent
        .instances()
        .await
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    until_state(&agent, "a", pb::InstanceState::Up).await;
    let of = |id: &str| pb::CollectMetricsRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    };
    let batch = pb::BatchCollectMetricsRequest {
        requests: vec![of("a"), of("b")],
    };
    let mut stream = agent
        .metrics()
        .await
        .batch_collect_metrics(batch)
        .await
        .unwrap()
        .into_inner();
    let mut results = BTreeMap::new();
    while let Some(answer) = stream.message().await.unwrap() {
        results.insert(answer.index, answer.result.unwrap());
    }
    use pb::batch_collect_metrics_response::Result::{Failure, Measurement};
    assert!(matches!(&results[&0], Measurement(measured) if measured.instance_id == "a"));
    assert!(matches!(&results[&1], Failure(failure) if failure.reason == "INSTANCE_NOT_FOUND"));
}

#[tokio::test]
async fn the_last_measurement_of_each_instance_is_there_for_prometheus() {
    let (engine, on) = switchable().await;
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    client
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap();
    client
        .register_instance(registration("dead", "http://127.0.0.1:1/metrics"))
        .await
        .unwrap();
    let mut stream = watch(&agent, &["a"]).await;
    let rate = |message: &pb::WatchMetricsResponse| {
        let measured = message.measurement.as_ref();
        measured.is_some_and(|measured| {
            let throughput = measured.throughput_metrics.unwrap();
            throughput.tokens_per_second.is_some() && measured.engine_version.is_some()
        })
    };
    next(&mut stream, rate).await;
    until_state(&agent, "dead", pb::InstanceState::Down).await;
    let lines = async |agent: &TestAgent| -> Vec<String> {
        let answer = crate::http::get(agent, "/metrics", "localhost").await;
        let lines = answer
            .lines()
            .filter(|line| line.starts_with("perfagent_instance"));
        lines.map(str::to_owned).collect()
    };
    let shown = lines(&agent).await;
    let has = |shown: &[String], start: &str| shown.iter().any(|line| line.starts_with(start));
    for line in [
        "perfagent_instances 2",
        "perfagent_instance_up{instance_id=\"a\"} 1",
        "perfagent_instance_up{instance_id=\"dead\"} 0",
        "perfagent_instance_replicas_up{instance_id=\"dead\"} 0",
        "perfagent_instance_requests_waiting{instance_id=\"a\"} 1",
        "perfagent_instance_generation_tokens_per_second{instance_id=\"a\"} ",
        "perfagent_instance_info{instance_id=\"a\",engine=\"vllm\",engine_version=\"0.32.0\",model_name=\"m\"} 1",
    ] {
        assert!(has(&shown, line), "{line}\n{}", shown.join("\n"));
    }
    // nothing that was not measured
    assert!(!has(
        &shown,
        "perfagent_instance_requests_waiting{instance_id=\"dead\""
    ));
    assert!(!has(&shown, "perfagent_instance_time_to_first_token"));
    // and nothing that is not so any more
    on.store(false, Ordering::SeqCst);
    until_state(&agent, "a", pb::InstanceState::Down).await;
    let shown = lines(&agent).await;
    assert!(has(&shown, "perfagent_instance_up{instance_id=\"a\"} 0"));
    assert!(
        !has(&shown, "perfagent_instance_requests_waiting"),
        "{}",
        shown.join("\n")
    );
}
