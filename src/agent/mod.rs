//! The shared core: one method a verb. Every edge calls only this.

mod collect;
mod error;
mod reason;
mod replica;
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;

use crate::auth::Role;
use crate::config::Config;
use crate::engine::Registry;
use crate::scrape::Fetcher;
use crate::telemetry::Metrics;

pub use collect::Progress;
pub use error::{Error, FieldViolation, StartError};
pub use reason::Reason;
pub use target::{Target, WindowRequest};

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
    replicas: 64,
    batch: 100,
    batch_replicas: 1_000,
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
    started: Instant,
    started_at: SystemTime,
}

impl Agent {
    /// An agent with this configuration.
    ///
    /// # Errors
    /// A configuration that cannot be used, or this machine's TLS set-up.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let policy = config.url_policy()?;
        Ok(Self {
            registry: config.registry()?,
            fetcher: Fetcher::new(policy, config.fetch_limits())?,
            metrics: Arc::new(Metrics::default()),
            started: Instant::now(),
            started_at: SystemTime::now(),
        })
    }

    /// The agent's own metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What it is and how long it has been running.
    pub fn info(&self) -> AgentInfo {
        AgentInfo {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.started_at,
            uptime: self.started.elapsed(),
            limits: LIMITS,
        }
    }

    /// The engines that it can measure.
    pub fn engines(&self) -> &Registry {
        &self.registry
    }
}

/// What the agent is.
#[derive(Debug, Clone, Copy)]
pub struct AgentInfo {
    /// Its version.
    pub version: &'static str,
    /// When it was started.
    pub started_at: SystemTime,
    /// How long ago.
    pub uptime: Duration,
    /// Bounds that callers meet.
    pub limits: Limits,
}
