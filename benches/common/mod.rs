//! What the benches of the running agent share: engines that are not there, the agent as a process, and what the
//! kernel says of a process.
#![allow(dead_code)]

pub(crate) mod engines;
pub(crate) mod raw;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PERFAGENT: &str = env!("CARGO_BIN_EXE_perfagent");

/// A process that does not outlive its owner.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// User and system time of a process in seconds, from the kernel's hundredths.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

pub(crate) fn rss_kb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Figures of a machine that does other things too are worth what its load leaves of them.
pub(crate) fn print_load() {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    println!("load average {} on {cores} cores", load.trim());
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Waits until something listens there.
pub(crate) fn wait_for(address: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "nothing listens on {address}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// This program as another process, in another role, and the first line that it prints.
pub(crate) fn in_role(arguments: &[&str]) -> (Running, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    let running = Running(child);
    BufReader::new(out).read_line(&mut line).unwrap();
    (running, line.trim().to_owned())
}

/// `perfagent serve` as anyone starts it.
pub(crate) struct ServedAgent {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl ServedAgent {
    /// With these replicas, an instance each, all of them vLLM.
    pub(crate) fn watching(urls: &[String], interval: &str) -> Self {
        Self::with(urls, interval, "")
    }

    /// The same with more in its config file.
    pub(crate) fn with(urls: &[String], interval: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = more.to_owned();
        for (at, url) in urls.iter().enumerate() {
            writeln!(
                config,
                "[[instances]]\ninstance_id = \"vllm-{at}\"\ninstance_type = \"vllm\"\nmetrics_url = \"{url}\"\nscrape_interval = \"{interval}\""
            )
            .unwrap();
        }
        let file = directory.path().join("perfagent.toml");
        fs::write(&file, config).unwrap();
        let address = free_address();
        let child = Command::new(PERFAGENT)
            .args(["serve", "--log-level", "error", "--listen"])
            .arg(address.to_string())
            .arg("--config")
            .arg(&file)
            .env("XDG_STATE_HOME", directory.path())
            .spawn()
            .unwrap();
        let process = Running(child);
        wait_for(address);
        Self {
            process,
            address,
            _directory: directory,
        }
    }
}

pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = (sorted.len() as f64 * q) as usize;
    sorted[at.min(sorted.len() - 1)]
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}
