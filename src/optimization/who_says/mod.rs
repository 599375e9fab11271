//! Who says what an engine runs with: measurement, declaration, what is implied, and defaults, in this order.

#[cfg(test)]
mod tests;

use crate::analysis::{ImpliedKind, ImpliedSetting, Thresholds, implied_settings};
use crate::engine::{DefaultValue, EngineProfile, Knob, Setting, Version};
use crate::measure::Measurement;

use super::declared::DeclaredSettings;
use super::in_force::{InForce, SettingInForce, SettingSource, SettingValue};

/// Names of the setting that says how many requests run at once, as the engines have it.
const SEQUENCE_CAPS: &[&str] = &["max_num_seqs", "max_running_requests"];
/// Names of what bounds the tokens of a prompt that a step computes.
const PROMPT_TOKENS: &[&str] = &["max_num_batched_tokens", "chunked_prefill_size"];

impl InForce {
    /// The settings that an instance runs with, by what was measured and the thresholds that say what that implies. A default counts where launch arguments were declared that leave it out,
    /// and where it is certain for the version; what anybody could have set is not known.
    pub fn of(
        profile: &EngineProfile,
        measured: Option<(&Measurement, &Thresholds)>,
        probed_version: Option<Version>,
        declared: &DeclaredSettings,
    ) -> Self {
        let measurement = measured.map(|(measurement, _)| measurement);
        let told_version = measurement
            .and_then(|measurement| measurement.engine_version.as_deref())
            .and_then(|text| text.parse().ok());
        let version = probed_version.or(told_version);
        let told = measurement.map_or(&[][..], |measurement| &measurement.settings);
        let implied = measured.map_or_else(Vec::new, |(measurement, thresholds)| {
            implied_settings(measurement, thresholds)
        });
        let settings = profile
            .knobs
            .iter()
            .filter_map(|knob| {
                let told = told.iter().find(|setting| setting.name == knob.name);
                // an engine that tells a setting has it, whatever the table says
                if told.is_none() && !knob.is_in(version) {
                    return None;
                }
                let asked = Asked {
                    profile,
                    knob,
                    version,
                    declared,
                    implied: implied
                        .iter()
                        .find(|one| implies(one.kind).contains(&&*knob.name)),
                };
                Some(asked.answer(told))
            })
            .collect();
        Self {
            engine: profile.name.to_string(),
            version,
            settings,
        }
    }
}

fn implies(kind: ImpliedKind) -> &'static [&'static str] {
    match kind {
        ImpliedKind::SequenceCap => SEQUENCE_CAPS,
        ImpliedKind::PromptTokensOfAStepAtMost => PROMPT_TOKENS,
    }
}

/// A setting, and whom to ask.
struct Asked<'a> {
    profile: &'a EngineProfile,
    knob: &'a Knob,
    version: Option<Version>,
    declared: &'a DeclaredSettings,
    implied: Option<&'a ImpliedSetting>,
}

