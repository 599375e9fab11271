//! Watchers of workflows: ten thousand over a hundred connections from another process than the agent, and how long after
//! its commit each of them has an event; then few watchers, and twenty workflows of type `analysis` a second.
//!
//! `cargo bench --bench workflows`, or `benches/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::raw::{Connection, Messages, Window, framed};
use common::{ServedAgent, cpu_seconds, engines, print_load, quantile, rss_kb};
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::pb::{
    ListWorkflowEventsRequest, StartWorkflowRequest, WatchWorkflowsRequest,
};
use tonic::transport::{Channel, Endpoint};

const WATCHERS: usize = 10_000;
const CONNECTIONS: usize = 100;
/// An agent lets one address have a thousand streams.
const CONNECTIONS_AN_ADDRESS: usize = 10;
const FEW: usize = 100;
const INSTANCES: usize = 100;
const ROUNDS: usize = 10;
const PER_SECOND: u32 = 20;
const BUSY: Duration = Duration::from_secs(30);
const WATCH: &str = "/perfagent.v1.WorkflowService/WatchWorkflows";

/// When each watcher had it, unix time in seconds, by the revision of the event.
type Receipts = Arc<Mutex<BTreeMap<u64, Vec<f64>>>>;

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
    let (_engines, urls) = engines::start(INSTANCES);
    let more = "[server]\nmax_calls = 20000\n";
    let agent = ServedAgent::with(&urls, "15s", more);
    let pid = agent.process.pid();
    let mut client = client(&agent).await;
    measured(&mut client).await;
    let before = rss_kb(pid);
    let receipts = Receipts::default();
    let start = Instant::now();
    let readers = watchers(&agent, WATCHERS, CONNECTIONS, &receipts).await;
    println!(
        "{WATCHERS} watchers on {CONNECTIONS} connections: there within {:.1} s",
        start.elapsed().as_secs_f64()
    );
    receipts.lock().unwrap().clear();
    let from = end(&mut client).await;
    let cpu = cpu_seconds(pid);
    for round in 0..ROUNDS {
        analysis(&mut client, round % INSTANCES).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let cpu = cpu_seconds(pid) - cpu;
    let events = committed(&mut client, from).await;
    let of_all = lags(&receipts, &events, WATCHERS);
    print(
        &format!("  an event to all, {} events", events.len()),
        of_all,
        1_000.0,
    );
    println!(
        "  {:.1} us of the agent's CPU a message; {:.0} MiB RSS, {:.0} of them before (goal: 400 in all)",
        cpu * 1e6 / (events.len() * WATCHERS) as f64,
        rss_kb(pid) / 1_024.0,
        before / 1_024.0
    );
    for reader in readers {
        reader.abort();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;

    let receipts = Receipts::default();
    let readers = watchers(&agent, FEW, CONNECTIONS / CONNECTIONS_AN_ADDRESS, &receipts).await;
    receipts.lock().unwrap().clear();
    let from = end(&mut client).await;
    let start = Instant::now();
    let mut started: u32 = 0;
    while start.elapsed() < BUSY {
        let due = start + Duration::from_secs(1) * started / PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let mut client = client.clone();
        let at = started as usize % INSTANCES;
        tokio::spawn(async move { analysis(&mut client, at).await });
        started += 1;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let events = committed(&mut client, from).await;
    let of_few = lags(&receipts, &events, FEW);
    print(
        &format!(
            "{FEW} watchers, {started} workflows of type analysis within {:.0} s, {} events",
            BUSY.as_secs_f64(),
            events.len()
        ),
        of_few,
        50.0,
    );
    for reader in readers {
        reader.abort();
    }
    print_load();
}

async fn client(agent: &ServedAgent) -> WorkflowServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", agent.address)).unwrap();
    WorkflowServiceClient::new(endpoint.connect().await.unwrap())
}

/// Waits until instances have a window: an analysis is there at once then.
async fn measured(client: &mut WorkflowServiceClient<Channel>) {
    for at in 0..INSTANCES {
        analysis(client, at).await;
    }
    let mut after = 0;
    let mut ended = 0;
    while ended < INSTANCES {
        let request = ListWorkflowEventsRequest {
            after_revision: after,
            page_size: 500,
            wait: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..ListWorkflowEventsRequest::default()
        };
        let page = client.list_workflow_events(request).await.unwrap();
        let page = page.into_inner();
        after = page.next_after_revision;
        let last = |kind: &str| !["started", "analysed"].contains(&kind);
        ended += page.events.iter().filter(|one| last(&one.r#type)).count();
    }
}

async fn analysis(client: &mut WorkflowServiceClient<Channel>, at: usize) {
    let request = StartWorkflowRequest {
        instance_id: format!("vllm-{at}"),
        workflow_type: "analysis".to_owned(),
        ..StartWorkflowRequest::default()
    };
    client.start_workflow(request).await.unwrap();
}

/// Revision of the last event.
async fn end(client: &mut WorkflowServiceClient<Channel>) -> u64 {
    let mut after = 0;
    loop {
        let request = ListWorkflowEventsRequest {
            after_revision: after,
            page_size: 500,
            ..ListWorkflowEventsRequest::default()
        };
        let page = client.list_workflow_events(request).await.unwrap();
        let page = page.into_inner();
        after = page.next_after_revision;
        if !page.more {
            return after;
        }
    }
}

/// When each event after a revision was committed, unix time in seconds.
async fn committed(client: &mut WorkflowServiceClient<Channel>, from: u64) -> BTreeMap<u64, f64> {
    let mut events = BTreeMap::new();
    let mut after = from;
    loop {
        let request = ListWorkflowEventsRequest {
            after_revision: after,
            page_size: 500,
            ..ListWorkflowEventsRequest::default()
        };
        let page = client.list_workflow_events(request).await.unwrap();
        let page = page.into_inner();
        after = page.next_after_revision;
        for event in page.events {
            let at = event.event_time.unwrap();
            events.insert(
                event.revision,
                at.seconds as f64 + f64::from(at.nanos) * 1e-9,
            );
        }
        if !page.more {
            return events;
        }
    }
}

/// Each with its first message, so that it watches.
async fn watchers(
    agent: &ServedAgent,
    watchers: usize,
    connections: usize,
    receipts: &Receipts,
) -> Vec<tokio::task::JoinHandle<()>> {
    let message = framed(&WatchWorkflowsRequest::default());
    let mut reading = Vec::new();
    let (there, mut all_there) = tokio::sync::mpsc::channel(watchers);
    for number in 0..connections {
        // our own calls come from the first
        let host = u8::try_from(2 + number / CONNECTIONS_AN_ADDRESS).unwrap();
        let from: IpAddr = Ipv4Addr::new(127, 0, 0, host).into();
        let connection = Connection::open(agent.address, from, Window::Large).await;
        for _ in 0..watchers / connections {
            let call = connection.call(WATCH, &message).await;
            let (receipts, there) = (receipts.clone(), there.clone());
            reading.push(tokio::spawn(async move {
                let mut messages = Messages::of(call).await;
                messages.next(false).await.unwrap();
                there.send(()).await.unwrap();
                drop(there);
                while let Some(head) = messages.next(false).await {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                    if let Some(revision) = event_of(&head) {
                        let mut receipts = receipts.lock().unwrap();
                        receipts
                            .entry(revision)
                            .or_default()
                            .push(now.as_secs_f64());
                    }
                }
            }));
        }
    }
    drop(there);
    for _ in 0..watchers {
        all_there.recv().await.unwrap();
    }
    reading
}

/// The revision of a message that tells an event, of which only the beginning is there.
fn event_of(mut head: &[u8]) -> Option<u64> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    let (1, WireType::Varint) = decode_key(&mut head).ok()? else {
        return None;
    };
    let revision = decode_varint(&mut head).ok()?;
    let (told, _) = decode_key(&mut head).ok()?;
    (told == 3).then_some(revision)
}

/// From commit to receipt in milliseconds, sorted. None may be missing.
fn lags(receipts: &Receipts, events: &BTreeMap<u64, f64>, watchers: usize) -> Vec<f64> {
    let receipts = receipts.lock().unwrap();
    let mut lags = Vec::new();
    for (revision, at) in events {
        let received = receipts.get(revision).map_or(&[][..], Vec::as_slice);
        assert_eq!(
            received.len(),
            watchers,
            "event {revision} was not told to all"
        );
        lags.extend(received.iter().map(|time| (time - at) * 1e3));
    }
    lags.sort_by(f64::total_cmp);
    lags
}

fn print(what: &str, lags: Vec<f64>, goal: f64) {
    println!(
        "{what}: from commit to receipt p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms (goal of p99: {goal}); none missed",
        quantile(&lags, 0.5),
        quantile(&lags, 0.99),
        lags.last().unwrap()
    );
}
