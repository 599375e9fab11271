//! A score from 0 to 100 that says what it is made of.

use super::compliance::{Compliance, ComplianceStatus, short};
use super::diagnosis::{Diagnosis, Verdict};
use super::finding::{Cause, Finding, Severity};
use crate::measure::Bounded;

/// How healthy an instance is.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthScore {
    /// 100 where nothing is wrong; 100 less all deductions, and no less than 0.
    pub score: u32,
    /// What was taken off, the most first.
    pub deductions: Vec<Deduction>,
}

/// Points that something takes off.
#[derive(Debug, Clone, PartialEq)]
pub struct Deduction {
    /// For what.
    pub source: DeductionSource,
    /// How many.
    pub points: u32,
    /// A sentence.
    pub reason: String,
}

/// What takes points off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeductionSource {
    /// A finding of this cause.
    Finding(Cause),
    /// A missed SLO of this name.
    Slo(String),
}

const FULL: u32 = 100;
/// What a missed SLO takes off, and at most as much again by how far it is missed.
const SLO_POINTS: f64 = 10.0;

/// The score; none where neither a check nor an SLO could be told.
pub fn health_score(diagnosis: &Diagnosis, compliances: &[Compliance]) -> Option<HealthScore> {
    let decided = compliances
        .iter()
        .any(|one| one.status != ComplianceStatus::Unknown);
    if diagnosis.verdict == Verdict::CannotTell && diagnosis.findings.is_empty() && !decided {
        return None;
    }
    let of_findings = diagnosis.findings.iter().map(of_finding);
    let missed = compliances
        .iter()
        .filter(|one| one.status == ComplianceStatus::Violated);
    let mut deductions: Vec<Deduction> = of_findings.chain(missed.map(of_slo)).collect();
    // stable: among equals the root cause stays first
    deductions.sort_by_key(|one| std::cmp::Reverse(one.points));
    let taken: u32 = deductions.iter().map(|one| one.points).sum();
    Some(HealthScore {
        score: FULL.saturating_sub(taken),
        deductions,
    })
}

/// An effect counts in full, as its cause does: else a cause that is found beside it would raise the score.
fn of_finding(finding: &Finding) -> Deduction {
    let most = match finding.severity {
        Severity::Low => 5.0,
        Severity::Medium => 15.0,
        Severity::High => 35.0,
        Severity::Critical => 60.0,
    };
    let confidence = finding.confidence.clamp(0.0, 1.0);
    Deduction {
        source: DeductionSource::Finding(finding.cause),
        points: (most * confidence).round() as u32,
        reason: format!(
            "{}, {}, {} % sure",
            finding.cause.as_str(),
            finding.severity.as_str(),
            short(confidence * 100.0)
        ),
    }
}

