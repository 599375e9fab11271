//! Actuators, the programs in `deploy/actuator`, and what `perfagent actuator check` finds of them.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::Write;
use tempfile::TempDir;

use crate::cli::{self, text};
use crate::peers::python;
use crate::simulator::simulate;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An engine that a program of `deploy/actuator` drives.
struct Host {
    directory: TempDir,
    program: Vec<String>,
    url: String,
    labels: Value,
    target: &'static str,
    /// What ends the engine.
    stop: Vec<String>,
}

/// Addresses that nobody else has, so that the port is free again after a restart.
fn address() -> (String, u16) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = format!(
        "127.{}.{low}.{}",
        high % 254 + 1,
        NEXT.fetch_add(1, Ordering::SeqCst)
    );
    let listener = TcpListener::bind((host.as_str(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (host, port)
}

impl Host {
    fn new(
        target: &'static str,
        labels: Value,
        program: impl FnOnce(&str) -> (Vec<String>, Vec<String>),
    ) -> (Self, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let (host, port) = address();
        let path = directory.path().to_str().unwrap().to_owned();
        let (program, stop) = program(&path);
        let engine = here("tests/fixtures/actuator/engine.py");
        let words = format!(
            "python3 {} {path} {host} {port} --api-key=canary-secret --max-num-seqs 4",
            engine.display()
        );
        let words = words.split(' ').map(str::to_owned).collect();
        let url = format!("http://{host}:{port}/metrics");
        let host = Self {
            directory,
            program,
            url,
            labels,
            target,
            stop,
        };
        (host, words)
    }

    fn local() -> Self {
        let program = here("deploy/actuator/local-process").display().to_string();
        let (host, words) = Self::new("replica-0", json!({}), |path| {
            let all = [&program, "--directory", path, "--stop-seconds", "600"];
            let stop = [
                &program,
                "--directory",
                path,
                "--stop-seconds",
                "0",
                "stop",
                "replica-0",
            ];
            (
                all.map(str::to_owned).to_vec(),
                stop.map(str::to_owned).to_vec(),
            )
        });
        let started = host
            .command(&host.program)
            .args(["start", "replica-0", "--"])
            .args(words)
            .status();
        assert!(started.unwrap().success());
        host
    }

    fn systemd() -> Self {
        let program = here("deploy/actuator/systemd-dropin").display().to_string();
        let systemctl = here("tests/fixtures/actuator/systemctl")
            .display()
            .to_string();
        let labels = json!({ "systemd-unit": "vllm.service" });
        let (host, words) = Self::new("vllm.service", labels, |path| {
            let all = [&program, "--directory", path];
            let stop = [&systemctl, "stop", "vllm.service"];
            (
                all.map(str::to_owned).to_vec(),
                stop.map(str::to_owned).to_vec(),
            )
        });
        std::fs::create_dir(host.path("vllm.service.d")).unwrap();
        let command = words.join(" ");
        let dropin = format!(
            "# ours\n[Service]\nExecStart=\nExecStart={command} --name \"100%% of $$it\"\nNice=5\n"
        );
        std::fs::write(host.settings(), dropin).unwrap();
        let mut restart = host.stop.clone();
        restart[1] = "restart".to_owned();
        assert!(host.command(&restart).status().unwrap().success());
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file of the settings.
    fn settings(&self) -> PathBuf {
        match self.target {
            "vllm.service" => self.path("vllm.service.d/50-perfagent.conf"),
            name => self.path(&format!("{name}.json")),
        }
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("UNITS", self.directory.path())
            .env("SYSTEMCTL", here("tests/fixtures/actuator/systemctl"));
        command
    }

    /// Launch arguments of each start so far, without the engine's own.
    fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn started(&self, times: usize) {
        while self.starts().len() < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn request(&self, op: &str, more: Value) -> Value {
        let mut request = json!({
            "protocol": 1, "op": op, "actuator": "host",
            "instance": {
                "instance_id": "a", "engine": null, "metrics_urls": [self.url], "labels": self.labels,
            },
        });
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        request
    }

    /// A program that has been asked, in a process group of its own.
    fn begin(&self, request: &Value) -> Child {
        let mut child = self
            .command(&self.program)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.to_string().as_bytes()).unwrap();
        child
    }

    async fn ask(&self, request: &Value) -> Value {
        answer_of(self.begin(request)).await
    }

    /// Its target once it is ready.
    async fn ready(&self) -> Value {
        loop {
            let answer = self.ask(&self.request("read", json!({}))).await;
            let target = answer["ok"]["targets"][0].clone();
            assert!(target.is_object(), "{answer}");
            if target["ready"] == true {
                return target;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A write of settings with another cap over those of `target`.
    async fn apply(&self, target: &Value, operation_id: &str, cap: &str) -> Value {
        let mut words = target["launch_args"].as_array().unwrap().clone();
        let at = words
            .iter()
            .position(|word| word == "--max-num-seqs")
            .unwrap();
        words[at + 1] = cap.into();
        let plan = json!({
            "target": target["name"], "content_base64": target["content_base64"], "launch_args": words,
        });
        let planned = self.ask(&self.request("plan", plan)).await;
        self.request(
            "apply",
            json!({
                "target": target["name"], "operation_id": operation_id, "epoch": 3,
                "expect_revision": target["revision"],
                "content_base64": planned["ok"]["content_base64"],
            }),
        )
    }

    /// A config file for the agent: the program, or something that stands before it.
    fn config(&self, before: &[&str]) -> PathBuf {
        let command: Vec<&str> = before
            .iter()
            .copied()
            .chain(self.program.iter().map(String::as_str))
            .collect();
        let labels: Vec<String> = self
            .labels
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let config = format!(
            "[[actuators]]\nname = \"host\"\ntype = \"command\"\ncommand = {command:?}\nenv = [\"PATH\", \"UNITS\", \"SYSTEMCTL\"]\n\
             [[instances]]\ninstance_id = \"a\"\nmetrics_urls = [{:?}]\nactuator = \"host\"\nlabels = {{{}}}\n",
            self.url,
            labels.join(", ")
        );
        let path = self.path("perfagent.toml");
        std::fs::write(&path, config).unwrap();
        path
    }

    /// How `perfagent actuator check` ends, and what it prints.
    async fn check(&self, before: &[&str], more: &[&str]) -> (Option<i32>, String, String) {
        let output = cli::command()
            .args(["actuator", "check", "host", "--instance", "a", "--config"])
            .arg(self.config(before))
            .arg("--state-dir")
            .arg(self.path("state"))
            .args(more)
            .env("UNITS", self.directory.path())
            .env("SYSTEMCTL", here("tests/fixtures/actuator/systemctl"))
            .output()
            .await
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path("stubborn"));
        let _ = std::fs::remove_file(self.path("blocked"));
        let _ = self.command(&self.stop).status();
    }
}

async fn answer_of(child: Child) -> Value {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = output.await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Words of each line.
fn outcomes(table: &str) -> Vec<(String, String)> {
    let lines = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let outcome = words
            .next()
            .filter(|word| word.chars().all(char::is_uppercase))?;
        Some((outcome.to_owned(), words.next()?.to_owned()))
    });
    lines.collect()
}

const STEPS: [&str; 8] = [
    "read",
    "plan",
    "apply",
    "repeat",
    "stale_revision",
    "stale_epoch",
    "restore",
    "hang",
];

#[tokio::test]
async fn the_example_programs_keep_what_they_promise() {
    for host in [Host::local(), Host::systemd()] {
        host.ready().await;
        let before = std::fs::read(host.settings()).unwrap();
        let (code, table, error) = host.check(&[], &["--yes"]).await;
        assert_eq!(code, Some(0), "{table}{error}");
        let passed: Vec<_> = STEPS
            .iter()
            .map(|step| ("PASSED".to_owned(), (*step).to_owned()))
            .collect();
        assert_eq!(outcomes(&table), passed, "{table}");
        assert_eq!(std::fs::read(host.settings()).unwrap(), before);
        let starts = host.starts();
        assert_eq!(starts.len(), 3, "{starts:?}");
        assert_eq!(starts[0], starts[2]);
        assert_eq!(starts[1], starts[0].replace("seqs 4", "seqs 3"));
        assert!(!(table + &error).contains("canary"));
        let record = host.path("state/actuators/host.json");
        let mode = std::fs::metadata(record).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_program_that_does_not_keep_them_is_found_out_and_its_engine_left_as_it_was() {
    let between = here("tests/fixtures/actuator/between.py");
    for (how, wrong) in [
        ("any_revision", "stale_revision"),
        ("any_epoch", "stale_epoch"),
    ] {
        let host = Host::local();
        host.ready().await;
        let before = std::fs::read(host.settings()).unwrap();
        let kept = host.path("kept");
        // programs are given by their whole path, which the shell finds
        let python = text(
            &Command::new("sh")
                .args(["-c", "command -v python3"])
                .output()
                .unwrap()
                .stdout,
        );
        let stands = [
            python.trim(),
            between.to_str().unwrap(),
            how,
            kept.to_str().unwrap(),
        ];
        let (code, out, error) = host.check(&stands, &["--yes", "--output", "json"]).await;
        assert_eq!(code, Some(1), "{out}{error}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        for step in answer["steps"].as_array().unwrap() {
            let is_wrong = step["name"] == wrong;
            let outcome = if is_wrong { "FAILED" } else { "PASSED" };
            assert_eq!(step["outcome"], outcome, "{step}");
        }
        assert_eq!(answer["passed"], false);
        assert!(!host.path("state/actuators/host.json").exists());
        assert_eq!(std::fs::read(host.settings()).unwrap(), before);
    }
}

#[tokio::test]
async fn nobody_is_surprised_by_a_restart() {
    let host = Host::local();
    host.ready().await;
    let (code, _, error) = host.check(&[], &[]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(host.starts().len(), 1);
    let output = cli::command()
        .args(["actuator", "check", "hots", "--instance", "a", "--config"])
        .arg(host.config(&[]))
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the nearest is `host`"));
}

#[tokio::test]
async fn of_two_writes_at_once_one_wins_and_a_repeat_is_none() {
    for host in [Host::local(), Host::systemd()] {
        let target = host.ready().await;
        let apply = host.apply(&target, "op-1", "8").await;
        let (first, second) = (host.begin(&apply), host.begin(&apply));
        for answer in [answer_of(first).await, answer_of(second).await] {
            assert_eq!(answer["ok"]["target"]["operation_id"], "op-1", "{answer}");
        }
        let target = host.ready().await;
        assert_eq!(host.starts().len(), 2, "one write, one start");

        let (one, other) = (
            host.apply(&target, "op-2", "9").await,
            host.apply(&target, "op-3", "10").await,
        );
        let (first, second) = (host.begin(&one), host.begin(&other));
        let answers = [answer_of(first).await, answer_of(second).await];
        let won = answers.iter().filter(|answer| answer["ok"].is_object());
        assert_eq!(won.count(), 1, "{answers:?}");
        let now = host.ready().await;
        let lost = answers
            .iter()
            .find(|answer| answer["error"].is_object())
            .unwrap();
        assert_eq!(lost["error"]["code"], "STALE_REVISION");
        assert_eq!(lost["error"]["current_revision"], now["revision"]);
        assert_eq!(host.starts().len(), 3);
    }
}

#[tokio::test]
async fn a_write_that_was_killed_before_the_restart_is_completed_by_its_repeat() {
    for host in [Host::local(), Host::systemd()] {
        let target = host.ready().await;
        let apply = host.apply(&target, "op-1", "8").await;
        let wanted = STANDARD
            .decode(apply["content_base64"].as_str().unwrap())
            .unwrap();
        // the engine does not end, or its restart hangs, so that the program is between both
        std::fs::write(host.path("stubborn"), "").unwrap();
        std::fs::write(host.path("blocked"), "").unwrap();
        let mut child = host.begin(&apply);
        while std::fs::read(host.settings()).unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(host.starts().len(), 1);
        let read = host.ask(&host.request("read", json!({}))).await;
        let half = &read["ok"]["targets"][0];
        assert_eq!(half["ready"], false, "it runs with other settings");
        assert_eq!(half["operation_id"], "op-1");

        std::fs::remove_file(host.path("stubborn")).unwrap();
        std::fs::remove_file(host.path("blocked")).unwrap();
        let repeated = host.ask(&apply).await;
        assert_eq!(
            repeated["ok"]["target"]["operation_id"], "op-1",
            "{repeated}"
        );
        host.ready().await;
        host.started(2).await;
        assert!(host.starts()[1].contains("--max-num-seqs 8"));
        // and once more changes nothing
        let again = host.ask(&apply).await;
        assert_eq!(again["ok"]["target"]["ready"], true, "{again}");
        assert_eq!(host.starts().len(), 2);
    }
}

#[tokio::test]
async fn what_is_written_by_hand_is_seen_and_what_cannot_be_is_refused() {
    let host = Host::systemd();
    let target = host.ready().await;
    let words: Vec<&str> = target["launch_args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(words.last(), Some(&"100% of $it"));
    let apply = host.apply(&target, "op-1", "8").await;
    let text = std::fs::read_to_string(host.settings()).unwrap();
    std::fs::write(host.settings(), text.replace("Nice=5", "Nice=6")).unwrap();
    let refused = host.ask(&apply).await;
    assert_eq!(refused["error"]["code"], "STALE_REVISION", "{refused}");
    let mut elsewhere = apply.clone();
    elsewhere["target"] = "other.service".into();
    assert_eq!(host.ask(&elsewhere).await["error"]["code"], "NO_TARGET");
    let mut outside = host.request("read", json!({}));
    outside["instance"]["labels"]["systemd-unit"] = "../../etc.service".into();
    assert_eq!(host.ask(&outside).await["error"]["code"], "FAILED");
    let now = &host.ask(&host.request("read", json!({}))).await["ok"]["targets"][0];
    let mut no_command = apply;
    no_command["expect_revision"] = now["revision"].clone();
    no_command["content_base64"] = STANDARD.encode("[Service]\nNice=1\n").into();
    assert_eq!(host.ask(&no_command).await["error"]["code"], "FAILED");
    assert_eq!(host.starts().len(), 1);
}

#[tokio::test]
async fn the_schema_is_what_is_spoken() {
    let host = Host::local();
    host.ready().await;
    let between = here("tests/fixtures/actuator/between.py");
    let kept = host.path("kept");
    let stands = [
        python().to_str().unwrap(),
        between.to_str().unwrap(),
        "as_it_is",
        kept.to_str().unwrap(),
    ];
    let (code, out, error) = host.check(&stands, &["--yes"]).await;
    assert_eq!(code, Some(0), "{out}{error}");
    let validated = Command::new(python())
        .arg(here("tests/fixtures/actuator/validate.py"))
        .arg(here("deploy/actuator/protocol.schema.json"))
        .arg(here("deploy/actuator/README.md"))
        .arg(kept)
        .output()
        .unwrap();
    let error = text(&validated.stderr);
    assert!(validated.status.success(), "{error}");
    let seen: Value = serde_json::from_slice(&validated.stdout).unwrap();
    assert_eq!(
        seen,
        json!({
            "ops": ["apply", "plan", "read", "restore"],
            "codes": ["STALE_EPOCH", "STALE_REVISION"],
            "refused": 5,
        })
    );
}

#[tokio::test]
async fn the_simulator_is_driven_as_an_engine_is() {
    let simulator = simulate(
        2,
        "--replicas 2 --max-num-seqs 4 --clients 4 --load-time 100ms",
    )
    .await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("perfagent.toml");
    let text_of = format!(
        "[[actuators]]\nname = \"host\"\ntype = \"simulator\"\n[[instances]]\ninstance_id = \"a\"\nmetrics_urls = {:?}\nactuator = \"host\"\n",
        simulator.urls
    );
    std::fs::write(&config, text_of).unwrap();
    let output = cli::command()
        .args([
            "actuator",
            "check",
            "host",
            "--instance",
            "a",
            "--yes",
            "--config",
        ])
        .arg(&config)
        .output();
    let output = output.await.unwrap();
    let table = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{table}{}",
        text(&output.stderr)
    );
    let passed: Vec<_> = STEPS[..7]
        .iter()
        .map(|step| ("PASSED".to_owned(), (*step).to_owned()))
        .collect();
    assert_eq!(outcomes(&table), passed, "{table}");
    let (status, body) = simulator.get("/control/settings").await;
    assert_eq!(status, 200);
    let settings: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(settings["launch_args"], json!(["--max-num-seqs", "4"]));
    assert_eq!(settings["restarts"], 2);
    let applies: Vec<u64> = settings["applies"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .collect();
    assert_eq!(applies, [1, 1]);
}
