//! Words, marks and colours of workflows, and times as people say them.

use std::time::SystemTime;

use crate::edge::cli::Outcome;
use crate::edge::grpc::pb;

/// `WORKFLOW_STATUS_PAUSED` → `PAUSED`.
fn word(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

pub(super) fn status_word(of: pb::WorkflowStatus) -> &'static str {
    word(of.as_str_name(), "WORKFLOW_STATUS_")
}

pub(super) fn stage_word(of: pb::WorkflowStage) -> &'static str {
    word(of.as_str_name(), "WORKFLOW_STAGE_")
}

pub(super) fn type_word(of: pb::WorkflowType) -> &'static str {
    word(of.as_str_name(), "WORKFLOW_TYPE_")
}

pub(super) fn outcome_word(of: pb::WorkflowOutcome) -> &'static str {
    word(of.as_str_name(), "WORKFLOW_OUTCOME_")
}

pub(super) fn target_word(of: pb::WorkflowTargetState) -> &'static str {
    word(of.as_str_name(), "WORKFLOW_TARGET_STATE_")
}

pub(super) fn severity_word(of: pb::Severity) -> &'static str {
    word(of.as_str_name(), "SEVERITY_")
}

/// The colour of a status: what waits for somebody yellow, what went wrong red, what went well green.
pub(super) fn status_ink(of: pb::WorkflowStatus) -> &'static str {
    use pb::WorkflowStatus as Status;
    match of {
        Status::Completed => "1;32",
        Status::PendingApproval | Status::Paused => "1;33",
        Status::Failed | Status::RollbackFailed => "1;31",
        Status::Rejected | Status::Cancelled | Status::RolledBack => "1;35",
        Status::InProgress | Status::Approved => "1;36",
        Status::Unspecified => "0",
    }
}

/// How a stage is: a mark, its colour and a word.
pub(super) fn stage_mark(
    of: pb::WorkflowStageStatus,
) -> (&'static str, &'static str, &'static str) {
    use pb::WorkflowStageStatus as Stage;
    match of {
        Stage::NotStarted | Stage::Unspecified => ("·", "0", ""),
        Stage::Running => ("▶", "1;36", "now"),
        Stage::Done => ("✔", "32", "done"),
        Stage::Skipped => ("-", "2", "left out"),
        Stage::Failed => ("✘", "31", "left here"),
    }
}

/// How a command ends whose workflow is so; none while it has not ended.
pub(super) fn outcome_of(of: &pb::Workflow) -> Option<Outcome> {
    use pb::WorkflowStatus as Status;
    match of.status() {
        Status::Completed => Some(Outcome::Done),
        Status::Failed => Some(Outcome::Failed),
        Status::Rejected | Status::Cancelled => Some(Outcome::NotDone),
        Status::RolledBack => Some(Outcome::RolledBack),
        Status::RollbackFailed => Some(Outcome::RollbackFailed),
        // one of a later version may have ended in what is not known here
        _ => of.done.then_some(Outcome::Failed),
    }
}

/// Seconds from one instant to another; negative where the second is the earlier one.
pub(super) fn seconds_between(from: prost_types::Timestamp, to: prost_types::Timestamp) -> f64 {
    let seconds = |at: prost_types::Timestamp| at.seconds as f64 + f64::from(at.nanos) / 1e9;
    seconds(to) - seconds(from)
}

/// Seconds that have passed since.
pub(in crate::edge::cli) fn age(since: prost_types::Timestamp, now: SystemTime) -> f64 {
    seconds_between(since, prost_types::Timestamp::from(now)).max(0.0)
}

/// Seconds in the two units that say most: `12 s`, `2 min 3 s`, `6 d 23 h`.
pub(in crate::edge::cli) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{minutes} min {} s", whole % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// An instant to the second, in UTC: `2026-01-02T03:04:05Z`.
pub(in crate::edge::cli) fn instant(at: prost_types::Timestamp) -> String {
    prost_types::Timestamp { nanos: 0, ..at }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(span(0.4), "0 s");
        assert_eq!(span(59.6), "1 min 0 s");
        assert_eq!(span(123.0), "2 min 3 s");
        assert_eq!(span(7_260.0), "2 h 1 min");
        assert_eq!(span(600_000.0), "6 d 22 h");
        assert_eq!(span(-3.0), "0 s");
    }

    #[test]
    fn the_exit_code_says_how_it_ended() {
        use pb::WorkflowStatus as Status;
        let of = |status: Status, done| pb::Workflow {
            status: status.into(),
            done,
            ..pb::Workflow::default()
        };
        let codes = [
            (Status::Completed, Some(Outcome::Done)),
            (Status::Failed, Some(Outcome::Failed)),
            (Status::Rejected, Some(Outcome::NotDone)),
            (Status::Cancelled, Some(Outcome::NotDone)),
            (Status::RolledBack, Some(Outcome::RolledBack)),
            (Status::RollbackFailed, Some(Outcome::RollbackFailed)),
        ];
        for (status, outcome) in codes {
            assert_eq!(outcome_of(&of(status, true)), outcome, "{status:?}");
        }
        for status in [Status::PendingApproval, Status::InProgress, Status::Paused] {
            assert_eq!(outcome_of(&of(status, false)), None, "{status:?}");
        }
        let mut later = of(Status::Unspecified, true);
        later.status = 99;
        assert_eq!(outcome_of(&later), Some(Outcome::Failed));
    }
}
