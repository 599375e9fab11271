//! Which settings an engine runs with, and who says so.

use crate::engine::Version;

/// The settings that an instance runs with, as far as anybody tells.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Engine, as in `instance_type`.
    pub engine: String,
    /// Its version, where it is told.
    pub version: Option<Version>,
    /// Every knob of the engine's table that its version has, in the table's order.
    pub settings: Vec<SettingInForce>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingInForce {
    /// Name of the knob.
    pub name: String,
    /// Launch flag.
    pub flag: String,
    /// What it is.
    pub value: SettingValue,
    /// Who says so.
    pub source: SettingSource,
    /// What would make it known, or more certain, as a sentence; none where nothing is to be done.
    pub hint: Option<String>,
}

/// What a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// This.
    Known(String),
    /// It is known not to be set, and the engine chooses.
    NotSet,
    /// Nobody tells.
    Unknown,
}

/// Who says what a setting is; what stands first counts where several do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// A label or a constant gauge among the engine's metrics: its family.
    Metric(String),
    /// An endpoint of the engine: its path.
    Endpoint(String),
    /// Launch arguments that the operator declared.
    Declared,
    /// It follows from what was measured, as a sentence.
    Inferred(String),
    /// The default of this version and hardware, as far as both are known: a sentence.
    Default(String),
    /// Nobody.
    Unknown,
}

impl InForce {
    /// The setting of this name.
    pub fn get(&self, name: &str) -> Option<&SettingInForce> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// The value of the first of these that is known.
    pub fn value(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| match &self.get(name)?.value {
            SettingValue::Known(value) => Some(value.as_str()),
            SettingValue::NotSet | SettingValue::Unknown => None,
        })
    }

    /// The same as a finite number.
    pub fn number(&self, names: &[&str]) -> Option<f64> {
        let number: f64 = self.value(names)?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// The same as a switch.
    pub fn switch(&self, names: &[&str]) -> Option<bool> {
        match self.value(names)? {
            "true" | "True" => Some(true),
            "false" | "False" => Some(false),
            _ => None,
        }
    }
}
