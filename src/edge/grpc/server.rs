//! The server: services, layers, health, reflection, and an orderly end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::middleware::{from_fn, from_fn_with_state, map_response};
use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::DESCRIPTORS;
use super::agent::AgentHandler;
use super::analysis::AnalysisHandler;
use super::auth::{Authentication, authenticate};
use super::deadline::DeadlineLayer;
use super::forwarded::note_caller;
use super::health::HealthService;
use super::health_pb::health_server::HealthServer;
use super::instances::InstanceHandler;
use super::lifetime::{Lifetimes, end_streams};
use super::limits::{CallLimits, limit_calls};
use super::listen::{Tls, connections};
use super::metrics::MetricsHandler;
use super::observe::{Observer, observe};
use super::optimization::OptimizationHandler;
use super::pb::agent_service_server::AgentServiceServer;
use super::pb::analysis_service_server::AnalysisServiceServer;
use super::pb::instance_service_server::InstanceServiceServer;
use super::pb::metrics_service_server::MetricsServiceServer;
use super::pb::optimization_service_server::OptimizationServiceServer;
use super::pb::webhook_service_server::WebhookServiceServer;
use super::pb::workflow_service_server::WorkflowServiceServer;
use super::ready::send_ready;
use super::spans::Spans;
use super::status::complete_details;
use super::tls::TlsFiles;
use super::webhook::WebhookHandler;
use super::workflow::WorkflowHandler;
use crate::agent::{Agent, LIMITS};
use crate::config::ServerConfig;
use crate::config::security::AuthConfig;
use crate::edge::audit::AuditLog;
use crate::edge::files::FileError;
use crate::edge::{http, webhook};
use crate::scrape::ClientError;

/// Why the server could not start or broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates, a key or credentials.
    #[error(transparent)]
    File(#[from] FileError),
    /// The transport.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The HTTP client that deliveries of webhooks are made with.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Our own descriptors.
    #[error("cannot describe the services: {0}")]
    Descriptors(String),
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    agent: Arc<Agent>,
    config: ServerConfig,
    authentication: Arc<Authentication>,
    tls: Tls,
    records: Records,
    listener: TcpListener,
    address: SocketAddr,
    stop: CancellationToken,
}

/// What is kept of calls beside logs and metrics.
#[derive(Debug, Default)]
struct Records {
    audit: Option<Arc<AuditLog>>,
    spans: Option<Arc<Spans>>,
}

/// Tells a server to stop.
#[derive(Debug, Clone)]
pub struct ServerHandle(CancellationToken);

impl ServerHandle {
    /// Begins the drain: NOT_SERVING, no new connections, streams ended, running calls finished.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// A server whose store does not answer is no place to send calls to, until it does again.
async fn serve_with_the_store(
    mut answers: watch::Receiver<bool>,
    serving: Arc<watch::Sender<bool>>,
    stop: CancellationToken,
) {
    loop {
        let is_there = *answers.borrow_and_update();
        serving.send_if_modified(|serving| {
            let is = is_there && !stop.is_cancelled();
            std::mem::replace(serving, is) != is
        });
        tokio::select! {
            () = stop.cancelled() => return,
            changed = answers.changed() => if changed.is_err() { return },
        }
    }
}

impl Server {
    /// Binds the configured address, reads certificates and credentials, and has the agent deliver what it owes webhooks.
    ///
    /// # Errors
    /// An address that cannot be had; a file that cannot be used.
    pub async fn bind(
        agent: Arc<Agent>,
        config: ServerConfig,
        auth: &AuthConfig,
    ) -> Result<Self, ServeError> {
        let authentication = Arc::new(Authentication::new(auth)?);
        let tls = TlsFiles::of(&config).map(TlsFiles::watched).transpose()?;
        let failed = |source| ServeError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        webhook::deliver(&agent)?;
        Ok(Self {
            agent,
            config,
            authentication,
            tls,
            records: Records::default(),
            listener,
            address,
            stop: CancellationToken::new(),
        })
    }

    /// Keeps an audit log of calls that change something.
    #[must_use]
    pub fn with_audit_log(mut self, audit: AuditLog) -> Self {
        self.records.audit = Some(Arc::new(audit));
        self
    }

    /// Sends each call as a span.
    #[must_use]
    pub fn with_spans(mut self, spans: Spans) -> Self {
        self.records.spans = Some(Arc::new(spans));
        self
    }

    /// The address, with the port that was given for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.stop.clone())
    }

