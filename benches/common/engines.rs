//! vLLM engines that are not there: one process, an address of its own in 127.0.0.0/8 for each, so that clients take
//! them for as many hosts. The body is a captured one whose counters go on from where the capture ended, one step a
//! second.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Running;

/// What the bench is called with to be the engines.
pub(crate) const ROLE: &str = "--engines";
/// As uvicorn, which vLLM answers by, hangs up on a connection that is idle.
const IDLE: Duration = Duration::from_secs(5);

/// Starts them: their process, and their metrics URLs.
pub(crate) fn start(count: usize) -> (Running, Vec<String>) {
    let (running, port) = super::in_role(&[ROLE, &count.to_string()]);
    let port: u16 = port.parse().expect("the engines print their port");
    let urls = (0..count).map(|at| format!("http://{}:{port}/metrics", host(at)));
    (running, urls.collect())
}

fn host(at: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(at + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/captures/vllm-0.32.0/c-saturation")
        .join(name)
}

/// One line of the body.
enum Line {
    /// As it is.
    Same(String),
    /// A counter: what stands before its value, the value, and how much it rises a step.
    Moves(String, f64, f64),
}

/// Bodies over time.
struct Bodies {
    lines: Vec<Line>,
    start: Instant,
    now: Mutex<(u64, Arc<Vec<u8>>)>,
}

impl Bodies {
    fn new() -> Self {
        let first = fs::read_to_string(capture("scrape-1.prom")).unwrap();
        let last = fs::read_to_string(capture("scrape-5.prom")).unwrap();
        let before: HashMap<&str, f64> = first.lines().filter_map(reading).collect();
        let mut gauge = false;
        let mut lines = Vec::new();
        for line in last.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                gauge = kind.ends_with(" gauge");
            }
            let rise = reading(line).map(|(name, value)| {
                let was = before.get(name).copied().unwrap_or(0.0);
                (name.to_owned(), value, value - was)
            });
            lines.push(match rise {
                Some((name, value, rise)) if !gauge && rise > 0.0 => Line::Moves(name, value, rise),
                _ => Line::Same(line.to_owned()),
            });
        }
        Self {
            lines,
            start: Instant::now(),
            now: Mutex::default(),
        }
    }

    /// The whole answer of now.
    fn answer(&self) -> Arc<Vec<u8>> {
        let step = self.start.elapsed().as_secs() + 1;
        let mut now = self.now.lock().unwrap();
        if now.0 != step {
            let mut body = String::new();
            for line in &self.lines {
                match line {
                    Line::Same(text) => body += text,
                    Line::Moves(name, value, rise) => {
                        body += &format!("{name} {:?}", value + rise * step as f64);
                    }
                }
                body.push('\n');
            }
            *now = (step, Arc::new(respond("200 OK", body.as_bytes())));
        }
        now.1.clone()
    }
}

/// A line's name with labels, and its value.
fn reading(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    (!line.starts_with('#')).then_some((name, value))
}

fn respond(status: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=1.0.0; charset=utf-8\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The engines' process.
pub(crate) fn run(count: &str) -> Infallible {
    let count: usize = count.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bodies = Arc::new(Bodies::new());
        let endpoints: HashMap<&str, Vec<u8>> = [
            ("/version", "endpoint-version.json"),
            ("/server_info", "endpoint-server_info_json.json"),
            ("/v1/models", "endpoint-v1_models.json"),
        ]
        .map(|(path, name)| (path, respond("200 OK", &fs::read(capture(name)).unwrap())))
        .into();
        let endpoints = Arc::new(endpoints);
        let mut port = 0;
        for at in 0..count {
            let listener = TcpListener::bind((host(at), port)).await.unwrap();
            port = listener.local_addr().unwrap().port();
            let (bodies, endpoints) = (bodies.clone(), endpoints.clone());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, bodies.clone(), endpoints.clone()));
                }
            });
        }
        println!("{port}");
        std::future::pending().await
    })
}

async fn serve(
    mut stream: TcpStream,
    bodies: Arc<Bodies>,
    endpoints: Arc<HashMap<&'static str, Vec<u8>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::with_capacity(1_024);
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            match tokio::time::timeout(IDLE, stream.read_buf(&mut request)).await {
                Ok(Ok(read)) if read > 0 => {}
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&request);
        let path = text.split([' ', '?']).nth(1).unwrap_or_default();
        let sent = match (path, endpoints.get(path)) {
            ("/metrics", _) => stream.write_all(&bodies.answer()).await,
            (_, Some(answer)) => stream.write_all(answer).await,
            _ => stream.write_all(&respond("404 Not Found", b"")).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
