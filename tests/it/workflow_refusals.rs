//! Every refusal that has to do with workflows.

use std::sync::Arc;
use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::auth::Role;
use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use perfagent::store::StoreError;
use perfagent::workflow::{Event, Failure, GatePolicy, RollbackCause, WorkflowKind};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::access::with_token;
use crate::broken_store::BrokenStore;
use crate::errors::{Seen, hint};
use crate::fake::TestAgent;
use crate::instances::{NOWHERE, register, registration};
use crate::pki::Files;
use crate::workflows::{
    ETAG, analysed, approval, cancelled, over, pending, planned, seed, spec, store,
};

/// Provokes every refusal that has to do with workflows.
pub async fn every_refusal(seen: &Seen) {
    requests(seen).await;
    verbs(seen).await;
    approvers(seen).await;
    actuators(seen).await;
    watches(seen).await;
}

fn start(instance_id: &str, workflow_type: &str) -> pb::StartWorkflowRequest {
    pb::StartWorkflowRequest {
        instance_id: instance_id.to_owned(),
        workflow_type: workflow_type.to_owned(),
        ..pb::StartWorkflowRequest::default()
    }
}

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|one| one.field).collect()
}

/// The metadata of the error's reason.
fn told(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).cloned().unwrap_or_default()
}

async fn requests(seen: &Seen) {
    let agent = TestAgent::start().await;
    let mut client = agent.workflows().await;
    let nobody = Uuid::now_v7().to_string();
    let get = |id: &str| pb::GetWorkflowRequest {
        workflow_id: id.to_owned(),
    };
    let status = client.get_workflow(get(&nobody)).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::WorkflowNotFound);
    assert!(hint(&status).contains("ListWorkflows"), "{status:?}");
    let status = client.get_workflow(get("7")).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert_eq!(fields(&status), ["workflow_id"]);
    let status = client.start_workflow(start("a", "")).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::InstanceNotFound);
    assert!(hint(&status).contains("RegisterInstance"), "{status:?}");

    register(&agent, "a").await;
    // read by the edge, and by the agent
    let status = client
        .start_workflow(start("a", "canary"))
        .await
        .unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert_eq!(fields(&status), ["workflow_type"]);
    let mut wrong = start("a", "config_change");
    wrong.snapshot_id = nobody.clone();
    wrong.note = "x".repeat(1_025);
    let status = client.start_workflow(wrong).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert_eq!(fields(&status), ["changes", "snapshot_id", "note"]);
    let typed = pb::RegisterInstanceRequest {
        instance_type: "vllm".to_owned(),
        ..registration("typed", NOWHERE)
    };
    let registered = agent.instances().await.register_instance(typed).await;
    registered.unwrap();
    let mut other = start("typed", "analysis");
    other.instance_type = "sglang".to_owned();
    let status = client.start_workflow(other).await.unwrap_err();
    assert_eq!(fields(&status), ["instance_type"]);
    let mut alone = start("a", "optimization");
    alone.auto_approve = true;
    let status = client.start_workflow(alone).await.unwrap_err();
    seen.check(
        &status,
        Code::FailedPrecondition,
        Reason::AutoApproveNotAllowed,
    );
    let mut shown = start("a", "analysis");
    shown.validate_only = true;
    shown.wait = Some(crate::instances::millis(1));
    let status = client.start_workflow(shown).await.unwrap_err();
    seen.check(&status, Code::Unavailable, Reason::NotPlanned);
    let mut given = start("a", "analysis");
    given.metrics_url = "http://127.0.0.1:2/metrics".to_owned();
    let status = client.start_workflow(given).await.unwrap_err();
    seen.check(&status, Code::AlreadyExists, Reason::InstanceExists);
    let mut refused = start("b", "analysis");
    refused.metrics_url = "http://169.254.169.254/metrics".to_owned();
    let status = client.start_workflow(refused).await.unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::UrlRefused);

    // nobody is there that could be measured, so it stays at its beginning
    let mut request = start("a", "optimization");
    request.request_id = Uuid::now_v7().to_string();
    let started = client.start_workflow(request.clone()).await.unwrap();
    let id = started.into_inner().workflow.unwrap().workflow_id;
    request.no_restart = true;
    let status = client.start_workflow(request).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::RequestIdReused);
    let status = client.start_workflow(start("a", "")).await.unwrap_err();
    seen.check(&status, Code::Aborted, Reason::InstanceLocked);
    let holder = status.get_details_resource_info().unwrap();
    assert_eq!(
        (holder.resource_type.as_str(), holder.resource_name.as_str()),
        ("perfagent.v1.Workflow", id.as_str())
    );
    let status = client.approve_workflow(approval(&id)).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::PlanNotReady);

    let broken = BrokenStore(StoreError::Moved(nobody));
    let config = {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.instances = vec![crate::instances::configured("file", NOWHERE)];
        config
    };
    let agent = TestAgent::over(&config, Arc::new(broken), None).await;
    let mut client = agent.workflows().await;
    let status = client
        .start_workflow(start("file", "analysis"))
        .await
        .unwrap_err();
    seen.check(&status, Code::Aborted, Reason::WorkflowMoved);
}

