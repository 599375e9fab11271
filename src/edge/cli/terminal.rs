//! Writing to people: colour only where there is a terminal, nothing from outside that controls it.

use std::io::{IsTerminal, Write};

/// Text from an engine or a peer, with control characters made visible.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|char| if controls(char) { '\u{fffd}' } else { char })
        .collect()
}

/// Control characters, and those that turn the direction of text or hide in it.
pub(super) fn controls(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Whether standard output takes colour.
pub(super) fn colour_on_stdout() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// An error, and what to do about it, to standard error.
pub(super) fn complain(message: &str, hint: Option<&str>) {
    let mut out = std::io::stderr().lock();
    // nobody is left to be told when standard error is closed
    // our own messages may have several lines, as those about a config file have
    let lines: Vec<String> = message.trim_end().lines().map(clean).collect();
    let _ = writeln!(out, "error: {}", lines.join("\n"));
    if let Some(hint) = hint {
        let _ = writeln!(out, "hint: {}", clean(hint));
    }
}

/// Something to know that is no error, to standard error.
pub(super) fn note(kind: &str, message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{kind}: {}", clean(message));
}

/// Text to standard output. A reader that went away is no error.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_controls_the_terminal() {
        assert_eq!(
            clean("a\u{1b}[31mb\nc\u{9b}"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}"
        );
    }
}
