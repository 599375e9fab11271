//! An agent process that can be killed, with an engine and a desk of settings that outlive it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tonic::transport::Channel;

use super::desk::{Desk, OnDesk, split};
use super::replicas;
use crate::cli;
use crate::fake::{Answer, FakeEngine};

/// Random numbers of a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// From 0 to below this.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What outlives the agent.
pub(super) struct Rig {
    directory: TempDir,
    pub(super) instances: Vec<String>,
    desk: Arc<Desk>,
    _engines: Vec<Arc<FakeEngine>>,
    /// Lines of the agents' logs that tell of a failpoint, by its name.
    told: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// An agent that serves.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) client: WorkflowServiceClient<Channel>,
    pub(super) channel: Channel,
}

impl Rig {
    /// Instances whose targets, so many, are all of one engine.
    pub(super) async fn of_one_engine(instances: usize, targets: usize) -> Self {
        let engine = Arc::new(engine().await);
        Self::new(instances, targets, async |_, _, _| engine.clone()).await
    }

    /// Instances whose targets, so many, are an engine each, which serves as its settings on the desk have it.
    pub(super) async fn of_an_engine_each(instances: usize, targets: usize) -> Self {
        Self::new(instances, targets, async |desk, instance, target| {
            Arc::new(replicas::engine(desk, instance, target).await)
        })
        .await
    }

    async fn new(
        instances: usize,
        targets: usize,
        mut engine: impl AsyncFnMut(Arc<Desk>, String, usize) -> Arc<FakeEngine>,
    ) -> Self {
        let instances: Vec<String> = (0..instances).map(|place| format!("i{place}")).collect();
        let directory = tempfile::tempdir().unwrap();
        let desk = Desk::start().await;
        let mut config = config(&desk);
        let mut engines = Vec::new();
        for id in &instances {
            let (mut urls, mut on_desk) = (Vec::new(), Vec::new());
            for place in 0..targets {
                let engine = engine(desk.clone(), id.clone(), place).await;
                on_desk.push((before(place), engine.url()));
                urls.push(engine.url());
                engines.push(engine);
            }
            desk.put(id, on_desk);
            urls.dedup();
            config += &instance(id, &urls, instances.len());
        }
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        Self {
            directory,
            instances,
            desk,
            _engines: engines,
            told: Arc::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The share of writes, from 0 to 1, that take effect and say that they failed.
    pub(super) fn tell_failed(&self, share: f64) {
        self.desk.tell_failed(share);
    }

    /// Agents share a database from now on, and hold workflows for this time.
    pub(super) fn shares(&self, url: &str, lease: Duration) {
        let path = self.path("config.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let lease = lease.as_millis();
        let config = format!("{config}\n[store]\nurl = {url:?}\nlease = \"{lease}ms\"\n");
        std::fs::write(path, config).unwrap();
    }

    /// Starts an agent over what there is; none where a failpoint ended it before it served.
    pub(super) async fn serve(&self, failpoints: &str) -> Option<Running> {
        self.serve_as("state", failpoints).await
    }

    /// The same of one among several, which has a directory of its own.
    pub(super) async fn serve_as(&self, agent: &str, failpoints: &str) -> Option<Running> {
        self.serve_with(agent, failpoints, &[], &[]).await
    }

    /// The same with these variables and arguments.
    pub(super) async fn serve_with(
        &self,
        agent: &str,
        failpoints: &str,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Option<Running> {
        let mut child = cli::command()
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--config", self.path("config.toml").to_str().unwrap()])
            .args(["--state-dir", self.path(agent).to_str().unwrap()])
            .args(arguments)
            .env("FAILPOINTS", failpoints)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (served, mut serves) = tokio::sync::mpsc::channel(1);
        let told = self.told.clone();
        let reading = tokio::spawn(async move {
            let mut last = String::new();
            while let Ok(Some(line)) = log.next_line().await {
                if let Some((_, name)) = line.split_once("failpoint: ") {
                    let name = name.split(['"', '`', ';']).next().unwrap_or_default();
                    *told.lock().unwrap().entry(name.to_owned()).or_default() += 1;
                }
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                let message = entry["fields"]["message"].as_str().unwrap_or_default();
                if let Some(address) = message.strip_prefix("listening on ") {
                    let _ = served.send(address.to_owned()).await;
                }
                last = line;
            }
            last
        });
        let Some(address) = serves.recv().await else {
            child.wait().await.unwrap();
            let last = reading.await.unwrap_or_default();
            println!("{agent} did not come to serve: {last}");
            return None;
        };
        let url = format!("http://{address}");
        match Channel::from_shared(url).unwrap().connect().await {
            Ok(channel) => Some(Running {
                child,
                client: WorkflowServiceClient::new(channel.clone()),
                channel,
            }),
            Err(_) => {
                let _ = child.start_kill();
                child.wait().await.unwrap();
                None
            }
        }
    }

    /// How often each failpoint struck.
    pub(super) fn struck(&self) -> BTreeMap<String, u64> {
        self.told.lock().unwrap().clone()
    }

    /// Settings of an instance, and what became of them.
    pub(super) fn desk(&self, instance: &str) -> OnDesk {
        self.desk.of(instance)
    }
}

/// Settings of a target before anything: launch arguments, and bytes that are no text.
pub(super) fn before(place: usize) -> Vec<u8> {
    let mut content = b"[\"--max-num-seqs\",\"4\"]\n".to_vec();
    content.extend([0, 0xff, 0xfe, b'\r', b'\n', place as u8, b' ']);
    content
}

/// And with another cap.
pub(super) fn with_cap(content: &[u8], cap: &str) -> Vec<u8> {
    let (_, rest) = split(content);
    let args = format!("[\"--max-num-seqs\",\"{cap}\"]");
    [args.as_bytes(), rest].concat()
}

fn config(desk: &Desk) -> String {
    format!(
        "[workflows]\nauto_approve = true\n\n\
         [[actuators]]\nname = \"desk\"\ntype = \"command\"\nunsafe = true\n\
         command = {:?}\ntimeout = \"30s\"\n",
        desk.command(),
    )
}

fn instance(id: &str, urls: &[String], of: usize) -> String {
    // many are not scraped as often as a few
    let interval = 200.max(20 * of);
    let window = 2 * interval;
    format!(
        "\n[[instances]]\ninstance_id = {id:?}\ninstance_type = \"vllm\"\nmetrics_urls = {urls:?}\n\
         scrape_interval = \"{interval}ms\"\nwindow = \"{window}ms\"\nactuator = \"desk\"\n"
    )
}

/// A vLLM that serves, and counts.
async fn engine() -> FakeEngine {
    let start = Instant::now();
    FakeEngine::start(move |path, _| {
        if path != "/metrics" {
            return Answer::Plain(404, Vec::new());
        }
        let tokens = 20_000.0 * start.elapsed().as_secs_f64();
        let finished = tokens / 20.0;
        let of = "{engine=\"0\",model_name=\"m\"";
        Answer::ok(format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{of}}} 2\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{of}}} 0\n\
             # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{of}}} {tokens}\n\
             # TYPE vllm:request_success_total counter\n\
             vllm:request_success_total{of},finished_reason=\"stop\"}} {finished}\n"
        ))
    })
    .await
}

/// Looks again and again for at most a minute.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
