//! Simulated replicas behind ports of their own, answering as their engine does.
//!
//! Time runs by the clock, or faster; then every value says at which time of the simulation it was true. A replica is
//! moved on at each request and ten times a second, never for longer than half of the time.

mod settings;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};

use crate::simulator::{
    Deployment, IncidentError, Replica, ReplicaSettings, ScenarioError, engine_name,
};

/// Replicas that are simulated, each on its port.
#[derive(Debug)]
pub struct Simulated {
    replicas: Vec<(TcpListener, Arc<Served>)>,
}

/// Why nothing is simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A port that cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// More replicas than ports.
    #[error("there are no {replicas} ports from {port} on")]
    Ports {
        /// The first port.
        port: u16,
        /// How many are wanted.
        replicas: u32,
    },
    /// A deployment that cannot be.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A server that failed.
    #[error(transparent)]
    Serve(#[from] tonic::transport::Error),
}

/// One replica and its clock.
#[derive(Debug)]
struct Served {
    number: u32,
    replica: Mutex<Replica>,
    start: Instant,
    deployment: Arc<Deployment>,
    lags: AtomicBool,
    settings: Mutex<ReplicaSettings>,
    /// How long it loads when its settings change, by the clock.
    load_millis: AtomicU64,
}

/// How a replica is, for those who watch.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// Seconds of the simulation since the start.
    pub seconds: f64,
    /// Whether it answers.
    pub up: bool,
    /// Requests that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// It is not computed as fast as it should run.
    pub lags: bool,
}

/// How long a replica loads when its settings change, where nothing is said.
pub const LOAD_TIME: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
/// Of the clock, for one move.
const MOST: Duration = Duration::from_millis(50);
/// Of the simulation, between two looks at the clock.
const SLICE_SECONDS: f64 = 0.1;
/// Of the clock: so far behind is no jitter.
const LAG_SECONDS: f64 = 1.0;
/// Settings of 256 KiB in base64 fit.
const MOST_BODY: usize = 512 << 10;

impl Simulated {
    /// Takes a port for each replica, this one and those after it; 0 takes free ones.
    ///
    /// # Errors
    /// Ports that cannot be had, a deployment that cannot be.
    pub async fn bind(
        deployment: Deployment,
        host: IpAddr,
        port: u16,
    ) -> Result<Self, SimulateError> {
        let deployment = Arc::new(deployment);
        let start_unix_seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |age| age.as_secs_f64());
        let start = Instant::now();
        let mut replicas = Vec::new();
        for number in 0..deployment.replicas {
            let port = match port {
                0 => 0,
                port => u16::try_from(number)
                    .ok()
                    .and_then(|number| port.checked_add(number))
                    .ok_or(SimulateError::Ports {
                        port,
                        replicas: deployment.replicas,
                    })?,
            };
            let address = SocketAddr::new(host, port);
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| SimulateError::Listen { address, source })?;
            let replica = Mutex::new(Replica::new(&deployment, number, start_unix_seconds)?);
            let deployment = deployment.clone();
            let settings = ReplicaSettings::of(&deployment.flags, deployment.engine);
            let served = Served {
                number,
                replica,
                start,
                deployment,
                lags: AtomicBool::new(false),
                settings: Mutex::new(settings),
                load_millis: AtomicU64::new(0),
            };
            replicas.push((listener, Arc::new(served)));
        }
        let simulated = Self { replicas };
        simulated.load_for(LOAD_TIME);
        Ok(simulated)
    }

    /// How long replicas load when their settings change, by the clock.
    pub fn load_for(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (_, served) in &self.replicas {
            served.load_millis.store(millis, Ordering::Relaxed);
        }
    }

    /// Where each replica's metrics are.
    pub fn urls(&self) -> Vec<String> {
        let addresses = self
            .replicas
            .iter()
            .filter_map(|(listener, _)| listener.local_addr().ok());
        addresses
            .map(|address| format!("http://{address}/metrics"))
            .collect()
    }

    /// Somebody who can look at the replicas while they are served.
    pub fn watcher(&self) -> impl Fn() -> Vec<Glance> + Send + use<> {
        let replicas: Vec<Arc<Served>> = self
            .replicas
            .iter()
            .map(|(_, served)| served.clone())
            .collect();
        move || replicas.iter().map(|served| served.glance()).collect()
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// A server that failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), SimulateError> {
        let mut servers = tokio::task::JoinSet::new();
        for (listener, served) in self.replicas {
            let (stop, moved) = (stop.clone(), served.clone());
            servers.spawn(async move {
                let router = Router::new().fallback(answer).with_state(served);
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let server = tonic::transport::Server::builder()
                    .accept_http1(true)
                    .add_routes(Routes::from(router))
                    .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
                let result = tokio::select! {
                    result = server => result,
                    () = moved.keep_moving() => Ok(()),
                    // a connection that stays open does not hold the end up
                    () = stop.cancelled() => Ok(()),
                };
                stop.cancel();
                result
            });
        }
        let mut result = Ok(());
        while let Some(ended) = servers.join_next().await {
            if let Ok(Err(error)) = ended {
                result = Err(SimulateError::Serve(error));
            }
        }
        result
    }
}

