//! Plain HTTP on the same port, for tools that speak nothing else: `/metrics`, `/healthz`, which is `/api/v1/health`
//! too, and `/docs` for browsers.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{StatusCode, Version};
use prost_reflect::DescriptorPool;
use tokio::sync::watch;

use super::docs;
use crate::agent::Agent;
use crate::auth::Digest;

/// Paths that are served to HTTP/1.
pub(super) const PATHS: [&str; 4] = ["/metrics", "/healthz", "/api/v1/health", "/docs"];

#[derive(Clone)]
struct HttpState {
    agent: Arc<Agent>,
    serving: watch::Receiver<bool>,
    reference: Bytes,
}

/// The routes.
pub(super) fn routes(
    agent: Arc<Agent>,
    serving: watch::Receiver<bool>,
    pool: &DescriptorPool,
) -> Router {
    let [metrics_path, health_path, api_health_path, docs_path] = PATHS;
    Router::new()
        .route(metrics_path, get(metrics))
        .route(health_path, get(healthz))
        // the path that users of the JSON API know
        .route(api_health_path, get(healthz))
        .route(docs_path, get(reference))
        .with_state(HttpState {
            agent,
            serving,
            // made once, at the start: the descriptors are read there anyway, and reading them again costs more memory
            // than the page; copied, since text that grew has room to spare
            reference: Bytes::copy_from_slice(docs::page(pool).as_bytes()),
        })
}

async fn metrics(State(state): State<HttpState>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], state.agent.render_metrics()).into_response()
}

async fn healthz(State(state): State<HttpState>) -> Response {
    let (code, status) = match *state.serving.borrow() {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let now = prost_types::Timestamp::from(SystemTime::now());
    let body = serde_json::json!({ "status": status, "timestamp": now.to_string() });
    (code, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// What a browser may do with the page: apply its own style, and nothing else.
static REFERENCE_POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = BASE64.encode(Digest::of(docs::STYLE.as_bytes()).bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

async fn reference(State(state): State<HttpState>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, REFERENCE_POLICY.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // another agent may listen here tomorrow
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, state.reference).into_response()
}

/// Refuses HTTP/1 requests that a web page could have sent by a name of its own (DNS rebinding), and those for
/// anything but the plain routes.
pub(super) async fn guard_http1(
    State(hosts): State<Arc<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    if request.version() >= Version::HTTP_2 {
        return next.run(request).await;
    }
    // the authority of an absolute request line counts above the header, and two headers count for none
    let mut headers = request.headers().get_all(HOST).into_iter();
    let header = match (headers.next(), headers.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let line = request.uri().authority().map(http::uri::Authority::as_str);
    let ours = |host: Option<&str>| host.is_some_and(|host| is_ours(host, &hosts));
    if !ours(header) || (line.is_some() && !ours(line)) {
        let text = "this host name is not served here; list it in [server] hosts\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if !PATHS.contains(&request.uri().path()) {
        let text = "only /metrics, /healthz, /api/v1/health and /docs are served over HTTP/1; everything else is gRPC, \
                    which needs HTTP/2\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    next.run(request).await
}

fn is_ours(host: &str, hosts: &[String]) -> bool {
    let without_port = match host.rsplit_once(':') {
        // the colons of a bare IPv6 address are within brackets
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    is_loopback
        || name.eq_ignore_ascii_case("localhost")
        || hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_names_are_ours() {
        let hosts = ["agent.example".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST:8002",
            "127.0.0.1:8002",
            "[::1]:8002",
            "agent.example:8002",
        ] {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:8002",
            "",
            "agent.example.evil",
        ] {
            assert!(!is_ours(host, &hosts), "{host}");
        }
    }
}
