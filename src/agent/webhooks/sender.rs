//! The task that delivers: so many attempts at once, one of each order, the next when there is a place and something due.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{WebhookTransport, Webhooks};
use crate::store::{Claim, Claimed, StoreError, micros};
use crate::webhook::{
    Answer, Attempt, Delivery, DeliveryState, MAX_PROBLEM_BYTES, Secret, Webhook, judge, sign,
};

/// Attempts at once.
const IN_FLIGHT: usize = 32;
/// Of one webhook: one that takes its time holds up no other.
const PER_WEBHOOK: u32 = 8;
/// An attempt that has not ended by then is another's.
const CLAIM_MARGIN: Duration = Duration::from_secs(45);
/// When a store that failed is asked again, and it is looked for what another agent wrote.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks for what has been kept long enough.
const TIDY: Duration = Duration::from_secs(3_600);

/// Delivers until it is told to stop.
pub(super) async fn send(webhooks: Weak<Webhooks>, stop: CancellationToken) {
    // those that are under way when it stops are made again by the next agent, under the same id
    let mut running = JoinSet::new();
    loop {
        let Some(hooks) = webhooks.upgrade() else {
            return;
        };
        // claims of agents whose clocks differ would not keep each other out
        if hooks.may_act().is_err() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => continue,
            }
        }
        let next = hooks.begin_due(&mut running).await.unwrap_or_else(|error| {
            tracing::warn!("deliveries of webhooks cannot be read: {error}");
            hooks.clock.now() + LOOK
        });
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = running.join_next() => {}
            () = hooks.news.notified() => {}
            () = hooks.clock.sleep_until(next) => {}
        }
    }
}

/// Forgets what has been kept long enough, until it is told to stop.
pub(super) async fn forget_old(webhooks: Weak<Webhooks>, stop: CancellationToken) {
    let mut each = tokio::time::interval(TIDY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = each.tick() => {}
        }
        let Some(hooks) = webhooks.upgrade() else {
            return;
        };
        if hooks.may_act().is_err() {
            continue;
        }
        let before = hooks.clock.now().checked_sub(hooks.policy.kept);
        let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
        let forgotten = hooks
            .store
            .forget_deliveries(before, hooks.policy.most_kept);
        if let Err(error) = forgotten.await {
            tracing::warn!("old deliveries of webhooks could not be forgotten: {error}");
        }
    }
}

impl Webhooks {
    /// Begins attempts at what is due, as far as there is a place, and says when to look again.
    pub(super) async fn begin_due(
        self: &Arc<Self>,
        running: &mut JoinSet<()>,
    ) -> Result<SystemTime, StoreError> {
        let Some(transport) = self.transport.get() else {
            return Ok(self.clock.now() + LOOK);
        };
        self.show_counts().await?;
        let now = self.clock.now();
        // who ends wakes it up
        let later = now + LOOK.max(self.policy.timeout);
        let place = IN_FLIGHT.saturating_sub(running.len());
        let due = self.store.next_delivery().await?;
        match due {
            None => return Ok(now + TIDY),
            Some(due) if due > now => return Ok(due),
            Some(_) if place == 0 => return Ok(later),
            Some(_) => {}
        }
        let claim = Claim {
            time: self.policy.timeout + CLAIM_MARGIN,
            size: u32::try_from(place).unwrap_or(u32::MAX),
            per_webhook: PER_WEBHOOK,
        };
        let claimed = self.store.claim_deliveries(&claim, now).await?;
        if claimed.is_empty() {
            return Ok(later);
        }
        for one in claimed {
            let (hooks, transport) = (self.clone(), transport.clone());
            running.spawn(async move { hooks.attempt(&*transport, one).await });
        }
        // there may be more
        Ok(now)
    }

    async fn show_counts(&self) -> Result<(), StoreError> {
        let counts = self.store.webhook_counts().await?;
        let shown = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics
            .webhook_deliveries_pending
            .set(shown(counts.pending));
        self.metrics.webhooks_disabled.set(shown(counts.disabled));
        Ok(())
    }

