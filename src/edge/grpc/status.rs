//! Where an error becomes a status: code, message, and `google.rpc` details.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::pb;
use super::reply::response_of;
use crate::agent::{Error, LIMITS, Reason};
use crate::instance::told;
use crate::scrape::{ScrapeError, ScrapeFailure};
use crate::store::StoreError;
use crate::workflow::{Refusal, RefusalReason};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "perfagent";

/// When to try again what failed for a reason that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When what passes only by somebody's doing.
const RETRY_LATER: Duration = Duration::from_secs(60);

/// The status of an error.
pub fn status_of(error: &Error) -> Status {
    status_at(error, None)
}

/// The status of an error that ends a stream which can be resumed after a revision.
pub(super) fn status_at(error: &Error, revision: Option<u64>) -> Status {
    let mut metadata = at(revision);
    if let Error::Scrape(scrape) = error {
        metadata.insert("step".to_owned(), scrape.failure.step().as_str().to_owned());
        metadata.insert("url".to_owned(), scrape.url.clone());
        if let ScrapeFailure::Status(status) = scrape.failure {
            metadata.insert("http_status".to_owned(), status.to_string());
        }
    }
    if let Error::Store(StoreError::Compacted { oldest_revision }) = error {
        let oldest = oldest_revision.to_string();
        metadata.insert("oldest_revision".to_owned(), oldest);
    }
    if let Error::Workflow(Refusal {
        status: Some(status),
        ..
    }) = error
    {
        metadata.insert("status".to_owned(), status.as_str().to_owned());
    }
    if let Some(hint) = hint_of(error) {
        metadata.insert("hint".to_owned(), hint);
    }
    let mut details = details_of(code_of(error), Reason::of(error), metadata);
    if let Error::Invalid(violations) | Error::Store(StoreError::Invalid(violations)) = error {
        for violation in told(violations) {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
    }
    if let (Error::Workflow(refusal), Code::FailedPrecondition) = (error, code_of(error)) {
        let kind = Reason::of(error).as_str();
        details.add_precondition_failure_violation(kind, "workflow.status", &refusal.message);
    }
    if let Error::Store(StoreError::Locked {
        instance_id,
        workflow_id,
    }) = error
    {
        let why = format!("it runs on instance {instance_id}");
        details.set_resource_info("perfagent.v1.Workflow", workflow_id, "", why);
    }
    let message = match hint_of(error) {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    Status::with_error_details(code_of(error), message, details)
}

/// A refusal, and what to do about it.
pub(super) fn refusal_with_hint(
    code: Code,
    reason: Reason,
    message: impl Into<String>,
    hint: &str,
) -> Status {
    let metadata = HashMap::from([("hint".to_owned(), hint.to_owned())]);
    let message = format!("{} ({hint})", message.into());
    Status::with_error_details(code, message, details_of(code, reason, metadata))
}

/// What a caller can do whose role does not reach far enough.
pub(super) const ROLE_HINT: &str = "use a credential with one of these roles";

/// A status that has nothing to do with any target.
pub(super) fn refusal(code: Code, reason: Reason, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details_of(code, reason, HashMap::new()))
}

/// The same of a stream that can be resumed after a revision.
pub(super) fn refusal_at(
    revision: Option<u64>,
    code: Code,
    reason: Reason,
    message: impl Into<String>,
) -> Status {
    Status::with_error_details(code, message, details_of(code, reason, at(revision)))
}

fn at(revision: Option<u64>) -> HashMap<String, String> {
    let revision = revision.map(|revision| ("revision".to_owned(), revision.to_string()));
    revision.into_iter().collect()
}

fn details_of(code: Code, reason: Reason, metadata: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        // what somebody must first make room for does not pass in a second
        let waits = matches!(reason, Reason::StoreFull | Reason::TooManyInstances);
        details.set_retry_info(Some(if waits { RETRY_LATER } else { RETRY_AFTER }));
    }
    details
}

