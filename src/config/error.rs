//! What can be wrong with a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::actuator::ActuatorEntryError;
use crate::analysis::ThresholdError;
use crate::engine::custom::CustomEngineError;
use crate::optimization::OptimizerError;
use crate::scrape::BadAllowRule;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or a value has the wrong type.
    #[error("{origin}: {message}")]
    Syntax {
        /// File or variable.
        origin: String,
        /// What is wrong, with its place.
        message: String,
    },
    /// A key that there is not.
    #[error("{origin}: unknown key `{key}`; the nearest known one is `{nearest}`")]
    UnknownKey {
        /// File or variable.
        origin: String,
        /// The key with its section.
        key: String,
        /// What may have been meant.
        nearest: String,
    },
    /// An entry of `[scrape] allow` that is none.
    #[error("scrape.allow: {0}")]
    Allow(#[from] BadAllowRule),
    /// An entry of `[webhook] allow` that is none.
    #[error("webhook.allow: {0}")]
    WebhookAllow(BadAllowRule),
    /// A webhook that cannot be used.
    #[error("webhooks: {webhook_id}: {problem}")]
    Webhook {
        /// Which.
        webhook_id: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// More webhooks than there may be.
    #[error("webhooks: there may be {} at most", crate::webhook::MAX_WEBHOOKS)]
    TooManyWebhooks,
    /// A schedule that is none.
    #[error(
        "webhook.retries must be 1 to 50 times of 30days at most, such as [\"0s\", \"5s\", \"5min\"]"
    )]
    Retries,
    /// An engine that cannot be used.
    #[error("engines: {0}")]
    Engine(#[from] CustomEngineError),
    /// An optimizer that cannot be used.
    #[error("optimizers: {0}")]
    Optimizer(#[from] OptimizerError),
    /// An actuator that cannot be used.
    #[error("actuators: {0}")]
    Actuator(#[from] ActuatorEntryError),
    /// SLOs that cannot be.
    #[error("{0}")]
    Slo(String),
    /// A threshold that cannot be.
    #[error("thresholds: {0}")]
    Threshold(#[from] ThresholdError),
    /// An instance that cannot be used.
    #[error("instances: {instance_id}: {problem}")]
    Instance {
        /// Which.
        instance_id: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A store that cannot be.
    #[error("store: {0}")]
    Store(String),
    /// A time of zero.
    #[error("{0} must be longer than zero")]
    ZeroTime(&'static str),
    /// A time that is too short or too long.
    #[error("{name} must be from {} to {}", humantime::format_duration(*least), humantime::format_duration(*most))]
    Time {
        /// The key.
        name: &'static str,
        /// The shortest.
        least: std::time::Duration,
        /// The longest.
        most: std::time::Duration,
    },
    /// A number of approvals that cannot be.
    #[error("workflows.approvals must be from 1 to 10")]
    Approvals,
    /// A share that is none.
    #[error("workflows.quality_agreement_ratio must be from 0 to 1, such as 0.95")]
    AgreementRatio,
    /// Several have to approve, and all are the same.
    #[error(
        "workflows.approvals above 1 and workflows.separate_requester need to know who calls: set auth.credentials_file, \
         or leave them out"
    )]
    ApprovalWithoutAuth,
    /// No call could be answered, or more than a machine bears.
    #[error("{0} must be from 1 to 1000000")]
    Bound(&'static str),
    /// Half of what TLS needs.
    #[error("{given} needs {missing} beside it")]
    Tls {
        /// The key that is set.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// No thread, or more than any machine has cores.
    #[error("server.workers must be from 1 to 1024")]
    Workers,
    /// A time that is no keepalive.
    #[error("{0} must be from 10ms to 1day")]
    Keepalive(&'static str),
    /// A variable that looks like ours and is none.
    #[error(
        "{name}: variables are PERFAGENT_SECTION__KEY, with two underscores; the nearest known one is {nearest}"
    )]
    UnknownVariable {
        /// Its name.
        name: String,
        /// What may have been meant.
        nearest: String,
    },
    /// Beyond loopback without TLS.
    #[error(
        "server.listen {0} is reachable from other machines, and calls would cross the network in \
         the clear; set server.tls_cert and server.tls_key, listen on 127.0.0.1, or say \
         --insecure-listen (server.insecure_listen = true)"
    )]
    InsecureListen(SocketAddr),
}
