//! Reaching an agent over gRPC: one set of flags for all commands that do, and errors that say what to change.

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::terminal::{clean, note};
use super::transport::{Noticed, Problem, connector};
use super::{Failure, Outcome};
use crate::edge::files::{is_open_to_all, read_text};
use crate::edge::grpc::tls::{certificates, private_key};
use crate::optimization::quote;

/// How to reach an agent.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Agent")]
pub(super) struct ConnectArgs {
    /// Agent to ask: HOST:PORT, http://HOST:PORT or https://HOST:PORT [env: PERFAGENT_SERVER] [default: 127.0.0.1:8002]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) server: Option<String>,
    /// Certificates to trust instead of the system's (PEM); HOST:PORT then means https
    #[arg(long, env = "PERFAGENT_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Certificate to show to the agent (PEM)
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// File with the token to send; else PERFAGENT_TOKEN is sent. No flag takes the token itself: `ps` would show it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What calls go through.
pub(super) type AgentChannel = InterceptedService<Channel, SendToken>;

/// An agent that can be called.
#[derive(Debug)]
pub(super) struct ConnectedAgent {
    channel: Channel,
    token: SendToken,
    server: String,
    noticed: Noticed,
}

/// Adds the token to each call.
#[derive(Debug, Clone)]
pub(super) struct SendToken(Option<MetadataValue<Ascii>>);

impl Interceptor for SendToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl ConnectArgs {
    /// Connects.
    ///
    /// # Errors
    /// Flags that make no sense; an agent that cannot be reached or trusted.
    pub(super) async fn connect(&self) -> Result<ConnectedAgent, Failure> {
        let uri = self.uri()?;
        let is_tls = uri.scheme_str() == Some("https");
        let token = self.token()?;
        if token.0.is_some() && !is_tls && !is_loopback(&uri) {
            note(
                "warning",
                "the token crosses the network in the clear; https would protect it",
            );
        }
        let server = uri
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let noticed = Noticed::default();
        let tls = if is_tls { Some(self.tls()?) } else { None };
        // tonic does the TLS of https itself; ours says what is wrong with it
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .map_err(|error| Failure::new(Outcome::Usage, error.to_string(), None))?
            .origin(uri)
            .connect_timeout(CONNECT_TIMEOUT);
        let connector = connector(tls, noticed.clone());
        let connected = endpoint.connect_with_connector(connector).await;
        match connected {
            Ok(channel) => Ok(ConnectedAgent {
                channel,
                token,
                server,
                noticed,
            }),
            Err(error) => Err(match noticed.get() {
                Some(problem) => described(problem, &server),
                None => Failure::new(
                    Outcome::Failed,
                    format!("cannot reach an agent at {server}: {}", root_of(&error)),
                    Some("start one with `perfagent serve`, and give its address as HOST:PORT"),
                ),
            }),
        }
    }

    /// What another command needs behind it to reach the same agent: ` --server ADDRESS`, or nothing.
    pub(super) fn as_flag(&self) -> String {
        self.named().map_or_else(String::new, |server| {
            format!(" --server {}", quote(&clean(&server)))
        })
    }

    fn named(&self) -> Option<String> {
        self.server.clone().or_else(|| {
            let variable = std::env::var("PERFAGENT_SERVER").ok();
            variable.filter(|text| !text.is_empty())
        })
    }

