use std::collections::BTreeMap;

use super::*;
use crate::optimization::{Effect, KnobChange, PredictedQuantity, example};
use crate::workflow::{Event, PlanDraft, RecordedEvent, Timeouts, WorkflowSpec, evolve};

#[test]
fn words_are_those_of_the_protos() {
    for one in Status::ALL {
        let word = format!("WORKFLOW_STATUS_{}", one.as_str());
        assert_eq!(status_of(*one).as_str_name(), word);
    }
    for one in Stage::ALL {
        let word = format!("WORKFLOW_STAGE_{}", one.as_str());
        assert_eq!(stage(*one).as_str_name(), word);
    }
    for one in Outcome::ALL {
        let word = format!("WORKFLOW_OUTCOME_{}", one.as_str());
        assert_eq!(outcome(*one).as_str_name(), word);
    }
    for one in PauseReason::ALL {
        let word = format!("WORKFLOW_PAUSE_REASON_{}", one.as_str());
        assert_eq!(pause_reason(*one).as_str_name(), word);
    }
    for one in WorkflowKind::ALL {
        let word = format!("WORKFLOW_TYPE_{}", one.as_str());
        assert_eq!(kind(*one).as_str_name(), word);
    }
}

fn spec() -> WorkflowSpec {
    WorkflowSpec {
        instance_id: "vllm-1".to_owned(),
        kind: WorkflowKind::ConfigChange,
        actuator: "host".to_owned(),
        changes: BTreeMap::new(),
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: false,
        auto_approve: false,
        gate: GatePolicy::default(),
        strategy: Strategy::InPlace,
        timeouts: Timeouts::default(),
        note: "A try.".to_owned(),
    }
}

fn after(events: Vec<Event>) -> Workflow {
    let mut state = None;
    for (sequence, event) in (1..).zip(events) {
        let recorded = RecordedEvent {
            workflow_id: "0198".to_owned(),
            instance_id: "vllm-1".to_owned(),
            revision: 10 + sequence,
            sequence,
            at_us: 1_790_000_000_123_456 + i64::try_from(sequence).unwrap(),
            actor: "alice".to_owned(),
            event,
        };
        state = Some(evolve(state, &recorded).unwrap());
    }
    state.unwrap()
}

fn analysis() -> Analysis {
    Analysis {
        headline: "Requests queue.".to_owned(),
        findings: vec![FindingSummary {
            cause: "SEQUENCE_CAP".to_owned(),
            severity: "HIGH".to_owned(),
            description: "Running at the cap of 4.".to_owned(),
        }],
        start_unix_seconds: 0.0,
        end_unix_seconds: 60.0,
        simulated: true,
        before: Vec::new(),
    }
}

fn planned() -> Plan {
    let ttft = (PredictedQuantity::TimeToFirstTokenMean, 4.0, 0.25);
    Plan {
        etag: "e7a9".to_owned(),
        draft: PlanDraft {
            headline: "max_num_seqs 4 → 32".to_owned(),
            optimizations: Vec::new(),
            chosen: None,
            changes: vec![KnobChange {
                name: "max_num_seqs".to_owned(),
                flag: "--max-num-seqs".to_owned(),
                from: Some("4".to_owned()),
                to: Some("32".to_owned()),
            }],
            effect: Effect::Predicted(example::prediction(&[ttft])),
            prediction_id: Some("0199".to_owned()),
            targets: vec![PlanTarget {
                name: "a".to_owned(),
                revision: "7".to_owned(),
                digest_before: "00".to_owned(),
                digest_after: "01".to_owned(),
                needs_restart: true,
                launch_args: vec!["--max-num-seqs".to_owned(), "32".to_owned()],
            }],
            snapshot_id: Some("0197".to_owned()),
            planned_snapshot_id: Some("0196".to_owned()),
            strategy: Strategy::InPlace,
            changes_answers: false,
            needs_restart: true,
            notes: vec!["The engine is restarted.".to_owned()],
        },
    }
}

