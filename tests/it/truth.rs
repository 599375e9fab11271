//! Numbers against what a client measured at the same time, and against the counters themselves.

use perfagent::engine::Quantity;
use perfagent::measure::{Basis, Bounded, DERIVED, NoteCode, WindowKind};

use crate::captures::{self, capture};

/// There a chunk is not a token.
const CHUNKS_ARE_NOT_TOKENS: [&str; 2] = ["vllm-0.32.0/h-spec-ngram", "tgi-3.3.6/d-overload"];

#[test]
fn tokens_a_second_agree_with_the_client() {
    let mut compared = 0;
    for capture in captures::all() {
        if CHUNKS_ARE_NOT_TOKENS.contains(&capture.name.as_str()) {
            continue;
        }
        let truth = capture.client_window();
        let measured = capture.measure(truth.from, truth.to);
        let rate = measured
            .figures
            .value("generation_tokens_per_second")
            .expect(&capture.name);
        let off = (rate - truth.chunks_per_second).abs();
        assert!(
            off <= 0.05 * truth.chunks_per_second,
            "{}: {rate} tokens/s, the client saw {}",
            capture.name,
            truth.chunks_per_second
        );
        compared += 1;
    }
    assert!(compared >= 25, "only {compared} captures");
}

/// The value of a series in a body, found by text alone.
pub fn series(body: &[u8], start: &str) -> f64 {
    let text = String::from_utf8(body.to_vec()).unwrap();
    text.lines()
        .filter(|line| line.starts_with(start))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[test]
fn means_are_the_differences_of_sum_over_count() {
    for (name, quantity, family) in [
        (
            "vllm-0.32.0/c-saturation",
            Quantity::TimeToFirstToken,
            "vllm:time_to_first_token_seconds",
        ),
        (
            "vllm-0.8.5-v0/c-saturation",
            Quantity::InterTokenLatency,
            "vllm:time_per_output_token_seconds",
        ),
        (
            "sglang-0.5.23/c-saturation",
            Quantity::EndToEndLatency,
            "sglang:e2e_request_latency_seconds",
        ),
        (
            "tgi-3.3.6/c-saturation",
            Quantity::QueueTime,
            "tgi_request_queue_duration",
        ),
    ] {
        let capture = capture(name);
        let (before, after) = (capture.body(1), capture.body(4));
        let rise = |part: &str| {
            let start = format!("{family}_{part}");
            series(&after, &start) - series(&before, &start)
        };
        let measured = capture.measure(1, 4);
        let distribution = measured.figures.distribution(quantity).expect(name);
        assert_eq!(distribution.count, rise("count"), "{name}");
        // summed interval by interval: equal but for rounding
        let expected = rise("sum") / rise("count");
        let mean = distribution.mean.unwrap();
        assert!(
            (mean - expected).abs() <= 1e-12 * expected,
            "{name}: {mean} {expected}"
        );
    }
}

#[test]
fn quantiles_lie_in_their_bucket_in_every_capture() {
    let mut seen = 0;
    for capture in captures::all() {
        let measured = capture.measure(1, capture.scrapes());
        for distribution in &measured.figures.distributions {
            let total: f64 = distribution.buckets.iter().map(|bucket| bucket.count).sum();
            for quantile in &distribution.quantiles {
                let mut below = 0.0;
                let bucket = distribution
                    .buckets
                    .iter()
                    .find(|bucket| {
                        below += bucket.count;
                        below >= quantile.q * total
                    })
                    .unwrap();
                let inside = match quantile.value {
                    Bounded::Value(value) => {
                        bucket.above.unwrap_or(0.0) <= value && value <= bucket.at_most
                    }
                    Bounded::AtMost(value) => bucket.above.is_none() && value == bucket.at_most,
                    Bounded::AtLeast(value) => bucket.above == Some(value),
                };
                assert!(
                    inside,
                    "{}: {} {quantile:?} {bucket:?}",
                    capture.name, distribution.name
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "only {seen} quantiles");
}

#[test]
fn buckets_and_counts_agree_in_every_capture() {
    for capture in captures::all() {
        let measured = capture.measure(1, capture.scrapes());
        for distribution in &measured.figures.distributions {
            if distribution.buckets.is_empty() {
                continue;
            }
            let total: f64 = distribution.buckets.iter().map(|bucket| bucket.count).sum();
            assert_eq!(
                total, distribution.count,
                "{} {}",
                capture.name, distribution.name
            );
        }
    }
}

#[test]
fn no_real_engine_exports_a_line_that_cannot_be_read() {
    for capture in captures::all() {
        for n in 1..=capture.scrapes() {
            let sample = capture.sample(n);
            assert!(sample.out_of_range.is_empty(), "{} {n}", capture.name);
            assert!(!sample.simulated, "{} {n}", capture.name);
            // the reader is strict here, so a bad line would have been an error
            assert_eq!(sample.bad_lines, 0);
        }
        let dropped = &capture.measure(1, capture.scrapes()).replicas[0].dropped;
        assert!(dropped.is_empty(), "{}: {dropped:?}", capture.name);
    }
}

#[test]
fn saturation_is_seen_for_what_it_is() {
    let measured = capture("vllm-0.32.0/c-saturation").measure(1, 4);
    let figures = &measured.figures;
    assert_eq!(measured.engine_version.as_deref(), Some("0.32.0"));
    assert_eq!(measured.model_name.as_deref(), Some("tiny"));
    let running = figures.gauge(Quantity::RequestsRunning).unwrap();
    assert!(running.max <= 4.0 && running.mean >= 3.0, "{running:?}");
    assert_eq!(figures.gauge(Quantity::RequestsWaiting).unwrap().last, 28.0);
    // usage is a share of 1 in spite of its name
    assert!(figures.gauge(Quantity::KvCacheUsage).unwrap().max < 0.01);
    assert_eq!(figures.value("preemptions_increase"), Some(0.0));
    assert_eq!(figures.value("requests_length_increase"), Some(96.0));
    // nothing was looked up in vain: 0 of some, not 0 of 0
    assert_eq!(figures.value("prefix_cache_hit_ratio"), Some(0.0));
}

#[test]
fn old_names_are_the_same_quantities() {
    let v0 = capture("vllm-0.8.5-v0/c-saturation").measure(1, 4).figures;
    let usage = v0.gauge(Quantity::KvCacheUsage).unwrap();
    assert_eq!(&*usage.source, "vllm:gpu_cache_usage_perc");
    assert!(usage.max > 0.0);
    let gap = v0.distribution(Quantity::InterTokenLatency).unwrap();
    assert_eq!(&*gap.source, "vllm:time_per_output_token_seconds");
    // the per-request time per token is another quantity, which V0 does not export: it follows from others
    let derived = v0.distribution(Quantity::TimePerOutputToken).unwrap();
    assert_eq!(derived.basis, Basis::Approximate);
    assert!(derived.quantiles.is_empty());
    let (gap, derived) = (gap.mean.unwrap(), derived.mean.unwrap());
    assert!((gap / derived - 1.0).abs() < 0.1, "{gap} {derived}");

    // 0.10.1 has both names, with equal values: they are not added up
    let both = capture("vllm-0.10.1/c-saturation");
    let usage = both
        .measure(1, 4)
        .figures
        .gauge(Quantity::KvCacheUsage)
        .unwrap()
        .clone();
    assert_eq!(&*usage.source, "vllm:kv_cache_usage_perc");
    assert!(usage.max <= 1.0);
    assert_eq!(
        usage.last,
        series(&both.body(4), "vllm:kv_cache_usage_perc")
    );
}

#[test]
fn an_idle_lazy_engine_is_at_zero_and_says_why() {
    // SGLang's request families appear at first use; its other families prove version and engine
    let idle = capture("sglang-0.5.23/a-idle").measure(1, 2).figures;
    let finished = idle.quantity("requests_finished_total").unwrap();
    assert_eq!(finished.value, Bounded::Value(0.0));
    assert_eq!(finished.basis, Basis::ImpliedZero);
    let first_token = idle.distribution(Quantity::TimeToFirstToken).unwrap();
    assert_eq!((first_token.count, first_token.mean), (0.0, None));
    // nothing over nothing is no ratio
    assert_eq!(idle.quantity("prefix_cache_hit_ratio"), None);

    // an idle TGI exports nothing at all, and only /info proves what it is
    let tgi = capture("tgi-3.3.6/a-idle");
    let measured = tgi.measure(1, 3);
    assert_eq!(measured.engine_version.as_deref(), Some("3.3.6-dev0"));
    assert_eq!(
        measured.figures.value("generation_tokens_per_second"),
        Some(0.0)
    );
    assert!(
        measured
            .notes
            .iter()
            .any(|note| note.code == NoteCode::Idle)
    );
    // without it nothing is known, and nothing is zero
    let mut replica = tgi.replica(vec![tgi.sample(1), tgi.sample(2)]);
    replica.probed = Default::default();
    let unproven = tgi.measure_replicas(vec![replica], WindowKind::Interval);
    assert_eq!(unproven.figures.quantities, []);
    assert!(!unproven.figures.absent.is_empty());
}

#[test]
fn what_is_not_exported_is_absent_with_its_reason() {
    let absent = |name: &str, quantity: Quantity| {
        let figures = capture(name).measure(1, 2).figures;
        assert!(figures.gauge(quantity).is_none());
        assert!(figures.distribution(quantity).is_none());
        let found = figures
            .absent
            .iter()
            .find(|absence| absence.quantity == quantity);
        found
            .unwrap_or_else(|| panic!("{name} {}", quantity.name()))
            .clone()
    };
    let by_reason = absent(
        "vllm-0.10.1/c-saturation",
        Quantity::RequestsWaitingCapacity,
    );
    assert_eq!(
        by_reason.hint.as_deref(),
        Some("vLLM exports it since 0.20.0")
    );
    assert!(
        absent("tgi-3.3.6/b-light", Quantity::InterTokenLatency)
            .reason
            .contains("TGI")
    );
    assert!(
        absent("tgi-3.3.6/b-light", Quantity::KvCacheUsage)
            .reason
            .contains("budget")
    );
    // an error reason that 0.10 does not have is not the same as no errors
    let errors = capture("vllm-0.10.1/c-saturation").measure(1, 2).figures;
    assert_eq!(errors.quantity("requests_errored_total"), None);
}

#[test]
fn speculation_and_prefix_cache_as_driven() {
    let speculating = capture("vllm-0.32.0/h-spec-ngram").measure(1, 3).figures;
    let acceptance = speculating.value("speculation_acceptance_ratio").unwrap();
    assert!((0.0..=1.0).contains(&acceptance), "{acceptance}");
    assert!(
        speculating
            .value("speculation_accepted_length_tokens")
            .unwrap()
            >= 1.0
    );
    // one event carries several tokens: the gap between events is not the time per token
    let events = speculating
        .distribution(Quantity::InterTokenLatency)
        .unwrap()
        .count;
    assert!(events < speculating.value("generation_tokens_increase").unwrap());

    let shared = capture("sglang-0.5.23/e-prefix-on").measure(1, 3).figures;
    let hits = shared.value("prefix_cache_hit_ratio").unwrap();
    assert!((0.95..0.99).contains(&hits), "{hits}");
}

#[test]
fn preemption_is_a_rate_and_kv_a_track() {
    let pressed = capture("vllm-0.32.0/d-kv-pressure").measure(1, 3).figures;
    assert!(pressed.value("preemptions_increase").unwrap() > 0.0);
    let usage = pressed.gauge(Quantity::KvCacheUsage).unwrap();
    // one instant shows 0.65 between 0.89 and 0.95
    assert!(usage.min < 0.7 && usage.max > 0.85, "{usage:?}");
    let retracted = capture("sglang-0.5.23/d-kv-pressure").measure(1, 4).figures;
    assert!(retracted.value("preemptions_total").unwrap() > 0.0);
}

#[test]
fn a_dead_engine_core_is_not_idle() {
    // /metrics goes on with frozen values while requests hang
    let dead = capture("vllm-0.10.1/x-engine-core-dead");
    let measured = dead.measure(4, 5);
    assert!(
        measured
            .notes
            .iter()
            .any(|note| note.code == NoteCode::HeldWithoutProgress)
    );
    let alive = capture("vllm-0.10.1/c-saturation").measure(1, 4);
    assert!(
        !alive
            .notes
            .iter()
            .any(|note| note.code == NoteCode::HeldWithoutProgress)
    );
}

#[test]
fn overload_is_rejections_and_not_success() {
    let figures = capture("tgi-3.3.6/d-overload").measure(1, 3).figures;
    let rejected = figures.value("requests_rejected_increase").unwrap();
    // 626 by the client's count, which ends a moment apart from the scrapes
    assert!((rejected - 626.0).abs() <= 20.0, "{rejected}");
    assert!(figures.value("request_failure_ratio").unwrap() > 0.8);
}

#[test]
fn clients_that_go_away_are_told_although_vllm_does_not_count_them() {
    let capture = capture("vllm-0.32.0/b-light");
    let last = capture.scrapes();
    // the last scrape is after the drain
    let figures = capture.measure(1, last).figures;
    let running = figures.gauge(Quantity::RequestsRunning).unwrap();
    assert_eq!(running.last, 0.0);
    match figures
        .quantity("requests_disconnected_increase")
        .unwrap()
        .value
    {
        Bounded::AtMost(most) => assert!(most >= 0.0 && most <= running.max, "{most}"),
        other => panic!("{other:?}: something ran at the first scrape"),
    }
    let aborted = figures.quantity("requests_aborted_increase").unwrap();
    assert_eq!(aborted.basis, Basis::Approximate);
    // idle at both ends: five first tokens without a finish are five clients that went
    let (before, mut after) = (capture.sample(last), capture.sample(last));
    after.at_unix_seconds += 10.0;
    let profile = capture.profile();
    for reading in &mut after.distributions {
        let quantity = profile.aliases[reading.alias].quantity;
        if quantity == Quantity::TimeToFirstToken {
            reading.count += 5.0;
        }
    }
    let idle = |samples| {
        capture
            .measure_samples(samples, WindowKind::Interval)
            .figures
    };
    let gone = idle(vec![before.clone(), after.clone()]);
    let value = |figures: &perfagent::measure::Figures| {
        figures
            .quantity("requests_disconnected_increase")
            .unwrap()
            .value
    };
    assert_eq!(value(&gone), Bounded::Value(5.0));
}

#[test]
fn every_name_that_is_shown_is_described() {
    let described = |name: &str| {
        let counter = ["_total", "_increase", "_per_second"]
            .iter()
            .find_map(|suffix| Quantity::from_name(name.strip_suffix(suffix)?));
        counter.is_some() || DERIVED.iter().any(|(derived, _)| *derived == name)
    };
    let mut shown = std::collections::BTreeSet::new();
    for capture in captures::all() {
        for value in capture.measure(1, capture.scrapes()).figures.quantities {
            assert!(described(&value.name), "{}", value.name);
            shown.insert(value.name);
        }
    }
    for (name, _) in DERIVED
        .iter()
        .filter(|(name, _)| !name.starts_with("external"))
    {
        assert!(shown.contains(*name), "no capture shows {name}");
    }
}
