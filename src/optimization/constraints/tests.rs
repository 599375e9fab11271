//! What holds of changes that are accepted.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::Registry;
use crate::optimization::declared::DeclaredSettings;
use crate::optimization::strategies;

fn profile(engine: &str) -> Arc<EngineProfile> {
    Registry::builtin().get(engine).unwrap().clone()
}

fn in_force(engine: &str, version: Option<&str>, line: &str) -> InForce {
    let profile = profile(engine);
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let declared = DeclaredSettings::from_arguments(&profile, &words);
    InForce::of(
        &profile,
        None,
        version.map(|text| text.parse().unwrap()),
        &declared,
    )
}

fn change(name: &str, to: &str) -> KnobChange {
    KnobChange {
        name: name.to_owned(),
        flag: String::new(),
        from: None,
        to: (to != "-").then(|| to.to_owned()),
    }
}

fn checked(
    engine: &str,
    version: Option<&str>,
    line: &str,
    changes: &[(&str, &str)],
) -> Result<Constrained, String> {
    let changes: Vec<_> = changes.iter().map(|(name, to)| change(name, to)).collect();
    check(&profile(engine), &in_force(engine, version, line), &changes)
        .map_err(|error| error.to_string())
}

#[test]
fn what_an_engine_would_refuse_is_refused() {
    for (engine, version, line, changes, says) in [
        (
            "vllm",
            "0.30.0",
            "m",
            &[("max_num_active_seqs", "4")][..],
            "has no --max-num-active-seqs: it came with 0.31.0",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("swap_space", "4")],
            "it is gone since 0.18.0",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("gpu_memory_utilization", "1.2")],
            "expected a number above 0 to 1",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("max_num_seq", "4")],
            "the nearest is `max_num_seqs`",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("num_gpu_blocks", "4")],
            "change those",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("max_num_seqs", "4"), ("max_num_seqs", "8")],
            "changed twice",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("max_num_seqs", "64"), ("max_num_batched_tokens", "32")],
            "at least 64",
        ),
        (
            "vllm",
            "0.32.0",
            "m --max-num-seqs 8",
            &[("max_num_active_seqs", "9")],
            "set --max-num-seqs to at least 9",
        ),
        (
            "vllm",
            "0.32.0",
            "m --max-model-len 4096",
            &[("long_prefill_token_threshold", "5000")],
            "at most 4096",
        ),
        (
            "vllm",
            "0.32.0",
            "m --kv-cache-memory-bytes 1G",
            &[("gpu_memory_utilization", "0.95")],
            "change --kv-cache-memory-bytes",
        ),
        (
            "vllm",
            "0.32.0",
            "m -pp 2",
            &[("async_scheduling", "true")],
            "leave --async-scheduling or",
        ),
        (
            "vllm",
            "0.32.0",
            "m",
            &[("num_speculative_tokens", "3")],
            "set both or neither",
        ),
        (
            "vllm",
            "0.32.0",
            "m --enforce-eager",
            &[("max_cudagraph_capture_size", "512")],
            "have no effect",
        ),
        (
            "sglang",
            "0.5.23",
            "m --page-size 64",
            &[("chunked_prefill_size", "1000")],
            "set --chunked-prefill-size to 1024",
        ),
        (
            "sglang",
            "0.5.23",
            "m",
            &[("mem_fraction_static", "1")],
            "below 1",
        ),
        (
            "sglang",
            "0.5.23",
            "m",
            &[("speculative_num_steps", "2")],
            "set --speculative-algorithm",
        ),
        (
            "sglang",
            "0.5.23",
            "m --disable-radix-cache",
            &[("enable_hierarchical_cache", "true")],
            "must be on",
        ),
        (
            "tgi",
            "3.3.6",
            "m --max-total-tokens 2048",
            &[("max_input_tokens", "2048")],
            "to at most 2047",
        ),
        (
            "tgi",
            "3.3.6",
            "m --max-batch-total-tokens 1000",
            &[("max_total_tokens", "2000")],
            "at least 2000",
        ),
        (
            "tgi",
            "3.3.6",
            "m --dtype float16",
            &[("quantize", "fp8")],
            "either",
        ),
    ] {
        let error = checked(engine, Some(version), line, changes).unwrap_err();
        assert!(error.contains(says), "{changes:?}: {error}");
    }
}

