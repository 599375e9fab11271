//! What can go wrong on the way to a replica's metrics, step by step, and what to do about it.

use crate::exposition::{ParseError, Reason};

use super::policy::Refusal;

/// A scrape that failed: at which step, why, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{url}: {failure}")]
pub struct ScrapeError {
    /// The URL, as it was asked for.
    pub url: String,
    /// What went wrong.
    pub failure: ScrapeFailure,
    /// What the operator can do about it.
    pub hint: Option<String>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScrapeFailure {
    /// The URL may not be fetched.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The host name has no address.
    #[error("cannot resolve the host name: {0}")]
    Resolve(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// A connection, but no TLS session over it.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The time for the whole request ran out.
    #[error("no complete answer within {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: f64,
    },
    /// The answer is not 200.
    #[error("the endpoint answered with HTTP status {0}")]
    Status(u16),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The answer is too large.
    #[error("the answer is larger than {limit_bytes} bytes, decompressed")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The answer has more series or buckets of one metric than any engine has.
    #[error("the answer has more series of one metric than any engine has")]
    TooManySeries,
    /// The answer is no metrics text at all.
    #[error("the answer is {0}, not metrics text")]
    NotMetrics(&'static str),
    /// No line of the answer could be read.
    #[error("the answer could not be read as metrics text: {0}")]
    Parse(ParseError),
    /// Metrics, but none of the engine.
    #[error("the answer has no metric of {engine}")]
    NoKnownMetrics {
        /// The engine that was looked for; `any known engine` where none was named.
        engine: String,
    },
    /// The engine that was named is not known here.
    #[error("there is no engine `{engine}` here")]
    UnknownEngine {
        /// The engine that was named.
        engine: String,
    },
    /// Metrics of another engine.
    #[error("the answer has metrics of {found}, not of {asked}")]
    WrongEngine {
        /// The engine that was looked for.
        asked: String,
        /// The engine that it is.
        found: String,
    },
}

/// The steps of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Whether the URL may be fetched.
    Policy,
    /// Host name to address.
    Resolve,
    /// The connection.
    Connect,
    /// Request to headers.
    Request,
    /// The body.
    Body,
    /// Text to samples.
    Parse,
    /// Samples to quantities.
    Map,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::Resolve,
        Self::Connect,
        Self::Request,
        Self::Body,
        Self::Parse,
        Self::Map,
    ];

    /// The word in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Body => "body",
            Self::Parse => "parse",
            Self::Map => "map",
        }
    }
}

impl ScrapeFailure {
    /// The step that failed.
    pub fn step(&self) -> Step {
        match self {
            Self::Refused(_) => Step::Policy,
            Self::Resolve(_) => Step::Resolve,
            Self::Connect(_) | Self::Tls(_) => Step::Connect,
            Self::TimedOut { .. } | Self::Status(_) => Step::Request,
            Self::Broken(_) | Self::TooLarge { .. } => Step::Body,
            Self::TooManySeries => Step::Map,
            Self::NotMetrics(_) | Self::Parse(_) => Step::Parse,
            Self::NoKnownMetrics { .. } | Self::UnknownEngine { .. } | Self::WrongEngine { .. } => {
                Step::Map
            }
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Connect(_) | Self::TimedOut { .. } | Self::Broken(_) => true,
            Self::Status(status) => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// What to do about it, where the failure itself tells.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Refused(refusal) => return refusal.hint(),
            Self::Resolve(_) => "check the host name in metrics_url",
            Self::Connect(_) => "check that the engine runs and listens at this address and port",
            Self::Tls(_) => {
                "is it https at all? If so, this machine must trust the certificate's issuer"
            }
            Self::TimedOut { .. } => {
                "the engine accepts connections but does not answer; if it is only slow, raise \
                 [scrape] timeout"
            }
            Self::Status(404) => "check the path: engines serve metrics at /metrics",
            Self::Status(401 | 403) => {
                "the endpoint wants credentials, which perfagent does not send"
            }
            Self::Status(300..=399) => "redirects are not followed: give the final URL",
            Self::Status(_) => "look at the engine's own log",
            Self::Broken(_) => "the engine or a proxy closed the connection; try again",
            Self::TooLarge { .. } | Self::TooManySeries => {
                "is this a metrics endpoint? Engines answer with 20 to 200 KB"
            }
            Self::Parse(error) if matches!(error.reason, Reason::TooManyLines { .. }) => {
                "is this a metrics endpoint? Engines answer with some thousand lines"
            }
            Self::NotMetrics(_) | Self::Parse(_) => {
                "check the path: engines serve metrics at /metrics"
            }
            Self::NoKnownMetrics { .. } => {
                "check that this is the engine's own metrics endpoint; for another engine, map its \
                 metrics in [[engines]] of the config file"
            }
            Self::UnknownEngine { .. } => {
                "map it in [[engines]] of the config file, as it was when the instance was registered, or change \
                 instance_type"
            }
            Self::WrongEngine { .. } => "set instance_type to the engine found, or to `auto`",
        })
    }

    /// With its URL and its own hint.
    pub fn at(self, url: impl Into<String>) -> ScrapeError {
        ScrapeError {
            url: url.into(),
            hint: self.hint().map(str::to_owned),
            failure: self,
        }
    }
}