    /// One attempt at a delivery, and what came of it written down.
    async fn attempt(&self, transport: &dyn WebhookTransport, claimed: Claimed) {
        let delivery = &claimed.delivery;
        let attempt = self
            .post(
                transport,
                &claimed.webhook,
                (&delivery.what.delivery_id, &delivery.what.body),
                (claimed.secrets.clone(), delivery.attempts.saturating_add(1)),
            )
            .await;
        let now = self.clock.now();
        let random = random();
        let judge = |webhook: &Webhook, tries: u32| {
            let health = webhook.health;
            judge(
                &attempt.answer,
                tries,
                health,
                micros(now),
                &self.policy.retries,
                random,
            )
        };
        let recorded = self.store.record_attempt(&claimed, &attempt, &judge, now);
        match recorded.await {
            Ok((after, webhook)) => self.tell(&claimed, &attempt, &after, &webhook),
            // it is tried again when the claim is over: at least once is what was promised
            Err(error) => tracing::warn!(
                webhook_id = claimed.webhook.id(),
                delivery_id = delivery.what.delivery_id,
                "what came of a delivery could not be written down: {error}"
            ),
        }
    }

    /// Signs and posts a body, and says what came of it.
    pub(super) async fn post(
        &self,
        transport: &dyn WebhookTransport,
        webhook: &Webhook,
        (id, body): (&str, &str),
        (stored, number): (Vec<Secret>, u32),
    ) -> Attempt {
        let (started, begun) = (self.clock.now(), Instant::now());
        let answer = match self.secrets(webhook, stored).await {
            Ok(secrets) => {
                // anew for each attempt: receivers refuse what is older than five minutes
                match sign(id, micros(started) / 1_000_000, body, &secrets) {
                    Ok(signed) => transport.post(&webhook.spec.url, &signed).await,
                    Err(error) => none(&error.to_string()),
                }
            }
            Err(error) => none(&error.to_string()),
        };
        Attempt {
            number,
            started_us: micros(started),
            duration_seconds: begun.elapsed().as_secs_f64(),
            answer: bounded(answer),
        }
    }

    fn tell(&self, claimed: &Claimed, attempt: &Attempt, after: &Delivery, webhook: &Webhook) {
        let (webhook_id, answer) = (webhook.id(), attempt.answer.in_words());
        let delivery_id = &after.what.delivery_id;
        self.metrics.webhook_attempt(attempt.answer.is_taken());
        match after.state {
            DeliveryState::Pending => {
                tracing::debug!(webhook_id, delivery_id, answer, "a delivery is tried again");
            }
            DeliveryState::Delivered => {
                self.metrics.webhook_delivery("delivered");
                tracing::debug!(webhook_id, delivery_id, answer, "delivered");
            }
            DeliveryState::Failed => {
                self.metrics.webhook_delivery("failed");
                let tries = after.tries;
                tracing::warn!(
                    webhook_id,
                    delivery_id,
                    answer,
                    tries,
                    "a delivery was given up"
                );
            }
        }
        if let (None, Some(disabled)) = (claimed.webhook.disabled, webhook.disabled) {
            let reason = disabled.reason.as_str();
            tracing::warn!(
                webhook_id,
                reason,
                answer,
                "the webhook is told nothing any more"
            );
        }
    }
}

fn none(problem: &str) -> Answer {
    Answer::None {
        problem: problem.to_owned(),
    }
}

/// An answer of which no more is kept than there is room for.
fn bounded(answer: Answer) -> Answer {
    match answer {
        Answer::None { mut problem } => {
            let end = problem.floor_char_boundary(MAX_PROBLEM_BYTES);
            problem.truncate(end);
            Answer::None { problem }
        }
        status @ Answer::Status { .. } => status,
    }
}

/// From 0 to 1. It keeps apart what failed together, and has to be no secret.
fn random() -> f64 {
    let (_, bits) = Uuid::new_v4().as_u64_pair();
    (bits & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
}
