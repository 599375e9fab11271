//! `perfagent serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::check::warnings;
use super::terminal::complain;
use super::{ConfigSource, Outcome};
use crate::agent::Agent;
use crate::edge::grpc::{ServeError, Server};
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
        for (key, flag) in [
            (&mut config.server.tls_cert, args.tls_cert),
            (&mut config.server.tls_key, args.tls_key),
            (&mut config.server.tls_client_ca, args.tls_client_ca),
            (&mut config.auth.credentials_file, args.credentials_file),
        ] {
            if flag.is_some() {
                *key = flag;
            }
        }
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
            match error.downcast_ref() {
                Some(ServeError::File(_)) => Outcome::Usage,
                _ => Outcome::Failed,
            }
        }
    }
}

async fn serve(config: crate::config::Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let agent = Arc::new(Agent::new(&config)?);
    let warnings = warnings(&config);
    let server = Server::bind(agent, config.server, &config.auth).await?;
    let handle = server.handle();
    let address = server.address();
    for warning in warnings {
        tracing::warn!("{warning}");
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
