//! Machine-readable reasons of errors: what `ErrorInfo.reason` says.

use crate::scrape::ScrapeFailure;
use crate::store::StoreError;
use crate::workflow::RefusalReason;

use super::error::Error;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $word:literal,)+) => {
        /// Why something was refused or failed. Words stay what they are within v1.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in `ErrorInfo.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request is wrong.
    InvalidArgument "INVALID_ARGUMENT",
    /// No credential, or one that the agent does not know.
    Unauthenticated "UNAUTHENTICATED",
    /// The caller's role may not do that.
    RoleNotAllowed "ROLE_NOT_ALLOWED",
    /// The URL may not be fetched.
    UrlRefused "URL_REFUSED",
    /// The host name has no address.
    ResolveFailed "RESOLVE_FAILED",
    /// No connection to the engine.
    ConnectFailed "CONNECT_FAILED",
    /// A connection, but no TLS session over it.
    TlsFailed "TLS_FAILED",
    /// The engine did not answer in time.
    ScrapeTimedOut "SCRAPE_TIMED_OUT",
    /// The engine answered with another HTTP status than 200.
    HttpStatus "HTTP_STATUS",
    /// The answer broke off.
    AnswerBroken "ANSWER_BROKEN",
    /// The answer is too large.
    AnswerTooLarge "ANSWER_TOO_LARGE",
    /// The answer is not metrics text.
    NotMetrics "NOT_METRICS",
    /// The answer has no metric of the engine.
    NoKnownMetrics "NO_KNOWN_METRICS",
    /// The answer is another engine's.
    WrongEngine "WRONG_ENGINE",
    /// The engine that was named is not known here.
    UnknownEngine "UNKNOWN_ENGINE",
    /// Replicas of one instance run different engines.
    MixedEngines "MIXED_ENGINES",
    /// Too few scrapes of the window succeeded.
    TooFewSamples "TOO_FEW_SAMPLES",
    /// The call's deadline passed.
    DeadlineExceeded "DEADLINE_EXCEEDED",
    /// More calls than the agent works on at once.
    TooManyCalls "TOO_MANY_CALLS",
    /// More calls than one peer may have open.
    TooManyStreams "TOO_MANY_STREAMS",
    /// The answer would be larger than an answer may be.
    ResponseTooLarge "RESPONSE_TOO_LARGE",
    /// No such method.
    UnknownMethod "UNKNOWN_METHOD",
    /// The request is compressed in a way that is not taken.
    UnsupportedEncoding "UNSUPPORTED_ENCODING",
    /// No such service, in a health check.
    UnknownService "UNKNOWN_SERVICE",
    /// The request is larger than a request may be.
    RequestTooLarge "REQUEST_TOO_LARGE",
    /// The request cannot be read.
    MalformedRequest "MALFORMED_REQUEST",
    /// The agent is being stopped.
    Draining "DRAINING",
    /// There is an instance of this id.
    InstanceExists "INSTANCE_EXISTS",
    /// There is no instance of this id.
    InstanceNotFound "INSTANCE_NOT_FOUND",
    /// The instance was changed since it was read.
    EtagMismatch "ETAG_MISMATCH",
    /// The request id was used for another request.
    RequestIdReused "REQUEST_ID_REUSED",
    /// The instance is of the config file.
    ReadOnlyInstance "READ_ONLY_INSTANCE",
    /// More instances or replicas than the agent watches.
    TooManyInstances "TOO_MANY_INSTANCES",
    /// The instance has not been scraped yet.
    NotMeasuredYet "NOT_MEASURED_YET",
    /// The disk of the store is full.
    StoreFull "STORE_FULL",
    /// The store cannot be used now.
    StoreUnavailable "STORE_UNAVAILABLE",
    /// The store holds what this version cannot read.
    StoreUnreadable "STORE_UNREADABLE",
    /// There is no workflow of this id.
    WorkflowNotFound "WORKFLOW_NOT_FOUND",
    /// The workflow moved on while the request was worked on.
    WorkflowMoved "WORKFLOW_MOVED",
    /// Another workflow runs on the instance.
    InstanceLocked "INSTANCE_LOCKED",
    /// The verb means nothing in the status that the workflow has.
    WrongStatus "WRONG_STATUS",
    /// The plan of the workflow is not ready yet.
    PlanNotReady "PLAN_NOT_READY",
    /// The plan is another one than the caller read.
    PlanChanged "PLAN_CHANGED",
    /// The caller may not approve this workflow.
    NotAnApprover "NOT_AN_APPROVER",
    /// The caller has approved this workflow already.
    ApprovedAlready "APPROVED_ALREADY",
    /// The workflow has changed nothing that could be rolled back.
    NothingApplied "NOTHING_APPLIED",
    /// Leaving settings as they are has to be acknowledged.
    AcknowledgeNeeded "ACKNOWLEDGE_NEEDED",
    /// The agent's policy lets no workflow go on without an approval.
    AutoApproveNotAllowed "AUTO_APPROVE_NOT_ALLOWED",
    /// The instance has no actuator.
    NoActuator "NO_ACTUATOR",
    /// The actuator did not do what it was asked.
    ActuatorFailed "ACTUATOR_FAILED",
    /// No plan could be made in time.
    NotPlanned "NOT_PLANNED",
    /// There is no snapshot of this id.
    SnapshotNotFound "SNAPSHOT_NOT_FOUND",
    /// There is a webhook of this id.
    WebhookExists "WEBHOOK_EXISTS",
    /// There is no webhook of this id.
    WebhookNotFound "WEBHOOK_NOT_FOUND",
    /// The webhook is of the config file.
    ReadOnlyWebhook "READ_ONLY_WEBHOOK",
    /// The webhook is disabled.
    WebhookDisabled "WEBHOOK_DISABLED",
    /// There are as many webhooks as there may be.
    TooManyWebhooks "TOO_MANY_WEBHOOKS",
    /// There is no delivery of this id.
    DeliveryNotFound "DELIVERY_NOT_FOUND",
    /// The part of the log that was asked for is gone.
    LogCompacted "LOG_COMPACTED",
    /// The reader did not take events for too long.
    WatcherTooSlow "WATCHER_TOO_SLOW",
    /// The stream has lived as long as streams live.
    StreamLifetime "STREAM_LIFETIME",
}

