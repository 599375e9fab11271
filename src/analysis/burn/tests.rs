//! Minutes in, burn rates out.

use super::super::minutes::Usage;
use super::*;
use crate::analysis::MAX_SLOS;
use crate::analysis::example::{distribution, gauge, measurement, quantity};
use crate::measure::Figures;
use proptest::prelude::*;

fn slos() -> Vec<Slo> {
    Slo::defaults()
}

/// An SLO with a budget of 1 %.
fn ttft_p99() -> Slo {
    slos().remove(1)
}

/// One pair a minute for that SLO.
fn counted(pairs: &[(u64, f64, f64)]) -> Minutes {
    let slos = [ttft_p99()];
    let mut minutes = Minutes::default();
    for (minute, good, bad) in pairs {
        let pair = GoodBad {
            good: *good,
            bad: *bad,
        };
        minutes.count(&slos, &[Some(pair)], *minute, 1);
    }
    minutes
}

fn only(minutes: &Minutes, now: u64) -> ErrorBudget {
    error_budgets(minutes, &[ttft_p99()], now).pop().unwrap()
}

fn near(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() < 1e-6 * other.abs().max(1.0))
}

#[test]
fn what_counts_as_good_follows_from_the_slo() {
    let busy = measurement(Figures {
        quantities: vec![
            quantity("request_failure_ratio", 0.02),
            quantity("requests_finished_increase", 90.0),
            quantity("requests_rejected_increase", 10.0),
            quantity("generation_tokens_per_second", 40.0),
        ],
        distributions: vec![
            distribution(
                "time_to_first_token_seconds",
                &[0.1, 0.5, 1.0],
                &[60.0, 30.0, 10.0],
            ),
            distribution(
                "inter_token_latency_seconds",
                &[0.05, 0.15, 0.5],
                &[90.0, 10.0, 0.0],
            ),
        ],
        gauges: vec![gauge("requests_waiting", &[2.0, 3.0])],
        ..Figures::default()
    });
    let pair = |good: f64, bad: f64| Some(GoodBad { good, bad });
    let found = good_and_bad(&busy, &slos());
    let rounded: Vec<Option<GoodBad>> = found
        .into_iter()
        .map(|pair| {
            pair.map(|pair| GoodBad {
                good: (pair.good * 1e6).round() / 1e6,
                bad: (pair.bad * 1e6).round() / 1e6,
            })
        })
        .collect();
    assert_eq!(
        rounded,
        [
            pair(60.0, 40.0),
            pair(90.0, 10.0),
            pair(95.0, 5.0),
            pair(98.0, 2.0),
            pair(0.0, 1.0)
        ]
    );
    let budgets: Vec<f64> = slos().iter().map(budget_ratio).collect();
    for (found, meant) in budgets.iter().zip([0.5, 0.01, 0.01, 0.01, 0.01]) {
        assert!((found - meant).abs() < 1e-9, "{budgets:?}");
    }
}

#[test]
fn what_buckets_cannot_divide_is_missing_and_idle_is_not() {
    let coarse = measurement(Figures {
        distributions: vec![distribution("time_to_first_token_seconds", &[0.5], &[10.0])],
        ..Figures::default()
    });
    assert_eq!(good_and_bad(&coarse, &slos())[0], None);
    let all_good = good_and_bad(&coarse, &slos())[1];
    assert_eq!(
        all_good,
        Some(GoodBad {
            good: 10.0,
            bad: 0.0
        })
    );
    let idle = measurement(Figures {
        distributions: vec![distribution("time_to_first_token_seconds", &[0.5], &[0.0])],
        ..Figures::default()
    });
    assert_eq!(good_and_bad(&idle, &slos())[0], Some(GoodBad::default()));
    let mut since_start = coarse;
    since_start.window.kind = crate::measure::WindowKind::SinceStart;
    assert_eq!(good_and_bad(&since_start, &slos()), [None; 5]);
    let mut minutes = Minutes::default();
    minutes.record(&since_start, &slos(), 7, 1);
    assert_eq!(minutes, Minutes::default());
}

