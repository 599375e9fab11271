//! The agent as a process: CPU of a scrape from request to measurement, memory at rest, time to the first answer.
//!
//! `cargo bench --bench agent`, or `benches/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb::GetAgentInfoRequest;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use perfagent::engine::Registry;
use perfagent::exposition::Options;
use perfagent::measure::{InstanceSamples, ReplicaSamples, Sample, WindowKind};
use perfagent::scrape::{FetchLimits, Fetcher, UrlPolicy};

const PERFAGENT: &str = env!("CARGO_BIN_EXE_perfagent");

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// User and system time of this process in seconds, from the kernel's hundredths.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn rss_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}

fn replay() -> (Running, String, BufReader<ChildStdout>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/captures/vllm-0.32.0/c-saturation");
    let mut child = Command::new(PERFAGENT)
        .args([
            "replay",
            directory.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--speed",
            "1",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let url = line
        .split([' ', ','])
        .find(|word| word.starts_with("http://"))
        .unwrap()
        .to_owned();
    (Running(child), url, out)
}

/// CPU of this process a scrape: request, body, parse, mapping, and a measurement each six samples, as a window of
/// five seconds has them.
async fn scrape_to_measurement() {
    let (_engine, url, _out) = replay();
    let policy = UrlPolicy {
        serves_loopback_only: true,
        ..UrlPolicy::default()
    };
    let fetcher = Fetcher::new(policy, FetchLimits::default()).unwrap();
    let registry = Registry::builtin();
    let profile = registry.get("vllm").unwrap();
    const WINDOWS: usize = 500;
    const SAMPLES: usize = 6;
    let (mut bytes, mut quantities) = (0, 0);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..WINDOWS {
        let mut samples = Vec::new();
        for tick in 0..SAMPLES {
            let fetched = fetcher.get(&url).await.unwrap();
            bytes += fetched.body.len();
            let (mut sample, _) =
                Sample::read(profile, &fetched.body, 0.0, &Options::default()).unwrap();
            // a second apart, as in a window
            sample.tick = tick as u32;
            sample.at_unix_seconds = tick as f64;
            samples.push(std::sync::Arc::new(sample));
        }
        let instance = InstanceSamples {
            instance_id: "bench".to_owned(),
            profile,
            kind: WindowKind::Interval,
            replicas: vec![ReplicaSamples {
                metrics_url: url.clone(),
                samples,
                failed_scrapes: 0,
                last_failure: None,
                probed: Default::default(),
            }],
        };
        quantities += instance.measure().figures.quantities.len();
    }
    let scrapes = (WINDOWS * SAMPLES) as f64;
    println!(
        "scrape to measurement: {:.3} ms of CPU a sample ({:.0} bytes; {:.2} ms on the clock, {} quantities a window)",
        (cpu_seconds() - cpu) * 1e3 / scrapes,
        bytes as f64 / scrapes,
        start.elapsed().as_secs_f64() * 1e3 / scrapes,
        quantities / WINDOWS
    );
}

/// From the start of the process to its first answered call, and what it then holds.
async fn start_and_rest() {
    let mut times = Vec::new();
    let mut memory = 0.0;
    for run in 0..10 {
        let port = 28_002 + run;
        let address = format!("127.0.0.1:{port}");
        let state = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let child = Command::new(PERFAGENT)
            .args(["serve", "--listen", &address, "--log-level", "error"])
            .arg("--state-dir")
            .arg(state.path())
            .spawn()
            .unwrap();
        let agent = Running(child);
        loop {
            if let Ok(mut client) = AgentServiceClient::connect(format!("http://{address}")).await
                && client.get_agent_info(GetAgentInfoRequest {}).await.is_ok()
            {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if run == 9 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            memory = rss_mb(agent.0.id());
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "start to first answered call: median {:.1} ms, worst of 10 {:.1} ms; at rest after it: {memory:.1} MB RSS",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        scrape_to_measurement().await;
        start_and_rest().await;
    });
}
