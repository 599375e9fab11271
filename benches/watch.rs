//! A thousand watchers of one instance: how long after it is published each has a window, whether one that never reads
//! holds up the others, what such a one costs, and how long the agent takes to stop under all of them.
//!
//! `cargo bench --bench watch`, or `benches/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::raw::{self, Connection, Messages, framed};
use common::{ServedAgent, cpu_seconds, engines, print_load, quantile, rss_kb};
use perfagent::edge::grpc::pb::{MeasurementView, WatchMetricsRequest};
use prost::Message;

const WATCHERS: usize = 1_000;
const CONNECTIONS: usize = 10;
/// Scraped each second.
const INTERVAL: &str = "1s";
const PHASE: Duration = Duration::from_secs(20);
const ROUNDS: usize = 2;
/// Enough to tell what one costs from the noise of the rest.
const NON_READERS: usize = 200;
/// 64 KB of messages of 12 KB that nobody reads, one a second.
const UNREAD_FULL: Duration = Duration::from_secs(10);
const WATCH: &str = "/perfagent.v1.MetricsService/WatchMetrics";

/// Of a `WatchMetricsResponse` what tells one window from the next: the rest is passed over.
#[derive(Clone, PartialEq, Message)]
struct Window {
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(message, optional, tag = "8")]
    end_time: Option<prost_types::Timestamp>,
}

/// One window: when the engine's answer came of which it was made, and when each watcher had it; unix time in seconds.
#[derive(Default)]
struct Receipts {
    scraped: Option<f64>,
    received: Vec<f64>,
}

/// By the number of the scrape.
type Windows = Arc<Mutex<HashMap<u64, Receipts>>>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, count, ..] = arguments.as_slice()
        && role == engines::ROLE
    {
        engines::run(count);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let (_engines, urls) = engines::start(1);
    let agent = ServedAgent::watching(&urls, INTERVAL);
    let pid = agent.process.pid();
    let windows = Windows::default();
    let readers = watchers(&agent, &windows, MeasurementView::Full).await;
    // the window fills, and with it the message grows
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "{WATCHERS} watchers on {CONNECTIONS} connections, one instance scraped each {INTERVAL}:"
    );
    // by turns, so that what else the machine does falls on both alike
    let (mut alone, mut beside) = (Phase::default(), Phase::default());
    let message = framed(&WatchMetricsRequest::default());
    let mut bytes_each = Vec::new();
    for _ in 0..ROUNDS {
        alone.add(phase(&windows, pid).await);
        let before = rss_kb(pid);
        let mut unread = Vec::new();
        for _ in 0..NON_READERS {
            let connection =
                Connection::open(agent.address, other_peer(), raw::Window::Small).await;
            let body = connection.call(WATCH, &message).await.await.unwrap();
            unread.push((connection, body));
        }
        // at first they are sent to like the others
        tokio::time::sleep(UNREAD_FULL).await;
        beside.add(phase(&windows, pid).await);
        bytes_each.push((rss_kb(pid) - before) / NON_READERS as f64);
        drop(unread);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    alone.print("all of them read, the full view");
    beside.print(&format!(
        "the same beside {NON_READERS} more that never read"
    ));
    println!(
        "  a watcher that never reads, with its connection: {} KiB RSS (goal: less than 256)",
        bytes_each
            .iter()
            .map(|kb| format!("{kb:.0}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "  {:.2} s from SIGTERM to the end under {WATCHERS} streams (goal: 30)",
        stop(agent).await
    );
    for reader in readers {
        reader.await.unwrap();
    }
    let agent = ServedAgent::watching(&urls, INTERVAL);
    let readers = watchers(&agent, &windows, MeasurementView::Basic).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let pid = agent.process.pid();
    let basic = phase(&windows, pid).await;
    basic.print("all of them read, the basic view");
    for reader in readers {
        reader.abort();
    }
    let connection = Connection::open(agent.address, other_peer(), raw::Window::Small).await;
    let _unread = connection.call(WATCH, &message).await.await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "  {:.2} s from SIGTERM to the end with one that never reads (goal: 30, the drain time)",
        stop(agent).await
    );
    print_load();
}

/// An agent lets one address have a thousand streams.
fn other_peer() -> IpAddr {
    Ipv4Addr::new(127, 0, 0, 2).into()
}

async fn watchers(
    agent: &ServedAgent,
    windows: &Windows,
    view: MeasurementView,
) -> Vec<tokio::task::JoinHandle<()>> {
    let message = framed(&WatchMetricsRequest {
        instance_ids: vec!["vllm-0".to_owned()],
        view: view.into(),
        ..WatchMetricsRequest::default()
    });
    let mut watchers = Vec::new();
    for _ in 0..CONNECTIONS {
        let from = Ipv4Addr::LOCALHOST.into();
        let connection = Connection::open(agent.address, from, raw::Window::Large).await;
        for _ in 0..WATCHERS / CONNECTIONS {
            // one of them reads when the engine was scraped; the others are spared the copy
            let first = watchers.is_empty();
            let call = connection.call(WATCH, &message).await;
            watchers.push(tokio::spawn(read(call, first, windows.clone())));
        }
    }
    watchers
}

async fn read(call: h2::client::ResponseFuture, whole: bool, windows: Windows) {
    let mut messages = Messages::of(call).await;
    while let Some(message) = messages.next(whole).await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let sequence = sequence_of(&message);
        let mut windows = windows.lock().unwrap();
        let window = windows.entry(sequence).or_default();
        window.received.push(now.as_secs_f64());
        if whole {
            let end = Window::decode(message.as_slice()).unwrap().end_time;
            let seconds =
                |end: prost_types::Timestamp| end.seconds as f64 + f64::from(end.nanos) * 1e-9;
            window.scraped = end.map(seconds);
        }
    }
}

