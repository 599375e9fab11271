//! From a listening socket to connections that are worth serving: within their number, with their TLS handshake done,
//! and dropped when nothing comes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;

use super::connection::{Connection, Peer, Transport};
use crate::auth::Digest;
use crate::config::ServerConfig;
use crate::edge::files::Reloaded;
use crate::telemetry::Metrics;

/// TLS in force, if any.
pub(super) type Tls = Option<Reloaded<Arc<rustls::ServerConfig>>>;

/// How long a new connection may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For its TLS handshake.
    handshake: Duration,
    /// For the first bytes of a request.
    opening: Duration,
}

const PATIENCE: Patience = Patience {
    handshake: Duration::from_secs(10),
    opening: Duration::from_secs(30),
};

/// One address has at most one part in this many of all connections.
const PEER_PART: usize = 4;
/// And may have this many, if there are as many: a proxy speaks for others.
const PEER_LEAST: usize = 1_000;
/// Above this many addresses those without connections are forgotten.
const PEERS_KEPT: usize = 1_024;

/// Before the next try after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are worth serving.
pub(super) fn connections(
    listener: TcpListener,
    config: &ServerConfig,
    tls: Tls,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    with_patience(listener, config, tls, metrics, PATIENCE)
}

fn with_patience(
    listener: TcpListener,
    config: &ServerConfig,
    tls: Tls,
    metrics: Arc<Metrics>,
    patience: Patience,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    // What the server's builder says of nodelay and TCP keepalive is ignored with an incoming stream, so it is said
    // here; without nodelay answers wait 40 ms for an acknowledgement.
    let incoming = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        // TCP counts in seconds
        .with_keepalive(Some(config.keepalive_interval.max(Duration::from_secs(1))));
    let door = Door {
        incoming,
        tls,
        places: Arc::new(Semaphore::new(config.max_connections)),
        of_peers: HashMap::new(),
        max_connections: config.max_connections,
        handshakes: JoinSet::new(),
        metrics,
        patience,
        told_full: None,
    };
    futures_util::stream::unfold(door, |mut door| async move {
        let next = door.next().await?;
        Some((next, door))
    })
}

struct Door {
    incoming: TcpIncoming,
    tls: Tls,
    places: Arc<Semaphore>,
    of_peers: HashMap<IpAddr, Arc<Semaphore>>,
    max_connections: usize,
    handshakes: JoinSet<Option<Connection>>,
    metrics: Arc<Metrics>,
    patience: Patience,
    /// When it was last logged that there is no room.
    told_full: Option<Instant>,
}

impl Door {
    async fn next(&mut self) -> Option<io::Result<Connection>> {
        loop {
            tokio::select! {
                accepted = self.incoming.next() => match accepted? {
                    Ok(stream) => {
                        if let Some(connection) = self.admit(stream) {
                            return Some(Ok(connection));
                        }
                    }
                    Err(error) => {
                        // without descriptors left the accept fails again at once, and would take a core
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        return Some(Err(error));
                    }
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return Some(Ok(connection));
                    }
                }
            }
        }
    }

    /// A connection in the clear, at once; with TLS, later, when its handshake is done.
    fn admit(&mut self, stream: TcpStream) -> Option<Connection> {
        // on a socket of both kinds IPv4 comes as IPv6, and would be another peer
        let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port()).into();
        let address = stream.peer_addr().ok().map(canonical);
        let of_peer = self.of_peer(address).try_acquire_owned();
        let of_all = self.places.clone().try_acquire_owned();
        let (Ok(of_peer), Ok(of_all)) = (of_peer, of_all) else {
            self.turn_away(address);
            return None;
        };
        let place = Place::new([of_peer, of_all], self.metrics.clone());
        let patience = self.patience;
        let Some(tls) = &self.tls else {
            let peer = Peer {
                address,
                forwarded_for: None,
                certificate: None,
            };
            let transport = Transport::Plain(stream);
            return Some(Connection::new(transport, peer, place, patience.opening));
        };
        let acceptor = TlsAcceptor::from(tls.current().as_ref().clone());
        let metrics = self.metrics.clone();
        self.handshakes.spawn(async move {
            let failed = match timeout(patience.handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let (_, session) = stream.get_ref();
                    let leaf = session.peer_certificates().and_then(<[_]>::first);
                    let peer = Peer {
                        address,
                        forwarded_for: None,
                        certificate: leaf.map(|der| Digest::of(der)),
                    };
                    let transport = Transport::Tls(Box::new(stream));
                    return Some(Connection::new(transport, peer, place, patience.opening));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            metrics.connection_refused("tls_handshake");
            tracing::debug!(peer = ?address, "no TLS session: {failed}");
            None
        });
        None
    }

    /// The places of one address, so that one alone does not take all.
    fn of_peer(&mut self, address: Option<SocketAddr>) -> Arc<Semaphore> {
        let address = address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        if self.of_peers.len() >= PEERS_KEPT {
            // one of the references is the map's own
            self.of_peers
                .retain(|_, places| Arc::strong_count(places) > 1);
        }
        let part = (self.max_connections / PEER_PART).max(PEER_LEAST);
        let most = part.min(self.max_connections);
        let places = self.of_peers.entry(address);
        places
            .or_insert_with(|| Arc::new(Semaphore::new(most)))
            .clone()
    }

    fn turn_away(&mut self, address: Option<SocketAddr>) {
        const BETWEEN_LINES: Duration = Duration::from_secs(10);
        self.metrics.connection_refused("max_connections");
        if self.told_full.is_none_or(|at| at.elapsed() > BETWEEN_LINES) {
            self.told_full = Some(Instant::now());
            tracing::warn!(
                peer = ?address,
                "of {} connections (server.max_connections) no more are taken, or this address has its part",
                self.max_connections
            );
        }
    }
}

