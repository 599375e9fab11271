//! How a diagnosis does on labelled cases.
#![allow(dead_code)]

use std::collections::BTreeMap;

use perfagent::analysis::{Cause, Diagnosis, Targets, Thresholds, Verdict, diagnose};

use super::diagnosis::{Case, for_each};

/// What was said of a case.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// Causes, root first.
    pub(crate) causes: Vec<String>,
    /// Causes that could not be told.
    pub(crate) unclear: Vec<String>,
    pub(crate) abstained: bool,
    pub(crate) headline: String,
}

/// A case and how it went.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) engine: String,
    pub(crate) why: String,
    pub(crate) expect: Vec<String>,
    pub(crate) said: Said,
    /// The root cause stands first; nothing is said of a healthy one; what cannot be told is not.
    pub(crate) right: bool,
    /// It is named at all.
    pub(crate) any: bool,
    /// Every cause of a case that has several is named.
    pub(crate) all: bool,
    /// Findings of a healthy case that are none.
    pub(crate) false_alarms: Vec<String>,
    pub(crate) cannot_tell: bool,
}

/// Figures of a set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Score {
    pub(crate) faulty: usize,
    pub(crate) top_1: usize,
    pub(crate) any_hit: usize,
    /// Cases with several causes, and those of them of which all are named.
    pub(crate) several: usize,
    pub(crate) several_named: usize,
    pub(crate) healthy: usize,
    pub(crate) healthy_right: usize,
    pub(crate) false_alarms: usize,
    pub(crate) abstentions: usize,
    pub(crate) macro_f1: f64,
}

/// Diagnoses each.
pub(crate) fn outcomes(cases: &[Case]) -> Vec<Outcome> {
    for_each(cases, |case| {
        let measurement = case.measurement();
        let diagnosis = diagnose(
            &measurement,
            &Thresholds::default(),
            &Targets::default(),
            None,
        );
        outcome(case, said(&diagnosis))
    })
}

fn said(diagnosis: &Diagnosis) -> Said {
    let word = |cause: Cause| cause.as_str().to_owned();
    Said {
        causes: diagnosis
            .findings
            .iter()
            .map(|one| word(one.cause))
            .collect(),
        unclear: diagnosis
            .unclear
            .iter()
            .map(|one| word(one.cause))
            .collect(),
        abstained: diagnosis.verdict == Verdict::CannotTell,
        headline: diagnosis.headline.clone(),
    }
}

pub(crate) fn outcome(case: &Case, said: Said) -> Outcome {
    let first = case.expect.first();
    let alarms = |cause: &&String| !case.expect.contains(cause) && !case.allowed.contains(cause);
    let (right, any) = match first {
        None => {
            let quiet = !said.causes.iter().any(|cause| alarms(&cause));
            (quiet, quiet)
        }
        Some(first) if case.cannot_tell => {
            let right = said.unclear.contains(first) && !said.causes.contains(first);
            (right, right)
        }
        Some(first) => (
            said.causes.first() == Some(first),
            said.causes.contains(first),
        ),
    };
    let false_alarms = match first {
        None => said.causes.iter().filter(alarms).cloned().collect(),
        Some(_) => Vec::new(),
    };
    let all = case.cannot_tell || case.expect.iter().all(|cause| said.causes.contains(cause));
    Outcome {
        name: case.name.clone(),
        engine: case.engine(),
        why: case.why.clone(),
        expect: case.expect.clone(),
        cannot_tell: case.cannot_tell,
        said,
        all,
        right,
        any,
        false_alarms,
    }
}

pub(crate) fn score(outcomes: &[Outcome]) -> Score {
    let mut score = Score::default();
    // of each cause: named rightly, named wrongly, missed
    let mut counts: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    for one in outcomes {
        if one.expect.is_empty() {
            score.healthy += 1;
            score.healthy_right += usize::from(one.right);
            score.false_alarms += usize::from(!one.false_alarms.is_empty());
        } else {
            score.faulty += 1;
            score.top_1 += usize::from(one.right);
            score.any_hit += usize::from(one.any);
            if one.expect.len() > 1 {
                score.several += 1;
                score.several_named += usize::from(one.all);
            }
        }
        score.abstentions += usize::from(one.said.abstained);
        if one.cannot_tell {
            continue;
        }
        let first = one.said.causes.first().map(String::as_str);
        let expected = one.expect.first().map(String::as_str);
        match (first, expected) {
            (Some(first), Some(expected)) if first == expected => {
                counts.entry(expected).or_default()[0] += 1.0;
            }
            (first, expected) => {
                if let Some(first) = first {
                    counts.entry(first).or_default()[1] += 1.0;
                }
                if let Some(expected) = expected {
                    counts.entry(expected).or_default()[2] += 1.0;
                }
            }
        }
    }
    let f1: Vec<f64> = counts
        .values()
        .filter(|[right, _, missed]| right + missed > 0.0)
        .map(|[right, wrong, missed]| 2.0 * right / (2.0 * right + wrong + missed))
        .collect();
    score.macro_f1 = f1.iter().sum::<f64>() / f1.len().max(1) as f64;
    score
}

impl Score {
    /// A row of the table.
    pub(crate) fn row(&self, name: &str) -> String {
        let percent = |part: usize, whole: usize| {
            format!(
                "{part} of {whole} ({:.0} %)",
                100.0 * part as f64 / whole.max(1) as f64
            )
        };
        format!(
            "| {name} | {} | {} | {} | {:.2} | {} | {} |",
            percent(self.top_1, self.faulty),
            percent(self.any_hit, self.faulty),
            percent(self.several_named, self.several),
            self.macro_f1,
            percent(self.false_alarms, self.healthy),
            self.abstentions,
        )
    }
}