impl Reason {
    /// The reason of an error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Invalid(_) => Self::InvalidArgument,
            Error::RoleNotAllowed { .. } => Self::RoleNotAllowed,
            Error::Scrape(error) => Self::of_scrape(&error.failure),
            Error::MixedEngines { .. } => Self::MixedEngines,
            Error::TooFewSamples { .. } => Self::TooFewSamples,
            Error::Store(error) => Self::of_store(error),
            Error::NoStore => Self::StoreUnavailable,
            Error::ReadOnly(_) => Self::ReadOnlyInstance,
            Error::TooManyInstances { .. } => Self::TooManyInstances,
            Error::TooManyWrites | Error::TooManyPredictions => Self::TooManyCalls,
            Error::NotMeasuredYet(_) => Self::NotMeasuredYet,
            Error::Workflow(refusal) => Self::of_refusal(refusal.reason),
            Error::AutoApproveNotAllowed => Self::AutoApproveNotAllowed,
            Error::NoActuator(_) => Self::NoActuator,
            Error::Actuator(_) => Self::ActuatorFailed,
            Error::NotPlanned(_) => Self::NotPlanned,
            Error::NoSnapshot(_) => Self::SnapshotNotFound,
            Error::ReadOnlyWebhook(_) => Self::ReadOnlyWebhook,
            Error::WebhookDisabled(_) => Self::WebhookDisabled,
            Error::WebhookUrlRefused(_) => Self::UrlRefused,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Exists(_) => Self::InstanceExists,
            StoreError::NotFound(_) => Self::InstanceNotFound,
            StoreError::Changed { .. } => Self::EtagMismatch,
            StoreError::Invalid(_) => Self::InvalidArgument,
            StoreError::RequestIdReused(_) => Self::RequestIdReused,
            StoreError::Full(_) => Self::StoreFull,
            StoreError::Unavailable(_) => Self::StoreUnavailable,
            StoreError::Unreadable(_) => Self::StoreUnreadable,
            StoreError::NoWorkflow(_) => Self::WorkflowNotFound,
            StoreError::Moved(_) | StoreError::Leased { .. } => Self::WorkflowMoved,
            StoreError::Locked { .. } => Self::InstanceLocked,
            StoreError::Compacted { .. } => Self::LogCompacted,
            StoreError::WebhookExists(_) => Self::WebhookExists,
            StoreError::NoWebhook(_) => Self::WebhookNotFound,
            StoreError::TooManyWebhooks(_) => Self::TooManyWebhooks,
            // a claim is nothing that callers have
            StoreError::NoDelivery(_) | StoreError::ClaimLost(_) => Self::DeliveryNotFound,
        }
    }

    fn of_refusal(reason: RefusalReason) -> Self {
        match reason {
            RefusalReason::WrongStatus => Self::WrongStatus,
            RefusalReason::PlanNotReady => Self::PlanNotReady,
            RefusalReason::PlanChanged => Self::PlanChanged,
            RefusalReason::NotAnApprover => Self::NotAnApprover,
            RefusalReason::ApprovedAlready => Self::ApprovedAlready,
            RefusalReason::NothingApplied => Self::NothingApplied,
            RefusalReason::AcknowledgeNeeded => Self::AcknowledgeNeeded,
            RefusalReason::Late => Self::WorkflowMoved,
        }
    }

    /// The reason of a failed scrape.
    pub fn of_scrape(failure: &ScrapeFailure) -> Self {
        match failure {
            ScrapeFailure::Refused(_) => Self::UrlRefused,
            ScrapeFailure::Resolve(_) => Self::ResolveFailed,
            ScrapeFailure::Connect(_) => Self::ConnectFailed,
            ScrapeFailure::Tls(_) => Self::TlsFailed,
            ScrapeFailure::TimedOut { .. } => Self::ScrapeTimedOut,
            ScrapeFailure::Status(_) => Self::HttpStatus,
            ScrapeFailure::Broken(_) => Self::AnswerBroken,
            ScrapeFailure::TooLarge { .. } | ScrapeFailure::TooManySeries => Self::AnswerTooLarge,
            ScrapeFailure::NotMetrics(_) | ScrapeFailure::Parse(_) => Self::NotMetrics,
            ScrapeFailure::NoKnownMetrics { .. } => Self::NoKnownMetrics,
            ScrapeFailure::UnknownEngine { .. } => Self::UnknownEngine,
            ScrapeFailure::WrongEngine { .. } => Self::WrongEngine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_google_rpc_wants_them() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.len() <= 63, "{word}");
            assert!(
                word.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_'),
                "{word}"
            );
        }
    }
}
