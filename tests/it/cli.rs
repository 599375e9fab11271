//! The command as a user types it.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::captures;
use crate::fake::{FakeEngine, TestAgent, counting_vllm, vllm_body};

/// A directory for the state of one agent, empty.
pub fn state_home() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("state-{}", COUNT.fetch_add(1, Ordering::SeqCst));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

pub fn command() -> Command {
    command_by(env!("CARGO_BIN_EXE_perfagent"))
}

/// Started by another program.
pub fn command_by(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .env("XDG_STATE_HOME", state_home())
        .env_remove("RUST_LOG")
        .env_remove("PERFAGENT_SERVER")
        .env_remove("PERFAGENT_TOKEN");
    // they are the tests' own, and would be taken for settings
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PERFAGENT_TEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

pub async fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A replay of a capture on a port of its own, so slow that it stays at its first scrape.
struct Replay {
    url: String,
    _child: Child,
    _out: Lines<BufReader<ChildStdout>>,
}

async fn replay(capture: &str, speed: &str) -> Replay {
    let directory = captures::root().join(capture);
    let mut child = command()
        .args([
            "replay",
            directory.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--speed",
            speed,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = out
        .next_line()
        .await
        .unwrap()
        .expect("the replay says where it listens");
    let url = line
        .split(' ')
        .find(|word| word.starts_with("http://"))
        .unwrap();
    Replay {
        url: url.trim_end_matches(',').to_owned(),
        _child: child,
        _out: out,
    }
}

/// Compares with a golden file; with UPDATE_GOLDEN=1 writes it.
pub fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs; if it should, run UPDATE_GOLDEN=1 cargo test --test it cli\n{actual}"
    );
}

#[tokio::test]
async fn the_same_content_as_json_and_as_a_table() {
    let replay = replay("vllm-0.32.0/c-saturation", "0.001").await;
    let mut goldens = Vec::new();
    for output in ["json", "table"] {
        let shown = run(&[
            "collect",
            "--url",
            &replay.url,
            "--window",
            "0s",
            "--output",
            output,
        ])
        .await;
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        // the port is another one each time
        goldens.push(text(&shown.stdout).replace(&replay.url, "http://engine:8000/metrics"));
        assert_eq!(
            text(&shown.stderr),
            "",
            "no progress where there is no terminal"
        );
    }
    golden("collect.json", &goldens[0]);
    golden("collect.txt", &goldens[1]);
    assert!(
        !goldens[1].contains('\u{1b}'),
        "no colour where there is no terminal"
    );
}

#[tokio::test]
async fn a_server_shows_what_the_command_shows_alone() {
    let replay = replay("sglang-0.5.23/c-saturation", "0.001").await;
    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    let arguments = [
        "collect",
        "--url",
        &replay.url,
        "--window",
        "0s",
        "-o",
        "json",
    ];
    let alone = run(&arguments).await;
    let through = run(&[&arguments[..], &["--server", &address]].concat()).await;
    assert!(through.status.success(), "{}", text(&through.stderr));
    assert_eq!(text(&alone.stdout), text(&through.stdout));
    let answer: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(answer["measurement"]["instance_type"], "sglang");
}

#[tokio::test]
async fn a_replay_gives_the_rates_that_were_recorded() {
    let replay = replay("vllm-0.16.0/c-saturation", "10").await;
    let shown = run(&[
        "collect",
        "--url",
        &replay.url,
        "--window",
        "2s",
        "-o",
        "json",
    ])
    .await;
    let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let rate = answer["measurement"]["throughput_metrics"]["tokens_per_second"]
        .as_f64()
        .unwrap();
    let truth = captures::capture("vllm-0.16.0/c-saturation")
        .client_window()
        .chunks_per_second;
    // which scrapes fall into the window is up to the clock; all are within the load or its drain
    assert!(
        (rate / truth - 1.0).abs() < 0.35,
        "{rate} tokens/s, recorded {truth}"
    );
}

#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let engine = counting_vllm(|count| count as u64).await;
    let broken = FakeEngine::of("<html>").await;
    let gone = "http://127.0.0.1:1/metrics";
    let code = |output: &Output| output.status.code().unwrap();
    let good = engine.url();
    assert_eq!(
        code(&run(&["collect", "--url", &good, "--window", "0s"]).await),
        0
    );

    let failed = run(&["collect", "--url", &broken.url(), "--window", "0s"]).await;
    assert_eq!(code(&failed), 1);
    let complaint = text(&failed.stderr);
    assert!(
        complaint.contains("an HTML page, not metrics text"),
        "{complaint}"
    );
    assert!(complaint.contains("hint: check the path"), "{complaint}");
    assert_eq!(text(&failed.stdout), "");

    let partial = run(&[
        "collect", "--url", gone, "--url", &good, "--engine", "vllm", "--window", "0s",
    ])
    .await;
    assert_eq!(code(&partial), 3);
    assert!(text(&partial.stdout).contains("REPLICA_FAILED"));

    for wrong in [
        &["collect"][..],
        &["collect", "--url", &good, "--window", "soon"],
        &["collect", "--url", &good, "--window", "6m"],
        &["collect", "--url", &good, "--engine", "vlm"],
        &["collect", "--url", &good, "--id", "Not an id"],
        &["collect", "--url", &good, "--config", "/nowhere.toml"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["replay", "/nowhere"],
        &["nothing"],
    ] {
        let output = run(wrong).await;
        assert_eq!(code(&output), 2, "{wrong:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("error"), "{wrong:?}");
    }
    let unreachable = run(&["collect", "--url", &good, "--server", "127.0.0.1:1"]).await;
    assert_eq!(code(&unreachable), 1);
    assert!(text(&unreachable.stderr).contains("perfagent serve"));
}

#[tokio::test]
async fn nothing_from_an_engine_controls_the_terminal() {
    let body = vllm_body(1).replace("\"m\"", "\"\u{1b}[31mred\u{1b}]0;title\u{7}\"");
    let engine = FakeEngine::of(body).await;
    let shown = run(&["collect", "--url", &engine.url(), "--window", "0s"]).await;
    assert!(shown.status.success());
    let out = text(&shown.stdout);
    assert!(out.contains("[31mred"), "{out}");
    assert!(!out.contains('\u{1b}') && !out.contains('\u{7}'), "{out:?}");
}

#[tokio::test]
async fn help_teaches() {
    let help = text(&run(&["collect", "--help"]).await.stdout);
    for word in [
        "--url",
        "--window",
        "Examples:",
        "Exit codes:",
        "auto",
        "5s",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = text(&run(&["--help"]).await.stdout);
    for word in [
        "serve",
        "collect",
        "watch",
        "instances",
        "config",
        "token",
        "descriptor",
        "completions",
        "replay",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}

#[tokio::test]
async fn the_custom_engine_of_the_readme_works() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let example = readme
        .split("```toml")
        .filter_map(|part| part.split("```").next())
        .find(|part| part.contains("[[engines]]"))
        .expect("the README shows a custom engine");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), example).unwrap();
    let path = file.path().to_str().unwrap();
    let checked = run(&["config", "check", "--config", path]).await;
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("lmdeploy"));
    let engine = FakeEngine::of(
        "# TYPE lmdeploy:num_requests_running gauge\nlmdeploy:num_requests_running 3\n\
         # TYPE lmdeploy:generation_tokens_total counter\nlmdeploy:generation_tokens_total 500\n\
         # TYPE lmdeploy:gpu_cache_usage_perc gauge\nlmdeploy:gpu_cache_usage_perc 0.25\n\
         # TYPE lmdeploy:request_success_total counter\n\
         lmdeploy:request_success_total{finished_reason=\"stop\"} 7\n\
         lmdeploy:request_success_total{finished_reason=\"abort\"} 2\n",
    )
    .await;
    let shown = run(&[
        "collect",
        "--config",
        path,
        "--url",
        &engine.url(),
        "--window",
        "0s",
        "-o",
        "json",
    ])
    .await;
    let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let measurement = &answer["measurement"];
    assert_eq!(measurement["instance_type"], "lmdeploy");
    assert_eq!(measurement["gpu_metrics"]["num_requests_running"], 3.0);
    assert_eq!(measurement["gpu_metrics"]["cache_usage_perc"], 25.0);
    assert_eq!(
        measurement["throughput_metrics"]["generation_tokens_total"],
        500.0
    );
    let quantities = measurement["figures"]["quantities"].as_array().unwrap();
    let aborted = quantities
        .iter()
        .find(|one| one["name"] == "requests_aborted_total")
        .unwrap();
    assert_eq!(aborted["value"], 2.0);
    assert_eq!(
        aborted["source_metric"],
        "lmdeploy:request_success_total{finished_reason=\"abort\"}"
    );
}

