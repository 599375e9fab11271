//! `[[optimizers]]` of the config file → optimizers that may run.
//!
//! ```toml
//! [[optimizers]]
//! name = "night-batch"
//! engines = ["vllm"]
//! kind = "BATCHING"
//! priority = "LOW"
//! when = "'SEQUENCE_CAP' in bottlenecks && metrics.kv_cache_usage_ratio.max < 0.5"
//! changes = { "max-num-seqs" = { cel = "settings.max_num_seqs * 2" } }
//! title = "Twice as many sequences"
//! reason = "The cache is half empty, and requests wait."
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::analysis::{Cause, Treatment};
use crate::optimization::Priority;
use crate::units::{is_id, nearest};

use super::expression::{Expression, ExpressionError};

/// Most optimizers.
pub const MAX_OPTIMIZERS: usize = 64;
/// Most changes of one.
const MAX_CHANGES: usize = 16;
/// Longest text.
const MAX_TEXT_BYTES: usize = 1_024;

/// `[[optimizers]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerEntry {
    /// What it is called, like an id.
    pub name: String,
    /// Engines that it is for; empty for all.
    #[serde(default)]
    pub engines: Vec<String>,
    /// The kind of change: `BATCHING`, …
    pub kind: Option<String>,
    /// `LOW`, `MEDIUM`, `HIGH` or `CRITICAL`; none for `MEDIUM`.
    pub priority: Option<String>,
    /// The condition, in CEL.
    pub when: String,
    /// Setting → what it becomes.
    pub changes: BTreeMap<String, ChangeValue>,
    /// What it does, in a few words.
    pub title: String,
    /// Why.
    pub reason: String,
    /// What may go wrong, a sentence each.
    #[serde(default)]
    pub risks: Vec<String>,
    /// Causes that it treats: `SEQUENCE_CAP`, …
    #[serde(default)]
    pub treats: Vec<String>,
}

/// What a setting becomes.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, a text, true or false, or { cel = \"expression\" }"
)]
pub enum ChangeValue {
    /// On or off.
    Switch(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// What an expression gives.
    Computed(Computed),
}

/// An expression in place of a value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Computed {
    /// The expression.
    pub cel: String,
}

/// An entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptimizerError {
    /// More than are looked at.
    #[error("{0} optimizers; at most {MAX_OPTIMIZERS}")]
    TooMany(usize),
    /// A name that is none.
    #[error("name `{0}` must be lower-case letters, digits, `-` and `.`, at most 63 of them")]
    BadName(String),
    /// Two of the same name.
    #[error("`{0}`: there are two of this name")]
    Twice(String),
    /// An expression that cannot be used.
    #[error("`{name}`: {field}: {error}")]
    Expression {
        /// Which optimizer.
        name: String,
        /// Where in it.
        field: String,
        /// What is wrong.
        error: ExpressionError,
    },
    /// A word that is none.
    #[error("`{name}`: {field}: there is no `{word}`; did you mean `{nearest}`?")]
    Word {
        /// Which optimizer.
        name: String,
        /// Where in it.
        field: &'static str,
        /// What it says.
        word: String,
        /// What may have been meant.
        nearest: String,
    },
    /// Something else.
    #[error("`{name}`: {problem}")]
    Other {
        /// Which optimizer.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// An optimizer of the operator's own, checked.
#[derive(Debug, Clone)]
pub struct CustomOptimizer {
    pub(super) name: String,
    pub(super) engines: Vec<String>,
    pub(super) kind: Option<Treatment>,
    pub(super) priority: Priority,
    pub(super) when: Expression,
    pub(super) changes: Vec<(String, To)>,
    pub(super) title: String,
    pub(super) reason: String,
    pub(super) risks: Vec<String>,
    pub(super) treats: Vec<Cause>,
}

/// What a setting becomes, read.
#[derive(Debug, Clone)]
pub(super) enum To {
    Literal(String),
    Computed(Expression),
}

impl CustomOptimizer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it proposes, in a few words.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Checks the entries; `engines` are the names of all engines that there are.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn all(entries: &[OptimizerEntry], engines: &[&str]) -> Result<Vec<Self>, OptimizerError> {
        if entries.len() > MAX_OPTIMIZERS {
            return Err(OptimizerError::TooMany(entries.len()));
        }
        let mut all: Vec<Self> = Vec::new();
        for entry in entries {
            if all.iter().any(|other| other.name == entry.name) {
                return Err(OptimizerError::Twice(entry.name.clone()));
            }
            all.push(entry.read(engines)?);
        }
        Ok(all)
    }
}

