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
    phase(&windows, pid, "all of them read, the full view").await;
    let before = rss_kb(pid);
    let (mut connections, mut unread) = (Vec::new(), Vec::new());
    let message = framed(&WatchMetricsRequest::default());
    for _ in 0..NON_READERS {
        let connection = Connection::open(agent.address, other_peer(), raw::Window::Small).await;
        unread.push(connection.call(WATCH, &message).await.await.unwrap());
        connections.push(connection);
    }
    // at first they are sent to like the others
    tokio::time::sleep(UNREAD_FULL).await;
    phase(
        &windows,
        pid,
        &format!("{NON_READERS} more that never read"),
    )
    .await;
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
    for reader in readers {
        reader.await.unwrap();
    }
    let agent = ServedAgent::watching(&urls, INTERVAL);
    let readers = watchers(&agent, &windows, MeasurementView::Basic).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let pid = agent.process.pid();
    phase(&windows, pid, "all of them read, the basic view").await;
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

/// Collects receipts for a while and prints their lag.
async fn phase(windows: &Windows, pid: u32, what: &str) {
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
        let mut lags: Vec<f64> = lags.collect();
        lags.sort_by(f64::total_cmp);
        (quantile(&lags, 0.5), quantile(&lags, 0.99))
    };
    let scrape = lags(|window| window.scraped.unwrap());
    let first = lags(|window| {
        window
            .received
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
    });
    println!(
        "  {what}, {} windows: from the engine's answer to receipt p50 {:.1} ms, p99 {:.1} ms (goal: 25); \
         from the first receipt p50 {:.1} ms, p99 {:.1} ms; {:.0} us of the agent's CPU a message",
        whole.len(),
        scrape.0,
        scrape.1,
        first.0,
        first.1,
        cpu * 1e6 / (PHASE.as_secs_f64() * WATCHERS as f64),
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