impl Served {
    async fn keep_moving(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            drop(self.moved());
        }
    }

    /// The replica at the time that it is there.
    fn moved(&self) -> MutexGuard<'_, Replica> {
        // it is as it was after the last slice, whoever panicked
        let mut replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let speed = self.deployment.speed;
        let now = begun.duration_since(self.start).as_secs_f64() * speed;
        while replica.reached() < now && begun.elapsed() < MOST {
            let next = (replica.reached() + SLICE_SECONDS).min(now);
            replica.run_until(next);
        }
        self.lags.store(
            now - replica.reached() > LAG_SECONDS * speed,
            Ordering::Relaxed,
        );
        replica
    }

    fn load_seconds(&self) -> f64 {
        let millis = self.load_millis.load(Ordering::Relaxed);
        Duration::from_millis(millis).as_secs_f64()
    }

    fn glance(&self) -> Glance {
        let replica = self.moved();
        let gauges = replica.gauges();
        Glance {
            seconds: replica.reached(),
            up: replica.is_up(),
            running: gauges.running,
            waiting: gauges.waiting + gauges.deferred,
            lags: self.lags.load(Ordering::Relaxed),
        }
    }

    /// How it is, for programs.
    fn state(&self, replica: &Replica) -> Value {
        let faults = replica.faults();
        let gauges = replica.gauges();
        let flags: Map<String, Value> = replica
            .flags()
            .iter()
            .map(|(name, value)| (name.replace('-', "_"), json!(value)))
            .collect();
        json!({
            "simulated": true,
            "engine": engine_name(self.deployment.engine),
            "replica": self.number,
            "replicas": self.deployment.replicas,
            "speed": self.deployment.speed,
            "seconds": replica.reached(),
            "unix_seconds": replica.now_unix_seconds(),
            "lags": self.lags.load(Ordering::Relaxed),
            "up": replica.is_up(),
            "restarts": replica.restarts(),
            "settings": flags,
            "faults": {
                "stalled": faults.stalled,
                "slowness": faults.slowness,
                "failure_ratio": faults.failure_ratio,
            },
            "requests_running": gauges.running,
            "requests_waiting": gauges.waiting + gauges.deferred,
            "requests_deferred": gauges.deferred,
            "takes_requests": replica.takes_requests(),
            "cause": self.deployment.cause,
        })
    }
}

async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/simulator" || path.starts_with("/simulator/") || path.starts_with("/control/") {
        return control(&served, request).await;
    }
    let replica = served.moved();
    if !replica.is_up() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the engine loads\n").into_response();
    }
    match path {
        "/metrics" => {
            let stamped = served.deployment.speed != 1.0;
            (
                [(CONTENT_TYPE, replica.content_type())],
                replica.metrics(stamped),
            )
                .into_response()
        }
        "/health" => StatusCode::OK.into_response(),
        path => match replica.answer(path, request.uri().query()) {
            Some(value) => json_of(StatusCode::OK, &value),
            None => json_of(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" })),
        },
    }
}

fn json_of(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [(CONTENT_TYPE, "application/json")],
        format!("{value}\n"),
    )
        .into_response()
}

fn refused(status: StatusCode, message: &str) -> Response {
    json_of(status, &json!({ "error": message }))
}

/// Faults, restarts and settings, for callers on the same machine.
async fn control(served: &Served, request: Request) -> Response {
    let peer = request
        .extensions()
        .get::<TcpConnectInfo>()
        .and_then(TcpConnectInfo::remote_addr);
    // a page in a browser says where it is from
    if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
        || request.headers().contains_key(ORIGIN)
    {
        return refused(StatusCode::FORBIDDEN, "answered only on the machine itself");
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match path.as_str() {
        settings::PATH => return settings::answer(served, request).await,
        settings::ROUTE_PATH => return settings::route(served, request).await,
        _ => {}
    }
    let result = match (&method, path.as_str()) {
        (&Method::GET, "/simulator") => Ok(()),
        (&Method::POST, "/simulator/faults") => match read(request).await {
            Ok(change) => served.moved().change_faults(change),
            Err(response) => return response,
        },
        (&Method::POST, "/simulator/restart") => match read(request).await {
            Ok(how) => served.moved().restart(&how),
            Err(response) => return response,
        },
        _ => {
            let known =
                "GET /simulator, POST /simulator/faults and POST /simulator/restart are answered";
            return refused(StatusCode::NOT_FOUND, known);
        }
    };
    match result {
        Ok(()) => json_of(StatusCode::OK, &served.state(&served.moved())),
        Err(error) => refused(StatusCode::BAD_REQUEST, &IncidentError::to_string(&error)),
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    let bad = |message: String| refused(StatusCode::BAD_REQUEST, &message);
    let body = axum::body::to_bytes(request.into_body(), MOST_BODY)
        .await
        .map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}
