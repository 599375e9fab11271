//! From what requests and instances say to the terms of the core.

use std::collections::BTreeMap;

use crate::agent::FieldViolation;
use crate::engine::EngineProfile;
use crate::instance::shortened;
use crate::measure::Measurement;
use crate::optimization::{InForce, KnobChange, SettingInForce, SettingSource, SettingValue};

/// The settings in force, by what was measured, by launch arguments, and by what a request says; and what could not be
/// used of that, a sentence each.
pub(in crate::agent) fn settings_in_force(
    profile: &EngineProfile,
    measurement: Option<&Measurement>,
    _launch_args: &[String],
    given: &BTreeMap<String, Option<String>>,
) -> (InForce, Vec<String>) {
    let mut remarks = Vec::new();
    let mut declared = BTreeMap::new();
    for (key, value) in given {
        match profile.knob_meant(key) {
            Ok(knob) => drop(declared.insert(&*knob.name, value.clone())),
            Err(nearest) => remarks.push(format!(
                "No setting `{}` is known here; the nearest is `{nearest}`.",
                shortened(key)
            )),
        }
    }
    let told = measurement.map_or(&[][..], |measurement| &measurement.settings);
    let known = |value: &Option<String>| match value {
        Some(value) => SettingValue::Known(value.clone()),
        None => SettingValue::NotSet,
    };
    let settings = profile.knobs.iter().map(|knob| {
        let of_metrics = told.iter().find(|setting| setting.name == knob.name);
        let (value, source) = match (of_metrics, declared.get(&*knob.name)) {
            (Some(setting), _) => (
                known(&setting.value),
                SettingSource::Endpoint(setting.source.clone()),
            ),
            (None, Some(value)) => (known(value), SettingSource::Declared),
            (None, None) => (SettingValue::Unknown, SettingSource::Unknown),
        };
        SettingInForce {
            name: knob.name.to_string(),
            flag: knob.flag.to_string(),
            value,
            source,
            hint: None,
        }
    });
    let version = measurement.and_then(|one| one.engine_version.as_deref()?.parse().ok());
    let in_force = InForce {
        engine: profile.name.to_string(),
        version,
        settings: settings.collect(),
    };
    (in_force, remarks)
}

/// The changes that a request names, in the engine's spelling.
///
/// # Errors
/// What is no setting, or no value of it, or is changed twice.
pub(super) fn changes_of(
    profile: &EngineProfile,
    in_force: &InForce,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<Vec<KnobChange>, Vec<FieldViolation>> {
    let (mut found, mut wrong) = (Vec::<KnobChange>::new(), Vec::new());
    for (key, to) in changes {
        let mut refuse = |why: String| {
            let field = format!("changes[\"{}\"]", shortened(key));
            wrong.push(FieldViolation::new(field, why));
        };
        let knob = match profile.knob_meant(key) {
            Ok(knob) => knob,
            Err(nearest) => {
                let engine = &profile.title;
                refuse(format!(
                    "{engine} has no setting of this name that is known here; the nearest is `{nearest}`"
                ));
                continue;
            }
        };
        if found.iter().any(|other| other.name == knob.name) {
            refuse(format!("`{}` is named by another key as well", knob.name));
            continue;
        }
        match to.as_deref().map(|to| knob.check(to)).transpose() {
            Err(error) => refuse(error.to_string()),
            Ok(to) => found.push(KnobChange {
                name: knob.name.to_string(),
                flag: knob.flag.to_string(),
                from: in_force.value(&[&knob.name]).map(str::to_owned),
                to,
            }),
        }
    }
    match wrong.is_empty() {
        true => Ok(found),
        false => Err(wrong),
    }
}
