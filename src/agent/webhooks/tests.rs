use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::store::{
    Advance, Committed, DeliveryFilter, NewWorkflow, SqliteStore, StoreError, WebhookStore,
    WorkflowStore, micros,
};
use crate::webhook::{DeliveryState, DisabledReason, EventType, WebhookSpec, of_transition};
use crate::workflow::tests::example::spec as workflow_spec;
use crate::workflow::{Event, PauseReason, RecordedEvent, Workflow, WorkflowKind, evolve};

const BEGIN: Duration = Duration::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

/// Time stands still unless it is set.
#[derive(Debug)]
struct Hands(AtomicU64);

impl Hands {
    fn set(&self, time: SystemTime) {
        let us = time.duration_since(UNIX_EPOCH).unwrap().as_micros();
        self.0.fetch_max(us as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl WebhookClock for Hands {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, time: SystemTime) {
        self.set(time);
    }
}

/// A receiver: down until a time, in all ways that there are, and then one that takes everything. It checks every
/// signature, also of what it does not take.
#[derive(Debug)]
struct Receiver {
    clock: Arc<Hands>,
    secret: Secret,
    up_at: SystemTime,
    /// Status that it answers once it is up.
    status: u16,
    taken: Mutex<Vec<(String, String)>>,
    bodies: Mutex<HashMap<String, String>>,
    attempts: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

#[async_trait]
impl WebhookTransport for Receiver {
    async fn post(&self, url: &str, signed: &Signed) -> Answer {
        assert_eq!(url, "https://hooks.example/x");
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = self.answer(signed);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

impl Receiver {
    fn new(clock: &Arc<Hands>, up_after: Duration, status: u16) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            secret: Secret::of(&[9; 32]),
            up_at: clock.now() + up_after,
            status,
            taken: Mutex::default(),
            bodies: Mutex::default(),
            attempts: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }

    fn answer(&self, signed: &Signed) -> Answer {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        // by the reference library, at the time that it is here
        let now = micros(self.clock.now()) / 1_000_000;
        assert!(
            (now - signed.timestamp).abs() <= 300,
            "receivers would refuse it"
        );
        let key = standardwebhooks::Webhook::new(self.secret.expose()).unwrap();
        let expected = key.sign(&signed.id, signed.timestamp, signed.body.as_bytes());
        assert_eq!(signed.signature, expected.unwrap());
        let mut bodies = self.bodies.lock().unwrap();
        let body = bodies
            .entry(signed.id.clone())
            .or_insert_with(|| signed.body.clone());
        assert_eq!(*body, signed.body, "one id, one body");
        let status = |status, retry_after: Option<&str>| Answer::Status {
            status,
            retry_after: retry_after.map(str::to_owned),
        };
        if self.clock.now() >= self.up_at {
            let taken = (signed.id.clone(), signed.body.clone());
            self.taken.lock().unwrap().push(taken);
            return status(self.status, None);
        }
        match attempt % 5 {
            0 => status(500, None),
            1 => Answer::None {
                problem: "No answer within 15 s.".to_owned(),
            },
            2 => status(429, Some("30")),
            3 => Answer::None {
                problem: "connection refused".to_owned(),
            },
            _ => status(503, Some("Fri, 15 Jan 2027 09:00:00 GMT")),
        }
    }

    fn taken(&self) -> Vec<(String, String)> {
        self.taken.lock().unwrap().clone()
    }
}

struct Bench {
    store: Arc<SqliteStore>,
    clock: Arc<Hands>,
    hooks: Arc<Webhooks>,
    running: JoinSet<()>,
    directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let clock = Arc::new(Hands(AtomicU64::new(0)));
        clock.set(UNIX_EPOCH + BEGIN);
        Self::over(tempfile::tempdir().unwrap(), clock).await
    }

    async fn over(directory: TempDir, clock: Arc<Hands>) -> Self {
        let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
        let hooks = Webhooks {
            store: store.clone(),
            metrics: Arc::default(),
            clock: clock.clone(),
            policy: Config::default().webhook_policy().unwrap(),
            secret_files: BTreeMap::new(),
            sharing: OnceLock::new(),
            transport: OnceLock::new(),
            news: Notify::new(),
            stop: CancellationToken::new(),
        };
        Self {
            store,
            clock,
            hooks: Arc::new(hooks),
            running: JoinSet::new(),
            directory,
        }
    }

    /// Nobody holds the store any more, as after `kill -9`.
    async fn killed(mut self) -> Self {
        self.running.shutdown().await;
        let Self {
            directory,
            clock,
            store,
            hooks,
            ..
        } = self;
        drop((store, hooks));
        Self::over(directory, clock).await
    }

    async fn create(&self, receiver: &Arc<Receiver>) {
        let spec = WebhookSpec {
            webhook_id: "pager".to_owned(),
            url: "https://hooks.example/x".to_owned(),
            types: vec![EventType::DEFAULT],
            instance_ids: Vec::new(),
            labels: BTreeMap::new(),
            min_severity: None,
            description: String::new(),
        };
        let now = self.clock.now();
        let created = self
            .store
            .create_webhook(&spec, &receiver.secret, None, now);
        created.await.unwrap();
        self.hooks.transport.set(receiver.clone()).unwrap();
    }

    /// What the task does, until nothing is due before this time, and then it is this time.
    async fn until(&mut self, end: SystemTime) {
        loop {
            let next = self.hooks.begin_due(&mut self.running).await.unwrap();
            assert!(self.running.len() <= 32, "what is in memory is bounded");
            if let Some(ended) = self.running.join_next().await {
                ended.unwrap();
                continue;
            }
            if next > end {
                return self.clock.set(end);
            }
            self.clock.set(next);
        }
    }

    async fn webhook(&self) -> Webhook {
        self.store.webhooks().await.unwrap().remove(0)
    }

    async fn pending(&self) -> u64 {
        self.store.webhook_counts().await.unwrap().pending
    }

    /// The next event of a workflow, each of which changes its status.
    async fn event(&self, number: usize, before: Option<&Workflow>) -> Committed {
        let (id, instance_id) = (format!("0190-{number:04}"), format!("i-{number}"));
        let now = self.clock.now();
        let labels = BTreeMap::new();
        let deliver = |recorded: &RecordedEvent, after: &Workflow, webhooks: &[Webhook]| {
            of_transition(before, recorded, after, &labels, webhooks)
        };
        let next = |recorded: &RecordedEvent| {
            evolve(before.cloned(), recorded)
                .map_err(|error| StoreError::Unreadable(error.to_string()))
        };
        let mut spec = workflow_spec(WorkflowKind::Analysis);
        spec.instance_id.clone_from(&instance_id);
        let event = match before.map(|state| state.pause.is_some()) {
            None => Event::Started {
                spec: Box::new(spec),
            },
            Some(false) => Event::Paused {
                reason: PauseReason::Requested,
                message: String::new(),
                target: None,
                digest: None,
            },
            Some(true) => Event::Resumed {
                note: String::new(),
            },
        };
        let committed = match before {
            None => {
                let start = NewWorkflow {
                    workflow_id: &id,
                    instance_id: &instance_id,
                    register: None,
                    actor: "ada",
                    event: &event,
                    begin: &next,
                    deliver: &deliver,
                };
                self.store.start_workflow(&start, None, now).await
            }
            Some(state) => {
                let advance = Advance {
                    workflow_id: &id,
                    expect_sequence: state.sequence,
                    epoch: None,
                    actor: "ada",
                    event: &event,
                    evolve: &next,
                    snapshots: &[],
                    deliver: &deliver,
                };
                self.store.advance_workflow(&advance, None, now).await
            }
        };
        let committed = committed.unwrap();
        assert_eq!(committed.deliveries, 1);
        committed
    }
}

/// Revision and workflow of each body, in the order in which they were taken.
fn places(taken: &[(String, String)]) -> Vec<(String, u64)> {
    let place = |(_, body): &(String, String)| {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let data = &body["data"];
        let workflow = data["workflow_id"].as_str().unwrap().to_owned();
        (workflow, data["revision"].as_u64().unwrap())
    };
    taken.iter().map(place).collect()
}

#[tokio::test]
async fn a_receiver_that_was_down_for_a_day_gets_everything_in_order() {
    const WORKFLOWS: usize = 50;
    const EVENTS: usize = 20;
    let mut bench = Bench::new().await;
    let receiver = Receiver::new(&bench.clock, 24 * HOUR, 204);
    bench.create(&receiver).await;
    let begin = bench.clock.now();
    let mut states: Vec<Option<Workflow>> = vec![None; WORKFLOWS];
    // an hour and a bit between the events of a workflow
    for round in 0..EVENTS {
        for (number, state) in states.iter_mut().enumerate() {
            let committed = bench.event(number, state.as_ref()).await;
            *state = Some(committed.workflow);
        }
        bench
            .until(begin + HOUR.mul_f64(1.15) * (round as u32 + 1))
            .await;
    }
    bench
        .until(begin + 24 * HOUR - Duration::from_secs(1))
        .await;
    assert_eq!(receiver.taken(), []);
    assert_eq!(bench.pending().await, (WORKFLOWS * EVENTS) as u64);
    assert!(receiver.attempts.load(Ordering::SeqCst) > 5 * WORKFLOWS);
    // when what comes first of each workflow is tried next
    let filter = DeliveryFilter::default();
    let all = bench.store.deliveries(&filter, None, 10_000).await.unwrap();
    let due = all.iter().filter_map(|one| one.due_us).max().unwrap();
    let last_slot = UNIX_EPOCH + Duration::from_micros(due as u64);
    assert!(last_slot < begin + 40 * HOUR, "{last_slot:?}");

    bench.until(last_slot).await;
    assert_eq!(bench.pending().await, 0, "all within the next slot");
    let taken = receiver.taken();
    assert_eq!(taken.len(), WORKFLOWS * EVENTS);
    let ids: HashSet<&String> = taken.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), taken.len(), "each once");
    let mut last: HashMap<String, u64> = HashMap::new();
    for (workflow, revision) in places(&taken) {
        let before = last.insert(workflow, revision).unwrap_or(0);
        assert!(before < revision, "in the order of their revisions");
    }
    assert!(
        receiver.most_at_once.load(Ordering::SeqCst) <= 8,
        "of one webhook"
    );
    let webhook = bench.webhook().await;
    assert_eq!(
        (webhook.disabled, webhook.health.failing_since_us),
        (None, None)
    );
    let ended = bench.store.deliveries(&filter, None, 10_000).await.unwrap();
    assert!(
        ended
            .iter()
            .all(|one| one.state == DeliveryState::Delivered)
    );
}

#[tokio::test]
async fn what_was_posted_and_not_written_down_is_posted_again_under_its_id() {
    let bench = Bench::new().await;
    let receiver = Receiver::new(&bench.clock, Duration::ZERO, 200);
    bench.create(&receiver).await;
    let begun = bench.event(1, None).await;
    bench.event(1, Some(&begun.workflow)).await;
    // the receiver has it, and nobody knows
    let claim = crate::store::Claim {
        time: HOUR,
        size: 1,
        per_webhook: 1,
    };
    let now = bench.clock.now();
    let claimed = bench.store.claim_deliveries(&claim, now).await.unwrap();
    let what = &claimed[0].delivery.what;
    let hooks = bench.hooks.clone();
    let of = (what.delivery_id.as_str(), what.body.as_str());
    let secrets = (claimed[0].secrets.clone(), 1);
    hooks
        .post(&*receiver, &claimed[0].webhook, of, secrets)
        .await;
    drop(hooks);
    let mut bench = bench.killed().await;
    bench.hooks.transport.set(receiver.clone()).unwrap();
    bench.until(now).await;
    let taken = receiver.taken();
    let ids: Vec<&str> = taken.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(ids[0], what.delivery_id);
    assert_eq!(ids[1], ids[0], "at least once");
    assert_ne!(ids[2], ids[0]);
    assert_eq!(bench.pending().await, 0);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more_until_somebody_enables_it() {
    let mut bench = Bench::new().await;
    let receiver = Receiver::new(&bench.clock, Duration::ZERO, 410);
    bench.create(&receiver).await;
    let begun = bench.event(1, None).await;
    let begin = bench.clock.now();
    bench.until(begin + 100 * HOUR).await;
    let disabled = bench.webhook().await.disabled.unwrap();
    assert_eq!(disabled.reason, DisabledReason::Gone);
    assert_eq!(receiver.attempts.load(Ordering::SeqCst), 1);
    // what comes meanwhile is not kept for it; what it was owed is
    let state = &begun.workflow;
    let labels = BTreeMap::new();
    assert_eq!(bench.pending().await, 1);
    let webhooks = bench.store.webhooks().await.unwrap();
    let recorded = begun.event.as_ref().unwrap();
    assert_eq!(of_transition(None, recorded, state, &labels, &webhooks), []);
    let now = bench.clock.now();
    let enabled = bench.store.disable_webhook("pager", None, now).await;
    assert_eq!(enabled.unwrap().disabled, None);
    bench.until(now).await;
    assert_eq!(receiver.attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_given_up_holds_up_nothing_and_days_of_failures_disable() {
    let mut bench = Bench::new().await;
    let receiver = Receiver::new(&bench.clock, 1_000 * HOUR, 200);
    bench.create(&receiver).await;
    let begun = bench.event(1, None).await;
    bench.event(1, Some(&begun.workflow)).await;
    let begin = bench.clock.now();
    // ten tries over 75 hours and a fifth more; then the next of the workflow
    bench.until(begin + 92 * HOUR).await;
    let filter = DeliveryFilter::default();
    let all = bench.store.deliveries(&filter, None, 10).await.unwrap();
    assert_eq!((all[1].state, all[1].attempts), (DeliveryState::Failed, 10));
    assert_eq!(all[0].state, DeliveryState::Pending);
    assert!(all[0].attempts > 0);
    assert_eq!(bench.webhook().await.disabled, None);
    bench.until(begin + 200 * HOUR).await;
    let disabled = bench.webhook().await.disabled.unwrap();
    assert_eq!(disabled.reason, DisabledReason::Failing);
    let since = Duration::from_micros(disabled.since_us as u64) - BEGIN;
    assert!(since >= 120 * HOUR && since < 145 * HOUR, "{since:?}");
}

#[tokio::test]
async fn the_task_delivers_and_ends_when_it_is_told_to() {
    let bench = Bench::new().await;
    let receiver = Receiver::new(&bench.clock, Duration::ZERO, 200);
    bench.create(&receiver).await;
    bench.event(1, None).await;
    let weak = Arc::downgrade(&bench.hooks);
    let task = tokio::spawn(sender::send(weak, bench.hooks.stop.clone()));
    while bench.pending().await > 0 {
        tokio::task::yield_now().await;
    }
    bench.hooks.stop.cancel();
    task.await.unwrap();
    // by this clock a claim may run out while it is tried, and is tried again
    let taken: HashSet<_> = receiver.taken().into_iter().collect();
    assert_eq!(taken.len(), 1);
}
