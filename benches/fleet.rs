//! What it costs to watch a thousand engines at 15 s, beside Prometheus scraping the same ones at the same time.
//!
//! `cargo bench --bench fleet`, or `benches/run`. Takes a minute and a half. The engines are another process, whose
//! time is not counted. Prometheus keeps every series on disk and computes nothing; the agent measures a window at each
//! scrape and keeps the last.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Running, ServedAgent, cpu_seconds, engines, print_load, rss_kb};

const INSTANCES: usize = 1_000;
/// One interval, with its jitter; second scrapes come sooner and belong to it.
const WARM_UP: Duration = Duration::from_secs(17);
/// As long as a window, so that it is full at the end and memory has come to rest.
const MEASURED: Duration = Duration::from_secs(60);

/// Goals of the agent, in percent of one core and MB.
const GOALS: (f64, f64) = (4.0, 80.0);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, count, ..] = arguments.as_slice()
        && role == engines::ROLE
    {
        engines::run(count);
    }
    let (_engines, urls) = engines::start(INSTANCES);
    let agent = ServedAgent::watching(&urls, "15s");
    let prometheus = Prometheus::start(&urls);
    let mut watched = vec![("perfagent", agent.process.pid())];
    match &prometheus {
        Some(prometheus) => watched.push(("prometheus", prometheus.process.pid())),
        None => println!(
            "no Prometheus on PATH or in the cache directory: nothing to compare with (apt-get install prometheus)"
        ),
    }
    std::thread::sleep(WARM_UP);
    let start = Instant::now();
    let before: Vec<f64> = watched.iter().map(|(_, pid)| cpu_seconds(*pid)).collect();
    std::thread::sleep(MEASURED);
    let seconds = start.elapsed().as_secs_f64();
    println!("{INSTANCES} instances of one vLLM replica, scraped each 15 s, over {seconds:.0} s:");
    for ((name, pid), before) in watched.into_iter().zip(before) {
        let percent = (cpu_seconds(pid) - before) / seconds * 100.0;
        let megabytes = rss_kb(pid) / 1024.0;
        println!("  {name}: {percent:.2} % of a core, {megabytes:.1} MB RSS");
    }
    let (percent, megabytes) = GOALS;
    println!("  goal: less than {percent} % and {megabytes} MB");
    print_load();
}

/// Prometheus, scraping the same engines.
struct Prometheus {
    process: Running,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// None where there is none on this machine.
    fn start(urls: &[String]) -> Option<Self> {
        let binary = prometheus_binary()?;
        let directory = tempfile::tempdir().unwrap();
        let targets: Vec<&str> = urls
            .iter()
            .map(|url| {
                let address = url.strip_prefix("http://").unwrap();
                address.strip_suffix("/metrics").unwrap()
            })
            .collect();
        let mut config = "global:\n  scrape_interval: 15s\nscrape_configs:\n- job_name: vllm\n  static_configs:\n  - targets:\n".to_owned();
        for target in targets {
            writeln!(config, "    - \"{target}\"").unwrap();
        }
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let address = common::free_address();
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Running(child);
        common::wait_for(address);
        Some(Self {
            process,
            _directory: directory,
        })
    }
}

/// On PATH, else where the tools of this repository are kept.
fn prometheus_binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("prometheus"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join("perfagent"));
    let kept = cache.iter().flat_map(fs::read_dir).flatten().flatten();
    let kept = kept
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("prometheus")
        })
        .flat_map(|entry| {
            ["prometheus", "bin/prometheus", "usr/bin/prometheus"].map(|at| entry.path().join(at))
        });
    on_path.chain(kept).find(|binary| is_file(binary))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file())
}