#[test]
fn a_workflow_is_told_whole_or_without_what_takes_room() {
    let state = after(vec![
        Event::Started {
            spec: Box::new(spec()),
        },
        Event::Analysed {
            analysis: Box::new(analysis()),
        },
        Event::Planned {
            plan: Box::new(planned()),
        },
    ]);
    let told = workflow(&state, Extent::Whole);
    assert_eq!(told.status(), pb::WorkflowStatus::PendingApproval);
    assert_eq!(told.current_stage(), pb::WorkflowStage::Approval);
    assert_eq!(told.workflow_type(), pb::WorkflowType::ConfigChange);
    assert!(told.requires_approval && told.simulated && !told.done);
    assert!(
        (told.progress - 2.0 / 7.0).abs() < 1e-9,
        "{}",
        told.progress
    );
    assert_eq!(told.revision, 13);
    assert_eq!(told.create_time.unwrap().nanos, 123_457_000);
    assert_eq!(told.update_time.unwrap().nanos, 123_459_000);
    assert_eq!(told.findings[0].severity(), pb::Severity::High);
    let plan = told.plan.as_ref().unwrap();
    assert_eq!(
        (plan.etag.as_str(), plan.snapshot_id.as_str()),
        ("e7a9", "0197")
    );
    assert_eq!(plan.prediction.as_ref().unwrap().quantities[0].after, 1.0);
    assert_eq!(plan.changes[0].to_value.as_deref(), Some("32"));
    let waiting = told.waiting_for.as_ref().unwrap();
    assert_eq!(waiting.verbs, ["APPROVE", "REJECT", "CANCEL"]);
    assert!(waiting.until_time.is_some());
    assert_eq!(told.targets[0].state(), pb::WorkflowTargetState::Untouched);
    assert_eq!(
        told.gate.as_ref().unwrap().timeout.unwrap().seconds,
        604_800
    );
    let listed = workflow(&state, Extent::Listed);
    assert_eq!((listed.plan, listed.effects), (None, None));
    assert_eq!(listed.waiting_for, told.waiting_for);
}

#[test]
fn what_was_measured_stands_beside_what_was_predicted() {
    let of = |predicted| {
        measured(&MeasuredEffect {
            quantity: PredictedQuantity::TimeToFirstTokenMean,
            before: 4.0,
            after: 1.2,
            ratio: 0.3,
            predicted,
        })
    };
    let told = of(Some([0.25, 0.2, 0.4]));
    assert_eq!(
        (told.quantity.as_str(), told.statistic.as_str()),
        ("time_to_first_token_seconds", "mean")
    );
    assert_eq!(
        (
            told.predicted_ratio,
            told.predicted_ratio_low,
            told.predicted_ratio_high
        ),
        (Some(0.25), Some(0.2), Some(0.4))
    );
    assert_eq!(of(None).predicted_ratio, None);
}

#[test]
fn instants_before_1970_are_instants_too() {
    assert_eq!(
        instant(-1),
        Timestamp {
            seconds: -1,
            nanos: 999_999_000
        }
    );
    assert_eq!(
        instant(1_500_000),
        Timestamp {
            seconds: 1,
            nanos: 500_000_000
        }
    );
}

/// Settings may hold secrets.
#[test]
fn a_snapshot_shows_no_content() {
    let told = snapshot(&Snapshot {
        snapshot_id: "0197".to_owned(),
        instance_id: "vllm-1".to_owned(),
        actuator: "host".to_owned(),
        created_us: 0,
        created_by: "alice".to_owned(),
        workflow_id: None,
        note: String::new(),
        is_planned: false,
        targets: vec![SnapshotTarget {
            name: "a".to_owned(),
            revision: "7".to_owned(),
            digest: "00".to_owned(),
            launch_args: vec!["--api-key".to_owned(), "***".to_owned()],
            content: b"--api-key canary-secret".to_vec(),
        }],
    });
    assert!(!format!("{told:?}").contains("canary-secret"));
    assert_eq!(told.targets[0].launch_args, ["--api-key", "***"]);
}
