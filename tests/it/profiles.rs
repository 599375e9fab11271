//! Engine profiles against what published packages declare, and what their endpoints say.

use std::fs;
use std::path::Path;

use perfagent::engine::{Part, QuantityKind, Registry, Term, Version, read_endpoint};
use serde::Deserialize;

use crate::captures::{self, capture};

#[derive(Deserialize)]
struct Facts {
    engine: String,
    version: String,
    metrics: Vec<Fact>,
}

#[derive(Deserialize)]
struct Fact {
    name: String,
    r#type: String,
    labels: Vec<String>,
}

/// What tests/tools/extract_metric_names.py read from each package.
fn facts() -> Vec<(Version, Facts)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engine-metrics");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let facts: Facts = serde_json::from_str(&text).unwrap();
        all.push((facts.version.parse().unwrap(), facts));
    }
    assert_eq!(all.len(), 8);
    all
}

fn declares(facts: &Facts, term: &Term, kind: QuantityKind) -> bool {
    let wanted = match (&term.part, kind) {
        (Part::Distribution | Part::Sum | Part::Count, _) => "histogram",
        (Part::Label(_), _) => "gauge",
        (Part::Value, QuantityKind::Counter) => "counter",
        (Part::Value, _) => "gauge",
    };
    facts.metrics.iter().any(|fact| {
        fact.name == term.family
            && fact.r#type == wanted
            && term.only.iter().all(|filter| {
                // labels that come from a dictionary at run time are not seen in the source
                fact.labels.is_empty() || fact.labels.iter().any(|label| *label == filter.label)
            })
    })
}

#[test]
fn aliases_occur_in_published_packages() {
    let all = facts();
    let registry = Registry::builtin();
    let mut problems = Vec::new();
    for engine in ["vllm", "sglang"] {
        let profile = registry.get(engine).unwrap();
        let packages: Vec<_> = all
            .iter()
            .filter(|(_, facts)| facts.engine == engine)
            .collect();
        for alias in profile
            .aliases
            .iter()
            .filter(|alias| alias.unsupported.is_none())
        {
            let claimed: Vec<_> = packages
                .iter()
                .filter(|(version, _)| alias.covers(*version))
                .collect();
            let kind = alias.quantity.kind();
            let some_required = alias.terms.iter().any(|term| term.required);
            let needed = |term: &&Term| !some_required || term.required;
            let has = |facts: &Facts| {
                let mut terms = alias.terms.iter().filter(needed);
                terms.all(|term| declares(facts, term, kind))
            };
            for term in alias.terms.iter().filter(|term| !needed(term)) {
                if !packages
                    .iter()
                    .any(|(_, facts)| declares(facts, term, kind))
                {
                    problems.push(format!("{engine}, in no version: {}", term.describe()));
                }
            }
            if claimed.is_empty() {
                // a short life between two of the packages read
                continue;
            }
            for (version, facts) in claimed {
                if !has(facts) {
                    problems.push(format!(
                        "{engine} {version}: {} {}",
                        alias.quantity.name(),
                        alias.describe()
                    ));
                }
            }
        }
    }
    assert!(
        problems.is_empty(),
        "not declared:\n{}",
        problems.join("\n")
    );
}

#[test]
fn every_quantity_of_a_full_version_is_declared_under_some_name() {
    // what the packages of fully supported versions declare must be reachable: the other direction
    let all = facts();
    let registry = Registry::builtin();
    for (version, facts) in &all {
        let profile = registry.get(&facts.engine).unwrap();
        let reached = |name: &str| {
            profile
                .aliases
                .iter()
                .filter(|alias| alias.covers(*version))
                .any(|alias| alias.terms.iter().any(|term| term.family == name))
        };
        let needed: &[&str] = match facts.engine.as_str() {
            "vllm" => &[
                "vllm:num_requests_running",
                "vllm:num_requests_waiting",
                "vllm:generation_tokens",
                "vllm:prompt_tokens",
                "vllm:request_success",
                "vllm:time_to_first_token_seconds",
                "vllm:e2e_request_latency_seconds",
            ],
            _ => &[
                "sglang:num_running_reqs",
                "sglang:num_queue_reqs",
                "sglang:token_usage",
                "sglang:prompt_tokens",
                "sglang:generation_tokens",
                "sglang:num_requests",
                "sglang:time_to_first_token_seconds",
                "sglang:e2e_request_latency_seconds",
            ],
        };
        for name in needed {
            assert!(
                facts.metrics.iter().any(|fact| fact.name == *name),
                "{version} {name}"
            );
            assert!(reached(name), "{} {version}: {name}", facts.engine);
        }
    }
}