/// `sequence` of a message of which only the beginning is there: it stands after the event, the id and the state.
fn sequence_of(mut head: &[u8]) -> u64 {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    while let Ok((tag, wire_type)) = decode_key(&mut head) {
        if (tag, wire_type) == (4, WireType::Varint) {
            return decode_varint(&mut head).unwrap();
        }
        skip_field(wire_type, tag, &mut head, DecodeContext::default()).unwrap();
    }
    0
}

/// What a while of watching showed.
#[derive(Default)]
struct Phase {
    windows: usize,
    seconds: f64,
    cpu_seconds: f64,
    /// From the engine's answer, and from the first receipt; milliseconds.
    lags: [Vec<f64>; 2],
}

impl Phase {
    fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
        for (mine, other) in self.lags.iter_mut().zip(other.lags) {
            mine.extend(other);
        }
    }

    fn print(mut self, what: &str) {
        for lags in &mut self.lags {
            lags.sort_by(f64::total_cmp);
        }
        let [scrape, first] = &self.lags;
        println!(
            "  {what}, {} windows: from the engine's answer to receipt p50 {:.1} ms, p99 {:.1} ms (goal: 25); \
             from the first receipt p50 {:.1} ms, p99 {:.1} ms; {:.0} us of the agent's CPU a message",
            self.windows,
            quantile(scrape, 0.5),
            quantile(scrape, 0.99),
            quantile(first, 0.5),
            quantile(first, 0.99),
            self.cpu_seconds * 1e6 / (self.seconds * WATCHERS as f64),
        );
    }
}

/// Collects receipts for a while.
async fn phase(windows: &Windows, pid: u32) -> Phase {
    windows.lock().unwrap().clear();
    let cpu = cpu_seconds(pid);
    tokio::time::sleep(PHASE).await;
    let cpu = cpu_seconds(pid) - cpu;
    let windows = std::mem::take(&mut *windows.lock().unwrap());
    // those that were under way at either end are not whole
    let whole: Vec<&Receipts> = windows
        .values()
        .filter(|window| window.received.len() == WATCHERS && window.scraped.is_some())
        .collect();
    let lags = |since: fn(&Receipts) -> f64| {
        let lags = whole.iter().flat_map(|window| {
            let since = since(window);
            window.received.iter().map(move |time| (time - since) * 1e3)
        });
        lags.collect()
    };
    Phase {
        windows: whole.len(),
        seconds: PHASE.as_secs_f64(),
        cpu_seconds: cpu,
        lags: [
            lags(|window| window.scraped.unwrap()),
            lags(|window| {
                let received = window.received.iter().copied();
                received.fold(f64::INFINITY, f64::min)
            }),
        ],
    }
}

/// Seconds from SIGTERM to the end.
async fn stop(mut agent: ServedAgent) -> f64 {
    let start = Instant::now();
    let pid = agent.process.pid().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(told.success());
    while agent.process.0.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed().as_secs_f64()
}
