//! Webhooks: what callers can do with them, and the task that delivers.
//!
//! ```text
//! transition, bottleneck → outbox in the store ┐
//! time, a free place ──────────────────────────┴→ claim → sign → post → record → next
//! ```
//!
//! What is owed stands in the store, so that memory holds what is being tried and no more.

mod bottlenecks;
mod clock;
mod sender;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod verbs;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::sharing::Sharing;
use crate::config::{Config, ConfigError, WebhookPolicy};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::webhook::{Answer, Secret, Signed, Webhook, WebhookSource};

use clock::{SystemClock, WebhookClock};

pub use verbs::{DeliveriesPage, NewWebhook};

/// Posts deliveries.
#[async_trait]
pub trait WebhookTransport: Send + Sync + Debug {
    /// Posts a signed body to a URL, once, and says what came of it. Ends within the time that deliveries have.
    async fn post(&self, url: &str, signed: &Signed) -> Answer;
}

/// What the agent keeps of webhooks beside the store.
#[derive(Debug)]
pub(super) struct Webhooks {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn WebhookClock>,
    policy: WebhookPolicy,
    /// Files with the secrets of those of the config file, by id.
    secret_files: BTreeMap<String, PathBuf>,
    /// None until an edge brings one: nothing is delivered before.
    transport: OnceLock<Arc<dyn WebhookTransport>>,
    /// Other agents on the store; unset where there can be none.
    sharing: OnceLock<Arc<Sharing>>,
    /// There is something to deliver.
    news: Notify,
    stop: CancellationToken,
}

/// Why a delivery cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the secret file of the webhook: {0}")]
struct NoSecret(String);

impl Webhooks {
    /// # Errors
    /// A configuration that cannot be used.
    pub(super) fn new(
        config: &Config,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, ConfigError> {
        let files = config.webhooks.iter().map(|entry| {
            let id = entry.webhook_id.clone();
            (id, entry.secret_file.clone())
        });
        Ok(Arc::new(Self {
            store,
            metrics,
            clock: Arc::new(SystemClock),
            policy: config.webhook_policy()?,
            secret_files: files.collect(),
            transport: OnceLock::new(),
            sharing: OnceLock::new(),
            news: Notify::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Whether this agent may deliver.
    fn may_act(&self) -> Result<(), StoreError> {
        let sharing = self.sharing.get();
        sharing.map_or(Ok(()), |sharing| sharing.clock_is_right())
    }

    /// There may be something to deliver.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// What a webhook's deliveries are signed with; `stored` is what the store has of it.
    async fn secrets(
        &self,
        webhook: &Webhook,
        stored: Vec<Secret>,
    ) -> Result<Vec<Secret>, NoSecret> {
        if webhook.source == WebhookSource::Created {
            return Ok(stored);
        }
        let file = self.secret_files.get(webhook.id());
        let file = file.ok_or_else(|| NoSecret("is not in the config file".to_owned()))?;
        // read each time, so that a new secret needs no restart
        let text = tokio::fs::read_to_string(file).await;
        let text = text.map_err(|error| NoSecret(error.to_string()))?;
        Secret::all_of(&text).map_err(|error| NoSecret(error.to_string()))
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Agent {
    /// How deliveries are made; none where there is nothing to deliver.
    pub fn webhook_policy(&self) -> Option<&WebhookPolicy> {
        self.webhooks.as_ref().map(|webhooks| &webhooks.policy)
    }

    /// Begins to deliver. A second transport is not taken.
    pub fn deliver_by(&self, transport: Arc<dyn WebhookTransport>) {
        if let Some(webhooks) = &self.webhooks
            && webhooks.transport.set(transport).is_ok()
        {
            let (stop, weak) = (webhooks.stop.clone(), Arc::downgrade(webhooks));
            tokio::spawn(sender::send(weak.clone(), stop.clone()));
            tokio::spawn(sender::forget_old(weak, stop));
        }
    }

    /// Begins to tell webhooks of what opens and is resolved on instances.
    pub(super) fn watch_for_webhooks(&self) {
        if let Some(webhooks) = &self.webhooks {
            let states = self.watch_as_it_is();
            self.fleet.has_own_watcher();
            let (stop, weak) = (webhooks.stop.clone(), Arc::downgrade(webhooks));
            if let Some(sharing) = &self.sharing {
                // only here is it set
                let _ = webhooks.sharing.set(sharing.clone());
            }
            let (fleet, sharing) = (self.fleet.clone(), self.sharing.clone());
            // who measures it tells it, unless times would be wrong
            let owns = move |id: &str| {
                let may = sharing
                    .as_ref()
                    .is_none_or(|sharing| sharing.clock_is_right().is_ok());
                may && fleet.is_ours(id)
            };
            tokio::spawn(bottlenecks::tell(weak, states, owns, stop));
        }
    }

    /// Ends the tasks of webhooks; what they had begun is begun again by the next agent.
    pub(super) fn stop_webhooks(&self) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.stop.cancel();
        }
    }

    /// Labels that an instance has now; none of one that is not watched.
    pub(super) fn labels_of(&self, instance_id: &str) -> BTreeMap<String, String> {
        let known = self.fleet.get(instance_id);
        known.map_or_else(BTreeMap::new, |state| state.instance.spec.labels.clone())
    }

    /// Tells who delivers that something was written.
    pub(super) fn has_to_deliver(&self, deliveries: u32) {
        if let Some(webhooks) = self.webhooks.as_ref().filter(|_| deliveries > 0) {
            webhooks.wake();
        }
    }
}
