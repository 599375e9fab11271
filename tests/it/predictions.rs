//! Predictions held against a truth that no fit can express: a part of what `cargo bench --bench prediction` measures.

use std::collections::BTreeMap;

use super::diagnosis::on_two_threads;
use super::prediction::ours::Ours;
use super::prediction::tally::{Figures, Outcome, outcomes};
use super::prediction::{Chosen, Kind, Part, all, choose, digest, scenario};

/// Of all scenarios, as they were when the set was fixed.
const DIGEST: u64 = 0x1709_6816_67cd_2fa3;

#[test]
fn the_set_is_the_one_that_was_fixed_before_any_prediction() {
    let all = all();
    assert_eq!(
        digest(&all),
        DIGEST,
        "the scenarios are others: {:#018x}",
        digest(&all)
    );
}

#[test]
fn the_set_is_as_large_and_as_mixed_as_it_is_said_to_be() {
    let all = all();
    assert!(all.len() >= 420, "{}", all.len());
    let share = |of: &dyn Fn(&Chosen) -> bool| {
        all.iter().filter(|one| of(one)).count() as f64 / all.len() as f64
    };
    let near = |found: f64, said: f64| assert!((found - said).abs() < 0.05, "{found} for {said}");
    near(share(&|one| one.scenario.part() == Part::Development), 0.5);
    near(share(&|one| one.scenario.is_healthy()), 1.0 / 3.0);
    for (engine, said) in [("vllm", 0.60), ("sglang", 0.25), ("tgi", 0.15)] {
        near(
            share(&|one| one.scenario.base.engine.as_deref() == Some(engine)),
            said,
        );
    }
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    for one in &all {
        *kinds.entry(one.scenario.kind).or_default() += 1;
        let what_ifs = one.scenario.what_ifs.len();
        assert!(what_ifs <= 3, "{}", one.scenario.seed);
    }
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

#[test]
fn a_seed_is_a_scenario() {
    for one in all().iter().step_by(20) {
        assert_eq!(scenario(one.scenario.seed), one.scenario);
    }
}

/// Those of the slow device: few tokens a second are quickly simulated, by a program that is not optimised too.
fn quick(every: usize) -> Vec<Chosen> {
    let slow = |one: &Chosen| one.scenario.hardware == "0.5B on a CPU";
    all().into_iter().filter(slow).step_by(every).collect()
}

#[test]
fn scenarios_are_what_they_are_said_to_be() {
    let held = on_two_threads(&quick(6), |one| {
        choose::holds(&one.scenario).map_err(|why| format!("{}: {why}", one.scenario.seed))
    });
    for one in held {
        one.unwrap();
    }
}

#[test]
fn predictions_and_recommendations_help_on_some_scenarios() {
    let results = on_two_threads(&quick(12), |one| outcomes(one, &[&Ours]).remove(0));
    let figures = Figures::of(&results.iter().collect::<Vec<&Outcome>>());
    // the goals are of the whole set, which the bench measures; through these floors falls what is broken
    assert!(figures.checked >= 40, "{figures:?}");
    assert!(figures.coverage() >= 0.55, "{figures:?}");
    assert!(figures.width <= 0.9, "{figures:?}");
    // advice that was taken is not given again, but for a step that was too small
    assert!(figures.again * 10 <= figures.scenarios, "{results:#?}");
    let share = |part: usize, whole: usize| part as f64 / whole as f64;
    assert!(
        share(figures.improved, figures.troubled) >= 0.6,
        "{figures:?}"
    );
    assert!(
        share(figures.left_alone, figures.healthy) >= 0.5,
        "{figures:?}"
    );
    // of so few, a sum is what the worst of them is
    assert!(figures.gain_median >= 0.5, "{figures:?}");
}
