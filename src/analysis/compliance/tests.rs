//! SLOs against measurements: what is kept, what is missed, and what nobody can tell.

use super::*;
use crate::analysis::example::{distribution, gauge, measurement, quantity};
use crate::measure::WindowKind;
use proptest::prelude::*;

const INF: f64 = f64::INFINITY;

fn ttft(q: f64, target: f64) -> Slo {
    Slo {
        name: "ttft".to_owned(),
        quantity: "time_to_first_token_seconds".to_owned(),
        aggregation: Aggregation::quantile(q),
        comparison: Side::AtMost,
        target,
        only_while_requests_wait: false,
    }
}

fn rate() -> Slo {
    Slo::defaults().pop().unwrap()
}

fn one(figures: Figures, slo: &Slo) -> Compliance {
    let measured = measurement(figures);
    evaluate(&measured, std::slice::from_ref(slo))
        .pop()
        .unwrap()
}

fn with_buckets(bounds: &[f64], counts: &[f64]) -> Figures {
    Figures {
        distributions: vec![distribution("time_to_first_token_seconds", bounds, counts)],
        ..Figures::default()
    }
}

#[test]
fn a_bound_decides_where_it_lies_on_the_right_side() {
    use ComplianceStatus::{Met, Unknown, Violated};
    let fast = || with_buckets(&[0.3, 1.0, INF], &[100.0, 0.0, 0.0]);
    let slow = || with_buckets(&[0.3, 1.0, INF], &[0.0, 0.0, 100.0]);
    let kept = one(fast(), &ttft(0.99, 0.5));
    assert_eq!(
        (kept.status, kept.margin_ratio),
        (Met, Some(Bounded::AtLeast(0.4)))
    );
    assert_eq!(kept.value.unwrap().value, Bounded::AtMost(0.3));
    let open = one(fast(), &ttft(0.99, 0.1));
    assert_eq!(open.status, Unknown);
    assert!(
        open.reason.starts_with("at most 0.3 against p99"),
        "{}",
        open.reason
    );
    let share = open.share_beyond.unwrap();
    assert_eq!((share.at_least, share.at_most), (0.0, 1.0));
    assert_eq!(one(slow(), &ttft(0.99, 0.5)).status, Violated);
    assert_eq!(one(slow(), &ttft(0.99, 3.0)).status, Unknown);
}

#[test]
fn any_quantile_and_the_share_beyond_come_from_the_buckets() {
    let some = || with_buckets(&[0.25, 0.5, 1.0, INF], &[900.0, 90.0, 9.0, 1.0]);
    let p75 = one(some(), &ttft(0.75, 0.25));
    assert_eq!(p75.status, ComplianceStatus::Met);
    let p995 = one(some(), &ttft(0.995, 0.5));
    assert_eq!(p995.status, ComplianceStatus::Violated);
    let value = p995.value.unwrap();
    assert!((value.value.number() - (0.5 + 0.5 * 5.0 / 9.0)).abs() < 1e-9);
    assert_eq!(value.basis, Basis::Interpolated);
    let share = p995.share_beyond.unwrap();
    assert!((share.at_least - 0.01).abs() < 1e-9 && (share.at_most - 0.01).abs() < 1e-9);
    assert!(
        p995.reason.ends_with("1 % are beyond it"),
        "{}",
        p995.reason
    );
    let inside = one(some(), &ttft(0.999, 0.75)).share_beyond.unwrap();
    assert!((inside.at_least - 0.001).abs() < 1e-9 && (inside.at_most - 0.01).abs() < 1e-9);
}

#[test]
fn what_is_missing_is_named_with_its_hint() {
    let absent = Figures {
        absent: vec![Absence {
            quantity: Quantity::TimeToFirstToken,
            reason: "the engine does not export it".into(),
            hint: Some("start it with --enable-metrics".into()),
        }],
        ..Figures::default()
    };
    let unknown = one(absent, &ttft(0.5, 1.0));
    assert_eq!(unknown.status, ComplianceStatus::Unknown);
    let missing = unknown.missing.unwrap();
    assert_eq!(missing.quantity, "time_to_first_token_seconds");
    assert_eq!(
        missing.hint.as_deref(),
        Some("start it with --enable-metrics")
    );
    assert_eq!(unknown.value, None);

    let no_buckets = Figures {
        distributions: vec![Distribution {
            buckets: Vec::new(),
            mean: Some(0.2),
            ..distribution("time_to_first_token_seconds", &[1.0], &[5.0])
        }],
        ..Figures::default()
    };
    assert_eq!(
        one(no_buckets.clone(), &ttft(0.5, 1.0)).status,
        ComplianceStatus::Unknown
    );
    let mean = Slo {
        aggregation: Aggregation::Mean,
        ..ttft(0.5, 1.0)
    };
    assert_eq!(one(no_buckets, &mean).status, ComplianceStatus::Met);
}

