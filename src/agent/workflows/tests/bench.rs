//! An engine, an actuator that can be made to fail, and an agent over both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::actuator::{
    ActuatedInstance, Actuator, ActuatorError, Actuators, PlannedSettings, Routing, SettingsWrite,
    Slot, TargetSettings,
};
use crate::agent::{
    Agent, Caller, Error, GateAsked, StartInstance, StrategyAsked, TimeoutsAsked, WorkflowStart,
    WorkflowVerb,
};
use crate::config::{Config, InstanceEntry};
use crate::store::SqliteStore;
use crate::workflow::{Workflow, WorkflowKind};

/// What goes wrong at an actuator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It fails before it writes.
    Fails,
    /// It writes, and says that it failed.
    ToldFailed,
    /// It says that it wrote, and did not.
    Lies,
    /// It does not answer in time, and has written.
    HangsAfter,
    /// It does not answer in time, and has not written.
    HangsBefore,
    /// It can no longer be read.
    Unreadable,
}

/// Settings of two targets in memory.
#[derive(Debug)]
pub(super) struct FakeActuator(Mutex<Desk>);

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) targets: Vec<Target>,
    /// By operation: how often it took effect.
    pub(super) applies: BTreeMap<String, u32>,
    pub(super) fault: Fault,
    /// A target becomes ready only when it is looked at so often.
    pub(super) loads_for: u32,
    /// No target becomes ready with settings that have this in them.
    pub(super) never_ready_with: Option<&'static str>,
    pub(super) writes: u32,
    /// For so many workflows at once; none where it has no bound.
    pub(super) room: Option<Arc<Semaphore>>,
    /// Each time that a target left traffic or came back, and whether it was ready then.
    pub(super) routed: Vec<(usize, bool, bool)>,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) content: Vec<u8>,
    pub(super) revision: u64,
    pub(super) epoch: Option<u64>,
    pub(super) operation_id: Option<String>,
    /// Where it is a replica by itself, its metrics.
    pub(super) metrics_url: Option<String>,
    /// None where nothing routes it.
    pub(super) takes_requests: Option<bool>,
    loading: u32,
    is_loaded: bool,
}

pub(super) const BEFORE: &[u8] =
    b"[\"--max-num-seqs\",\"4\",\"--api-key\",\"s3cret\"]\n# by hand\n";

impl FakeActuator {
    fn new(targets: usize) -> Arc<Self> {
        let target = Target {
            content: BEFORE.to_vec(),
            revision: 1,
            epoch: None,
            operation_id: None,
            metrics_url: None,
            takes_requests: None,
            loading: 0,
            is_loaded: false,
        };
        Arc::new(Self(Mutex::new(Desk {
            targets: vec![target; targets],
            applies: BTreeMap::new(),
            fault: Fault::None,
            loads_for: 1,
            never_ready_with: None,
            writes: 0,
            room: None,
            routed: Vec::new(),
        })))
    }

    pub(super) fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.0.lock().unwrap()
    }

    /// As somebody else would.
    pub(super) fn changed_by_others(&self, target: usize, content: &[u8]) {
        let mut desk = self.desk();
        let target = &mut desk.targets[target];
        target.content = content.to_vec();
        target.revision += 1;
        target.operation_id = None;
    }

    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let desk = self.desk();
        desk.targets
            .iter()
            .map(|target| target.content.clone())
            .collect()
    }

    /// Nothing took effect twice.
    pub(super) fn assert_once(&self) {
        let desk = self.desk();
        assert!(
            desk.applies.values().all(|times| *times <= 1),
            "{:?}",
            desk.applies
        );
    }

    fn hung() -> ActuatorError {
        ActuatorError::TimedOut {
            actuator: "desk".to_owned(),
            op: "apply",
            seconds: 1.0,
        }
    }

    fn failed(op: &'static str) -> ActuatorError {
        ActuatorError::Failed {
            actuator: "desk".to_owned(),
            op,
            message: "no".to_owned(),
        }
    }
}

impl Target {
    /// It has loaded.
    pub(super) fn loaded(&mut self) {
        self.loading = u32::MAX;
        self.is_loaded = true;
    }
}

impl Desk {
    pub(super) fn settings(&mut self, place: usize) -> TargetSettings {
        let (loads_for, never) = (self.loads_for, self.never_ready_with);
        let target = &mut self.targets[place];
        target.loading = target.loading.saturating_add(1);
        let text = String::from_utf8_lossy(&target.content).into_owned();
        let args = text.lines().next().unwrap_or_default();
        TargetSettings {
            name: format!("t{place}"),
            revision: target.revision.to_string(),
            content: target.content.clone(),
            launch_args: serde_json::from_str(args).unwrap_or_default(),
            ready: (target.is_loaded || target.loading > loads_for)
                && never.is_none_or(|never| !text.contains(never)),
            operation_id: target.operation_id.clone(),
            epoch: target.epoch,
            metrics_url: target.metrics_url.clone(),
            takes_requests: target.takes_requests,
        }
    }
}

