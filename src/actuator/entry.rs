//! `[[actuators]]` of the config file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::none::NONE;
use crate::units::is_id;

/// `[[actuators]]`
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActuatorEntry {
    /// Its name, as instances say it; the same rule as for ids.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: ActuatorKind,
    /// Of a command: the program, by its whole path, and its arguments. No shell reads it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Of a command: names of the agent's variables that the program gets; it gets no other.
    #[serde(default)]
    pub env: Vec<String>,
    /// How long one call may take.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Of a command: how many workflows may be at it at once; others wait for their turn.
    pub max_concurrent: Option<usize>,
    /// Of a command: it is driven without having passed `perfagent actuator check`.
    #[serde(default, rename = "unsafe")]
    pub is_unsafe: bool,
}

// arguments can hold secrets: no log shows them
impl std::fmt::Debug for ActuatorEntry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ActuatorEntry")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("program", &self.command.first())
            .finish_non_exhaustive()
    }
}

/// What an actuator of the config file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActuatorKind {
    /// The operator's own program.
    Command,
    /// The built-in simulator.
    Simulator,
}

/// The keys of an entry.
pub const ACTUATOR_KEYS: [&str; 7] = [
    "name",
    "type",
    "command",
    "env",
    "timeout",
    "max_concurrent",
    "unsafe",
];

const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
const CONCURRENT: (usize, usize) = (1, 1_000);
const MAX_WORDS: usize = 64;
const MAX_WORD_BYTES: usize = 4_096;

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

/// An actuator of the config file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`: {problem}")]
pub struct ActuatorEntryError {
    /// Which.
    pub name: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Checks entries, each by itself and beside the others.
///
/// # Errors
/// The first that cannot be used.
pub(super) fn check(entries: &[ActuatorEntry]) -> Result<(), ActuatorEntryError> {
    let mut names = BTreeSet::new();
    for entry in entries {
        let wrong = |problem: String| ActuatorEntryError {
            name: entry.name.clone(),
            problem,
        };
        entry.problem().map_or(Ok(()), |text| Err(wrong(text)))?;
        if !names.insert(&entry.name) {
            return Err(wrong("there are two of this name".to_owned()));
        }
    }
    Ok(())
}

impl ActuatorEntry {
    fn problem(&self) -> Option<String> {
        let (shortest, longest) = TIMEOUTS;
        if !is_id(&self.name) {
            return Some(
                "name: 1 to 63 lower-case letters, digits, `-` and `.`, a letter or digit at both ends"
                    .to_owned(),
            );
        }
        if self.name == NONE {
            return Some("this name stands for the actuator that drives nothing".to_owned());
        }
        if !(shortest..=longest).contains(&self.timeout) {
            return Some("timeout must be from 1s to 1h".to_owned());
        }
        let (fewest, most) = CONCURRENT;
        if self
            .max_concurrent
            .is_some_and(|many| !(fewest..=most).contains(&many))
        {
            return Some(format!("max_concurrent must be from {fewest} to {most}"));
        }
        match self.kind {
            ActuatorKind::Command => self.problem_of_command(),
            ActuatorKind::Simulator => {
                let given = [
                    ("command", !self.command.is_empty()),
                    ("env", !self.env.is_empty()),
                    ("max_concurrent", self.max_concurrent.is_some()),
                    ("unsafe", self.is_unsafe),
                ];
                let given = given.iter().find(|(_, given)| *given);
                given.map(|(key, _)| format!("{key} is for `type = \"command\"`"))
            }
        }
    }

    fn problem_of_command(&self) -> Option<String> {
        let Some(program) = self.command.first() else {
            return Some(
                "command is missing: the program and its arguments, such as [\"/opt/bin/settings\", \"--unit\", \"vllm\"]"
                    .to_owned(),
            );
        };
        if !Path::new(program).is_absolute() {
            return Some(format!(
                "command: give `{program}` by its whole path, since no PATH is searched"
            ));
        }
        if self.command.len() > MAX_WORDS
            || self
                .command
                .iter()
                .any(|word| word.len() > MAX_WORD_BYTES || word.contains('\0'))
        {
            return Some(format!(
                "command: at most {MAX_WORDS} words of {MAX_WORD_BYTES} bytes, none with a zero byte"
            ));
        }
        let is_variable = |name: &String| {
            let first = name.bytes().next();
            first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let wrong = self.env.iter().find(|name| !is_variable(name))?;
        Some(format!(
            "env: `{wrong}` is no name of a variable; values are taken from the agent's own variables"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let entry: ActuatorEntry = toml::from_str(text).unwrap();
        let second = entry.clone();
        let text = check(&[entry]).err().map(|error| error.to_string());
        text.unwrap_or_else(|| check(&[second.clone(), second]).unwrap_err().to_string())
    }

    #[test]
    fn entries_that_cannot_be_used_say_why() {
        let command = "name = \"a\"\ntype = \"command\"\n";
        let program = "command = [\"/bin/x\"]\n";
        let with = |text: &str| format!("{command}{program}{text}");
        for (text, why) in [
            (with(""), "`a`: there are two of this name"),
            (command.to_owned(), "command is missing"),
            (format!("{command}command = [\"x\"]"), "whole path"),
            (with("timeout = \"0s\""), "from 1s to 1h"),
            (with("timeout = \"2h\""), "from 1s to 1h"),
            (with("max_concurrent = 0"), "from 1 to 1000"),
            (with("max_concurrent = 1001"), "from 1 to 1000"),
            (with("env = [\"A=1\"]"), "`A=1` is no name of a variable"),
            (with("").replace("\"a\"", "\"A\""), "name: 1 to 63"),
            (with("").replace("\"a\"", "\"none\""), "drives nothing"),
            (
                with("").replace("\"command\"", "\"simulator\""),
                "command is for `type = \"command\"`",
            ),
            (
                format!("{command}command = [\"/x\", \"a\\u0000\"]"),
                "zero byte",
            ),
        ] {
            let found = problem(&text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let text = "name = \"sim\"\ntype = \"simulator\"";
        let entry: ActuatorEntry = toml::from_str(text).unwrap();
        assert_eq!(entry.timeout, Duration::from_secs(60));
        assert!(!entry.is_unsafe && check(&[entry]).is_ok());
    }
}
