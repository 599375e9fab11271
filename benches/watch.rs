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

use bytes::Bytes;
use common::raw::{Connection, Messages, Window, framed};
use common::{ServedAgent, cpu_seconds, engines, print_load, quantile, rss_kb};
use perfagent::edge::grpc::pb::WatchMetricsRequest;
use prost::Message;

const WATCHERS: usize = 1_000;
const CONNECTIONS: usize = 10;
/// Scraped each second.
const INTERVAL: &str = "1s";
const PHASE: Duration = Duration::from_secs(20);
/// Enough to tell what one costs from the noise of the rest.
const NON_READERS: usize = 50;
const WATCH: &str = "/perfagent.v1.MetricsService/WatchMetrics";

/// Of a `WatchMetricsResponse` what tells one window from the next: the rest is passed over.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(message, optional, tag = "8")]
    window_end_time: Option<prost_types::Timestamp>,
}

/// When messages came: by the number of the scrape, the end of its window and each receipt, unix time in seconds.
type Receipts = Arc<Mutex<HashMap<u64, (f64, Vec<f64>)>>>;

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
    let receipts = Receipts::default();
    let watchers = watchers(&agent, &receipts).await;
    // the window fills, and with it the message grows
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "{WATCHERS} watchers on {CONNECTIONS} connections, one instance scraped each {INTERVAL}:"
    );
    let cpu = cpu_seconds(pid);
    phase(&receipts, "all of them read").await;
    println!(
        "  {:.0} us of the agent's CPU a message",
        (cpu_seconds(pid) - cpu) * 1e6 / (PHASE.as_secs_f64() * WATCHERS as f64)
    );
    let before = rss_kb(pid);
    let (mut connections, mut unread) = (Vec::new(), Vec::new());
    let message = framed(&WatchMetricsRequest::default());
    for _ in 0..NON_READERS {
        let connection = Connection::open(agent.address, other_peer(), Window::Small).await;
        unread.push(connection.call(WATCH, &message).await.await.unwrap());
        connections.push(connection);
    }
    phase(&receipts, &format!("{NON_READERS} more that never read")).await;
    println!(
        "  a watcher that never reads, with its connection: {:.0} KiB RSS (goal: less than 256)",
        (rss_kb(pid) - before) / NON_READERS as f64
    );
    drop((connections, unread));
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "  {:.2} s from SIGTERM to the end under {WATCHERS} streams (goal: 30)",
        stop(agent).await
    );
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let agent = ServedAgent::watching(&urls, INTERVAL);
    let connection = Connection::open(agent.address, other_peer(), Window::Small).await;
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

async fn watchers(agent: &ServedAgent, receipts: &Receipts) -> Vec<tokio::task::JoinHandle<()>> {
    let message = framed(&WatchMetricsRequest {
        instance_ids: vec!["vllm-0".to_owned()],
        ..WatchMetricsRequest::default()
    });
    let mut watchers = Vec::new();
    for _ in 0..CONNECTIONS {
        let from = Ipv4Addr::LOCALHOST.into();
        let connection = Connection::open(agent.address, from, Window::Large).await;
        for _ in 0..WATCHERS / CONNECTIONS {
            watchers.push(tokio::spawn(read(
                connection.clone(),
                message.clone(),
                receipts.clone(),
            )));
        }
    }
    watchers
}

async fn read(connection: Connection, message: Bytes, receipts: Receipts) {
    let mut messages = Messages::of(connection.call(WATCH, &message).await).await;
    while let Some(message) = messages.next().await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let head = Head::decode(message.as_slice()).unwrap();
        let Some(end) = head.window_end_time else {
            continue;
        };
        let end = end.seconds as f64 + f64::from(end.nanos) * 1e-9;
        let mut receipts = receipts.lock().unwrap();
        let (_, times) = receipts
            .entry(head.sequence)
            .or_insert_with(|| (end, Vec::with_capacity(WATCHERS)));
        times.push(now.as_secs_f64());
    }
}

/// Collects receipts for a while and prints their lag.
async fn phase(receipts: &Receipts, what: &str) {
    receipts.lock().unwrap().clear();
    tokio::time::sleep(PHASE).await;
    let windows = std::mem::take(&mut *receipts.lock().unwrap());
    // those that were under way at either end are not whole
    let whole: Vec<&(f64, Vec<f64>)> = windows
        .values()
        .filter(|(_, times)| times.len() == WATCHERS)
        .collect();
    let sorted = |since: fn(&(f64, Vec<f64>)) -> f64| {
        let lags = whole.iter().flat_map(|window| {
            let since = since(window);
            window.1.iter().map(move |time| (time - since) * 1e3)
        });
        let mut lags: Vec<f64> = lags.collect();
        lags.sort_by(f64::total_cmp);
        lags
    };
    let since_scrape = sorted(|(end, _)| *end);
    let since_first = sorted(|(_, times)| times.iter().copied().fold(f64::INFINITY, f64::min));
    println!(
        "  {what}: {} windows that all have, {} that some miss; from the answer of the engine to receipt p50 {:.1} ms, \
         p99 {:.1} ms (goal: 25); from the first receipt p50 {:.1} ms, p99 {:.1} ms",
        whole.len(),
        windows.len() - whole.len(),
        quantile(&since_scrape, 0.5),
        quantile(&since_scrape, 0.99),
        quantile(&since_first, 0.5),
        quantile(&since_first, 0.99),
    );
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
