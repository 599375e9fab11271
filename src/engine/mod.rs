//! Engine profiles: what each engine calls our quantities, and where it shows version and settings.
//!
//! A profile is data. Adding an engine is one file beside these and one line in [`Registry::builtin`]; an engine
//! that nobody wrote a file for comes from the config file ([`custom`]).

mod alias;
mod bounds;
pub mod custom;
mod knobs;
mod profile;
mod quantity;
mod settings;
mod sglang;
mod tgi;
mod version;
mod vllm;

use std::sync::Arc;

pub use alias::{Alias, Combine, LabelFilter, Part, Term};
pub use bounds::latency_bounds;
pub(crate) use bounds::{
    SGLANG_FIRST_TOKEN, SGLANG_INTER_TOKEN, VLLM_FIRST_TOKEN, VLLM_INTER_TOKEN,
};
pub use knobs::{DefaultValue, Knob, KnobError, KnobFlag, KnobSource, KnobType, SwitchForm};
pub(crate) use profile::TermId;
pub use profile::{EngineProfile, ProfileBuilder, VersionSource};
pub use quantity::{Merge, Quantity, QuantityKind};
pub use settings::{Endpoint, Probed, Setting, read_endpoint};
pub(crate) use settings::{python_text, setting};
pub use version::{NotAVersion, Version};

/// The family by which a simulated engine says that it is one.
pub const SIMULATED_FAMILY: &str = "perfagent_simulated";

/// All engines that can be measured, in the order in which they are tried when recognising one.
#[derive(Debug, Clone)]
pub struct Registry {
    profiles: Vec<Arc<EngineProfile>>,
}

impl Registry {
    /// vLLM, SGLang and TGI.
    pub fn builtin() -> Self {
        Self {
            profiles: [vllm::profile(), sglang::profile(), tgi::profile()]
                .map(Arc::new)
                .into(),
        }
    }

    /// Adds an engine; one of the same name is replaced, so that a config file may override.
    pub fn add(&mut self, profile: EngineProfile) {
        self.profiles.retain(|known| known.name != profile.name);
        // in front, so that it is recognised before a built-in engine whose prefix it shares
        self.profiles.insert(0, Arc::new(profile));
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<EngineProfile>> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// All profiles.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EngineProfile>> {
        self.profiles.iter()
    }

    /// Names, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.iter().map(|profile| &*profile.name).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_engines_are_known_by_name() {
        let registry = Registry::builtin();
        assert_eq!(registry.names(), ["sglang", "tgi", "vllm"]);
        assert!(registry.get("trt").is_none());
    }
}
