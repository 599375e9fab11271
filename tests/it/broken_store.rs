//! A store that is broken.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime};

use perfagent::instance::{Instance, InstanceSpec};
use perfagent::optimization::LedgerEntry;
use perfagent::store::{
    Advance, Beat, Change, Claim, Claimed, Committed, DeliverNow, DeliveryFilter, EventFilter,
    EventsPage, Judge, Lease, NewWorkflow, Once, PredictionFilter, PredictionPlace, Says, Snapshot,
    Store, StoreError, TransferError, TransferStore, Transferred, WebhookCounts, WebhookStore,
    WorkflowFilter, WorkflowStore, Written,
};
use perfagent::webhook::{
    Attempt, ConfiguredWebhook, Delivery, DisabledReason, Secret, Webhook, WebhookSpec,
};
use perfagent::workflow::Workflow;

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

    async fn beat(&self, _: &Says<'_>) -> Result<Beat, StoreError> {
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

    async fn advance_predictions(&self, _: &[LedgerEntry]) -> Result<Vec<String>, StoreError> {
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

    async fn renew_leases(&self, _: &[Lease], _: Duration) -> Result<BTreeSet<String>, StoreError> {
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
