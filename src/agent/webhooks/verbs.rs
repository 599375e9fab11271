//! What callers can do with webhooks.

use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use super::Webhooks;
use crate::agent::instances::{once, request_id_violation};
use crate::agent::{Agent, Caller, Error};
use crate::store::{DeliveryFilter, StoreError, micros};
use crate::webhook::{
    Attempt, Delivery, DisabledReason, OLD_SECRET_KEPT, SECRET_BYTES, Secret, Webhook,
    WebhookSource, WebhookSpec, test_body,
};

/// A webhook that was created, or has a new secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// Its secret, which is shown this once.
    pub secret: Secret,
}

/// A part of the list of deliveries.
#[derive(Debug, Clone)]
pub struct DeliveriesPage {
    /// Deliveries, the newest first.
    pub deliveries: Vec<Delivery>,
    /// There are more.
    pub more: bool,
}

/// Most deliveries of a page.
const MAX_PAGE: u32 = 500;

impl Agent {
    /// Creates a webhook. Without a secret of the caller's it gets one that nobody has seen. A repeat of the same request
    /// answers as before.
    ///
    /// # Errors
    /// A spec that is wrong, a URL that deliveries may not go to, an id that is taken, too many webhooks, the store.
    pub async fn create_webhook(
        self: &Arc<Self>,
        caller: &Caller,
        spec: WebhookSpec,
        secret: Option<Secret>,
        request_id: &str,
    ) -> Result<NewWebhook, Error> {
        let mut wrong = spec.violations();
        wrong.extend(request_id_violation(request_id));
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        let hooks = self.webhooks()?;
        let allowed = hooks.policy.urls.check(&spec.url);
        allowed.map_err(Error::WebhookUrlRefused)?;
        let once = once(caller, "CreateWebhook", request_id, &(&spec, &secret));
        let secret = given_or_new(secret)?;
        let now = SystemTime::now();
        let store = &hooks.store;
        let webhook = store
            .create_webhook(&spec, &secret, once.as_ref(), now)
            .await?;
        self.with_secret(webhook).await
    }

    /// Gives a webhook a new secret; the one before is signed with beside it for a day.
    ///
    /// # Errors
    /// A webhook that there is not, one of the config file, the store.
    pub async fn rotate_webhook_secret(
        self: &Arc<Self>,
        caller: &Caller,
        webhook_id: &str,
        secret: Option<Secret>,
        request_id: &str,
    ) -> Result<NewWebhook, Error> {
        if let Some(wrong) = request_id_violation(request_id) {
            return Err(Error::Invalid(vec![wrong]));
        }
        self.created_webhook(webhook_id).await?;
        let asked = (webhook_id, &secret);
        let once = once(caller, "RotateWebhookSecret", request_id, &asked);
        let secret = given_or_new(secret)?;
        let now = SystemTime::now();
        let (store, until) = (&self.webhooks()?.store, now + OLD_SECRET_KEPT);
        let rotated = store
            .rotate_webhook_secret(webhook_id, &secret, until, once.as_ref(), now)
            .await?;
        self.with_secret(rotated).await
    }

    /// The webhook with its newest secret, which is not always the one that was made just now: a request may be a repeat.
    async fn with_secret(&self, webhook: Webhook) -> Result<NewWebhook, Error> {
        let store = &self.webhooks()?.store;
        let secrets = store
            .webhook_secrets(webhook.id(), SystemTime::now())
            .await?;
        let newest = secrets.into_iter().next();
        let secret = newest.ok_or_else(|| StoreError::NoWebhook(webhook.id().to_owned()))?;
        Ok(NewWebhook { webhook, secret })
    }

    /// A webhook.
    ///
    /// # Errors
    /// A webhook that there is not, the store.
    pub async fn webhook(&self, webhook_id: &str) -> Result<Webhook, Error> {
        let mut all = self.all_webhooks().await?.into_iter();
        let found = all.find(|webhook| webhook.id() == webhook_id);
        Ok(found.ok_or_else(|| StoreError::NoWebhook(webhook_id.to_owned()))?)
    }

    /// All webhooks, by id; they are few.
    ///
    /// # Errors
    /// The store.
    pub async fn all_webhooks(&self) -> Result<Vec<Webhook>, Error> {
        Ok(self.webhooks()?.store.webhooks().await?)
    }

