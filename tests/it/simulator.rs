//! `perfagent simulate`, measured as a real engine is.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

use crate::cli::{command, run, terminate, text};

/// A simulator on ports of its own.
pub struct Simulator {
    pub urls: Vec<String>,
    child: Child,
    _out: Lines<BufReader<ChildStdout>>,
}

pub async fn simulate(replicas: usize, arguments: &str) -> Simulator {
    let mut child = command()
        .args(["simulate", "--port", "0"])
        .args(arguments.split_whitespace())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut urls = Vec::new();
    while urls.len() < replicas {
        let line = out
            .next_line()
            .await
            .unwrap()
            .expect("it says where it listens");
        assert!(line.starts_with("SIMULATED "), "{line}");
        urls.push(
            line.split(' ')
                .find(|word| word.starts_with("http://"))
                .unwrap()
                .to_owned(),
        );
    }
    Simulator {
        urls,
        child,
        _out: out,
    }
}

impl Simulator {
    /// Status and body.
    async fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let address = self.urls[0]
            .trim_start_matches("http://")
            .trim_end_matches("/metrics");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (request, headers) = head.split_once('\n').unwrap_or((head, ""));
        let length = body.len();
        let message = format!(
            "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    async fn state(&self) -> Value {
        let (status, body) = self.ask("GET /simulator", "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(&format!("POST {path}"), &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Waits until so many seconds were simulated: the clients have begun at once, and are out of step by then.
    async fn past(&self, seconds: f64) {
        while self.state().await["seconds"].as_f64().unwrap() < seconds {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn measure(&self, window: &str) -> Value {
        let mut arguments = vec!["collect", "--window", window, "-o", "json"];
        for url in &self.urls {
            arguments.extend(["--url", url]);
        }
        let shown = run(&arguments).await;
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let measurement = answer["measurement"].clone();
        assert_eq!(measurement["simulated"], true);
        measurement
    }
}

fn named<'a>(of: &'a Value, kind: &str, name: &str) -> &'a Value {
    let all = of["figures"][kind].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {of}"))
}

fn gauge(of: &Value, name: &str) -> f64 {
    named(of, "gauges", name)["mean"].as_f64().unwrap()
}

fn quantity(of: &Value, name: &str) -> f64 {
    named(of, "quantities", name)["value"]
        .as_f64()
        .unwrap_or(0.0)
}

/// What is inside is what comes in, times how long it stays.
fn assert_littles_law(of: &Value) {
    let inside = gauge(of, "requests_running") + gauge(of, "requests_waiting");
    let stay = named(of, "distributions", "e2e_request_latency_seconds")["mean"]
        .as_f64()
        .unwrap();
    let expected = quantity(of, "requests_finished_per_second") * stay;
    assert!(
        (inside / expected - 1.0).abs() < 0.03,
        "{inside} inside, {expected} expected"
    );
}

#[tokio::test]
async fn littles_law_holds_twenty_times_as_fast() {
    let simulator = simulate(
        1,
        "--speed 20 --clients 200 --think 0.6 --max-num-seqs 32 --fixed-seconds 0.01 \
         --prompt-tokens 16..64 --output-tokens 80..120",
    )
    .await;
    simulator.past(60.0).await;
    let measured = simulator.measure("8s").await;
    assert_littles_law(&measured);
    // by the time of the simulation, of which more has passed than of the clock
    let observed = measured["window"]["observed_seconds"].as_f64().unwrap();
    assert!(observed > 100.0, "{observed}");
}

#[tokio::test]
async fn littles_law_holds_in_real_time() {
    let simulator = simulate(
        1,
        "--clients 64 --think 0.02 --max-num-seqs 16 --fixed-seconds 0.001 --token-seconds 0 \
         --frontend-seconds 0.0005 --prompt-tokens 16..64 --output-tokens 80..120",
    )
    .await;
    simulator.past(2.0).await;
    assert_littles_law(&simulator.measure("10s").await);
}

#[tokio::test]
async fn replicas_share_the_load() {
    let simulator = simulate(2, "--replicas 2 --speed 10 --engine sglang --clients 30").await;
    let measured = simulator.measure("2s").await;
    let replicas = measured["replicas"].as_array().unwrap();
    assert_eq!(
        (measured["instance_type"].as_str(), replicas.len()),
        (Some("sglang"), 2)
    );
    for replica in replicas {
        let inside = gauge(replica, "requests_running") + gauge(replica, "requests_waiting");
        assert!((13.0..=15.0).contains(&inside), "{inside}");
    }
}

#[tokio::test]
async fn a_stall_is_seen_and_ends() {
    let simulator = simulate(1, "--speed 10 --max-num-seqs 4").await;
    let state = simulator
        .post("/simulator/faults", json!({ "stalled": true }))
        .await;
    assert_eq!(
        state["faults"],
        json!({ "stalled": true, "slowness": 1.0, "failure_ratio": 0.0 })
    );
    let measured = simulator.measure("2s").await;
    assert!(gauge(&measured, "requests_running") > 0.0);
    assert_eq!(quantity(&measured, "generation_tokens_per_second"), 0.0);
    assert!(
        measured["notes"]
            .to_string()
            .contains("HELD_WITHOUT_PROGRESS"),
        "{}",
        measured["notes"]
    );
    simulator
        .post(
            "/simulator/faults",
            json!({ "stalled": false, "failure_ratio": 0.5 }),
        )
        .await;
    let measured = simulator.measure("2s").await;
    assert!(quantity(&measured, "generation_tokens_per_second") > 0.0);
    assert!(quantity(&measured, "requests_errored_increase") > 0.0);
}

#[tokio::test]
async fn a_restart_is_seen_as_one() {
    // each two seconds of the clock
    let faults: Vec<Value> = (1..200)
        .map(|at| json!({ "at_seconds": at * 40, "restart": { "load_seconds": 1 } }))
        .collect();
    let scenario = json!({ "cause": "it restarts", "speed": 20, "faults": faults });
    let path = crate::cli::state_home().with_extension("toml");
    std::fs::write(&path, toml::to_string(&scenario).unwrap()).unwrap();
    let simulator = simulate(1, &format!("--scenario {}", path.display())).await;
    assert_eq!(simulator.state().await["cause"], "it restarts");
    let measured = simulator.measure("5s").await;
    assert!(
        measured["notes"].to_string().contains("RESTARTED"),
        "{measured}"
    );
    // with other settings, of which the metrics and the answers tell
    let how =
        json!({ "settings": { "max_num_seqs": 8, "block_size": 32 }, "load_seconds": 100_000 });
    let state = simulator.post("/simulator/restart", how).await;
    assert_eq!(
        (&state["up"], &state["settings"]["max_num_seqs"]),
        (&json!(false), &json!("8"))
    );
    assert_eq!(simulator.ask("GET /metrics", "").await.0, 503);
}

#[tokio::test]
async fn it_answers_as_its_engine_does() {
    let vllm = simulate(1, "--max-num-seqs 4 --speed 5").await;
    let info = vllm.ask("GET /server_info?config_format=json", "").await;
    assert!(info.1.contains("\"max_num_seqs\":4"), "{}", info.1);
    assert_eq!(vllm.ask("GET /health", "").await, (200, String::new()));
    assert_eq!(vllm.ask("GET /info", "").await.0, 404);
    let tgi = simulate(1, "--engine tgi --max-total-tokens 1024").await;
    assert!(
        tgi.ask("GET /info", "")
            .await
            .1
            .contains("text-generation-router")
    );
    // every value with its time, where time runs faster
    let body = vllm.ask("GET /metrics", "").await.1;
    let values = body.lines().filter(|line| !line.starts_with('#'));
    assert!(
        values.clone().all(
            |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 1_000_000_000_000
        )
    );
    assert!(values.count() > 300);
    // not for pages in a browser; and what is wrong is said
    let page = vllm
        .ask(
            "POST /simulator/faults\nOrigin: http://evil.example\r\n",
            "{\"stalled\": true}",
        )
        .await;
    assert_eq!(page.0, 403);
    for (path, body, status, what) in [
        (
            "/simulator/faults",
            "{\"stalle\": true}",
            400,
            "unknown field",
        ),
        ("/simulator/faults", "{\"slowness\": 0}", 400, "above 0"),
        (
            "/simulator/restart",
            "{\"settings\": {\"max_num_seqs\": 0}}",
            400,
            "max_num_seqs = 0",
        ),
        ("/simulator/other", "{}", 404, "/simulator/restart"),
    ] {
        let (found, answer) = vllm.ask(&format!("POST {path}"), body).await;
        assert!(
            found == status && answer.contains(what),
            "{path} {body}: {found} {answer}"
        );
    }
    assert_eq!(vllm.state().await["faults"]["stalled"], false);
}

#[tokio::test]
async fn it_ends_cleanly_and_says_why_it_does_not_begin() {
    let mut simulator = simulate(1, "").await;
    let port = simulator.urls[0]
        .trim_end_matches("/metrics")
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    for (arguments, code, what) in [
        (
            vec!["--port", port.as_str()],
            1,
            format!("cannot listen on 127.0.0.1:{port}"),
        ),
        (
            vec!["--max-running-requests", "4"],
            2,
            "vllm has no setting `max-running-requests`".to_owned(),
        ),
        (
            vec!["--engine", "llama"],
            2,
            "vllm, sglang and tgi".to_owned(),
        ),
        (
            vec!["--max-num-seqs", "4096"],
            2,
            "max_num_batched_tokens = 2048".to_owned(),
        ),
        (
            vec!["--scenario", "/nowhere.toml"],
            2,
            "cannot read /nowhere.toml".to_owned(),
        ),
    ] {
        let shown = run(&[&["simulate"], &arguments[..]].concat()).await;
        let error = text(&shown.stderr);
        assert!(
            shown.status.code() == Some(code) && error.contains(&what),
            "{arguments:?}: {error}"
        );
    }
    terminate(&simulator.child);
    assert_eq!(simulator.child.wait().await.unwrap().code(), Some(0));
}