/// Gives the errors that tonic makes itself (unknown method, unreadable request) the details that ours have.
pub(super) async fn complete_details(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return response;
    }
    // tonic tells the encodings that are taken beside the refusal of one that is not
    let encodings = response.headers().get("grpc-accept-encoding").cloned();
    if let (Code::Unimplemented, Some(encodings)) = (status.code(), encodings) {
        let refused = refusal(
            Code::Unimplemented,
            Reason::UnsupportedEncoding,
            "requests are taken uncompressed only; send them without grpc-encoding",
        );
        let mut response = response_of(refused);
        response
            .headers_mut()
            .insert("grpc-accept-encoding", encodings);
        return response;
    }
    response_of(match status.code() {
        Code::Unimplemented => refusal(
            Code::Unimplemented,
            Reason::UnknownMethod,
            "no such method; list what there is with reflection, as grpcurl does",
        ),
        // where tonic finds that a message is longer than it may be
        Code::OutOfRange | Code::ResourceExhausted => refusal(
            Code::InvalidArgument,
            Reason::RequestTooLarge,
            format!("the request is larger than {} bytes", LIMITS.request_bytes),
        ),
        code => refusal(code, Reason::MalformedRequest, status.message()),
    })
}

/// The same as a message, for one target among many.
pub fn failure_of(error: &Error) -> pb::CollectFailure {
    pb::CollectFailure {
        code: code_of(error) as i32,
        reason: Reason::of(error).as_str().to_owned(),
        message: error.to_string(),
        hint: hint_of(error),
    }
}

/// A scrape that failed, as a message.
pub(super) fn scrape_failure(error: &ScrapeError) -> pb::CollectFailure {
    failure_of(&Error::Scrape(error.clone()))
}

fn hint_of(error: &Error) -> Option<String> {
    match error {
        Error::Scrape(scrape) => scrape.hint.clone(),
        Error::MixedEngines { .. } => {
            Some("measure them as two instances, or set instance_type to one of them".to_owned())
        }
        Error::TooFewSamples { .. } => Some("try again, or with a longer window".to_owned()),
        Error::RoleNotAllowed { .. } => Some(ROLE_HINT.to_owned()),
        Error::Invalid(_) => None,
        Error::Store(error) => store_hint(error),
        Error::NoStore => Some("ask an agent that was started with `perfagent serve`".to_owned()),
        Error::ReadOnly(_) => Some("change it there and start the agent anew".to_owned()),
        Error::TooManyInstances { .. } => Some(
            "delete instances that are not needed, or share them among several agents".to_owned(),
        ),
        Error::TooManyPredictions => Some("try again in some seconds".to_owned()),
        Error::TooManyWrites => {
            Some("try again; is the disk of the state directory stuck?".to_owned())
        }
        Error::NotMeasuredYet(_) => Some("try again in a moment".to_owned()),
        // what to do is in its message
        Error::Workflow(_) => None,
        Error::AutoApproveNotAllowed => Some(
            "leave auto_approve out and approve the plan, or set `auto_approve` in [workflows] of the config file".to_owned(),
        ),
        Error::NoActuator(_) => Some(
            "define one in [[actuators]] of the config file, and name it in `actuator` of the instance".to_owned(),
        ),
        Error::Actuator(_) => Some("see the agent's log, and try `perfagent actuator check`".to_owned()),
        Error::NotPlanned(_) => Some("try again, or give it more time".to_owned()),
        Error::NoSnapshot(_) => Some("list what there is with ListConfigSnapshots".to_owned()),
        Error::ReadOnlyWebhook(_) => Some("change it there and start the agent anew".to_owned()),
        Error::WebhookDisabled(_) => Some("enable it first: EnableWebhook".to_owned()),
        Error::WebhookUrlRefused(refusal) => refusal.hint().map(str::to_owned),
    }
}

