//! Windows over recorded scrapes: totals, restarts, and several replicas.

use perfagent::engine::Quantity;
use perfagent::measure::{Bounded, DropCause, NoteCode, WindowKind};

use crate::captures::capture;
use crate::truth::series;

#[test]
fn totals_have_no_rates_and_say_so() {
    let capture = capture("vllm-0.32.0/c-saturation");
    let measured = capture.measure_samples(vec![capture.sample(3)], WindowKind::SinceStart);
    assert_eq!(measured.window.kind, WindowKind::SinceStart);
    assert_eq!(
        measured.figures.value("generation_tokens_total"),
        Some(5717.0)
    );
    assert_eq!(
        measured.figures.quantity("generation_tokens_per_second"),
        None
    );
    assert_eq!(
        measured.figures.quantity("generation_tokens_increase"),
        None
    );
    let first_token = measured
        .figures
        .distribution(Quantity::TimeToFirstToken)
        .unwrap();
    assert_eq!(first_token.count, 86.0);
    assert_eq!(first_token.mean, Some(325.44401454925537 / 86.0));
}

#[test]
fn a_restart_gives_no_negative_rate() {
    let capture = capture("vllm-0.8.5-v0/c-saturation");
    // V0 exports no creation time: only the counters tell
    let mut samples = vec![
        capture.sample(3),
        capture.sample(4),
        capture.sample(1),
        capture.sample(2),
    ];
    for (at, sample) in samples.iter_mut().enumerate() {
        sample.at_unix_seconds = 1_000.0 + 5.0 * at as f64;
        sample.tick = at as u32;
    }
    let measured = capture.measure_samples(samples, WindowKind::Interval);
    let dropped = &measured.replicas[0].dropped;
    assert_eq!(dropped.len(), 1);
    assert!(
        matches!(&dropped[0].cause, DropCause::Restart { evidence } if evidence.contains("fell"))
    );
    assert!(
        measured
            .notes
            .iter()
            .any(|note| note.code == NoteCode::Restarted)
    );
    assert!((measured.window.observed_seconds - 10.0).abs() < 1e-9);
    let rises = [(3, 4), (1, 2)].map(|(from, to)| {
        series(&capture.body(to), "vllm:generation_tokens_total")
            - series(&capture.body(from), "vllm:generation_tokens_total")
    });
    let rate = measured
        .figures
        .value("generation_tokens_per_second")
        .unwrap();
    assert!((rate - (rises[0] + rises[1]) / 10.0).abs() < 1e-9, "{rate}");
    for one in &measured.figures.quantities {
        if let Bounded::Value(value) = one.value {
            assert!(value >= 0.0, "{one:?}");
        }
    }
}

#[test]
fn v1_restarts_are_seen_by_creation_time_alone() {
    let capture = capture("vllm-0.32.0/c-saturation");
    let before = capture.sample(1);
    let mut after = capture.sample(2);
    after.incarnation.process_start_unix_seconds = None;
    let created = after.incarnation.created_unix_seconds.unwrap();
    after.incarnation.created_unix_seconds = Some(created + 60.0);
    let measured = capture.measure_samples(vec![before, after], WindowKind::Interval);
    assert_eq!(measured.replicas[0].dropped.len(), 1);
    assert_eq!(
        measured.figures.quantity("generation_tokens_per_second"),
        None
    );
    assert!(
        measured
            .figures
            .quantity("generation_tokens_total")
            .is_some()
    );
}

#[test]
fn replicas_add_up_and_stay_visible() {
    let capture = capture("vllm-0.32.0/c-saturation");
    let alone = capture.measure(1, 3).figures;
    let replica = |n: usize| {
        let mut replica = capture.replica((1..=3).map(|n| capture.sample(n)).collect());
        replica.metrics_url = format!("http://127.0.0.1:{}/metrics", 8000 + n);
        replica
    };
    let two = capture.measure_replicas(vec![replica(0), replica(1)], WindowKind::Interval);
    let value = |name: &str| (alone.value(name).unwrap(), two.figures.value(name).unwrap());
    for name in [
        "generation_tokens_per_second",
        "requests_finished_increase",
        "prompt_tokens_total",
    ] {
        let (one, both) = value(name);
        assert!(
            (both - 2.0 * one).abs() < 1e-6 * both,
            "{name}: {one} {both}"
        );
    }
    let running = |figures: &perfagent::measure::Figures| {
        figures.gauge(Quantity::RequestsRunning).unwrap().clone()
    };
    assert_eq!(running(&two.figures).max, 2.0 * running(&alone).max);
    // a share is not a sum
    let usage =
        |figures: &perfagent::measure::Figures| figures.gauge(Quantity::KvCacheUsage).unwrap().mean;
    assert!((usage(&two.figures) - usage(&alone)).abs() < 1e-12);
    let ttft = |figures: &perfagent::measure::Figures| {
        figures
            .distribution(Quantity::TimeToFirstToken)
            .unwrap()
            .clone()
    };
    assert_eq!(ttft(&two.figures).mean, ttft(&alone).mean);
    assert_eq!(ttft(&two.figures).quantiles, ttft(&alone).quantiles);
    assert_eq!(two.replicas.len(), 2);
    assert_eq!(
        two.replicas[1].outcome.as_ref().unwrap().quantities,
        alone.quantities
    );
}

#[test]
fn a_sum_without_one_replica_is_no_sum() {
    let new = capture("vllm-0.32.0/c-saturation");
    let old = capture("vllm-0.10.1/c-saturation");
    let replicas = vec![
        new.replica(vec![new.sample(1), new.sample(2)]),
        old.replica(vec![old.sample(1), old.sample(2)]),
    ];
    let mixed = new.measure_replicas(replicas, WindowKind::Interval);
    let reason = Quantity::RequestsWaitingCapacity;
    assert!(mixed.figures.gauge(reason).is_none());
    let absence = mixed
        .figures
        .absent
        .iter()
        .find(|absence| absence.quantity == reason)
        .unwrap();
    assert!(
        absence.reason.contains("1 of 2 replicas"),
        "{}",
        absence.reason
    );
    assert!(mixed.figures.value("generation_tokens_per_second").unwrap() > 0.0);
    assert!(
        mixed
            .notes
            .iter()
            .any(|note| note.code == NoteCode::SettingsDiffer)
    );
}
