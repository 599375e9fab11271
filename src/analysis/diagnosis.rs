//! A measurement → what holds the instance back.

use crate::measure::{Figures, Measurement, WindowKind};

use super::cause::fleet::Member;
use super::cause::{CHECKS, OF_INSTANCE, fleet};
use super::check::Answer;
use super::facts::Facts;
use super::finding::{Cause, Finding, Unclear};
use super::minutes::Usage;
use super::ranking::rank;
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

/// What holds the instance back that this was measured of. `usage` is of the minutes before, where they were kept:
/// whether there is too much of an engine shows over hours only.
pub fn diagnose(
    measurement: &Measurement,
    thresholds: &Thresholds,
    targets: &Targets,
    usage: Option<&Usage>,
) -> Diagnosis {
    let facts_of = |figures| Facts {
        figures,
        measurement,
        thresholds,
        targets,
        usage,
    };
    if let Some(unclear) = no_window(measurement) {
        return Diagnosis {
            verdict: Verdict::CannotTell,
            headline: format!("cannot tell: {}", unclear.reason),
            findings: Vec::new(),
            unclear: vec![unclear],
        };
    }
    let members: Vec<Member<'_>> = measurement
        .replicas
        .iter()
        .filter_map(|replica| {
            let figures: &Figures = replica.outcome.as_ref().ok()?;
            Some(Member {
                url: &replica.metrics_url,
                facts: facts_of(figures),
            })
        })
        .collect();
    let mut findings = Vec::new();
    let mut unclear: Vec<Unclear> = Vec::new();
    let mut take = |answers: Vec<Answer>, url: Option<&str>| {
        for answer in answers.into_iter().map(computed) {
            match answer {
                Answer::Found(mut finding) => {
                    finding.replicas.extend(url.map(str::to_owned));
                    findings.push(finding);
                }
                Answer::Unclear(one) if !unclear.contains(&one) => unclear.push(one),
                Answer::Unclear(_) => {}
            }
        }
    };
    for member in &members {
        for check in CHECKS {
            take(check(&member.facts), Some(member.url));
        }
    }
    let whole = facts_of(&measurement.figures);
    for check in OF_INSTANCE {
        take(check(&whole), None);
    }
    take(fleet::check(&members), None);
    let findings = rank(findings, members.len(), targets);
    unclear.retain(|one| findings.iter().all(|finding| finding.cause != one.cause));
    let verdict = verdict(&findings, &unclear);
    Diagnosis {
        verdict,
        headline: headline(verdict, &findings, &unclear),
        findings,
        unclear,
    }
}

/// A finding, unless its numbers are beyond what can be computed with: those of an engine may be anything.
fn computed(answer: Answer) -> Answer {
    let finding = match answer {
        Answer::Found(finding) if !finding.is_computed() => finding,
        other => return other,
    };
    let deciding = finding.evidence.into_iter().next();
    Answer::Unclear(Unclear {
        cause: finding.cause,
        missing: deciding.map_or_else(String::new, |one| one.quantity),
        reason: "its numbers are too large or too small to be computed with".to_owned(),
        hint: None,
    })
}

/// Without a window there are totals only, and they never feed a finding.
fn no_window(measurement: &Measurement) -> Option<Unclear> {
    let reason = match measurement.window.kind {
        WindowKind::SinceStart => "totals since the engine's start say nothing of now",
        WindowKind::Interval if measurement.replicas.iter().all(|one| one.outcome.is_err()) => {
            "no replica could be measured"
        }
        WindowKind::Interval if measurement.window.observed_seconds <= 0.0 => {
            "no interval of this window counts"
        }
        WindowKind::Interval => return None,
    };
    Some(Unclear {
        cause: Cause::Stall,
        missing: "window".to_owned(),
        reason: reason.to_owned(),
        hint: Some("measure again, over a window of some seconds".to_owned()),
    })
}

/// Whether it leaves open that something is wrong. What an engine does not tell of failures, or of what would only be
/// why it is slow, does not where those who are served are served in time.
fn leaves_open(unclear: &Unclear) -> bool {
    !matches!(
        unclear.cause,
        Cause::Errors
            | Cause::AdmissionLimit
            | Cause::Aborts
            | Cause::KvNearCapacity
            | Cause::HostBound
            | Cause::BatchTooLarge
            | Cause::SlowReplica
            | Cause::GraphCeiling
            | Cause::Overprovisioned
    )
}

fn verdict(findings: &[Finding], unclear: &[Unclear]) -> Verdict {
    if !findings.is_empty() {
        Verdict::Findings
    } else if unclear.iter().any(leaves_open) {
        Verdict::CannotTell
    } else {
        Verdict::Healthy
    }
}

fn headline(verdict: Verdict, findings: &[Finding], unclear: &[Unclear]) -> String {
    match (
        verdict,
        findings.first(),
        unclear.iter().find(|one| leaves_open(one)),
    ) {
        (Verdict::Findings, Some(first), _) => {
            let roots = findings.iter().filter(|one| one.explained_by.is_none());
            let more = match roots.count() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            format!(
                "{} {}: {}{more}",
                first.severity.as_str(),
                first.cause.as_str(),
                first.description
            )
        }
        (Verdict::CannotTell, _, Some(one)) => {
            format!("cannot tell: {} is missing ({})", one.missing, one.reason)
        }
        // where failures are not counted there may be some
        _ if unclear.iter().any(|one| one.cause == Cause::Errors) => {
            "nothing to do, as far as the engine tells: it does not count requests that fail"
                .to_owned()
        }
        _ => "nothing to do".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_does_not_count_failures_is_not_called_well_without_saying_so() {
        let unclear = |cause| Unclear {
            cause,
            missing: "requests_errored".to_owned(),
            reason: String::new(),
            hint: None,
        };
        let told = headline(Verdict::Healthy, &[], &[unclear(Cause::Errors)]);
        assert!(told.contains("does not count requests that fail"), "{told}");
        let told = headline(Verdict::Healthy, &[], &[unclear(Cause::HostBound)]);
        assert_eq!(told, "nothing to do");
    }
}
