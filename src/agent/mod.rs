//! The shared core: one method a verb. Every edge calls only this.

mod actuated;
mod collect;
mod diagnose;
mod error;
mod fleet;
mod gauges;
mod heavy;
mod instances;
mod latest;
mod ledger;
mod optimize;
mod predictions;
mod reason;
mod recorded;
mod replica;
mod sharing;
mod slos;
mod watch;
mod watch_bottlenecks;
mod webhooks;
mod window;
mod workflows;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::actuator::Actuators;
use crate::analysis::Thresholds;
use crate::auth::Role;
use crate::config::Config;
use crate::engine::Registry;
pub use crate::instance::{FieldViolation, Target};
use crate::instance::{Instance, MAX_LABELS, MAX_REPLICAS, SloTable};
use crate::optimization::CustomOptimizer;
use crate::scrape::Fetcher;
use crate::store::Store;
use crate::telemetry::{Metrics, PREFIX};

use actuated::Actuated;
use fleet::Fleet;
use gauges::FleetGauges;
use heavy::Heavy;
use ledger::Ledger;
use sharing::Sharing;
use webhooks::Webhooks;
use workflows::{EventLog, Workflows};

pub use collect::Progress;
pub use diagnose::{Diagnosed, Diagnosing, DiagnosisAnswer};
pub use error::{Error, StartError};
pub use fleet::{Elsewhere, Forms, Health, InstanceState, Latest, ReplicaState};
pub use instances::{Page, Precondition, SpecChange};
pub use latest::{Answer, LatestAnswer};
pub use optimize::{ASKED_LEVER, Advised, ConfigAnswer, Predicted, Subject};
pub use predictions::{MAX_PREDICTIONS_PAGE, PredictionsPage};
pub use reason::Reason;
pub use recorded::{RecordedScrape, Recording};
pub use slos::SloAnswer;
pub use watch::WatchEvent;
pub use watch_bottlenecks::BottleneckEvent;
pub use webhooks::{DeliveriesPage, NewWebhook, WebhookTransport};
pub use window::WindowRequest;
pub use workflows::{
    CanaryAsked, EventsPart, GateAsked, LoggedEvent, Prompt, PromptsError, SnapshotsPage,
    StartInstance, StrategyAsked, TimeoutsAsked, WatchFrom, WorkflowNews, WorkflowStart,
    WorkflowTold, WorkflowVerb, WorkflowsPage, read_prompts,
};

/// Bounds that callers meet. Shown by `GetAgentInfo`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest window.
    pub window: Duration,
    /// Window of an inline target where none is asked for.
    pub default_window: Duration,
    /// Replicas of an inline target.
    pub replicas: usize,
    /// Targets of a batch.
    pub batch: usize,
    /// Replicas of all targets of a batch.
    pub batch_replicas: usize,
    /// Instances that the agent knows.
    pub instances: usize,
    /// Replicas of all of them.
    pub watched_replicas: usize,
    /// Labels of an instance.
    pub labels: usize,
    /// Connections to engines at once on behalf of one peer.
    pub outbound_connections_per_peer: usize,
    /// Calls at once from one peer.
    pub streams_per_peer: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of an answer.
    pub response_bytes: usize,
}

/// The bounds in force.
pub const LIMITS: Limits = Limits {
    window: Duration::from_secs(300),
    default_window: Duration::from_secs(5),
    replicas: MAX_REPLICAS,
    batch: 100,
    batch_replicas: 1_000,
    instances: 5_000,
    watched_replicas: 10_000,
    labels: MAX_LABELS,
    outbound_connections_per_peer: 32,
    streams_per_peer: 1_000,
    request_bytes: 4 << 20,
    response_bytes: 1 << 20,
};

/// Who calls, and what of the agent's means is theirs.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is; `anonymous` while authentication is off.
    pub principal: String,
    /// What it may do; everything while authentication is off.
    pub role: Role,
    /// Connections to engines that may be open at once on its behalf.
    pub outbound: Arc<Semaphore>,
}

