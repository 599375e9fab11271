//! What is wrong with a request, field by field.

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field: `metrics_urls[1]`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl FieldViolation {
    /// A violation.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// Clients take 8 KiB of headers and more, in which a refusal tells its violations three times, once of it in base64.
const MAX_TOLD_BYTES: usize = 1_500;

/// As many of them, from the first on, as a refusal has room for; one at least.
pub fn told(violations: &[FieldViolation]) -> &[FieldViolation] {
    let mut bytes = 0;
    let fitting = violations.iter().take_while(|one| {
        bytes += one.field.len() + one.description.len();
        bytes <= MAX_TOLD_BYTES
    });
    let count = fitting.count().max(1);
    violations.get(..count).unwrap_or(violations)
}

/// Those that are [`told`] in one sentence, and how many more there are.
pub fn violations_text(violations: &[FieldViolation]) -> String {
    let told = told(violations);
    let mut texts: Vec<String> = told
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    match violations.len() - told.len() {
        0 => {}
        more => texts.push(format!("and {more} more")),
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_what_it_has_room_for() {
        let wrong =
            |count: usize, length: usize| vec![FieldViolation::new("a", "x".repeat(length)); count];
        assert_eq!(told(&[]), []);
        assert_eq!(violations_text(&wrong(2, 1)), "a: x; a: x");
        assert_eq!(told(&wrong(1, 9_000)).len(), 1);
        assert_eq!(told(&wrong(300, 499)).len(), 3);
        assert!(violations_text(&wrong(300, 499)).ends_with("; and 297 more"));
    }
}
