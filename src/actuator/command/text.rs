//! What programs complain, as it may stand in messages: short, without control characters, without what may be secret.

use std::collections::BTreeSet;

/// Most characters that are shown.
const MAX_SHOWN: usize = 300;
/// Words from here on may be secrets.
const SECRET_CHARS: usize = 6;
const HIDDEN: &str = "***";
/// Parts of the names of settings that hold secrets.
const SECRET_NAMES: [&str; 6] = ["key", "token", "secret", "password", "passwd", "credential"];

/// Words that must not be shown: those of settings that went to the program.
#[derive(Default)]
pub(super) struct Secrets(BTreeSet<String>);

impl Secrets {
    /// Hides the words of settings.
    pub(super) fn add(&mut self, settings: &[u8]) {
        let text = String::from_utf8_lossy(settings);
        let words = text.split(|char: char| splits(char) || char == '=');
        let secret = words.filter(|word| may_be_secret(word)).map(str::to_owned);
        self.0.extend(secret);
    }

    /// Text of a program, to be shown.
    pub(super) fn shown(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        let mut shown = String::new();
        let mut names_secret = false;
        let mut rest = text.as_ref();
        while !rest.is_empty() {
            let end = rest.find(|char| splits(char) || char == '=' || char == ':');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            let hides = self.hides(word) || (names_secret && !word.is_empty());
            shown.push_str(if hides { HIDDEN } else { word });
            let mut after = after.chars();
            let separator = after.next();
            shown.extend(separator.map(|char| if char.is_control() { ' ' } else { char }));
            if !word.is_empty() {
                names_secret = names_a_secret(word);
            }
            rest = after.as_str();
        }
        shortened(&shown)
    }

    /// Also where a program shows it in a longer word.
    fn hides(&self, word: &str) -> bool {
        may_be_secret(word) && self.0.iter().any(|secret| word.contains(secret.as_str()))
    }
}

fn splits(char: char) -> bool {
    char.is_whitespace() || char.is_control() || "\"'`,;()[]{}<>".contains(char)
}

/// Flags and numbers are none; a short word is no secret worth the name.
fn may_be_secret(word: &str) -> bool {
    word.chars().count() >= SECRET_CHARS
        && !word.starts_with('-')
        && !word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn names_a_secret(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    // what is said about keys is no key: it has a dash in front, or is a variable
    let is_name = word.starts_with('-') || word.contains('_');
    is_name && SECRET_NAMES.iter().any(|name| lower.contains(name))
}

/// The end of it: that is where programs say what is wrong.
fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let count = line.chars().count();
    match count > MAX_SHOWN {
        false => line,
        true => {
            let end = line.chars().skip(count - MAX_SHOWN);
            format!("… {}", end.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_does_not_come_out() {
        let mut secrets = Secrets::default();
        secrets.add(b"ExecStart=/opt/vllm --api-key canary-secret --max-num-seqs 64 --port=8000\n");
        let shown = |text: &str| secrets.shown(text.as_bytes());
        assert_eq!(
            shown("ValueError: --max-num-seqs 64 and 'canary-secret' (x=canary-secret!)"),
            "ValueError: --max-num-seqs 64 and '***' (x=***)"
        );
        assert_eq!(
            shown("exec:/opt/vllm failed on --port=8000"),
            "exec:*** failed on --port=8000"
        );
    }

    #[test]
    fn what_is_called_a_secret_is_hidden_wherever_it_is_from() {
        let shown = |text: &str| Secrets::default().shown(text.as_bytes());
        for text in [
            "--api-key hunter2",
            "--api-key=hunter2",
            "HF_TOKEN: hunter2",
        ] {
            assert!(!shown(text).contains("hunter2"), "{text}");
        }
        assert_eq!(shown("the key does not fit"), "the key does not fit");
    }

    #[test]
    fn it_is_one_short_line() {
        let secrets = Secrets::default();
        assert_eq!(
            secrets.shown(b"a\x1b[31m\r\n  b\x00c \xff"),
            "a [31m b c \u{fffd}"
        );
        let long = secrets.shown("ä ".repeat(1_000).as_bytes());
        assert_eq!(long.chars().count(), MAX_SHOWN + 2);
        assert!(long.starts_with("… "));
    }
}
