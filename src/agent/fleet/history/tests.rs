use super::*;
use crate::engine::Registry;
use crate::exposition::Options;
use crate::instance::default_window;

fn history(interval: Duration, window: Duration) -> History {
    let spec = InstanceSpec {
        instance_id: "a".to_owned(),
        instance_type: None,
        metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
        scrape_interval: interval,
        window,
        labels: Default::default(),
        slos: Vec::new(),
        launch_args: Vec::new(),
        actuator: None,
    };
    History::new(&spec, None)
}

fn reading(body: &str, at: f64) -> (Arc<EngineProfile>, Sample) {
    let registry = Registry::builtin();
    let profile = registry.get("vllm").unwrap().clone();
    let (sample, _) = Sample::read(&profile, body.as_bytes(), at, &Options::default()).unwrap();
    (profile, sample)
}

fn capture() -> String {
    let path = "tests/fixtures/captures/vllm-0.32.0/c-saturation/scrape-1.prom";
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn kept(history: &History) -> &Remembered {
    history.replicas.first().unwrap()
}

#[test]
fn who_is_known_to_serve_again_is_asked_at_once() {
    let interval = Duration::from_secs(1);
    let mut history = history(interval, default_window(interval));
    let refused = || ScrapeFailure::TimedOut { seconds: 1.0 }.at("http://a".to_owned());
    let mut tick = 0;
    for _ in 0..6 {
        history.add(0, tick, Err(refused()));
        tick = kept(&history).due;
    }
    let now = kept(&history).due - 10;
    assert!(history.due(now).is_empty());
    history.retry(now);
    assert_eq!(history.due(now).len(), 1);
    // one that fails again is left alone as long as before
    history.add(0, now, Err(refused()));
    assert!(kept(&history).due > now + 10);
}

/// What the README says of memory.
#[test]
fn a_window_of_samples_is_kept_and_no_more() {
    let body = capture();
    let interval = Duration::from_secs(15);
    let mut history = history(interval, default_window(interval));
    for tick in 0..100 {
        history.add(0, tick, Ok(reading(&body, f64::from(tick) * 15.0)));
        assert!(history.window(tick).is_some());
    }
    let samples = &kept(&history).samples;
    // five ends of four intervals, and one more within the slack for jitter
    assert!((5..=6).contains(&samples.len()), "{}", samples.len());
    let bytes: Vec<usize> = samples.iter().map(|sample| sample.heap_bytes()).collect();
    assert!(bytes.iter().all(|bytes| *bytes <= 8_000), "{bytes:?}");
    let longest = Duration::from_millis(200);
    let mut history = self::history(longest, default_window(longest));
    for tick in 0..200 {
        history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
    }
    assert_eq!(kept(&history).samples.len(), 61);
}

#[test]
fn no_engine_fills_the_memory() {
    // each sample is as large as it may be
    let mut body = String::new();
    for family in [
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
    ] {
        body += &format!("# TYPE vllm:{family} histogram\n");
        for le in 1..4_000 {
            body += &format!("vllm:{family}_bucket{{le=\"{le}\"}} {le}\n");
        }
        body += &format!(
            "vllm:{family}_bucket{{le=\"+Inf\"}} 4000\nvllm:{family}_sum 1\nvllm:{family}_count 4000\n"
        );
    }
    let mut history = history(Duration::from_millis(200), Duration::from_secs(12));
    for tick in 0..60 {
        history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
        let bytes: usize = kept(&history)
            .samples
            .iter()
            .map(|sample| sample.heap_bytes())
            .sum();
        assert!(bytes <= MAX_BYTES, "{bytes}");
    }
    assert!(kept(&history).samples.len() > 2);
}

#[test]
fn failures_are_counted_within_the_window_and_forgotten_after_it() {
    let mut history = history(Duration::from_secs(1), Duration::from_secs(4));
    let body = capture();
    history.add(0, 0, Ok(reading(&body, 0.0)));
    let failure = || crate::scrape::ScrapeFailure::Status(503).at("http://127.0.0.1:1/metrics");
    history.add(0, 1, Err(failure()));
    assert_eq!(history.replica_states().first().unwrap().up, Some(false));
    assert!(history.due(1).is_empty(), "not again in the same round");
    assert_eq!(history.due(2).len(), 1);
    history.add(0, 2, Ok(reading(&body, 2.0)));
    let measured = history.window(2).unwrap().measure();
    assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 1);
    for tick in 3..9 {
        history.add(0, tick, Ok(reading(&body, f64::from(tick))));
    }
    let measured = history.window(8).unwrap().measure();
    assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 0);
    assert!(!history.engine_changed());
}

#[test]
fn a_replica_that_died_is_no_part_of_now() {
    let mut history = history(Duration::from_secs(1), Duration::from_secs(5));
    history.replicas.push(Remembered {
        url: "http://127.0.0.1:2/metrics".to_owned(),
        samples: Vec::new(),
        probed: Arc::default(),
        asked: Asked::Done,
        failed: VecDeque::new(),
        window_failure: None,
        failures_in_a_row: 0,
        due: 0,
        failure: None,
    });
    let body = |tokens: u32| {
        format!(
            "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total {tokens}\n"
        )
    };
    let failure = || ScrapeFailure::Status(503).at("http://127.0.0.1:2/metrics");
    let rate = |history: &mut History, tick: u32| {
        let measured = history.window(tick).unwrap().measure();
        let second = measured.replicas.get(1).unwrap().clone();
        (
            measured.figures.value("generation_tokens_per_second"),
            second,
            measured.notes,
        )
    };
    for tick in 0..100 {
        history.add(0, tick, Ok(reading(&body(tick * 50), f64::from(tick))));
        if tick < 10 {
            history.add(1, tick, Ok(reading(&body(tick * 1_000), f64::from(tick))));
        } else if history.replicas.get(1).unwrap().due <= tick {
            history.add(1, tick, Err(failure()));
        }
        let (rate, second, notes) = match tick {
            0 => continue,
            _ => rate(&mut history, tick),
        };
        match tick {
            // one scrape that is missing tells nothing yet, but is told
            ..=9 => assert_eq!(rate, Some(1_050.0)),
            10 => assert!(second.failed_scrapes == 1 && !notes.is_empty()),
            _ => {
                assert_eq!(rate, Some(50.0), "at {tick}");
                let why = second.outcome.unwrap_err();
                assert_eq!(why.reason, "HTTP_STATUS", "at {tick}");
            }
        }
    }
    // failures are remembered for a window, not for ever
    assert!(history.replicas.get(1).unwrap().failed.len() <= 6);
}
