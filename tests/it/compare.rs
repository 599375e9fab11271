//! Two measurements held against each other, and a measurement sent back: by recorded engines and over the wire.

use std::sync::OnceLock;

use perfagent::agent::Reason;
use perfagent::edge::grpc::{convert, pb, receive};
use perfagent::measure::{
    Incomparable, Measurement, ReplicaFailure, ReplicaSamples, Series, Verdict, WindowKind, compare,
};
use proptest::prelude::*;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::captures::{self, Capture, capture};
use crate::errors::Seen;
use crate::fake::TestAgent;

fn whole(capture: &Capture) -> Measurement {
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

/// Every shape that a measurement takes.
fn shapes(capture: &Capture) -> Vec<Measurement> {
    let last = capture.scrapes();
    let samples = || -> Vec<_> { (1..=last).map(|n| capture.sample(n)).collect() };
    let failed = ReplicaSamples {
        failed_scrapes: 4,
        last_failure: Some(ReplicaFailure {
            reason: Reason::ConnectFailed.as_str().to_owned(),
            message: "connection refused".to_owned(),
        }),
        ..capture.replica(Vec::new())
    };
    let mut restarted = samples();
    restarted.reverse();
    for (sample, n) in restarted.iter_mut().zip(1..) {
        sample.at_unix_seconds = 1_000.0 + f64::from(n) * 1.25;
        sample.tick = n;
    }
    vec![
        whole(capture),
        capture.measure_samples(samples(), WindowKind::SinceStart),
        capture.measure_samples(restarted, WindowKind::Interval),
        capture.measure_replicas(
            vec![capture.replica(samples()), failed],
            WindowKind::Interval,
        ),
        capture.measure_replicas(
            vec![capture.replica(samples()), capture.replica(samples())],
            WindowKind::Interval,
        ),
    ]
}

#[test]
fn what_is_sent_comes_back_the_same() {
    for capture in captures::all() {
        for mut sent in shapes(&capture) {
            let wire = convert::measurement(&sent);
            let received = receive::measurement("m", Some(wire.clone()))
                .unwrap_or_else(|wrong| panic!("{}: {wrong:?}", capture.name));
            assert_eq!(convert::measurement(&received), wire, "{}", capture.name);
            // instants are sent to the microsecond, which is not what a f64 of unix seconds holds
            for (sent, received) in times(&mut sent)
                .into_iter()
                .zip(times(&mut received.clone()))
            {
                assert!((*sent - *received).abs() < 1e-6, "{}", capture.name);
                *sent = *received;
            }
            assert_eq!(sent, received, "{}", capture.name);
        }
    }
}

fn times(of: &mut Measurement) -> Vec<&mut f64> {
    let dropped = of.replicas.iter_mut().flat_map(|one| &mut one.dropped);
    dropped
        .flat_map(|one| [&mut one.start_unix_seconds, &mut one.end_unix_seconds])
        .chain([
            &mut of.window.start_unix_seconds,
            &mut of.window.end_unix_seconds,
        ])
        .collect()
}

fn wire(name: &str) -> pb::Measurement {
    convert::measurement(&whole(&capture(name)))
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    let violations = details.field_violations.into_iter();
    violations.map(|violation| violation.field).collect()
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

#[tokio::test]
async fn wrong_measurements_are_named_by_field() {
    let agent = TestAgent::start().await;
    let mut client = agent.metrics().await;
    let seen = Seen::default();
    let mut refused = async |baseline, candidate| {
        let request = pb::CompareMetricsRequest {
            baseline,
            candidate,
        };
        let status = client.compare_metrics(request).await.unwrap_err();
        seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
        fields(&status)
    };
    assert_eq!(refused(None, None).await, ["baseline", "candidate"]);
    let good = wire("vllm-0.32.0/c-saturation");
    type Change = fn(&mut pb::Measurement);
    fn figures(of: &mut pb::Measurement) -> &mut pb::Figures {
        of.figures.as_mut().unwrap()
    }
    let cases: Vec<(&str, Change)> = vec![
        ("instance_id", |m| m.instance_id = "Not an id".to_owned()),
        ("instance_type", |m| m.instance_type.clear()),
        ("window", |m| m.window = None),
        ("window.kind", |m| m.window.as_mut().unwrap().kind = 0),
        ("window.kind", |m| m.window.as_mut().unwrap().kind = 99),
        ("window.start_time", |m| {
            m.window.as_mut().unwrap().start_time = None
        }),
        ("window.end_time", |m| {
            m.window.as_mut().unwrap().end_time = Some(prost_types::Timestamp::default());
        }),
        ("window.end_time", |m| {
            m.window.as_mut().unwrap().end_time = Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: -1,
            });
        }),
        ("window.observed_seconds", |m| {
            m.window.as_mut().unwrap().observed_seconds = Some(f64::NAN);
        }),
        ("figures", |m| m.figures = None),
        ("figures.quantities[3].bound", |m| {
            figures(m).quantities[3].bound = None
        }),
        ("figures.quantities[0].bound", |m| {
            figures(m).quantities[0].bound = Some(pb::quantity::Bound::Value(f64::NAN));
        }),
        ("figures.quantities[1].basis", |m| {
            figures(m).quantities[1].basis = 0
        }),
        ("figures.quantities[1].name", |m| {
            let quantities = &mut figures(m).quantities;
            quantities[1].name = quantities[0].name.clone();
        }),
        ("figures.quantities", |m| {
            figures(m).quantities = vec![pb::Quantity::default(); 200_000];
        }),
        ("figures.distributions[0].name", |m| {
            figures(m).distributions[0].name = "requests_running".to_owned();
        }),
        ("figures.distributions[0].count", |m| {
            figures(m).distributions[0].count = Some(-1.0);
        }),
        ("figures.distributions[0].mean", |m| {
            figures(m).distributions[0].mean = Some(f64::INFINITY);
        }),
        ("figures.distributions[0].quantiles[0].quantile", |m| {
            figures(m).distributions[0].quantiles[0].quantile = 50.0;
        }),
        ("figures.distributions[0].buckets[1]", |m| {
            let buckets = &mut figures(m).distributions[0].buckets;
            buckets[1] = buckets[0];
        }),
        ("figures.distributions[0].buckets[0].at_most", |m| {
            figures(m).distributions[0].buckets[0].at_most = f64::NAN;
        }),
        ("figures.gauges[0].max", |m| figures(m).gauges[0].max = None),
        ("figures.gauges[0].last", |m| {
            figures(m).gauges[0].last = Some(-7.0)
        }),
        ("figures.absent[0].name", |m| {
            figures(m).absent[0].name = "requests_wating".to_owned();
        }),
        ("figures.series[0].numerators", |m| {
            figures(m).series[0].numerators.pop();
        }),
        ("figures.series[0].end_ticks[1]", |m| {
            figures(m).series[0].end_ticks[1] = 0
        }),
        ("figures.series[0].denominators[2]", |m| {
            figures(m).series[0].denominators[2] = f64::NAN;
        }),
        ("figures.series[0].start_ticks", |m| {
            figures(m).series[0].start_ticks = vec![0; 300_000];
        }),
        ("replicas[0].figures", |m| m.replicas[0].figures = None),
        ("replicas[0].figures.gauges[0].min", |m| {
            m.replicas[0].figures.as_mut().unwrap().gauges[0].min = Some(f64::NAN);
        }),
        ("replicas[0].dropped_intervals[0].start_time", |m| {
            m.replicas[0].dropped_intervals = vec![pb::DroppedInterval::default()];
        }),
        ("replicas", |m| m.replicas = vec![m.replicas[0].clone(); 65]),
        ("notes[0].code", |m| m.notes = vec![pb::Note::default()]),
    ];
    for (field, change) in cases {
        let mut wrong = good.clone();
        change(&mut wrong);
        let expected = format!("candidate.{field}");
        let found = refused(Some(good.clone()), Some(wrong)).await;
        assert_eq!(found, [expected]);
    }
    let again = pb::CompareMetricsRequest {
        baseline: Some(good.clone()),
        candidate: Some(good),
    };
    client
        .compare_metrics(again)
        .await
        .expect("the next call works");
}

