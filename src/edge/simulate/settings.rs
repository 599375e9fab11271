//! The settings of a simulated replica over HTTP, for the `simulator` actuator: `/control/settings`.

use std::sync::{MutexGuard, PoisonError};

use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Served, json_of, read, refused};
use crate::simulator::{NewSettings, ReplicaSettings, SettingsRefusal};

pub(super) const PATH: &str = "/control/settings";
/// Whether new requests come to the replica.
pub(super) const ROUTE_PATH: &str = "/control/route";

/// What a write says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    operation_id: String,
    epoch: u64,
    expect_revision: String,
    content_base64: String,
}

/// What a routing says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    takes_requests: bool,
    epoch: u64,
}

/// Has new requests come to the replica, or none, with `PUT`.
pub(super) async fn route(served: &Served, request: Request) -> Response {
    if request.method() != Method::PUT {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "PUT is answered here");
    }
    let route: Route = match read(request).await {
        Ok(route) => route,
        Err(response) => return response,
    };
    let mut settings = locked(served);
    if let Err(refusal) = settings.admit(route.epoch) {
        return stale(&refusal);
    }
    served.moved().take_requests(route.takes_requests);
    json_of(StatusCode::OK, &shown(served, &settings))
}

/// Answers `GET` with the settings, and writes them with `PUT`.
pub(super) async fn answer(served: &Served, request: Request) -> Response {
    match *request.method() {
        Method::GET => json_of(StatusCode::OK, &shown(served, &locked(served))),
        Method::PUT => match read(request).await {
            Ok(put) => write(served, put),
            Err(response) => response,
        },
        _ => refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET and PUT are answered here",
        ),
    }
}

fn write(served: &Served, put: Put) -> Response {
    let Ok(content) = STANDARD.decode(&put.content_base64) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "content_base64 must be base64, padded",
        );
    };
    let new = NewSettings {
        operation_id: put.operation_id,
        epoch: put.epoch,
        expect_revision: put.expect_revision,
        content,
    };
    // held over the restart: who reads sees both or neither
    let mut settings = locked(served);
    let mut replica = served.moved();
    let written = settings.write(new, &served.deployment, replica.flags());
    let restart = match written {
        Ok(restart) => restart,
        Err(refusal) => return stale(&refusal),
    };
    if let Some(mut restart) = restart {
        restart.load_seconds = served.load_seconds() * served.deployment.speed;
        if let Err(error) = replica.restart(&restart) {
            return refused(StatusCode::BAD_REQUEST, &error.to_string());
        }
    }
    drop(replica);
    json_of(StatusCode::OK, &shown(served, &settings))
}

fn stale(refusal: &SettingsRefusal) -> Response {
    let error = refusal.to_string();
    let (status, answer) = match refusal {
        SettingsRefusal::StaleRevision { current } => (
            StatusCode::CONFLICT,
            json!({ "error": error, "code": "STALE_REVISION", "current_revision": current }),
        ),
        SettingsRefusal::StaleEpoch { current } => (
            StatusCode::CONFLICT,
            json!({ "error": error, "code": "STALE_EPOCH", "current_epoch": current }),
        ),
        SettingsRefusal::Content | SettingsRefusal::Flags(_) => {
            (StatusCode::BAD_REQUEST, json!({ "error": error }))
        }
    };
    json_of(status, &answer)
}

fn shown(served: &Served, settings: &ReplicaSettings) -> Value {
    let replica = served.moved();
    json!({
        "revision": settings.revision(),
        "content_base64": STANDARD.encode(settings.content()),
        "launch_args": settings.launch_args(),
        "ready": replica.is_up(),
        "operation_id": settings.operation_id(),
        "epoch": settings.epoch(),
        "takes_requests": replica.takes_requests(),
        "applies": settings.applies(),
        "restarts": replica.restarts(),
    })
}

fn locked(served: &Served) -> MutexGuard<'_, ReplicaSettings> {
    // written at once, whoever panicked
    served
        .settings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
