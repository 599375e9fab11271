//! Whether answers stay the same: the same prompts, at temperature 0, of a replica with a change and one without.
//!
//! Engines do not answer the same twice even at temperature 0, since sums in floating point depend on what else is in the
//! batch. So the replica without the change is asked twice, and what it does not agree on with itself is not held against
//! the change.

use serde::{Deserialize, Serialize};

/// What answers have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct QualityPolicy {
    /// Share of the prompts whose answers have to be the same.
    pub agreement_ratio: f64,
    /// Or at least as many as the replica without the change gives again, less this.
    pub tolerance_ratio: f64,
}

/// The answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// With the change.
    pub canary: String,
    /// Without it.
    pub control: String,
    /// Without it, asked again.
    pub again: String,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct QualityReport {
    /// Prompts that were asked.
    pub prompts: u32,
    /// Of them those with the same answer with the change and without.
    pub agreed: u32,
    /// Those with the same answer both times without the change.
    pub agreed_without: u32,
    /// Mean share of an answer's words that both have in common from its beginning, with the change and without.
    pub common_ratio: f64,
    /// The same of both answers without the change.
    pub common_without_ratio: f64,
    /// Share that had to agree.
    pub needed_ratio: f64,
    /// Whether they agree enough.
    pub passed: bool,
}

impl Default for QualityPolicy {
    fn default() -> Self {
        Self {
            agreement_ratio: 0.95,
            tolerance_ratio: 0.05,
        }
    }
}

/// What these answers say; none where nothing was asked.
pub fn quality(answers: &[Answers], policy: QualityPolicy) -> Option<QualityReport> {
    if answers.is_empty() {
        return None;
    }
    let count = answers.len() as f64;
    let same = |one: &str, other: &str| one.split_whitespace().eq(other.split_whitespace());
    let counted = |agrees: &dyn Fn(&Answers) -> bool| {
        let agreed = answers.iter().filter(|one| agrees(one)).count();
        u32::try_from(agreed).unwrap_or(u32::MAX)
    };
    let mean = |of: &dyn Fn(&Answers) -> f64| answers.iter().map(of).sum::<f64>() / count;
    let agreed = counted(&|one| same(&one.canary, &one.control));
    let agreed_without = counted(&|one| same(&one.again, &one.control));
    let by_itself = f64::from(agreed_without) / count - policy.tolerance_ratio;
    let needed_ratio = policy.agreement_ratio.min(by_itself).max(0.0);
    Some(QualityReport {
        prompts: u32::try_from(answers.len()).unwrap_or(u32::MAX),
        agreed,
        agreed_without,
        common_ratio: mean(&|one| common(&one.canary, &one.control)),
        common_without_ratio: mean(&|one| common(&one.again, &one.control)),
        needed_ratio,
        passed: f64::from(agreed) / count >= needed_ratio,
    })
}

/// Share of the words that two answers have in common from their beginning.
fn common(one: &str, other: &str) -> f64 {
    let words = one
        .split_whitespace()
        .count()
        .max(other.split_whitespace().count());
    if words == 0 {
        return 1.0;
    }
    let pairs = one.split_whitespace().zip(other.split_whitespace());
    pairs.take_while(|(one, other)| one == other).count() as f64 / words as f64
}

impl QualityReport {
    /// In a sentence.
    pub fn in_words(&self) -> String {
        let share = |part: u32| format!("{part} of {} answers", self.prompts);
        let verdict = match self.passed {
            true => "Answers stay the same",
            false => "Answers become others",
        };
        format!(
            "{verdict}: {} are the same with the change and without, and {} when asked twice without it; {:.0} % had to be.",
            share(self.agreed),
            share(self.agreed_without),
            self.needed_ratio * 100.0
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(canary: &str, control: &str, again: &str) -> Answers {
        Answers {
            canary: canary.to_owned(),
            control: control.to_owned(),
            again: again.to_owned(),
        }
    }

    fn report(same: usize, other: usize, again_other: usize) -> QualityReport {
        let all = (0..same + other).map(|at| {
            let canary = if at < same { "a b c" } else { "a x c" };
            let again = if at < again_other { "a b d" } else { "a  b c" };
            answers(canary, "a b c", again)
        });
        quality(&all.collect::<Vec<_>>(), QualityPolicy::default()).unwrap()
    }

    #[test]
    fn what_an_engine_does_not_agree_on_with_itself_is_not_held_against_a_change() {
        assert!(report(100, 0, 0).passed);
        assert!(report(95, 5, 0).passed);
        assert!(!report(94, 6, 0).passed);
        // 20 of 100 are others by themselves: 75 have to agree
        assert!(report(75, 25, 20).passed);
        assert!(!report(74, 26, 20).passed);
        assert_eq!(quality(&[], QualityPolicy::default()), None);
    }

    #[test]
    fn words_in_common_are_counted_from_the_beginning() {
        assert_eq!(common("a b c d", "a b x d"), 0.5);
        assert_eq!(common("", ""), 1.0);
        assert_eq!(common("a", ""), 0.0);
        let told = report(1, 1, 0).in_words();
        assert!(told.starts_with("Answers become others: 1 of 2"), "{told}");
    }

    proptest! {
        #[test]
        fn what_is_the_same_always_passes(texts in prop::collection::vec(".{0,20}", 1..20)) {
            let all: Vec<Answers> = texts.iter().map(|text| answers(text, text, text)).collect();
            let report = quality(&all, QualityPolicy::default()).unwrap();
            prop_assert!(report.passed);
            prop_assert!((report.common_ratio - 1.0).abs() < 1e-9);
        }
    }
}