#[test]
fn a_change_brings_those_that_it_needs() {
    for (engine, line, asked, companion) in [
        (
            "vllm",
            "m --max-num-seqs 4 --max-num-batched-tokens 32",
            ("max_num_seqs", "64"),
            ("max_num_batched_tokens", "64"),
        ),
        (
            "vllm",
            "m --max-num-batched-tokens 2048 --max-model-len 8192",
            ("enable_chunked_prefill", "false"),
            ("max_num_batched_tokens", "8192"),
        ),
        (
            "sglang",
            "m",
            ("pp_size", "2"),
            ("disable_overlap_schedule", "true"),
        ),
        (
            "tgi",
            "m --max-batch-prefill-tokens 1024",
            ("max_input_tokens", "2000"),
            ("max_batch_prefill_tokens", "2000"),
        ),
    ] {
        let version = if engine == "tgi" {
            "3.3.6"
        } else if engine == "vllm" {
            "0.32.0"
        } else {
            "0.5.23"
        };
        let constrained = checked(engine, Some(version), line, &[asked]).unwrap();
        let changes: Vec<_> = constrained
            .changes
            .iter()
            .map(|change| (change.name.as_str(), change.to.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(changes, [asked, companion], "{line}");
        let named: Vec<_> = constrained
            .companions
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(named, [companion.0]);
        assert!(
            constrained
                .companions
                .iter()
                .all(|one| one.rule.ends_with('.'))
        );
    }
}

#[test]
fn what_nobody_tells_must_be_seen_to() {
    let constrained = checked("vllm", None, "", &[("max_num_seqs", "64")]).unwrap();
    assert!(
        constrained.prerequisites.iter().any(|text| text
            .ends_with("see that --max-num-batched-tokens is at least 64, which nobody tells.")),
        "{:?}",
        constrained.prerequisites
    );
    assert_eq!(constrained.companions, []);
}

#[test]
fn changes_are_in_the_engines_spelling_and_change_something() {
    let constrained = checked(
        "vllm",
        Some("0.32.0"),
        "m --max-num-seqs 4 --max-num-batched-tokens 2k",
        &[
            ("max_num_seqs", "4"),
            ("max_num_batched_tokens", "4K"),
            ("max_num_queued_reqs", "-"),
        ],
    )
    .unwrap();
    assert_eq!(
        constrained.changes,
        [KnobChange {
            name: "max_num_batched_tokens".to_owned(),
            flag: "--max-num-batched-tokens".to_owned(),
            from: Some("2000".to_owned()),
            to: Some("4096".to_owned()),
        }]
    );
}

proptest! {
    #[test]
    fn rules_hold_after_what_is_accepted(
        (engine, changes) in strategies::changes(),
        words in prop::collection::vec(strategies::word(), 0..10),
        version in prop::option::of(0_u32..34),
    ) {
        let profile = profile(engine);
        let version = version.map(|minor| match engine {
            "vllm" => Version::new(0, minor, 0),
            "sglang" => Version::new(0, 5, minor),
            _ => Version::new(3, 3, 6),
        });
        let declared = DeclaredSettings::from_arguments(&profile, &words);
        let in_force = InForce::of(&profile, None, version, &declared);
        if let Ok(accepted) = check(&profile, &in_force, &changes) {
            let after = After { profile: &profile, in_force: &in_force, changes: &accepted.changes };
            for rule in rules::of(engine) {
                let touched = rule.knobs.iter().any(|name| after.is_changed(name));
                let holds = (rule.holds)(&after);
                prop_assert!(!touched || !matches!(holds, Holds::No { .. }), "{} {:?}", rule.says, accepted);
            }
            for change in &accepted.changes {
                let knob = profile.knob(&change.name).unwrap();
                prop_assert!(knob.is_in(version) || in_force.get(&change.name).is_some());
                if let Some(to) = &change.to {
                    prop_assert_eq!(knob.check(to), Ok(to.clone()));
                }
            }
            // accepted once, it is accepted as it is
            let again = check(&profile, &in_force, &accepted.changes);
            prop_assert_eq!(again.map(|again| (again.changes, again.companions)), Ok((accepted.changes, vec![])));
        }
    }
}

#[test]
fn rules_are_about_knobs_that_there_are() {
    for engine in ["vllm", "sglang", "tgi"] {
        let profile = profile(engine);
        for rule in rules::of(engine) {
            for name in rule.knobs {
                assert!(profile.knob(name).is_some(), "{engine} {name}");
            }
            assert!(!rule.says.ends_with('.'));
        }
    }
}