/// A served agent as its own process.
pub struct Served {
    pub child: Child,
    pub address: String,
    pub log: Lines<BufReader<ChildStderr>>,
}

pub async fn serve(arguments: &[&str]) -> Served {
    let mut child = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = log.next_line().await.unwrap();
        let line = line.expect("the agent says where it listens");
        let entry: Value = serde_json::from_str(&line).unwrap();
        // instances may have been scraped before
        let message = entry["fields"]["message"].as_str().unwrap_or_default();
        if let Some(address) = message.strip_prefix("listening on ") {
            break address.to_owned();
        }
    };
    Served {
        child,
        address,
        log,
    }
}

pub fn terminate(child: &Child) {
    let id = child.id().unwrap().to_string();
    let told = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .unwrap();
    assert!(told.success());
}

#[tokio::test]
async fn a_running_call_is_finished_before_the_agent_stops() {
    let engine = counting_vllm(|count| 10 * count as u64).await;
    let mut served = serve(&[]).await;
    let url = engine.url();
    let collecting = {
        let address = served.address.clone();
        tokio::spawn(async move {
            run(&[
                "collect", "--url", &url, "--window", "2s", "--server", &address, "-o", "json",
            ])
            .await
        })
    };
    while engine.connections() == 0 {
        tokio::task::yield_now().await;
    }
    terminate(&served.child);
    let collected = collecting.await.unwrap();
    assert!(collected.status.success(), "{}", text(&collected.stderr));
    assert!(served.child.wait().await.unwrap().success());
    let mut log = Vec::new();
    while let Some(line) = served.log.next_line().await.unwrap() {
        log.push(line);
    }
    assert!(log.last().unwrap().contains("stopped"), "{log:?}");
}

