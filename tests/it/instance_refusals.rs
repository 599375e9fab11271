//! Every refusal that has to do with instances and the store.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use perfagent::agent::Reason;
use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use perfagent::instance::{Instance, InstanceSpec};
use perfagent::optimization::LedgerEntry;
use perfagent::store::{
    Advance, Beat, Change, Claim, Claimed, Committed, DeliverNow, DeliveryFilter, EventFilter,
    EventsPage, Judge, Lease, NewWorkflow, Once, PredictionFilter, PredictionPlace, Snapshot,
    Store, StoreError, TransferError, TransferStore, Transferred, WebhookCounts, WebhookStore,
    WorkflowFilter, WorkflowStore, Written,
};
use perfagent::webhook::{
    Attempt, ConfiguredWebhook, Delivery, DisabledReason, Secret, Webhook, WebhookSpec,
};
use perfagent::workflow::Workflow;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::errors::Seen;
use crate::fake::{TestAgent, request};
use crate::instances::{
    NOWHERE, REQUEST_ID, configured, delete, millis, register, registration, update,
};

/// Provokes every refusal that has to do with instances and the store.
pub async fn every_refusal(seen: &Seen) {
    let agent =
        TestAgent::with(|config| config.instances = vec![configured("file", NOWHERE)]).await;
    let mut client = agent.instances().await;
    let check = |status: Status, code, reason| seen.check(&status, code, reason);
    let wrong = pb::RegisterInstanceRequest {
        request_id: "7".to_owned(),
        instance_id: "A".to_owned(),
        instance_type: "vlm".to_owned(),
        scrape_interval: Some(millis(1)),
        labels: (0..33)
            .map(|at| (format!("l{at}"), String::new()))
            .collect(),
        ..pb::RegisterInstanceRequest::default()
    };
    let status = client.register_instance(wrong).await.unwrap_err();
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    let all = [
        "instance_id",
        "instance_type",
        "metrics_url",
        "scrape_interval",
        "labels",
        "request_id",
    ];
    assert_eq!(fields, all);
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let mut negative = registration("a", NOWHERE);
    negative.window = Some(millis(-1));
    let status = client.register_instance(negative).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let metadata = registration("a", "http://169.254.169.254/latest");
    let status = client.register_instance(metadata).await.unwrap_err();
    check(status, Code::PermissionDenied, Reason::UrlRefused);

    let registered = register(&agent, "a").await;
    for id in ["a", "file"] {
        let status = client
            .register_instance(registration(id, NOWHERE))
            .await
            .unwrap_err();
        check(status, Code::AlreadyExists, Reason::InstanceExists);
    }
    for id in ["b", ""] {
        let get = pb::GetInstanceRequest {
            instance_id: id.to_owned(),
        };
        let status = client.get_instance(get).await.unwrap_err();
        check(status, Code::NotFound, Reason::InstanceNotFound);
    }
    let status = agent
        .metrics()
        .await
        .collect_metrics(request("", &[], 0))
        .await
        .unwrap_err();
    check(status, Code::NotFound, Reason::InstanceNotFound);
    let status = client.delete_instance(delete("b", "")).await.unwrap_err();
    check(status, Code::NotFound, Reason::InstanceNotFound);
    let status = client
        .delete_instance(delete("file", ""))
        .await
        .unwrap_err();
    check(status, Code::FailedPrecondition, Reason::ReadOnlyInstance);
    let status = client
        .delete_instance(delete("a", "r999"))
        .await
        .unwrap_err();
    check(status, Code::Aborted, Reason::EtagMismatch);
    let status = client.delete_instance(delete("a", "7")).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let status = client
        .update_instance(update(registered.clone(), &["etag"]))
        .await
        .unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let nothing = pb::UpdateInstanceRequest::default();
    let status = client.update_instance(nothing).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    // what it would become is checked, not only what changes
    let mut longer = registered.clone();
    longer.scrape_interval = Some(millis(100_000));
    let status = client
        .update_instance(update(longer, &["scrape_interval"]))
        .await
        .unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let mut once = registration("c", NOWHERE);
    once.request_id = REQUEST_ID.to_owned();
    client.register_instance(once.clone()).await.unwrap();
    once.instance_id = "d".to_owned();
    let status = client.register_instance(once).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::RequestIdReused);
    let token = pb::ListInstancesRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let status = client.list_instances(token).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);

    // registered a moment ago, and its first answer hangs
    let hanging = crate::fake::FakeEngine::start(|_, _| crate::fake::Answer::Hang).await;
    let mut slow = registration("slow", &hanging.url());
    slow.scrape_interval = Some(millis(60_000));
    slow.window = Some(millis(120_000));
    client.register_instance(slow).await.unwrap();
    let of_slow = pb::CollectMetricsRequest {
        instance_id: "slow".to_owned(),
        ..Default::default()
    };
    let status = agent
        .metrics()
        .await
        .collect_metrics(of_slow)
        .await
        .unwrap_err();
    check(status, Code::Unavailable, Reason::NotMeasuredYet);

    for (error, code, reason) in [
        (
            StoreError::Full("disk".to_owned()),
            Code::ResourceExhausted,
            Reason::StoreFull,
        ),
        (
            StoreError::Unavailable("disk".to_owned()),
            Code::Unavailable,
            Reason::StoreUnavailable,
        ),
        (
            StoreError::Unreadable("row".to_owned()),
            Code::DataLoss,
            Reason::StoreUnreadable,
        ),
    ] {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        let broken = TestAgent::over(&config, Arc::new(BrokenStore(error)), None).await;
        let status = broken
            .instances()
            .await
            .register_instance(registration("a", NOWHERE))
            .await
            .unwrap_err();
        check(status, code, reason);
        // reading goes on
        let listed = broken
            .instances()
            .await
            .list_instances(pb::ListInstancesRequest::default())
            .await;
        assert!(listed.unwrap().into_inner().instances.is_empty());
    }

    // registered when there was such an engine
    let state = tempfile::tempdir().unwrap();
    let store = perfagent::store::SqliteStore::open(state.path())
        .await
        .unwrap();
    let mut spec = configured("old", NOWHERE).spec();
    spec.instance_type = Some("gone".to_owned());
    store
        .create_instance(&spec, None, SystemTime::now())
        .await
        .unwrap();
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let later = TestAgent::over(&config, Arc::new(store), Some(state)).await;
    crate::watching::until_state(&later, "old", pb::InstanceState::Down).await;
    let of_old = pb::CollectMetricsRequest {
        instance_id: "old".to_owned(),
        ..Default::default()
    };
    let status = later
        .metrics()
        .await
        .collect_metrics(of_old)
        .await
        .unwrap_err();
    check(status, Code::FailedPrecondition, Reason::UnknownEngine);

    let full = TestAgent::with(|config| {
        config.instances = (0..5_000)
            .map(|at| configured(&format!("i-{at}"), NOWHERE))
            .collect();
        config.instances.iter_mut().for_each(|row| {
            row.scrape_interval = Some(std::time::Duration::from_secs(300));
            row.window = None;
        });
    })
    .await;
    let status = full
        .instances()
        .await
        .register_instance(registration("a", NOWHERE))
        .await
        .unwrap_err();
    check(status, Code::ResourceExhausted, Reason::TooManyInstances);
}

