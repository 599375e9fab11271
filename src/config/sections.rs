//! The sections of the config file, and what holds where they say nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::analysis::{Slo, SloText, SloTextError};
use crate::instance::{DEFAULT_INTERVAL, InstanceSpec, default_window};
use crate::scrape::{FetchLimits, Network};

use super::{ConfigError, PostgresOptions};

/// `[server]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address for gRPC, `/metrics` and `/healthz`.
    pub listen: SocketAddr,
    /// Listen beyond loopback without TLS.
    pub insecure_listen: bool,
    /// Certificate chain for TLS (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Certificates that sign those of clients (PEM); with it every client must show one.
    pub tls_client_ca: Option<PathBuf>,
    /// Names by which HTTP/1 requests may call the agent, beside those of loopback.
    pub hosts: Vec<String>,
    /// Proxies whose `x-forwarded-for` is believed: who called them has limits of its own, and is named in logs.
    pub trusted_proxies: Vec<Network>,
    /// How long calls that run when the agent is told to stop may take.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long a stream that does not end by itself may go on, give or take a fifth.
    #[serde(with = "humantime_serde")]
    pub stream_lifetime: Duration,
    /// A reader of a stream of events who takes nothing for so long is told to come again.
    #[serde(with = "humantime_serde")]
    pub stream_stall: Duration,
    /// Calls that are worked on at once; more are answered RESOURCE_EXHAUSTED.
    pub max_calls: usize,
    /// Connections at once; more are closed as soon as they are made.
    pub max_connections: usize,
    /// An idle connection is pinged after this long, to find peers that are gone.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// OpenTelemetry collector that calls are told to, by OTLP over gRPC: `http://127.0.0.1:4317`.
    pub otlp_endpoint: Option<String>,
    /// Threads that work; none means as many as there are cores.
    pub workers: Option<usize>,
    /// A connection whose ping is not answered within this is closed.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8002)),
            insecure_listen: false,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            // an orchestrator mostly kills after 30 seconds
            drain_timeout: Duration::from_secs(25),
            stream_lifetime: Duration::from_secs(600),
            stream_stall: Duration::from_secs(30),
            max_calls: 2_000,
            max_connections: 10_000,
            otlp_endpoint: None,
            workers: None,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// `[scrape]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrapeConfig {
    /// What an agent that listens beyond loopback may fetch: `10.0.0.0/8`, `vllm.example`, `*.example`.
    pub allow: Vec<String>,
    /// Time for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time for a whole request.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        let limits = FetchLimits::default();
        Self {
            allow: Vec::new(),
            connect_timeout: limits.connect_timeout,
            timeout: limits.timeout,
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Directory for state. None means `$XDG_STATE_HOME/perfagent`, else `$HOME/.local/state/perfagent`. With `url` the audit
    /// log and what is known of checks of actuators are in it, and all else is in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// A PostgreSQL that several agents share: `postgres://user@host:5432/database`, without a password. None means a file in
    /// the state directory, which one agent has for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the password for `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The database itself, where `url` is a pooler that gives connections for a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_url: Option<String>,
    /// How long an agent holds a workflow that it carries on without a sign of life; another takes over then.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            state_dir: None,
            url: None,
            password_file: None,
            listen_url: None,
            lease: DEFAULT_LEASE,
        }
    }
}

/// As long as a machine may stand still without another taking over.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);
/// Shorter ones are lost by a moment of load; longer ones leave a workflow alone for long.
const LEASES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl StoreConfig {
    /// The database, where there is one.
    pub fn postgres(&self) -> Option<PostgresOptions> {
        self.url.as_ref().map(|url| PostgresOptions {
            url: url.clone(),
            password_file: self.password_file.clone(),
            listen_url: self.listen_url.clone(),
        })
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// A URL that is none of a PostgreSQL, or that holds a password; a password for nothing; a lease that is too short or
    /// too long.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (least, most) = LEASES;
        if !(least..=most).contains(&self.lease) {
            return Err(ConfigError::Time {
                name: "store.lease",
                least,
                most,
            });
        }
        match self.postgres() {
            Some(postgres) => postgres.check().map_err(ConfigError::Store),
            None if self.password_file.is_some() || self.listen_url.is_some() => {
                Err(ConfigError::Store(
                    "password_file and listen_url are of a database: set url beside them"
                        .to_owned(),
                ))
            }
            None => Ok(()),
        }
    }
}

/// `[[instances]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceEntry {
    /// Its id.
    pub instance_id: String,
    /// Engine; none or `auto` means that it is recognised.
    pub instance_type: Option<String>,
    /// Metrics URL of the one replica.
    pub metrics_url: Option<String>,
    /// One URL a replica.
    #[serde(default)]
    pub metrics_urls: Vec<String>,
    /// Time between scrapes.
    #[serde(with = "humantime_serde", default)]
    pub scrape_interval: Option<Duration>,
    /// How far back a measurement reaches.
    #[serde(with = "humantime_serde", default)]
    pub window: Option<Duration>,
    /// What the operator tells instances apart by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its users were promised; empty for those of `[[slos]]`, or the defaults.
    #[serde(default)]
    pub slos: Vec<Slo>,
    /// Launch arguments that its engine runs with, each word its own: `["--max-num-seqs", "64"]`. Values are kept of
    /// those that set something the agent knows.
    #[serde(default)]
    pub launch_args: Vec<String>,
    /// Name of the actuator that reads and writes its settings, of `[[actuators]]`; none where plans are not applied.
    pub actuator: Option<String>,
}

impl InstanceEntry {
    /// The spec, with what was left out at its default.
    pub fn spec(&self) -> InstanceSpec {
        let interval = self.scrape_interval.unwrap_or(DEFAULT_INTERVAL);
        let first = self.metrics_url.iter();
        InstanceSpec {
            instance_id: self.instance_id.clone(),
            instance_type: self.instance_type.clone().filter(|name| name != "auto"),
            metrics_urls: first.chain(&self.metrics_urls).cloned().collect(),
            scrape_interval: interval,
            window: self.window.unwrap_or_else(|| default_window(interval)),
            labels: self.labels.clone(),
            slos: self.slos.clone(),
            launch_args: self.launch_args.clone(),
            actuator: self.actuator.clone(),
        }
    }
}

/// `[[slos]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloEntry {
    /// The instance that it is of; none for all that bring no SLOs of their own.
    pub instance_id: Option<String>,
    /// What it is called; one for an instance replaces one for all of the same name.
    pub name: String,
    /// The quantity's name with its unit.
    pub quantity: String,
    /// `mean`, `value`, or a percentile such as `p99`; none for `value`.
    pub aggregation: Option<String>,
    /// The largest value that keeps it.
    pub at_most: Option<f64>,
    /// The smallest value that keeps it.
    pub at_least: Option<f64>,
    /// It holds only while requests wait.
    #[serde(default)]
    pub only_while_requests_wait: bool,
}

impl SloEntry {
    /// The SLO.
    ///
    /// # Errors
    /// An entry that says no target, or two, or no aggregation.
    pub fn slo(&self) -> Result<Slo, SloTextError> {
        let text = SloText {
            name: self.name.clone(),
            quantity: self.quantity.clone(),
            aggregation: self
                .aggregation
                .clone()
                .unwrap_or_else(|| "value".to_owned()),
            at_most: self.at_most,
            at_least: self.at_least,
            only_while_requests_wait: self.only_while_requests_wait,
        };
        text.try_into()
    }
}