    /// Has a webhook be told again, at once of what it is owed.
    ///
    /// # Errors
    /// A webhook that there is not, one that the config file disables, the store.
    pub async fn enable_webhook(&self, webhook_id: &str) -> Result<Webhook, Error> {
        let known = self.webhook(webhook_id).await?;
        let by_file = |webhook: &Webhook| {
            let reason = webhook.disabled.map(|disabled| disabled.reason);
            reason == Some(DisabledReason::Configured)
        };
        if by_file(&known) {
            return Err(Error::ReadOnlyWebhook(webhook_id.to_owned()));
        }
        let hooks = self.webhooks()?;
        let now = SystemTime::now();
        let webhook = hooks.store.disable_webhook(webhook_id, None, now).await?;
        hooks.wake();
        Ok(webhook)
    }

    /// Has a webhook be told nothing more. What it is owed is kept.
    ///
    /// # Errors
    /// A webhook that there is not, one of the config file, the store.
    pub async fn disable_webhook(&self, webhook_id: &str) -> Result<Webhook, Error> {
        self.created_webhook(webhook_id).await?;
        let (hooks, reason) = (self.webhooks()?, Some(DisabledReason::Requested));
        let now = SystemTime::now();
        Ok(hooks.store.disable_webhook(webhook_id, reason, now).await?)
    }

    /// Forgets a webhook with what it is owed.
    ///
    /// # Errors
    /// A webhook that there is not, one of the config file, the store.
    pub async fn delete_webhook(&self, webhook_id: &str) -> Result<(), Error> {
        self.created_webhook(webhook_id).await?;
        self.webhooks()?.store.delete_webhook(webhook_id).await?;
        Ok(())
    }

    /// Deliveries, the newest first, from before this place on.
    ///
    /// # Errors
    /// The store.
    pub async fn webhook_deliveries(
        &self,
        filter: &DeliveryFilter,
        before: Option<u64>,
        size: u32,
    ) -> Result<DeliveriesPage, Error> {
        let store = &self.webhooks()?.store;
        let size = size.clamp(1, MAX_PAGE);
        let mut deliveries = store.deliveries(filter, before, size + 1).await?;
        let more = deliveries.len() > size as usize;
        deliveries.truncate(size as usize);
        Ok(DeliveriesPage { deliveries, more })
    }

    /// A delivery with its attempts.
    ///
    /// # Errors
    /// A delivery that there is not, the store.
    pub async fn webhook_delivery(
        &self,
        delivery_id: &str,
    ) -> Result<(Delivery, Vec<Attempt>), Error> {
        Ok(self.webhooks()?.store.delivery(delivery_id).await?)
    }

    /// Has a delivery tried again from the beginning of the schedule.
    ///
    /// # Errors
    /// A delivery that there is not, a webhook that is disabled, the store.
    pub async fn redeliver(&self, delivery_id: &str) -> Result<Delivery, Error> {
        let (delivery, _) = self.webhook_delivery(delivery_id).await?;
        let webhook = self.webhook(&delivery.what.webhook_id).await?;
        if webhook.disabled.is_some() {
            return Err(Error::WebhookDisabled(webhook.id().to_owned()));
        }
        let hooks = self.webhooks()?;
        let delivery = hooks
            .store
            .redeliver(delivery_id, SystemTime::now())
            .await?;
        hooks.wake();
        Ok(delivery)
    }

    /// Posts a signed ping to a webhook, once and at once, whether or not it is disabled; nothing of it is kept.
    ///
    /// # Errors
    /// A webhook that there is not, an agent that delivers nothing, the store.
    pub async fn test_webhook(&self, webhook_id: &str) -> Result<Attempt, Error> {
        let webhook = self.webhook(webhook_id).await?;
        let hooks = self.webhooks()?;
        let transport = hooks.transport.get().ok_or(Error::NoStore)?;
        let now = SystemTime::now();
        let stored = hooks.store.webhook_secrets(webhook_id, now).await?;
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let body = test_body(webhook_id, micros(now));
        Ok(hooks
            .post(&**transport, &webhook, (&id, &body), (stored, 1))
            .await)
    }

    fn webhooks(&self) -> Result<&Arc<Webhooks>, Error> {
        self.webhooks.as_ref().ok_or(Error::NoStore)
    }

    /// One that is changed by calls.
    async fn created_webhook(&self, webhook_id: &str) -> Result<Webhook, Error> {
        let webhook = self.webhook(webhook_id).await?;
        match webhook.source {
            WebhookSource::Created => Ok(webhook),
            WebhookSource::ConfigFile => Err(Error::ReadOnlyWebhook(webhook_id.to_owned())),
        }
    }
}

fn given_or_new(given: Option<Secret>) -> Result<Secret, Error> {
    if let Some(secret) = given {
        return Ok(secret);
    }
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| StoreError::Unavailable("the system gives no random numbers".to_owned()))?;
    Ok(Secret::of(&bytes))
}
