//! Settings in force: which may be shown, and how they are read from what an engine says of itself.
//!
//! Only what a knob table names leaves this reader. SGLang's `/server_info` holds API keys.

use std::borrow::Cow;

use serde_json::Value;

use super::knobs::{Knob, KnobSource};
use super::profile::EngineProfile;
use super::version::Version;

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name, as the engine's own configuration has it.
    pub name: String,
    /// Launch flag.
    pub flag: String,
    /// Value as text; none where the engine says that it is not set.
    pub value: Option<String>,
    /// Where it was read: `vllm:cache_config_info`, `/server_info`.
    pub source: String,
}

/// An endpoint that shows version or settings.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Path and query, from the root that `/metrics` is under.
    pub path: Cow<'static, str>,
    /// Asked only if the path before it in the list gave no answer.
    pub fallback: bool,
}

/// What an engine said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// Version as the engine writes it.
    pub version_text: Option<String>,
    /// The same as numbers, where it has any.
    pub version: Option<Version>,
    /// Settings in the order of the knob table.
    pub settings: Vec<Setting>,
    /// An answer came that only this engine gives.
    pub proves_engine: bool,
}

impl Probed {
    /// Takes over what another endpoint said; what is known stays, and a value is more than "not set": engines say
    /// that of settings which they chose themselves, and tell elsewhere what they chose.
    pub fn merge(&mut self, other: Self) {
        if self.version_text.is_none() {
            self.version_text = other.version_text;
            self.version = other.version;
        }
        for setting in other.settings {
            match self
                .settings
                .iter_mut()
                .find(|known| known.name == setting.name)
            {
                None => self.settings.push(setting),
                Some(known) if known.value.is_none() => *known = setting,
                Some(_) => {}
            }
        }
        self.proves_engine |= other.proves_engine;
    }
}

/// Longest value that is taken over.
const MAX_VALUE_BYTES: usize = 256;

/// Reads version and settings from a JSON answer.
pub fn read_endpoint(profile: &EngineProfile, path: &str, answer: &Value) -> Probed {
    let text_at = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let version_text = profile
        .version_sources
        .iter()
        .filter(|source| source.path == path)
        .find_map(|source| text_at(&source.pointer))
        .filter(|text| text.len() <= MAX_VALUE_BYTES)
        .map(str::to_owned);
    let proven = match &profile.proof {
        None => version_text.is_some(),
        Some((pointer, value)) => text_at(pointer) == Some(value),
    };
    let mut probed = Probed {
        version: version_text.as_deref().and_then(|text| text.parse().ok()),
        proves_engine: proven,
        version_text,
        settings: Vec::new(),
    };
    for knob in &profile.knobs {
        let value = knob.sources.iter().find_map(|source| match source {
            KnobSource::Json { path: at, pointer } if at == path => {
                answer.pointer(pointer).and_then(json_text)
            }
            KnobSource::Printed {
                path: at,
                pointer,
                key,
            } if at == path => printed_value(text_at(pointer)?, key).map(python_text),
            _ => None,
        });
        if let Some(value) = value {
            probed
                .settings
                .push(setting(knob, value, plain_path(path).to_owned()));
        }
    }
    probed
}

pub(crate) fn setting(knob: &Knob, value: Option<String>, source: String) -> Setting {
    Setting {
        name: knob.name.to_string(),
        flag: knob.flag.to_string(),
        value,
        source,
    }
}

/// Text of a label or printed value as Python writes it.
pub(crate) fn python_text(text: &str) -> Option<String> {
    match text {
        "None" => None,
        "True" => Some("true".to_owned()),
        "False" => Some("false".to_owned()),
        other => Some(other.trim_matches('\'').to_owned()),
    }
}

fn plain_path(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// The outer option: whether the answer has a usable value at all. The inner: whether the setting is set.
fn json_text(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::Bool(flag) => Some(Some(flag.to_string())),
        Value::Number(number) => Some(Some(number.to_string())),
        Value::String(text) if text.len() <= MAX_VALUE_BYTES => Some(Some(text.clone())),
        _ => None,
    }
}

/// The value behind `key=`, up to the next comma. Keys stand at the beginning or behind a separator.
fn printed_value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let wanted = format!("{key}=");
    let (at, _) = text.match_indices(&wanted).find(|(at, _)| {
        text.get(..*at)
            .is_some_and(|before| before.is_empty() || before.ends_with([' ', '(', ',']))
    })?;
    let value = text.get(at + wanted.len()..)?;
    let end = value.find([',', ')']).unwrap_or(value.len());
    value
        .get(..end)
        .filter(|value| value.len() <= MAX_VALUE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_configurations_are_read_by_key() {
        let text = "model='/models/x', max_seq_len=4096, kv_cache_dtype=auto, last=True";
        assert_eq!(printed_value(text, "max_seq_len"), Some("4096"));
        assert_eq!(printed_value(text, "model"), Some("'/models/x'"));
        assert_eq!(printed_value(text, "dtype"), None);
        assert_eq!(printed_value(text, "last"), Some("True"));
        assert_eq!(python_text("'/models/x'"), Some("/models/x".to_owned()));
        assert_eq!(python_text("None"), None);
    }
}
