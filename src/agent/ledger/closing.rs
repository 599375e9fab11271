//! An engine that gets another setting while it is watched: its prediction closes by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::tests::entry;
use super::*;
use crate::agent::Agent;
use crate::config::{Config, InstanceEntry};
use crate::optimization::{KnobChange, PredictedQuantity};
use crate::store::SqliteStore;

/// A vLLM that generates a thousand tokens a second, and twice as many with prefix caching. Its URL.
async fn engine(prefix_caching: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut tokens, mut last) = (0.0, Instant::now());
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4_096];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            let is_on = prefix_caching.load(Ordering::SeqCst);
            let rate = if is_on { 2_000.0 } else { 1_000.0 };
            tokens += rate * last.elapsed().as_secs_f64();
            last = Instant::now();
            let answer = match asked.get(..read).unwrap_or_default() {
                [b'G', b'E', b'T', b' ', b'/', b'm', b'e', b't', ..] => {
                    let switch = if is_on { "True" } else { "False" };
                    let finished = tokens / 10.0;
                    let body = format!(
                        "# TYPE vllm:cache_config_info gauge\n\
                         vllm:cache_config_info{{enable_prefix_caching=\"{switch}\"}} 1\n\
                         # TYPE vllm:num_requests_running gauge\n\
                         vllm:num_requests_running{{engine=\"0\",model_name=\"m\"}} 2\n\
                         # TYPE vllm:generation_tokens_total counter\n\
                         vllm:generation_tokens_total{{engine=\"0\",model_name=\"m\"}} {tokens}\n\
                         # TYPE vllm:request_success_total counter\n\
                         vllm:request_success_total{{engine=\"0\",model_name=\"m\",finished_reason=\"stop\"}} {finished}\n"
                    );
                    format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
                _ => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    .to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing came of it"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_prediction_closes_when_its_setting_is_in_force_and_a_full_window_has_followed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
    let prefix_caching = Arc::new(AtomicBool::new(false));
    let config = Config {
        instances: vec![InstanceEntry {
            instance_id: "a".to_owned(),
            instance_type: Some("vllm".to_owned()),
            metrics_url: Some(engine(prefix_caching.clone()).await),
            metrics_urls: Vec::new(),
            scrape_interval: Some(Duration::from_millis(200)),
            window: Some(Duration::from_secs(1)),
            labels: Default::default(),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        }],
        ..Config::default()
    };
    let agent = Agent::start(&config, store.clone()).await.unwrap();
    until(async || agent.latest("a").ok()).await;

    let mut predicted = entry(1, 0);
    predicted.made_at_unix_seconds = unix_seconds();
    predicted.changes = vec![KnobChange {
        name: "enable_prefix_caching".to_owned(),
        flag: "--enable-prefix-caching".to_owned(),
        from: Some("false".to_owned()),
        to: Some("true".to_owned()),
    }];
    for one in &mut predicted.predicted {
        one.before = 1_000.0;
    }
    let kept = agent.ledger.keep(&*store, vec![predicted]).await.unwrap();
    assert_eq!(kept, ["p-1"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(agent.ledger.open_of("a").len(), 1);

    prefix_caching.store(true, Ordering::SeqCst);
    let page = until(async || {
        let page = agent
            .predictions(&PredictionFilter::default(), None, 10)
            .await
            .unwrap();
        let ended = page.predictions[0].state.ended() != Ended::Open;
        ended.then_some(page)
    })
    .await;
    let LedgerState::Closed { actual, .. } = &page.predictions[0].state else {
        panic!("{page:?}");
    };
    let [throughput] = actual.as_slice() else {
        panic!("{actual:?}");
    };
    assert_eq!(
        throughput.quantity,
        PredictedQuantity::GenerationTokensPerSecond
    );
    // nothing of the window before the change is in it
    assert!((1.9..2.1).contains(&throughput.ratio), "{actual:?}");
    assert_eq!(page.record.factor("sequence_cap").1, 1);
    assert_eq!(agent.ledger.open_of("a"), Vec::new());
}
