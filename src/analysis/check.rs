//! What a check answers, and what checks share.

use crate::engine::Quantity as Q;

pub(super) use crate::units::{percent, seconds};

use super::facts::Facts;
use super::finding::{Cause, Cost, CostKind, Evidence, Finding, Severity, Treatment, Unclear};

/// What a check answers; nothing where nothing is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Found(Finding),
    Unclear(Unclear),
}

/// A check of one family of causes, on the numbers of one replica.
pub(super) type Check = fn(&Facts<'_>) -> Vec<Answer>;

/// A finding, piece by piece.
pub(super) fn found(cause: Cause, description: String, evidence: Vec<Evidence>) -> Finding {
    Finding {
        cause,
        severity: Severity::Low,
        confidence: 0.5,
        description,
        evidence,
        costs: Vec::new(),
        recommendation: String::new(),
        treatments: Vec::new(),
        explained_by: None,
        replicas: Vec::new(),
    }
}

impl Finding {
    pub(super) fn severe(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// How sure it is with all the evidence there can be; less where less was observed.
    pub(super) fn sure(mut self, confidence: f64) -> Self {
        self.confidence = confidence;
        self
    }

    pub(super) fn costs(mut self, kind: CostKind, value: f64) -> Self {
        if value.is_finite() && value > 0.0 {
            self.costs.push(Cost { kind, value });
        }
        self
    }

    pub(super) fn treat(mut self, recommendation: &str, treatments: &[Treatment]) -> Self {
        recommendation.clone_into(&mut self.recommendation);
        self.treatments = treatments.to_vec();
        self
    }

    pub(super) fn answer(self) -> Vec<Answer> {
        vec![Answer::Found(self)]
    }
}

/// A check that could not be made for want of a quantity.
pub(super) fn unclear(facts: &Facts<'_>, cause: Cause, missing: Q) -> Answer {
    let (reason, hint) = facts.absence(missing);
    Answer::Unclear(Unclear {
        cause,
        missing: missing.name().to_owned(),
        reason,
        hint,
    })
}

/// A check that could not be made for want of a setting.
pub(super) fn unknown_setting(cause: Cause, missing: &str, reason: &str, hint: &str) -> Answer {
    Answer::Unclear(Unclear {
        cause,
        missing: missing.to_owned(),
        reason: reason.to_owned(),
        hint: Some(hint.to_owned()),
    })
}

/// What a delay of the first token means, against what 99 of 100 users were promised.
pub(super) fn severity_of_ttft(facts: &Facts<'_>, seconds: f64) -> Severity {
    let times = seconds / facts.targets.ttft_p99_seconds;
    match times {
        times if times >= 20.0 => Severity::Critical,
        times if times >= 2.0 => Severity::High,
        times if times >= 0.4 => Severity::Medium,
        _ => Severity::Low,
    }
}

/// What a gap between tokens means.
pub(super) fn severity_of_gap(facts: &Facts<'_>, seconds: f64) -> Severity {
    let times = seconds / facts.targets.itl_p99_seconds;
    match times {
        times if times >= 10.0 => Severity::Critical,
        times if times >= 2.0 => Severity::High,
        times if times >= 1.0 => Severity::Medium,
        _ => Severity::Low,
    }
}

/// What a share of failed requests means.
pub(super) fn severity_of_failures(facts: &Facts<'_>, ratio: f64) -> Severity {
    let times = ratio / facts.targets.error_ratio;
    match ratio {
        ratio if ratio >= 0.5 => Severity::Critical,
        _ if times >= 5.0 => Severity::High,
        _ if times >= 1.0 => Severity::Medium,
        _ => Severity::Low,
    }
}

/// Confidence that falls where few requests were observed.
pub(super) fn by_count(confidence: f64, observed: f64) -> f64 {
    // half of it stays with one, nearly all with 30 (where means settle)
    confidence * (0.5 + 0.5 * (observed / 30.0).min(1.0))
}

/// A mean number of requests: below ten with a decimal, as half a request is not none.
pub(super) fn number(mean: f64) -> String {
    match mean {
        mean if mean < 9.95 => format!("{mean:.1}"),
        mean => format!("{mean:.0}"),
    }
}
