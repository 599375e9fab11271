//! Recommendations as a whole: on what real engines printed, and on an engine that took the advice.

use perfagent::analysis::{Aggregation, Side, Slo, Targets, Thresholds, diagnose};
use perfagent::engine::{EngineProfile, Quantity, Registry};
use perfagent::measure::Measurement;
use perfagent::optimization::{
    Advice, DeclaredSettings, InForce, LeftOut, Limits, Optimization, PredictedQuantity,
    Recommendation, Situation, TrackRecord, recommend,
};

use crate::captures::capture;
use crate::diagnosis::{Part, read};

/// What is recommended for what was measured.
fn recommended(profile: &EngineProfile, measurement: &Measurement) -> Recommendation {
    within(profile, measurement, &Limits::default())
}

/// The same, where something must not be done.
fn within(profile: &EngineProfile, measurement: &Measurement, limits: &Limits) -> Recommendation {
    let (thresholds, targets) = (Thresholds::default(), Targets::default());
    let findings = diagnose(measurement, &thresholds, &targets, None).findings;
    let in_force = InForce::of(
        profile,
        Some((measurement, &thresholds)),
        None,
        &DeclaredSettings::default(),
    );
    let situation = Situation {
        profile,
        measurement: Some(measurement),
        findings: &findings,
        in_force: &in_force,
        thresholds: &thresholds,
        targets: &targets,
        limits,
    };
    recommend(&situation, &[], &[], &TrackRecord::default())
}

fn of_capture(name: &str) -> Recommendation {
    let recording = capture(name);
    let measurement = recording.measure(1, recording.scrapes());
    recommended(&recording.profile(), &measurement)
}

#[test]
fn a_saturated_engine_gets_a_higher_cap_and_about_twice_the_tokens() {
    for (name, knob) in [
        ("vllm-0.32.0", "max_num_seqs"),
        ("sglang-0.5.23", "max_running_requests"),
    ] {
        let found = of_capture(&format!("{name}/c-saturation"));
        assert_eq!(found.advice, Advice::Change, "{name}");
        let first = &found.optimizations[0];
        assert_eq!(first.changes[0].name, knob, "{}", first.title);
        let to: f64 = first.changes[0].to.as_ref().unwrap().parse().unwrap();
        assert!(to > 4.0, "{}", first.title);
        let prediction = first.effect.prediction().unwrap();
        let tokens = prediction
            .of(PredictedQuantity::GenerationTokensPerSecond)
            .unwrap();
        // the captures' README: what a client measured before and after
        assert!(
            tokens.ratio_low <= 2.0 && tokens.ratio_high >= 2.0,
            "{name}: {tokens:?}"
        );
        assert!(prediction.basis.simulated_requests >= 1_000);
        let first_token = prediction
            .of(PredictedQuantity::TimeToFirstTokenMean)
            .unwrap();
        assert!(first_token.ratio_high < 0.5, "{name}: {first_token:?}");
    }
}

#[test]
fn a_change_that_would_break_what_must_hold_is_left_out() {
    let recording = capture("vllm-0.32.0/c-saturation");
    let measurement = recording.measure(1, recording.scrapes());
    let gaps = measurement
        .figures
        .distribution(Quantity::InterTokenLatency);
    let now = gaps.unwrap().mean.unwrap();
    let raises = |target: f64| {
        let limits = Limits {
            must_hold: vec![Slo {
                name: "gaps".to_owned(),
                quantity: "inter_token_latency_seconds".to_owned(),
                aggregation: Aggregation::Mean,
                comparison: Side::AtMost,
                target,
                only_while_requests_wait: false,
            }],
            ..Limits::default()
        };
        let found = within(&recording.profile(), &measurement, &limits);
        let changes = found.optimizations.iter().flat_map(|one| &one.changes);
        let raises = changes.clone().any(|change| change.name == "max_num_seqs");
        let broken = |one: &LeftOut| one.reason.contains("`gaps` holds now and would be broken");
        (raises, found.left_out.iter().any(broken))
    };
    // a bigger batch makes each token later
    assert_eq!(raises(now * 1.001), (false, true));
    let (raised, _) = raises(now * 100.0);
    assert!(raised);
}

#[test]
fn want_of_kv_cache_is_treated_by_more_of_it_or_fewer_requests() {
    let found = of_capture("vllm-0.32.0/d-kv-pressure");
    assert!(!found.optimizations.is_empty(), "{}", found.headline);
    let of_cache = |one: &&Optimization| one.lever == "kv_capacity";
    let mut of_cache = found.optimizations.iter().filter(of_cache);
    assert!(
        of_cache.any(|one| one.effect.prediction().is_some()),
        "whatever leads, something of it has numbers: {:#?}",
        found.optimizations
    );
    for one in &found.optimizations {
        for change in &one.changes {
            let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
            let (from, to): (Option<f64>, Option<f64>) = (number(&change.from), number(&change.to));
            match change.name.as_str() {
                "max_num_seqs" | "max_num_batched_tokens" => {
                    assert!(to <= from, "{}", one.title);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn advice_that_was_taken_is_not_given_again() {
    let case = |cap: &str| {
        let text = format!(
            r#"
            [[case]]
            name = "cap"
            why = "Too few may run at once."
            expect = ["SEQUENCE_CAP"]
            engine = "vllm"
            settings_known = true
            load = {{ clients = 24, prompt_tokens = "64..256", output_tokens = "48..128", seed = 5 }}
            timing = {{ fixed_seconds = 0.02, token_seconds = 0.0004, knee_tokens = 8 }}
            settings = {{ max-num-seqs = {cap} }}
            "#
        );
        read(Part::Development, &text).remove(0).measurement()
    };
    let registry = Registry::builtin();
    let profile = registry.get("vllm").unwrap();
    let first = recommended(profile, &case("3"));
    let change = &first.optimizations[0].changes[0];
    assert_eq!(change.name, "max_num_seqs", "{}", first.headline);
    let again = recommended(profile, &case(change.to.as_ref().unwrap()));
    let raised = again.optimizations.iter().any(|one| {
        one.changes
            .iter()
            .any(|change| change.name == "max_num_seqs")
    });
    assert!(!raised, "{} and then {}", first.headline, again.headline);
}

#[test]
fn long_requests_are_simulated_until_enough_have_finished() {
    let text = r#"
        [[case]]
        name = "long"
        why = "Too few may run at once."
        expect = ["SEQUENCE_CAP"]
        engine = "vllm"
        settings_known = true
        load = { clients = 8, prompt_tokens = "1000..2000", output_tokens = "16..48", seed = 5 }
        timing = { fixed_seconds = 0.2, token_seconds = 0.0004, knee_tokens = 8 }
        settings = { max-num-seqs = 2 }
    "#;
    let measurement = read(Part::Development, text).remove(0).measurement();
    let registry = Registry::builtin();
    let found = recommended(registry.get("vllm").unwrap(), &measurement);
    let predictions = found
        .optimizations
        .iter()
        .map(|one| one.effect.prediction());
    let basis = predictions.flatten().map(|one| &one.basis).next();
    let basis = basis.unwrap_or_else(|| panic!("{found:#?}"));
    // a member's window has few of them
    assert!(basis.observed_requests < 100.0, "{basis:?}");
    assert!(basis.simulated_requests >= 1_000, "{basis:?}");
}
