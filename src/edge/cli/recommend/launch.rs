//! Launch arguments: read for the settings that they make, and written anew with changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::edge::cli::optimize::sheet::change;
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;
use crate::engine::{EngineProfile, Knob, KnobType, Registry, SwitchForm};

/// Words of a launch line, as a shell reads them: quotes and backslashes are understood, nothing is expanded.
///
/// # Errors
/// A quote that does not end.
pub(super) fn words_of(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (Some('\''), char) => word.get_or_insert_default().push(char),
            (Some(_), '\\') => match chars.next() {
                Some(next @ ('"' | '\\')) => word.get_or_insert_default().push(next),
                Some(next) => word.get_or_insert_default().extend(['\\', next]),
                None => break,
            },
            (Some(_), char) => word.get_or_insert_default().push(char),
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            // a line that goes on
            (None, '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            (None, char) if char.is_whitespace() => words.extend(word.take()),
            (None, char) => word.get_or_insert_default().push(char),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// What the flags among these words set, by flag; `--no-x` sets `--x` to false, and a flag alone sets it to true.
pub(super) fn settings_in(words: &[String]) -> BTreeMap<String, Option<String>> {
    let mut settings = BTreeMap::new();
    for (at, word) in words.iter().enumerate() {
        let Some(flag) = flag_in(word) else { continue };
        let next = words.get(at + 1).filter(|next| flag_in(next).is_none());
        let (name, value) = match (word.split_once('='), flag.strip_prefix("--no-"), next) {
            (Some((_, value)), _, _) => (flag.clone(), value.to_owned()),
            (None, Some(rest), _) => (format!("--{rest}"), "false".to_owned()),
            (None, None, Some(value)) => (flag.clone(), value.clone()),
            (None, None, None) => (flag.clone(), "true".to_owned()),
        };
        settings.insert(name, Some(value));
    }
    settings
}

/// The flag of a word, with dashes for underscores; none where it is none.
fn flag_in(word: &str) -> Option<String> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let is_flag = name.strip_prefix('-').is_some_and(|rest| {
        rest.starts_with(|char: char| char == '-' || char.is_ascii_alphabetic())
    });
    is_flag.then(|| dashed(name))
}

/// A flag with dashes for underscores; what stands behind a point keeps its own.
fn dashed(flag: &str) -> String {
    match flag.split_once('.') {
        Some((object, key)) => format!("{}.{key}", object.replace('_', "-")),
        None => flag.replace('_', "-"),
    }
}

/// How an engine spells its launch arguments.
pub(super) struct Spelling(Option<Arc<EngineProfile>>);

impl Spelling {
    /// Of this engine; of one that is not built in, flags with values.
    pub(super) fn of(instance_type: &str) -> Self {
        Self(Registry::builtin().get(instance_type).cloned())
    }

    fn knob(&self, name: &str) -> Option<&Knob> {
        self.0.as_ref()?.knob(name)
    }

    /// The flag of a knob; of one that is a key of an object, the object's with the key behind a point.
    fn flag(&self, name: &str, flag: &str) -> String {
        match self.knob(name).and_then(|knob| knob.json_key) {
            Some(key) if !flag.contains('.') => format!("{flag}.{key}"),
            _ => flag.to_owned(),
        }
    }

    /// The words that set a knob to a value.
    fn words(&self, name: &str, flag: &str, value: &str) -> Vec<String> {
        let flag = self.flag(name, flag);
        let form = match self.knob(name).map(|knob| knob.kind) {
            Some(KnobType::Switch(form)) => form,
            _ => SwitchForm::Value,
        };
        match (form, value) {
            (SwitchForm::OnOff | SwitchForm::OnOnly, "true") => vec![flag],
            (SwitchForm::OnOff, "false") => vec![format!("--no-{}", flag.trim_start_matches('-'))],
            (SwitchForm::OnOnly, "false") => Vec::new(),
            (_, value) => vec![flag, value.to_owned()],
        }
    }

    /// Whether a flag, as `flag_in` reads it, sets the knob of another.
    fn sets(&self, found: &str, flag: &str) -> bool {
        let flag = dashed(flag);
        let name = |flag: &str| {
            let knob = self.0.as_ref()?.knob_of_flag(flag)?;
            Some(knob.name.clone())
        };
        let is_key = flag.contains('.') || found.contains('.');
        found == flag
            || found == format!("--no-{}", flag.trim_start_matches('-'))
            || (!is_key && name(found).is_some() && name(found) == name(&flag))
    }
}

/// Launch arguments of the settings that the operator declared.
pub(super) fn declared(settings: &[pb::SettingInForce], spelling: &Spelling) -> Vec<String> {
    let settings = settings
        .iter()
        .filter(|one| one.source() == pb::SettingSource::Declared && !one.flag.is_empty());
    settings
        .filter_map(|one| Some(spelling.words(&one.name, &one.flag, one.value.as_deref()?)))
        .flatten()
        .collect()
}

/// The launch line with the changes made, and below it a comment for each: what can be pasted as it is.
pub(super) fn changed(words: &[String], of: &[pb::KnobChange], spelling: &Spelling) -> String {
    let mut words = words.to_vec();
    let mut comments = String::new();
    for one in of {
        comments += &format!("# {}\n", change(one));
        if one.flag.is_empty() {
            continue;
        }
        let flag = spelling.flag(&one.name, &one.flag);
        if flag != one.flag
            && words
                .iter()
                .any(|word| flag_in(word).as_ref() == Some(&one.flag))
        {
            let object = clean(&one.flag);
            comments +=
                &format!("# write it into the object that {object} has, which stands for itself\n");
        }
        let new = match &one.to_value {
            Some(value) => spelling.words(&one.name, &one.flag, value),
            None => Vec::new(),
        };
        let place = taken_out(&mut words, &flag, spelling);
        let place = place.unwrap_or(words.len());
        words.splice(place..place, new);
    }
    let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("{}\n{comments}", line.join(" "))
}

/// Takes a flag out wherever it stands; where the first was.
fn taken_out(words: &mut Vec<String>, flag: &str, spelling: &Spelling) -> Option<usize> {
    let mut first = None;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let Some(found) = flag_in(word).filter(|found| spelling.sets(found, flag)) else {
            at += 1;
            continue;
        };
        let is_value = |next: &String| flag_in(next).is_none();
        let has_value = !word.contains('=')
            && !found.starts_with("--no-")
            && words.get(at + 1).is_some_and(is_value);
        words.drain(at..=at + usize::from(has_value));
        first.get_or_insert(at);
    }
    first
}

