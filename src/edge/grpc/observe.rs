//! Every call leaves a duration in the metrics and a line in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tonic::Code;

use super::access::rule_of;
use super::auth::PrincipalCell;
use super::connection::Peer;
use super::context::{CallContext, REQUEST_ID};
use super::deadline::Deadline;
use super::reply::{Watch, watched};
use super::spans::{EndedCall, Spans};
use crate::edge::audit::{self, AuditLog, AuditRecord, OpenRecord};
use crate::telemetry::Metrics;

/// What calls are measured with.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) metrics: Arc<Metrics>,
    /// Paths of all methods, so that callers cannot make up series.
    pub(super) methods: HashSet<String>,
    pub(super) audit: Option<Arc<AuditLog>>,
    pub(super) spans: Option<Arc<Spans>>,
}

/// Measures a call from its headers to the end of its answer.
pub(super) async fn observe(
    State(observer): State<Arc<Observer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = PrincipalCell::default();
    request.extensions_mut().insert(principal.clone());
    let given = request.extensions_mut().remove::<CallContext>();
    let context = given.unwrap_or_else(|| CallContext::of(request.headers()));
    request.extensions_mut().insert(context.resource.clone());
    let answered_id = context.header();
    let path = request.uri().path();
    let mutates = rule_of(path).is_some_and(|rule| rule.mutates);
    let method = match observer.methods.get(path) {
        Some(known) => known.clone(),
        None => "unknown".to_owned(),
    };
    let audit = observer.audit.clone().filter(|_| mutates);
    let audit = audit.map(|log| Arc::new(OpenRecord::new(log)));
    if let Some(audit) = &audit {
        request.extensions_mut().insert(audit.clone());
    }
    observer.metrics.calls_in_flight.inc();
    let mut call = Call {
        observer,
        method,
        context,
        start: Instant::now(),
        started: SystemTime::now(),
        deadline: request.extensions().get::<Deadline>().copied(),
        code: None,
        principal,
        peer: request.extensions().get::<Peer>().copied(),
        mutates,
        audit,
    };
    let mut response = next.run(request).await;
    if let Some(id) = answered_id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    call.code = code_in(response.headers()).or_else(|| {
        let is_grpc = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        (!is_grpc).then_some(http_code(response.status()))
    });
    watched(response, call)
}

/// A call that is going on; recorded when it ends, however it does.
struct Call {
    observer: Arc<Observer>,
    method: String,
    context: CallContext,
    start: Instant,
    started: SystemTime,
    deadline: Option<Deadline>,
    code: Option<Code>,
    principal: PrincipalCell,
    peer: Option<Peer>,
    mutates: bool,
    audit: Option<Arc<OpenRecord>>,
}

impl Watch for Call {
    fn frame(&mut self, frame: Option<&Frame<Bytes>>) {
        if let Some(trailers) = frame.and_then(Frame::trailers_ref) {
            self.code = self.code.or(code_in(trailers));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let expired = self
            .deadline
            .is_some_and(|Deadline(at)| at <= tokio::time::Instant::now());
        // dropped before its end: the caller went away, or its time was over
        let code = match (self.code, expired) {
            (Some(code), _) => code,
            (None, true) => Code::DeadlineExceeded,
            (None, false) => Code::Cancelled,
        };
        let time = self.start.elapsed();
        self.observer.metrics.calls_in_flight.dec();
        self.observer.metrics.rpc(&self.method, name(code), time);
        // none where the caller was not recognised
        let principal = self.principal.0.get().map(String::as_str);
        self.log(code, time.as_secs_f64(), principal);
        if let Some(spans) = &self.observer.spans {
            spans.ended(&EndedCall {
                method: &self.method,
                context: &self.context,
                started: self.started,
                code: code.into(),
                code_name: name(code),
                principal,
            });
        }
        // of those who were never recognised the log has a line; they do not fill the audit log
        if let (Some(audit), Some(principal)) = (&self.audit, principal) {
            audit.answered(AuditRecord {
                time: audit::now(),
                principal: Some(principal.to_owned()),
                peer: self.shown_peer(),
                method: self.method.clone(),
                resource: self.context.resource.0.get().cloned(),
                request_id: self.context.request_id.clone(),
                trace_id: self.context.trace.map(|trace| trace.trace_id_hex()),
                outcome: name(code),
                answered: None,
            });
        }
    }
}

impl Call {
    fn log(&self, code: Code, seconds: f64, principal: Option<&str>) {
        // a caller that went away, as every watcher does at last, is no failure
        let failed = !matches!(code, Code::Ok | Code::Cancelled);
        if !failed && !self.mutates && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (method, request_id) = (&self.method, &self.context.request_id);
        let peer = self.shown_peer();
        let trace_id = self.context.trace.map(|trace| trace.trace_id_hex());
        let resource = self.context.resource.0.get();
        let code = name(code);
        if failed {
            tracing::info!(
                method,
                code,
                seconds,
                principal,
                peer,
                request_id,
                trace_id,
                resource,
                "call failed"
            );
        } else if self.mutates {
            tracing::info!(
                method, code, seconds, principal, peer, request_id, trace_id, resource, "call"
            );
        } else {
            tracing::debug!(
                method, code, seconds, principal, peer, request_id, trace_id, "call"
            );
        }
    }

    fn shown_peer(&self) -> Option<String> {
        self.peer.and_then(Peer::shown)
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    let number = headers.get("grpc-status")?;
    Some(Code::from_bytes(number.as_bytes()))
}

fn http_code(status: http::StatusCode) -> Code {
    if status.is_success() {
        Code::Ok
    } else if status == http::StatusCode::UNAUTHORIZED {
        Code::Unauthenticated
    } else if status == http::StatusCode::FORBIDDEN {
        Code::PermissionDenied
    } else if status.is_client_error() {
        Code::InvalidArgument
    } else {
        Code::Internal
    }
}

/// The word of a status code.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