#[tokio::test]
async fn the_drain_has_a_hard_end() {
    let hanging = FakeEngine::start(|_, _| crate::fake::Answer::Hang).await;
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        config.path(),
        "[server]\ndrain_timeout = \"300ms\"\n[scrape]\ntimeout = \"60s\"\n",
    )
    .unwrap();
    let mut served = serve(&["--config", config.path().to_str().unwrap()]).await;
    let url = hanging.url();
    let collecting = {
        let address = served.address.clone();
        tokio::spawn(async move {
            run(&[
                "collect", "--url", &url, "--window", "0s", "--server", &address,
            ])
            .await
        })
    };
    while hanging.connections() == 0 {
        tokio::task::yield_now().await;
    }
    terminate(&served.child);
    assert!(served.child.wait().await.unwrap().success());
    assert_eq!(collecting.await.unwrap().status.code(), Some(1));
    let mut cut = false;
    while let Some(line) = served.log.next_line().await.unwrap() {
        cut |= line.contains("cutting what is left");
    }
    assert!(cut);
}

#[tokio::test]
async fn variables_and_flags_win_over_the_file() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[server]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let path = config.path().to_str().unwrap();
    let served = serve(&["--config", path]).await;
    assert_ne!(served.address, "127.0.0.1:1");
    let checked = command()
        .args(["config", "check", "--config", path])
        .env("PERFAGENT_SERVER__LISTEN", "127.0.0.1:4711")
        .output()
        .await
        .unwrap();
    assert!(text(&checked.stdout).contains("127.0.0.1:4711"));
    let misspelt = command()
        .args(["config", "check"])
        .env("PERFAGENT_SERVER__LISTN", "127.0.0.1:4711")
        .output()
        .await
        .unwrap();
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(text(&misspelt.stderr).contains("`server.listen`"));
}

#[tokio::test]
async fn a_machine_without_root_certificates_still_measures() {
    let engine = counting_vllm(|count| count as u64).await;
    let shown = command()
        .args(["collect", "--url", &engine.url(), "--window", "0s"])
        .env("SSL_CERT_FILE", "/nowhere")
        .env("SSL_CERT_DIR", "/nowhere")
        .output()
        .await
        .unwrap();
    assert!(shown.status.success(), "{}", text(&shown.stderr));
}