/// Numbers that clients send by mistake or on purpose, among others.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        prop::sample::select(vec![
            0.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            f64::NAN,
            f64::INFINITY
        ]),
        0.0..1e3,
    ]
}

fn idle() -> &'static pb::Measurement {
    static IDLE: OnceLock<pb::Measurement> = OnceLock::new();
    IDLE.get_or_init(|| wire("vllm-0.32.0/a-idle"))
}

proptest! {
    #[test]
    fn no_numbers_make_it_panic_or_give_what_is_none(
        values in prop::collection::vec((number(), number()), 0..12),
        others in prop::collection::vec((0.0f64..1e-300, 0.0f64..1e300), 0..12),
        level in number(),
    ) {
        let side = |values: &[(f64, f64)], level: f64| {
            let mut measurement = idle().clone();
            let figures = measurement.figures.as_mut().unwrap();
            let count = u32::try_from(values.len()).unwrap();
            for name in ["generation_tokens_per_second", "queue_time_seconds"] {
                figures.series.retain(|one| one.name != name);
                figures.series.push(pb::Series {
                    name: name.to_owned(),
                    start_ticks: (0..count).collect(),
                    end_ticks: (1..=count).collect(),
                    numerators: values.iter().map(|(numerator, _)| *numerator).collect(),
                    denominators: values.iter().map(|(_, denominator)| *denominator).collect(),
                });
            }
            figures.quantities.push(pb::Quantity {
                name: "request_failure_ratio".to_owned(),
                bound: Some(pb::quantity::Bound::Value(level)),
                basis: 1,
                source_metric: String::new(),
            });
            receive::measurement("side", Some(measurement))
        };
        let sides = (side(&values, level), side(&others, 0.5));
        if let (Ok(one), Ok(other)) = sides {
            for (one, other) in [(&one, &other), (&other, &one), (&one, &one)] {
                for found in compare(one, other).quantities {
                    let bounds = found.ratio_interval.map_or([None; 2], |(low, high)| {
                        [Some(low), Some(high)]
                    });
                    let numbers = [found.ratio, found.p_value, found.smallest_detectable_change_ratio];
                    for number in numbers.into_iter().chain(bounds).flatten() {
                        prop_assert!(!number.is_nan(), "{:?}", found);
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = idle().encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(changed) = pb::Measurement::decode(bytes.as_slice())
            && let Ok(read) = receive::measurement("side", Some(changed))
        {
            compare(&read, &read);
            // what is accepted could have been sent
            let sent = convert::measurement(&read);
            let again = receive::measurement("side", Some(sent.clone()));
            prop_assert_eq!(again.map(|again| convert::measurement(&again)), Ok(sent));
        }
    }
}
