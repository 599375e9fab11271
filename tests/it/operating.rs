//! An agent as operators run it: instances on the command line, a watch beside it, logs, traces, the audit log.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;

use crate::cli::{Served, command, command_by, run, serve, state_home, terminate, text};
use crate::fake::{FakeEngine, TestAgent, counting_vllm};
use crate::instances::registration;

/// Longer than a machine that runs all tests at once takes.
const PATIENCE: Duration = Duration::from_secs(120);

async fn instances(served: &Served, arguments: &[&str]) -> (Option<i32>, String) {
    let all = [&["instances"], arguments, &["--server", &served.address]].concat();
    let output = run(&all).await;
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

#[tokio::test]
async fn instances_are_managed_on_the_command_line() {
    let engine = counting_vllm(|count| count as u64).await;
    let served = serve(&[]).await;
    let url = engine.url();
    let (code, out) = instances(&served, &["list"]).await;
    assert!(
        code == Some(0) && out.contains("perfagent instances register"),
        "{out}"
    );
    let register = [
        "register",
        "a",
        "--url",
        &url,
        "--interval",
        "200ms",
        "--label",
        "team=x",
    ];
    let (code, out) = instances(&served, &register).await;
    assert_eq!((code, out.as_str()), (Some(0), "registered a\n"));
    let (code, out) = instances(&served, &register).await;
    assert_eq!(code, Some(1));
    assert!(
        out.contains("registered already") && out.contains("hint: "),
        "{out}"
    );
    let up = async {
        loop {
            let (_, out) = instances(&served, &["list", "--label", "team=x"]).await;
            // the version is asked for beside the scrapes
            if out.contains("UP") && out.contains("vllm 0.32.0") {
                return out;
            }
        }
    };
    let out = tokio::time::timeout(PATIENCE, up).await.unwrap();
    assert!(out.contains("vllm 0.32.0") && out.contains("1/1"), "{out}");
    let (code, out) = instances(
        &served,
        &["update", "a", "--window", "4s", "--no-labels", "-o", "json"],
    )
    .await;
    assert_eq!(code, Some(0), "{out}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["instance"]["window"], "4s");
    assert!(answer["instance"]["labels"].is_null());
    let (code, out) = instances(&served, &["get", "a"]).await;
    assert!(code == Some(0) && out.contains("interval  200ms"), "{out}");
    // what `collect` shows of it is what was measured in the background
    let shown = run(&["collect", "a", "--server", &served.address, "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&text(&shown.stdout)).unwrap();
    assert_eq!(answer["measurement"]["instance_id"], "a");
    for (wrong, code, said) in [
        (&["update", "a"][..], 2, "nothing to change"),
        (&["update", "a", "--interval", "1ms"], 2, "--interval"),
        (&["register", "B", "--url", &url], 2, "ID: must be"),
        (
            &["register", "b", "--url", &url, "--label", "x"],
            2,
            "NAME=VALUE",
        ),
        (&["delete", "a", "--etag", "r999"], 1, "was changed since"),
        (&["get", "b"], 1, "there is no instance b"),
    ] {
        let (got, out) = instances(&served, wrong).await;
        assert!(
            got == Some(code) && out.contains(said),
            "{wrong:?}: {got:?} {out}"
        );
    }
    let (code, out) = instances(&served, &["delete", "a"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "deleted a\n"));
}

#[tokio::test]
async fn a_watch_goes_on_when_the_agent_comes_back() {
    let engine = counting_vllm(|count| count as u64 * 10).await;
    let state = state_home();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    let start = async || -> tokio::process::Child {
        let arguments = [
            "serve",
            "--listen",
            &listen,
            "--state-dir",
            state.to_str().unwrap(),
        ];
        let mut child = command()
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        // an instance may be known before it listens
        while !log
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("listening on")
        {}
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        child
    };
    let mut agent = start().await;
    let url = engine.url();
    let register = [
        "instances",
        "register",
        "a",
        "--url",
        &url,
        "--interval",
        "200ms",
        "--server",
        &listen,
    ];
    assert!(run(&register).await.status.success());
    let mut watch = command()
        .args(["watch", "--server", &listen])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut complaints = BufReader::new(watch.stderr.take().unwrap()).lines();
    let with = "tokens/s  ";
    let shown = async |lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>| {
        let found = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the watch goes on");
                if line.starts_with("a  UP  vllm")
                    && line.contains(with)
                    && !line.contains("- tokens/s")
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("a window is shown");
    };
    shown(&mut lines).await;
    terminate(&agent);
    agent.wait().await.unwrap();
    let told = complaints.next_line().await.unwrap().unwrap();
    assert!(told.contains("trying again"), "{told}");
    let _agent = start().await;
    shown(&mut lines).await;
    terminate(&watch);
    assert!(watch.wait().await.unwrap().success(), "ended in good order");
}

#[tokio::test]
async fn one_look_prints_a_table_or_a_line_of_json_for_each() {
    let engine = counting_vllm(|count| count as u64).await;
    let served = serve(&[]).await;
    let url = engine.url();
    for id in ["a", "b"] {
        instances(
            &served,
            &["register", id, "--url", &url, "--interval", "200ms"],
        )
        .await;
    }
    let shown = run(&["watch", "--once", "--server", &served.address]).await;
    let table = text(&shown.stdout);
    assert!(
        shown.status.success() && table.starts_with("INSTANCE"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    let shown = run(&[
        "watch",
        "a",
        "--once",
        "-o",
        "json",
        "--server",
        &served.address,
    ])
    .await;
    let value: Value = serde_json::from_str(text(&shown.stdout).trim()).unwrap();
    assert_eq!(value["instance_id"], "a");
    let missing = run(&["watch", "c", "--server", &served.address]).await;
    assert_eq!(missing.status.code(), Some(1));
}

#[tokio::test]
async fn shells_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let out = run(&["completions", shell]).await;
        assert!(
            out.status.success() && text(&out.stdout).contains("instances"),
            "{shell}"
        );
    }
}

fn audit(state: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(state.join("audit.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn who_changed_what_is_kept() {
    let state = state_home();
    let served = serve(&["--state-dir", state.to_str().unwrap(), "--workers", "1"]).await;
    let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    let mut request =
        tonic::Request::new(registration("a", "http://127.0.0.1:1/metrics?key=planted"));
    request
        .metadata_mut()
        .insert("x-request-id", "my-own-id".parse().unwrap());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    let answer = client.register_instance(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "my-own-id");
    let again = client
        .register_instance(registration("a", "http://127.0.0.1:1/metrics"))
        .await
        .unwrap_err();
    let made = again
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    // reading changes nothing
    client
        .list_instances(pb::ListInstancesRequest::default())
        .await
        .unwrap();
    let written = async {
        while audit(&state).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("both are written");
    let records = audit(&state);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["principal"], "anonymous");
    assert_eq!(
        records[0]["method"],
        "/perfagent.v1.InstanceService/RegisterInstance"
    );
    assert_eq!(records[0]["resource"], "a");
    assert_eq!(records[0]["request_id"], "my-own-id");
    assert_eq!(records[0]["trace_id"], trace);
    assert_eq!(records[0]["outcome"], "OK");
    assert_eq!(records[1]["outcome"], "ALREADY_EXISTS");
    assert_eq!(records[1]["request_id"], made.as_str());
    // the log has the same, and what may be secret is in neither
    terminate(&served.child);
    let Served { mut log, .. } = served;
    let mut lines = String::new();
    while let Some(line) = log.next_line().await.unwrap() {
        lines += &line;
    }
    assert!(
        lines.contains("my-own-id") && lines.contains(trace),
        "{lines}"
    );
    assert!(!lines.contains("planted") && !format!("{records:?}").contains("planted"));
}

/// Calls of those who are not recognised are in the log only: nobody fills the audit log without a credential.
#[tokio::test]
async fn strangers_do_not_fill_the_audit_log() {
    let state = state_home();
    let served = serve(&["--state-dir", state.to_str().unwrap()]).await;
    let path = "/perfagent.v1.InstanceService/DeleteInstance";
    for host in ["evil.example", "localhost"] {
        let answer = crate::http::get_at(&served.address, path, host).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    client
        .register_instance(registration("a", "http://127.0.0.1:1/metrics"))
        .await
        .unwrap();
    let written = async {
        while audit(&state).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("the registration is written");
    assert_eq!(audit(&state).len(), 1);
}

/// A collector that keeps what it is told.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn calls_are_told_to_an_opentelemetry_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut told) = mpsc::unbounded_channel();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let mut served = serve(&["--otlp-endpoint", &endpoint]).await;
    let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    let mut request = tonic::Request::new(pb::GetInstanceRequest {
        instance_id: "b".to_owned(),
    });
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    client.get_instance(request).await.unwrap_err();
    // the last ones are sent at the end
    terminate(&served.child);
    served.child.wait().await.unwrap();
    let export = tokio::time::timeout(PATIENCE, told.recv())
        .await
        .unwrap()
        .unwrap();
    let spans = &export.resource_spans[0].scope_spans[0].spans;
    let span = spans
        .iter()
        .find(|span| span.name.ends_with("GetInstance"))
        .unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(hex(&span.trace_id), trace);
    assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    let status = span
        .attributes
        .iter()
        .find(|one| one.key == "rpc.grpc.status_code")
        .unwrap();
    assert!(format!("{:?}", status.value).contains('5'), "{status:?}");
}

#[tokio::test]
async fn a_state_directory_is_for_one_agent() {
    let state = state_home();
    let _served = serve(&["--state-dir", state.to_str().unwrap()]).await;
    let second = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        state.to_str().unwrap(),
    ])
    .await;
    assert_eq!(second.status.code(), Some(1));
    let complaint = text(&second.stderr);
    assert!(
        complaint.contains("in use by process") && complaint.contains("--state-dir"),
        "{complaint}"
    );
}

/// How often the agent is killed: many times where the full figures are wanted.
fn kills() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_KILLS").ok();
    asked.map_or(8, |text| {
        text.parse().expect("PERFAGENT_TEST_KILLS is a number")
    })
}

/// What was acknowledged is there after `kill -9`, whenever that comes.
#[tokio::test]
async fn no_acknowledged_registration_is_lost() {
    let state = state_home();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut deleted: Vec<String> = Vec::new();
    let kills = kills();
    for round in 0..=kills {
        let mut served = serve(&["--state-dir", state.to_str().unwrap()]).await;
        let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
            .await
            .unwrap();
        let mut known = Vec::new();
        let mut token = String::new();
        loop {
            let page = pb::ListInstancesRequest {
                page_size: 500,
                page_token: token,
                ..Default::default()
            };
            let page = client.list_instances(page).await.unwrap().into_inner();
            known.extend(
                page.instances
                    .into_iter()
                    .map(|instance| instance.instance_id),
            );
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        for id in &acknowledged {
            assert!(
                known.contains(id),
                "{id} was acknowledged and is lost after {round} kills"
            );
        }
        for id in &deleted {
            assert!(!known.contains(id), "{id} was deleted and is back");
        }
        if round == kills {
            break;
        }
        // several at once, so that the kill falls into the middle of some; and at another moment each time
        let (answered, mut answers) = tokio::sync::watch::channel(0);
        let wanted = 5 + 7 * (round % 9);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (mut client, answered) = (client.clone(), answered.clone());
                tokio::spawn(async move {
                    let (mut made, mut gone) = (Vec::new(), Vec::new());
                    for at in 0.. {
                        let id = format!("i-{round}-{writer}-{at}");
                        let mut one = registration(&id, "http://127.0.0.1:1/metrics");
                        one.scrape_interval = None;
                        one.window = None;
                        if client.register_instance(one).await.is_err() {
                            break;
                        }
                        answered.send_modify(|count| *count += 1);
                        made.push(id.clone());
                        if at % 3 > 0 {
                            // asked for, but whether it happened is known only if it is answered
                            made.pop();
                            let delete = pb::DeleteInstanceRequest {
                                instance_id: id.clone(),
                                ..Default::default()
                            };
                            if client.delete_instance(delete).await.is_err() {
                                break;
                            }
                            answered.send_modify(|count| *count += 1);
                            gone.push(id);
                        }
                    }
                    (made, gone)
                })
            })
            .collect();
        answers.wait_for(|count| *count >= wanted).await.unwrap();
        served.child.start_kill().unwrap();
        served.child.wait().await.unwrap();
        let before = acknowledged.len();
        for writer in writers {
            let (made, gone) = writer.await.unwrap();
            acknowledged.extend(made);
            deleted.extend(gone);
        }
        assert!(
            acknowledged.len() > before,
            "something was registered before the kill"
        );
    }
}

/// A disk that is full, and has room again: as a limit on the size of files, which can be had without being root.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let state = state_home();
    let directory = state.to_str().unwrap();
    let mut child = command_by("sh")
        .args([
            "-c",
            "ulimit -S -f 700; trap '' XFSZ; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_perfagent"),
        ])
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--state-dir",
            directory,
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .expect("the agent says where it listens");
        let entry: Value = serde_json::from_str(&line).unwrap();
        let message = entry["fields"]["message"].as_str().unwrap_or_default();
        if let Some(address) = message.strip_prefix("listening on ") {
            break address.to_owned();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    let mut client = InstanceServiceClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let mut acknowledged = Vec::new();
    let mut failures = Vec::new();
    let mut number = 0;
    let mut register = async |acknowledged: &mut Vec<String>, failures: &mut Vec<tonic::Status>| {
        number += 1;
        let id = format!("i-{number}");
        let mut one = registration(&id, "http://127.0.0.1:1/metrics");
        one.scrape_interval = None;
        one.window = None;
        one.request_id = uuid::Uuid::new_v4().to_string();
        match client.register_instance(one).await {
            Ok(_) => acknowledged.push(id),
            Err(status) => failures.push(status),
        }
    };
    while failures.len() < 3 {
        register(&mut acknowledged, &mut failures).await;
        assert!(acknowledged.len() < 500, "the disk is never full");
    }
    for failure in &failures {
        let code = failure.code();
        let told = [tonic::Code::ResourceExhausted, tonic::Code::Unavailable].contains(&code);
        assert!(told, "{failure:?}");
    }
    let before = acknowledged.len();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    let room = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, room).unwrap();
    for _ in 0..30 {
        register(&mut acknowledged, &mut failures).await;
    }
    assert!(
        acknowledged.len() >= before + 29,
        "it works again by itself: {failures:?}"
    );
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    let served = serve(&["--state-dir", directory]).await;
    let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    let list = pb::ListInstancesRequest {
        page_size: 500,
        ..Default::default()
    };
    let listed = client
        .list_instances(list)
        .await
        .unwrap()
        .into_inner()
        .instances;
    let known: Vec<&str> = listed
        .iter()
        .map(|instance| instance.instance_id.as_str())
        .collect();
    for id in &acknowledged {
        assert!(
            known.contains(&id.as_str()),
            "{id} was acknowledged and is lost"
        );
    }
}

#[tokio::test]
async fn a_thousand_open_streams_do_not_hold_up_the_end() {
    let agent = TestAgent::start().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let client = agent.metrics().await;
        for _ in 0..250 {
            let mut client = client.clone();
            streams.push(tokio::spawn(async move {
                let watched = client
                    .watch_metrics(pb::WatchMetricsRequest::default())
                    .await?;
                let mut stream = watched.into_inner();
                while stream.message().await?.is_some() {}
                Ok::<(), tonic::Status>(())
            }));
        }
    }
    let opened = async {
        loop {
            let text = crate::http::get(&agent, "/metrics", "localhost").await;
            if text.contains("perfagent_watchers 1000") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // one peer may have a thousand calls open
    tokio::time::timeout(PATIENCE, opened)
        .await
        .expect("a thousand streams");
    agent.handle.stop();
    // the configured drain time of this agent is ten seconds; after it connections would be cut
    tokio::time::timeout(Duration::from_secs(30), agent.served)
        .await
        .expect("ends")
        .unwrap();
    for stream in streams {
        let end = stream.await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
        assert!(end.message().contains("being stopped"), "{end:?}");
    }
}

/// What holds an engine's secrets says none of them, whoever asks.
#[tokio::test]
async fn a_secret_of_an_engine_is_in_no_output() {
    const SECRET: &str = "planted-8f1c2d";
    let captures = crate::captures::root().join("sglang-0.5.23/c-saturation/scrape-1.prom");
    let body = std::fs::read(captures).unwrap();
    let engine = FakeEngine::start(move |path, _| match path {
        path if path.starts_with("/metrics") => crate::fake::Answer::ok(body.clone()),
        "/get_server_info" | "/server_info" => crate::fake::Answer::ok(format!(
            "{{\"version\":\"0.5.23\",\"api_key\":\"{SECRET}\",\"admin_api_key\":\"{SECRET}\",\"max_running_requests\":8}}"
        )),
        _ => crate::fake::Answer::Plain(404, Vec::new()),
    })
    .await;
    let agent = TestAgent::start().await;
    let url = format!("{}?token={SECRET}", engine.url());
    agent
        .instances()
        .await
        .register_instance(registration("a", &url))
        .await
        .unwrap();
    crate::watching::until_state(&agent, "a", pb::InstanceState::Up).await;
    // settings are asked for beside the scrapes
    let with_settings = async {
        loop {
            let request = pb::CollectMetricsRequest {
                instance_id: "a".to_owned(),
                ..Default::default()
            };
            let answer = agent.metrics().await.collect_metrics(request).await;
            let measured = answer.unwrap().into_inner();
            let settings = format!("{:?}", measured.measurement.as_ref().unwrap().settings);
            if settings.contains("max_running_requests") {
                return measured;
            }
        }
    };
    let measured = tokio::time::timeout(PATIENCE, with_settings)
        .await
        .expect("settings come");
    let shown = crate::http::get(&agent, "/metrics", "localhost").await;
    assert!(!format!("{measured:?}").contains(SECRET));
    assert!(!shown.contains(SECRET));
    let watch = pb::WatchMetricsRequest::default();
    let mut stream = agent
        .metrics()
        .await
        .watch_metrics(watch)
        .await
        .unwrap()
        .into_inner();
    let told = stream.message().await.unwrap().unwrap();
    assert!(!format!("{told:?}").contains(SECRET));
}

#[tokio::test]
async fn an_agent_works_with_one_thread() {
    let engine = counting_vllm(|count| count as u64).await;
    let served = serve(&["--workers", "1"]).await;
    let url = engine.url();
    instances(
        &served,
        &["register", "a", "--url", &url, "--interval", "200ms"],
    )
    .await;
    let threads = std::fs::read_dir(format!("/proc/{}/task", served.child.id().unwrap())).unwrap();
    let names: Vec<String> = threads
        .flatten()
        .map(|thread| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default())
        .collect();
    let workers = names
        .iter()
        .filter(|name| name.starts_with("tokio-rt-worker") || name.starts_with("tokio-runtime-w"));
    // blocking work has threads of the same name, so at least one and no more than a few
    assert!((1..=3).contains(&workers.count()), "{names:?}");
    let zero = run(&["serve", "--workers", "0", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(zero.status.code(), Some(2));
}
