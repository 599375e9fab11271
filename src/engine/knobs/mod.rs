//! Knobs: the settings of an engine that may be shown and changed, as data.
//!
//! One engine a table ([`vllm`], [`sglang`], [`tgi`]). Facts are those of the engines' own sources; where a version was
//! not read, `since` is the first that was read with the knob, and `until` the first without it.

mod default;
mod kind;
mod lookup;
pub(super) mod sglang;
#[cfg(test)]
mod table_tests;
pub(super) mod tgi;
pub(super) mod vllm;

use std::borrow::Cow;

pub use default::DefaultValue;
use default::{DefaultFact, DefaultRule};
pub use kind::{KnobError, KnobType, SwitchForm};
pub use lookup::KnobFlag;

use super::version::Version;

/// An engine setting that may be shown.
#[derive(Debug, Clone)]
pub struct Knob {
    /// Name, as the engine's own configuration has it.
    pub name: Cow<'static, str>,
    /// Launch flag; empty where there is none.
    pub flag: Cow<'static, str>,
    /// Other flags of the same meaning, with their dashes.
    pub other_flags: &'static [&'static str],
    /// Key within the JSON object that the flag takes; the flag is then shared by several knobs.
    pub json_key: Option<&'static str>,
    /// Environment variable that says the same (TGI).
    pub env: Option<&'static str>,
    /// Other names that people give it.
    pub other_names: &'static [&'static str],
    /// Where its value stands; the first that answers counts.
    pub sources: Vec<KnobSource>,
    /// What its values are.
    pub kind: KnobType,
    /// First version with it; none where all that are supported have it.
    pub since: Option<Version>,
    /// First version without it.
    pub until: Option<Version>,
    defaults: Vec<DefaultRule>,
    /// It tells what the engine made of other settings, and is none itself.
    pub derived: bool,
    /// It can be changed while the engine runs.
    pub live: bool,
    /// Answers may become others.
    pub changes_answers: bool,
    /// What raising it, or switching it on, gives and takes; a sentence. Empty where it is no lever.
    pub trades: &'static str,
}

/// Where a setting's value stands.
#[derive(Debug, Clone)]
pub enum KnobSource {
    /// A label of the profile's settings family.
    Label(Cow<'static, str>),
    /// A gauge that is constant after the start.
    Gauge(Cow<'static, str>),
    /// A JSON answer: path of the endpoint, pointer into it.
    Json {
        /// Path of the endpoint.
        path: Cow<'static, str>,
        /// JSON pointer.
        pointer: Cow<'static, str>,
    },
    /// `key=value` in a text that a JSON answer holds (vLLM's configuration as Python prints it).
    Printed {
        /// Path of the endpoint.
        path: Cow<'static, str>,
        /// JSON pointer to the text.
        pointer: Cow<'static, str>,
        /// The key.
        key: Cow<'static, str>,
    },
}

impl Knob {
    /// Whether this version has it. Where the version is not known: whether the newest has it.
    pub fn is_in(&self, version: Option<Version>) -> bool {
        match version {
            None => self.until.is_none(),
            Some(version) => {
                self.since.is_none_or(|since| version >= since)
                    && self.until.is_none_or(|until| version < until)
            }
        }
    }

    /// The value as the engine would understand it, in one spelling: `2k` is `2000`, `True` is `true`.
    ///
    /// # Errors
    /// What the engine would refuse, with what it takes.
    pub fn check(&self, value: &str) -> Result<String, KnobError> {
        self.kind.check(value).map_err(|expected| KnobError {
            name: self.name.to_string(),
            value: value.chars().take(80).collect(),
            expected,
        })
    }

    /// The default of this version; where the version is not known, what all versions agree on.
    pub fn default_in(&self, version: Option<Version>) -> DefaultValue {
        default::default_in(&self.defaults, version)
    }

    /// What a default that is not certain goes by, for people: `by the GPU's memory`.
    pub fn default_goes_by(&self, version: Option<Version>) -> Option<&'static str> {
        default::goes_by(&self.defaults, version)
    }

    /// A knob that nothing shows yet.
    pub fn new(name: &'static str, flag: &'static str, kind: KnobType) -> Self {
        Self {
            name: name.into(),
            flag: flag.into(),
            other_flags: &[],
            json_key: None,
            env: None,
            other_names: &[],
            sources: Vec::new(),
            kind,
            since: None,
            until: None,
            defaults: Vec::new(),
            derived: false,
            live: false,
            changes_answers: false,
            trades: "",
        }
    }

    /// Shown in a label of the settings family.
    pub fn label(self, label: &'static str) -> Self {
        self.source(KnobSource::Label(label.into()))
    }

    /// Shown by a constant gauge.
    pub fn gauge(self, family: &'static str) -> Self {
        self.source(KnobSource::Gauge(family.into()))
    }

    /// Shown in a JSON answer.
    pub fn json(self, path: &'static str, pointer: impl Into<Cow<'static, str>>) -> Self {
        self.source(KnobSource::Json {
            path: path.into(),
            pointer: pointer.into(),
        })
    }

    /// Shown as `key=value` in a text within a JSON answer.
    pub fn printed(self, path: &'static str, pointer: &'static str, key: &'static str) -> Self {
        self.source(KnobSource::Printed {
            path: path.into(),
            pointer: pointer.into(),
            key: key.into(),
        })
    }

    fn source(mut self, source: KnobSource) -> Self {
        self.sources.push(source);
        self
    }

    /// Other flags of the same meaning.
    fn or(mut self, flags: &'static [&'static str]) -> Self {
        self.other_flags = flags;
        self
    }