/// A word as a shell reads it back, with nothing in it that controls a terminal.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=,@%+".contains(char);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", clean(word).replace('\'', "'\\''")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn change_of(flag: &str, from: Option<&str>, to: Option<&str>) -> pb::KnobChange {
        pb::KnobChange {
            name: flag.trim_start_matches('-').replace('-', "_"),
            flag: flag.to_owned(),
            from_value: from.map(str::to_owned),
            to_value: to.map(str::to_owned),
        }
    }

    fn line(before: &str, change: pb::KnobChange, engine: &str) -> String {
        let words = words_of(before).unwrap();
        let text = changed(&words, &[change], &Spelling::of(engine));
        text.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_line_is_read_as_a_shell_reads_it() {
        let words = words_of("vllm serve 'a b' --x=\"c \\\"d\\\"\" \\\n  --y e\\ f ''").unwrap();
        assert_eq!(
            words,
            ["vllm", "serve", "a b", "--x=c \"d\"", "--y", "e f", ""]
        );
        assert!(words_of("vllm 'serve").is_err());
    }

    #[test]
    fn flags_are_settings() {
        let words = words_of(
            "vllm serve m --max_num_seqs 4 --gpu-memory-utilization=0.9 --enforce-eager --no-enable-prefix-caching \
             --seed -1 -tp 2",
        );
        let settings = settings_in(&words.unwrap());
        let value = |flag: &str| settings.get(flag).cloned().flatten();
        assert_eq!(value("--max-num-seqs").as_deref(), Some("4"));
        assert_eq!(value("--gpu-memory-utilization").as_deref(), Some("0.9"));
        assert_eq!(value("--enforce-eager").as_deref(), Some("true"));
        assert_eq!(value("--enable-prefix-caching").as_deref(), Some("false"));
        assert_eq!(value("--seed").as_deref(), Some("-1"));
        assert_eq!(value("-tp").as_deref(), Some("2"));
        assert_eq!(settings.len(), 6);
    }

    #[test]
    fn changes_are_made_where_the_flag_stands_and_told_below() {
        let raise = || change_of("--max-num-seqs", Some("4"), Some("32"));
        let whole = changed(
            &words_of("vllm serve 'a b' --max-num-seqs 4 --port 1").unwrap(),
            &[raise()],
            &Spelling::of("vllm"),
        );
        assert_eq!(
            whole,
            "vllm serve 'a b' --max-num-seqs 32 --port 1\n# --max-num-seqs 4 → 32\n"
        );
        let as_one = line("vllm --max_num_seqs=4 --port 1", raise(), "vllm");
        assert_eq!(as_one, "vllm --max-num-seqs 32 --port 1");
        assert_eq!(line("vllm", raise(), "vllm"), "vllm --max-num-seqs 32");
        assert_eq!(line("", raise(), "vllm"), "--max-num-seqs 32");
        let away = change_of("--max-num-seqs", Some("4"), None);
        assert_eq!(line("vllm --max-num-seqs 4 -x", away, "vllm"), "vllm -x");
    }

    #[test]
    fn switches_and_objects_are_as_each_engine_has_them() {
        let off = || change_of("--enforce-eager", Some("true"), Some("false"));
        let before = "e --enforce-eager -x 1";
        assert_eq!(line(before, off(), "vllm"), "e --no-enforce-eager -x 1");
        let on = change_of("--enforce-eager", Some("false"), Some("true"));
        let back = line("e --no-enforce-eager 1", on, "vllm");
        assert_eq!(back, "e --enforce-eager 1");
        let radix = change_of("--disable-radix-cache", Some("true"), Some("false"));
        let before = "e --disable-radix-cache -x 1";
        assert_eq!(line(before, radix, "sglang"), "e -x 1");
        // by another flag of the same knob
        let shards = change_of("--tensor-parallel-size", Some("1"), Some("2"));
        assert_eq!(
            line("e -tp 1 -x", shards, "vllm"),
            "e --tensor-parallel-size 2 -x"
        );
        let mut guesses = change_of("--speculative-config", Some("3"), Some("2"));
        guesses.name = "num_speculative_tokens".to_owned();
        let dotted = line(
            "e --speculative-config.num_speculative_tokens 3",
            guesses,
            "vllm",
        );
        assert_eq!(dotted, "e --speculative-config.num_speculative_tokens 2");
    }

    #[test]
    fn what_is_pasted_does_only_what_it_says() {
        let bad = change_of("--x", None, Some("1; rm -rf ~ \u{1b}[2J'`a`"));
        let text = changed(&[], &[bad], &Spelling::of("vllm"));
        assert!(text.starts_with("--x '1; rm -rf ~ \u{fffd}[2J'\\''`a`'\n# --x not set → 1;"));
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2);
    }
}