/// A store whose every write fails.
#[derive(Debug)]
pub struct BrokenStore(pub StoreError);

#[tonic::async_trait]
impl Store for BrokenStore {
    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        Ok(Vec::new())
    }

    async fn instances_revision(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn beat(&self, _: &str, _: Duration) -> Result<Beat, StoreError> {
        Err(self.0.clone())
    }

    async fn leave(&self, _: &str) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn answered(&self, _: &Once, _: SystemTime) -> Result<Option<Written>, StoreError> {
        Ok(None)
    }

    async fn create_instance(
        &self,
        _: &InstanceSpec,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn update_instance(
        &self,
        _: &str,
        _: Option<u64>,
        _: &Change<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn delete_instance(
        &self,
        _: &str,
        _: Option<u64>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn put_predictions(&self, _: &[LedgerEntry], _: &[String]) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn predictions(
        &self,
        _: &PredictionFilter,
        _: Option<&PredictionPlace>,
        _: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget_predictions(&self, _: SystemTime, _: u32) -> Result<(), StoreError> {
        Err(self.0.clone())
    }
}

#[tonic::async_trait]
impl TransferStore for BrokenStore {
    async fn export(&self, _: &mut (dyn Write + Send)) -> Result<Transferred, TransferError> {
        Err(self.0.clone().into())
    }

    async fn import(&self, _: &mut (dyn BufRead + Send)) -> Result<Transferred, TransferError> {
        Err(self.0.clone().into())
    }

    async fn rows(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        Ok(Vec::new())
    }
}

#[tonic::async_trait]
impl WorkflowStore for BrokenStore {
    async fn start_workflow(
        &self,
        _: &NewWorkflow<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Committed, StoreError> {
        Err(self.0.clone())
    }

    async fn advance_workflow(
        &self,
        _: &Advance<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Committed, StoreError> {
        Err(self.0.clone())
    }

    async fn answered_workflow(
        &self,
        _: &Once,
        _: SystemTime,
    ) -> Result<Option<Workflow>, StoreError> {
        Ok(None)
    }

    async fn workflow(&self, _: &str) -> Result<Option<Workflow>, StoreError> {
        Ok(None)
    }

    async fn workflows(
        &self,
        _: &WorkflowFilter,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<Workflow>, StoreError> {
        Ok(Vec::new())
    }

    async fn idle_workflows(&self) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn unfinished_workflows(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn events(
        &self,
        after_revision: u64,
        _: &EventFilter,
        _: u32,
    ) -> Result<EventsPage, StoreError> {
        Ok(EventsPage {
            events: Vec::new(),
            read_to_revision: after_revision,
            more: false,
        })
    }

    async fn compact_events(&self, _: u64) -> Result<u64, StoreError> {
        Err(self.0.clone())
    }

    async fn revision_before(&self, _: SystemTime) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn acquire_lease(&self, _: &str, _: &str, _: Duration) -> Result<Lease, StoreError> {
        Err(self.0.clone())
    }

    async fn renew_lease(&self, _: &Lease, _: Duration) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn release_lease(&self, _: &Lease) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn put_snapshot(&self, _: &Snapshot) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn snapshot(&self, _: &str) -> Result<Option<Snapshot>, StoreError> {
        Ok(None)
    }

    async fn snapshots(
        &self,
        _: Option<&str>,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<Snapshot>, StoreError> {
        Ok(Vec::new())
    }
}

#[tonic::async_trait]
impl WebhookStore for BrokenStore {
    async fn create_webhook(
        &self,
        _: &WebhookSpec,
        _: &Secret,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Webhook, StoreError> {
        Err(self.0.clone())
    }

    async fn put_configured_webhooks(
        &self,
        _: &[ConfiguredWebhook],
        _: SystemTime,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        Ok(Vec::new())
    }

    async fn disable_webhook(
        &self,
        _: &str,
        _: Option<DisabledReason>,
        _: SystemTime,
    ) -> Result<Webhook, StoreError> {
        Err(self.0.clone())
    }

    async fn delete_webhook(&self, _: &str) -> Result<Webhook, StoreError> {
        Err(self.0.clone())
    }

    async fn rotate_webhook_secret(
        &self,
        _: &str,
        _: &Secret,
        _: SystemTime,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Webhook, StoreError> {
        Err(self.0.clone())
    }

    async fn webhook_secrets(&self, _: &str, _: SystemTime) -> Result<Vec<Secret>, StoreError> {
        Ok(Vec::new())
    }

    async fn answered_webhook(
        &self,
        _: &Once,
        _: SystemTime,
    ) -> Result<Option<Webhook>, StoreError> {
        Ok(None)
    }

    async fn put_deliveries(&self, _: &DeliverNow<'_>, _: SystemTime) -> Result<u32, StoreError> {
        Err(self.0.clone())
    }

    async fn next_delivery(&self) -> Result<Option<SystemTime>, StoreError> {
        Ok(None)
    }

    async fn claim_deliveries(&self, _: &Claim, _: SystemTime) -> Result<Vec<Claimed>, StoreError> {
        Err(self.0.clone())
    }

    async fn record_attempt(
        &self,
        _: &Claimed,
        _: &Attempt,
        _: &Judge<'_>,
        _: SystemTime,
    ) -> Result<(Delivery, Webhook), StoreError> {
        Err(self.0.clone())
    }

    async fn deliveries(
        &self,
        _: &DeliveryFilter,
        _: Option<u64>,
        _: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        Ok(Vec::new())
    }

    async fn delivery(&self, id: &str) -> Result<(Delivery, Vec<Attempt>), StoreError> {
        Err(StoreError::NoDelivery(id.to_owned()))
    }

    async fn redeliver(&self, _: &str, _: SystemTime) -> Result<Delivery, StoreError> {
        Err(self.0.clone())
    }

    async fn forget_deliveries(&self, _: SystemTime, _: u32) -> Result<u64, StoreError> {
        Err(self.0.clone())
    }

    async fn webhook_counts(&self) -> Result<WebhookCounts, StoreError> {
        Ok(WebhookCounts::default())
    }
}
