//! Transitions of workflows that the stores commit in a second, each on disk before it is acknowledged, on PostgreSQL for one
//! agent and for three; beside it how often this disk takes a page at all.
//!
//! `cargo bench --bench store`, or `benches/run`. PERFAGENT_BENCH_DIR names a directory on the disk to measure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use perfagent::config::PostgresOptions;
use perfagent::store::{
    Advance, EventFilter, NewWorkflow, PostgresStore, SqliteStore, StoreError, WorkflowStore,
};
use perfagent::workflow::{
    Analysis, Event, FindingSummary, GatePolicy, PauseReason, RecordedEvent, Strategy, Timeouts,
    Workflow, WorkflowKind, WorkflowSpec, evolve,
};

#[allow(dead_code, reason = "of tests that stop it")]
#[path = "../tests/support/postgres.rs"]
mod postgres;

use postgres::Postgres;

const PHASE: Duration = Duration::from_secs(5);
/// As many workflows go on at once.
const AT_ONCE: [usize; 3] = [1, 8, 64];
const READERS: usize = 2;
/// What SQLite writes of a small transaction is a few of them.
const PAGE_BYTES: usize = 4_096;

#[tokio::main]
async fn main() {
    let disk = std::env::var_os("PERFAGENT_BENCH_DIR").unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(disk).unwrap();
    println!(
        "disk: {:.0} appended pages of 4 KiB a second, each synced",
        appends(directory.path())
    );
    let state = directory.path().join("state");
    let store: Arc<dyn WorkflowStore> = Arc::new(SqliteStore::open(&state).await.unwrap());
    let one = [store.clone()];
    let begun = in_turn("SQLite", &one).await;
    let over = Arc::new(AtomicBool::new(false));
    let read = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(read_the_log(store.clone(), over.clone(), read.clone())))
        .collect();
    let before = Instant::now();
    let (count, p99) = transitions(&one, 8, begun).await;
    let events = read.load(Ordering::Relaxed) as f64 / before.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    println!(
        "SQLite: {count:.0} transitions a second, 8 workflows at once, while {READERS} read the whole log over and over \
         ({events:.0} events a second); p99 of one {p99:.1} ms"
    );
    let place = directory.path().to_str().unwrap();
    // where another user may go
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let server = Postgres::start_with(&[("PERFAGENT_POSTGRES_FSYNC", "on"), ("TMPDIR", place)]);
    for agents in [1, 3] {
        let options = PostgresOptions {
            url: server.database().await,
            password_file: None,
            listen_url: None,
        };
        let mut stores: Vec<Arc<dyn WorkflowStore>> = Vec::new();
        for _ in 0..agents {
            stores.push(Arc::new(PostgresStore::open(&options).await.unwrap()));
        }
        let name = format!("PostgreSQL, {agents} at it");
        in_turn(&name, &stores).await;
    }
}

/// With more and more workflows at once; how many there were in all.
async fn in_turn(name: &str, stores: &[Arc<dyn WorkflowStore>]) -> usize {
    let mut begun = 0;
    for at_once in AT_ONCE {
        let (count, p99) = transitions(stores, at_once, begun).await;
        println!(
            "{name}: {count:.0} transitions a second, {at_once} workflows at once; p99 of one {p99:.1} ms"
        );
        begun += at_once;
    }
    begun
}

/// What the disk takes, without anything above it.
fn appends(directory: &Path) -> f64 {
    let mut file = std::fs::File::create(directory.join("appends")).unwrap();
    let page = [7_u8; PAGE_BYTES];
    let begun = Instant::now();
    let mut count = 0.0;
    while begun.elapsed() < PHASE / 2 {
        file.write_all(&page).unwrap();
        file.sync_data().unwrap();
        count += 1.0;
    }
    count / begun.elapsed().as_secs_f64()
}