impl Asked<'_> {
    fn answer(&self, told: Option<&Setting>) -> SettingInForce {
        let declared = self.declared.get(&self.knob.name);
        if let Some(setting) = told {
            let source = match setting.source.starts_with('/') {
                true => SettingSource::Endpoint(setting.source.clone()),
                false => SettingSource::Metric(setting.source.clone()),
            };
            return match setting.value.as_deref() {
                Some(value) => {
                    let value = self.one_spelling(value);
                    let hint = self.disagreement(declared, &value);
                    self.setting(SettingValue::Known(value), source, hint)
                }
                // what the engine chose shows in what it does
                None => self
                    .inferred_cap()
                    .unwrap_or_else(|| self.setting(SettingValue::NotSet, source, None)),
            };
        }
        if let Some(value) = declared {
            let value = value.map_or(SettingValue::NotSet, |value| {
                SettingValue::Known(self.one_spelling(value))
            });
            let hint = self.contradiction(&value);
            return self.setting(value, SettingSource::Declared, hint);
        }
        self.inferred().unwrap_or_else(|| self.by_default())
    }

    fn setting(
        &self,
        value: SettingValue,
        source: SettingSource,
        hint: Option<String>,
    ) -> SettingInForce {
        SettingInForce {
            name: self.knob.name.to_string(),
            flag: self.knob.flag.to_string(),
            value,
            source,
            hint,
        }
    }

    /// `0.90` is `0.9`. A value that the table does not know stays: the engine runs with it.
    fn one_spelling(&self, value: &str) -> String {
        // vLLM prints types as PyTorch names them
        let value = value.strip_prefix("torch.").unwrap_or(value);
        self.knob.check(value).unwrap_or_else(|_| value.to_owned())
    }

    /// What the engine tells is not what was declared.
    fn disagreement(&self, declared: Option<Option<&str>>, told: &str) -> Option<String> {
        let declared = self.one_spelling(declared??);
        // what was left to the engine is what it says
        (declared != told && declared != "auto").then(|| {
            format!(
                "{} is {declared} as declared, and the engine says {told}: correct what is declared.",
                self.knob.name
            )
        })
    }

    /// What the engine does is not what was declared.
    fn contradiction(&self, declared: &SettingValue) -> Option<String> {
        let implied = self.cap()?;
        let SettingValue::Known(declared) = declared else {
            return None;
        };
        let number: f64 = declared.parse().ok()?;
        (number != f64::from(implied.value)).then(|| {
            format!(
                "It is declared to be {declared}, but {}: check that the instance was started with what is declared.",
                implied.why
            )
        })
    }

    /// The cap that shows, where it is this knob's.
    fn cap(&self) -> Option<&ImpliedSetting> {
        // with a lower limit on those that are active, that is the one that shows
        let active = self.declared.get("max_num_active_seqs").flatten().is_some();
        self.implied
            .filter(|implied| implied.kind == ImpliedKind::SequenceCap && !active)
    }

    fn inferred_cap(&self) -> Option<SettingInForce> {
        let implied = self.cap()?;
        Some(self.setting(
            SettingValue::Known(implied.value.to_string()),
            SettingSource::Inferred(sentence(&implied.why)),
            Some(self.how_to_know()),
        ))
    }

    fn inferred(&self) -> Option<SettingInForce> {
        self.inferred_cap().or_else(|| {
            // a bound is no value, and another setting may be what bounds
            let bound = self
                .implied
                .filter(|implied| implied.kind == ImpliedKind::PromptTokensOfAStepAtMost)?;
            Some(self.setting(
                SettingValue::Unknown,
                SettingSource::Inferred(sentence(&bound.why)),
                Some(self.how_to_know()),
            ))
        })
    }

    fn by_default(&self) -> SettingInForce {
        let left_out = self.declared.leaves_out(self.knob);
        let of = match self.version {
            Some(version) => format!("{} {version}", self.profile.title),
            None => format!("{} of any version", self.profile.title),
        };
        let by = self.knob.default_goes_by(self.version).unwrap_or_default();
        let (value, says) = match self.knob.default_in(self.version) {
            DefaultValue::Certain(value) => {
                let says = format!("{value}, the default of {of}");
                (SettingValue::Known(value), says)
            }
            DefaultValue::OneOf(values) => {
                let says = match by {
                    "" => format!("{}, the default by version", values.join(" or ")),
                    by => format!("{}, {by}", values.join(" or ")),
                };
                (SettingValue::Unknown, says)
            }
            DefaultValue::Chosen => (SettingValue::NotSet, format!("the engine chooses it: {by}")),
            DefaultValue::NotSet => (
                SettingValue::NotSet,
                format!("not set, the default of {of}"),
            ),
            DefaultValue::Unknown => {
                let hint = Some(self.how_to_know());
                return self.setting(SettingValue::Unknown, SettingSource::Unknown, hint);
            }
        };
        if self.knob.derived {
            let hint = Some(self.how_to_know());
            return self.setting(SettingValue::Unknown, SettingSource::Unknown, hint);
        }
        if !left_out {
            let says = format!("{says}, unless a launch argument says otherwise");
            let source = SettingSource::Default(sentence(&says));
            return self.setting(SettingValue::Unknown, source, Some(self.how_to_know()));
        }
        let hint = (value == SettingValue::Unknown).then(|| self.how_to_know());
        self.setting(value, SettingSource::Default(sentence(&says)), hint)
    }

    /// What would make it known, as a sentence.
    fn how_to_know(&self) -> String {
        let name = &self.knob.name;
        if self.knob.derived {
            return format!("{}.", told(self.profile).unwrap_or("Measure the instance"));
        }
        let send = format!("send `{name}` in `current_config`");
        let shown = told(self.profile).filter(|_| !self.knob.sources.is_empty());
        // the default of declared arguments is not certain
        let declare = match self.declared.leaves_out(self.knob) {
            true => format!("set {} among the launch arguments", self.knob.flag),
            false => "declare the launch arguments of the instance".to_owned(),
        };
        match shown {
            Some(shown) => format!("{shown}, or {declare}, or {send}."),
            None => sentence(&format!("{declare}, or {send}")),
        }
    }
}

/// What makes an engine tell its settings.
fn told(profile: &EngineProfile) -> Option<&str> {
    Some(&*profile.settings_hint).filter(|hint| !hint.is_empty())
}

/// With a capital in front and a point behind.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    let rest = chars.as_str();
    first.into_iter().chain(rest.chars()).chain(['.']).collect()
}
