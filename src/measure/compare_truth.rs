//! Comparisons of simulated measurements of which the truth is known.

use std::f64::consts::TAU;

use super::*;
use crate::engine::Quantity;
use proptest::prelude::*;

/// Numbers that look random and are the same each time (SplitMix64, Steele et al., OOPSLA 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

/// How intervals vary.
#[derive(Debug, Clone, Copy)]
enum Noise {
    /// A rate: a level that stays with this autocorrelation, a variation of 10 %.
    Steady { autocorrelation: f64 },
    /// A latency: few requests an interval, their times lognormal, and a level that lasts.
    Skewed { autocorrelation: f64 },
}

const NOISES: [Noise; 4] = [
    Noise::Steady {
        autocorrelation: 0.0,
    },
    Noise::Steady {
        autocorrelation: 0.5,
    },
    Noise::Skewed {
        autocorrelation: 0.0,
    },
    Noise::Skewed {
        autocorrelation: 0.5,
    },
];

impl Noise {
    fn intervals(self, random: &mut Random, count: u32, level: f64) -> Vec<Interval> {
        let (Self::Steady { autocorrelation } | Self::Skewed { autocorrelation }) = self;
        let mut state = random.normal();
        let mut intervals = Vec::new();
        for tick in 0..count {
            let fresh = (1.0 - autocorrelation * autocorrelation).sqrt() * random.normal();
            state = autocorrelation * state + fresh;
            let (numerator, denominator) = match self {
                Self::Steady { .. } => (level * (1.0 + 0.1 * state), 1.0),
                Self::Skewed { .. } => {
                    let requests = 1 + (random.uniform() * 30.0) as u32;
                    let times = (0..requests).map(|_| (0.8 * random.normal()).exp());
                    let sum: f64 = times.sum();
                    (level * sum * (0.2 * state).exp(), f64::from(requests))
                }
            };
            intervals.push(Interval {
                start_tick: tick,
                end_tick: tick + 1,
                numerator,
                denominator,
            });
        }
        intervals
    }
}

const NAMES: [&str; 10] = [
    "generation_tokens_per_second",
    "prompt_tokens_per_second",
    "requests_finished_per_second",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "queue_time_seconds",
    "prefill_time_seconds",
    "decode_time_seconds",
];

/// A saturated engine with these series.
fn measured(series: Vec<Series>) -> Measurement {
    Measurement {
        instance_id: "simulated".to_owned(),
        engine: "vllm".to_owned(),
        engine_version: None,
        model_name: None,
        simulated: false,
        window: Window {
            start_unix_seconds: 0.0,
            end_unix_seconds: 60.0,
            kind: WindowKind::Interval,
            observed_seconds: 60.0,
            samples: 61,
        },
        figures: Figures {
            gauges: vec![Gauge {
                name: Quantity::RequestsWaiting.name().into(),
                min: 1.0,
                mean: 4.0,
                max: 9.0,
                last: 3.0,
                samples: 61,
                basis: Basis::Exact,
                source: "vllm:num_requests_waiting".into(),
            }],
            series,
            ..Figures::default()
        },
        replicas: Vec::new(),
        settings: Vec::new(),
        notes: Vec::new(),
    }
}

fn one(name: &str, intervals: Vec<Interval>) -> Measurement {
    measured(vec![Series {
        name: name.to_owned(),
        intervals,
    }])
}

const LATENCY: &str = "e2e_request_latency_seconds";

