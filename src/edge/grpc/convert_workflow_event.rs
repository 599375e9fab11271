//! Events of workflows → protobuf, each with a sentence for people.

use super::convert_canary as canary;
use super::convert_workflow as write;
use super::pb;
use crate::agent::LIMITS;
use crate::workflow::Observation;
use crate::workflow::{Event, Plan, RecordedEvent, WorkflowKind, WorkflowSpec};
use prost::Message;

/// An event.
pub(super) fn event(of: &RecordedEvent) -> pb::WorkflowEvent {
    let whole = pb::WorkflowEvent {
        revision: of.revision,
        workflow_id: of.workflow_id.clone(),
        instance_id: of.instance_id.clone(),
        sequence: of.sequence,
        event_time: Some(write::instant(of.at_us)),
        actor: of.actor.clone(),
        r#type: of.event.kind().to_owned(),
        message: sentence(of),
        ..carried(&of.event)
    };
    // more than this no client takes; GetWorkflow says so itself
    if whole.encoded_len() + MARGIN_BYTES <= LIMITS.response_bytes {
        return whole;
    }
    pb::WorkflowEvent {
        optimizations: Vec::new(),
        plan: None,
        findings: Vec::new(),
        ..whole
    }
}

/// Room for what an event is sent in.
const MARGIN_BYTES: usize = 1_024;

fn carried(of: &Event) -> pb::WorkflowEvent {
    let none = pb::WorkflowEvent::default();
    match of {
        Event::Started { spec } => pb::WorkflowEvent {
            workflow_type: write::kind(spec.kind).into(),
            ..none
        },
        Event::Analysed { analysis } => pb::WorkflowEvent {
            findings: write::findings(Some(analysis)),
            ..none
        },
        Event::Planned { plan } => pb::WorkflowEvent {
            plan: Some(write::plan(plan)),
            optimizations: write::optimizations(plan),
            ..none
        },
        Event::Paused { reason, target, .. } => pb::WorkflowEvent {
            pause_reason: write::pause_reason(*reason).into(),
            target: *target,
            ..none
        },
        Event::WriteIntended {
            target,
            operation_id,
            epoch,
            ..
        }
        | Event::RestoreIntended {
            target,
            operation_id,
            epoch,
        } => pb::WorkflowEvent {
            target: Some(*target),
            operation_id: operation_id.clone(),
            epoch: *epoch,
            ..none
        },
        Event::Written { target, revision } | Event::Restored { target, revision } => {
            pb::WorkflowEvent {
                target: Some(*target),
                settings_revision: revision.clone(),
                ..none
            }
        }
        Event::DrainStarted { target, .. } | Event::Ready { target } => pb::WorkflowEvent {
            target: Some(*target),
            ..none
        },
        Event::Observed {
            step,
            observation,
            verdict,
        } => pb::WorkflowEvent {
            observation: Some(canary::observation(observation)),
            verdict: verdict.as_deref().map(|said| canary::verdict(*step, said)),
            ..none
        },
        Event::QualityChecked { report } => pb::WorkflowEvent {
            quality: Some(canary::quality(report)),
            ..none
        },
        Event::Completed { effects } => pb::WorkflowEvent {
            effects: effects.as_deref().map(write::effects),
            ..none
        },
        Event::RollbackStarted {
            failure: Some(failure),
            ..
        }
        | Event::RollbackFailed { failure }
        | Event::Failed { failure } => pb::WorkflowEvent {
            failure: Some(write::failure(failure)),
            ..none
        },
        Event::RollbackStarted { failure, .. } => pb::WorkflowEvent {
            failure: failure.as_ref().map(write::failure),
            ..none
        },
        Event::NothingToDo { .. }
        | Event::ApprovalGiven { .. }
        | Event::Approved { .. }
        | Event::Rejected { .. }
        | Event::Resumed { .. }
        | Event::Cancelled { .. }
        | Event::PlanOutdated { .. }
        | Event::RolledBack => none,
    }
}