impl Caller {
    /// Nobody in particular, who may do everything, with means of its own.
    pub fn anonymous() -> Self {
        Self {
            principal: "anonymous".to_owned(),
            role: Role::Admin,
            outbound: Arc::new(Semaphore::new(LIMITS.outbound_connections_per_peer)),
        }
    }

    /// Whether it may see the queries of metrics URLs, which can hold secrets.
    pub fn sees_queries(&self) -> bool {
        Role::OPERATING.contains(&self.role)
    }

    /// Whether it may have URLs fetched that nobody registered: the agent reaches what the caller may not.
    ///
    /// # Errors
    /// [`Error::RoleNotAllowed`].
    pub fn may_name_targets(&self) -> Result<(), Error> {
        if Role::OPERATING.contains(&self.role) {
            return Ok(());
        }
        Err(Error::RoleNotAllowed {
            role: self.role,
            what: "measure a target that is given by URL",
            allowed: Role::OPERATING,
        })
    }
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    registry: Registry,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    fleet: Arc<Fleet>,
    thresholds: Arc<Thresholds>,
    slos: Arc<SloTable>,
    /// Optimizers of the operator's own.
    optimizers: Arc<[CustomOptimizer]>,
    /// None where it only measures what it is given.
    store: Option<Arc<dyn Store>>,
    /// Gauges of the instances.
    gauges: prometheus_client::registry::Registry,
    /// What was predicted of instances, and is not known yet.
    ledger: Arc<Ledger>,
    /// What reads and writes settings, by name.
    actuators: Actuators,
    /// Launch arguments as actuators told them last.
    actuated: Arc<Actuated>,
    /// None without a store.
    workflows: Option<Arc<Workflows>>,
    /// None without a store.
    webhooks: Option<Arc<Webhooks>>,
    /// The log of workflows; none without a store.
    events: Option<Arc<EventLog>>,
    /// What is known of other agents on the store; none where there can be none.
    sharing: Option<Arc<Sharing>>,
    /// Ends what holds predictions against measurements.
    _holding: Option<DropGuard>,
    /// Room for work that takes a processor for seconds.
    heavy: Heavy,
    /// Writes take turns.
    writes: Arc<tokio::sync::Mutex<()>>,
    /// And so many may wait for theirs.
    writes_waiting: Arc<Semaphore>,
    started: Instant,
    started_at: SystemTime,
}

/// Writes that may wait for the disk at once.
const WRITES_WAITING: usize = 128;

