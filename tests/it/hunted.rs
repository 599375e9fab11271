//! What a hunt over random scenarios found, and that more pressure is never told as less.

use perfagent::analysis::{Cause, Severity, Targets, Thresholds, diagnose};

use crate::diagnosis::{Case, Part, all, for_each, read};
use crate::score::outcomes;

const HUNTED: &str = include_str!("../fixtures/diagnosis/hunted.toml");

#[test]
fn what_was_wrong_once_is_right_now() {
    let wrong: Vec<String> = outcomes(&read(Part::Development, HUNTED))
        .iter()
        .filter(|one| !one.right)
        .map(|one| format!("{}: {:?} {}", one.name, one.expect, one.said.headline))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Labels are true of the model: the cure of the cause serves better.
#[test]
fn what_treats_a_hunted_cause_serves_better() {
    let helped = for_each(&read(Part::Development, HUNTED), |case| {
        let (before, after) = (case.truth().unwrap(), case.truth_after_cure()?);
        let first = |truth: &crate::diagnosis::Truth| {
            let of = truth.summary.time_to_first_token_seconds.unwrap();
            (of.mean, truth.summary.inter_token_seconds.unwrap().p99)
        };
        let ((ttft, itl), (less, sooner)) = (first(&before), first(&after));
        Some((case.name.clone(), less < 0.8 * ttft || sooner < 0.8 * itl))
    });
    let helped: Vec<_> = helped.into_iter().flatten().collect();
    assert!(helped.len() > 8, "{helped:?}");
    assert!(helped.iter().all(|(_, helps)| *helps), "{helped:?}");
}

/// A pressure that rises, as a piece of a scenario with `%` for it.
const PRESSURES: &[(&str, &[f64])] = &[
    // places
    (
        "engine = \"vllm\"\nsettings_known = true\nsettings = { max_num_seqs = 8 }\nload = { clients = %, prompt_tokens = \"64..256\", output_tokens = \"64..192\", seed = 1 }",
        &[9.0, 12.0, 16.0, 32.0, 64.0, 128.0],
    ),
    // room
    (
        "engine = \"vllm\"\nsettings = { num_gpu_blocks_override = 640 }\nload = { clients = %, prompt_tokens = \"400..1200\", output_tokens = \"64..192\", seed = 2 }",
        &[12.0, 16.0, 24.0, 48.0, 96.0],
    ),
    (
        "engine = \"sglang\"\nsettings_known = true\nsettings = { max_total_tokens = 10000 }\nload = { clients = %, prompt_tokens = \"400..1200\", output_tokens = \"64..192\", seed = 3 }",
        &[12.0, 16.0, 24.0, 48.0, 96.0],
    ),
    (
        "engine = \"tgi\"\nsettings = { max_batch_total_tokens = 8000 }\nload = { clients = %, prompt_tokens = \"200..600\", output_tokens = \"64..192\", seed = 4 }",
        &[16.0, 24.0, 48.0, 96.0],
    ),
    // prompts
    (
        "engine = \"vllm\"\nload = { rate = %, prompt_tokens = \"1500..4500\", output_tokens = \"10..30\", seed = 5 }",
        &[6.0, 9.0, 12.0, 14.0, 18.0, 24.0],
    ),
    // steps
    (
        "engine = \"vllm\"\ntiming = { decode_sequence_seconds = 2e-3 }\nload = { clients = %, prompt_tokens = \"20..60\", output_tokens = \"100..240\", seed = 6 }",
        &[40.0, 60.0, 90.0, 140.0, 200.0],
    ),
    // the door
    (
        "engine = \"sglang\"\nsettings_known = true\nsettings = { max_queued_requests = 2, max_running_requests = 16 }\nload = { rate = %, prompt_tokens = \"200..600\", output_tokens = \"64..192\", seed = 7 }",
        &[16.0, 20.0, 28.0, 40.0, 80.0],
    ),
    // failures
    (
        "engine = \"vllm\"\nload = { clients = 8, prompt_tokens = \"64..256\", output_tokens = \"20..60\", seed = 8 }\nfaults = [{ at_seconds = 0, failure_ratio = % }]",
        &[0.02, 0.05, 0.2, 0.6, 0.95],
    ),
    // one that is slow
    (
        "engine = \"vllm\"\nreplicas = 3\nload = { rate = 12, prompt_tokens = \"64..256\", output_tokens = \"64..192\", seed = 9 }\nfaults = [{ at_seconds = 0, replica = 0, slowness = % }]",
        &[1.6, 2.0, 3.0, 5.0, 9.0, 15.0],
    ),
];

#[test]
fn more_pressure_never_lowers_the_severity_of_the_same_cause() {
    let cases: Vec<Case> = PRESSURES
        .iter()
        .flat_map(|(scenario, levels)| {
            levels.iter().flat_map(move |level| {
                let scenario = scenario.replace('%', &level.to_string());
                let text = format!(
                    "[[case]]\nname = \"\"\nwhy = \"\"\nexpect = []\ninterval_seconds = 5\n{scenario}\n"
                );
                read(Part::Development, &text)
            })
        })
        .collect();
    let found: Vec<Option<(Cause, Severity)>> = for_each(&cases, |case| {
        let measurement = case.measurement();
        let diagnosis = diagnose(
            &measurement,
            &Thresholds::default(),
            &Targets::default(),
            None,
        );
        let first = diagnosis.findings.first()?;
        Some((first.cause, first.severity))
    });
    let mut rest = found.as_slice();
    let mut told = 0;
    for (scenario, levels) in PRESSURES {
        let (these, others) = rest.split_at(levels.len());
        rest = others;
        for (at, one) in these.iter().enumerate() {
            for more in these.iter().skip(at + 1) {
                if let (Some((cause, severity)), Some((other, worse))) = (one, more)
                    && cause == other
                {
                    told += 1;
                    assert!(severity <= worse, "{scenario}: {levels:?} {these:?}");
                }
            }
        }
        assert!(these.iter().any(Option::is_some), "{scenario}: {these:?}");
    }
    assert!(told >= 40, "{told} pairs of the same cause: {found:?}");
}

/// A threshold is told with the quantity that was held against it, and the way it stands to it.
#[test]
fn evidence_stands_to_its_threshold_as_it_says() {
    let mut cases = all();
    cases.extend(read(Part::Development, HUNTED));
    let seen = for_each(&cases, |case| {
        let measurement = case.measurement();
        let diagnosis = diagnose(
            &measurement,
            &Thresholds::default(),
            &Targets::default(),
            None,
        );
        let mut wrong = Vec::new();
        let mut held = 0;
        for finding in &diagnosis.findings {
            let decided = finding.evidence.iter().any(|one| one.threshold.is_some());
            if !decided {
                wrong.push(format!(
                    "{} {:?}: nothing decided",
                    case.name, finding.cause
                ));
            }
            for one in &finding.evidence {
                let Some(threshold) = one.threshold else {
                    continue;
                };
                held += 1;
                let name = one.threshold_name.as_str();
                let of = |word: &str| one.quantity.contains(word);
                let same = match name {
                    "kv_room_ratio" | "kv_full_ratio" | "kv_near_ratio" => of("kv_cache_usage"),
                    "queue_requests" => of("requests_waiting"),
                    "slo:itl_p99" => of("inter_token") || of("decode_step"),
                    "slo:ttft_p50" => of("time_to_first_token"),
                    "small_token_budget" => of("step_token_budget"),
                    _ => true,
                };
                if !same || !one.comparison.holds(one.value.number(), threshold) {
                    wrong.push(format!(
                        "{} {:?}: {} {} {:?} {threshold} {name}",
                        case.name,
                        finding.cause,
                        one.quantity,
                        one.value.number(),
                        one.comparison
                    ));
                }
            }
        }
        (wrong, held)
    });
    let wrong: Vec<&String> = seen.iter().flat_map(|(wrong, _)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.iter().map(|(_, held)| held).sum::<i32>() > 300);
}

/// A recommendation names no flag that came later than the engine.
#[test]
fn older_versions_are_not_told_of_newer_flags() {
    let newer = [
        ("--prefill-schedule-interval", "0.23.0", "0.24.0"),
        ("VLLM_USE_FASTOKENS", "0.22.0", "0.23.0"),
        ("--kv-cache-memory-bytes", "0.10.1", "0.10.2"),
    ];
    let cases: Vec<Case> = all()
        .into_iter()
        .filter(|case| case.engine() == "vllm")
        .collect();
    let advice = for_each(&cases, |case| {
        let mut measurement = case.measurement();
        newer.map(|(_, before, since)| {
            [before, since].map(|version| {
                measurement.engine_version = Some(version.to_owned());
                let diagnosis = diagnose(
                    &measurement,
                    &Thresholds::default(),
                    &Targets::default(),
                    None,
                );
                let said = diagnosis.findings.into_iter().map(|one| one.recommendation);
                said.collect::<Vec<_>>().join("\n")
            })
        })
    });
    for (at, (flag, before, since)) in newer.iter().enumerate() {
        let told = |which: usize| advice.iter().any(|one| one[at][which].contains(flag));
        assert!(!told(0), "{flag} in {before}");
        assert!(told(1), "{flag} in {since}");
    }
}
