//! An engine on this machine that a program of `deploy/actuator` drives.

use std::fs::Permissions;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{self, text};

pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An engine that a program of `deploy/actuator` drives.
pub struct Host {
    pub directory: TempDir,
    program: Vec<String>,
    pub url: String,
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

    /// A process; requests are routed to it by a program that notes what it is told in the file `routed`.
    pub fn local() -> Self {
        let program = here("deploy/actuator/local-process").display().to_string();
        let (host, words) = Self::new("replica-0", json!({}), |path| {
            let router = format!("{path}/router");
            std::fs::write(&router, format!("#!/bin/sh\necho \"$@\" >>{path}/routed\n")).unwrap();
            std::fs::set_permissions(&router, Permissions::from_mode(0o700)).unwrap();
            let all = [
                &program,
                "--directory",
                path,
                "--stop-seconds",
                "600",
                "--route",
                &router,
            ];
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

    pub fn systemd() -> Self {
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
            "# ours\n[Service]\nExecStart=\nExecStart={command} \\\n  --name \"100%% of $$it\"\nNice=5\n"
        );
        std::fs::write(host.settings(), dropin).unwrap();
        let mut restart = host.stop.clone();
        restart[1] = "restart".to_owned();
        assert!(host.command(&restart).status().unwrap().success());
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file of the settings.
    pub fn settings(&self) -> PathBuf {
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
    pub fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub async fn started(&self, times: usize) {
        while self.starts().len() < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn request(&self, op: &str, more: Value) -> Value {
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
    pub fn begin(&self, request: &Value) -> Child {
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

    pub async fn ask(&self, request: &Value) -> Value {
        answer_of(self.begin(request)).await
    }

    /// Its target once it is ready.
    pub async fn ready(&self) -> Value {
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
    pub async fn apply(&self, target: &Value, operation_id: &str, cap: &str) -> Value {
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
    pub fn config(&self, before: &[&str]) -> PathBuf {
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
    pub async fn check(&self, before: &[&str], more: &[&str]) -> (Option<i32>, String, String) {
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

pub async fn answer_of(child: Child) -> Value {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = output.await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}