impl Agent {
    /// An agent that measures what it is given, and knows no instances.
    ///
    /// # Errors
    /// A configuration that cannot be used, or this machine's TLS set-up.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let policy = config.url_policy()?;
        let registry = config.registry()?;
        let fetcher = Fetcher::new(policy, config.fetch_limits())?;
        let thresholds = Arc::new(config.thresholds()?);
        let slos = Arc::new(config.slos()?);
        let optimizers = config.optimizers()?.into();
        let metrics = Arc::new(Metrics::default());
        // connections belong to the thread that made them
        let of_fleet = Fetcher::new(config.url_policy()?, config.fetch_limits())?;
        let ledger = Arc::new(Ledger::default());
        let fleet = Fleet::new(
            registry.clone(),
            of_fleet,
            (metrics.clone(), ledger.clone()),
            (thresholds.clone(), slos.clone()),
            config.scrape.timeout,
        );
        let fleet = Arc::new(fleet);
        let mut gauges = prometheus_client::registry::Registry::with_prefix(PREFIX);
        gauges.register_collector(Box::new(FleetGauges(fleet.clone())));
        Ok(Self {
            registry,
            fetcher,
            metrics,
            fleet,
            thresholds,
            slos,
            optimizers,
            gauges,
            store: None,
            ledger,
            actuators: config.actuators()?,
            actuated: Arc::default(),
            workflows: None,
            webhooks: None,
            events: None,
            sharing: None,
            _holding: None,
            heavy: Heavy::default(),
            writes: Arc::default(),
            writes_waiting: Arc::new(Semaphore::new(WRITES_WAITING)),
            started: Instant::now(),
            started_at: SystemTime::now(),
        })
    }

    /// An agent that watches the instances of the config file and of the store.
    ///
    /// # Errors
    /// What [`Agent::new`] gives, and a store that cannot be read.
    pub async fn start(config: &Config, store: Arc<dyn Store>) -> Result<Arc<Self>, StartError> {
        Self::start_with(config, store, config.actuators()?, config.instances()?).await
    }

    /// The same with these actuators and instances of the config file.
    async fn start_with(
        config: &Config,
        store: Arc<dyn Store>,
        actuators: Actuators,
        configured: Vec<Instance>,
    ) -> Result<Arc<Self>, StartError> {
        let mut agent = Self::new(config)?;
        agent.actuators = actuators;
        let mut instances = configured.clone();
        for registered in store.instances().await? {
            if configured.iter().any(|row| row.id() == registered.id()) {
                tracing::warn!(
                    instance_id = registered.id(),
                    "the config file has an instance of the id of a registered one, which is not watched"
                );
            } else {
                instances.push(registered);
            }
        }
        agent.ledger.load(&*store).await?;
        let stop = CancellationToken::new();
        tokio::spawn(ledger::hold_against_measurements(
            (
                agent.ledger.clone(),
                agent.fleet.clone(),
                agent.actuated.clone(),
            ),
            (agent.registry.clone(), agent.thresholds.clone()),
            store.clone(),
            stop.clone(),
        ));
        agent._holding = Some(stop.drop_guard());
        let authenticates = config.auth.credentials_file.is_some();
        let workflows = Workflows::new(config.workflows.clone(), config.store.lease, authenticates);
        agent.arrive(workflows.holder(), &*store).await?;
        agent.fleet.put_all(instances);
        agent.events = Some(EventLog::open(store.clone()).await?);
        let configured = config.configured_webhooks()?;
        store
            .put_configured_webhooks(&configured, SystemTime::now())
            .await?;
        let webhooks = Webhooks::new(config, store.clone(), agent.metrics.clone())?;
        agent.webhooks = Some(webhooks);
        agent.workflows = Some(Arc::new(workflows));
        agent.store = Some(store.clone());
        let agent = Arc::new(agent);
        agent.follow_others(&store);
        agent.watch_for_webhooks();
        agent.resume_workflows().await?;
        Ok(agent)
    }

    /// What it counts of itself.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What it counts of itself and the last measurement of each instance, as OpenMetrics text.
    pub fn render_metrics(&self) -> String {
        self.metrics.render(&self.gauges)
    }

    /// What it is and how long it has been running.
    pub fn info(&self) -> AgentInfo {
        AgentInfo {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.started_at,
            uptime: self.started.elapsed(),
            limits: LIMITS,
            sharing: self.sharing.as_ref().map(|sharing| sharing.who()),
        }
    }

    /// How many instances it watches.
    pub fn watched_instances(&self) -> usize {
        self.fleet.size().0
    }

    /// The log of workflows.
    fn event_log(&self) -> Result<&Arc<EventLog>, Error> {
        self.events.as_ref().ok_or(Error::NoStore)
    }

    /// The engines that it can measure.
    pub fn engines(&self) -> &Registry {
        &self.registry
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop_workflows();
        self.stop_webhooks();
        self.fleet.stop();
    }
}

/// What the agent is.
#[derive(Debug, Clone)]
pub struct AgentInfo {
    /// Its version.
    pub version: &'static str,
    /// When it was started.
    pub started_at: SystemTime,
    /// How long ago.
    pub uptime: Duration,
    /// Bounds that callers meet.
    pub limits: Limits,
    /// Its id and those of all agents on its store; none where it is alone by nature.
    pub sharing: Option<(String, Arc<[String]>)>,
}
