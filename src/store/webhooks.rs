//! Durable state of webhooks: who is told, what they are owed, and what came of each attempt.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Once, StoreError};
use crate::webhook::{
    Attempt, ConfiguredWebhook, Delivery, DeliveryState, DisabledReason, Judgement, NewDelivery,
    Secret, Webhook, WebhookSpec,
};

/// Durable state of webhooks.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Creates a webhook. A repeated request is answered with the webhook as it was created.
    ///
    /// # Errors
    /// [`StoreError::WebhookExists`], [`StoreError::TooManyWebhooks`], a repeated request that differs, a store that cannot
    /// be written.
    async fn create_webhook(
        &self,
        spec: &WebhookSpec,
        secret: &Secret,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError>;

    /// Makes the webhooks of the config file those of the store: new ones are added, changed ones changed and told again if
    /// they were disabled by themselves, others of the config file forgotten with what they were owed. A webhook that was
    /// created and has the id of one of the file becomes that one.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn put_configured_webhooks(
        &self,
        configured: &[ConfiguredWebhook],
        now: SystemTime,
    ) -> Result<(), StoreError>;

    /// All webhooks, by id.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError>;

    /// Has a webhook be told again, at once of what it is owed; or, with a reason, of nothing more. What it is owed is kept.
    ///
    /// # Errors
    /// [`StoreError::NoWebhook`], a store that cannot be written.
    async fn disable_webhook(
        &self,
        webhook_id: &str,
        reason: Option<DisabledReason>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError>;

    /// Forgets a webhook with what it is owed, and answers with what it was.
    ///
    /// # Errors
    /// [`StoreError::NoWebhook`], a store that cannot be written.
    async fn delete_webhook(&self, webhook_id: &str) -> Result<Webhook, StoreError>;

    /// Gives a webhook a new secret; those before are signed with until `old_until` at the latest.
    ///
    /// # Errors
    /// [`StoreError::NoWebhook`], a repeated request that differs, a store that cannot be written.
    async fn rotate_webhook_secret(
        &self,
        webhook_id: &str,
        secret: &Secret,
        old_until: SystemTime,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError>;

    /// Secrets that a webhook's deliveries are signed with at this time, the newest first. None of one of the config file.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn webhook_secrets(
        &self,
        webhook_id: &str,
        now: SystemTime,
    ) -> Result<Vec<Secret>, StoreError>;

    /// What a request about a webhook was answered, if it was carried out before.
    ///
    /// # Errors
    /// A repeated request that differs, a store that cannot be read.
    async fn answered_webhook(
        &self,
        once: &Once,
        now: SystemTime,
    ) -> Result<Option<Webhook>, StoreError>;

    /// Adds deliveries that no event of a workflow causes, as `deliver` makes them for the webhooks that there are. Those
    /// that are there already are left as they are. Says how many are new.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn put_deliveries(
        &self,
        deliver: &DeliverNow<'_>,
        now: SystemTime,
    ) -> Result<u32, StoreError>;

    /// When the next delivery is due, however long ago; none where nothing is to be delivered.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn next_delivery(&self) -> Result<Option<SystemTime>, StoreError>;

    /// Takes deliveries that are due, for a time in which nobody else gets them. Of each order only the first that is
    /// pending; those that are due longest first.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn claim_deliveries(
        &self,
        claim: &Claim,
        now: SystemTime,
    ) -> Result<Vec<Claimed>, StoreError>;

    /// Writes down what came of an attempt, and what `judge` makes of it for the delivery and its webhook as they are now.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] where it was claimed again since, has ended or is gone; a store that cannot be written.
    async fn record_attempt(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        judge: &Judge<'_>,
        now: SystemTime,
    ) -> Result<(Delivery, Webhook), StoreError>;

    /// At most so many deliveries, the newest first, from before this place on.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        before: Option<u64>,
        size: u32,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// A delivery with its attempts, the first first: the last of them, where there were many.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`], a store that cannot be read.
    async fn delivery(&self, delivery_id: &str) -> Result<(Delivery, Vec<Attempt>), StoreError>;

    /// Has a delivery tried again from the beginning of the schedule: at once, or when those before it of its order have
    /// ended.
    ///
    /// # Errors
    /// [`StoreError::NoDelivery`], a store that cannot be written.
    async fn redeliver(&self, delivery_id: &str, now: SystemTime) -> Result<Delivery, StoreError>;

    /// Forgets deliveries that ended before a time, those that a disabled webhook was owed since then, and the oldest of
    /// those that have ended where there are more than `most` in all. Says how many.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn forget_deliveries(&self, before: SystemTime, most: u32) -> Result<u64, StoreError>;

    /// How many deliveries are pending, and how many webhooks are disabled.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn webhook_counts(&self) -> Result<WebhookCounts, StoreError>;
}

/// Makes deliveries for the webhooks that there are.
pub type DeliverNow<'d> = dyn Fn(&[Webhook]) -> Vec<NewDelivery> + Send + Sync + 'd;

/// Says what follows from an attempt, for a webhook as it is and after so many tries, with this one.
pub type Judge<'j> = dyn Fn(&Webhook, u32) -> Judgement + Send + Sync + 'j;

/// How deliveries are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// For how long nobody else gets them.
    pub time: Duration,
    /// How many at most.
    pub size: u32,
    /// How many of one webhook, with those that are taken already.
    pub per_webhook: u32,
}

/// A delivery that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What is to be delivered.
    pub delivery: Delivery,
    /// To whom.
    pub webhook: Webhook,
    /// What it is signed with, the newest first. None of a webhook of the config file.
    pub secrets: Vec<Secret>,
    /// Which claim of it this is.
    pub epoch: u64,
}

/// Which deliveries are asked for; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// To this webhook.
    pub webhook_id: Option<String>,
    /// Of this workflow.
    pub workflow_id: Option<String>,
    /// Of this instance.
    pub instance_id: Option<String>,
    /// In this state.
    pub state: Option<DeliveryState>,
}

/// How many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookCounts {
    /// Deliveries that have not ended.
    pub pending: u64,
    /// Webhooks that are told nothing.
    pub disabled: u64,
}
