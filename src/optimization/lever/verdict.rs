//! What to do where no lever helps.

use crate::analysis::{Cause, Finding};
use crate::optimization::Advice;

/// What is wrong and no setting mends.
const REPAIR: [Cause; 4] = [
    Cause::Stall,
    Cause::Errors,
    Cause::SlowReplica,
    Cause::Imbalance,
];

/// What lacks hardware.
const CAPACITY: [Cause; 4] = [
    Cause::Capacity,
    Cause::KvCapacity,
    Cause::AdmissionLimit,
    Cause::PrefillBound,
];

/// What to do by the findings alone, where nothing is to be changed, and why.
pub fn verdict_without_changes(findings: &[Finding]) -> (Advice, String) {
    let found = |causes: &[Cause]| findings.iter().find(|one| causes.contains(&one.cause));
    if let Some(finding) = found(&REPAIR) {
        return (Advice::Repair, repair(finding.cause).to_owned());
    }
    if found(&CAPACITY).is_some() {
        let text = "No setting will do: add replicas, or faster hardware, or send less.";
        return (Advice::AddCapacity, text.to_owned());
    }
    if found(&[Cause::Overprovisioned]).is_some() {
        let text =
            "Nothing to change: it serves as it should, with far more hardware than it ever used.";
        return (Advice::NothingToDo, text.to_owned());
    }
    match findings.first() {
        None => (
            Advice::NothingToDo,
            "Nothing to do: it serves as it should.".to_owned(),
        ),
        Some(finding) if finding.recommendation.is_empty() => (
            Advice::CannotTell,
            format!(
                "{} was found, and no setting is known to treat it here.",
                finding.cause.as_str()
            ),
        ),
        Some(finding) => (
            Advice::CannotTell,
            format!(
                "No setting is known to treat {} here. {}",
                finding.cause.as_str(),
                finding.recommendation
            ),
        ),
    }
}

fn repair(cause: Cause) -> &'static str {
    match cause {
        Cause::Stall => {
            "Restart the replica that stands still, and keep its log: no setting wakes a dead engine."
        }
        Cause::Errors => "Read the engine's log for the errors: no setting mends them.",
        Cause::SlowReplica => {
            "Look at the slow replica's machine: clocks, heat, neighbours, link. No setting mends it."
        }
        _ => {
            "Look at the balancer: requests are spread unevenly. No setting of an engine mends it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::finding;
    use super::*;

    #[test]
    fn findings_alone_say_what_to_do() {
        for (causes, advice, word) in [
            (&[][..], Advice::NothingToDo, "Nothing to do"),
            (&[Cause::Stall, Cause::Capacity], Advice::Repair, "Restart"),
            (
                &[Cause::Capacity, Cause::SlowReplica],
                Advice::Repair,
                "machine",
            ),
            (&[Cause::Imbalance], Advice::Repair, "balancer"),
            (&[Cause::Capacity], Advice::AddCapacity, "add replicas"),
            (
                &[Cause::Overprovisioned],
                Advice::NothingToDo,
                "more hardware",
            ),
            (&[Cause::Deferred], Advice::CannotTell, "DEFERRED"),
        ] {
            let findings: Vec<Finding> = causes.iter().map(|cause| finding(*cause)).collect();
            let (said, text) = verdict_without_changes(&findings);
            assert_eq!(said, advice, "{causes:?}");
            assert!(text.contains(word), "{text}");
        }
    }
}
