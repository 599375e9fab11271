//! Findings of replicas → findings of the instance, root cause first.

use std::cmp::Reverse;

use super::finding::{Cause, Cost, CostKind, Finding, Severity};
use super::thresholds::Targets;

/// What a cause brings about: an effect is told with its cause, and never before it.
const EXPLAINS: &[(Cause, &[Cause])] = &[
    (
        Cause::Stall,
        &[
            Cause::KvCapacity,
            Cause::KvNearCapacity,
            Cause::SequenceCap,
            Cause::TokenBudget,
            Cause::Capacity,
            Cause::Deferred,
            Cause::PrefillBound,
            Cause::HeadOfLine,
            Cause::Frontend,
            Cause::Aborts,
            Cause::AdmissionLimit,
            Cause::DecodeBound,
            Cause::PrefillInterference,
            Cause::Imbalance,
            Cause::SlowReplica,
            Cause::ColdPrefixCache,
        ],
    ),
    (Cause::PrefixCacheOff, PROMPTS),
    (Cause::ColdPrefixCache, PROMPTS),
    (
        Cause::KvCapacity,
        &[
            Cause::Capacity,
            Cause::DecodeBound,
            Cause::PrefillInterference,
            Cause::PrefillBound,
            Cause::Aborts,
            Cause::AdmissionLimit,
            Cause::BatchTooLarge,
        ],
    ),
    (
        Cause::HostBound,
        &[
            Cause::DecodeBound,
            Cause::Capacity,
            Cause::Aborts,
            Cause::AdmissionLimit,
        ],
    ),
    (
        Cause::GraphCeiling,
        &[
            Cause::DecodeBound,
            Cause::Capacity,
            Cause::BatchTooLarge,
            Cause::Aborts,
            Cause::AdmissionLimit,
        ],
    ),
    (Cause::BatchTooLarge, &[Cause::DecodeBound, Cause::Aborts]),
    (Cause::SpeculationLoss, &[Cause::DecodeBound]),
    (Cause::SequenceCap, DOORS),
    (
        Cause::TokenBudget,
        &[
            Cause::PrefillBound,
            Cause::PrefillInterference,
            Cause::Aborts,
            Cause::AdmissionLimit,
        ],
    ),
    (Cause::Deferred, DOORS),
    (
        Cause::HeadOfLine,
        &[
            Cause::PrefillInterference,
            Cause::Aborts,
            Cause::AdmissionLimit,
            Cause::DecodeBound,
        ],
    ),
    (
        Cause::Capacity,
        &[
            Cause::PrefillInterference,
            Cause::DecodeBound,
            Cause::Aborts,
            Cause::AdmissionLimit,
        ],
    ),
    (Cause::PrefillBound, &[Cause::Aborts]),
    (Cause::Frontend, &[Cause::Aborts]),
    (Cause::DecodeBound, &[Cause::Aborts]),
];

/// What computing prompts that need not be computed brings about.
const PROMPTS: &[Cause] = &[
    Cause::PrefillBound,
    Cause::HeadOfLine,
    Cause::TokenBudget,
    Cause::Capacity,
    Cause::PrefillInterference,
    Cause::Aborts,
    Cause::AdmissionLimit,
];

/// What waiting brings about.
const DOORS: &[Cause] = &[Cause::Aborts, Cause::AdmissionLimit];

/// Puts what several replicas show into one finding a cause, says what explains what, and orders: first what nothing
/// explains, users without an answer before users who wait, the worse first.
pub(super) fn rank(findings: Vec<Finding>, replicas: usize, targets: &Targets) -> Vec<Finding> {
    let mut merged = merge(findings, replicas);
    let causes: Vec<(Cause, Severity, Vec<String>)> = merged
        .iter()
        .map(|one| (one.cause, one.severity, one.replicas.clone()))
        .collect();
    for finding in &mut merged {
        finding.explained_by = causes
            .iter()
            .filter(|(cause, severity, of)| explains((*cause, *severity, of), finding))
            .max_by_key(|(cause, severity, _)| (class(*cause) == 0, *severity))
            .map(|(cause, _, _)| *cause);
    }
    merged.sort_by(|one, other| {
        let by_cost = cost(other, targets).total_cmp(&cost(one, targets));
        key(one)
            .cmp(&key(other))
            .then(by_cost)
            .then(one.cause.cmp(&other.cause))
    });
    merged
}

fn explains((cause, severity, of): (Cause, Severity, &[String]), finding: &Finding) -> bool {
    if cause == finding.cause {
        return false;
    }
    // what only the odd replica shows comes from its being odd
    if matches!(cause, Cause::SlowReplica | Cause::Imbalance) {
        return !matches!(
            finding.cause,
            Cause::Stall | Cause::Errors | Cause::SlowReplica | Cause::Imbalance
        ) && !finding.replicas.is_empty()
            && finding.replicas.iter().all(|url| of.contains(url));
    }
    let effects = EXPLAINS.iter().find(|(one, _)| *one == cause);
    if !effects.is_some_and(|(_, effects)| effects.contains(&finding.cause)) {
        return false;
    }
    // what is hardly felt sends nobody away
    finding.cause != Cause::Aborts || severity >= Severity::Medium
}

