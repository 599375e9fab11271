//! The diagnosis on the labelled set: how often it is right, and what must not change what it says.

use std::collections::BTreeSet;

use perfagent::analysis::{Cause, Diagnosis, Targets, Thresholds, Verdict, diagnose};
use perfagent::engine::Registry;
use perfagent::measure::{Basis, Measurement};

use crate::diagnosis::{Case, Part, Recording, all, cases, for_each};
use crate::score::{outcomes, score};

fn says(measurement: &Measurement) -> Diagnosis {
    diagnose(
        measurement,
        &Thresholds::default(),
        &Targets::default(),
        None,
    )
}

fn first(diagnosis: &Diagnosis) -> Option<Cause> {
    diagnosis.findings.first().map(|finding| finding.cause)
}

fn unclear(diagnosis: &Diagnosis, cause: Cause) -> bool {
    diagnosis.unclear.iter().any(|one| one.cause == cause)
}

#[test]
fn the_root_cause_comes_first_and_the_healthy_are_left_alone() {
    for part in Part::ALL {
        let outcomes = outcomes(&cases(part));
        let score = score(&outcomes);
        let wrong: Vec<String> = outcomes
            .iter()
            .filter(|one| !one.right)
            .map(|one| {
                format!(
                    "{}: expected {:?}, said {:?}",
                    one.name, one.expect, one.said.causes
                )
            })
            .collect();
        let top_1 = score.top_1 as f64 / score.faulty as f64;
        assert!(
            top_1 >= 0.95,
            "{}: {top_1:.3}\n{}",
            part.name(),
            wrong.join("\n")
        );
        assert_eq!(
            score.false_alarms,
            0,
            "{}\n{}",
            part.name(),
            wrong.join("\n")
        );
        // where two causes act, both are named
        let half_named: Vec<String> = outcomes
            .iter()
            .filter(|one| !one.all && one.expect.len() > 1)
            .map(|one| {
                format!(
                    "{}: expected {:?}, said {:?}",
                    one.name, one.expect, one.said.causes
                )
            })
            .collect();
        assert!(
            half_named.len() <= 1 && score.several_named * 2 >= score.several,
            "{}\n{}",
            part.name(),
            half_named.join("\n")
        );
        if part == Part::Captures {
            assert!(wrong.is_empty(), "real engines: {}", wrong.join("\n"));
        }
    }
}

/// Scraped each 5 s, a stall is named within 30 s.
#[test]
fn a_stall_is_named_in_time() {
    // stands still from the 38th second on, which is 18 s into the window
    let cases = cases(Part::HeldBack);
    let case = cases
        .iter()
        .find(|case| case.name == "stall-in-a-burst")
        .unwrap();
    let recording = case.recording();
    let named =
        |scrape: &usize| first(&says(&recording.measure_between(0, *scrape))) == Some(Cause::Stall);
    let at = (1..recording.scrapes()).find(named).unwrap();
    let seconds = at as f64 * 5.0 - 18.0;
    assert!(
        (15.0..=30.0).contains(&seconds),
        "{seconds} s after it began"
    );
}

