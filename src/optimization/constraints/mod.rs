//! Whether an engine would start with changes, and do what they are for: its rules against the settings in force.
//!
//! What a rule needs and nobody tells breaks nothing; it is said as what must hold before.

mod after;
mod rules;
#[cfg(test)]
mod tests;

use crate::engine::{EngineProfile, Knob, KnobError, Version};
use crate::units::nearest;

use super::change::KnobChange;
use super::in_force::{InForce, SettingValue};
use after::After;
use rules::{Holds, Rule};

/// Changes that an engine takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constrained {
    /// Those that were asked for, in the engine's spelling and without those that change nothing; then companions.
    pub changes: Vec<KnobChange>,
    /// Changes that others need.
    pub companions: Vec<Companion>,
    /// What must hold before, a sentence each: nobody tells whether it does.
    pub prerequisites: Vec<String>,
}

/// A change that others need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Name of the knob.
    pub name: String,
    /// The rule that asks for it, as a sentence.
    pub rule: String,
}

/// Changes that an engine does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// There is no such knob.
    #[error("{engine} has no setting `{name}` that is known here; the nearest is `{nearest}`")]
    UnknownKnob {
        /// The engine, as people write it.
        engine: String,
        /// What was asked for.
        name: String,
        /// The nearest there is.
        nearest: String,
    },
    /// The version does not have it.
    #[error("{engine} {version} has no {flag}: {instead}")]
    NotInVersion {
        /// The engine, as people write it.
        engine: String,
        /// Its version, or `of an unknown version`.
        version: String,
        /// The flag.
        flag: String,
        /// Which versions have it.
        instead: String,
    },
    /// The engine computes it.
    #[error("`{0}` is what the engine makes of other settings: change those")]
    Derived(String),
    /// The engine would refuse the value.
    #[error(transparent)]
    Value(#[from] KnobError),
    /// The same knob is to be two things.
    #[error("`{0}` is changed twice: leave one of the changes out")]
    Twice(String),
    /// The engine would refuse the settings together, or the change would do nothing.
    #[error("{rule}: {instead}")]
    Broken {
        /// The rule, as a sentence without its point.
        rule: String,
        /// What to do instead.
        instead: String,
    },
}

/// Rounds after which companions of companions must have come to rest.
const MAX_COMPANIONS: usize = 8;

/// Checks changes against an engine's rules and the settings in force, and adds those that they need.
///
/// # Errors
/// See [`ConstraintError`].
pub fn check(
    profile: &EngineProfile,
    in_force: &InForce,
    changes: &[KnobChange],
) -> Result<Constrained, ConstraintError> {
    let mut asked: Vec<KnobChange> = Vec::new();
    for change in changes {
        let change = normalised(profile, in_force, change)?;
        if asked.iter().any(|other| other.name == change.name) {
            return Err(ConstraintError::Twice(change.name));
        }
        asked.push(change);
    }
    asked.retain(|change| changes_something(in_force, change));
    let mut constrained = Constrained {
        changes: asked.clone(),
        ..Constrained::default()
    };
    for _ in 0..=MAX_COMPANIONS {
        let Some((rule, mend, instead)) = broken(profile, in_force, &mut constrained) else {
            return Ok(constrained);
        };
        let refused = || ConstraintError::Broken {
            rule: rule.says.to_owned(),
            instead: instead.clone(),
        };
        let (name, value) = mend.ok_or_else(refused)?;
        // what was asked for is not overruled
        if asked.iter().any(|change| change.name == name) {
            return Err(refused());
        }
        let companion = KnobChange {
            name: name.to_owned(),
            flag: String::new(),
            from: None,
            to: Some(value),
        };
        let companion = normalised(profile, in_force, &companion).map_err(|_| refused())?;
        constrained.changes.retain(|change| change.name != name);
        constrained.changes.push(companion);
        constrained.companions.push(Companion {
            name: name.to_owned(),
            rule: format!("{}.", rule.says),
        });
    }
    Err(ConstraintError::Broken {
        rule: "The changes need others without an end".to_owned(),
        instead: "make fewer of them".to_owned(),
    })
}

