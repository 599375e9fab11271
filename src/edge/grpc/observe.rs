//! Every call leaves a duration in the metrics and a line in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

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
use super::deadline::Deadline;
use super::reply::{Watch, watched};
use crate::telemetry::Metrics;

/// What calls are measured with.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: Arc<Metrics>,
    /// Paths of all methods, so that callers cannot make up series.
    methods: HashSet<String>,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>, methods: HashSet<String>) -> Self {
        Self { metrics, methods }
    }
}

/// Measures a call from its headers to the end of its answer.
pub(super) async fn observe(
    State(observer): State<Arc<Observer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = PrincipalCell::default();
    request.extensions_mut().insert(principal.clone());
    let path = request.uri().path();
    let mutates = rule_of(path).is_some_and(|rule| rule.mutates);
    let method = match observer.methods.get(path) {
        Some(known) => known.clone(),
        None => "unknown".to_owned(),
    };
    observer.metrics.calls_in_flight.inc();
    let mut call = Call {
        metrics: observer.metrics.clone(),
        method,
        start: Instant::now(),
        deadline: request.extensions().get::<Deadline>().copied(),
        code: None,
        principal,
        peer: request.extensions().get::<Peer>().copied(),
        mutates,
    };
    let response = next.run(request).await;
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
    metrics: Arc<Metrics>,
    method: String,
    start: Instant,
    deadline: Option<Deadline>,
    code: Option<&'static str>,
    principal: PrincipalCell,
    peer: Option<Peer>,
    mutates: bool,
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
            (None, true) => name(Code::DeadlineExceeded),
            (None, false) => name(Code::Cancelled),
        };
        let time = self.start.elapsed();
        self.metrics.calls_in_flight.dec();
        self.metrics.rpc(&self.method, code, time);
        let (method, seconds) = (&self.method, time.as_secs_f64());
        // none where the caller was not recognised
        let principal = self.principal.0.get().map(String::as_str);
        let peer = self.peer.and_then(|peer| peer.address);
        let peer = peer.map(tracing::field::display);
        if code != name(Code::Ok) {
            tracing::info!(method, code, seconds, principal, peer, "call failed");
        } else if self.mutates {
            tracing::info!(method, code, seconds, principal, peer, "call");
        } else {
            tracing::debug!(method, code, seconds, principal, peer, "call");
        }
    }
}

fn code_in(headers: &HeaderMap) -> Option<&'static str> {
    let number = headers.get("grpc-status")?;
    Some(name(Code::from_bytes(number.as_bytes())))
}

fn http_code(status: http::StatusCode) -> &'static str {
    if status.is_success() {
        name(Code::Ok)
    } else if status == http::StatusCode::UNAUTHORIZED {
        name(Code::Unauthenticated)
    } else if status == http::StatusCode::FORBIDDEN {
        name(Code::PermissionDenied)
    } else if status.is_client_error() {
        name(Code::InvalidArgument)
    } else {
        name(Code::Internal)
    }
}

fn name(code: Code) -> &'static str {
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