fn store_hint(error: &StoreError) -> Option<String> {
    let hint = match error {
        StoreError::Exists(_) => "change it with UpdateInstance, or choose another id",
        StoreError::NotFound(_) => {
            "register it with perfagent.v1.InstanceService/RegisterInstance (perfagent instances register), or give \
             metrics_url to measure it without"
        }
        StoreError::Changed { .. } => "read it again with GetInstance, and send its etag",
        StoreError::RequestIdReused(_) => "give each new request a request_id of its own",
        StoreError::Full(_) => "make room on the disk of the state directory",
        StoreError::Unavailable(_) => "try again; the agent's log and disk may tell more",
        StoreError::Unreadable(_) => {
            "was it changed by hand? Restore the state directory from a backup"
        }
        StoreError::NoWorkflow(_) => "list what there is with ListWorkflows",
        StoreError::Moved(_) => "try again",
        StoreError::Locked { .. } => {
            "wait until it has ended, or end it: CancelWorkflow; RollbackWorkflow where its rollback failed"
        }
        StoreError::Compacted { .. } => {
            "read the state with GetWorkflow or ListWorkflows, and watch on from its revision"
        }
        StoreError::WebhookExists(_) => "choose another id, or delete it first with DeleteWebhook",
        StoreError::NoWebhook(_) => "list what there is with ListWebhooks",
        StoreError::TooManyWebhooks(_) => "delete those that are not needed with DeleteWebhook",
        StoreError::NoDelivery(_) => "list what there is with ListWebhookDeliveries",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::Exists(_) => Code::AlreadyExists,
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::Changed { .. } => Code::Aborted,
        StoreError::Invalid(_) | StoreError::RequestIdReused(_) => Code::InvalidArgument,
        StoreError::Full(_) => Code::ResourceExhausted,
        StoreError::Unreadable(_) => Code::DataLoss,
        StoreError::NoWorkflow(_) => Code::NotFound,
        StoreError::Moved(_) | StoreError::Leased { .. } | StoreError::Locked { .. } => {
            Code::Aborted
        }
        StoreError::Compacted { .. } => Code::OutOfRange,
        StoreError::WebhookExists(_) => Code::AlreadyExists,
        StoreError::NoWebhook(_) | StoreError::NoDelivery(_) | StoreError::ClaimLost(_) => {
            Code::NotFound
        }
        StoreError::TooManyWebhooks(_) => Code::ResourceExhausted,
        _ => Code::Unavailable,
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::RoleNotAllowed { .. } => Code::PermissionDenied,
        Error::Scrape(scrape) => match &scrape.failure {
            ScrapeFailure::Refused(_) => Code::PermissionDenied,
            failure if failure.is_transient() => Code::Unavailable,
            _ => Code::FailedPrecondition,
        },
        Error::Store(error) => store_code(error),
        Error::NoStore | Error::NotMeasuredYet(_) => Code::Unavailable,
        Error::ReadOnly(_) => Code::FailedPrecondition,
        Error::TooManyInstances { .. } | Error::TooManyWrites | Error::TooManyPredictions => {
            Code::ResourceExhausted
        }
        Error::TooFewSamples { .. } => Code::Unavailable,
        Error::MixedEngines { .. } => Code::FailedPrecondition,
        Error::Workflow(refusal) => match refusal.reason {
            RefusalReason::PlanChanged | RefusalReason::Late => Code::Aborted,
            RefusalReason::NotAnApprover => Code::PermissionDenied,
            RefusalReason::ApprovedAlready => Code::AlreadyExists,
            _ => Code::FailedPrecondition,
        },
        Error::AutoApproveNotAllowed | Error::NoActuator(_) | Error::Actuator(_) => {
            Code::FailedPrecondition
        }
        Error::NotPlanned(_) => Code::Unavailable,
        Error::NoSnapshot(_) => Code::NotFound,
        Error::ReadOnlyWebhook(_) | Error::WebhookDisabled(_) => Code::FailedPrecondition,
        Error::WebhookUrlRefused(_) => Code::PermissionDenied,
    }
}