/// A connection's place among those that there may be.
#[derive(Debug)]
pub(super) struct Place {
    _permits: [OwnedSemaphorePermit; 2],
    metrics: Arc<Metrics>,
}

impl Place {
    fn new(permits: [OwnedSemaphorePermit; 2], metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self {
            _permits: permits,
            metrics,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::edge::grpc::tls::TlsFiles;
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Patience = Patience {
        handshake: Duration::from_millis(50),
        opening: Duration::from_millis(50),
    };

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn accepted_connections_send_at_once_and_notice_dead_peers() {
        let (listener, address) = listener().await;
        let config = ServerConfig::default();
        let mut incoming = Box::pin(connections(listener, &config, None, Arc::default()));
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = incoming.next().await.unwrap().unwrap();
        let stream = accepted.plain().unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(socket2::SockRef::from(stream).keepalive().unwrap());
        drop(client);
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_a_request_does_not() {
        let (listener, address) = listener().await;
        let config = ServerConfig::default();
        let incoming = with_patience(listener, &config, None, Arc::default(), SHORT);
        let mut incoming = Box::pin(incoming);
        // nothing at all, or a beginning that has no end
        for sent in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent).await.unwrap();
            let mut accepted = incoming.next().await.unwrap().unwrap();
            let mut got = Vec::new();
            let error = accepted.read_to_end(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(got, sent);
        }
        // a request: from there on the protocols keep watch themselves
        for sent in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HT"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent).await.unwrap();
            let mut accepted = incoming.next().await.unwrap().unwrap();
            let mut got = vec![0; sent.len()];
            accepted.read_exact(&mut got).await.unwrap();
            assert!(!accepted.is_opening());
        }
    }

    #[tokio::test]
    async fn beyond_the_bound_connections_are_closed_and_counted() {
        let (listener, address) = listener().await;
        let config = ServerConfig {
            max_connections: 1,
            ..ServerConfig::default()
        };
        let metrics: Arc<Metrics> = Arc::default();
        let incoming = connections(listener, &config, None, metrics.clone());
        let mut incoming = Box::pin(incoming);
        let _first = TcpStream::connect(address).await.unwrap();
        let held = incoming.next().await.unwrap().unwrap();
        assert_eq!(metrics.connections.get(), 1);
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            closed = second.read(&mut byte) => assert_eq!(closed.unwrap_or(0), 0),
            _ = incoming.next() => panic!("it was let in"),
        }
        let text = metrics.render(&Registry::default());
        let line = "perfagent_connections_refused_total{reason=\"max_connections\"} 1";
        assert!(text.contains(line), "{text}");
        drop(held);
        assert_eq!(metrics.connections.get(), 0);
        let _third = TcpStream::connect(address).await.unwrap();
        incoming.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_handshake_that_does_not_go_on_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (directory.path().join("cert"), directory.path().join("key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let config = ServerConfig {
            tls_cert: Some(cert),
            tls_key: Some(key),
            ..ServerConfig::default()
        };
        let tls = TlsFiles::of(&config).unwrap().watched().unwrap();
        let metrics: Arc<Metrics> = Arc::default();
        let (listener, address) = listener().await;
        let incoming = with_patience(listener, &config, Some(tls), metrics.clone(), SHORT);
        let mut incoming = Box::pin(incoming);
        let mut client = TcpStream::connect(address).await.unwrap();
        // the head of a client's hello
        client.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        let mut got = Vec::new();
        tokio::select! {
            // by a reset where it had not read everything
            _ = client.read_to_end(&mut got) => {}
            _ = incoming.next() => panic!("that is no session"),
        }
        let text = metrics.render(&Registry::default());
        let line = "perfagent_connections_refused_total{reason=\"tls_handshake\"} 1";
        assert!(text.contains(line), "{text}");
        assert_eq!(metrics.connections.get(), 0);
    }
}
