//! Plain HTTP on the gRPC port, byte by byte.

use perfagent::exposition::{Family, Options, Sample, Sink, parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::fake::{TestAgent, counting_vllm};

/// One HTTP/1.1 request; the whole answer.
pub async fn get(agent: &TestAgent, path: &str, host: &str) -> String {
    get_at(agent.address, path, host).await
}

/// The same of an agent in a process of its own.
pub async fn get_at(address: impl ToSocketAddrs, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn healthz_says_healthy_and_when() {
    let agent = TestAgent::start().await;
    let known = get(&agent, "/api/v1/health", "127.0.0.1").await;
    assert!(
        known.starts_with("HTTP/1.1 200") && known.contains("healthy"),
        "{known}"
    );
    let answer = get(&agent, "/healthz", "127.0.0.1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: serde_json::Value =
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["status"], "healthy");
    let timestamp: prost_types::Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp.seconds > 1_700_000_000);
}

#[tokio::test]
async fn metrics_are_what_we_ourselves_can_read() {
    #[derive(Default)]
    struct Names(Vec<String>);
    impl<'a> Sink<'a> for Names {
        fn family(&mut self, _: &Family<'a>) {}
        fn sample(&mut self, _: &Family<'a>, sample: &Sample<'_, 'a>) {
            let label = |name| {
                sample
                    .label(name)
                    .map(|text| text.get().into_owned())
                    .unwrap_or_default()
            };
            self.0.push(format!(
                "{} {} {}",
                sample.name.get(),
                label("step"),
                label("method")
            ));
        }
    }
    let agent = TestAgent::start().await;
    let engine = counting_vllm(|_| 1).await;
    agent.totals("vllm", &engine.url()).await.unwrap();
    agent
        .totals("vllm", "http://127.0.0.1:1/metrics")
        .await
        .unwrap_err();
    let answer = get(&agent, "/metrics", "localhost:8002").await;
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    // the answer may come in chunks: keep the lines of the exposition
    let text: String = body
        .lines()
        .filter(|line| line.starts_with("# ") || line.starts_with("perfagent_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut names = Names::default();
    parse(text.as_bytes(), &Options::default(), &mut names).unwrap();
    let has = |wanted: &str| names.0.iter().any(|name| name == wanted);
    assert!(has(
        "perfagent_rpc_duration_seconds_count  /perfagent.v1.MetricsService/CollectMetrics"
    ));
    for step in ["request", "body", "parse"] {
        assert!(
            has(&format!("perfagent_scrape_duration_seconds_count {step} ")),
            "{step}"
        );
    }
    assert!(has("perfagent_scrape_failures_total connect "));
}

#[tokio::test]
async fn a_web_page_cannot_reach_the_agent_by_a_name_of_its_own() {
    let agent =
        TestAgent::with(|config| config.server.hosts = vec!["agent.example".to_owned()]).await;
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        // a second header, smuggled in
        "127.0.0.1\r\nHost: evil.example",
    ] {
        let answer = get(&agent, "/metrics", host).await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{host}: {answer}");
    }
    for host in ["127.0.0.1:8002", "[::1]", "agent.example"] {
        let answer = get(&agent, "/healthz", host).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        assert!(
            !answer.to_ascii_lowercase().contains("access-control"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn http1_reaches_nothing_else() {
    let agent = TestAgent::start().await;
    for path in ["/", "/perfagent.v1.MetricsService/CollectMetrics", "/docs/"] {
        let answer = get(&agent, path, "127.0.0.1").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_let_go() {
    let agent = TestAgent::with(|config| {
        config.server.keepalive_interval = std::time::Duration::from_millis(100);
        config.server.keepalive_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    // an HTTP/2 preface with empty settings, and then silence, as from a machine that lost its power
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frames = Vec::new();
    let closed = stream.read_to_end(&mut frames);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(20), closed).await;
    assert!(closed.is_ok(), "the connection is still open");
    // a frame's type is its fourth byte: 6 is PING
    let mut at = 0;
    let mut types = Vec::new();
    while at + 9 <= frames.len() {
        types.push(frames[at + 3]);
        let length = usize::from(frames[at]) << 16
            | usize::from(frames[at + 1]) << 8
            | usize::from(frames[at + 2]);
        at += 9 + length;
    }
    assert!(types.contains(&6), "{types:?}");
}
