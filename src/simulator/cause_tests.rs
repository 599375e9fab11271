//! Causes that a scenario can have are seen in what the engine shows, and nowhere else.

use super::tests::{measured, replica};
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
