//! A Prometheus and its promtool, and a fleet for them to look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::captures;
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, vllm_body};
use crate::http::get;
use crate::instances::configured;

/// A file that we ship.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// The tools of Prometheus.
pub fn tool(name: &str) -> PathBuf {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promtool");
        let output = std::process::Command::new(script)
            .output()
            .expect("tests/promtool");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    tools.join(name)
}

pub async fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(tool("promtool"))
        .args(arguments)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// The agent with an instance of each kind that an operator sees.
pub struct Fleet {
    pub agent: TestAgent,
    _engines: Vec<FakeEngine>,
}

impl Fleet {
    pub async fn start() -> Self {
        let engines = vec![
            counting_vllm(|count| count as u64 * 100).await,
            busy_vllm().await,
            FakeEngine::start(|path, count| match path {
                "/metrics" => {
                    let says = "# TYPE perfagent_simulated gauge\nperfagent_simulated 1\n";
                    Answer::ok(format!("{says}{}", vllm_body(count as u64)))
                }
                _ => Answer::Plain(404, Vec::new()),
            })
            .await,
            FakeEngine::start(|path, count| match path {
                "/metrics" => Answer::ok(beyond_buckets(count)),
                _ => Answer::Plain(404, Vec::new()),
            })
            .await,
        ];
        let agent = TestAgent::with(|config| {
            let rows = ["live", "busy", "simulated", "beyond"].iter().zip(&engines);
            config.instances = rows
                .map(|(id, engine)| configured(id, &engine.url()))
                .collect();
            let dead = configured("dead", "http://127.0.0.1:1/metrics");
            config.instances.push(dead);
        })
        .await;
        Self {
            agent,
            _engines: engines,
        }
    }
}

/// A recorded vLLM whose requests repeat: with each scrape its counts grow by what was recorded.
pub async fn busy_vllm() -> FakeEngine {
    let capture = captures::capture("vllm-0.32.0/h-spec-ngram");
    let recorded = String::from_utf8(capture.body(1)).unwrap();
    FakeEngine::start(move |path, count| match path {
        "/metrics" => Answer::ok(grown(&recorded, count + 1)),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await
}

pub fn grown(recorded: &str, times: usize) -> String {
    let line = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap();
        let grows = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        match line.rsplit_once(' ') {
            Some((series, value)) if grows && !line.starts_with('#') => {
                let value: f64 = value.parse().unwrap();
                format!("{series} {}\n", value * times as f64)
            }
            _ => format!("{line}\n"),
        }
    };
    recorded.lines().map(line).collect()
}

/// A vLLM whose first tokens are slower and whose others are faster than its buckets tell.
pub fn beyond_buckets(count: usize) -> String {
    let histogram = |name: &str, below: usize| {
        format!(
            "# TYPE vllm:{name} histogram\nvllm:{name}_bucket{{le=\"0.5\"}} {below}\n\
             vllm:{name}_bucket{{le=\"+Inf\"}} {count}\nvllm:{name}_sum {count}\nvllm:{name}_count {count}\n"
        )
    };
    let slow = histogram("time_to_first_token_seconds", 0);
    let fast = histogram("inter_token_latency_seconds", count);
    format!("{}{slow}{fast}", vllm_body(count as u64))
}

/// What the agent shows.
pub async fn exposition(agent: &TestAgent) -> String {
    let answer = get(agent, "/metrics", "localhost").await;
    let kept = |line: &&str| line.starts_with("# ") || line.starts_with("perfagent_");
    let lines = answer.lines().filter(kept);
    lines.map(|line| format!("{line}\n")).collect()
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

/// A Prometheus that scrapes an agent with the rules that we ship; it is killed when this goes.
pub struct Prometheus {
    port: u16,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    pub async fn start(agent: &TestAgent) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(shipped("prometheus/scrape.yaml")).unwrap();
        let target = agent.address.to_string();
        let config = config
            .replace("127.0.0.1:8002", &target)
            .replace("_interval: 15s", "_interval: 250ms");
        assert!(config.contains(&target) && config.contains("250ms"));
        let file = directory.path().join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let rules = directory.path().join("alerts.yaml");
        fs::copy(shipped("prometheus/alerts.yaml"), rules).unwrap();
        let mut child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let mut port = None;
        while let Some(line) = log.next_line().await.unwrap() {
            let address = line.split("address=127.0.0.1:").nth(1);
            let listens = address.and_then(|rest| rest.split(' ').next()?.parse().ok());
            port = port.or(listens.filter(|port| *port != 0));
            if line.contains("Server is ready") {
                break;
            }
            said.push(line);
        }
        let port = port.unwrap_or_else(|| panic!("{}", said.join("\n")));
        // what it writes on has to go somewhere
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self {
            port,
            _child: child,
            _directory: directory,
        }
    }

    /// Asks the HTTP API; the data, or why there is none.
    pub async fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, String> {
        let encoded =
            |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let pairs: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let path = match pairs.is_empty() {
            true => format!("/api/v1/{path}"),
            false => format!("/api/v1/{path}?{}", pairs.join("&")),
        };
        // of HTTP/1.0, so that the answer comes in one piece
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// Series with a number, by their labels.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let data = self.api("query", &[("query", query)]).await;
        let data = data.unwrap_or_else(|problem| panic!("{query}: {problem}"));
        let is_number = |series: &&Value| series["value"][1] != "NaN";
        let found = array(&data["result"]).iter().filter(is_number);
        found.map(|series| series["metric"].clone()).collect()
    }

    /// The alerts that we ship, as Prometheus sees them.
    pub async fn alerts(&self) -> Vec<Value> {
        let data = self.api("rules", &[("type", "alert")]).await.unwrap();
        let groups = array(&data["groups"]).iter();
        let rules = groups.flat_map(|group| array(&group["rules"]).to_vec());
        rules.collect()
    }
}

/// Asks until the answer is as wanted; what was still wrong where it never is.
pub async fn until<T, E: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(wanted) => return wanted,
            Err(wrong) if tokio::time::Instant::now() > deadline => panic!("{wrong:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
