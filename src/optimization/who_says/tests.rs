//! What holds of the settings in force.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::engine::Registry;
use crate::measure::{Basis, Figures, Gauge, Replica, Window, WindowKind};

fn vllm() -> Arc<EngineProfile> {
    Registry::builtin().get("vllm").unwrap().clone()
}

/// What an engine tells, and so many that run at every scrape while others wait.
fn measured(told: &[(&str, Option<&str>, &str)], running: Option<f64>) -> Measurement {
    let gauge = |name: &'static str, min: f64, max: f64| Gauge {
        name: name.into(),
        min,
        mean: (min + max) / 2.0,
        max,
        last: max,
        samples: 5,
        basis: Basis::Exact,
        source: "m".into(),
    };
    let gauges = running.map_or_else(Vec::new, |running| {
        vec![
            gauge("requests_running", running, running),
            gauge("requests_waiting", 3.0, 9.0),
            gauge("kv_cache_usage_ratio", 0.1, 0.3),
        ]
    });
    let figures = Figures {
        gauges,
        ..Figures::default()
    };
    Measurement {
        instance_id: "a".to_owned(),
        engine: "vllm".to_owned(),
        engine_version: Some("0.32.0".to_owned()),
        model_name: None,
        simulated: false,
        window: Window {
            start_unix_seconds: 0.0,
            end_unix_seconds: 60.0,
            kind: WindowKind::Interval,
            observed_seconds: 60.0,
            samples: 5,
        },
        figures: figures.clone(),
        replicas: vec![Replica {
            metrics_url: "http://a/metrics".to_owned(),
            outcome: Ok(figures),
            samples: 5,
            failed_scrapes: 0,
            dropped: Vec::new(),
        }],
        settings: told
            .iter()
            .map(|(name, value, source)| Setting {
                name: (*name).to_owned(),
                flag: String::new(),
                value: value.map(str::to_owned),
                source: (*source).to_owned(),
            })
            .collect(),
        notes: Vec::new(),
    }
}

fn arguments(line: &str) -> DeclaredSettings {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    DeclaredSettings::from_arguments(&vllm(), &words)
}

fn known(value: &str) -> SettingValue {
    SettingValue::Known(value.to_owned())
}

#[test]
fn the_engine_is_believed_before_anybody_else() {
    let measurement = measured(
        &[
            (
                "gpu_memory_utilization",
                Some("0.90"),
                "vllm:cache_config_info",
            ),
            ("max_num_seqs", Some("8"), "/server_info"),
            ("quantization", None, "/server_info"),
        ],
        Some(4.0),
    );
    let in_force = InForce::of(
        &vllm(),
        Some((&measurement, &Thresholds::default())),
        None,
        &arguments("m --max-num-seqs 256 --stream-interval 2"),
    );
    let utilization = in_force.get("gpu_memory_utilization").unwrap();
    assert_eq!(utilization.value, known("0.9"));
    assert_eq!(
        utilization.source,
        SettingSource::Metric("vllm:cache_config_info".to_owned())
    );
    let cap = in_force.get("max_num_seqs").unwrap();
    assert_eq!(cap.value, known("8"));
    assert_eq!(
        cap.source,
        SettingSource::Endpoint("/server_info".to_owned())
    );
    assert!(cap.hint.as_deref().unwrap().contains("the engine says 8"));
    assert_eq!(
        in_force.get("quantization").unwrap().value,
        SettingValue::NotSet
    );
    let interval = in_force.get("stream_interval").unwrap();
    assert_eq!(
        (&interval.value, &interval.source),
        (&known("2"), &SettingSource::Declared)
    );
    assert_eq!(in_force.number(&["stream_interval"]), Some(2.0));
    // of this version
    assert!(in_force.get("swap_space").is_none());
}

#[test]
fn a_cap_that_shows_is_inferred_and_contradicts_what_is_declared() {
    let measurement = measured(&[], Some(4.0));
    let nothing = DeclaredSettings::default();
    let in_force = InForce::of(
        &vllm(),
        Some((&measurement, &Thresholds::default())),
        None,
        &nothing,
    );
    let cap = in_force.get("max_num_seqs").unwrap();
    assert_eq!(cap.value, known("4"));
    assert!(matches!(&cap.source, SettingSource::Inferred(why) if why.contains("4 requests run")));
    let declared = arguments("m --max-num-seqs 256");
    let in_force = InForce::of(
        &vllm(),
        Some((&measurement, &Thresholds::default())),
        None,
        &declared,
    );
    let cap = in_force.get("max_num_seqs").unwrap();
    assert_eq!(
        (&cap.value, &cap.source),
        (&known("256"), &SettingSource::Declared)
    );
    assert!(
        cap.hint
            .as_deref()
            .unwrap()
            .starts_with("It is declared to be 256, but 4 requests run")
    );
}

#[test]
fn a_default_counts_where_it_is_certain_and_nothing_else_can_have_set_it() {
    let version = Some(Version::new(0, 32, 0));
    let of = |declared: &DeclaredSettings, version| InForce::of(&vllm(), None, version, declared);
    let complete = of(&arguments("m --max-num-seqs 4"), version);
    let utilization = complete.get("gpu_memory_utilization").unwrap();
    assert_eq!(utilization.value, known("0.92"));
    assert_eq!(
        utilization.source,
        SettingSource::Default("0.92, the default of vLLM 0.32.0.".to_owned())
    );
    assert_eq!(utilization.hint, None);
    assert_eq!(
        complete.get("max_num_queued_reqs").unwrap().value,
        SettingValue::NotSet
    );
    // tiered by hardware
    let budget = complete.get("max_num_batched_tokens").unwrap();
    assert_eq!(budget.value, SettingValue::Unknown);
    assert!(
        matches!(&budget.source, SettingSource::Default(says) if says.starts_with("2048 or 8192 or 16384, by the GPU"))
    );
    assert!(
        budget
            .hint
            .as_deref()
            .unwrap()
            .contains("VLLM_SERVER_DEV_MODE=1")
    );
    // of which version is not known
    let any = of(&arguments("m --max-num-seqs 4"), None);
    assert_eq!(
        any.get("gpu_memory_utilization").unwrap().value,
        SettingValue::Unknown
    );
    assert_eq!(any.get("watermark").unwrap().value, known("0"));
    // anybody may have set it
    let nothing = of(&DeclaredSettings::default(), version);
    assert!(
        nothing
            .settings
            .iter()
            .all(|setting| setting.value == SettingValue::Unknown)
    );
    assert!(
        nothing
            .settings
            .iter()
            .all(|setting| setting.hint.is_some())
    );
    let utilization = nothing.get("gpu_memory_utilization").unwrap();
    assert!(
        matches!(&utilization.source, SettingSource::Default(says) if says.ends_with("unless a launch argument says otherwise."))
    );
}

#[test]
fn a_request_says_what_runs_now() {
    let config = BTreeMap::from([("max_batch_size".to_owned(), Some("32".to_owned()))]);
    let (request, notes) = DeclaredSettings::from_config(&vllm(), &config);
    assert!(notes.is_empty());
    let declared = arguments("m --max-num-seqs 4").with(request);
    let in_force = InForce::of(&vllm(), None, None, &declared);
    assert_eq!(in_force.get("max_num_seqs").unwrap().value, known("32"));
}
