//! Why a verb could not be carried out.

use crate::actuator::ActuatorError;
use crate::auth::Role;
use crate::config::ConfigError;
use crate::instance::{FieldViolation, violations_text};
use crate::scrape::{ClientError, Refusal as Refused, ScrapeError};
use crate::store::{OpenError, StoreError};
use crate::workflow::Refusal;

/// Why a verb could not be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong.
    #[error("{}", violations_text(.0))]
    Invalid(Vec<FieldViolation>),
    /// The caller's role does not reach that far.
    #[error("the role {role} may not {what}; {} may", Role::names(allowed))]
    RoleNotAllowed {
        /// The caller's.
        role: Role,
        /// What it wanted.
        what: &'static str,
        /// Roles that may.
        allowed: &'static [Role],
    },
    /// A replica could not be read, and none other was left.
    #[error(transparent)]
    Scrape(#[from] ScrapeError),
    /// The replicas of one instance run different engines.
    #[error("the replicas run different engines: {first_url} {first}, {other_url} {other}")]
    MixedEngines {
        /// URL of one replica.
        first_url: String,
        /// Its engine.
        first: String,
        /// URL of another.
        other_url: String,
        /// Its engine.
        other: String,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent was started without a store.
    #[error("this agent keeps no instances")]
    NoStore,
    /// An instance of the config file.
    #[error("instance {0} is of the config file, and changed there")]
    ReadOnly(String),
    /// As many as there may be.
    #[error("the agent watches as many {what} as it may: {limit}")]
    TooManyInstances {
        /// Instances or replicas.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// More writes than may wait for the disk.
    #[error("too many changes wait for the disk")]
    TooManyWrites,
    /// More advice than the agent works on at once.
    #[error("too much advice is being worked out at once")]
    TooManyPredictions,
    /// The workflow does not do that now.
    #[error(transparent)]
    Workflow(#[from] Refusal),
    /// Workflows need an approval here.
    #[error("workflows may not go on without an approval here")]
    AutoApproveNotAllowed,
    /// The instance has no actuator.
    #[error("instance {0} has no actuator that could read or change its settings")]
    NoActuator(String),
    /// The actuator did not do it.
    #[error(transparent)]
    Actuator(#[from] ActuatorError),
    /// The plan was not ready in time.
    #[error("no plan could be made in time: {0}")]
    NotPlanned(String),
    /// There is no such snapshot.
    #[error("there is no snapshot {0}")]
    NoSnapshot(String),
    /// A webhook of the config file.
    #[error("webhook {0} is of the config file, and changed there")]
    ReadOnlyWebhook(String),
    /// A webhook that is told nothing.
    #[error("webhook {0} is disabled: nothing is delivered to it")]
    WebhookDisabled(String),
    /// Deliveries may not go there.
    #[error("url: {0}")]
    WebhookUrlRefused(Refused),
    /// An instance that was not scraped yet.
    #[error("instance {0} has not been scraped yet")]
    NotMeasuredYet(String),
    /// Every replica answered, but none twice.
    #[error(
        "fewer than two scrapes of any replica succeeded in this window; the last failure: {last}"
    )]
    TooFewSamples {
        /// The last failure.
        last: String,
    },
}

/// Why an agent could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
