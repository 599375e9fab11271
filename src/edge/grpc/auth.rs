//! Who calls. Every request leaves here with a [`Caller`]; while authentication is off it is `anonymous`.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use super::limits::PeerMeans;
use crate::agent::Caller;

/// Puts the caller into the request.
pub(super) async fn authenticate(mut request: Request, next: Next) -> Response {
    let mut caller = Caller::anonymous();
    if let Some(means) = request.extensions().get::<PeerMeans>() {
        caller.outbound = means.outbound.clone();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The caller of a request that came through [`authenticate`].
pub(super) fn caller_of<T>(request: &tonic::Request<T>) -> Caller {
    // a request that did not come through it has no means but its own
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(Caller::anonymous)
}