#[test]
fn idle_is_no_violation() {
    for slo in Slo::defaults() {
        let idle = Figures {
            quantities: vec![
                quantity("requests_finished_increase", 0.0),
                quantity("requests_errored_increase", 0.0),
                quantity("generation_tokens_per_second", 0.0),
            ],
            distributions: vec![
                distribution("time_to_first_token_seconds", &[1.0], &[0.0]),
                distribution("inter_token_latency_seconds", &[1.0], &[0.0]),
            ],
            gauges: vec![gauge("requests_waiting", &[0.0, 0.0])],
            ..Figures::default()
        };
        let compliance = one(idle, &slo);
        assert_eq!(
            compliance.status,
            ComplianceStatus::NotApplicable,
            "{compliance:?}"
        );
    }
    // what the engine does not tell is not idleness
    let silent = one(Figures::default(), &Slo::defaults().remove(3));
    assert_eq!(silent.status, ComplianceStatus::Unknown);
    assert_eq!(silent.missing.unwrap().quantity, "requests_finished");
}

#[test]
fn tokens_are_owed_only_while_requests_wait() {
    use ComplianceStatus::{Met, Unknown, Violated};
    let with = |rate: f64, waiting: &[f64]| Figures {
        quantities: vec![quantity("generation_tokens_per_second", rate)],
        gauges: vec![gauge("requests_waiting", waiting)],
        ..Figures::default()
    };
    assert_eq!(one(with(20.0, &[3.0, 1.0]), &rate()).status, Violated);
    assert_eq!(one(with(20.0, &[3.0, 0.0]), &rate()).status, Unknown);
    assert_eq!(one(with(200.0, &[3.0, 0.0]), &rate()).status, Met);
    let blind = Figures {
        gauges: Vec::new(),
        ..with(20.0, &[])
    };
    let blind = one(blind, &rate());
    assert_eq!(blind.status, Unknown);
    assert_eq!(blind.missing.unwrap().quantity, "requests_waiting");
    let half = one(with(50.0, &[1.0]), &rate());
    assert_eq!(half.margin_ratio, Some(Bounded::Value(-0.5)));
}

#[test]
fn totals_since_the_start_tell_nothing_of_now() {
    let mut measured = measurement(with_buckets(&[0.3], &[5.0]));
    measured.window.kind = WindowKind::SinceStart;
    let found = evaluate(&measured, &[ttft(0.5, 1.0)]);
    assert!(
        found
            .iter()
            .all(|one| one.status == ComplianceStatus::Unknown)
    );
}

#[test]
fn numbers_have_three_digits() {
    for (value, text) in [
        (0.0, "0"),
        (0.012_345, "0.0123"),
        (0.5, "0.5"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (100.0, "100"),
    ] {
        assert_eq!(short(value), text);
    }
}

proptest! {
    /// What the shares say for certain is what the verdict says.
    #[test]
    fn verdict_and_shares_agree(
        counts in prop::collection::vec(0u32..40, 3..8),
        q in 0.01f64..0.99,
        target in 0.05f64..2.5,
    ) {
        let mut bounds: Vec<f64> = (1..=counts.len()).map(|at| at as f64 * 0.25).collect();
        *bounds.last_mut().unwrap() = INF;
        let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
        let found = one(with_buckets(&bounds, &counts), &ttft(q, target));
        let Some(share) = found.share_beyond else {
            prop_assert_eq!(found.status, ComplianceStatus::NotApplicable);
            return Ok(());
        };
        let q = match found.slo.aggregation { Aggregation::Quantile(q) => q, _ => q };
        prop_assert!(share.at_least <= share.at_most);
        match found.status {
            ComplianceStatus::Met => prop_assert!(share.at_least <= 1.0 - q + 1e-9),
            ComplianceStatus::Violated => prop_assert!(share.at_most >= 1.0 - q - 1e-9),
            _ => {}
        }
        if share.at_most < 1.0 - q - 1e-9 {
            prop_assert_eq!(found.status, ComplianceStatus::Met);
        }
        if share.at_least > 1.0 - q + 1e-9 {
            prop_assert_eq!(found.status, ComplianceStatus::Violated);
        }
    }
}
