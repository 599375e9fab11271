//! What perfagent predicts, from what an agent sees.

use perfagent::analysis::{Finding, Thresholds, diagnose};
use perfagent::engine::Version;
use perfagent::optimization::{
    Effect, InForce, KnobChange, Limits, Recommendation, SettingInForce, SettingSource,
    SettingValue, Situation, TrackRecord, predict, recommend,
};

use super::Scenario;
use super::kinds::{knob_name, number_in};
use super::seen::Seen;
use super::tally::Predictor;
use super::truth::engine;

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
    let mut settings: Vec<SettingInForce> = seen
        .measurement
        .settings
        .iter()
        .map(|setting| SettingInForce {
            name: setting.name.clone(),
            flag: setting.flag.clone(),
            value: match &setting.value {
                Some(value) => SettingValue::Known(value.clone()),
                None => SettingValue::NotSet,
            },
            source: SettingSource::Metric(setting.source.clone()),
            hint: None,
        })
        .collect();
    for (flag, value) in &scenario.declared {
        let name = knob_name(scenario.engine, flag);
        let known =
            |one: &SettingInForce| one.name == name && matches!(one.value, SettingValue::Known(_));
        if !settings.iter().any(known) {
            settings.retain(|one| one.name != name);
            settings.push(SettingInForce {
                name,
                flag: format!("--{flag}"),
                value: SettingValue::Known(number_in(value)),
                source: SettingSource::Declared,
                hint: None,
            });
        }
    }
    InForce {
        engine: engine(scenario).to_owned(),
        version: version(seen),
        settings,
    }
}

fn version(seen: &Seen) -> Option<Version> {
    seen.measurement.engine_version.as_deref()?.parse().ok()
}
