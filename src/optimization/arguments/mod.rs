//! Launch arguments: read as the engine reads them, changed in place, and printed with what has changed.

mod edit;
mod shell;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::engine::{EngineProfile, Knob, KnobType, SwitchForm};

use super::change::KnobChange;
pub use edit::{ArgumentChange, ArgumentPart, ChangedArguments};
pub use shell::{ShellError, quote, split_line};

/// The arguments that an engine is started with, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchArguments {
    arguments: Vec<Argument>,
}

/// Words that belong together: a flag and its value, or a word that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Argument {
    words: Vec<String>,
    form: Form,
    /// What it sets: name of the knob, value as it is written.
    sets: Vec<(String, String)>,
}

/// How an argument is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It is kept as it is.
    Other,
    /// `--flag value`, or a switch.
    Spaced,
    /// `--flag=value`.
    Inline,
    /// `FLAG=value` in front of the command.
    Environment,
}

impl LaunchArguments {
    /// Reads a list of arguments. What is not understood is kept as it is.
    pub fn parse(profile: &EngineProfile, words: &[String]) -> Self {
        let mut arguments = Vec::new();
        let mut rest = words;
        while let [word, behind @ ..] = rest {
            if word == "--" {
                arguments.extend(rest.iter().map(|word| other(word)));
                break;
            }
            let (argument, taken) = read(profile, word, behind);
            arguments.push(argument);
            rest = behind.get(taken..).unwrap_or_default();
        }
        Self { arguments }
    }

    /// The same of a whole line.
    ///
    /// # Errors
    /// See [`ShellError`].
    pub fn parse_line(profile: &EngineProfile, line: &str) -> Result<Self, ShellError> {
        Ok(Self::parse(profile, &split_line(line)?))
    }

    /// What they set: name of the knob and value as it is written. Of several that set the same the last counts, and
    /// stands last; what stands in the environment stands first.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let of = |environment: bool| {
            self.arguments
                .iter()
                .filter(move |argument| (argument.form == Form::Environment) == environment)
        };
        of(true)
            .chain(of(false))
            .flat_map(|argument| &argument.sets)
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Flags that are not understood, without what stands behind `=`.
    pub fn unknown_flags(&self) -> impl Iterator<Item = &str> {
        let unknown = |argument: &&Argument| argument.form == Form::Other;
        self.arguments
            .iter()
            .filter(unknown)
            .flat_map(|argument| &argument.words)
            .map(|word| word.split('=').next().unwrap_or(word))
            .filter(|word| is_flag(word))
    }

    /// The words, in order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.arguments.iter().flat_map(|argument| &argument.words);
        words.map(String::as_str)
    }

    /// The launch line, to be pasted into a shell.
    pub fn line(&self) -> String {
        self.words().map(quote).collect::<Vec<_>>().join(" ")
    }

    /// Makes changes: a value is replaced where it stands, a flag that goes is taken away, and a new one comes last.
    /// Applied to no arguments, what comes out is the changed ones only.
    pub fn apply(&self, profile: &EngineProfile, changes: &[KnobChange]) -> ChangedArguments {
        let mut editor = edit::Editor::new(profile, &self.arguments);
        for change in changes {
            editor.change(change);
        }
        editor.done()
    }
}

impl Argument {
    fn text(&self) -> String {
        let words = self.words.iter().map(|word| quote(word));
        words.collect::<Vec<_>>().join(" ")
    }

    fn sets(&self, name: &str) -> bool {
        self.sets.iter().any(|(set, _)| set == name)
    }
}

fn other(word: &str) -> Argument {
    Argument {
        words: vec![word.to_owned()],
        form: Form::Other,
        sets: Vec::new(),
    }
}

fn is_flag(word: &str) -> bool {
    let letter = |rest: &str| rest.starts_with(|char: char| char.is_ascii_alphabetic());
    word.strip_prefix("--")
        .or_else(|| word.strip_prefix('-'))
        .is_some_and(letter)
}

/// The argument that begins with this word, and how many words behind belong to it.
fn read(profile: &EngineProfile, word: &str, behind: &[String]) -> (Argument, usize) {
    let (flag, inline) = match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word, None),
    };
    if !is_flag(word) {
        let in_environment = |knob: &&Knob| knob.env == Some(flag);
        let found = profile.knobs.iter().find(in_environment).zip(inline);
        return match found {
            None => (other(word), 0),
            Some((knob, value)) => (
                argument(vec![word.to_owned()], Form::Environment, knob, value),
                0,
            ),
        };
    }
    let Some(found) = profile.flag(flag) else {
        return (other(word), 0);
    };
    let Some(knob) = found.knobs.first().copied() else {
        return (other(word), 0);
    };
    let words = |taken: usize| {
        let values = behind.iter().take(taken).cloned();
        std::iter::once(word.to_owned()).chain(values).collect()
    };
    if let KnobType::Switch(form @ (SwitchForm::OnOff | SwitchForm::OnOnly)) = knob.kind {
        let on = if found.negated { "false" } else { "true" };
        // older vLLM takes `--enable-chunked-prefill False`
        let spaced = behind
            .first()
            .filter(|_| form == SwitchForm::OnOff && inline.is_none() && !found.negated)
            .map(|value| value.to_ascii_lowercase())
            .filter(|value| value == "true" || value == "false");
        let taken = usize::from(spaced.is_some());
        let form = inline.map_or(Form::Spaced, |_| Form::Inline);
        let value = spaced.as_deref().or(inline).unwrap_or(on);
        return (argument(words(taken), form, knob, value), taken);
    }
    let whole_object = knob.shares_its_flag() && !flag.contains('.');
    let (value, taken, form) = match (inline, knob.kind) {
        (Some(value), _) => (value.to_owned(), 0, Form::Inline),
        (None, KnobType::Integers(' ')) => {
            let number = |word: &&String| word.parse::<u32>().is_ok();
            let numbers: Vec<&str> = behind
                .iter()
                .take_while(number)
                .map(|word| &**word)
                .collect();
            (numbers.join(" "), numbers.len(), Form::Spaced)
        }
        (None, _) => match behind
            .first()
            .filter(|value| !is_flag(value) && *value != "--")
        {
            Some(value) => (value.clone(), 1, Form::Spaced),
            None => return (other(word), 0),
        },
    };
    if taken == 0 && form == Form::Spaced {
        return (other(word), 0);
    }
    if whole_object {
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(&value) else {
            // kept with its value, so that this is not taken for a flag
            let mut unread = other(word);
            unread.words = words(taken);
            return (unread, taken);
        };
        let mut read = argument(words(taken), form, knob, "");
        read.sets = keys(&found.knobs, &object);
        return (read, taken);
    }
    (argument(words(taken), form, knob, &value), taken)
}

fn argument(words: Vec<String>, form: Form, knob: &Knob, value: &str) -> Argument {
    Argument {
        words,
        form,
        sets: vec![(knob.name.to_string(), value.to_owned())],
    }
}

/// What the keys of an object set.
fn keys(knobs: &[&Knob], object: &Map<String, Value>) -> Vec<(String, String)> {
    let set = |knob: &&Knob| {
        let text = match object.get(knob.json_key?)? {
            Value::String(text) => text.clone(),
            Value::Null => return None,
            other => other.to_string(),
        };
        Some((knob.name.to_string(), text))
    };
    knobs.iter().filter_map(set).collect()
}
