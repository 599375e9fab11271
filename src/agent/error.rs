//! Why a verb could not be carried out.

use crate::config::ConfigError;
use crate::instance::{FieldViolation, violations_text};
use crate::scrape::{ClientError, ScrapeError};

/// Why a verb could not be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong.
    #[error("{}", violations_text(.0))]
    Invalid(Vec<FieldViolation>),
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
}
