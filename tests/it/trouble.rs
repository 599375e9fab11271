//! Engines that misbehave in every way, for a long time: nothing leaks, and each comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use perfagent::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use tonic::transport::Channel;

use crate::cli::serve;
use crate::fake::{Answer, FakeEngine, gzip, vllm_body};
use crate::instances::registration;

/// How long there is trouble. At five scrapes a second 48 seconds are an hour at one in 15 seconds.
fn length() -> Duration {
    let asked = std::env::var("PERFAGENT_TEST_TROUBLE_SECONDS").ok();
    let seconds = asked.map_or(8, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_TROUBLE_SECONDS is a number")
    });
    Duration::from_secs(seconds)
}

const ENGINES: usize = 24;
/// An answer of each engine is of one kind for this many scrapes.
const SPELL: u64 = 5;

/// What the engine of this place does at its scrape of this number.
fn answer(place: u64, scrape: u64, trouble: bool) -> Answer {
    let whole = vllm_body(scrape * 10);
    if !trouble {
        return Answer::ok(whole);
    }
    // mixed, so that every engine goes through everything in another order
    let kind = (place * 7 + scrape / SPELL * 5) % 13;
    match kind {
        0 => Answer::Plain(503, Vec::new()),
        1 => Answer::Hang,
        2 => Answer::Broken,
        3 => Answer::ok(whole.replace("} 2\n", "} NaN\n")),
        // counters begin anew
        4 => Answer::ok(vllm_body(scrape % SPELL)),
        5 => Answer::ok("# TYPE tgi_queue_size gauge\ntgi_queue_size 3\n"),
        6 => Answer::ok("<html>gateway</html>"),
        7 => Answer::ok(""),
        8 => Answer::Huge {
            bytes: 20 << 20,
            announced: false,
        },
        9 => Answer::Gzip(gzip(whole.as_bytes())),
        // cut off in the middle of a number
        10 => Answer::ok(whole.trim_end_matches(['0', '\n'])),
        _ => Answer::ok(whole),
    }
}

/// What the agent's process holds: bytes in memory, open files, tasks.
#[derive(Debug, Clone, Copy)]
struct Held {
    rss_bytes: u64,
    files: usize,
    tasks: u64,
}

async fn held(pid: u32, address: &str) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let text = crate::http::get_at(address, "/metrics", "localhost").await;
    let tasks = text
        .lines()
        .find_map(|line| line.strip_prefix("perfagent_tasks "))
        .unwrap();
    Held {
        rss_bytes: kilobytes * 1024,
        files: std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count(),
        tasks: tasks.parse::<f64>().unwrap() as u64,
    }
}

async fn states(client: &mut InstanceServiceClient<Channel>) -> Vec<pb::InstanceState> {
    let listed = client
        .list_instances(pb::ListInstancesRequest::default())
        .await
        .unwrap();
    let instances = listed.into_inner().instances;
    instances
        .iter()
        .map(|instance| instance.status.as_ref().unwrap().state())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_leaves_nothing_behind() {
    let trouble = Arc::new(AtomicBool::new(false));
    let mut engines = Vec::new();
    for place in 0..ENGINES as u64 {
        let (trouble, scrapes) = (trouble.clone(), AtomicU64::new(0));
        let engine = FakeEngine::start(move |path, _| match path {
            "/metrics" => answer(
                place,
                scrapes.fetch_add(1, Ordering::SeqCst),
                trouble.load(Ordering::SeqCst),
            ),
            // the version changes all the while
            "/version" => Answer::ok(format!(
                "{{\"version\":\"0.{}.0\"}}",
                20 + scrapes.load(Ordering::SeqCst) % 12
            )),
            _ => Answer::Plain(404, Vec::new()),
        })
        .await;
        engines.push(engine);
    }
    let served = serve(&[]).await;
    let pid = served.child.id().unwrap();
    let log = tokio::spawn({
        let mut lines = served.log;
        async move { while let Ok(Some(_)) = lines.next_line().await {} }
    });
    let mut client = InstanceServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    for (place, engine) in engines.iter().enumerate() {
        let one = registration(&format!("i-{place:02}"), &engine.url());
        client.register_instance(one).await.unwrap();
    }
    let all_up = async |client: &mut InstanceServiceClient<Channel>| {
        let begin = Instant::now();
        loop {
            let states = states(client).await;
            if states.iter().all(|state| *state == pb::InstanceState::Up) {
                return begin.elapsed();
            }
            // a replica that failed is asked again after 30 s at the latest
            assert!(begin.elapsed() < Duration::from_secs(60), "{states:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    all_up(&mut client).await;
    // a watcher that comes and goes, and one that stays
    let mut stays = MetricsServiceClient::connect(format!("http://{}", served.address))
        .await
        .unwrap();
    let mut watched = stays
        .watch_metrics(pb::WatchMetricsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let before = held(pid, &served.address).await;
    trouble.store(true, Ordering::SeqCst);
    let end = Instant::now() + length();
    let mut seen_down = false;
    while Instant::now() < end {
        let _ = stays
            .watch_metrics(pb::WatchMetricsRequest::default())
            .await
            .unwrap();
        for _ in 0..20 {
            watched
                .message()
                .await
                .unwrap()
                .expect("the stream goes on");
        }
        seen_down |= states(&mut client).await.contains(&pb::InstanceState::Down);
    }
    assert!(seen_down, "there was trouble");
    trouble.store(false, Ordering::SeqCst);
    let back = all_up(&mut client).await;
    // windows of trouble are over, hanging requests too
    let settled = async {
        loop {
            let now = held(pid, &served.address).await;
            if now.files <= before.files + 4 && now.tasks <= before.tasks + 4 {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let after = tokio::time::timeout(Duration::from_secs(30), settled)
        .await
        .expect("sockets and tasks are given back");
    println!("before {before:?}, after {after:?}, all back after {back:?}");
    // what the allocator keeps of bodies of 16 MiB does not grow with time; a leak of one a spell would
    assert!(
        after.rss_bytes < before.rss_bytes + (160 << 20),
        "{before:?} {after:?}"
    );
    log.abort();
}
