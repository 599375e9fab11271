//! Levers on what real engines printed: saturation asks for a higher cap, want of KV cache never for a bigger batch.

use perfagent::analysis::{Targets, Thresholds, diagnose};
use perfagent::optimization::{
    Family, InForce, LeftOut, Limits, ModelChange, Proposal, SettingInForce, SettingSource,
    SettingValue, Situation, families,
};

use crate::captures::{Capture, capture};

/// What levers say of a whole recording.
fn proposed(recording: &Capture) -> (Vec<Family>, Vec<LeftOut>) {
    let measurement = recording.measure(1, recording.scrapes());
    let (thresholds, targets) = (Thresholds::default(), Targets::default());
    let diagnosis = diagnose(&measurement, &thresholds, &targets, None);
    let settings = measurement.settings.iter().map(|setting| SettingInForce {
        name: setting.name.clone(),
        flag: setting.flag.clone(),
        value: match &setting.value {
            Some(value) => SettingValue::Known(value.clone()),
            None => SettingValue::NotSet,
        },
        source: SettingSource::Endpoint(setting.source.clone()),
        hint: None,
    });
    let version = measurement.engine_version.as_deref();
    let in_force = InForce {
        engine: measurement.engine.clone(),
        version: version.and_then(|version| version.parse().ok()),
        settings: settings.collect(),
    };
    families(&Situation {
        profile: &recording.profile(),
        measurement: Some(&measurement),
        findings: &diagnosis.findings,
        in_force: &in_force,
        thresholds: &thresholds,
        targets: &targets,
        limits: &Limits::default(),
    })
}

fn modelled(proposal: &Proposal) -> &[ModelChange] {
    proposal.expectation.model_changes().unwrap_or_default()
}

/// What the lever proposes where nothing can be predicted.
fn guide<'f>(families: &'f [Family], lever: &str) -> Option<&'f Proposal> {
    let family = families.iter().find(|family| family.lever == lever)?;
    family.alternatives.get(family.without_prediction)
}

#[test]
fn saturation_asks_for_a_higher_cap() {
    for (name, title) in [
        ("vllm-0.8.5-v0", "Raise --max-num-seqs from 4 (seen) to 24"),
        ("vllm-0.10.1", "Raise --max-num-seqs from 4 (seen) to 24"),
        ("vllm-0.16.0", "Raise --max-num-seqs from 4 (seen) to 24"),
        ("vllm-0.32.0", "Raise --max-num-seqs from 4 to 24"),
        ("sglang-0.5.23", "Raise --max-running-requests from 4 to 16"),
    ] {
        let (families, _) = proposed(&capture(&format!("{name}/c-saturation")));
        assert_eq!(guide(&families, "sequence_cap").unwrap().title, title);
    }
}

#[test]
fn want_of_kv_cache_never_asks_for_a_bigger_batch() {
    for name in [
        "vllm-0.8.5-v0",
        "vllm-0.16.0",
        "vllm-0.32.0",
        "sglang-0.5.23",
    ] {
        let (families, _) = proposed(&capture(&format!("{name}/d-kv-pressure")));
        let all = families.iter().flat_map(|family| &family.alternatives);
        for one in all {
            for change in modelled(one) {
                assert!(
                    !matches!(change, ModelChange::TokenBudget(_)),
                    "{name}: {}",
                    one.title
                );
            }
        }
        let more = guide(&families, "kv_capacity").unwrap();
        let [
            ModelChange::KvCapacity {
                low_ratio,
                high_ratio,
            },
        ] = modelled(more)[..]
        else {
            panic!("{more:?}");
        };
        assert!(1.0 < low_ratio && low_ratio <= high_ratio, "{name}");
        let fewer = guide(&families, "sequence_cap").unwrap();
        // at most 14 ran at once in any of them
        assert!(
            matches!(modelled(fewer)[..], [ModelChange::MaxNumSeqs(to)] if to < 14),
            "{name}: {fewer:?}"
        );
    }
}

#[test]
fn an_idle_or_healthy_engine_is_left_alone() {
    for recording in crate::captures::all() {
        if recording.name.ends_with("a-idle") || recording.name.ends_with("b-light") {
            let (families, _) = proposed(&recording);
            assert_eq!(families, [], "{}", recording.name);
        }
    }
    let (families, left_out) = proposed(&capture("vllm-0.10.1/x-engine-core-dead"));
    assert_eq!(families, []);
    assert_eq!(left_out[0].lever, "all");
}
