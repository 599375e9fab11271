//! What the agent says of itself: logs and its own metrics.

use std::io::IsTerminal;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::scrape::Step;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    /// What keeps the agent from working.
    Error,
    /// What an operator should look at.
    Warn,
    /// Start, stop, and calls that failed.
    #[default]
    Info,
    /// Every call.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts logging to standard error: perfagent at this level, what it is built on from warnings upwards. `RUST_LOG`
/// wins.
pub fn init_logging(format: LogFormat, level: LogLevel) {
    let ours = format!("warn,perfagent={}", level.as_str());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // a second start, as in tests, keeps the first
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// What all names begin with.
pub const PREFIX: &str = "perfagent";

/// The agent's own metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rpc_duration: Family<RpcLabels, Histogram, fn() -> Histogram>,
    scrape_duration: Family<StepLabels, Histogram, fn() -> Histogram>,
    scrape_failures: Family<StepLabels, Counter>,
    /// Calls that are being worked on.
    pub calls_in_flight: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    connections_refused: Family<ReasonLabels, Counter>,
    workflow_events: Family<TypeLabels, Counter>,
    /// Workflows that have not ended.
    pub workflows_unfinished: Gauge,
    webhook_attempts: Family<OutcomeLabels, Counter>,
    webhook_deliveries: Family<OutcomeLabels, Counter>,
    /// Deliveries that have not ended.
    pub webhook_deliveries_pending: Gauge,
    /// Webhooks that are told nothing.
    pub webhooks_disabled: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

fn rpc_histogram() -> Histogram {
    // a call may wait for a window of up to five minutes
    Histogram::new([
        0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ])
}

fn scrape_histogram() -> Histogram {
    Histogram::new([
        0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let rpc_duration = Family::new_with_constructor(rpc_histogram as fn() -> Histogram);
        let scrape_duration = Family::new_with_constructor(scrape_histogram as fn() -> Histogram);
        let scrape_failures: Family<StepLabels, Counter> = Family::default();
        // the first one is a step from zero, not a series that begins at one, which no rate would show
        for step in [Step::Request, Step::Body, Step::Parse] {
            let step = step.as_str();
            drop(scrape_duration.get_or_create(&StepLabels { step }));
        }
        for step in Step::ALL {
            let step = step.as_str();
            drop(scrape_failures.get_or_create(&StepLabels { step }));
        }
        let calls_in_flight = Gauge::default();
        let build: Family<BuildLabels, Gauge> = Family::default();
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&BuildLabels { version }).set(1);
        registry.register(
            "rpc_duration_seconds",
            "Time from the headers of a call to the end of its answer, by method and status code",
            rpc_duration.clone(),
        );
        registry.register(
            "scrape_duration_seconds",
            "Time of each step of a scrape: request, body, parse",
            scrape_duration.clone(),
        );
        registry.register(
            "scrape_failures",
            "Scrapes that failed, by the step that failed",
            scrape_failures.clone(),
        );
        registry.register(
            "calls_in_flight",
            "Calls that are being worked on",
            calls_in_flight.clone(),
        );
        registry.register("build_info", "1, with the agent's version as label", build);
        let connections = Gauge::default();
        let connections_refused: Family<ReasonLabels, Counter> = Family::default();
        for reason in ["max_connections", "tls_handshake"] {
            drop(connections_refused.get_or_create(&ReasonLabels { reason }));
        }
        registry.register(
            "connections",
            "Connections that are open, those in their TLS handshake included",
            connections.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections that were not served, by reason: max_connections, tls_handshake",
            connections_refused.clone(),
        );
        let workflow_events: Family<TypeLabels, Counter> = Family::default();
        for r#type in [
            "started",
            "completed",
            "failed",
            "rolled_back",
            "rollback_failed",
        ] {
            drop(workflow_events.get_or_create(&TypeLabels { r#type }));
        }
        registry.register(
            "workflow_events",
            "Events of workflows that this agent committed, by type: started, completed, rolled_back and others",
            workflow_events.clone(),
        );
        let workflows_unfinished = Gauge::default();
        registry.register(
            "workflows_unfinished",
            "Workflows that have not ended, those that wait for somebody included",
            workflows_unfinished.clone(),
        );
        let webhook_attempts: Family<OutcomeLabels, Counter> = Family::default();
        for outcome in ["taken", "failed"] {
            drop(webhook_attempts.get_or_create(&OutcomeLabels { outcome }));
        }
        registry.register(
            "webhook_attempts",
            "Attempts at deliveries of webhooks, by outcome: taken, failed",
            webhook_attempts.clone(),
        );
        let webhook_deliveries: Family<OutcomeLabels, Counter> = Family::default();
        for outcome in ["delivered", "failed"] {
            drop(webhook_deliveries.get_or_create(&OutcomeLabels { outcome }));
        }
        registry.register(
            "webhook_deliveries",
            "Deliveries of webhooks that have ended, by outcome: delivered, failed (given up)",
            webhook_deliveries.clone(),
        );
        let webhook_deliveries_pending = Gauge::default();
        registry.register(
            "webhook_deliveries_pending",
            "Deliveries of webhooks that have not ended, those of disabled ones included",
            webhook_deliveries_pending.clone(),
        );
        let webhooks_disabled = Gauge::default();
        registry.register(
            "webhooks_disabled",
            "Webhooks that nothing is delivered to: somebody disabled them, or their receivers are gone or fail",
            webhooks_disabled.clone(),
        );
        Self {
            registry,
            rpc_duration,
            scrape_duration,
            scrape_failures,
            calls_in_flight,
            connections,
            connections_refused,
            workflow_events,
            workflows_unfinished,
            webhook_attempts,
            webhook_deliveries,
            webhook_deliveries_pending,
            webhooks_disabled,
        }
    }
}

impl Metrics {
    /// A call that ended. Methods that there are not share one label, so that callers cannot make series.
    pub fn rpc(&self, method: &str, code: &'static str, time: Duration) {
        let labels = RpcLabels {
            method: method.to_owned(),
            code,
        };
        self.rpc_duration
            .get_or_create(&labels)
            .observe(time.as_secs_f64());
    }

    /// A connection that was not served.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// An event of a workflow that was committed.
    pub fn workflow_event(&self, kind: &'static str) {
        let labels = TypeLabels { r#type: kind };
        self.workflow_events.get_or_create(&labels).inc();
    }

    /// An attempt at a delivery of a webhook.
    pub fn webhook_attempt(&self, is_taken: bool) {
        let outcome = if is_taken { "taken" } else { "failed" };
        self.webhook_attempts
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A delivery of a webhook that has ended: `delivered`, `failed`.
    pub fn webhook_delivery(&self, outcome: &'static str) {
        self.webhook_deliveries
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A step of a scrape that was done.
    pub fn scrape_step(&self, step: &'static str, time: Duration) {
        self.scrape_duration
            .get_or_create(&StepLabels { step })
            .observe(time.as_secs_f64());
    }

    /// A scrape that failed.
    pub fn scrape_failure(&self, step: &'static str) {
        self.scrape_failures
            .get_or_create(&StepLabels { step })
            .inc();
    }

    /// All of them as OpenMetrics text, with those that stand elsewhere.
    pub fn render(&self, others: &Registry) -> String {
        let mut text = String::new();
        // writing to a string does not fail
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, others))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}
