//! TLS and mTLS, over the wire.

use std::sync::Arc;
use std::time::Duration;

use perfagent::auth::{Proof, Role};
use perfagent::edge::grpc::pb::GetAgentInfoRequest;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};

use crate::access::with_token;
use crate::fake::TestAgent;
use crate::pki::{Authority, Files, Pair};

async fn connect(
    agent: &TestAgent,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", agent.address.port()));
    endpoint.unwrap().tls_config(tls)?.connect().await
}

/// Whether a call gets through.
async fn reaches(agent: &TestAgent, tls: ClientTlsConfig) -> bool {
    let Ok(channel) = connect(agent, tls).await else {
        return false;
    };
    let mut client = AgentServiceClient::new(channel);
    client.get_agent_info(GetAgentInfoRequest {}).await.is_ok()
}

fn identity(pair: &Pair) -> Identity {
    Identity::from_pem(&pair.cert, &pair.key)
}

/// A TLS session by hand; fails where the handshake does.
async fn session(
    agent: &TestAgent,
    authority: &Authority,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(agent.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_reaches_whom_it_trusts_and_nobody_in_the_clear() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    let agent = TestAgent::with(|config| files.with_tls(config)).await;
    assert!(reaches(&agent, authority.client()).await);
    assert!(!reaches(&agent, other.client()).await);
    assert!(!reaches(&agent, authority.client().domain_name("elsewhere")).await);
    let plain = Endpoint::from_shared(format!("http://{}", agent.address)).unwrap();
    let mut client = AgentServiceClient::new(plain.connect().await.unwrap());
    client
        .get_agent_info(GetAgentInfoRequest {})
        .await
        .unwrap_err();
}

#[tokio::test]
async fn http1_over_tls_reaches_metrics() {
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    let token = files.token("prometheus", Role::Viewer);
    let agent = TestAgent::with(|config| {
        files.with_tls(config);
        files.with_credentials(config);
    })
    .await;
    // as curl and Prometheus offer it, and as a client that knows no ALPN
    let offers: [&[&[u8]]; 2] = [&[b"http/1.1"], &[]];
    for offer in offers {
        let mut stream = session(&agent, &authority, offer).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), offer.first().copied());
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            token.expose()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("perfagent_connections 1"), "{answer}");
    }
    // the server chooses, and likes HTTP/2 better
    let both = session(&agent, &authority, &[b"http/1.1", b"h2"])
        .await
        .unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // a protocol that is not ours is no session
    session(&agent, &authority, &[b"spdy/1"]).await.unwrap_err();
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_get_in() {
    let (servers, clients, other) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("other"),
    );
    let files = Files::new();
    files.write_pair(&servers.sign("localhost"));
    let agent = TestAgent::with(|config| {
        files.with_tls(config);
        files.with_client_ca(config, &clients);
    })
    .await;
    let ours = clients.sign("client");
    assert!(reaches(&agent, servers.client().identity(identity(&ours))).await);
    assert!(!reaches(&agent, servers.client()).await);
    let foreign = other.sign("client");
    assert!(!reaches(&agent, servers.client().identity(identity(&foreign))).await);
}

#[tokio::test]
async fn a_certificate_is_a_credential_and_can_be_taken_away() {
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    let (known, unknown) = (authority.sign("known"), authority.sign("unknown"));
    files.add("known", Role::Viewer, Proof::Certificate(known.digest));
    let token = files.token("token", Role::Admin);
    let agent = TestAgent::with(|config| {
        files.with_tls(config);
        files.with_credentials(config);
        files.with_client_ca(config, &authority);
    })
    .await;
    let channel = connect(&agent, authority.client().identity(identity(&known)))
        .await
        .unwrap();
    let mut client = AgentServiceClient::new(channel);
    client.get_agent_info(GetAgentInfoRequest {}).await.unwrap();
    // a token that is wrong is not made good by a certificate
    let wrong = with_token(GetAgentInfoRequest {}, "x");
    let status = client.get_agent_info(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // one that is signed but not listed opens the connection only; a token comes with it
    let channel = connect(&agent, authority.client().identity(identity(&unknown)))
        .await
        .unwrap();
    let mut other = AgentServiceClient::new(channel);
    let status = other
        .get_agent_info(GetAgentInfoRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let right = with_token(GetAgentInfoRequest {}, token.expose());
    other.get_agent_info(right).await.unwrap();
    // taken away, on a connection that stays open
    let text = std::fs::read_to_string(files.path("credentials")).unwrap();
    let (text, _) = perfagent::auth::edit::remove(&text, "known", None).unwrap();
    files.write("credentials", &text);
    until(async || {
        let mut client = client.clone();
        client.get_agent_info(GetAgentInfoRequest {}).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn certificates_change_without_a_restart() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::new();
    files.write_pair(&before.sign("localhost"));
    let agent = TestAgent::with(|config| files.with_tls(config)).await;
    assert!(reaches(&agent, before.client()).await);
    let open = connect(&agent, before.client()).await.unwrap();
    let pair = after.sign("localhost");
    files.write_pair(&pair);
    until(async || reaches(&agent, after.client()).await).await;
    assert!(!reaches(&agent, before.client()).await);
    // what was connected stays so
    let mut client = AgentServiceClient::new(open);
    client.get_agent_info(GetAgentInfoRequest {}).await.unwrap();
}

#[tokio::test]
async fn broken_handshakes_disturb_nobody() {
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    let agent = TestAgent::with(|config| files.with_tls(config)).await;
    // some that never go on, and all the while others that are nonsense
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 2]).await.unwrap();
        silent.push(stream);
    }
    for nonsense in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        &[0xff; 20_000],
    ] {
        for _ in 0..10 {
            let mut stream = TcpStream::connect(agent.address).await.unwrap();
            // it may be closed before all is written
            let _ = stream.write_all(nonsense).await;
        }
    }
    assert!(reaches(&agent, authority.client()).await);
    let refused = async || {
        let mut stream = session(&agent, &authority, &[]).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let name = "perfagent_connections_refused_total{reason=\"tls_handshake\"} ";
        let count = answer
            .split(name)
            .nth(1)
            .and_then(|rest| rest.lines().next());
        count
            .and_then(|count| count.parse::<u32>().ok())
            .unwrap_or(0)
    };
    until(async || refused().await >= 50).await;
    drop(silent);
}

#[tokio::test]
async fn a_full_agent_takes_connections_again_when_some_have_gone() {
    let authority = Authority::new("ours");
    let files = Files::new();
    files.write_pair(&authority.sign("localhost"));
    let agent = TestAgent::with(|config| {
        files.with_tls(config);
        config.server.max_connections = 2;
    })
    .await;
    // those in their handshake count
    let half = TcpStream::connect(agent.address).await.unwrap();
    let first = connect(&agent, authority.client()).await.unwrap();
    assert!(!reaches(&agent, authority.client()).await);
    let mut client = AgentServiceClient::new(first);
    client.get_agent_info(GetAgentInfoRequest {}).await.unwrap();
    drop(half);
    until(async || reaches(&agent, authority.client()).await).await;
}