async fn verbs(seen: &Seen) {
    let (store, _state) = store().await;
    let waiting = pending(&*store, "a").await;
    let ended = seed(&*store, spec("b"), &[cancelled()]).await;
    let stuck = seed(&*store, spec("c"), &stuck()).await;
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let mut other = approval(&waiting);
    other.plan_etag = "another".to_owned();
    let status = client.approve_workflow(other).await.unwrap_err();
    seen.check(&status, Code::Aborted, Reason::PlanChanged);
    let undo = |id: &str| pb::RollbackWorkflowRequest {
        workflow_id: id.to_owned(),
        ..Default::default()
    };
    let status = client.rollback_workflow(undo(&waiting)).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::NothingApplied);
    let status = client.approve_workflow(approval(&ended)).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::WrongStatus);
    let violation = &status
        .get_details_precondition_failure()
        .unwrap()
        .violations[0];
    assert_eq!(violation.r#type, "WRONG_STATUS");
    assert!(violation.description.contains("CANCELLED"), "{violation:?}");
    assert_eq!(told(&status, "status"), "CANCELLED");
    let mut cancel = pb::CancelWorkflowRequest {
        workflow_id: stuck.clone(),
        ..Default::default()
    };
    let status = client.cancel_workflow(cancel.clone()).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::AcknowledgeNeeded);
    cancel.acknowledge = true;
    let freed = client.cancel_workflow(cancel).await.unwrap().into_inner();
    let freed = freed.workflow.unwrap();
    assert_eq!(freed.outcome(), pb::WorkflowOutcome::Abandoned);
    for note in ["x".repeat(1_025)] {
        let pause = pb::PauseWorkflowRequest {
            workflow_id: waiting.clone(),
            request_id: "7".to_owned(),
            note,
        };
        let status = client.pause_workflow(pause).await.unwrap_err();
        assert_eq!(fields(&status), ["request_id", "note"]);
    }
}

/// What leads to settings that could not be restored.
fn stuck() -> Vec<Event> {
    let failure = Failure {
        reason: "ACTUATOR_FAILED".to_owned(),
        message: "The program is gone.".to_owned(),
        hint: String::new(),
    };
    vec![
        analysed(),
        planned(&["one"]),
        Event::Approved { approval: None },
        Event::WriteIntended {
            target: 0,
            operation_id: "1".to_owned(),
            epoch: 1,
            baseline: None,
        },
        Event::RollbackStarted {
            attempt: 1,
            cause: RollbackCause::Failure,
            overwrites: false,
            message: "It failed.".to_owned(),
            failure: None,
        },
        Event::RollbackFailed { failure },
    ]
}