fn of_slo(compliance: &Compliance) -> Deduction {
    let beyond = compliance
        .margin_ratio
        .map_or(0.0, |margin| -Bounded::number(margin));
    Deduction {
        source: DeductionSource::Slo(compliance.slo.name.clone()),
        points: (SLO_POINTS * (1.0 + beyond.clamp(0.0, 1.0))).round() as u32,
        reason: compliance.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::slo::Slo;
    use proptest::prelude::*;

    fn finding(cause: Cause, severity: Severity, confidence: f64) -> Finding {
        Finding {
            cause,
            severity,
            confidence,
            description: String::new(),
            evidence: Vec::new(),
            costs: Vec::new(),
            recommendation: String::new(),
            treatments: Vec::new(),
            explained_by: None,
            replicas: Vec::new(),
        }
    }

    fn diagnosis(findings: Vec<Finding>) -> Diagnosis {
        Diagnosis {
            verdict: match findings.is_empty() {
                true => Verdict::CannotTell,
                false => Verdict::Findings,
            },
            headline: String::new(),
            findings,
            unclear: Vec::new(),
        }
    }

    fn compliance(status: ComplianceStatus, margin: f64) -> Compliance {
        Compliance {
            slo: Slo::defaults().remove(0),
            status,
            reason: "missed".to_owned(),
            value: None,
            margin_ratio: Some(Bounded::Value(margin)),
            share_beyond: None,
            missing: None,
        }
    }

    #[test]
    fn it_says_what_it_is_made_of() {
        let found = diagnosis(vec![
            finding(Cause::SequenceCap, Severity::Medium, 1.0),
            finding(Cause::KvCapacity, Severity::High, 0.8),
        ]);
        let missed = compliance(ComplianceStatus::Violated, -0.5);
        let health = health_score(&found, &[missed]);
        let points = |health: &HealthScore| -> Vec<u32> {
            health.deductions.iter().map(|one| one.points).collect()
        };
        assert!(
            health.as_ref().is_some_and(|health| {
                health.score == 42
                    && points(health) == [28, 15, 15]
                    && health.deductions.iter().map(|one| &one.source).eq(&[
                        DeductionSource::Finding(Cause::KvCapacity),
                        DeductionSource::Finding(Cause::SequenceCap),
                        DeductionSource::Slo("ttft_p50".to_owned()),
                    ])
            }),
            "{health:?}"
        );
    }

    #[test]
    fn where_nothing_could_be_told_there_is_none() {
        let unknown = compliance(ComplianceStatus::Unknown, -5.0);
        assert_eq!(health_score(&diagnosis(Vec::new()), &[unknown]), None);
        let kept = compliance(ComplianceStatus::Met, 0.5);
        let score = |health: Option<HealthScore>| health.map(|health| health.score);
        assert_eq!(
            score(health_score(&diagnosis(Vec::new()), &[kept])),
            Some(100)
        );
        let healthy = Diagnosis {
            verdict: Verdict::Healthy,
            ..diagnosis(Vec::new())
        };
        assert_eq!(score(health_score(&healthy, &[])), Some(100));
    }

    fn findings() -> impl Strategy<Value = Vec<Finding>> {
        let one = (0..Cause::ALL.len(), 0..Severity::ALL.len(), 0.0f64..=1.0);
        let made = one.prop_filter_map("none", |(cause, severity, confidence)| {
            let (cause, severity) = (Cause::ALL.get(cause)?, Severity::ALL.get(severity)?);
            Some(finding(*cause, *severity, confidence))
        });
        prop::collection::vec(made, 1..6)
    }

    proptest! {
        #[test]
        fn more_or_worse_never_raises_it(
            found in findings(),
            more in findings(),
            margins in prop::collection::vec(-3.0f64..0.0, 0..4),
            worse_by in 0.0f64..2.0,
            worse in 0usize..6,
        ) {
            let missed = |by: f64| -> Vec<Compliance> {
                let margins = margins.iter();
                margins.map(|margin| compliance(ComplianceStatus::Violated, margin - by)).collect()
            };
            let score = |found: &[Finding], missed: &[Compliance]| {
                health_score(&diagnosis(found.to_vec()), missed).map(|health| {
                    let taken: u32 = health.deductions.iter().map(|one| one.points).sum();
                    assert_eq!(health.score, 100u32.saturating_sub(taken));
                    health.score
                })
            };
            let before = score(&found, &missed(0.0));
            let all: Vec<Finding> = found.iter().chain(&more).cloned().collect();
            prop_assert!(score(&all, &missed(0.0)) <= before);
            prop_assert!(score(&found, &missed(worse_by)) <= before);
            prop_assert!(before <= score(&found, &[]));
            let mut graver = found.clone();
            if let Some(one) = graver.get_mut(worse) {
                one.severity = Severity::Critical;
            }
            if let Some(one) = graver.get_mut(0) {
                one.explained_by = Some(Cause::Stall);
            }
            prop_assert!(score(&graver, &missed(0.0)) <= before);
        }
    }
}