fn class(cause: Cause) -> u8 {
    match cause {
        Cause::Stall => 0,
        Cause::Errors | Cause::AdmissionLimit => 1,
        Cause::Aborts | Cause::KvNearCapacity | Cause::Overprovisioned => 3,
        _ => 2,
    }
}

fn key(finding: &Finding) -> (bool, u8, Reverse<Severity>) {
    (
        finding.explained_by.is_some(),
        class(finding.cause),
        Reverse(finding.severity),
    )
}

/// What it costs, in times of what users were promised.
fn cost(finding: &Finding, targets: &Targets) -> f64 {
    let part = |cost: &Cost| match cost.kind {
        CostKind::TtftSeconds => cost.value / targets.ttft_p99_seconds,
        CostKind::ItlSeconds => cost.value / targets.itl_p99_seconds,
        // no promise is about them; failures stand before latency anyhow
        CostKind::TokensPerSecond | CostKind::FailedRequests => 0.0,
    };
    finding.costs.iter().map(part).sum::<f64>() * finding.confidence
}

/// One finding a cause: the worst of them, and which replicas show it.
fn merge(findings: Vec<Finding>, replicas: usize) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let Some(known) = merged.iter_mut().find(|one| one.cause == finding.cause) else {
            merged.push(finding);
            continue;
        };
        let mut urls = std::mem::take(&mut known.replicas);
        urls.extend(
            finding
                .replicas
                .iter()
                .filter(|url| !urls.contains(url))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let worse = (finding.severity, finding.confidence) > (known.severity, known.confidence);
        if worse {
            *known = finding;
        }
        known.replicas = urls;
    }
    for finding in &mut merged {
        // these name their replica themselves
        if matches!(finding.cause, Cause::SlowReplica | Cause::Imbalance) {
            continue;
        }
        let count = finding.replicas.len();
        match finding.replicas.first() {
            Some(_) if count == replicas => finding.replicas.clear(),
            Some(first) => {
                let which = match count {
                    1 => first.clone(),
                    _ => format!("{count} of {replicas} replicas"),
                };
                finding.description = format!("on {which}: {}", finding.description);
            }
            None => {}
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::check::found;

    fn finding(cause: Cause, severity: Severity) -> Finding {
        found(cause, String::new(), Vec::new()).severe(severity)
    }

    fn on(replica: &str, mut finding: Finding) -> Finding {
        finding.replicas = vec![replica.to_owned()];
        finding
    }

    fn ranked(findings: Vec<Finding>, replicas: usize) -> Vec<(Cause, Option<Cause>)> {
        rank(findings, replicas, &Targets::default())
            .iter()
            .map(|one| (one.cause, one.explained_by))
            .collect()
    }

    #[test]
    fn users_without_an_answer_come_before_users_who_wait() {
        let findings = vec![
            finding(Cause::SequenceCap, Severity::Critical),
            finding(Cause::Errors, Severity::Medium),
        ];
        assert_eq!(
            ranked(findings, 1),
            [(Cause::Errors, None), (Cause::SequenceCap, None)]
        );
    }

    #[test]
    fn clients_that_waited_too_long_are_an_effect() {
        let of = |severity| {
            let aborts = finding(Cause::Aborts, Severity::High);
            ranked(vec![aborts, finding(Cause::SequenceCap, severity)], 1)
        };
        let cause = (Cause::SequenceCap, None);
        assert_eq!(
            of(Severity::Medium),
            [cause, (Cause::Aborts, Some(Cause::SequenceCap))]
        );
        // nobody goes for a delay that is hardly felt
        assert_eq!(of(Severity::Low), [cause, (Cause::Aborts, None)]);
    }

    #[test]
    fn what_only_the_slow_replica_shows_comes_from_that() {
        let findings = |queued_at: &str| {
            vec![
                on("a", finding(Cause::SlowReplica, Severity::Medium)),
                on(queued_at, finding(Cause::Capacity, Severity::Critical)),
            ]
        };
        let slow = (Cause::SlowReplica, None);
        assert_eq!(
            ranked(findings("a"), 2),
            [slow, (Cause::Capacity, Some(Cause::SlowReplica))]
        );
        assert_eq!(ranked(findings("b"), 2), [(Cause::Capacity, None), slow]);
    }

    #[test]
    fn what_several_replicas_show_is_one_finding() {
        let findings = vec![
            on("a", finding(Cause::SequenceCap, Severity::Low)),
            on("b", finding(Cause::SequenceCap, Severity::High)),
        ];
        let merged = rank(findings.clone(), 3, &Targets::default());
        let [one] = &merged[..] else {
            panic!("{merged:?}")
        };
        assert_eq!(one.severity, Severity::High);
        assert_eq!(one.replicas, ["a", "b"]);
        assert!(one.description.starts_with("on 2 of 3 replicas: "));
        // of all: of none in particular
        let merged = rank(findings, 2, &Targets::default());
        assert!(merged.iter().all(|one| one.replicas.is_empty()));
    }
}
