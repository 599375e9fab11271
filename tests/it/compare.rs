//! Two measurements held against each other, by recorded engines and over the wire.

use perfagent::edge::grpc::{convert, pb};
use perfagent::measure::{Incomparable, Measurement, Series, Verdict, WindowKind, compare};

use crate::captures::{self, Capture, capture};
use crate::fake::TestAgent;

pub fn whole(capture: &Capture) -> Measurement {
    capture.measure(1, capture.scrapes())
}

/// What the measurement says of a value over the whole window.
fn value_of(measurement: &Measurement, name: &str) -> Option<f64> {
    let figures = &measurement.figures;
    let distribution = figures.distributions.iter().find(|one| one.name == name);
    figures
        .value(name)
        .or_else(|| distribution.and_then(|found| found.mean))
}

fn same(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
}

#[test]
fn series_add_up_to_the_window() {
    let mut added = 0;
    for capture in captures::all() {
        let measured = whole(&capture);
        for series in &measured.figures.series {
            let expected = value_of(&measured, &series.name);
            match (series.value(), expected) {
                (None, None) => {}
                (Some(sum), Some(whole)) => {
                    assert!(
                        same(sum, whole),
                        "{}: {} is {whole}, its intervals {sum}",
                        capture.name,
                        series.name
                    );
                    added += 1;
                }
                other => panic!("{}: {}: {other:?}", capture.name, series.name),
            }
            assert!(series.intervals.len() < capture.scrapes());
        }
        let rate = "generation_tokens_per_second";
        let told = measured.figures.series.iter().any(|one| one.name == rate);
        assert_eq!(
            told,
            measured.figures.value(rate).is_some(),
            "{}",
            capture.name
        );
        for replica in &measured.replicas {
            assert_eq!(replica.outcome.as_ref().unwrap().series, []);
        }
    }
    assert!(added >= 150, "only {added} series");
}

