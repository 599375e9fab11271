//! The settings of a replica as an actuator sees them: content that is compared and set, and what becomes of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::deployment::{Deployment, Restart};
use super::flags::{FLAGS, FlagError, FlagValues, engine_name};
use crate::model::Policy;

/// Operations that are remembered.
const MAX_OPERATIONS: usize = 10_000;

/// The settings of a replica: a list of launch arguments in JSON.
#[derive(Debug, Clone)]
pub struct ReplicaSettings {
    content: Vec<u8>,
    revision: u64,
    operation_id: Option<String>,
    epoch: Option<u64>,
    applies: BTreeMap<String, u32>,
}

/// Settings to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSettings {
    /// Id of the operation, the same for each repeat of it.
    pub operation_id: String,
    /// Epoch of who writes.
    pub epoch: u64,
    /// Revision that is replaced.
    pub expect_revision: String,
    /// What they become.
    pub content: Vec<u8>,
}

/// Settings that were not written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsRefusal {
    /// The revision is another.
    #[error("the settings are at revision {current}")]
    StaleRevision {
        /// What there is.
        current: String,
    },
    /// A later holder wrote.
    #[error("the settings were written with epoch {current}")]
    StaleEpoch {
        /// Of what is there.
        current: u64,
    },
    /// Content that is no list of launch arguments.
    #[error("the content must be a list of launch arguments in JSON")]
    Content,
    /// An engine that would not start.
    #[error(transparent)]
    Flags(#[from] FlagError),
}

impl ReplicaSettings {
    /// Of an engine that was started with these flags.
    pub fn of(flags: &FlagValues, engine: Policy) -> Self {
        Self {
            content: content_of(&flags.launch_args(engine)),
            revision: 1,
            operation_id: None,
            epoch: None,
            applies: BTreeMap::new(),
        }
    }

    /// As it was written.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The launch arguments that it holds.
    pub fn launch_args(&self) -> Vec<String> {
        read(&self.content).unwrap_or_default()
    }

    /// Changes with each change of the content.
    pub fn revision(&self) -> String {
        self.revision.to_string()
    }

    /// The operation that wrote last.
    pub fn operation_id(&self) -> Option<&str> {
        self.operation_id.as_deref()
    }

    /// The highest epoch that wrote.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// How often each operation changed something.
    pub fn applies(&self) -> &BTreeMap<String, u32> {
        &self.applies
    }

    /// Keeps the epoch of who acts.
    ///
    /// # Errors
    /// A later holder acted; nothing is changed.
    pub fn admit(&mut self, epoch: u64) -> Result<(), SettingsRefusal> {
        self.refuse_before(epoch)?;
        self.epoch = Some(epoch);
        Ok(())
    }

    fn refuse_before(&self, epoch: u64) -> Result<(), SettingsRefusal> {
        match self.epoch.filter(|current| *current > epoch) {
            Some(current) => Err(SettingsRefusal::StaleEpoch { current }),
            None => Ok(()),
        }
    }

    /// Writes settings, unless something else is there than was expected. What the engine is to be restarted with; none
    /// where nothing changes.
    ///
    /// # Errors
    /// See [`SettingsRefusal`]; nothing is changed.
    pub fn write(
        &mut self,
        new: NewSettings,
        of: &Deployment,
        running: &FlagValues,
    ) -> Result<Option<Restart>, SettingsRefusal> {
        self.refuse_before(new.epoch)?;
        let is_there = self.content == new.content;
        let is_repeat = is_there && self.operation_id.as_ref() == Some(&new.operation_id);
        if !is_repeat && new.expect_revision != self.revision() {
            let current = self.revision();
            return Err(SettingsRefusal::StaleRevision { current });
        }
        let words = read(&new.content).ok_or(SettingsRefusal::Content)?;
        let flags = FlagValues::of_launch_args(&words, of.engine)?;
        of.settings(&flags)?;
        self.epoch = Some(new.epoch);
        self.operation_id = Some(new.operation_id.clone());
        if is_there {
            return Ok(None);
        }
        self.content = new.content;
        self.revision += 1;
        if self.applies.len() >= MAX_OPERATIONS {
            self.applies.pop_first();
        }
        *self.applies.entry(new.operation_id).or_default() += 1;
        Ok(Some(Restart {
            settings: running.changes_to(&flags),
            load_seconds: 0.0,
        }))
    }
}

/// Launch arguments as they are kept.
pub fn content_of(launch_args: &[String]) -> Vec<u8> {
    let list: Vec<Value> = launch_args.iter().map(|word| word.clone().into()).collect();
    format!("{}\n", Value::from(list)).into_bytes()
}

fn read(content: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(content).ok()
}

impl FlagValues {
    /// The launch arguments that set them.
    pub fn launch_args(&self, engine: Policy) -> Vec<String> {
        let is_switch = |name: &str| {
            let mut own = FLAGS.iter().filter(|flag| flag.engine == engine);
            own.any(|flag| flag.name == name && flag.value.is_none())
        };
        let words = self.iter().flat_map(|(name, value)| {
            let flag = format!("--{name}");
            match (is_switch(name), value) {
                (true, "true") => vec![flag],
                (true, _) => Vec::new(),
                (false, value) => vec![flag, value.to_owned()],
            }
        });
        words.collect()
    }

