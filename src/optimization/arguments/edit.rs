//! Changes in the middle of launch arguments.

use serde_json::{Map, Value};

use crate::engine::{EngineProfile, Knob, KnobType, SwitchForm};
use crate::optimization::change::KnobChange;

use super::{Argument, Form, LaunchArguments, keys, read};

/// A piece of a changed launch line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentPart {
    /// As it can be pasted into a shell: a flag with its value.
    pub text: String,
    /// What became of it.
    pub change: ArgumentChange,
}

/// What became of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentChange {
    /// Nothing.
    Unchanged,
    /// Its value is another.
    Changed {
        /// What stood there, as the text does.
        from: String,
    },
    /// It is new.
    Added,
    /// It goes: the text is not part of the new line.
    Removed,
}

/// Arguments with changes marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedArguments {
    /// All pieces, in order, also those that go.
    pub parts: Vec<ArgumentPart>,
    /// What is left.
    pub arguments: LaunchArguments,
}

/// Arguments while they are changed.
pub(super) struct Editor<'p> {
    profile: &'p EngineProfile,
    items: Vec<(Argument, ArgumentChange)>,
}

impl<'p> Editor<'p> {
    pub(super) fn new(profile: &'p EngineProfile, arguments: &[Argument]) -> Self {
        let unchanged = |argument: &Argument| (argument.clone(), ArgumentChange::Unchanged);
        Self {
            profile,
            items: arguments.iter().map(unchanged).collect(),
        }
    }

    pub(super) fn change(&mut self, change: &KnobChange) {
        let Some(knob) = self.profile.knob(&change.name) else {
            // nobody knows how it is written but who asks for it
            let value = change.to.clone();
            return self.add(std::iter::once(change.flag.clone()).chain(value).collect());
        };
        if knob.shares_its_flag() {
            return self.change_key(knob, change.to.as_deref());
        }
        let words = change.to.as_deref().map(|to| written(knob, to));
        let in_place = self.keep_one(&change.name);
        match (in_place, words) {
            (Some(at), Some(words)) if !words.is_empty() => self.replace(at, knob, words),
            (Some(at), _) => self.remove(at),
            (None, Some(words)) if !words.is_empty() => self.add(words),
            (None, _) => {}
        }
    }

    /// The position of the argument that counts; others that set the same go.
    fn keep_one(&mut self, name: &str) -> Option<usize> {
        let in_force = |(argument, change): &(Argument, ArgumentChange)| {
            *change != ArgumentChange::Removed && argument.sets(name)
        };
        let set: Vec<usize> = (0..self.items.len())
            .filter(|at| self.items.get(*at).is_some_and(in_force))
            .collect();
        let flags = |at: &&usize| {
            let item = self.items.get(**at);
            item.is_some_and(|(argument, _)| argument.form != Form::Environment)
        };
        let kept = set.iter().rev().find(flags).or(set.last()).copied()?;
        for at in set {
            if at != kept {
                self.remove(at);
            }
        }
        Some(kept)
    }

    fn replace(&mut self, at: usize, knob: &Knob, words: Vec<String>) {
        let Some((argument, change)) = self.items.get_mut(at) else {
            return;
        };
        let before = argument.text();
        // the flag stays in the spelling that stood there, unless a switch turns
        let spelled = argument.words.first().map(|word| {
            let flag = word.split('=').next().unwrap_or(word);
            flag.to_owned()
        });
        let value = words.get(1..).unwrap_or_default().to_vec();
        argument.words = match (argument.form, value.as_slice(), spelled) {
            (Form::Inline | Form::Environment, [value], Some(flag)) => {
                vec![format!("{flag}={value}")]
            }
            (Form::Spaced, [_, ..], Some(flag)) => {
                std::iter::once(flag).chain(value.clone()).collect()
            }
            _ => {
                argument.form = Form::Spaced;
                words
            }
        };
        let after = argument.text();
        argument.sets = vec![(knob.name.to_string(), value.join(" "))];
        mark(change, before, &after);
    }

    /// A key of the object that the flag takes.
    fn change_key(&mut self, knob: &Knob, to: Option<&str>) {
        let Some(key) = knob.json_key else { return };
        let Some(found) = self.profile.flag(&knob.flag) else {
            return;
        };
        let is_object = |(argument, change): &(Argument, ArgumentChange)| {
            let first = argument
                .words
                .first()
                .map_or("", |word| word.split('=').next().unwrap_or(word));
            let flag = self.profile.flag(first).map(|flag| flag.knobs.len());
            *change != ArgumentChange::Removed
                && argument.form != Form::Other
                && !first.contains('.')
                && flag == Some(found.knobs.len())
                && argument
                    .sets
                    .iter()
                    .all(|(name, _)| found.knobs.iter().any(|knob| knob.name == *name))
        };
        if let Some(at) = self.items.iter().rposition(is_object) {
            return self.edit_object(at, &found.knobs, key, to.map(|to| json_value(knob, to)));
        }
        // each key by itself: `--flag.key value`
        if let Some(at) = self.keep_one(&knob.name) {
            return match to {
                Some(to) => self.replace(
                    at,
                    knob,
                    vec![format!("{}.{key}", knob.flag), to.to_owned()],
                ),
                None => self.remove(at),
            };
        }
        let Some(to) = to else { return };
        let by_key = self.items.iter().any(|(argument, change)| {
            let sibling =
                |(name, _): &(String, String)| found.knobs.iter().any(|knob| knob.name == *name);
            *change != ArgumentChange::Removed && argument.sets.iter().any(sibling)
        });
        if by_key {
            self.add(vec![format!("{}.{key}", knob.flag), to.to_owned()]);
        } else {
            let object = Map::from_iter([(key.to_owned(), json_value(knob, to))]);
            self.add(vec![
                knob.flag.to_string(),
                Value::Object(object).to_string(),
            ]);
        }
    }

