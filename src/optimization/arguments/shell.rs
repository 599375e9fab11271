//! A launch line → arguments, and back, as a POSIX shell has it. What a shell would replace or run is refused: nobody
//! here knows what it stands for.

/// A launch line that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// A quote without its end.
    #[error("the launch line has {0} without its end")]
    OpenQuote(char),
    /// Something that a shell replaces or runs.
    #[error(
        "the launch line has `{0}` outside single quotes: write out what the shell would make of it"
    )]
    NotPlain(char),
}

/// Splits a line into arguments: quotes, backslashes, and lines that are continued.
///
/// # Errors
/// An open quote, or something that a shell replaces.
pub fn split_line(line: &str) -> Result<Vec<String>, ShellError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(ShellError::OpenQuote('\''))? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                // the line goes on
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(ShellError::OpenQuote('\\')),
            },
            '$' | '`' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => {
                return Err(ShellError::NotPlain(char));
            }
            '#' if word.is_none() => return Err(ShellError::NotPlain('#')),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), ShellError> {
    const OPEN: ShellError = ShellError::OpenQuote('"');
    loop {
        match chars.next().ok_or(OPEN)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(OPEN)? {
                '\n' => {}
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            replaced @ ('$' | '`') => return Err(ShellError::NotPlain(replaced)),
            plain => word.push(plain),
        }
    }
}

/// An argument as it can be pasted into a shell.
pub fn quote(argument: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_split_as_in_a_shell() {
        for (line, words) in [
            ("", &[][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("--x='{\"a\": 1}'", &["--x={\"a\": 1}"]),
            ("a\\ b ''", &["a b", ""]),
            ("a \\\n  b", &["a", "b"]),
            (r#""a\"b\\c\d""#, &[r#"a"b\c\d"#]),
            ("'it'\\''s'", &["it's"]),
            ("'$HOME' a#b", &["$HOME", "a#b"]),
        ] {
            let split = split_line(line);
            assert_eq!(
                split,
                Ok(words.iter().map(|word| (*word).to_owned()).collect()),
                "{line}"
            );
        }
        for (line, error) in [
            ("'a", ShellError::OpenQuote('\'')),
            ("\"a", ShellError::OpenQuote('"')),
            ("a\\", ShellError::OpenQuote('\\')),
            ("--model $MODEL", ShellError::NotPlain('$')),
            ("\"`id`\"", ShellError::NotPlain('`')),
            ("a; b", ShellError::NotPlain(';')),
            ("a # b", ShellError::NotPlain('#')),
        ] {
            assert_eq!(split_line(line), Err(error), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_splits_into_the_same(words in proptest::collection::vec(".*", 0..6)) {
            let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_line(&line), Ok(words));
        }

        #[test]
        fn no_line_panics(line in any::<String>()) {
            let _ = split_line(&line);
        }
    }
}
