//! A measurement sent back by a client: the same as was sent, or refused with the field that is wrong.

use std::sync::OnceLock;

use perfagent::agent::Reason;
use perfagent::edge::grpc::{convert, pb, receive};
use perfagent::measure::{Measurement, ReplicaFailure, ReplicaSamples, WindowKind, compare};
use proptest::prelude::*;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::captures::{self, Capture};
use crate::compare::{whole, wire};
use crate::errors::Seen;
use crate::fake::TestAgent;

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

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    let violations = details.field_violations.into_iter();
    violations.map(|violation| violation.field).collect()
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
        ("instance_type", |m| m.instance_type = "x".repeat(5_000)),
        ("model_name", |m| m.model_name = Some("x".repeat(5_000))),
        ("figures.absent[0].reason", |m| {
            figures(m).absent[0].reason = "x".repeat(5_000);
        }),
        ("replicas[0].metrics_url", |m| {
            m.replicas[0].metrics_url = "x".repeat(5_000);
        }),
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
        ("replicas[1].figures", |m| {
            // of several each has its own
            m.replicas.push(m.replicas[0].clone());
            m.replicas[0].figures = m.figures.clone();
        }),
        ("replicas[0].figures.gauges[0].min", |m| {
            m.replicas[0].figures = m.figures.clone();
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
