//! Workflows over the wire: verbs, lists, events, and logs that tests write themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use perfagent::optimization::Effect;
use perfagent::store::{Advance, NewWorkflow, SqliteStore, Store, StoreError};
use perfagent::workflow::{
    Analysis, Event, GatePolicy, Plan, PlanDraft, PlanTarget, RecordedEvent, Strategy, Timeouts,
    Workflow, WorkflowKind, WorkflowSpec, evolve,
};
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::fake::TestAgent;

/// Of an instance that a test workflow is said to be of.
pub fn spec(instance_id: &str) -> WorkflowSpec {
    WorkflowSpec {
        instance_id: instance_id.to_owned(),
        kind: WorkflowKind::Optimization,
        actuator: "none".to_owned(),
        changes: BTreeMap::new(),
        snapshot_id: None,
        optimization_id: None,
        no_restart: false,
        no_answer_change: false,
        auto_approve: false,
        gate: GatePolicy::default(),
        strategy: Strategy::InPlace,
        timeouts: Timeouts::default(),
        note: String::new(),
    }
}

pub fn analysed() -> Event {
    Event::Analysed {
        analysis: Box::new(Analysis {
            headline: "Requests queue at the cap of 4.".to_owned(),
            findings: Vec::new(),
            start_unix_seconds: 0.0,
            end_unix_seconds: 60.0,
            simulated: false,
            before: Vec::new(),
        }),
    }
}

/// A plan for these targets.
pub fn planned(targets: &[&str]) -> Event {
    let target = |name: &&str| PlanTarget {
        name: (*name).to_owned(),
        revision: "1".to_owned(),
        digest_before: "00".to_owned(),
        digest_after: "01".to_owned(),
        needs_restart: true,
        launch_args: Vec::new(),
    };
    Event::Planned {
        plan: Box::new(Plan {
            etag: ETAG.to_owned(),
            draft: PlanDraft {
                headline: "max_num_seqs 4 → 32".to_owned(),
                optimizations: Vec::new(),
                chosen: None,
                changes: Vec::new(),
                effect: Effect::NotPredictable("Nothing was measured.".to_owned()),
                prediction_id: None,
                targets: targets.iter().map(target).collect(),
                snapshot_id: None,
                planned_snapshot_id: None,
                strategy: Strategy::InPlace,
                changes_answers: false,
                needs_restart: true,
                notes: Vec::new(),
            },
        }),
    }
}

/// Of the plan of [`planned`].
pub const ETAG: &str = "e7a9";

/// Commits an event as the agent would.
pub async fn commit(store: &dyn Store, id: &str, instance_id: &str, event: &Event) -> Workflow {
    try_commit(store, id, instance_id, event).await.unwrap()
}

/// The same where the store may be too busy.
pub async fn try_commit(
    store: &dyn Store,
    id: &str,
    instance_id: &str,
    event: &Event,
) -> Result<Workflow, StoreError> {
    let next = |state: Option<Workflow>, recorded: &RecordedEvent| {
        evolve(state, recorded).map_err(|error| StoreError::Unreadable(error.to_string()))
    };
    let now = SystemTime::now();
    let before = store.workflow(id).await?;
    let committed = match before {
        None => {
            let start = NewWorkflow {
                workflow_id: id,
                instance_id,
                register: None,
                actor: "alice",
                event,
                begin: &|recorded| next(None, recorded),
                deliver: &|_, _, _| Vec::new(),
            };
            store.start_workflow(&start, None, now).await
        }
        Some(before) => {
            let advance = Advance {
                workflow_id: id,
                expect_sequence: before.sequence,
                epoch: None,
                actor: "alice",
                event,
                evolve: &|recorded| next(Some(before.clone()), recorded),
                snapshots: &[],
                deliver: &|_, _, _| Vec::new(),
            };
            store.advance_workflow(&advance, None, now).await
        }
    };
    Ok(committed?.workflow)
}

/// A workflow of this instance to which this has happened.
pub async fn seed(store: &dyn Store, spec: WorkflowSpec, events: &[Event]) -> String {
    let id = Uuid::now_v7().to_string();
    let instance_id = spec.instance_id.clone();
    let started = Event::Started {
        spec: Box::new(spec),
    };
    for event in std::iter::once(&started).chain(events) {
        commit(store, &id, &instance_id, event).await;
    }
    id
}

