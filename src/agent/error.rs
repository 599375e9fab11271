//! Why a verb could not be carried out.

use crate::auth::Role;
use crate::config::ConfigError;
use crate::scrape::{ClientError, ScrapeError};

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
    /// Every replica answered, but none twice.
    #[error(
        "fewer than two scrapes of any replica succeeded in this window; the last failure: {last}"
    )]
    TooFewSamples {
        /// The last failure.
        last: String,
    },
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field: `metrics_urls[1]`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl FieldViolation {
    /// A violation.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

fn violations_text(violations: &[FieldViolation]) -> String {
    let texts: Vec<String> = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    texts.join("; ")
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
