//! What perfagent predicts, from what an agent sees.

use perfagent::analysis::{Finding, Thresholds, diagnose};
use perfagent::optimization::{
    DeclaredSettings, Effect, InForce, KnobChange, Limits, Recommendation, Situation, TrackRecord,
    predict, recommend,
};

use super::Scenario;
use super::seen::Seen;
use super::tally::Predictor;

/// perfagent, without any record of predictions.
#[derive(Debug)]
pub(crate) struct Ours;

impl Predictor for Ours {
    fn name(&self) -> &'static str {
        "perfagent"
    }

    fn predict(&self, scenario: &Scenario, seen: &Seen, changes: &[KnobChange]) -> Effect {
        in_situation(scenario, seen, |situation| {
            predict(situation, &seen.windows, changes, (1.0, 0))
        })
    }

    fn recommend(&self, scenario: &Scenario, seen: &Seen) -> Recommendation {
        in_situation(scenario, seen, |situation| {
            recommend(situation, &seen.windows, &[], &TrackRecord::default())
        })
    }
}

fn in_situation<T>(scenario: &Scenario, seen: &Seen, of: impl FnOnce(&Situation<'_>) -> T) -> T {
    let thresholds = Thresholds::default();
    let targets = scenario.targets;
    let findings: Vec<Finding> = diagnose(&seen.measurement, &thresholds, &targets, None).findings;
    let in_force = in_force(scenario, seen);
    of(&Situation {
        profile: &seen.profile,
        measurement: Some(&seen.measurement),
        findings: &findings,
        in_force: &in_force,
        thresholds: &thresholds,
        targets: &targets,
        limits: &Limits::default(),
    })
}

/// What the engine shows, and what its operator declared.
fn in_force(scenario: &Scenario, seen: &Seen) -> InForce {
    let words: Vec<String> = scenario
        .declared
        .iter()
        .flat_map(|(flag, value)| [format!("--{flag}"), value.clone()])
        .collect();
    let declared = DeclaredSettings::from_arguments(&seen.profile, &words);
    let measured = (&seen.measurement, &Thresholds::default());
    InForce::of(&seen.profile, Some(measured), None, &declared)
}
