//! What is said of a workflow: how far it is, and who or what it waits for.

use super::gate::OnTimeout;
use super::state::{Phase, StageStatus, Workflow};
use super::words::{PauseReason, Stage, Status, Verb};

/// Who or what a workflow waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingFor {
    /// Who or what, in a sentence.
    pub what: String,
    /// Since when, unix time in microseconds.
    pub since_us: i64,
    /// Until when, unix time in microseconds; none where for ever.
    pub until_us: Option<i64>,
    /// What happens then, in a sentence; empty where for ever.
    pub then: String,
    /// What callers can do about it, the first what is expected.
    pub verbs: Vec<Verb>,
}

/// Share of the way that is behind, from 0 to 1. Of one on its way back the share of the way back.
pub fn progress(state: &Workflow) -> f64 {
    let status = state.status();
    if status.has_ended() {
        return 1.0;
    }
    if state.phase.is_rollback() {
        let touched = state
            .targets
            .iter()
            .filter(|target| target.phase != super::state::TargetPhase::Untouched);
        let back = touched
            .clone()
            .filter(|target| target.phase == super::state::TargetPhase::RestoredReady);
        return share(back.count(), touched.count());
    }
    let way = state
        .stages
        .iter()
        .filter(|record| record.stage != Stage::Rollback);
    let behind = way
        .clone()
        .filter(|record| matches!(record.status, StageStatus::Done | StageStatus::Skipped));
    let ready =
        |target: &&super::state::TargetState| target.phase == super::state::TargetPhase::Ready;
    let ready = state.targets.iter().filter(ready).count();
    let of_stage = match (state.stage(), state.canary()) {
        (Stage::Rollout, _) => share(ready, state.targets.len()),
        (Stage::Canary, Some(canary)) => {
            let part = canary.changed_after(state.step).unwrap_or(1);
            share(ready, usize::try_from(part).unwrap_or(usize::MAX))
        }
        _ => 0.0,
    };
    let all = way.count();
    share(behind.count(), all) + of_stage / all.max(1) as f64
}

fn share(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

/// Who or what a workflow waits for; none where it works, or has ended and is done with.
pub fn waiting_for(state: &Workflow) -> Option<WaitingFor> {
    let deadline = state.deadline_us;
    if let Some(pause) = &state.pause {
        let verbs = match (pause.reason, state.has_touched()) {
            (PauseReason::Drift, _) => vec![Verb::Rollback, Verb::Resume, Verb::Cancel],
            (_, true) => vec![Verb::Resume, Verb::Rollback, Verb::Cancel],
            (_, false) => vec![Verb::Resume, Verb::Cancel],
        };
        return Some(WaitingFor {
            what: format!("Somebody to resume it. {}", pause.message),
            since_us: pause.since_us,
            until_us: deadline,
            then: match deadline {
                Some(_) => "The settings from before are restored.".to_owned(),
                None => String::new(),
            },
            verbs,
        });
    }
    match state.phase {
        Phase::AwaitingApproval | Phase::AwaitingPromotion => {
            let policy = &state.spec.gate;
            let given = state.gate.as_ref().map_or(0, |gate| gate.approvals.len());
            let open = usize::try_from(policy.approvals)
                .unwrap_or(usize::MAX)
                .saturating_sub(given);
            let who = match policy.approvers.as_slice() {
                [] => "a principal whose role allows it".to_owned(),
                some => some.join(", "),
            };
            let but = match policy.separate_requester {
                true => format!(", but not {}", state.started_by),
                false => String::new(),
            };
            Some(WaitingFor {
                what: match open {
                    1 => format!("An approval by {who}{but}."),
                    open => format!("{open} approvals by {who}{but}."),
                },
                since_us: state.phase_since_us,
                until_us: deadline,
                then: match (policy.on_timeout, state.has_touched()) {
                    (OnTimeout::Reject, true) => "The settings from before are restored.",
                    (OnTimeout::Reject, false) => "It is rejected.",
                    (OnTimeout::Hold, _) => "It is paused.",
                }
                .to_owned(),
                verbs: vec![Verb::Approve, Verb::Reject, Verb::Cancel],
            })
        }
        Phase::Draining { target } => Some(WaitingFor {
            what: format!(
                "{} to finish its requests.",
                state.target(target).map_or("", |target| &target.name)
            ),
            since_us: state.phase_since_us,
            until_us: None,
            then: "It is restarted with the new settings.".to_owned(),
            verbs: match state.has_touched() {
                true => vec![Verb::Rollback, Verb::Pause],
                false => vec![Verb::Cancel, Verb::Pause],
            },
        }),
        Phase::Observing => Some(WaitingFor {
            what: match state.verdict() {
                Some(verdict) => format!("Enough requests to tell. {}", verdict.reason),
                None => "The first window since the replicas have the change.".to_owned(),
            },
            since_us: state.phase_since_us,
            until_us: deadline,
            then: "It is paused, and somebody has to decide.".to_owned(),
            verbs: vec![Verb::Rollback, Verb::Pause],
        }),
        Phase::AwaitingReady { target } | Phase::AwaitingRestored { target } => {
            let name = state.target(target).map_or("", |target| &target.name);
            let back = state.phase.is_rollback();
            Some(WaitingFor {
                what: format!("{name} to be ready with its settings."),
                since_us: state.phase_since_us,
                until_us: deadline,
                then: match back {
                    true => "The rollback has failed.".to_owned(),
                    false => "The settings from before are restored.".to_owned(),
                },
                verbs: match back {
                    true => Vec::new(),
                    false => vec![Verb::Rollback, Verb::Pause],
                },
            })
        }
        Phase::CheckingQuality => Some(WaitingFor {
            what: "Answers to the same prompts, with the change and without.".to_owned(),
            since_us: state.phase_since_us,
            until_us: deadline,
            then: "The settings from before are restored.".to_owned(),
            verbs: vec![Verb::Rollback, Verb::Pause],
        }),
        Phase::Measuring => Some(WaitingFor {
            what: "A full window that was measured after the change.".to_owned(),
            since_us: state.phase_since_us,
            until_us: deadline,
            then: "It completes without one.".to_owned(),
            verbs: vec![Verb::Rollback, Verb::Pause],
        }),
        Phase::Ended {
            status: Status::RollbackFailed,
        } => Some(WaitingFor {
            what: format!(
                "Somebody to see to settings that could not be restored. {}",
                state.headline
            ),
            since_us: state.phase_since_us,
            until_us: None,
            then: String::new(),
            verbs: vec![Verb::Rollback, Verb::Cancel],
        }),
        _ => None,
    }
}
