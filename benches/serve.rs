//! `CollectMetrics` of a watched instance, with all layers on, beside an empty call to a service that does nothing.
//!
//! `cargo bench --bench serve`, or `benches/run`. Both are processes of their own, called in turn by one client that
//! reads the bytes of the answers and decodes none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::raw::{Connection, Window, drain, framed};
use common::{ServedAgent, cpu_seconds, engines, median, print_load, quantile};
use perfagent::edge::grpc::pb::CollectMetricsRequest;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const ECHO_ROLE: &str = "--echo";
const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, role, count, ..] if role == engines::ROLE => {
            engines::run(count);
        }
        [_, role, ..] if role == ECHO_ROLE => echo(),
        _ => measure(),
    }
}

/// One of the two that are called.
struct Side {
    name: &'static str,
    pid: u32,
    connection: Connection,
    path: &'static str,
    message: Bytes,
    rounds: Vec<Round>,
}

struct Round {
    calls_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_call: f64,
    bytes: usize,
}

fn measure() {
    let (_engines, urls) = engines::start(1);
    let agent = ServedAgent::watching(&urls, "15s");
    let (echo, address) = common::in_role(&[ECHO_ROLE]);
    let address: SocketAddr = address.parse().expect("the echo prints its address");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let from = Ipv4Addr::LOCALHOST.into();
        let mut sides = [
            Side {
                name: "empty tonic echo",
                pid: echo.pid(),
                connection: Connection::open(address, from, Window::Large).await,
                path: "/bench.Echo/Call",
                message: framed(&CollectMetricsRequest::default()),
                rounds: Vec::new(),
            },
            Side {
                name: "CollectMetrics",
                pid: agent.process.pid(),
                connection: Connection::open(agent.address, from, Window::Large).await,
                path: "/perfagent.v1.MetricsService/CollectMetrics",
                message: framed(&CollectMetricsRequest {
                    instance_id: "vllm-0".to_owned(),
                    ..CollectMetricsRequest::default()
                }),
                rounds: Vec::new(),
            },
        ];
        // until there is a window: the second scrape comes after five seconds
        tokio::time::sleep(Duration::from_secs(8)).await;
        for side in &mut sides {
            side.round(Duration::from_secs(1)).await;
        }
        for _ in 0..ROUNDS {
            for side in &mut sides {
                let round = side.round(ROUND).await;
                side.rounds.push(round);
            }
        }
        println!("{IN_FLIGHT} calls in flight on one connection, medians of {ROUNDS} rounds of {} s in turn:", ROUND.as_secs());
        let [echo, agent] = sides.each_ref().map(Side::show);
        println!(
            "  {:.0} % of the echo's calls a second (goal: at least 40), {:.2} times its p99 (goal: at most 2), {:.2} times its CPU a call",
            agent.calls_per_second / echo.calls_per_second * 100.0,
            agent.p99_ms / echo.p99_ms,
            agent.cpu_us_per_call / echo.cpu_us_per_call
        );
        print_load();
    });
}

impl Side {
    /// Calls for a while, as many at once as said.
    async fn round(&self, length: Duration) -> Round {
        let (start, cpu) = (Instant::now(), cpu_seconds(self.pid));
        let callers = (0..IN_FLIGHT).map(|_| async {
            let (mut times, mut bytes) = (Vec::new(), 0);
            while start.elapsed() < length {
                let call = Instant::now();
                let response = self.connection.call(self.path, &self.message).await;
                bytes = drain(response).await;
                times.push(call.elapsed().as_secs_f64() * 1e3);
            }
            (times, bytes)
        });
        let done = futures_util::future::join_all(callers).await;
        let seconds = start.elapsed().as_secs_f64();
        let cpu = cpu_seconds(self.pid) - cpu;
        let bytes = done[0].1;
        let mut times: Vec<f64> = done.into_iter().flat_map(|(times, _)| times).collect();
        times.sort_by(f64::total_cmp);
        Round {
            calls_per_second: times.len() as f64 / seconds,
            p50_ms: quantile(&times, 0.5),
            p99_ms: quantile(&times, 0.99),
            cpu_us_per_call: cpu * 1e6 / times.len() as f64,
            bytes,
        }
    }

    /// Prints the medians, and gives them.
    fn show(&self) -> Round {
        let of = |figure: fn(&Round) -> f64| median(self.rounds.iter().map(figure).collect());
        let medians = Round {
            calls_per_second: of(|round| round.calls_per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
            cpu_us_per_call: of(|round| round.cpu_us_per_call),
            bytes: self.rounds[0].bytes,
        };
        println!(
            "  {}: {:.0} calls a second, p50 {:.2} ms, p99 {:.2} ms, {:.1} us of the server's CPU a call ({} bytes)",
            self.name,
            medians.calls_per_second,
            medians.p50_ms,
            medians.p99_ms,
            medians.cpu_us_per_call,
            medians.bytes
        );
        medians
    }
}

/// The echo's process: tonic and nothing else, on as many threads as the agent has.
fn echo() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .add_service(Echo)
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
}

/// Gives back an empty message.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::<(), ()>::default());
            Ok(grpc.unary(Call, request).await)
        })
    }
}

struct Call;

impl UnaryService<()> for Call {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}