    /// Serves until told to stop, then drains; at the end of the drain time whatever is left is cut.
    ///
    /// # Errors
    /// A transport that breaks.
    pub async fn serve(self) -> Result<(), ServeError> {
        let (serving, is_serving) = watch::channel(true);
        // lives until the end, so that watchers learn that they are drained and not that nobody tells them
        let serving = Arc::new(serving);
        let draining = CancellationToken::new();
        let endless = Arc::new(AtomicI64::new(0));
        let routes = routes(
            &self.agent,
            &self.config,
            self.authentication,
            self.records,
            is_serving,
            (draining.clone(), endless.clone()),
        )?;
        let metrics = self.agent.metrics().clone();
        let incoming = connections(self.listener, &self.config, self.tls, metrics);
        let stop = self.stop.clone();
        if let Some(answers) = self.agent.store_answers() {
            tokio::spawn(serve_with_the_store(
                answers,
                serving.clone(),
                self.stop.clone(),
            ));
        }
        let begin_drain = {
            let (draining, serving) = (draining.clone(), serving.clone());
            async move {
                stop.cancelled().await;
                tracing::info!("stopping: finishing running calls");
                // the receivers are the services, which live as long as the server
                let _ = serving.send(false);
                draining.cancel();
            }
        };
        let server = tonic::transport::Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(self.config.keepalive_interval))
            .http2_keepalive_timeout(Some(self.config.keepalive_timeout))
            .max_concurrent_streams(u32::try_from(LIMITS.streams_per_peer).ok())
            .layer(DeadlineLayer)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, begin_drain);
        let drain_timeout = self.config.drain_timeout;
        let hard_end = async {
            draining.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
        };
        // streams and connections whose other end does not read are not waited for
        let calls = self.agent.metrics().clone();
        let nothing_to_finish = async {
            draining.cancelled().await;
            let mut since = tokio::time::Instant::now();
            while since.elapsed() < STREAMS_END_WITHIN {
                tokio::time::sleep(STREAMS_END_WITHIN / 30).await;
                if calls.calls_in_flight.get() > endless.load(Ordering::Relaxed) {
                    since = tokio::time::Instant::now();
                }
            }
        };
        tokio::select! {
            served = server => served?,
            () = nothing_to_finish => tracing::info!("no call is left to finish: cutting what does not end"),
            () = hard_end => tracing::warn!("the drain time is over: cutting what is left"),
        }
        Ok(())
    }
}

/// Streams that were told to end have ended by then, if anybody reads them.
const STREAMS_END_WITHIN: Duration = Duration::from_secs(3);

/// Methods of the two reflection services, which are served from elsewhere.
pub(super) const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Methods whose streams do not end by themselves, beside those of reflection.
const ENDLESS: [&str; 5] = [
    "/grpc.health.v1.Health/Watch",
    "/perfagent.v1.AnalysisService/WatchBottlenecks",
    "/perfagent.v1.MetricsService/WatchMetrics",
    "/perfagent.v1.WorkflowService/WatchWorkflow",
    "/perfagent.v1.WorkflowService/WatchWorkflows",
];

/// Paths of everything that is served.
pub(super) fn served_paths(pool: &DescriptorPool) -> HashSet<String> {
    pool.services()
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            let methods: Vec<String> = service
                .methods()
                .map(|method| format!("/{name}/{}", method.name()))
                .collect();
            methods
        })
        .chain(REFLECTION.map(str::to_owned))
        .chain(http::PATHS.map(str::to_owned))
        .collect()
}

fn routes(
    agent: &Arc<Agent>,
    config: &ServerConfig,
    authentication: Arc<Authentication>,
    records: Records,
    serving: watch::Receiver<bool>,
    (draining, open): (CancellationToken, Arc<AtomicI64>),
) -> Result<Routes, ServeError> {
    let described = |error: String| ServeError::Descriptors(error);
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| described(error.to_string()))?;
    let own_services = pool
        .services()
        .map(|service| service.full_name().to_owned())
        .filter(|name| name.starts_with("perfagent."));
    let health = HealthService::new(own_services, serving.clone());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .map_err(|error| described(error.to_string()))?;
    let reflection_alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1alpha()
        .map_err(|error| described(error.to_string()))?;
    let metrics = MetricsServiceServer::new(MetricsHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let analysis = AnalysisServiceServer::new(AnalysisHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let optimization = OptimizationServiceServer::new(OptimizationHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let instances = InstanceServiceServer::new(InstanceHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let workflows = WorkflowServiceServer::new(WorkflowHandler {
        agent: agent.clone(),
        draining: draining.clone(),
    })
    .max_decoding_message_size(LIMITS.request_bytes)
    .max_encoding_message_size(LIMITS.response_bytes);
    let webhooks = WebhookServiceServer::new(WebhookHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let info = AgentServiceServer::new(AgentHandler(agent.clone()))
        .max_decoding_message_size(LIMITS.request_bytes)
        .max_encoding_message_size(LIMITS.response_bytes);
    let endless = REFLECTION.into_iter().chain(ENDLESS);
    let lifetimes = Lifetimes::new(
        endless,
        (config.stream_lifetime, config.stream_stall),
        draining,
        open,
    );
    let limits = Arc::new(CallLimits::new(config.max_calls, LIMITS.streams_per_peer));
    let observer = Arc::new(Observer {
        metrics: agent.metrics().clone(),
        methods: served_paths(&pool),
        audit: records.audit,
        spans: records.spans,
    });
    let router = Routes::new(metrics)
        .add_service(analysis)
        .add_service(optimization)
        .add_service(instances)
        .add_service(workflows)
        .add_service(webhooks)
        .add_service(info)
        .add_service(HealthServer::new(health))
        .add_service(reflection)
        .add_service(reflection_alpha)
        .into_axum_router()
        .merge(http::routes(agent.clone(), serving, &pool))
        // from the inside out
        .layer(map_response(send_ready))
        .layer(from_fn_with_state(Arc::new(lifetimes), end_streams))
        .layer(from_fn_with_state(limits, limit_calls))
        .layer(from_fn_with_state(authentication, authenticate))
        .layer(from_fn(complete_details))
        .layer(from_fn_with_state(
            Arc::new(config.hosts.clone()),
            http::guard_http1,
        ))
        .layer(from_fn_with_state(observer, observe))
        .layer(from_fn_with_state(
            Arc::new(config.trusted_proxies.clone()),
            note_caller,
        ));
    Ok(Routes::from(router))
}