/// What happened, in a sentence.
fn sentence(of: &RecordedEvent) -> String {
    let who = &of.actor;
    match &of.event {
        Event::Started { spec } => noted(&started(who, spec), &spec.note),
        Event::Analysed { analysis } => match analysis.findings.len() {
            0 => analysis.headline.clone(),
            1 => format!("1 finding: {}", analysis.headline),
            many => format!("{many} findings: {}", analysis.headline),
        },
        Event::Planned { plan } => planned(plan),
        Event::NothingToDo { headline } => headline.clone(),
        Event::ApprovalGiven { approval } => noted(
            &format!("{who} approved the plan; more have to."),
            &approval.note,
        ),
        Event::Approved {
            approval: Some(approval),
        } => noted(&format!("{who} approved the plan."), &approval.note),
        Event::Approved { approval: None } => "The plan needs no approval.".to_owned(),
        Event::Rejected {
            timed_out: true, ..
        } => "Nobody approved the plan in time: it is rejected.".to_owned(),
        Event::Rejected { note, .. } => noted(&format!("{who} rejected the plan."), note),
        Event::Paused { message, .. } => format!("Paused: {message}"),
        Event::Resumed { note } => noted(&format!("{who} resumed it."), note),
        Event::Cancelled {
            abandons: true,
            note,
        } => noted(
            &format!("{who} took over what could not be restored, and unlocked the instance."),
            note,
        ),
        Event::Cancelled { note, .. } => noted(&format!("{who} cancelled it."), note),
        Event::PlanOutdated { message } => format!("The plan is made anew: {message}"),
        Event::DrainStarted {
            target,
            leaves_traffic,
        } => {
            let name = capital(&nth(*target));
            match leaves_traffic {
                true => format!("{name} takes no new requests, and finishes those it has."),
                false => format!("{name} finishes its requests."),
            }
        }
        Event::Observed {
            verdict: Some(verdict),
            ..
        } => format!("{}: {}", verdict.word.as_str(), verdict.reason),
        Event::Observed {
            observation,
            verdict: None,
            ..
        } => observed(observation),
        Event::WriteIntended { target, .. } => {
            format!("The settings of {} are about to be written.", nth(*target))
        }
        Event::Written { target, revision } => format!(
            "{} has its new settings, at revision {revision}.",
            capital(&nth(*target))
        ),
        Event::Ready { target } => format!("{} is ready.", capital(&nth(*target))),
        Event::QualityChecked { report } => report.in_words(),
        Event::Completed {
            effects: Some(effects),
        } => effects.in_words(),
        Event::Completed { effects: None } => {
            "The change is in force; what came of it could not be measured in time.".to_owned()
        }
        Event::RollbackStarted {
            attempt: 1,
            message,
            ..
        } => format!("The settings from before are to be restored: {message}"),
        Event::RollbackStarted {
            attempt, message, ..
        } => format!("The settings from before are to be restored, attempt {attempt}: {message}"),
        Event::RestoreIntended { target, .. } => {
            format!("The settings of {} are about to be restored.", nth(*target))
        }
        Event::Restored { target, revision } => format!(
            "{} has its settings from before, at revision {revision}.",
            capital(&nth(*target))
        ),
        Event::RolledBack => "The settings are what they were before.".to_owned(),
        Event::RollbackFailed { failure } => format!(
            "The settings from before could not be restored: {}",
            failure.message
        ),
        Event::Failed { failure } => format!("It failed: {}", failure.message),
    }
}

fn started(who: &str, spec: &WorkflowSpec) -> String {
    let instance = &spec.instance_id;
    match spec.kind {
        WorkflowKind::Optimization => format!("{who} started an optimization of {instance}."),
        WorkflowKind::Analysis => format!("{who} started an analysis of {instance}."),
        WorkflowKind::ConfigChange => {
            let settings = counted(spec.changes.len(), "setting");
            format!("{who} started a change of {settings} of {instance}.")
        }
        WorkflowKind::Restore => format!(
            "{who} started a restore of {instance} from snapshot {}.",
            spec.snapshot_id.as_deref().unwrap_or_default()
        ),
    }
}

fn planned(plan: &Plan) -> String {
    let draft = &plan.draft;
    let on = match draft.targets.len() {
        0 => String::new(),
        targets => format!(" on {}", counted(targets, "target")),
    };
    let restart = match draft.needs_restart && !draft.targets.is_empty() {
        true => ", with a restart",
        false => "",
    };
    let changes = counted(draft.changes.len(), "setting");
    format!("Plan: {} ({changes}{on}{restart}.)", draft.headline)
}

