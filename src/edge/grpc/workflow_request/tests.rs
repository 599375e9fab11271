use super::*;

const ID: &str = "01980000-0000-7000-8000-000000000001";

fn start(change: impl FnOnce(&mut pb::StartWorkflowRequest)) -> pb::StartWorkflowRequest {
    let mut request = pb::StartWorkflowRequest {
        instance_id: "vllm-1".to_owned(),
        ..pb::StartWorkflowRequest::default()
    };
    change(&mut request);
    request
}

fn fields<T: std::fmt::Debug>(read: Result<T, Error>) -> Vec<String> {
    match read {
        Err(Error::Invalid(violations)) => violations.into_iter().map(|one| one.field).collect(),
        other => panic!("{other:?}"),
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn what_is_left_out_is_left_to_the_agent() {
    let asked = start_of(start(|_| {}), None).unwrap();
    assert_eq!(asked.start.kind, WorkflowKind::Optimization);
    assert_eq!(
        asked.start.instance,
        StartInstance::Known("vllm-1".to_owned())
    );
    assert_eq!(asked.start.gate, GateAsked::default());
    assert_eq!(asked.start.timeouts, TimeoutsAsked::default());
    assert_eq!(
        (asked.engine, asked.wait, asked.validate_only),
        (None, None, false)
    );
}

#[test]
fn types_are_read_in_any_case() {
    for (word, kind) in [
        ("config_change", WorkflowKind::ConfigChange),
        ("Analysis", WorkflowKind::Analysis),
        ("RESTORE", WorkflowKind::Restore),
    ] {
        let asked = start_of(start(|one| one.workflow_type = word.to_owned()), None).unwrap();
        assert_eq!(asked.start.kind, kind);
    }
    let wrong = start(|one| one.workflow_type = "canary".to_owned());
    assert_eq!(fields(start_of(wrong, None)), ["workflow_type"]);
}

#[test]
fn an_instance_with_a_url_is_given() {
    let given = start(|one| {
        one.metrics_url = "http://127.0.0.1:1/metrics".to_owned();
        one.instance_type = "vllm".to_owned();
    });
    let asked = start_of(given, None).unwrap();
    let StartInstance::Given(spec) = asked.start.instance else {
        panic!("known");
    };
    assert_eq!(spec.instance_type.as_deref(), Some("vllm"));
    assert_eq!(spec.actuator, None);
    assert_eq!(asked.engine, None);
    let known = start(|one| one.instance_type = "vllm".to_owned());
    assert_eq!(
        start_of(known, None).unwrap().engine.as_deref(),
        Some("vllm")
    );
}

#[test]
fn each_field_that_is_wrong_is_named() {
    let wrong = start(|one| {
        one.instance_id.clear();
        one.snapshot_id = "7".to_owned();
        one.strategy = 9;
        one.plan_timeout = seconds(-1);
        one.ready_timeout = seconds(-1);
        one.observe_timeout = seconds(-1);
        one.rollback_timeout = seconds(-1);
        one.wait = seconds(61);
        one.gate = Some(pb::WorkflowGate {
            timeout: seconds(-1),
            on_timeout: 9,
            kind: 9,
            ..pb::WorkflowGate::default()
        });
        let list = prost_types::value::Kind::ListValue(prost_types::ListValue::default());
        one.changes = Some(prost_types::Struct {
            fields: [("a".to_owned(), prost_types::Value { kind: Some(list) })].into(),
        });
    });
    assert_eq!(
        fields(start_of(wrong, None)),
        [
            "changes.a",
            "snapshot_id",
            "gate.kind",
            "gate.timeout",
            "gate.on_timeout",
            "strategy",
            "plan_timeout",
            "ready_timeout",
            "observe_timeout",
            "rollback_timeout",
            "wait",
            "instance_id",
        ]
    );
}

#[test]
fn nobody_waits_longer_than_the_call_lasts() {
    let deadline = |seconds| {
        let at = tokio::time::Instant::now() + Duration::from_secs(seconds);
        Some(Deadline(at))
    };
    assert_eq!(wait_of(None, deadline(1)), Ok(None));
    assert_eq!(wait_of(seconds(60), None), Ok(Some(MAX_WAIT)));
    assert_eq!(
        wait_of(seconds(5), deadline(60)),
        Ok(Some(Duration::from_secs(5)))
    );
    assert!(wait_of(seconds(5), deadline(4)).is_err());
    assert!(wait_of(seconds(-5), None).is_err());
}

#[test]
fn ids_have_one_spelling() {
    assert_eq!(workflow_id(ID.to_owned()).unwrap(), ID);
    for wrong in ["", "7", &ID.replace('-', ""), &format!("{{{ID}}}")] {
        assert_eq!(fields(workflow_id(wrong.to_owned())), ["workflow_id"]);
    }
}

#[test]
fn filters_are_read_whole() {
    let filter = filter_of(&pb::ListWorkflowsRequest {
        instance_id: "vllm-1".to_owned(),
        statuses: vec![1, 10],
        workflow_type: 4,
        ..pb::ListWorkflowsRequest::default()
    });
    let filter = filter.unwrap();
    assert_eq!(
        filter.statuses,
        [Status::PendingApproval, Status::RollbackFailed]
    );
    assert_eq!(filter.kind, Some(WorkflowKind::Analysis));
    let wrong = filter_of(&pb::ListWorkflowsRequest {
        instance_id: "x".repeat(64),
        statuses: vec![1, 0, 99],
        workflow_type: 9,
        ..pb::ListWorkflowsRequest::default()
    });
    assert_eq!(
        fields(wrong),
        ["instance_id", "statuses[1]", "statuses[2]", "workflow_type"]
    );
}
