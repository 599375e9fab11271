//! Which knobs a version has, and what is in force of them.

use crate::engine::Version;
use crate::optimization::{KnobChange, SettingValue, Situation};

use super::draft::Declined;

/// A knob that this engine has, with what is in force.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Knob {
    pub(super) name: &'static str,
    pub(super) flag: String,
    pub(super) value: SettingValue,
}

/// The flag of a knob that this engine and version has.
///
/// # Errors
/// Why it has none, as a sentence.
pub(super) fn has_knob(situation: &Situation<'_>, name: &str) -> Result<String, String> {
    let (title, version) = (&situation.profile.title, situation.version());
    let Some(knob) = situation.profile.knob(name) else {
        return Err(format!("{title} has no setting {name}"));
    };
    let flag = &knob.flag;
    // what shows its value has it
    let shown = situation.in_force.value(&[name]).is_some();
    let uncertain = version.is_none()
        && knob
            .since
            .is_some_and(|since| since > oldest(situation.engine()));
    if shown || (knob.is_in(version) && !uncertain) {
        return Ok(flag.to_string());
    }
    Err(match (version, knob.since, knob.until) {
        (Some(version), Some(since), _) if version < since => {
            format!("{title} {version} has no {flag}: it came with {since}")
        }
        (Some(version), _, Some(until)) => {
            format!("{title} {version} has no {flag} any more: it went with {until}")
        }
        (None, Some(since), None) => {
            format!("the version is not known, and {title} has {flag} only since {since}")
        }
        _ => format!("the version is not known, and not every {title} has {flag}"),
    })
}

/// Older ones are not measured in full; what they have all have.
fn oldest(engine: &str) -> Version {
    match engine {
        "vllm" => Version::new(0, 8, 0),
        "sglang" => Version::new(0, 4, 0),
        _ => Version::new(3, 0, 0),
    }
}

/// A knob with what is in force of it.
///
/// # Errors
/// The version has none.
pub(super) fn knob(
    situation: &Situation<'_>,
    title: &str,
    name: &'static str,
) -> Result<Knob, Declined> {
    let flag = has_knob(situation, name).map_err(|reason| Declined::new(title, reason))?;
    let told = situation.in_force.get(name);
    Ok(Knob {
        name,
        flag,
        value: told.map_or(SettingValue::Unknown, |one| one.value.clone()),
    })
}

impl Knob {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            SettingValue::Known(text) => Some(text),
            SettingValue::NotSet | SettingValue::Unknown => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        let number: f64 = self.text()?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// What is in force, where nothing can be said without it.
    ///
    /// # Errors
    /// Nobody tells it.
    pub(super) fn told(&self, title: &str) -> Result<f64, Declined> {
        self.number().ok_or_else(|| {
            let why = match self.value {
                SettingValue::NotSet => "is left to the engine, and what it chose is not told",
                _ => "is not known",
            };
            Declined::new(
                title,
                format!("{} in force {why}; declare the launch arguments", self.flag),
            )
        })
    }

    /// A switch: whether it is on.
    pub(super) fn is_on(&self) -> Option<bool> {
        match self.text()? {
            "true" | "True" => Some(true),
            "false" | "False" => Some(false),
            _ => None,
        }
    }

    pub(super) fn to(&self, value: impl ToString) -> KnobChange {
        KnobChange {
            name: self.name.to_owned(),
            flag: self.flag.clone(),
            from: self.text().map(str::to_owned),
            to: Some(value.to_string()),
        }
    }

    /// The flag is taken away.
    pub(super) fn away(&self) -> KnobChange {
        KnobChange {
            to: None,
            ..self.to("")
        }
    }
}