/// One that waits for an approval, and then has nothing that could carry it out.
pub async fn pending(store: &dyn Store, instance_id: &str) -> String {
    seed(store, spec(instance_id), &[analysed(), planned(&[])]).await
}

pub fn cancelled() -> Event {
    Event::Cancelled {
        abandons: false,
        note: String::new(),
    }
}

/// A store of its own.
pub async fn store() -> (Arc<dyn Store>, TempDir) {
    let state = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(state.path()).await.unwrap();
    (Arc::new(store), state)
}

/// An agent over a store.
pub async fn over(store: &Arc<dyn Store>, change: impl FnOnce(&mut Config)) -> TestAgent {
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.server.drain_timeout = Duration::from_secs(10);
    change(&mut config);
    TestAgent::over(&config, store.clone(), None).await
}

pub async fn get(agent: &TestAgent, id: &str) -> pb::Workflow {
    let request = pb::GetWorkflowRequest {
        workflow_id: id.to_owned(),
    };
    let answer = agent.workflows().await.get_workflow(request).await.unwrap();
    answer.into_inner().workflow.unwrap()
}

pub fn approval(id: &str) -> pb::ApproveWorkflowRequest {
    pb::ApproveWorkflowRequest {
        workflow_id: id.to_owned(),
        plan_etag: ETAG.to_owned(),
        ..pb::ApproveWorkflowRequest::default()
    }
}

pub async fn pause(agent: &TestAgent, id: &str) -> pb::Workflow {
    let request = pb::PauseWorkflowRequest {
        workflow_id: id.to_owned(),
        ..pb::PauseWorkflowRequest::default()
    };
    let answer = agent
        .workflows()
        .await
        .pause_workflow(request)
        .await
        .unwrap();
    answer.into_inner().workflow.unwrap()
}

pub async fn resume(agent: &TestAgent, id: &str) -> pb::Workflow {
    let request = pb::ResumeWorkflowRequest {
        workflow_id: id.to_owned(),
        ..pb::ResumeWorkflowRequest::default()
    };
    let answer = agent
        .workflows()
        .await
        .resume_workflow(request)
        .await
        .unwrap();
    answer.into_inner().workflow.unwrap()
}

pub async fn events(
    agent: &TestAgent,
    request: pb::ListWorkflowEventsRequest,
) -> pb::ListWorkflowEventsResponse {
    let answer = agent.workflows().await.list_workflow_events(request).await;
    answer.unwrap().into_inner()
}

#[tokio::test]
async fn a_workflow_goes_from_its_plan_to_its_end() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, |_| {}).await;
    let waiting = get(&agent, &id).await;
    assert_eq!(waiting.status(), pb::WorkflowStatus::PendingApproval);
    assert_eq!(waiting.current_stage(), pb::WorkflowStage::Approval);
    assert_eq!(waiting.plan.as_ref().unwrap().etag, ETAG);
    assert_eq!(waiting.waiting_for.unwrap().verbs[0], "APPROVE");
    assert_eq!(
        pause(&agent, &id).await.status(),
        pb::WorkflowStatus::Paused
    );
    let resumed = resume(&agent, &id).await;
    assert_eq!(resumed.status(), pb::WorkflowStatus::PendingApproval);
    assert_ne!(resumed.etag, waiting.etag);
    // a repeat of a request is answered as before
    let request = pb::ApproveWorkflowRequest {
        request_id: Uuid::now_v7().to_string(),
        note: "Fine.".to_owned(),
        ..approval(&id)
    };
    let mut client = agent.workflows().await;
    for _ in 0..2 {
        let answer = client.approve_workflow(request.clone()).await.unwrap();
        let ended = answer.into_inner().workflow.unwrap();
        assert_eq!(ended.status(), pb::WorkflowStatus::Completed);
        assert_eq!(ended.outcome(), pb::WorkflowOutcome::NotApplied);
        assert!(ended.done && ended.waiting_for.is_none());
        assert_eq!(ended.approvals[0].note, "Fine.");
        assert_eq!(ended.progress, 1.0);
    }
    let page = events(
        &agent,
        pb::ListWorkflowEventsRequest {
            workflow_id: id.clone(),
            ..Default::default()
        },
    )
    .await;
    let types: Vec<&str> = page.events.iter().map(|one| one.r#type.as_str()).collect();
    let expected = [
        "started", "analysed", "planned", "paused", "resumed", "approved",
    ];
    assert_eq!(types, expected);
    let revisions: Vec<u64> = page.events.iter().map(|one| one.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6]);
    assert_eq!((page.next_after_revision, page.more), (6, false));
    assert_eq!(page.events[5].actor, "anonymous");
    assert_eq!(
        page.events[5].message,
        "anonymous approved the plan. “Fine.”"
    );
    assert!(page.events[2].plan.is_some());
}

