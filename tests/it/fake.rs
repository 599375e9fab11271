//! Engines that are not there, well-behaved and not, and an agent to ask about them.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use perfagent::agent::Agent;
use perfagent::config::Config;
use perfagent::edge::grpc::pb::analysis_service_client::AnalysisServiceClient;
use perfagent::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use perfagent::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use perfagent::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;
use perfagent::edge::grpc::pb::webhook_service_client::WebhookServiceClient;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::{Server, ServerHandle, pb};
use perfagent::store::{SqliteStore, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

type PatientClient = Client<HttpConnector, tonic::body::Body>;

/// What an engine does with a request.
pub enum Answer {
    /// A status and a body.
    Plain(u16, Vec<u8>),
    /// 200 and a compressed body.
    Gzip(Vec<u8>),
    /// 200 and this many bytes, their number announced or not.
    Huge { bytes: u64, announced: bool },
    /// Half of what is announced.
    Broken,
    /// Nothing, ever.
    Hang,
    /// The connection is closed without a word.
    Reset,
}

/// A request.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Plain(200, body.into())
    }
}

/// An HTTP server on a port of its own.
pub struct FakeEngine {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Requests that are being answered.
    pub open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeEngine {
    /// Answers by path and by how many requests for that path came before.
    pub async fn start(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::answering(move |asked, before| answer(&asked.path, before)).await
    }

    /// Answers by all of a request, and by how many for that path came before.
    pub async fn answering(
        answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let counts: Arc<std::sync::Mutex<std::collections::HashMap<String, usize>>> =
            Arc::default();
        let task = tokio::spawn({
            let (connections, open) = (connections.clone(), open.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (answer, counts, open) = (answer.clone(), counts.clone(), open.clone());
                    tokio::spawn(async move {
                        open.fetch_add(1, Ordering::SeqCst);
                        serve(stream, |asked| {
                            let mut counts = counts.lock().unwrap();
                            let count = counts.entry(asked.path.clone()).or_default();
                            *count += 1;
                            answer(asked, *count - 1)
                        })
                        .await;
                        open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self {
            address,
            connections,
            open,
            task,
        }
    }

    /// One body for `/metrics`, nothing else.
    pub async fn of(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::start(move |path, _| match path {
            "/metrics" => Answer::ok(body.clone()),
            _ => Answer::Plain(404, Vec::new()),
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, answer: impl FnOnce(&Asked) -> Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // the first byte of a TLS hello, which an HTTP server finds bad
            Ok(0x16) if head.is_empty() => {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                return;
            }
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or("/").to_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0).min(1 << 20)];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let asked = Asked { method, path, body };
    let head = |status: u16, headers: String| {
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nConnection: close\r\n{headers}\r\n"
        )
    };
    // the agent may hang up at any time
    let _ = match answer(&asked) {
        Answer::Plain(status, body) => {
            let text = head(status, format!("Content-Length: {}\r\n", body.len()));
            let _ = stream.write_all(text.as_bytes()).await;
            stream.write_all(&body).await
        }
        Answer::Gzip(body) => {
            let text = head(
                200,
                format!(
                    "Content-Encoding: gzip\r\nContent-Length: {}\r\n",
                    body.len()
                ),
            );
            let _ = stream.write_all(text.as_bytes()).await;
            stream.write_all(&body).await
        }
        Answer::Huge { bytes, announced } => {
            let length = if announced {
                format!("Content-Length: {bytes}\r\n")
            } else {
                String::new()
            };
            let _ = stream.write_all(head(200, length).as_bytes()).await;
            let block = b"# filler\n".repeat(8_192);
            let mut sent = 0;
            loop {
                sent += block.len() as u64;
                if sent > bytes || stream.write_all(&block).await.is_err() {
                    break Ok(());
                }
            }
        }
        Answer::Broken => {
            let text = head(200, "Content-Length: 1000\r\n".to_owned());
            let _ = stream.write_all(text.as_bytes()).await;
            stream
                .write_all(b"# TYPE vllm:num_requests_running gauge\n")
                .await
        }
        Answer::Reset => Ok(()),
        Answer::Hang => {
            // until the other side gives up
            let _ = stream.read_u8().await;
            Ok(())
        }
    };
    let _ = stream.shutdown().await;
}

/// Compressed by gzip.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A running agent.
pub struct TestAgent {
    pub address: SocketAddr,
    pub handle: ServerHandle,
    pub served: JoinHandle<()>,
    _state: Option<TempDir>,
}

impl TestAgent {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration than the default.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.drain_timeout = Duration::from_secs(10);
        change(&mut config);
        let state = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(state.path()).await.unwrap());
        Self::over(&config, store, Some(state)).await
    }

    /// Over a store.
    pub async fn over(config: &Config, store: Arc<dyn Store>, state: Option<TempDir>) -> Self {
        let agent = Agent::start(config, store).await.unwrap();
        let config = config.clone();
        let server = Server::bind(agent, config.server, &config.auth)
            .await
            .unwrap();
        let (address, handle) = (server.address(), server.handle());
        let served = tokio::spawn(async move { server.serve().await.unwrap() });
        Self {
            address,
            handle,
            served,
            _state: state,
        }
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn instances(&self) -> InstanceServiceClient<Channel> {
        InstanceServiceClient::new(self.channel().await)
    }

    pub async fn analysis(&self) -> AnalysisServiceClient<Channel> {
        AnalysisServiceClient::new(self.channel().await)
    }

    pub async fn optimization(&self) -> OptimizationServiceClient<Channel> {
        OptimizationServiceClient::new(self.channel().await)
    }

    pub async fn webhooks(&self) -> WebhookServiceClient<Channel> {
        WebhookServiceClient::new(self.channel().await)
    }

    pub async fn workflows(&self) -> WorkflowServiceClient<Channel> {
        WorkflowServiceClient::new(self.channel().await)
    }

    pub async fn metrics(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.channel().await)
    }

    /// A client that leaves deadlines to the server; tonic's own channel would answer for it.
    pub fn patient_metrics(&self) -> MetricsServiceClient<PatientClient> {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let origin = format!("http://{}", self.address).parse().unwrap();
        MetricsServiceClient::with_origin(client, origin)
    }

    /// Measures with a window of zero, that is at once.
    pub async fn totals(&self, engine: &str, url: &str) -> Result<pb::Measurement, tonic::Status> {
        let answer = self
            .metrics()
            .await
            .collect_metrics(request(engine, &[url], 0))
            .await?;
        Ok(answer.into_inner().measurement.unwrap())
    }
}

/// A request for these replicas.
pub fn request(engine: &str, urls: &[&str], window_millis: u64) -> pb::CollectMetricsRequest {
    pb::CollectMetricsRequest {
        instance_id: "engine-1".to_owned(),
        instance_type: engine.to_owned(),
        metrics_url: urls
            .first()
            .map(|url| (*url).to_owned())
            .unwrap_or_default(),
        metrics_urls: urls.iter().skip(1).map(|url| (*url).to_owned()).collect(),
        window: Some(prost_types::Duration {
            seconds: (window_millis / 1000) as i64,
            nanos: ((window_millis % 1000) * 1_000_000) as i32,
        }),
        view: 0,
    }
}

/// A vLLM that has generated this many tokens.
pub fn vllm_body(tokens: u64) -> String {
    format!(
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\",model_name=\"m\"}} 2\n\
         # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} 1\n\
         # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{{engine=\"0\",model_name=\"m\"}} {tokens}\n"
    )
}

/// A vLLM whose tokens follow from the number of scrapes before.
pub async fn counting_vllm(tokens: impl Fn(usize) -> u64 + Send + Sync + 'static) -> FakeEngine {
    FakeEngine::start(move |path, count| match path {
        "/metrics" => Answer::ok(vllm_body(tokens(count))),
        "/version" => Answer::ok("{\"version\":\"0.32.0\"}"),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await
}
