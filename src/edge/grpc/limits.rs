//! How much one peer, and all of them together, may have going on at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::Version;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use super::auth::Stranger;
use super::connection::Peer;
use super::reply::{Watch, response_of, watched};
use super::request_body::{Large, bounded};
use super::server::REFLECTION;
use super::status::{refusal, refusal_with_hint};
use crate::agent::{Caller, LIMITS, Reason};

/// Calls at once, of all peers and of each.
#[derive(Debug)]
pub(super) struct CallLimits {
    all: Arc<Semaphore>,
    per_peer: usize,
    /// Calls of those who showed no credential where one is asked for: they take no place of others.
    strangers: Arc<Semaphore>,
    large_requests: Arc<Semaphore>,
    peers: Mutex<HashMap<IpAddr, PeerMeans>>,
}

/// Calls at once of those who showed no credential where one is asked for.
const STRANGERS: usize = 256;
/// Large requests that are read at once: each may take a hundred times its size once it is read.
const LARGE_REQUESTS: usize = 2;

/// What one peer may use at once.
#[derive(Debug, Clone)]
struct PeerMeans {
    calls: Arc<Semaphore>,
    /// Connections to engines on its behalf.
    outbound: Arc<Semaphore>,
}

/// Above this many peers those without calls are forgotten.
const PEERS_KEPT: usize = 1_024;

impl CallLimits {
    pub(super) fn new(all: usize, per_peer: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_peer,
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            large_requests: Arc::new(Semaphore::new(LARGE_REQUESTS)),
            peers: Mutex::new(HashMap::new()),
        }
    }

    fn means_of(&self, peer: IpAddr) -> PeerMeans {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_KEPT {
            // one of the two references is the map's own
            peers.retain(|_, means| {
                Arc::strong_count(&means.calls) > 1 || Arc::strong_count(&means.outbound) > 1
            });
        }
        peers
            .entry(peer)
            .or_insert_with(|| PeerMeans {
                calls: Arc::new(Semaphore::new(self.per_peer)),
                outbound: Arc::new(Semaphore::new(LIMITS.outbound_connections_per_peer)),
            })
            .clone()
    }
}

/// What probes call: an agent that is busy is not one to be started anew.
const PROBES: [&str; 2] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
];

/// Lets a call in, or answers RESOURCE_EXHAUSTED.
pub(super) async fn limit_calls(
    State(limits): State<Arc<CallLimits>>,
    mut request: Request,
    next: Next,
) -> Response {
    // probes and Prometheus must get through when calls do not
    if request.version() < Version::HTTP_2 || PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.caller())
        .unwrap_or(IpAddr::from([0, 0, 0, 0]));
    if request.extensions().get::<Stranger>().is_some() {
        return let_stranger_in(&limits, request, next).await;
    }
    let means = limits.means_of(peer);
    let Ok(of_peer) = means.calls.clone().try_acquire_owned() else {
        return response_of(refusal_with_hint(
            Code::ResourceExhausted,
            Reason::TooManyStreams,
            format!(
                "this peer has {} calls open; end some of them first",
                limits.per_peer
            ),
            "callers behind a proxy count as one, unless [server] trusted_proxies lists the proxy",
        ));
    };
    let Ok(of_all) = limits.all.clone().try_acquire_owned() else {
        return response_of(refusal(
            Code::ResourceExhausted,
            Reason::TooManyCalls,
            "the agent works on as many calls as it may; try again",
        ));
    };
    if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
        caller.outbound = means.outbound;
    }
    let large = Large::default();
    if !REFLECTION.contains(&request.uri().path()) {
        let (gate, large) = (limits.large_requests.clone(), large.clone());
        request = request.map(|body| bounded(body, gate, large));
    }
    let response = next.run(request).await;
    watched(
        response,
        Held {
            _permits: [of_peer, of_all],
            _large: large,
        },
    )
}

async fn let_stranger_in(limits: &CallLimits, request: Request, next: Next) -> Response {
    let Ok(permit) = limits.strangers.clone().try_acquire_owned() else {
        return response_of(refusal(
            Code::ResourceExhausted,
            Reason::TooManyCalls,
            "too many calls without a credential are open; try again",
        ));
    };
    let response = next.run(request).await;
    watched(response, StrangersPlace(permit))
}

struct StrangersPlace(#[allow(dead_code)] OwnedSemaphorePermit);

impl Watch for StrangersPlace {
    fn frame(&mut self, _: Option<&Frame<Bytes>>) {}
}

/// Permits that a call holds until its answer has ended.
struct Held {
    _permits: [OwnedSemaphorePermit; 2],
    _large: Large,
}

impl Watch for Held {
    fn frame(&mut self, _: Option<&Frame<Bytes>>) {}
}