/// A rule with what would mend it, and what to do else.
type Broken = (&'static Rule, Option<(&'static str, String)>, String);

/// The first rule that the changes break; the prerequisites of the others are written down.
fn broken(
    profile: &EngineProfile,
    in_force: &InForce,
    constrained: &mut Constrained,
) -> Option<Broken> {
    let after = After {
        profile,
        in_force,
        changes: &constrained.changes,
    };
    let mut prerequisites = Vec::new();
    for rule in rules::of(&profile.name) {
        // what is as it was is not ours to judge
        if !rule.knobs.iter().any(|name| after.is_changed(name)) {
            continue;
        }
        match (rule.holds)(&after) {
            Holds::Yes => {}
            Holds::Unknown(what) => {
                let sentence = format!("{}: {what}.", rule.says);
                if !prerequisites.contains(&sentence) {
                    prerequisites.push(sentence);
                }
            }
            Holds::No { mend, instead } => return Some((rule, mend, instead)),
        }
    }
    constrained.prerequisites = prerequisites;
    None
}

/// The change in the engine's spelling, with what is in force.
fn normalised(
    profile: &EngineProfile,
    in_force: &InForce,
    change: &KnobChange,
) -> Result<KnobChange, ConstraintError> {
    let Some(knob) = profile.knob(&change.name) else {
        let names = profile.knobs.iter().map(|knob| &*knob.name);
        return Err(ConstraintError::UnknownKnob {
            engine: profile.title.to_string(),
            name: change.name.chars().take(80).collect(),
            nearest: nearest(&change.name, names).unwrap_or_default().to_owned(),
        });
    };
    let shown = in_force.get(&knob.name);
    if knob.derived {
        let asked = KnobChange {
            name: knob.name.to_string(),
            flag: knob.flag.to_string(),
            from: change.to.clone(),
            to: change.to.clone(),
        };
        // settings in force may be sent back as they are
        return match shown.is_some() && !changes_something(in_force, &asked) {
            true => Ok(asked),
            false => Err(ConstraintError::Derived(asked.name)),
        };
    }
    if !knob.is_in(in_force.version) && shown.is_none() {
        return Err(not_in_version(profile, in_force.version, knob));
    }
    let to = change.to.as_deref().map(|to| knob.check(to)).transpose()?;
    let from = shown.and_then(|shown| match &shown.value {
        SettingValue::Known(value) => Some(value.clone()),
        SettingValue::NotSet | SettingValue::Unknown => None,
    });
    Ok(KnobChange {
        name: knob.name.to_string(),
        flag: knob.flag.to_string(),
        from,
        to,
    })
}

fn not_in_version(
    profile: &EngineProfile,
    version: Option<Version>,
    knob: &Knob,
) -> ConstraintError {
    let instead = match (knob.since, knob.until) {
        (Some(since), None) => format!("it came with {since}"),
        (None, Some(until)) => format!("it is gone since {until}"),
        (Some(since), Some(until)) => format!("it came with {since} and went with {until}"),
        (None, None) => "it is not known there".to_owned(),
    };
    ConstraintError::NotInVersion {
        engine: profile.title.to_string(),
        version: version.map_or_else(
            || "of an unknown version".to_owned(),
            |version| version.to_string(),
        ),
        flag: knob.flag.to_string(),
        instead,
    }
}

fn changes_something(in_force: &InForce, change: &KnobChange) -> bool {
    match (
        in_force.get(&change.name).map(|shown| &shown.value),
        &change.to,
    ) {
        (Some(SettingValue::Known(value)), Some(to)) => value != to,
        (Some(SettingValue::NotSet), None) => false,
        _ => true,
    }
}