#[test]
fn settings_come_with_their_source() {
    let setting = |name: &str, knob: &str| {
        let measured = capture(name).measure(1, 2);
        let found = measured
            .settings
            .iter()
            .find(|setting| setting.name == knob);
        found.map(|setting| (setting.value.clone(), setting.source.clone()))
    };
    let some = |value: &str, source: &str| Some((Some(value.to_owned()), source.to_owned()));
    let vllm = "vllm-0.32.0/c-saturation";
    assert_eq!(setting(vllm, "max_num_seqs"), some("4", "/server_info"));
    assert_eq!(
        setting(vllm, "block_size"),
        some("128", "vllm:cache_config_info")
    );
    assert_eq!(
        setting(vllm, "enable_prefix_caching"),
        some("true", "vllm:cache_config_info")
    );
    // up to 0.10 the configuration comes as Python prints it
    let printed = "vllm-0.10.1/c-saturation";
    assert_eq!(
        setting(printed, "max_model_len"),
        some("4096", "/server_info")
    );
    assert_eq!(
        setting(printed, "enforce_eager"),
        some("true", "/server_info")
    );
    assert_eq!(setting(printed, "max_num_seqs"), None);
    // /server_info may be off: the model list still tells the context length
    assert_eq!(
        setting("vllm-0.16.0/c-saturation", "max_model_len"),
        some("4096", "/v1/models")
    );
    let sglang = "sglang-0.5.23/c-saturation";
    assert_eq!(
        setting(sglang, "max_running_requests"),
        some("4", "/server_info")
    );
    // null there where the engine chose; the load endpoint tells what
    assert_eq!(
        setting("sglang-0.5.23/a-idle", "max_running_requests"),
        some("2048", "/v1/loads")
    );
    assert_eq!(setting(sglang, "page_size"), some("1", "sglang:page_size"));
    assert_eq!(
        setting(sglang, "disable_radix_cache"),
        some("false", "/server_info")
    );
    assert_eq!(
        setting("tgi-3.3.6/b-light", "max_concurrent_requests"),
        some("128", "/info")
    );
}

#[test]
fn versions_are_read_from_wherever_they_stand() {
    for (name, version) in [
        ("vllm-0.8.5-v0/a-idle", "0.8.5"),
        ("vllm-0.32.0/a-idle", "0.32.0"),
        ("sglang-0.5.23/a-idle", "0.5.23"),
        ("tgi-3.3.6/a-idle", "3.3.6-dev0"),
    ] {
        assert_eq!(
            capture(name).probed().version_text.as_deref(),
            Some(version)
        );
    }
}

#[test]
fn only_known_settings_leave_the_reader() {
    const SECRET: &str = "sk-canary-4711";
    let mut seen = 0;
    for capture in captures::all() {
        let profile = capture.profile();
        for endpoint in &profile.endpoints {
            let Some(mut answer) = capture.answer(&endpoint.path) else {
                continue;
            };
            plant(&mut answer, SECRET);
            let probed = read_endpoint(&profile, &endpoint.path, &answer);
            assert!(
                !format!("{probed:?}").contains(SECRET),
                "{} {}",
                capture.name,
                endpoint.path
            );
            for setting in &probed.settings {
                assert!(profile.knobs.iter().any(|knob| knob.name == setting.name));
            }
            seen += 1;
        }
    }
    assert!(seen > 20);
}

/// Puts a secret under every key that no knob is named for.
fn plant(value: &mut serde_json::Value, secret: &str) {
    match value {
        serde_json::Value::Object(fields) => {
            for key in [
                "api_key",
                "admin_api_key",
                "hf_token",
                "ssl_keyfile_password",
                "new_secret",
            ] {
                fields.insert(key.to_owned(), secret.into());
            }
            fields.values_mut().for_each(|inner| plant(inner, secret));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|inner| plant(inner, secret)),
        _ => {}
    }
}