#[test]
fn a_burn_rate_says_how_much_of_its_window_is_known() {
    let minutes = counted(&[(100, 95.0, 5.0), (101, 95.0, 5.0)]);
    let budget = only(&minutes, 101);
    assert!(near(budget.fast.short.rate, 5.0), "{budget:?}");
    assert_eq!(budget.fast.short.covered_minutes, 2);
    assert_eq!(budget.fast.long.covered_ratio(), 2.0 / 60.0);
    assert_eq!(budget.slow.long.window_minutes, 360);
    // two minutes at five times the rate have spent ten of 360 minutes' budget
    assert!(near(budget.left_ratio, 1.0 - 10.0 / 360.0));
    // the minute that has just begun is not missing yet
    assert_eq!(only(&minutes, 102), budget);
    assert_eq!(only(&minutes, 103).fast.short.covered_minutes, 2);
    assert_eq!(only(&minutes, 106).fast.short.rate, None);
    assert_eq!(only(&minutes, 106).fast.firing, None);
    assert_eq!(only(&Minutes::default(), 1).left_ratio, None);
}

#[test]
fn both_windows_must_burn_for_an_alarm() {
    let hour = |bad: f64, from: u64| -> Vec<(u64, f64, f64)> {
        (from..from + 60)
            .map(|minute| (minute, 100.0 - bad, bad))
            .collect()
    };
    let fast = |minutes: &[(u64, f64, f64)], now| only(&counted(minutes), now).fast.firing;
    assert_eq!(fast(&hour(20.0, 0), 59), Some(true));
    assert_eq!(fast(&hour(10.0, 0), 59), Some(false));
    let mut over = hour(20.0, 0);
    over.extend((60..65).map(|minute| (minute, 100.0, 0.0)));
    assert_eq!(fast(&over, 64), Some(false), "it has stopped");
    let young: Vec<_> = hour(20.0, 0).into_iter().take(5).collect();
    assert_eq!(
        fast(&young, 4),
        None,
        "the rest of the hour may have been good"
    );
    let all_bad: Vec<_> = hour(100.0, 0).into_iter().take(9).collect();
    assert_eq!(
        fast(&all_bad, 8),
        Some(true),
        "whatever the rest of the hour was"
    );
}

#[test]
fn six_hours_are_kept_in_32_kilobytes() {
    let name = |at: usize| format!("{at}{}", "x".repeat(62));
    let slos: Vec<Slo> = (0..MAX_SLOS)
        .map(|at| Slo {
            name: name(at),
            quantity: "reported_speculation_accepted_length_tokens".to_owned(),
            ..Slo::defaults().remove(0)
        })
        .collect();
    let pairs = [Some(GoodBad {
        good: 1.0,
        bad: 1.0,
    }); MAX_SLOS];
    let mut minutes = Minutes::default();
    let mut most = 0;
    for minute in 0..2_000 {
        minutes = minutes.clone();
        minutes.count(&slos, &pairs, minute, 1);
        most = most.max(minutes.bytes());
    }
    assert!(most <= 32 << 10, "{most} bytes");
    let budget = error_budgets(&minutes, &slos, 1_999).remove(0);
    assert_eq!(budget.slow.long.covered_minutes, 360);
}

#[test]
fn an_slo_that_changed_begins_anew_and_the_others_go_on() {
    let pair = Some(GoodBad {
        good: 99.0,
        bad: 1.0,
    });
    let mut slos = slos();
    slos.truncate(2);
    let mut minutes = Minutes::default();
    for minute in 0..10 {
        minutes.count(&slos, &[pair; 2], minute, 1);
    }
    slos[0].target = 9.0;
    slos.swap(0, 1);
    minutes.count(&slos, &[pair; 2], 10, 1);
    let covered: Vec<u32> = error_budgets(&minutes, &slos, 10)
        .iter()
        .map(|budget| budget.slow.long.covered_minutes)
        .collect();
    assert_eq!(covered, [11, 1]);
}

