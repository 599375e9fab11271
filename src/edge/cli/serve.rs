//! `perfagent serve`

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::complain;
use super::{ConfigSource, Outcome};
use crate::agent::Agent;
use crate::edge::grpc::Server;
use crate::store::{SqliteStore, default_state_dir};
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
    /// How logs are written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// How much is logged; RUST_LOG wins
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    log_level: LogLevel,
}

pub(super) async fn run(args: ServeArgs) -> Outcome {
    init_logging(args.log_format, args.log_level);
    let config = args.source.load().and_then(|mut config| {
        if let Some(listen) = args.listen {
            config.server.listen = listen;
        }
        config.server.insecure_listen |= args.insecure_listen;
        config.check().map(|()| config)
    });
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string(), None);
            return Outcome::Usage;
        }
    };
    match serve(config).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            complain(&error.to_string(), None);
            Outcome::Failed
        }
    }
}

async fn serve(config: crate::config::Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let state_dir = match &config.store.state_dir {
        Some(path) => path.clone(),
        None => default_state_dir(|name| std::env::var(name).ok())?,
    };
    let store = Arc::new(SqliteStore::open(&state_dir).await?);
    let agent = Arc::new(Agent::start(&config, store).await?);
    let server = Server::bind(agent, config.server).await?;
    let handle = server.handle();
    let address = server.address();
    if !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is reachable from other machines, and calls to it are not encrypted"
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "listening on {address}"
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.stop();
    });
    server.serve().await?;
    tracing::info!("stopped");
    Ok(())
}
