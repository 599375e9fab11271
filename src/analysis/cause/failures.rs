//! ERRORS, ADMISSION_LIMIT, ABORTS: requests that get no answer.

use crate::analysis::check::{Answer, by_count, found, percent, severity_of_failures, unclear};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Severity, Treatment};
use crate::engine::Quantity as Q;
use crate::measure::Basis;

/// Requests that ended in the window, those that were refused included.
///
/// # Errors
/// What a check of this cause answers where there were none, or nobody tells.
fn ended(facts: &Facts<'_>, cause: Cause) -> Result<f64, Vec<Answer>> {
    let Some(finished) = facts.increase(Q::RequestsFinished) else {
        return Err(vec![unclear(facts, cause, Q::RequestsFinished)]);
    };
    match finished + facts.increase(Q::RequestsRejected).unwrap_or(0.0) {
        ended if ended > 0.0 => Ok(ended),
        _ => Err(Vec::new()),
    }
}

pub(super) fn errors(facts: &Facts<'_>) -> Vec<Answer> {
    let ended = match ended(facts, Cause::Errors) {
        Ok(ended) => ended,
        Err(answers) => return answers,
    };
    let Some(errored) = facts.increase(Q::RequestsErrored) else {
        return vec![unclear(facts, Cause::Errors, Q::RequestsErrored)];
    };
    let ratio = errored / ended;
    if errored < 1.0 || ratio <= facts.targets.error_ratio {
        return Vec::new();
    }
    let description = format!(
        "{errored:.0} of {ended:.0} requests ({}) ended in an error of the engine",
        percent(ratio)
    );
    let evidence = facts
        .evidence()
        .derived("request_error_ratio", ratio, "errors / requests that ended")
        .against(
            Comparison::AtLeast,
            facts.targets.error_ratio,
            "slo:error_ratio",
        )
        .increase(Q::RequestsErrored)
        .increase(Q::RequestsFinished)
        .done();
    found(Cause::Errors, description, evidence)
        .severe(severity_of_failures(facts, ratio))
        .sure(by_count(0.95, ended))
        .costs(CostKind::FailedRequests, errored)
        .treat(
            "Read the engine's log for the errors: out of memory, a lost worker, a model that gives NaN. Roll back what was changed last.",
            &[Treatment::Memory],
        )
        .answer()
}

pub(super) fn admission(facts: &Facts<'_>) -> Vec<Answer> {
    let ended = match ended(facts, Cause::AdmissionLimit) {
        Ok(ended) => ended,
        Err(answers) => return answers,
    };
    let Some(rejected) = facts.increase(Q::RequestsRejected) else {
        return vec![unclear(facts, Cause::AdmissionLimit, Q::RequestsRejected)];
    };
    let ratio = rejected / ended;
    if rejected < 1.0 || ratio <= facts.targets.error_ratio {
        return Vec::new();
    }
    let description = format!(
        "{rejected:.0} of {ended:.0} requests ({}) were refused at the door, at the limit of requests that may wait",
        percent(ratio)
    );
    let evidence = facts
        .evidence()
        .derived(
            "request_rejection_ratio",
            ratio,
            "rejections / requests that ended or were refused",
        )
        .against(
            Comparison::AtLeast,
            facts.targets.error_ratio,
            "slo:error_ratio",
        )
        .increase(Q::RequestsRejected)
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::RequestsWaiting)
        .done();
    let flag = match facts.engine() {
        "vllm" => "--max-num-queued-reqs",
        "sglang" => "--max-queued-requests",
        "tgi" => "--max-concurrent-requests",
        _ => "the limit on queued requests",
    };
    found(Cause::AdmissionLimit, description, evidence)
        .severe(severity_of_failures(facts, ratio))
        .sure(by_count(0.9, ended))
        .costs(CostKind::FailedRequests, rejected)
        .treat(
            &format!("Raise {flag} if requests may wait longer; else add replicas, or send less."),
            &[Treatment::Scheduling, Treatment::Scaling],
        )
        .answer()
}

/// Clients that went away, as far as is certain.
fn gone(facts: &Facts<'_>) -> Option<f64> {
    let told = facts.increase(Q::RequestsAborted);
    // vLLM shows them only by what is missing: first tokens without an end, less those that still run
    let missing = facts
        .figures
        .quantity("requests_disconnected_increase")
        .and_then(|_| {
            let begun = facts.figures.distribution(Q::TimeToFirstToken)?.count;
            let finished = facts.figures.distribution(Q::EndToEndLatency)?.count;
            // one that was never observed says nothing of those that finished
            let counted = finished > 0.0 || facts.increase(Q::RequestsFinished) == Some(0.0);
            let running = facts.gauge(Q::RequestsRunning)?.last;
            counted.then(|| (begun - finished - running).max(0.0))
        });
    let vague = facts
        .figures
        .quantity(Q::RequestsAborted.counter_names()[1])
        .is_some_and(|one| one.basis == Basis::Approximate);
    match (told, missing) {
        // the counter that is there does not see clients that went away
        (Some(told), None) if vague && facts.engine() == "vllm" && told == 0.0 => None,
        (Some(told), Some(missing)) => Some(told.max(missing)),
        (told, missing) => told.or(missing),
    }
}

pub(super) fn aborts(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(ended) = facts.increase(Q::RequestsFinished) else {
        return vec![unclear(facts, Cause::Aborts, Q::RequestsFinished)];
    };
    let Some(gone) = gone(facts) else {
        return match ended > 0.0 {
            true => vec![unclear(facts, Cause::Aborts, Q::RequestsAborted)],
            false => Vec::new(),
        };
    };
    // where they are counted among the finished they are not added again
    let told = facts.increase(Q::RequestsAborted).unwrap_or(0.0) >= gone;
    let all = if told { ended } else { ended + gone };
    let ratio = gone / all.max(1.0);
    let threshold = facts.thresholds.abort_ratio;
    if gone < 3.0 || ratio < threshold {
        return Vec::new();
    }
    let description = format!(
        "clients of {gone:.0} of {all:.0} requests ({}) went away before the end",
        percent(ratio)
    );
    let evidence = facts
        .evidence()
        .derived(
            "request_abort_ratio",
            ratio,
            "aborted / requests that ended",
        )
        .against(Comparison::AtLeast, threshold, "abort_ratio")
        .increase(Q::RequestsAborted)
        .value("requests_disconnected_increase")
        .mean(Q::TimeToFirstToken)
        .done();
    let severity = match ratio {
        ratio if ratio >= 0.5 => Severity::High,
        ratio if ratio >= 0.1 => Severity::Medium,
        _ => Severity::Low,
    };
    found(Cause::Aborts, description, evidence)
        .severe(severity)
        .sure(by_count(0.8, all))
        .costs(CostKind::FailedRequests, gone)
        .treat(
            "Look at the clients' timeouts and at what they do with answers; the engine does not keep them waiting.",
            &[Treatment::Scheduling],
        )
        .answer()
}
