//! Causes that a scenario can have are seen in what the engine shows, and nowhere else.

use super::tests::{measured, replica};
use super::{Replica, Scenario};
use crate::engine::Quantity;

#[test]
fn the_time_of_the_host_is_told_by_sglang_with_a_timer() {
    let scenario =
        |timing: &str| format!("engine = 'sglang'\nload = {{ rate = 4 }}\ntiming = {{ {timing} }}");
    let seconds = |timing: &str| {
        let (found, summary) = measured(&mut replica(&scenario(timing)), 3, 30);
        (found.figures.value("forward_seconds_increase"), summary)
    };
    // without the timer there is no such family
    assert_eq!(seconds("host_seconds = 0.02").0, None);
    let (forward, summary) = seconds("host_seconds = 0.02, device_timer = true");
    let expected = summary.busy_seconds - 0.02 * summary.steps as f64;
    let forward = forward.unwrap();
    assert!((forward - expected).abs() < 0.1, "{forward} for {expected}");
    assert!(forward < 0.5 * summary.busy_seconds);
    // a fault slows both
    let mut slow = replica(&scenario("host_seconds = 0.02, device_timer = true"));
    slow.change_faults(serde_json::from_str("{\"slowness\": 2}").unwrap())
        .unwrap();
    let (found, summary) = measured(&mut slow, 3, 30);
    let forward = found.figures.value("forward_seconds_increase").unwrap();
    let expected = summary.busy_seconds - 0.04 * summary.steps as f64;
    assert!((forward - expected).abs() < 0.1, "{forward} for {expected}");
    let page = slow.metrics(false);
    for category in ["extend", "decode"] {
        // labels are in the order of their names
        let series = format!("sglang:forward_execution_seconds_total{{category=\"{category}\"");
        assert!(page.contains(&series), "{category}");
    }
}

#[test]
fn the_time_of_the_host_is_told_by_tgi() {
    for (host, text) in [
        (0.0, "engine = 'tgi'"),
        (0.03, "engine = 'tgi'\ntiming = { host_seconds = 0.03 }"),
    ] {
        let (found, _) = measured(&mut replica(text), 3, 20);
        let mean = |quantity| {
            let of = found.figures.distribution(quantity);
            of.and_then(|of| of.mean).unwrap()
        };
        let outside = mean(Quantity::DecodeStepTotalTime) - mean(Quantity::DecodeStepTime);
        assert!((outside - host).abs() < 1e-9, "{outside} for {host}");
    }
}

#[test]
fn passes_beyond_the_captured_graphs_are_counted() {
    let passes = |timing: &str| {
        let text = format!("engine = 'sglang'\nload = {{ clients = 32 }}\ntiming = {{ {timing} }}");
        let (found, summary) = measured(&mut replica(&text), 3, 20);
        let increase = |name| found.figures.value(name);
        let [graph, eager] = [
            increase("graph_passes_increase").unwrap(),
            increase("eager_passes_increase").unwrap(),
        ];
        (graph, eager, summary.tokens_per_second())
    };
    let (graph, prefills, fast) = passes("");
    assert!(graph > prefills, "{graph} {prefills}");
    let (graph, eager, slow) = passes("graph_max_sequences = 8, eager_factor = 3");
    // all that is left for the graphs is none, at 32 at once
    assert!(graph == 0.0 && eager > 1_000.0, "{graph} {eager}");
    assert!(slow < 0.5 * fast, "{slow} {fast}");
    let (held, _, same) = passes("graph_max_sequences = 32, eager_factor = 3");
    assert!(held > 0.0);
    assert_eq!(same, fast);
}

/// Nine of ten requests may run at once, and one is deferred by 5 s.
fn some_deferred(engine: &str) -> String {
    format!(
        "engine = '{engine}'\n[load]\nrate = 10\noutput_tokens = '10..40'\n[[load.classes]]\nweight = 9\n[[load.classes]]\ndeferred_seconds = 5"
    )
}

#[test]
fn deferred_requests_are_shown_apart_and_hold_up_nobody() {
    for engine in ["vllm", "sglang"] {
        let mut of = replica(&some_deferred(engine));
        let (found, summary) = measured(&mut of, 3, 60);
        let gauge = |quantity| found.figures.gauge(quantity).unwrap().mean;
        // Little's law: one a second for 5 s
        let deferred = gauge(Quantity::RequestsWaitingDeferred);
        assert!((2.5..8.0).contains(&deferred), "{engine}: {deferred}");
        let all = gauge(Quantity::RequestsWaiting);
        assert!(all - deferred < 0.5 && all >= deferred, "{engine}: {all}");
        let first = summary.time_to_first_token_seconds.unwrap();
        assert!(first.p50 < 0.2 && first.p99 > 5.0, "{engine}: {first:?}");
        let queue = found.figures.distribution(Quantity::QueueTime);
        let queue = queue.and_then(|of| of.mean).unwrap();
        // SGLang's queue is behind its grammar queue
        if engine == "vllm" {
            assert!((0.35..0.65).contains(&queue), "{queue}");
        } else {
            assert!(queue < 0.1, "{queue}");
        }
        // finished requests are as many as came, but for those inside
        let finished = found.figures.value("requests_finished_per_second").unwrap();
        assert!((finished - 10.0).abs() < 1.0, "{engine}: {finished}");
    }
}

#[test]
fn an_engine_whose_requests_are_all_deferred_wakes_in_time() {
    let text = "load = { clients = 1, output_tokens = 2, deferred_seconds = 3 }\ntiming = { frontend_seconds = 0 }";
    let (_, summary) = measured(&mut replica(text), 3, 33);
    let first = summary.time_to_first_token_seconds.unwrap();
    assert!(first.mean > 3.0 && first.mean < 3.1, "{first:?}");
}

#[test]
fn a_replica_with_more_weight_gets_more() {
    let scenario: Scenario =
        toml::from_str("replicas = 2\nload = { rate = 20, split = [3, 1] }").unwrap();
    let deployment = scenario.deployment().unwrap();
    let tokens = [0, 1].map(|number| {
        let mut replica = Replica::new(&deployment, number, 1_800_000_000.0).unwrap();
        let (found, _) = measured(&mut replica, 3, 30);
        let rate = found.figures.value("requests_finished_per_second");
        rate.unwrap()
    });
    let [more, less] = tokens;
    assert!(
        (more - 15.0).abs() < 1.5 && (less - 5.0).abs() < 0.8,
        "{tokens:?}"
    );
}