async fn approvers(seen: &Seen) {
    let files = Files::new();
    let alice = files.token("alice", Role::Approver);
    let operator = files.token("olaf", Role::Operator);
    let (store, _state) = store().await;
    let two = |approvers: &[&str]| GatePolicy {
        approvals: 2,
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        ..GatePolicy::default()
    };
    let mut ids = Vec::new();
    for (instance, gate) in [("a", two(&["bob", "carol"])), ("b", two(&[]))] {
        let of = perfagent::workflow::WorkflowSpec {
            gate,
            ..spec(instance)
        };
        ids.push(seed(&*store, of, &[analysed(), planned(&[])]).await);
    }
    let agent = over(&store, |config| files.with_credentials(config)).await;
    let mut client = agent.workflows().await;
    let asked = |id: &str| with_token(approval(id), alice.expose());
    let status = client.approve_workflow(asked(&ids[0])).await.unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::NotAnApprover);
    let given = client.approve_workflow(asked(&ids[1])).await.unwrap();
    let given = given.into_inner().workflow.unwrap();
    assert_eq!(given.approvals[0].principal, "alice");
    assert_eq!(given.status(), pb::WorkflowStatus::PendingApproval);
    let status = client.approve_workflow(asked(&ids[1])).await.unwrap_err();
    seen.check(&status, Code::AlreadyExists, Reason::ApprovedAlready);
    // who operates does not approve
    let request: Request<_> = with_token(approval(&ids[1]), operator.expose());
    let status = client.approve_workflow(request).await.unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::RoleNotAllowed);
    assert_eq!(given.plan.unwrap().etag, ETAG);
}

async fn actuators(seen: &Seen) {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("perfagent.toml");
    let text = "[[actuators]]\nname = \"gone\"\ntype = \"command\"\ncommand = [\"/bin/false\"]\n";
    std::fs::write(&file, text).unwrap();
    let loaded = Config::load(Some(&file), []).unwrap();
    let agent = TestAgent::with(|config| config.actuators = loaded.actuators).await;
    let mut instances = agent.instances().await;
    for (id, actuator) in [("a", ""), ("b", "gone")] {
        let registration = pb::RegisterInstanceRequest {
            actuator: actuator.to_owned(),
            ..registration(id, NOWHERE)
        };
        instances.register_instance(registration).await.unwrap();
    }
    let mut client = agent.workflows().await;
    let snapshot = |id: &str| pb::CreateConfigSnapshotRequest {
        instance_id: id.to_owned(),
        note: String::new(),
    };
    let status = client
        .create_config_snapshot(snapshot("a"))
        .await
        .unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::NoActuator);
    let status = client
        .create_config_snapshot(snapshot("b"))
        .await
        .unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::ActuatorFailed);
    let mut restore = start("b", WorkflowKind::Restore.as_str());
    restore.snapshot_id = Uuid::now_v7().to_string();
    let status = client.start_workflow(restore).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::SnapshotNotFound);
}

async fn watches(seen: &Seen) {
    let (store, _state) = store().await;
    let old = seed(&*store, spec("a"), &[cancelled()]).await;
    pending(&*store, "b").await;
    let gone = store.compact_events(2).await.unwrap();
    assert_eq!(gone, 2);
    // anything at all is too slow
    let agent = over(&store, |config| {
        config.server.stream_stall = Duration::from_nanos(1);
    })
    .await;
    let mut client = agent.workflows().await;
    let after = |after_revision| pb::WatchWorkflowsRequest {
        after_revision,
        ..pb::WatchWorkflowsRequest::default()
    };
    let status = client.watch_workflows(after(1)).await.unwrap_err();
    seen.check(&status, Code::OutOfRange, Reason::LogCompacted);
    assert_eq!(told(&status, "oldest_revision"), "2");
    assert!(hint(&status).contains("GetWorkflow"), "{status:?}");
    let whole = pb::WatchWorkflowRequest {
        workflow_id: old,
        ..pb::WatchWorkflowRequest::default()
    };
    let status = client.watch_workflow(whole).await.unwrap_err();
    seen.check(&status, Code::OutOfRange, Reason::LogCompacted);
    let page = pb::ListWorkflowEventsRequest {
        after_revision: 1,
        ..Default::default()
    };
    let status = client.list_workflow_events(page).await.unwrap_err();
    seen.check(&status, Code::OutOfRange, Reason::LogCompacted);
    let status = client.watch_workflows(after(99)).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert_eq!(fields(&status), ["after_revision"]);

    let mut watch = client.watch_workflows(after(2)).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.revision, 3);
    let status = watch.message().await.unwrap_err();
    seen.check(&status, Code::ResourceExhausted, Reason::WatcherTooSlow);
    assert_eq!(told(&status, "revision"), "3");
}
