//! The settings after changes, as far as anybody tells.

use crate::engine::{DefaultValue, EngineProfile, Knob};
use crate::optimization::change::KnobChange;
use crate::optimization::in_force::{InForce, SettingValue};

use super::rules::Holds;

/// The settings after changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct After<'a> {
    pub(super) profile: &'a EngineProfile,
    pub(super) in_force: &'a InForce,
    pub(super) changes: &'a [KnobChange],
}

/// A setting as a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Known(f64),
    NotSet,
    Unknown,
}

impl After<'_> {
    pub(super) fn is_changed(&self, name: &str) -> bool {
        self.changes.iter().any(|change| change.name == name)
    }

    pub(super) fn value(&self, name: &str) -> SettingValue {
        let Some(knob) = self.profile.knob(name) else {
            return SettingValue::NotSet;
        };
        if let Some(change) = self.changes.iter().find(|change| change.name == name) {
            return match &change.to {
                Some(to) => SettingValue::Known(to.clone()),
                None => by_default(knob, self.in_force),
            };
        }
        match self.in_force.get(name) {
            // a rule about what hardly anybody sets would be said of every change
            Some(setting)
                if setting.value == SettingValue::Unknown
                    && knob.default_in(self.in_force.version) == DefaultValue::NotSet =>
            {
                SettingValue::NotSet
            }
            Some(setting) => setting.value.clone(),
            // what the version does not have is not set
            None => SettingValue::NotSet,
        }
    }

    pub(super) fn number(&self, name: &str) -> Number {
        match self.value(name) {
            SettingValue::NotSet => Number::NotSet,
            SettingValue::Unknown => Number::Unknown,
            SettingValue::Known(value) => {
                let knob = self.profile.knob(name);
                // a word for what the engine chooses is no number
                let number = knob.and_then(|knob| knob.check(&value).ok()?.parse().ok());
                number.map_or(Number::Unknown, Number::Known)
            }
        }
    }

    /// Whether a switch is on; none where nobody tells.
    pub(super) fn is_on(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            SettingValue::Known(value) => Some(value == "true"),
            SettingValue::NotSet => Some(false),
            SettingValue::Unknown => None,
        }
    }

    /// Whether it is set to anything; none where nobody tells.
    pub(super) fn is_set(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            SettingValue::Known(_) => Some(true),
            SettingValue::NotSet => Some(false),
            SettingValue::Unknown => None,
        }
    }

    /// Whether the changes set any of these.
    pub(super) fn sets_any(&self, names: &[&str]) -> Option<bool> {
        let set = |change: &KnobChange| change.to.is_some() && names.contains(&&*change.name);
        Some(self.changes.iter().any(set))
    }

    /// Whether it is more than 1; none where nobody tells.
    pub(super) fn several(&self, name: &str) -> Option<bool> {
        match self.number(name) {
            Number::Known(number) => Some(number > 1.0),
            Number::NotSet => Some(false),
            Number::Unknown => None,
        }
    }

    /// The flag, for people.
    pub(super) fn flag(&self, name: &str) -> String {
        let knob = self.profile.knob(name);
        knob.map_or_else(|| name.to_owned(), |knob| knob.flag.to_string())
    }

    /// `low` is at most `high`; raising `high` mends it where that may be done.
    pub(super) fn at_most(&self, low: &str, high: &'static str, mends: bool) -> Holds {
        self.ordered(low, high, 0.0, mends)
    }

    /// `low` is less than `high`; both are integers.
    pub(super) fn below(&self, low: &str, high: &'static str, mends: bool) -> Holds {
        self.ordered(low, high, 1.0, mends)
    }

    fn ordered(&self, low: &str, high: &'static str, apart: f64, mends: bool) -> Holds {
        let (low_flag, high_flag) = (self.flag(low), self.flag(high));
        match (self.number(low), self.number(high)) {
            (Number::NotSet, _) => Holds::Yes,
            (Number::Known(least), Number::Known(most)) if least + apart <= most => Holds::Yes,
            (Number::Known(least), Number::Known(most)) => Holds::No {
                mend: mends.then(|| (high, (least + apart).to_string())),
                instead: format!(
                    "set {high_flag} to at least {}, or {low_flag} to at most {}",
                    least + apart,
                    most - apart
                ),
            },
            (Number::Known(least), _) => Holds::Unknown(format!(
                "see that {high_flag} is at least {}, which nobody tells",
                least + apart
            )),
            (Number::Unknown, Number::Known(most)) => Holds::Unknown(format!(
                "see that {low_flag} is at most {}, which nobody tells",
                most - apart
            )),
            (Number::Unknown, _) => Holds::Unknown(format!(
                "see that {low_flag} is no more than {high_flag}; nobody tells either"
            )),
        }
    }

    /// The two are not both so.
    pub(super) fn not_both(
        &self,
        (first, first_is): (&str, Option<bool>),
        (second, second_is): (&str, Option<bool>),
        mend: Option<(&'static str, &str)>,
    ) -> Holds {
        let (first, second) = (self.flag(first), self.flag(second));
        match (first_is, second_is) {
            (Some(false), _) | (_, Some(false)) => Holds::Yes,
            (Some(true), Some(true)) => Holds::No {
                mend: mend.map(|(name, value)| (name, value.to_owned())),
                instead: format!("leave {first} or {second} out"),
            },
            (Some(true), None) => {
                Holds::Unknown(format!("see what {second} is, which nobody tells"))
            }
            (None, Some(true)) => {
                Holds::Unknown(format!("see what {first} is, which nobody tells"))
            }
            // neither is known, and the change is of another
            (None, None) => Holds::Unknown(format!(
                "see what {first} and {second} are, which nobody tells"
            )),
        }
    }
}

/// What a knob is where its flag is taken away.
fn by_default(knob: &Knob, in_force: &InForce) -> SettingValue {
    match knob.default_in(in_force.version) {
        DefaultValue::Certain(value) => SettingValue::Known(value),
        DefaultValue::NotSet | DefaultValue::Chosen => SettingValue::NotSet,
        DefaultValue::OneOf(_) | DefaultValue::Unknown => SettingValue::Unknown,
    }
}