    /// Other names that people give it.
    fn called(mut self, names: &'static [&'static str]) -> Self {
        self.other_names = names;
        self
    }

    /// A key of the JSON object that the flag takes.
    fn key(mut self, key: &'static str) -> Self {
        self.json_key = Some(key);
        self
    }

    fn since(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.since = Some(Version::new(major, minor, patch));
        self
    }

    fn until(mut self, major: u32, minor: u32, patch: u32) -> Self {
        self.until = Some(Version::new(major, minor, patch));
        self
    }

    /// What the engine made of others.
    fn derived(mut self) -> Self {
        self.derived = true;
        self
    }

    fn live(mut self) -> Self {
        self.live = true;
        self
    }

    fn changes_answers(mut self) -> Self {
        self.changes_answers = true;
        self
    }

    fn trades(mut self, trades: &'static str) -> Self {
        self.trades = trades;
        self
    }

    /// The default, from the first version on.
    fn default(self, value: &'static str) -> Self {
        self.rule(None, DefaultFact::Is(value))
    }

    /// Another default from a version on.
    fn default_since(self, version: (u32, u32, u32), value: &'static str) -> Self {
        self.rule(Some(version), DefaultFact::Is(value))
    }

    /// One of these, by what the sentence says.
    fn tiered(self, values: &'static [&'static str], by: &'static str) -> Self {
        self.rule(None, DefaultFact::OneOf(values, by))
    }

    /// The same from a version on.
    fn tiered_since(
        self,
        version: (u32, u32, u32),
        values: &'static [&'static str],
        by: &'static str,
    ) -> Self {
        self.rule(Some(version), DefaultFact::OneOf(values, by))
    }

    /// The engine computes it, from what the sentence says.
    fn chosen(self, from: &'static str) -> Self {
        self.rule(None, DefaultFact::Chosen(from))
    }

    /// The same from a version on.
    fn chosen_since(self, version: (u32, u32, u32), from: &'static str) -> Self {
        self.rule(Some(version), DefaultFact::Chosen(from))
    }

    /// It is not set by default, and means nothing then.
    fn unset(self) -> Self {
        self.rule(None, DefaultFact::NotSet)
    }

    fn rule(mut self, since: Option<(u32, u32, u32)>, fact: DefaultFact) -> Self {
        self.defaults.push(DefaultRule {
            since: since.map(|(major, minor, patch)| Version::new(major, minor, patch)),
            fact,
        });
        self
    }
}