    /// What launch arguments set: `--flag value`, `--flag=value`, or a switch. Words before the first flag, a program
    /// and a model, set nothing.
    ///
    /// # Errors
    /// A flag that is not simulated, a value that is missing.
    pub fn of_launch_args(words: &[String], engine: Policy) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let own = |name: &str| {
            let mut own = FLAGS.iter().filter(|flag| flag.engine == engine);
            own.find(|flag| flag.name == name)
        };
        let mut words = words
            .iter()
            .skip_while(|word| !word.starts_with("--"))
            .peekable();
        while let Some(word) = words.next() {
            let word = word.strip_prefix("--").unwrap_or(word);
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word, None),
            };
            let name = name.replace('_', "-");
            match own(&name) {
                Some(flag) if flag.value.is_none() => {
                    flags.set(&name, inline.unwrap_or_else(|| "true".to_owned()));
                }
                Some(flag) => {
                    let value = inline.or_else(|| words.next().cloned());
                    let value = value.ok_or_else(|| FlagError::Value {
                        name: flag.name,
                        value: String::new(),
                        reason: "a value is missing".to_owned(),
                    })?;
                    flags.set(&name, value);
                }
                // the other way round of a switch that turns off
                None if own(&format!("no-{name}")).is_some_and(|flag| flag.value.is_none()) => {
                    flags.unset(&format!("no-{name}"));
                }
                None => {
                    let known = FLAGS.iter().filter(|flag| flag.engine == engine);
                    let known: Vec<&str> = known.map(|flag| flag.name).collect();
                    return Err(FlagError::Unknown {
                        engine: engine_name(engine),
                        name,
                        known: known.join(", "),
                    });
                }
            }
        }
        Ok(flags)
    }

    /// What changes these into others; null goes back to the default.
    fn changes_to(&self, other: &Self) -> BTreeMap<String, Value> {
        let gone = self.iter().map(|(name, _)| (name.to_owned(), Value::Null));
        let new = other.iter();
        gone.chain(new.map(|(name, value)| (name.to_owned(), value.into())))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Scenario;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn new(operation_id: &str, epoch: u64, expect_revision: &str, args: &str) -> NewSettings {
        NewSettings {
            operation_id: operation_id.to_owned(),
            epoch,
            expect_revision: expect_revision.to_owned(),
            content: content_of(&words(args)),
        }
    }

    #[test]
    fn launch_arguments_and_flags_are_the_same() {
        let read = |text: &str| FlagValues::of_launch_args(&words(text), Policy::Vllm);
        let flags =
            read("vllm serve m --max-num-seqs 4 --block_size=32 --no-enable-prefix-caching")
                .unwrap();
        assert_eq!(
            flags.launch_args(Policy::Vllm),
            words("--block-size 32 --max-num-seqs 4 --no-enable-prefix-caching")
        );
        let on = read("--no-enable-prefix-caching --enable-prefix-caching").unwrap();
        assert_eq!(on, FlagValues::default());
        let unknown = read("--tensor-parallel-size 2").unwrap_err().to_string();
        assert!(unknown.contains("tensor-parallel-size"), "{unknown}");
        let missing = read("--max-num-seqs").unwrap_err().to_string();
        assert!(missing.contains("a value is missing"), "{missing}");
    }

    #[test]
    fn settings_are_compared_and_set_once_an_operation() {
        let deployment = Scenario::default().deployment().unwrap();
        let mut running = FlagValues::default();
        running.set("max-num-seqs", "4");
        let mut settings = ReplicaSettings::of(&running, Policy::Vllm);
        assert_eq!(settings.launch_args(), words("--max-num-seqs 4"));
        let mut write = |new: NewSettings| settings.write(new, &deployment, &running);

        let restart = write(new("a", 2, "1", "--block-size 32")).unwrap().unwrap();
        let changes: Vec<_> = restart.settings.into_iter().collect();
        assert_eq!(
            changes,
            [
                ("block-size".to_owned(), Value::from("32")),
                ("max-num-seqs".to_owned(), Value::Null),
            ]
        );
        // a repeat changes nothing, and holds the epoch of who repeats it
        assert_eq!(write(new("a", 3, "1", "--block-size 32")), Ok(None));
        let stale = write(new("b", 2, "2", "--block-size 16"));
        assert_eq!(stale, Err(SettingsRefusal::StaleEpoch { current: 3 }));
        let stale = write(new("b", 3, "1", "--block-size 16")).unwrap_err();
        assert_eq!(stale.to_string(), "the settings are at revision 2");
        for wrong in ["--block-size 0", "--no-such-flag"] {
            let refused = write(new("b", 3, "2", wrong));
            assert!(matches!(refused, Err(SettingsRefusal::Flags(_))), "{wrong}");
        }
        let mut no_list = new("b", 3, "2", "");
        no_list.content = b"{}".to_vec();
        assert_eq!(write(no_list), Err(SettingsRefusal::Content));
        // the same content by another operation restarts nothing
        assert_eq!(write(new("c", 3, "2", "--block-size 32")), Ok(None));
        assert_eq!(settings.operation_id(), Some("c"));
        assert_eq!(settings.revision(), "2");
        assert_eq!(
            settings.applies().iter().collect::<Vec<_>>(),
            [(&"a".to_owned(), &1)]
        );
    }
}