/// Transitions a second, and how long the slowest of a hundred took, in milliseconds.
async fn transitions(
    stores: &[Arc<dyn WorkflowStore>],
    at_once: usize,
    begun: usize,
) -> (f64, f64) {
    let end = Instant::now() + PHASE;
    let tasks: Vec<_> = (begun..begun + at_once)
        .zip(stores.iter().cycle())
        .map(|(number, store)| tokio::spawn(go_on(store.clone(), number, end)))
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_by(f64::total_cmp);
    let p99 = times[times.len() * 99 / 100];
    (times.len() as f64 / PHASE.as_secs_f64(), p99 * 1e3)
}

/// Pauses and resumes a workflow until then; seconds of each.
async fn go_on(store: Arc<dyn WorkflowStore>, number: usize, end: Instant) -> Vec<f64> {
    let mut state = start(&*store, number).await;
    state = advance(&*store, &state, &analysed()).await;
    let mut times = Vec::new();
    while Instant::now() < end {
        let event = match state.pause {
            None => Event::Paused {
                reason: PauseReason::Requested,
                message: "The bench paused it.".to_owned(),
                target: None,
                digest: None,
            },
            Some(_) => Event::Resumed {
                note: String::new(),
            },
        };
        let before = Instant::now();
        state = advance(&*store, &state, &event).await;
        times.push(before.elapsed().as_secs_f64());
    }
    times
}

async fn start(store: &dyn WorkflowStore, number: usize) -> Workflow {
    let instance_id = format!("instance-{number}");
    let event = Event::Started {
        spec: Box::new(WorkflowSpec {
            instance_id: instance_id.clone(),
            kind: WorkflowKind::Optimization,
            actuator: "host".to_owned(),
            changes: BTreeMap::new(),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: false,
            auto_approve: false,
            gate: GatePolicy::default(),
            strategy: Strategy::InPlace,
            timeouts: Timeouts::default(),
            note: String::new(),
        }),
    };
    let start = NewWorkflow {
        workflow_id: &format!("0190-{number:08}"),
        instance_id: &instance_id,
        register: None,
        actor: "alice",
        event: &event,
        begin: &|recorded| evolved(None, recorded),
        deliver: &|_, _, _| Vec::new(),
    };
    let begun = store.start_workflow(&start, None, SystemTime::now()).await;
    begun.unwrap().workflow
}

async fn advance(store: &dyn WorkflowStore, state: &Workflow, event: &Event) -> Workflow {
    let evolve = |recorded: &RecordedEvent| evolved(Some(state), recorded);
    let advance = Advance {
        workflow_id: &state.workflow_id,
        expect_sequence: state.sequence,
        epoch: None,
        actor: "alice",
        event,
        evolve: &evolve,
        snapshots: &[],
        deliver: &|_, _, _| Vec::new(),
    };
    let done = store
        .advance_workflow(&advance, None, SystemTime::now())
        .await;
    done.unwrap().workflow
}

fn evolved(state: Option<&Workflow>, recorded: &RecordedEvent) -> Result<Workflow, StoreError> {
    evolve(state.cloned(), recorded).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// What makes a state as large as they are: a few kilobytes.
fn analysed() -> Event {
    let finding = FindingSummary {
        cause: "SEQUENCE_CAP".to_owned(),
        severity: "HIGH".to_owned(),
        description: "Requests wait while the engine runs as many as it may. ".repeat(8),
    };
    Event::Analysed {
        analysis: Box::new(Analysis {
            headline: "The engine runs as many requests as it may, and others wait.".to_owned(),
            findings: vec![finding; 8],
            start_unix_seconds: 1.7e9,
            end_unix_seconds: 1.7e9 + 60.0,
            simulated: false,
            before: Vec::new(),
        }),
    }
}

async fn read_the_log(store: Arc<dyn WorkflowStore>, over: Arc<AtomicBool>, read: Arc<AtomicU64>) {
    let mut after = 0;
    while !over.load(Ordering::Relaxed) {
        let page = store
            .events(after, &EventFilter::default(), 1_000)
            .await
            .unwrap();
        let count = u64::try_from(page.events.len()).unwrap();
        read.fetch_add(count, Ordering::Relaxed);
        after = match page.more {
            true => page.read_to_revision,
            false => 0,
        };
    }
}