#[async_trait]
impl Actuator for FakeActuator {
    fn name(&self) -> &str {
        "desk"
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn slot(&self) -> Slot {
        let room = self.desk().room.clone();
        match room {
            Some(room) => Slot::of(&room).await,
            None => Slot::free(),
        }
    }

    async fn read(&self, _: &ActuatedInstance) -> Result<Vec<TargetSettings>, ActuatorError> {
        let mut desk = self.desk();
        if desk.fault == Fault::Unreadable {
            return Err(Self::failed("read"));
        }
        Ok((0..desk.targets.len())
            .map(|place| desk.settings(place))
            .collect())
    }

    async fn plan(
        &self,
        _: &ActuatedInstance,
        _: &TargetSettings,
        launch_args: &[String],
    ) -> Result<PlannedSettings, ActuatorError> {
        Ok(PlannedSettings {
            content: format!("{}\n", serde_json::to_string(launch_args).unwrap()).into_bytes(),
            needs_restart: true,
        })
    }

    async fn write(
        &self,
        _: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        let mut desk = self.desk();
        desk.writes += 1;
        let place: usize = write.target.trim_start_matches('t').parse().unwrap();
        let fault = desk.fault;
        let target = &mut desk.targets[place];
        if target.epoch.is_some_and(|epoch| epoch > write.epoch) {
            return Err(ActuatorError::StaleEpoch {
                target: write.target.clone(),
                epoch: write.epoch,
                current: target.epoch.unwrap(),
            });
        }
        let is_repeat = target.operation_id.as_deref() == Some(&write.operation_id)
            && target.content == write.content;
        if !is_repeat && target.revision.to_string() != write.expect_revision {
            return Err(ActuatorError::StaleRevision {
                target: write.target.clone(),
                expected: write.expect_revision.clone(),
                current: target.revision.to_string(),
            });
        }
        match fault {
            Fault::Fails => return Err(Self::failed("apply")),
            Fault::HangsBefore => return Err(Self::hung()),
            Fault::Lies => return Ok(desk.settings(place)),
            _ => {}
        }
        if !is_repeat {
            target.content.clone_from(&write.content);
            target.revision += 1;
            target.operation_id = Some(write.operation_id.clone());
            target.loading = 0;
            target.is_loaded = false;
            *desk.applies.entry(write.operation_id.clone()).or_default() += 1;
        }
        desk.targets[place].epoch = Some(write.epoch);
        match fault {
            Fault::ToldFailed => Err(Self::failed("apply")),
            Fault::HangsAfter => Err(Self::hung()),
            _ => Ok(desk.settings(place)),
        }
    }

    async fn route(
        &self,
        _: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        let mut desk = self.desk();
        let place: usize = routing.target.trim_start_matches('t').parse().unwrap();
        let ready = desk.settings(place).ready;
        desk.routed.push((place, routing.takes_requests, ready));
        desk.targets[place].takes_requests = Some(routing.takes_requests);
        Ok(desk.settings(place))
    }
}

/// A vLLM that serves, and counts. Its URL.
pub(super) async fn engine(serves: Arc<AtomicBool>, stalls: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (start, mut served) = (Instant::now(), 0.0);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4_096];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            if !serves.load(Ordering::SeqCst) {
                continue;
            }
            if !stalls.load(Ordering::SeqCst) {
                served = start.elapsed().as_secs_f64();
            }
            let tokens = 1_000.0 * served;
            let finished = tokens / 10.0;
            let answer = match asked
                .get(..read)
                .unwrap_or_default()
                .starts_with(b"GET /metrics")
            {
                true => {
                    let body = format!(
                        "# TYPE vllm:num_requests_running gauge\n\
                         vllm:num_requests_running{{engine=\"0\",model_name=\"m\"}} 2\n\
                         # TYPE vllm:num_requests_waiting gauge\n\
                         vllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} 0\n\
                         # TYPE vllm:generation_tokens_total counter\n\
                         vllm:generation_tokens_total{{engine=\"0\",model_name=\"m\"}} {tokens}\n\
                         # TYPE vllm:request_success_total counter\n\
                         vllm:request_success_total{{engine=\"0\",model_name=\"m\",finished_reason=\"stop\"}} {finished}\n"
                    );
                    format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
                false => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    .to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// An agent over an engine and an actuator, that can be ended and begun again.
pub(super) struct Bench {
    pub(super) actuator: Arc<FakeActuator>,
    /// Whether the engine answers.
    pub(super) serves: Arc<AtomicBool>,
    /// Whether it holds requests and does nothing.
    pub(super) stalls: Arc<AtomicBool>,
    config: Config,
    directory: TempDir,
    pub(super) agent: Option<Arc<Agent>>,
}

impl Bench {
    pub(super) async fn new(targets: usize) -> Self {
        Self::with(targets, |_| {}).await
    }

    pub(super) async fn with(targets: usize, change: impl FnOnce(&mut Config)) -> Self {
        let serves = Arc::new(AtomicBool::new(true));
        let stalls = Arc::new(AtomicBool::new(false));
        let mut config = Config {
            instances: vec![InstanceEntry {
                instance_id: "a".to_owned(),
                instance_type: Some("vllm".to_owned()),
                metrics_url: Some(engine(serves.clone(), stalls.clone()).await),
                metrics_urls: Vec::new(),
                scrape_interval: Some(Duration::from_millis(200)),
                window: Some(Duration::from_millis(600)),
                labels: BTreeMap::default(),
                slos: Vec::new(),
                launch_args: Vec::new(),
                actuator: (targets > 0).then(|| "desk".to_owned()),
            }],
            ..Config::default()
        };
        config.workflows.auto_approve = true;
        change(&mut config);
        let mut bench = Self {
            actuator: FakeActuator::new(targets),
            serves,
            stalls,
            config,
            directory: tempfile::tempdir().unwrap(),
            agent: None,
        };
        bench.begin().await;
        bench
    }

    /// As a process that is started.
    pub(super) async fn begin(&mut self) {
        let store = until(async || SqliteStore::open(self.directory.path()).await.ok()).await;
        let mut actuators = Actuators::default();
        actuators.add(self.actuator.clone());
        let mut config = self.config.clone();
        // the actuator is none of the config file
        let instances = std::mem::take(&mut config.instances);
        let rows = instances
            .iter()
            .map(|entry| crate::instance::Instance::configured(entry.spec()));
        let agent = Agent::start_with(&config, Arc::new(store), actuators, rows.collect()).await;
        self.agent = Some(agent.unwrap());
    }

    /// As a process that is killed: what it was at is broken off.
    pub(super) async fn end(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.stop_workflows();
        let weak = Arc::downgrade(&agent);
        drop(agent);
        until(async || (weak.strong_count() == 0).then_some(())).await;
    }

    pub(super) fn agent(&self) -> &Arc<Agent> {
        self.agent.as_ref().unwrap()
    }

    pub(super) async fn start(&self, start: WorkflowStart) -> Result<Workflow, Error> {
        self.agent()
            .start_workflow(&Caller::anonymous(), start, "")
            .await
    }

    pub(super) async fn ask(&self, id: &str, verb: WorkflowVerb) -> Result<Workflow, Error> {
        self.agent()
            .ask_workflow(&Caller::anonymous(), id, verb, "")
            .await
    }

    /// Waits until a workflow is so.
    pub(super) async fn state(&self, id: &str, is: impl Fn(&Workflow) -> bool) -> Workflow {
        let begin = Instant::now();
        loop {
            let state = self.agent().workflow(id).await.unwrap();
            if is(&state) {
                return state;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{state:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn ended(&self, id: &str) -> Workflow {
        self.state(id, |state| state.status().has_ended()).await
    }
}

pub(super) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing came of it"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A cap of 8 instead of 4.
pub(super) fn cap(to: &str) -> WorkflowStart {
    WorkflowStart {
        kind: WorkflowKind::ConfigChange,
        changes: [("max_num_seqs".to_owned(), Some(to.to_owned()))].into(),
        ..of(WorkflowKind::ConfigChange)
    }
}

pub(super) fn of(kind: WorkflowKind) -> WorkflowStart {
    WorkflowStart {
        instance: StartInstance::Known("a".to_owned()),
        kind,
        changes: BTreeMap::new(),
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: false,
        auto_approve: false,
        gate: GateAsked::default(),
        strategy: StrategyAsked::InPlace,
        timeouts: TimeoutsAsked::default(),
        note: String::new(),
    }
}

pub(super) fn approve(etag: Option<&str>) -> WorkflowVerb {
    WorkflowVerb::Approve {
        etag: etag.map(str::to_owned),
        note: String::new(),
    }
}

pub(super) fn rollback() -> WorkflowVerb {
    WorkflowVerb::Rollback {
        note: String::new(),
    }
}
