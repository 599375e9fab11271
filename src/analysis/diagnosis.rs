//! A measurement → what holds the instance back.

use crate::measure::Measurement;

use super::finding::{Finding, Unclear};
use super::thresholds::{Targets, Thresholds};

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// In short.
    pub verdict: Verdict,
    /// The verdict in one line, for somebody who was woken by it.
    pub headline: String,
    /// What holds it back, root cause first.
    pub findings: Vec<Finding>,
    /// Checks that could not be made.
    pub unclear: Vec<Unclear>,
}

/// A diagnosis in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Healthy,
    /// Something holds it back.
    Findings,
    /// The engine does not say enough to tell.
    CannotTell,
}

impl Verdict {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Findings => "FINDINGS",
            Self::CannotTell => "CANNOT_TELL",
        }
    }
}

/// What holds the instance back that this was measured of.
pub fn diagnose(
    measurement: &Measurement,
    thresholds: &Thresholds,
    targets: &Targets,
) -> Diagnosis {
    let _ = (measurement, thresholds, targets);
    Diagnosis {
        verdict: Verdict::CannotTell,
        headline: "no rule is written yet".to_owned(),
        findings: Vec::new(),
        unclear: Vec::new(),
    }
}
