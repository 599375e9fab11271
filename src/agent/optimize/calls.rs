//! From what requests and instances say to the terms of the core.

use std::collections::BTreeMap;

use crate::agent::FieldViolation;
use crate::analysis::{Slo, Thresholds};
use crate::engine::EngineProfile;
use crate::instance::shortened;
use crate::measure::Measurement;
use crate::optimization::{
    ConstraintError, DeclaredSettings, Effect, InForce, KnobChange, Limits, constraints, unsaid,
};

/// The settings in force, by what was measured, by launch arguments, and by what a request says; and what could not be
/// used of that, a sentence each.
pub(in crate::agent) fn settings_in_force(
    profile: &EngineProfile,
    measured: Option<(&Measurement, &Thresholds)>,
    launch_args: &[String],
    given: &BTreeMap<String, Option<String>>,
) -> (InForce, Vec<String>) {
    let (given, remarks) = DeclaredSettings::from_config(profile, given);
    let declared = DeclaredSettings::from_arguments(profile, launch_args).with(given);
    let in_force = InForce::of(profile, measured, None, &declared);
    (in_force, remarks)
}

/// Changes that a request names, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// In the engine's spelling, with those that they need; without those that change nothing.
    pub(super) changes: Vec<KnobChange>,
    /// What a reader must know of them, a sentence each.
    pub(super) remarks: Vec<String>,
}

/// The changes that a request names.
///
/// # Errors
/// What is no setting, or no value of it, or what the engine would refuse.
pub(super) fn changes_of(
    profile: &EngineProfile,
    in_force: &InForce,
    changes: &BTreeMap<String, Option<String>>,
    limits: &Limits,
) -> Result<Asked, Vec<FieldViolation>> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (key, to) in changes {
        let mut refuse = |why: String| {
            let field = format!("changes[\"{}\"]", shortened(key));
            wrong.push(FieldViolation::new(field, why));
        };
        let change = match profile.knob_meant(key) {
            Ok(knob) => KnobChange {
                name: knob.name.to_string(),
                flag: knob.flag.to_string(),
                from: None,
                to: to.clone(),
            },
            Err(nearest) => {
                refuse(unknown(profile, key, nearest));
                continue;
            }
        };
        // each by itself, so that each that is wrong is named
        match constraints::check(profile, in_force, std::slice::from_ref(&change)) {
            // of several that break a rule, others may mend it
            Ok(_) | Err(ConstraintError::Broken { .. }) => found.push(change),
            Err(error) => refuse(error.to_string()),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let checked = constraints::check(profile, in_force, &found);
    let checked =
        checked.map_err(|error| vec![FieldViolation::new("changes", error.to_string())])?;
    let companions = checked.companions.iter();
    let mut remarks: Vec<String> = companions
        .map(|companion| format!("`{}` changes with it: {}", companion.name, companion.rule))
        .collect();
    remarks.extend(checked.prerequisites);
    remarks.extend(beyond(profile, &checked.changes, limits));
    Ok(Asked {
        changes: checked.changes,
        remarks,
    })
}

fn unknown(profile: &EngineProfile, key: &str, nearest: &str) -> String {
    let error = ConstraintError::UnknownKnob {
        engine: profile.title.to_string(),
        name: shortened(key),
        nearest: nearest.to_owned(),
    };
    error.to_string()
}

/// What the changes do that must not be done: it is answered what they would do all the same.
fn beyond(profile: &EngineProfile, changes: &[KnobChange], limits: &Limits) -> Vec<String> {
    let knobs = || {
        changes
            .iter()
            .filter_map(|change| profile.knob(&change.name))
    };
    let mut said = Vec::new();
    if limits.no_restart && knobs().any(|knob| !knob.live) {
        said.push("It takes a restart, which the constraints rule out.".to_owned());
    }
    if limits.no_answer_change && knobs().any(|knob| knob.changes_answers) {
        said.push("It may change answers, which the constraints rule out.".to_owned());
    }
    if limits.fixed_gpu_count && changes.iter().any(KnobChange::spreads) {
        said.push("It takes another number of GPUs, which the constraints rule out.".to_owned());
    }
    said
}

/// The SLOs that must hold and that a change may break, or of which nothing is predicted.
pub(super) fn promises(effect: &Effect, must_hold: &[Slo]) -> Vec<String> {
    match effect {
        Effect::Predicted(prediction) => {
            let slos = must_hold.iter();
            slos.filter_map(|slo| prediction.promise(slo)).collect()
        }
        Effect::NotPredictable(_) => must_hold.iter().map(unsaid).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Registry;
    use crate::optimization::{SettingSource, SettingValue};

    fn settings(of: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        let settings = of.iter();
        settings
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect()
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_request_counts_more_than_declared_arguments() {
        let registry = Registry::builtin();
        let vllm = registry.get("vllm").unwrap();
        let args = words("--max-num-seqs 64 --max-model-len 4096 --api-key ***");
        let given = settings(&[("max_batch_size", Some("32")), ("colour", Some("red"))]);
        let (in_force, remarks) = settings_in_force(vllm, None, &args, &given);
        let cap = in_force.get("max_num_seqs").unwrap();
        assert_eq!(cap.value, SettingValue::Known("32".to_owned()));
        assert_eq!(cap.source, SettingSource::Declared);
        assert_eq!(in_force.value(&["max_model_len"]), Some("4096"));
        assert!(
            remarks.iter().any(|one| one.contains("colour")),
            "{remarks:?}"
        );
        // what is hidden is no value of anything
        assert!(!format!("{in_force:?}").contains("***"));
    }

    #[test]
    fn every_change_that_cannot_be_is_named() {
        let registry = Registry::builtin();
        let vllm = registry.get("vllm").unwrap();
        let args = words("--max-num-seqs 64");
        let (in_force, _) = settings_in_force(vllm, None, &args, &BTreeMap::new());
        let asked = |changes: &[(&str, Option<&str>)], limits: Limits| {
            changes_of(vllm, &in_force, &settings(changes), &limits)
        };
        let good = asked(&[("--max-num-seqs", Some("128"))], Limits::default()).unwrap();
        let change = good.changes.first().unwrap();
        assert_eq!(
            (change.from.as_deref(), change.to.as_deref()),
            (Some("64"), Some("128"))
        );
        let wrong = asked(
            &[("max_num_seq", Some("1")), ("max_num_seqs", Some("many"))],
            Limits::default(),
        );
        let fields: Vec<String> = wrong
            .unwrap_err()
            .into_iter()
            .map(|one| one.field)
            .collect();
        assert_eq!(
            fields,
            ["changes[\"max_num_seq\"]", "changes[\"max_num_seqs\"]"]
        );
        let same = asked(&[("max_num_seqs", Some("64"))], Limits::default()).unwrap();
        assert_eq!(same.changes, []);
        let limits = Limits {
            no_restart: true,
            ..Limits::default()
        };
        let restart = asked(&[("max_num_seqs", Some("128"))], limits).unwrap();
        assert!(restart.remarks.iter().any(|one| one.contains("restart")));
        let limits = Limits {
            fixed_gpu_count: true,
            ..Limits::default()
        };
        let gpus = |changes| asked(changes, limits.clone()).unwrap().remarks;
        let said = gpus(&[("tensor_parallel_size", Some("2"))]);
        assert!(said.iter().any(|one| one.contains("GPUs")), "{said:?}");
        let said = gpus(&[("max_num_seqs", Some("128"))]);
        assert!(!said.iter().any(|one| one.contains("GPUs")), "{said:?}");
    }
}