fn only(baseline: &Measurement, candidate: &Measurement) -> Comparison {
    let mut found = compare(baseline, candidate).quantities;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// What share of `of` draws may exceed the stated one: three standard errors more.
fn at_most(stated: f64, of: u32) -> f64 {
    stated + 3.0 * (stated * (1.0 - stated) / f64::from(of)).sqrt()
}

#[test]
fn the_same_thing_twice_is_rarely_found_different_and_intervals_hold_the_truth() {
    let draws = 2_000;
    for noise in NOISES {
        for count in [10, 60] {
            let mut random = Random(u64::from(count));
            let (mut different, mut held) = (0, 0);
            for _ in 0..draws {
                let mut side = |level| one(LATENCY, noise.intervals(&mut random, count, level));
                let found = only(&side(2.0), &side(2.0));
                let differs = matches!(found.verdict, Verdict::Improved | Verdict::Regressed);
                different += u32::from(differs);
                let found = only(&side(2.0), &side(3.0));
                let (low, high) = found.ratio_interval.unwrap();
                held += u32::from(low <= 1.5 && 1.5 <= high);
            }
            let (different, held) = (
                f64::from(different) / f64::from(draws),
                f64::from(held) / f64::from(draws),
            );
            assert!(
                different <= at_most(0.05, draws),
                "{noise:?}, {count} intervals: {different} false differences"
            );
            assert!(
                held >= 0.93,
                "{noise:?}, {count} intervals: {held} hold the truth"
            );
        }
    }
}

#[test]
fn many_quantities_at_once_are_no_lottery() {
    let draws = 600;
    for noise in NOISES {
        for count in [10, 60] {
            let mut random = Random(7 + u64::from(count));
            let mut different = 0;
            for _ in 0..draws {
                let mut side = || {
                    let series = NAMES.map(|name| Series {
                        name: name.to_owned(),
                        intervals: noise.intervals(&mut random, count, 2.0),
                    });
                    measured(series.into())
                };
                let found = compare(&side(), &side()).quantities;
                assert_eq!(found.len(), NAMES.len());
                let any = found
                    .iter()
                    .any(|one| matches!(one.verdict, Verdict::Improved | Verdict::Regressed));
                different += u32::from(any);
            }
            let different = f64::from(different) / f64::from(draws);
            assert!(
                different <= at_most(0.05, draws),
                "{noise:?}, {count} intervals: {different} of the comparisons"
            );
        }
    }
}

#[test]
fn a_change_of_thirty_percent_is_found_and_named_rightly() {
    let draws = 400;
    let noise = Noise::Steady {
        autocorrelation: 0.0,
    };
    for (count, noise, least) in [
        // few intervals pay for the doubt about how long things last
        (10, noise, 0.65),
        (20, noise, 0.95),
        (60, noise, 0.99),
        (60, NOISES[1], 0.95),
        (60, NOISES[2], 0.8),
    ] {
        let mut random = Random(u64::from(count));
        let (mut found, mut predicted) = (0, 0);
        for _ in 0..draws {
            let mut side = |level| one(LATENCY, noise.intervals(&mut random, count, level));
            let slower = only(&side(2.0), &side(2.6));
            assert_ne!(slower.verdict, Verdict::Improved);
            found += u32::from(slower.verdict == Verdict::Regressed);
            let change = slower.smallest_detectable_change_ratio.unwrap();
            predicted += u32::from(change <= 0.3);
        }
        let (found, predicted) = (f64::from(found), f64::from(predicted));
        assert!(
            found >= least * f64::from(draws),
            "{noise:?}, {count}: {found}"
        );
        // where it says that so much can be found, it mostly is
        assert!(
            found >= 0.8 * predicted,
            "{noise:?}, {count}: {found}, {predicted}"
        );
    }
}

#[test]
fn directions_are_those_of_the_quantity() {
    let mut random = Random(1);
    let mut side = |name: &str, level| one(name, NOISES[0].intervals(&mut random, 30, level));
    for (name, more) in [
        ("generation_tokens_per_second", Verdict::Improved),
        ("time_to_first_token_seconds", Verdict::Regressed),
        ("request_failure_ratio", Verdict::Regressed),
    ] {
        let found = only(&side(name, 1.0), &side(name, 1.5));
        assert_eq!(found.verdict, more, "{name}");
        assert!((found.ratio.unwrap() - 1.5).abs() < 0.2);
    }
}

fn constant(numerator: f64, count: u32) -> Vec<Interval> {
    let interval = |tick| Interval {
        start_tick: tick,
        end_tick: tick + 1,
        numerator,
        denominator: 10.0,
    };
    (0..count).map(interval).collect()
}

#[test]
fn four_intervals_are_a_ratio_and_no_verdict() {
    let mut short = one(LATENCY, constant(20.0, 4));
    let found = only(&short, &one(LATENCY, constant(30.0, 60)));
    assert_eq!(
        (found.verdict, found.ratio),
        (Verdict::Inconclusive, Some(1.5))
    );
    assert_eq!(
        (found.baseline_intervals, found.candidate_intervals),
        (4, 60)
    );
    let found = only(&short, &short);
    assert_eq!(
        (found.verdict, found.ratio),
        (Verdict::Inconclusive, Some(1.0))
    );
    assert_eq!((found.ratio_interval, found.p_value), (None, None));
    assert!(found.explanation().contains("4 intervals"));
    // intervals without a request tell nothing about requests
    let mut idle = constant(20.0, 4);
    idle.extend(constant(0.0, 40).into_iter().map(|interval| Interval {
        denominator: 0.0,
        ..interval
    }));
    short.figures.series[0].intervals = idle;
    assert_eq!(only(&short, &short).verdict, Verdict::Inconclusive);
}

#[test]
fn failures_out_of_nothing_are_found_though_no_ratio_exists() {
    const FAILURES: &str = "request_failure_ratio";
    let none = one(FAILURES, constant(0.0, 20));
    let mut random = Random(3);
    let some = one(FAILURES, NOISES[0].intervals(&mut random, 20, 0.05));
    let found = only(&none, &some);
    assert_eq!((found.verdict, found.ratio), (Verdict::Regressed, None));
    assert_eq!(only(&some, &none).verdict, Verdict::Improved);
    assert_eq!(only(&none, &none).verdict, Verdict::NoDifferenceShown);
    // one failure in one interval may be chance
    let mut once = constant(0.0, 20);
    once[7].numerator = 1.0;
    let found = only(&none, &one(FAILURES, once));
    assert_eq!(
        found.verdict,
        Verdict::NotComparable(Incomparable::ZeroBaseline)
    );
}

#[test]
fn what_cannot_be_compared_says_why() {
    let steady = one(LATENCY, constant(20.0, 20));
    let why = |change: &dyn Fn(&mut Measurement)| {
        let mut other = steady.clone();
        change(&mut other);
        let found = only(&steady, &other);
        assert!(!found.explanation().is_empty());
        assert!(found.p_value.is_none());
        found.verdict
    };
    let not = Verdict::NotComparable;
    assert_eq!(
        why(&|other| other.engine = "sglang".to_owned()),
        not(Incomparable::EngineDiffers)
    );
    assert_eq!(
        why(&|other| other.simulated = true),
        not(Incomparable::SimulationDiffers)
    );
    assert_eq!(
        why(&|other| other.window.kind = WindowKind::SinceStart),
        not(Incomparable::NoWindow)
    );
    assert_eq!(
        why(&|other| other.figures.series.clear()),
        not(Incomparable::AbsentInCandidate)
    );

    // throughput of an engine that keeps up is what is asked of it
    let name = "generation_tokens_per_second";
    let (slow, fast) = (one(name, constant(10.0, 20)), one(name, constant(20.0, 20)));
    assert_eq!(only(&slow, &fast).verdict, Verdict::Improved);
    let mut unsaturated = fast.clone();
    unsaturated.figures.gauges[0].min = 0.0;
    let found = only(&slow, &unsaturated);
    assert_eq!(found.verdict, not(Incomparable::FollowsLoad));
    assert!(found.ratio_interval.is_some(), "what was seen is told");
    // of two replicas one is idle
    let mut uneven = fast.clone();
    let replica = |figures: &Figures| Replica {
        metrics_url: String::new(),
        outcome: Ok(figures.clone()),
        samples: 61,
        failed_scrapes: 0,
        dropped: Vec::new(),
    };
    uneven.replicas = vec![replica(&fast.figures), replica(&unsaturated.figures)];
    assert_eq!(only(&slow, &uneven).verdict, not(Incomparable::FollowsLoad));
}

#[test]
fn what_else_differs_is_told() {
    let baseline = one(LATENCY, constant(20.0, 20));
    let mut candidate = baseline.clone();
    assert_eq!(compare(&baseline, &candidate).cautions, []);
    candidate.model_name = Some("b".to_owned());
    assert_eq!(
        compare(&baseline, &candidate).cautions,
        [],
        "unknown is not different"
    );
    let mut named = baseline.clone();
    named.model_name = Some("a".to_owned());
    let load = |value| QuantityValue {
        name: "requests_finished_per_second".into(),
        value: Bounded::Value(value),
        basis: Basis::Exact,
        source: "".into(),
    };
    named.figures.quantities.push(load(10.0));
    candidate.figures.quantities.push(load(12.0));
    let codes: Vec<CautionCode> = compare(&named, &candidate)
        .cautions
        .into_iter()
        .map(|caution| caution.code)
        .collect();
    assert_eq!(codes, [CautionCode::ModelDiffers, CautionCode::LoadDiffers]);
}

proptest! {
    #[test]
    fn nothing_differs_from_itself_and_swapping_sides_turns_the_verdict(
        pairs in prop::collection::vec((0.0f64..1e6, 0.0f64..1e3, 0.0f64..1e6), 0..40),
    ) {
        let side = |pick: fn(&(f64, f64, f64)) -> f64| {
            let intervals = pairs.iter().zip(0..).map(|(pair, tick)| Interval {
                start_tick: tick,
                end_tick: tick + 1,
                numerator: pick(pair),
                denominator: pair.1,
            });
            one(LATENCY, intervals.collect())
        };
        let (one, other) = (side(|pair| pair.0), side(|pair| pair.2));
        for found in compare(&one, &one).quantities {
            let differs = matches!(found.verdict, Verdict::Improved | Verdict::Regressed);
            prop_assert!(!differs, "{:?}", found);
            if let Some((low, high)) = found.ratio_interval {
                prop_assert!(low <= 1.0 && 1.0 <= high);
            }
        }
        let there = compare(&one, &other).quantities;
        let back = compare(&other, &one).quantities;
        for (there, back) in there.iter().zip(&back) {
            let turned = match back.verdict {
                Verdict::Improved => Verdict::Regressed,
                Verdict::Regressed => Verdict::Improved,
                same => same,
            };
            prop_assert_eq!(there.verdict, turned);
            for number in [there.ratio, there.p_value, there.smallest_detectable_change_ratio] {
                prop_assert!(number.is_none_or(|number| number.is_finite() && number >= 0.0));
            }
        }
    }
}