#[test]
fn peaks_of_use_are_kept() {
    let with = |running: &[f64], kv: Option<f64>| {
        measurement(Figures {
            gauges: std::iter::once(gauge("requests_running", running))
                .chain(kv.map(|kv| gauge("kv_cache_usage_ratio", &[kv])))
                .collect(),
            ..Figures::default()
        })
    };
    let mut minutes = Minutes::default();
    minutes.record(&with(&[1.0, 9.0], None), &[], 10, 1);
    minutes.record(&with(&[2.0], Some(0.25)), &[], 15, 2);
    let usage = minutes.usage(15);
    assert_eq!(
        usage,
        Usage {
            covered_minutes: 3,
            span_minutes: 6,
            peak_running: Some(9.0),
            peak_waiting: None,
            peak_kv_usage_ratio: Some(0.25),
        }
    );
    assert_eq!(minutes.usage(371).peak_running, Some(2.0));
    assert_eq!(minutes.usage(500).covered_minutes, 0);
}

proptest! {
    /// Splitting a stretch that was measured at once into its minutes changes no sum.
    #[test]
    fn splitting_changes_no_sum(
        stretches in prop::collection::vec((1u32..6, 0u32..1_000, 0u32..1_000), 1..40),
    ) {
        let slos = [ttft_p99()];
        let (mut whole, mut split) = (Minutes::default(), Minutes::default());
        let mut end = 0u64;
        for (covers, good, bad) in &stretches {
            let parts = f64::from(*covers);
            let pair = GoodBad { good: f64::from(*good), bad: f64::from(*bad) };
            let part = GoodBad { good: pair.good / parts, bad: pair.bad / parts };
            for at in 1..=u64::from(*covers) {
                split.count(&slos, &[Some(part)], end + at, 1);
            }
            end += u64::from(*covers);
            whole.count(&slos, &[Some(pair)], end, *covers);
        }
        prop_assert_eq!(&whole, &split);
        let sum: f64 = stretches.iter().map(|(_, _, bad)| f64::from(*bad)).sum();
        let (total, covered) = whole.sum(&slos[0], end, 360);
        prop_assert!((total.bad - sum).abs() <= 1e-3 * sum.max(1.0));
        prop_assert_eq!(u64::from(covered), end);
    }

    /// Known minutes in another order say the same, and minutes that are missing spend nothing.
    #[test]
    fn order_changes_nothing_and_missing_minutes_spend_nothing(
        pairs in prop::collection::vec(prop::option::of((0u32..1_000, 0u32..1_000)), 1..300),
        shift in 0usize..300,
    ) {
        let at = |pairs: &[Option<(u32, u32)>]| {
            let known: Vec<(u64, f64, f64)> = pairs.iter().enumerate().filter_map(|(minute, pair)| {
                let (good, bad) = (*pair)?;
                Some((minute as u64, f64::from(good), f64::from(bad)))
            }).collect();
            counted(&known)
        };
        let now = pairs.len() as u64 - 1;
        let mut turned = pairs.clone();
        turned.rotate_left(shift % pairs.len());
        let (before, after) = (at(&pairs), at(&turned));
        if before.last().is_none() {
            prop_assert_eq!(only(&before, now).left_ratio, None);
            return Ok(());
        }
        let (one, other) = (only(&before, now), only(&after, now));
        prop_assert_eq!(one.slow.long, other.slow.long);
        prop_assert_eq!(one.left_ratio, other.left_ratio);
        // as if the missing ones had been good: no budget is below zero because of them
        let (sum, covered) = before.sum(&ttft_p99(), now, 360);
        let all = sum.good + sum.bad;
        let rate = if all > 0.0 { sum.bad / all / one.budget_ratio } else { 0.0 };
        let least = 1.0 - rate * f64::from(covered) / 360.0;
        prop_assert!(near(one.left_ratio, least));
        if covered <= 3 {
            prop_assert!(one.left_ratio.unwrap() >= 0.0, "three minutes cannot spend six hours");
        }
    }
}
