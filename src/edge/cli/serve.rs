//! `perfagent serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::check::warnings;
use super::terminal::complain;
use super::{ConfigSource, Outcome, store};
use crate::agent::Agent;
use crate::config::{Config, ConfigError};
use crate::edge::audit::AuditLog;
use crate::edge::grpc::{ServeError, Server, Spans};
use crate::telemetry::{LogFormat, LogLevel, init_logging};

/// Flags of `perfagent serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    source: ConfigSource,
    /// Address for gRPC, /metrics and /healthz [default: 127.0.0.1:8002]; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Listen beyond loopback without TLS
    #[arg(long)]
    insecure_listen: bool,
    /// Certificate chain for TLS (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates that sign those of clients (PEM); every client must then show one
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Who may call: the file that `perfagent token` writes; without it everybody may do everything
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// Directory for what the agent keeps [default: $XDG_STATE_HOME/perfagent, else ~/.local/state/perfagent]; one agent
    /// at a time. With --store-url only the audit log and checks of actuators are there
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Keep it in a PostgreSQL that other agents may share: postgres://user@host:5432/database, without a password
    #[arg(long, value_name = "URL")]
    store_url: Option<String>,
    /// File with the password for it
    #[arg(long, value_name = "FILE", requires = "store_url")]
    store_password_file: Option<PathBuf>,
    /// Threads that work [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Tell an OpenTelemetry collector of each call, by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// How logs are written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// How much is logged; RUST_LOG wins
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    log_level: LogLevel,
}

/// What the flags, the variables and the file come to.
pub(super) fn configured(args: ServeArgs) -> Result<Config, ConfigError> {
    init_logging(args.log_format, args.log_level);
    let mut config = args.source.load()?;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    config.server.insecure_listen |= args.insecure_listen;
    for (key, flag) in [
        (&mut config.server.tls_cert, args.tls_cert),
        (&mut config.server.tls_key, args.tls_key),
        (&mut config.server.tls_client_ca, args.tls_client_ca),
        (&mut config.auth.credentials_file, args.credentials_file),
        (&mut config.store.state_dir, args.state_dir),
    ] {
        if flag.is_some() {
            *key = flag;
        }
    }
    if args.store_url.is_some() {
        config.store.url = args.store_url;
        config.store.password_file = args.store_password_file;
        config.store.listen_url = None;
    }
    config.server.workers = args.workers.or(config.server.workers);
    config.server.otlp_endpoint = args.otlp_endpoint.or(config.server.otlp_endpoint);
    config.check()?;
    Ok(config)
}

pub(super) async fn run(config: Config) -> Outcome {
    match serve(config).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            let hint = match error.downcast_ref() {
                Some(ServeError::Listen { .. }) => Some(
                    "stop what listens there, or give another --listen, such as 127.0.0.1:8003",
                ),
                _ => None,
            };
            complain(&error.to_string(), hint);
            match error.downcast_ref() {
                Some(ServeError::File(_)) => Outcome::Usage,
                _ => Outcome::Failed,
            }
        }
    }
}

async fn serve(mut config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    raise_file_limit();
    let opened = store::open(&config).await?;
    let state_dir = &opened.state_dir;
    // what is known of checks of actuators is there too
    config.store.state_dir = Some(state_dir.clone());
    let agent = Agent::start(&config, opened.store.clone()).await?;
    let warnings = warnings(&config);
    let server = Server::bind(agent.clone(), config.server.clone(), &config.auth).await?;
    let mut server = server.with_audit_log(AuditLog::open(state_dir)?);
    if let Some(endpoint) = &config.server.otlp_endpoint {
        server = server.with_spans(Spans::to(endpoint)?);
    }
    let handle = server.handle();
    let address = server.address();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        instances = agent.watched_instances(),
        state_dir = %state_dir.display(),
        // where several share a store
        agent_id = agent.info().sharing.map(|(agent_id, _)| agent_id),
        "listening on {address}"
    );
    let stops = Arc::downgrade(&agent);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.stop();
        // while callers are still answered, others take over
        if let Some(stops) = stops.upgrade() {
            stops.stop().await;
        }
    });
    let served = server.serve().await;
    agent.stop().await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// Each connection takes a file descriptor, and so does each scrape: as many as this user may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