impl OptimizerEntry {
    fn read(&self, engines: &[&str]) -> Result<CustomOptimizer, OptimizerError> {
        if !is_id(&self.name) {
            return Err(OptimizerError::BadName(
                self.name.chars().take(80).collect(),
            ));
        }
        self.check_size()?;
        for engine in &self.engines {
            self.word("engines", engine, engines.iter().map(|known| (*known, ())))?;
        }
        let kinds = Treatment::ALL.iter().map(|kind| (kind.as_str(), *kind));
        let kind = self
            .kind
            .as_ref()
            .map(|kind| self.word("kind", kind, kinds));
        let priorities = [
            Priority::Low,
            Priority::Medium,
            Priority::High,
            Priority::Critical,
        ];
        let priorities = priorities.map(|one| (one.as_str(), one));
        let priority = self.priority.as_ref();
        let priority = priority.map(|one| self.word("priority", one, priorities));
        let causes = || Cause::ALL.iter().map(|cause| (cause.as_str(), *cause));
        let treats = self
            .treats
            .iter()
            .map(|cause| self.word("treats", cause, causes()));
        let changes = self.changes.iter().map(|(setting, value)| {
            let to = match value {
                ChangeValue::Switch(on) => To::Literal(on.to_string()),
                ChangeValue::Integer(number) => To::Literal(number.to_string()),
                ChangeValue::Number(number) => To::Literal(number.to_string()),
                ChangeValue::Text(text) => To::Literal(text.clone()),
                ChangeValue::Computed(computed) => {
                    To::Computed(self.parse(&format!("changes.{setting}"), &computed.cel)?)
                }
            };
            // as the engine's configuration has it
            Ok((setting.trim_start_matches('-').replace('-', "_"), to))
        });
        Ok(CustomOptimizer {
            name: self.name.clone(),
            engines: self.engines.clone(),
            kind: kind.transpose()?,
            priority: priority.transpose()?.unwrap_or(Priority::Medium),
            when: self.parse("when", &self.when)?,
            changes: changes.collect::<Result<_, OptimizerError>>()?,
            title: self.title.clone(),
            reason: self.reason.clone(),
            risks: self.risks.clone(),
            treats: treats.collect::<Result<_, _>>()?,
        })
    }

    fn check_size(&self) -> Result<(), OptimizerError> {
        let other = |problem: String| {
            Err(OptimizerError::Other {
                name: self.name.clone(),
                problem,
            })
        };
        if self.changes.is_empty() || self.changes.len() > MAX_CHANGES {
            return other(format!("changes: from 1 to {MAX_CHANGES} settings"));
        }
        let texts = self.risks.iter().chain([&self.title, &self.reason]);
        let values = self.changes.values().filter_map(|value| match value {
            ChangeValue::Text(text) => Some(text),
            _ => None,
        });
        let mut all = texts.chain(values).chain(self.changes.keys());
        if all.any(|text| text.is_empty() || text.len() > MAX_TEXT_BYTES) {
            return other(format!(
                "title, reason, risks and changes are texts of 1 to {MAX_TEXT_BYTES} bytes"
            ));
        }
        if self.risks.len() > MAX_CHANGES || self.treats.len() > MAX_OPTIMIZERS {
            return other("too many risks or causes".to_owned());
        }
        Ok(())
    }

    fn parse(&self, field: &str, source: &str) -> Result<Expression, OptimizerError> {
        Expression::parse(source).map_err(|error| OptimizerError::Expression {
            name: self.name.clone(),
            field: field.to_owned(),
            error,
        })
    }

    fn word<'w, T>(
        &self,
        field: &'static str,
        word: &str,
        known: impl IntoIterator<Item = (&'w str, T)>,
    ) -> Result<T, OptimizerError> {
        let mut words = Vec::new();
        for (name, value) in known {
            if name == word {
                return Ok(value);
            }
            words.push(name);
        }
        Err(OptimizerError::Word {
            name: self.name.clone(),
            field,
            word: word.chars().take(80).collect(),
            nearest: nearest(word, words).unwrap_or_default().to_owned(),
        })
    }
}