    fn edit_object(&mut self, at: usize, knobs: &[&Knob], key: &str, to: Option<Value>) {
        let Some((argument, change)) = self.items.get_mut(at) else {
            return;
        };
        let before = argument.text();
        let (flag, text) = match (argument.form, argument.words.as_slice()) {
            (Form::Inline, [word]) => word.split_once('=').unwrap_or((word, "{}")),
            (_, [flag, text]) => (flag.as_str(), text.as_str()),
            _ => return,
        };
        let mut object: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        match to {
            Some(value) => {
                object.insert(key.to_owned(), value);
            }
            None => {
                object.shift_remove(key);
            }
        }
        argument.sets = keys(knobs, &object);
        // what is left says how to do what is no longer done
        if argument.sets.is_empty() {
            return self.remove(at);
        }
        let text = Value::Object(object).to_string();
        argument.words = match argument.form {
            Form::Inline => vec![format!("{flag}={text}")],
            _ => vec![flag.to_owned(), text],
        };
        let after = argument.text();
        mark(change, before, &after);
    }

    fn remove(&mut self, at: usize) {
        if let Some((_, change)) = self.items.get_mut(at) {
            *change = ArgumentChange::Removed;
        }
    }

    fn add(&mut self, words: Vec<String>) {
        let end = self.end();
        let mut parsed = LaunchArguments::parse(self.profile, &words).arguments;
        let argument = match parsed.len() {
            1 => parsed.pop(),
            _ => None,
        };
        let argument = argument.unwrap_or(Argument {
            words,
            form: Form::Other,
            sets: Vec::new(),
        });
        self.items.insert(end, (argument, ArgumentChange::Added));
    }

    /// An argument goes last where, by what was taken away behind it, it would take a word that is not its own.
    fn keep_apart(&mut self) {
        let mut behind: Vec<String> = Vec::new();
        for at in (0..self.items.len()).rev() {
            let Some((argument, change)) = self.items.get(at) else {
                continue;
            };
            let words = match argument.words.as_slice() {
                _ if *change == ArgumentChange::Removed => continue,
                [] => continue,
                [first, own @ ..] => {
                    let rest: Vec<String> = own.iter().chain(&behind).cloned().collect();
                    let (_, taken) = read(self.profile, first, &rest);
                    (taken <= own.len()).then(|| argument.words.clone())
                }
            };
            match words {
                Some(words) => {
                    behind.splice(0..0, words);
                }
                None => {
                    let moved = self.items.remove(at);
                    let end = self.end();
                    self.items.insert(end, moved);
                }
            }
        }
    }

    /// Where arguments end: what stands behind `--` is for something else.
    fn end(&self) -> usize {
        let is_end =
            |(argument, _): &(Argument, _)| argument.words.first().is_some_and(|word| word == "--");
        let end = self.items.iter().position(is_end);
        end.unwrap_or(self.items.len())
    }

    pub(super) fn done(mut self) -> ChangedArguments {
        self.keep_apart();
        let part = |(argument, change): &(Argument, ArgumentChange)| ArgumentPart {
            text: argument.text(),
            change: change.clone(),
        };
        let left = |(_, change): &&(Argument, ArgumentChange)| *change != ArgumentChange::Removed;
        let words: Vec<String> = self
            .items
            .iter()
            .filter(left)
            .flat_map(|(argument, _)| argument.words.clone())
            .collect();
        ChangedArguments {
            parts: self.items.iter().map(part).collect(),
            arguments: LaunchArguments::parse(self.profile, &words),
        }
    }
}

/// Marks what was not new as changed, against what stood there at first.
fn mark(change: &mut ArgumentChange, before: String, after: &str) {
    if *change == ArgumentChange::Unchanged && before != after {
        *change = ArgumentChange::Changed { from: before };
    }
}

/// Flag and value of a setting; empty where it is said by saying nothing.
fn written(knob: &Knob, to: &str) -> Vec<String> {
    let flag = knob.flag.to_string();
    match (knob.kind, to) {
        (KnobType::Switch(SwitchForm::OnOff | SwitchForm::OnOnly), "true") => vec![flag],
        (KnobType::Switch(SwitchForm::OnOnly), _) => Vec::new(),
        (KnobType::Switch(SwitchForm::OnOff), _) => {
            vec![format!("--no-{}", flag.trim_start_matches('-'))]
        }
        (KnobType::Integers(' '), numbers) => {
            let numbers = numbers.split_whitespace().map(str::to_owned);
            std::iter::once(flag).chain(numbers).collect()
        }
        (_, value) => vec![flag, value.to_owned()],
    }
}

fn json_value(knob: &Knob, to: &str) -> Value {
    match knob.kind {
        KnobType::Text | KnobType::Choice(_) => Value::String(to.to_owned()),
        _ => serde_json::from_str(to).unwrap_or_else(|_| Value::String(to.to_owned())),
    }
}