/// Names are not what is measured.
#[test]
fn older_names_do_not_change_the_verdict() {
    let versions = [
        (
            "vllm",
            &["0.8.5", "0.10.1", "0.12.0", "0.16.0", "0.20.2"][..],
        ),
        ("sglang", &["0.5.7", "0.5.12"]),
    ];
    let cases: Vec<Case> = all()
        .into_iter()
        .filter(|case| versions.iter().any(|(engine, _)| case.engine() == *engine))
        .collect();
    let changed: Vec<String> = for_each(&cases, |case| {
        let recording = case.recording();
        let now = says(&recording.measure());
        let (_, versions) = versions
            .iter()
            .find(|(engine, _)| recording.engine == *engine)
            .unwrap();
        let own = recording.replicas[0].probed.version;
        versions
            .iter()
            // only backwards: what a page never had cannot be named otherwise
            .filter(|version| own.is_some_and(|own| version.parse().is_ok_and(|old| own > old)))
            .filter_map(|version| {
                let then = says(&recording.as_version(version).measure());
                let same = first(&then) == first(&now);
                // what is missing there is said to be, and nothing else is said instead
                let abstains = first(&now).is_some_and(|cause| {
                    unclear(&then, cause)
                        && then
                            .findings
                            .iter()
                            .all(|one| now.findings.iter().any(|other| other.cause == one.cause))
                });
                (!same && !abstains).then(|| {
                    format!(
                        "{} as {version}: {:?} became {:?} ({})",
                        case.name,
                        first(&now),
                        first(&then),
                        then.headline
                    )
                })
            })
            .collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// Families that the engine's profile reads and these pages have.
fn families(recording: &Recording) -> Vec<String> {
    let registry = Registry::builtin();
    let profile = registry.get(&recording.engine).unwrap();
    let names: BTreeSet<String> = profile
        .aliases
        .iter()
        .flat_map(|alias| &alias.terms)
        .map(|term| term.family.to_string())
        .collect();
    let shown = |family: &String| {
        let page = &recording.replicas[0].pages.last().unwrap().text;
        let family = family.trim_end_matches("_total");
        page.lines().any(|line| line.starts_with(family))
    };
    names.into_iter().filter(shown).collect()
}

/// Values that are zero because the engine has not shown them yet.
fn implied(measurement: &Measurement) -> usize {
    let figures = measurement
        .replicas
        .iter()
        .filter_map(|one| one.outcome.as_ref().ok());
    figures
        .map(|one| {
            let bases = one.quantities.iter().map(|value| value.basis);
            let bases = bases.chain(one.gauges.iter().map(|gauge| gauge.basis));
            bases
                .chain(
                    one.distributions
                        .iter()
                        .map(|distribution| distribution.basis),
                )
                .filter(|basis| *basis == Basis::ImpliedZero)
                .count()
        })
        .sum()
}

/// What is not known is not guessed.
#[test]
fn a_missing_metric_brings_up_no_other_cause() {
    let chosen: Vec<Case> = all()
        .into_iter()
        .enumerate()
        .filter(|(at, case)| case.part == Part::Captures || at % 8 == 0)
        .map(|(_, case)| case)
        .collect();
    let wrong: Vec<String> = for_each(&chosen, |case| {
        let recording = case.recording();
        let measured = recording.measure();
        let (whole, implied_before) = (says(&measured), implied(&measured));
        let known: Vec<&str> = whole
            .findings
            .iter()
            .map(|one| one.cause.as_str())
            .chain(case.expect.iter().map(String::as_str))
            .chain(case.allowed.iter().map(String::as_str))
            .collect();
        families(&recording)
            .iter()
            .filter_map(|family| {
                let measured = recording.without(family).measure();
                // a feature that is off, and what appears at first use, look just the same
                if family.contains("spec_decode") || implied(&measured) > implied_before {
                    return None;
                }
                let less = says(&measured);
                let other = less
                    .findings
                    .iter()
                    .find(|one| !known.contains(&one.cause.as_str()));
                // a fault that is no longer seen leaves something open
                let hidden = first(&whole).is_some()
                    && less.findings.is_empty()
                    && less.verdict == Verdict::Healthy
                    && !unclear(&less, first(&whole).unwrap());
                (other.is_some() || hidden).then(|| {
                    format!(
                        "{} ({:?}) without {family}: {:?} {}",
                        case.name,
                        first(&whole),
                        less.findings
                            .iter()
                            .map(|one| one.cause.as_str())
                            .collect::<Vec<_>>(),
                        less.headline
                    )
                })
            })
            .collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(
        wrong.is_empty(),
        "{}\n{} in all",
        wrong.join("\n"),
        wrong.len()
    );
}

/// A window cut in two says the same, where both halves hold what the whole does.
#[test]
fn halves_of_a_window_say_what_the_whole_says() {
    let steady: Vec<Case> = all()
        .into_iter()
        .filter(|case| case.part != Part::Captures && !case.cannot_tell)
        .collect();
    let changed: Vec<String> = for_each(&steady, |case| {
        let recording = case.recording();
        let scrapes = recording.scrapes();
        // halves of at least four scrapes, and nothing that is of the whole only: changes, bursts, long windows
        let of_the_whole = [
            "COLD_PREFIX_CACHE",
            "BATCH_TOO_LARGE",
            "OVERPROVISIONED",
            "STALL",
        ];
        if scrapes < 9
            || case
                .expect
                .iter()
                .any(|cause| of_the_whole.contains(&cause.as_str()))
        {
            return None;
        }
        let whole = says(&recording.measure());
        let middle = scrapes / 2;
        let halves = [(0, middle), (middle, scrapes - 1)]
            .map(|(from, to)| says(&recording.measure_between(from, to)));
        let same = halves.iter().any(|half| first(half) == first(&whole));
        (!same).then(|| {
            format!(
                "{}: {:?}, of the halves {:?} and {:?}",
                case.name,
                first(&whole),
                first(&halves[0]),
                first(&halves[1])
            )
        })
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}
