//! Flags, spelled as each engine spells them, and what they set in the model.

mod table;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{Policy, Settings, SettingsError};

use table::defaults;

pub use table::FLAGS;

/// A flag of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, without dashes in front.
    pub name: &'static str,
    /// Whose it is.
    pub engine: Policy,
    /// What its value is called; none for a switch.
    pub value: Option<&'static str>,
    /// What it sets.
    pub help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Flags that are set, by name; a switch is `true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagValues(BTreeMap<String, String>);

/// A flag that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FlagError {
    /// The engine has none of this name.
    #[error("{engine} has no setting `{name}` that is simulated; it has {known}")]
    Unknown {
        /// The engine.
        engine: &'static str,
        /// The name.
        name: String,
        /// Those that it has.
        known: String,
    },
    /// A value that is none.
    #[error("--{name} {value}: {reason}")]
    Value {
        /// The flag.
        name: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// Settings that no engine can have.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Name of the engine, as in `instance_type`.
pub fn engine_name(engine: Policy) -> &'static str {
    match engine {
        Policy::Vllm => "vllm",
        Policy::Sglang => "sglang",
        Policy::Tgi => "tgi",
    }
}

/// The engine of this name.
pub fn engine_of(name: &str) -> Option<Policy> {
    [Policy::Vllm, Policy::Sglang, Policy::Tgi]
        .into_iter()
        .find(|engine| engine_name(*engine) == name)
}

impl FlagValues {
    /// Sets a flag; its name may be written with underscores.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.replace('_', "-"), value.into());
    }

    /// Sets what another has set.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(
            other
                .0
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    /// From names and JSON values, as a file or a request has them. A value of null goes back to the default.
    pub fn change(&mut self, changes: &BTreeMap<String, Value>) {
        for (name, value) in changes {
            match value {
                Value::Null => {
                    self.0.remove(&name.replace('_', "-"));
                }
                Value::String(text) => self.set(name, text.clone()),
                other => self.set(name, other.to_string()),
            }
        }
    }

    /// Sets a flag no more.
    pub(super) fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether the flag of this name is set.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Its value, where it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names with values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The settings of an engine that is started with these flags.
    ///
    /// # Errors
    /// A flag that this engine does not have, a value that is none, settings that cannot be.
    pub fn settings(&self, engine: Policy) -> Result<Settings, FlagError> {
        let own = || FLAGS.iter().filter(|flag| flag.engine == engine);
        for name in self.0.keys() {
            if !own().any(|flag| flag.name == name) {
                let known: Vec<&str> = own().map(|flag| flag.name).collect();
                return Err(FlagError::Unknown {
                    engine: engine_name(engine),
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        let mut settings = defaults(engine);
        for flag in own() {
            let Some(value) = self.0.get(flag.name) else {
                continue;
            };
            (flag.set)(&mut settings, value).map_err(|reason| FlagError::Value {
                name: flag.name,
                value: value.clone(),
                reason,
            })?;
        }
        // vLLM lowers its default, and refuses what was asked for
        if engine == Policy::Vllm && !self.0.contains_key("max-num-seqs") {
            settings.max_num_seqs = settings.max_num_seqs.min(settings.max_num_batched_tokens);
        }
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> FlagValues {
        let mut values = FlagValues::default();
        for (name, value) in pairs {
            values.set(name, *value);
        }
        values
    }

    #[test]
    fn flags_set_what_their_engine_means_by_them() {
        let settings = values(&[
            ("max_num_seqs", "4"),
            ("num-gpu-blocks-override", "64"),
            ("block-size", "32"),
            ("max-model-len", "1024"),
            ("no-enable-prefix-caching", "true"),
        ]);
        let settings = settings.settings(Policy::Vllm).unwrap();
        assert_eq!(
            (
                settings.max_num_seqs,
                settings.kv_blocks,
                settings.block_size
            ),
            (4, 63, 32)
        );
        assert!(!settings.prefix_caching);
        let settings = values(&[("max-total-tokens", "32768"), ("page-size", "16")]);
        assert_eq!(settings.settings(Policy::Sglang).unwrap().kv_blocks, 2_048);
        let settings = values(&[("max-total-tokens", "1024")]);
        assert_eq!(settings.settings(Policy::Tgi).unwrap().max_model_len, 1_024);
        // a default gives way
        let settings = values(&[("max-num-batched-tokens", "64")])
            .settings(Policy::Vllm)
            .unwrap();
        assert_eq!(settings.max_num_seqs, 64);
    }

    #[test]
    fn what_an_engine_refuses_is_refused() {
        for (flags, what) in [
            (
                values(&[("max-running-requests", "4")]),
                "vllm has no setting `max-running-requests`",
            ),
            (
                values(&[("max-num-seqs", "many")]),
                "--max-num-seqs many: a whole number is meant",
            ),
            (
                values(&[("max-num-seqs", "4096")]),
                "max_num_batched_tokens = 2048",
            ),
            (
                values(&[("speculative-config", "{}")]),
                "num_speculative_tokens",
            ),
        ] {
            let error = flags.settings(Policy::Vllm).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