fn observed(of: &Observation) -> String {
    let [canary, control] = of.traffic.requests;
    let replicas = |count: u32| counted(usize::try_from(count).unwrap_or(usize::MAX), "replica");
    format!(
        "{} with the change observed beside {}: {canary:.0} and {control:.0} requests.",
        capital(&replicas(of.canary_replicas)),
        replicas(of.control_replicas),
    )
}

/// A target by its place: names are in the plan.
fn nth(target: u32) -> String {
    format!("target {target}")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// With what somebody said.
fn noted(sentence: &str, note: &str) -> String {
    match note {
        "" => sentence.to_owned(),
        note => format!("{sentence} “{note}”"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::optimization::PredictedQuantity;
    use crate::workflow::MeasuredEffects;
    use crate::workflow::{Approval, Failure, MeasuredEffect, PauseReason, RollbackCause};

    fn told(of: Event) -> pb::WorkflowEvent {
        event(&RecordedEvent {
            workflow_id: "0198".to_owned(),
            instance_id: "vllm-1".to_owned(),
            revision: 7,
            sequence: 3,
            at_us: 1_790_000_000_000_000,
            actor: "alice".to_owned(),
            event: of,
        })
    }

    #[test]
    fn each_event_says_what_happened_and_carries_what_is_its_own() {
        let written = told(Event::Written {
            target: 1,
            revision: "8".to_owned(),
        });
        assert_eq!(
            written.message,
            "Target 1 has its new settings, at revision 8."
        );
        assert_eq!(
            (written.target, written.settings_revision.as_str()),
            (Some(1), "8")
        );
        assert_eq!(
            (written.revision, written.sequence, written.r#type.as_str()),
            (7, 3, "written")
        );
        let intended = told(Event::WriteIntended {
            target: 0,
            operation_id: "0198.1".to_owned(),
            epoch: 5,
            baseline: None,
        });
        assert_eq!(
            intended.message,
            "The settings of target 0 are about to be written."
        );
        assert_eq!(
            (intended.operation_id.as_str(), intended.epoch),
            ("0198.1", 5)
        );
        let approved = told(Event::Approved {
            approval: Some(Approval {
                principal: "alice".to_owned(),
                at_us: 0,
                note: "Fine.".to_owned(),
            }),
        });
        assert_eq!(approved.message, "alice approved the plan. “Fine.”");
        let failed = told(Event::RollbackFailed {
            failure: Failure {
                reason: "ACTUATOR_FAILED".to_owned(),
                message: "The program is gone.".to_owned(),
                hint: "Put it back.".to_owned(),
            },
        });
        assert_eq!(failed.failure.unwrap().hint, "Put it back.");
        assert!(failed.message.ends_with("restored: The program is gone."));
        let paused = told(Event::Paused {
            reason: PauseReason::Drift,
            message: "Somebody changed target 0.".to_owned(),
            target: Some(0),
            digest: Some("00".to_owned()),
        });
        assert_eq!(paused.pause_reason(), pb::WorkflowPauseReason::Drift);
        assert_eq!(paused.target, Some(0));
        let again = told(Event::RollbackStarted {
            attempt: 2,
            cause: RollbackCause::Requested,
            overwrites: true,
            message: "alice rolls it back.".to_owned(),
            failure: None,
        });
        assert!(
            again.message.contains("attempt 2: alice"),
            "{}",
            again.message
        );
    }

    #[test]
    fn what_came_of_a_change_is_told_with_its_numbers() {
        let effects = MeasuredEffects {
            before_start_unix_seconds: 0.0,
            before_end_unix_seconds: 60.0,
            after_start_unix_seconds: 90.0,
            after_end_unix_seconds: 150.0,
            quantities: vec![MeasuredEffect {
                quantity: PredictedQuantity::TimeToFirstTokenMean,
                before: 4.0,
                after: 1.2,
                ratio: 0.3,
                predicted: None,
            }],
            headline: "Healthy.".to_owned(),
        };
        let told = told(Event::Completed {
            effects: Some(Box::new(effects)),
        });
        assert_eq!(
            told.message,
            "The change is in force: mean TTFT 4.0 s → 1.2 s."
        );
        assert_eq!(told.effects.unwrap().quantities.len(), 1);
    }

    #[test]
    fn counts_are_in_words_that_fit() {
        assert_eq!(counted(1, "setting"), "1 setting");
        assert_eq!(counted(0, "target"), "0 targets");
    }
}
