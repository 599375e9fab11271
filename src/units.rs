//! Small things that every module shares: ids, near misses, and numbers as people read them.

/// Whether text is an id: `[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?`.
pub fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes
            .iter()
            .all(|byte| edge(byte) || matches!(byte, b'-' | b'.'))
}

/// More than any word of ours has.
const MAX_WORD: usize = 80;

/// The candidate most like `text`, for messages about a word that is not known. What is longer than any word is compared by
/// its beginning: the comparison takes the product of both lengths.
pub fn nearest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let text: String = text.chars().take(MAX_WORD).collect();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds, as a person reads them.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value < 0.0095 => format!("{:.1} ms", value * 1e3),
        value if value < 0.9995 => format!("{:.0} ms", value * 1e3),
        value if value < 10.0 => format!("{value:.1} s"),
        value => format!("{value:.0} s"),
    }
}

/// A share, as a person reads it.
pub(crate) fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        percent if percent < 9.95 && percent > 0.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_the_design_says() {
        for id in ["a", "vllm-1", "a.b-c", &"x".repeat(63)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", "-a", "a-", "A", "a_b", "a/b", "ä", &"x".repeat(64)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn the_nearest_word_is_found() {
        assert_eq!(nearest("lisen", ["hosts", "listen"]), Some("listen"));
        assert_eq!(nearest("x", []), None);
    }
}