#[tokio::test]
async fn lists_are_the_newest_first_by_pages_and_filters() {
    let (store, _state) = store().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(pending(&*store, &format!("i{number}")).await);
    }
    let ended = seed(&*store, spec("a"), &[cancelled()]).await;
    let agent = over(&store, |_| {}).await;
    let mut client = agent.workflows().await;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListWorkflowsRequest {
            page_size: 4,
            page_token: token,
            ..pb::ListWorkflowsRequest::default()
        };
        let page = client.list_workflows(request).await.unwrap().into_inner();
        // what takes room is in GetWorkflow
        assert!(page.workflows.iter().all(|one| one.plan.is_none()));
        found.extend(page.workflows.into_iter().map(|one| one.workflow_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        assert_eq!(found.len(), 4);
    }
    let mut expected: Vec<String> = ids.iter().rev().cloned().collect();
    expected.insert(0, ended.clone());
    assert_eq!(found, expected);
    let listed = |filter: pb::ListWorkflowsRequest| {
        let mut client = client.clone();
        async move {
            let page = client.list_workflows(filter).await.unwrap().into_inner();
            let ids = page.workflows.into_iter().map(|one| one.workflow_id);
            ids.collect::<Vec<_>>()
        }
    };
    let by_status = pb::ListWorkflowsRequest {
        statuses: vec![pb::WorkflowStatus::Cancelled.into()],
        ..Default::default()
    };
    assert_eq!(listed(by_status).await, [ended]);
    let by_instance = pb::ListWorkflowsRequest {
        instance_id: "i3".to_owned(),
        workflow_type: pb::WorkflowType::Optimization.into(),
        ..Default::default()
    };
    assert_eq!(listed(by_instance).await, [ids[3].clone()]);
    let by_type = pb::ListWorkflowsRequest {
        workflow_type: pb::WorkflowType::Restore.into(),
        ..Default::default()
    };
    assert_eq!(listed(by_type).await, [""; 0]);
    let status = client
        .list_workflows(pb::ListWorkflowsRequest {
            page_token: "7".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "page_token");
}

#[tokio::test]
async fn the_log_is_waited_for() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, |_| {}).await;
    let log = |after_revision, seconds| pb::ListWorkflowEventsRequest {
        after_revision,
        wait: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    let at_once = events(&agent, log(0, 60)).await;
    assert_eq!(at_once.next_after_revision, 3);
    let (waited, paused) = tokio::join!(events(&agent, log(3, 60)), pause(&agent, &id));
    assert_eq!(waited.events[0].r#type, "paused");
    assert_eq!(waited.next_after_revision, paused.revision);
    let nothing = events(&agent, log(4, 0)).await;
    assert_eq!((nothing.events.len(), nothing.next_after_revision), (0, 4));
    // who waits is not waited for
    let mut client = agent.workflows().await;
    let before = calls(&agent).await;
    let waiting = client.list_workflow_events(log(4, 60));
    let stopping = async {
        // the server has the call by then
        while calls(&agent).await <= before {
            tokio::task::yield_now().await;
        }
        agent.handle.stop();
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "DRAINING");
}

/// Calls in flight.
async fn calls(agent: &TestAgent) -> u64 {
    let text = crate::http::get(agent, "/metrics", "localhost").await;
    let line = text
        .lines()
        .find(|line| line.starts_with("perfagent_calls_in_flight"));
    let count = line.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    count.unwrap()
}