fn series<'m>(measurement: &'m Measurement, name: &str) -> &'m Series {
    let found = measurement
        .figures
        .series
        .iter()
        .find(|one| one.name == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn replicas_add_up_interval_by_interval_and_restarts_give_none() {
    let recorded = capture("vllm-0.32.0/c-saturation");
    let single = whole(&recorded);
    let samples = || (1..=recorded.scrapes()).map(|n| recorded.sample(n));
    let rate = "generation_tokens_per_second";
    let latency = "inter_token_latency_seconds";

    let twins = vec![
        recorded.replica(samples().collect()),
        recorded.replica(samples().collect()),
    ];
    let both = recorded.measure_replicas(twins, WindowKind::Interval);
    let twice = 2.0 * series(&single, rate).value().unwrap();
    assert!(same(series(&both, rate).value().unwrap(), twice));
    assert!(same(
        series(&both, latency).value().unwrap(),
        series(&single, latency).value().unwrap()
    ));

    // one replica misses the third scrape: no dip in throughput, and no request is lost
    let partial = vec![
        recorded.replica(samples().collect()),
        recorded.replica(samples().filter(|sample| sample.tick != 3).collect()),
    ];
    let partial = recorded.measure_replicas(partial, WindowKind::Interval);
    let ticks: Vec<(u32, u32)> = series(&partial, rate)
        .intervals
        .iter()
        .map(|one| (one.start_tick, one.end_tick))
        .collect();
    assert_eq!(ticks, [(1, 2), (4, 5)]);
    let counted = |of: &Measurement| -> f64 {
        let intervals = series(of, latency).intervals.iter();
        intervals.map(|one| one.denominator).sum()
    };
    assert!(same(counted(&partial), counted(&both)));

    // the engine restarted between the second and the third
    let mut restarted: Vec<_> = samples().collect();
    for sample in restarted.iter_mut().take(2) {
        sample.incarnation.process_start_unix_seconds = Some(1.0);
    }
    let restarted = recorded.measure_samples(restarted, WindowKind::Interval);
    let ends: Vec<u32> = series(&restarted, rate)
        .intervals
        .iter()
        .map(|one| one.end_tick)
        .collect();
    assert_eq!(ends, [2, 4, 5]);
    assert!(same(
        series(&restarted, rate).value().unwrap(),
        value_of(&restarted, rate).unwrap()
    ));
    let totals = recorded.measure_samples(samples().collect(), WindowKind::SinceStart);
    assert_eq!(totals.figures.series, []);
}

#[test]
fn no_recorded_engine_differs_from_itself() {
    let mut ratios = 0;
    for capture in captures::all() {
        let measured = whole(&capture);
        let compared = compare(&measured, &measured);
        assert_eq!(compared.cautions, []);
        for found in compared.quantities {
            // four intervals at most were recorded
            let expected = match found.verdict {
                Verdict::NotComparable(Incomparable::FollowsLoad) => true,
                verdict => verdict == Verdict::Inconclusive,
            };
            assert!(expected, "{}: {found:?}", capture.name);
            ratios += u32::from(found.ratio == Some(1.0));
            assert!(found.ratio.is_none_or(|ratio| ratio == 1.0), "{found:?}");
        }
    }
    assert!(ratios >= 150, "only {ratios}");
}

/// A measurement whose intervals are those that `pick` takes.
fn picked(of: &Measurement, pick: impl Fn(usize, &Series) -> Vec<usize>) -> Measurement {
    let mut other = of.clone();
    for (at, series) in other.figures.series.iter_mut().enumerate() {
        let picked = pick(at, series);
        series.intervals = picked.iter().map(|at| series.intervals[*at]).collect();
    }
    other
}

#[test]
fn odd_and_even_intervals_of_a_recording_do_not_differ() {
    for capture in captures::all() {
        let measured = whole(&capture);
        let half = |odd| {
            picked(&measured, move |_, series| {
                let all = 0..series.intervals.len();
                all.filter(|at| at % 2 == odd).collect()
            })
        };
        for found in compare(&half(0), &half(1)).quantities {
            let differs = matches!(found.verdict, Verdict::Improved | Verdict::Regressed);
            assert!(!differs, "{}: {found:?}", capture.name);
        }
    }
}

#[test]
fn windows_drawn_from_a_recording_rarely_differ() {
    let mut state: u64 = 1;
    let mut draw = |below: usize| {
        // Knuth, MMIX
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut compared, mut different) = (0, 0);
    for name in [
        "vllm-0.32.0/c-saturation",
        "vllm-0.16.0/d-kv-pressure",
        "sglang-0.5.23/c-saturation",
        "tgi-3.3.6/c-saturation",
    ] {
        let measured = whole(&capture(name));
        for _ in 0..100 {
            let mut window = || {
                let draws: Vec<usize> = (0..20).map(|_| draw(1 << 20)).collect();
                // of all quantities the same intervals, as in a window
                picked(&measured, |_, series| {
                    let count = series.intervals.len();
                    draws.iter().map(|draw| draw % count).collect()
                })
            };
            let found = compare(&window(), &window()).quantities;
            assert!(found.iter().any(|one| one.p_value.is_some()), "{name}");
            let any = found
                .iter()
                .any(|one| matches!(one.verdict, Verdict::Improved | Verdict::Regressed));
            different += u32::from(any);
            compared += 1;
        }
    }
    // 5 % and three standard errors
    assert!(
        f64::from(different) <= 0.083 * f64::from(compared),
        "{different} of {compared}"
    );
}

pub fn wire(name: &str) -> pb::Measurement {
    convert::measurement(&whole(&capture(name)))
}

#[tokio::test]
async fn two_measurements_are_compared_over_the_wire() {
    let agent = TestAgent::start().await;
    let mut client = agent.metrics().await;
    let answer = client
        .compare_metrics(pb::CompareMetricsRequest {
            baseline: Some(wire("vllm-0.32.0/c-saturation")),
            candidate: Some(wire("vllm-0.32.0/d-kv-pressure")),
        })
        .await
        .unwrap()
        .into_inner();
    let names: Vec<&str> = answer
        .comparisons
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names[0], "generation_tokens_per_second");
    assert!(names.contains(&"time_to_first_token_seconds"), "{names:?}");
    for one in &answer.comparisons {
        assert!(!one.explanation.is_empty());
        assert!(one.baseline_intervals <= 4 && one.ratio_interval.is_none());
        assert_eq!(
            one.reason.is_some(),
            one.verdict() == pb::ComparisonVerdict::NotComparable
        );
    }
    let answer = client
        .compare_metrics(pb::CompareMetricsRequest {
            baseline: Some(wire("vllm-0.32.0/c-saturation")),
            candidate: Some(wire("sglang-0.5.23/c-saturation")),
        })
        .await
        .unwrap()
        .into_inner();
    for one in &answer.comparisons {
        assert_eq!(one.reason.as_deref(), Some("ENGINE_DIFFERS"), "{one:?}");
    }
}

#[tokio::test]
async fn a_slower_engine_is_found_over_the_wire() {
    let agent = TestAgent::start().await;
    let mut client = agent.metrics().await;
    let side = |slower: f64| {
        let mut measurement = wire("vllm-0.32.0/c-saturation");
        let figures = measurement.figures.as_mut().unwrap();
        figures.series = vec![pb::Series {
            name: "inter_token_latency_seconds".to_owned(),
            start_ticks: (0..20).collect(),
            end_ticks: (1..=20).collect(),
            numerators: (0..20)
                .map(|at| slower * (10.0 + f64::from(at % 3)))
                .collect(),
            denominators: vec![1_000.0; 20],
        }];
        Some(measurement)
    };
    let request = pb::CompareMetricsRequest {
        baseline: side(1.0),
        candidate: side(1.3),
    };
    let answer = client.compare_metrics(request).await.unwrap().into_inner();
    let found: Vec<_> = answer
        .comparisons
        .iter()
        .filter(|one| one.p_value.is_some())
        .collect();
    assert_eq!(found.len(), 1, "of the others there are no intervals");
    assert_eq!(found[0].verdict(), pb::ComparisonVerdict::Regressed);
    assert_eq!(found[0].better(), pb::Direction::Lower);
    let interval = found[0].ratio_interval.unwrap();
    assert!(interval.low > 1.2 && interval.high < 1.4, "{interval:?}");
    assert!(found[0].smallest_detectable_change_ratio.unwrap() < 0.3);
}