    fn uri(&self) -> Result<Uri, Failure> {
        const DEFAULT: &str = "127.0.0.1:8002";
        let given = self.named();
        let given = given.as_deref().unwrap_or(DEFAULT).trim_end_matches('/');
        let uri = if given.contains("://") {
            given.to_owned()
        } else {
            let tls = self.ca_cert.is_some() || self.client_cert.is_some();
            format!("{}://{given}", if tls { "https" } else { "http" })
        };
        let wrong = |text: &str| {
            let text = format!("{given} is no address of an agent: {text}");
            Failure::new(Outcome::Usage, text, Some("give --server as HOST:PORT"))
        };
        let uri: Uri = uri.parse().map_err(|_| wrong("it cannot be read"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.client_cert.is_none() => {}
            Some("http") => return Err(wrong("--client-cert needs https")),
            _ => return Err(wrong("it must begin with http:// or https://")),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        if uri.port().is_none() {
            return Err(wrong("it has no port"));
        }
        Ok(uri)
    }

    fn token(&self) -> Result<SendToken, Failure> {
        let text = match &self.token_file {
            Some(path) => {
                warn_if_open(path);
                Some(read_text(path).map_err(unreadable)?)
            }
            None => std::env::var("PERFAGENT_TOKEN").ok(),
        };
        let text = text
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let Some(text) = text else {
            return match self.token_file {
                Some(_) => Err(Failure::new(
                    Outcome::Usage,
                    "the token file is empty",
                    None,
                )),
                None => Ok(SendToken(None)),
            };
        };
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| {
            let text = "the token has characters that no token has";
            Failure::new(
                Outcome::Usage,
                text,
                Some("it is one line, as `perfagent token create` printed it"),
            )
        })?;
        // not shown by Debug, nor kept in tables of header compression
        value.set_sensitive(true);
        Ok(SendToken(Some(value)))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Failure> {
        let unusable = |path: &Path, error: rustls::Error| {
            let text = format!("{}: {error}", path.display());
            Failure::new(Outcome::Usage, text, None)
        };
        let mut roots = RootCertStore::empty();
        match &self.ca_cert {
            Some(path) => {
                for certificate in certificates(path).map_err(unreadable)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| unusable(path, error))?;
                }
            }
            None => {
                // what of the system's cannot be read is not trusted
                let found = rustls_native_certs::load_native_certs().certs;
                roots.add_parsable_certificates(found);
            }
        }
        if roots.is_empty() {
            let text = "this system has no certificates to trust";
            let hint = Some("give the certificate of who signed the agent's with --ca-cert");
            return Err(Failure::new(Outcome::Usage, text, hint));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Outcome::Failed, error.to_string(), None))?
            .with_root_certificates(roots);
        let mut config = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                warn_if_open(key);
                let chain = certificates(cert).map_err(unreadable)?;
                let secret = private_key(key).map_err(unreadable)?;
                let with_pair = builder.with_client_auth_cert(chain, secret);
                with_pair.map_err(|error| unusable(key, error))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ConnectedAgent {
    /// For a generated client.
    pub(super) fn channel(&self) -> AgentChannel {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }

    /// What a failed call says about the way to the agent; none where it was the agent that answered with an error of
    /// its own.
    pub(super) fn explain(&self, status: &Status) -> Option<Failure> {
        let server = &self.server;
        let failed =
            |text: String, hint: &str| Some(Failure::new(Outcome::Failed, text, Some(hint)));
        if let Some(problem) = self.noticed.get() {
            return Some(described(problem, server));
        }
        let broke = matches!(
            status.code(),
            Code::Unknown | Code::Cancelled | Code::Unavailable | Code::Internal
        );
        // an agent's own errors carry details
        if broke && status.details().is_empty() {
            return failed(
                format!("the call to {server} broke off: {}", status.message()),
                "see the agent's log; it may be gone, or want https:// or a client certificate",
            );
        }
        if status.code() != Code::Unauthenticated {
            return None;
        }
        match &self.token.0 {
            None => failed(
                format!("the agent at {server} wants to know who calls"),
                "set PERFAGENT_TOKEN or --token-file to a token made with `perfagent token create`",
            ),
            Some(_) => failed(
                format!("the agent at {server} does not know this token"),
                "it may have been revoked, or be for another agent",
            ),
        }
    }
}

fn described(problem: &Problem, server: &str) -> Failure {
    let (text, hint) = match problem {
        Problem::SpeaksTls => (
            format!("{server} speaks TLS, and was called without it"),
            "give --server with https:// before it",
        ),
        Problem::SpeaksHttp1 => (
            format!("{server} does not speak HTTP/2, so it is no agent"),
            "give the address that `perfagent serve` logs",
        ),
        Problem::Tls(error) => {
            let (problem, hint) = tls_problem(error);
            (format!("no TLS session with {server}: {problem}"), hint)
        }
    };
    Failure::new(Outcome::Failed, text, Some(hint))
}

fn tls_problem(error: &rustls::Error) -> (String, &'static str) {
    use rustls::{AlertDescription as Alert, CertificateError, Error as Tls};
    match error {
        // a signature that is bad is one of another issuer of the same name
        Tls::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            "its certificate is not signed by anybody who is trusted here".to_owned(),
            "give the certificate of who signed it with --ca-cert",
        ),
        Tls::InvalidCertificate(problem) => (
            format!("its certificate is not to be trusted: {problem}"),
            "call it by a name of its certificate, or renew that",
        ),
        Tls::InvalidMessage(_) => (
            "it does not speak TLS".to_owned(),
            "give --server with http:// before it",
        ),
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::DecryptError,
        ) => (
            "it takes only clients whose certificate it trusts".to_owned(),
            "give --client-cert and --client-key that its client CA has signed",
        ),
        other => (
            other.to_string(),
            "see the agent's log, with --log-level debug",
        ),
    }
}

fn root_of(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn unreadable(error: crate::edge::FileError) -> Failure {
    Failure::new(Outcome::Usage, error.to_string(), None)
}

fn warn_if_open(path: &Path) {
    if is_open_to_all(path) {
        let path = path.display();
        note(
            "warning",
            &format!("every user of this machine can read or change {path}; run chmod 600"),
        );
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
