//! From what requests and instances say to the terms of the core.

use std::collections::BTreeMap;

use crate::agent::FieldViolation;
use crate::engine::EngineProfile;
use crate::instance::shortened;
use crate::measure::Measurement;
use crate::optimization::{DeclaredSettings, InForce, KnobChange};

/// The settings in force, by what was measured, by launch arguments, and by what a request says; and what could not be
/// used of that, a sentence each.
pub(in crate::agent) fn settings_in_force(
    profile: &EngineProfile,
    measurement: Option<&Measurement>,
    launch_args: &[String],
    given: &BTreeMap<String, Option<String>>,
) -> (InForce, Vec<String>) {
    let declared = DeclaredSettings::from_arguments(profile, launch_args);
    let (given, remarks) = DeclaredSettings::from_config(profile, given);
    let in_force = InForce::of(profile, measurement, None, &declared.with(given));
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
