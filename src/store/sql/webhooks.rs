//! Webhooks: the spec as JSON, beside how it goes with them; secrets apart.

use std::time::SystemTime;

use async_trait::async_trait;
use sqlx::Row;

use super::{
    Backend, DbConnection, DbRow, Write, commit, deliveries, json, micros, query, requests,
    secrets, trouble, unsigned,
};
use crate::store::{
    Claim, Claimed, DeliverNow, DeliveryFilter, Judge, Once, StoreError, WebhookCounts,
    WebhookStore,
};
use crate::webhook::{
    Attempt, ConfiguredWebhook, Delivery, Disabled, DisabledReason, Judgement, MAX_WEBHOOKS,
    Secret, Webhook, WebhookHealth, WebhookSource, WebhookSpec,
};

macro_rules! columns {
    () => {
        "webhook_id, source, spec, created_us, disabled, disabled_us, failing_since_us, not_before_us"
    };
}

#[async_trait]
impl WebhookStore for Backend {
    async fn create_webhook(
        &self,
        spec: &WebhookSpec,
        secret: &Secret,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError> {
        self.writing(create(self, (spec, secret), once, now)).await
    }

    async fn put_configured_webhooks(
        &self,
        configured: &[ConfiguredWebhook],
        now: SystemTime,
    ) -> Result<(), StoreError> {
        self.writing(put_configured(self, configured, now)).await
    }

    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        read!(self, view => all(view))
    }

    async fn disable_webhook(
        &self,
        webhook_id: &str,
        reason: Option<DisabledReason>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError> {
        self.writing(disable(self, webhook_id, reason, now)).await
    }

    async fn delete_webhook(&self, webhook_id: &str) -> Result<Webhook, StoreError> {
        self.writing(delete(self, webhook_id)).await
    }

    async fn rotate_webhook_secret(
        &self,
        webhook_id: &str,
        secret: &Secret,
        old_until: SystemTime,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Webhook, StoreError> {
        self.writing(rotate(self, (webhook_id, secret), old_until, once, now))
            .await
    }

    async fn webhook_secrets(
        &self,
        webhook_id: &str,
        now: SystemTime,
    ) -> Result<Vec<Secret>, StoreError> {
        read!(self, view => secrets::of(view, webhook_id, micros(now)))
    }

    async fn answered_webhook(
        &self,
        once: &Once,
        now: SystemTime,
    ) -> Result<Option<Webhook>, StoreError> {
        read!(self, view => requests::earlier(view, Some(once), now))
    }

    async fn put_deliveries(
        &self,
        deliver: &DeliverNow<'_>,
        now: SystemTime,
    ) -> Result<u32, StoreError> {
        self.writing(deliveries::put(self, deliver, now)).await
    }

    async fn next_delivery(&self) -> Result<Option<SystemTime>, StoreError> {
        read!(self, view => deliveries::next(view))
    }

    async fn claim_deliveries(
        &self,
        claim: &Claim,
        now: SystemTime,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.writing(deliveries::claim(self, claim, now)).await
    }

    async fn record_attempt(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        judge: &Judge<'_>,
        now: SystemTime,
    ) -> Result<(Delivery, Webhook), StoreError> {
        self.writing(deliveries::record(self, (claimed, attempt), judge, now))
            .await
    }

    async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        before: Option<u64>,
        size: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        read!(self, view => deliveries::list(view, filter, before, size))
    }

    async fn delivery(&self, delivery_id: &str) -> Result<(Delivery, Vec<Attempt>), StoreError> {
        read!(self, view => deliveries::one(view, delivery_id))
    }

    async fn redeliver(&self, delivery_id: &str, now: SystemTime) -> Result<Delivery, StoreError> {
        self.writing(deliveries::redeliver(self, delivery_id, now))
            .await
    }

    async fn forget_deliveries(&self, before: SystemTime, most: u32) -> Result<u64, StoreError> {
        self.writing(deliveries::forget(self, before, most)).await
    }

    async fn webhook_counts(&self) -> Result<WebhookCounts, StoreError> {
        read!(self, view => deliveries::counts(view))
    }
}

async fn create(
    store: &Backend,
    (spec, secret): (&WebhookSpec, &Secret),
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Webhook, StoreError> {
    let mut write = store.begin().await?;
    if let Some(before) = requests::earlier(&mut write, once, now).await? {
        return Ok(before);
    }
    let id = &spec.webhook_id;
    if row_of(&mut write, id).await?.is_some() {
        return Err(StoreError::WebhookExists(id.clone()));
    }
    let row = query("SELECT count(*) AS there FROM webhooks")
        .fetch_one(&mut *write)
        .await
        .map_err(trouble)?;
    if usize::try_from(unsigned(&row, "there")?).unwrap_or(usize::MAX) >= MAX_WEBHOOKS {
        return Err(StoreError::TooManyWebhooks(MAX_WEBHOOKS));
    }
    let webhook = Webhook {
        spec: spec.clone(),
        source: WebhookSource::Created,
        created_us: micros(now),
        disabled: None,
        health: WebhookHealth::default(),
    };
    put(&mut write, &webhook).await?;
    secrets::add(&mut write, id, secret).await?;
    requests::remember(&mut write, once, &webhook, now).await?;
    commit(write).await.map(|()| webhook)
}

async fn put_configured(
    store: &Backend,
    configured: &[ConfiguredWebhook],
    now: SystemTime,
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    let there = all(&mut write).await?;
    for entry in configured {
        let id = &entry.spec.webhook_id;
        let known = there.iter().find(|known| known.id() == id);
        let same = known
            .filter(|known| known.source == WebhookSource::ConfigFile && known.spec == entry.spec);
        // what disabled itself stays so until somebody looks at it, or it is another one
        let by_itself = same
            .and_then(|known| known.disabled)
            .filter(|disabled| !matches!(disabled.reason, DisabledReason::Configured));
        let configured = Disabled {
            reason: DisabledReason::Configured,
            since_us: micros(now),
        };
        let webhook = Webhook {
            spec: entry.spec.clone(),
            source: WebhookSource::ConfigFile,
            created_us: known.map_or(micros(now), |known| known.created_us),
            disabled: match entry.is_enabled {
                true => by_itself,
                false => Some(configured),
            },
            health: same.map(|known| known.health).unwrap_or_default(),
        };
        put(&mut write, &webhook).await?;
        secrets::remove(&mut write, id).await?;
    }
    for gone in there.iter().filter(|known| {
        known.source == WebhookSource::ConfigFile
            && !configured
                .iter()
                .any(|entry| entry.spec.webhook_id == known.id())
    }) {
        remove(&mut write, gone.id()).await?;
    }
    commit(write).await
}

async fn disable(
    store: &Backend,
    webhook_id: &str,
    reason: Option<DisabledReason>,
    now: SystemTime,
) -> Result<Webhook, StoreError> {
    let mut write = store.begin().await?;
    let before = one(&mut write, webhook_id).await?;
    let disabled = reason.map(|reason| match before.disabled {
        Some(disabled) if disabled.reason == reason => disabled,
        _ => Disabled {
            reason,
            since_us: micros(now),
        },
    });
    let webhook = Webhook {
        disabled,
        health: match disabled {
            // it begins anew
            None => WebhookHealth::default(),
            Some(_) => before.health,
        },
        ..before
    };
    put(&mut write, &webhook).await?;
    if disabled.is_none() {
        query(
            "UPDATE deliveries SET due_us = $1 WHERE webhook_id = $2 AND head = 1 AND claimed_until_us IS NULL",
        )
        .bind(micros(now))
        .bind(webhook_id)
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    }
    commit(write).await.map(|()| webhook)
}

async fn delete(store: &Backend, webhook_id: &str) -> Result<Webhook, StoreError> {
    let mut write = store.begin().await?;
    let webhook = one(&mut write, webhook_id).await?;
    remove(&mut write, webhook_id).await?;
    commit(write).await.map(|()| webhook)
}

async fn rotate(
    store: &Backend,
    (webhook_id, secret): (&str, &Secret),
    old_until: SystemTime,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Webhook, StoreError> {
    let mut write = store.begin().await?;
    if let Some(before) = requests::earlier(&mut write, once, now).await? {
        return Ok(before);
    }
    let webhook = one(&mut write, webhook_id).await?;
    query("UPDATE webhook_secrets SET until_us = CASE WHEN until_us < $1 THEN until_us ELSE $1 END WHERE webhook_id = $2")
        .bind(micros(old_until))
        .bind(webhook_id)
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    // what is over is nobody's to know
    query("DELETE FROM webhook_secrets WHERE webhook_id = $1 AND until_us <= $2")
        .bind(webhook_id)
        .bind(micros(now))
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    secrets::add(&mut write, webhook_id, secret).await?;
    requests::remember(&mut write, once, &webhook, now).await?;
    commit(write).await.map(|()| webhook)
}

/// All of them, by id.
pub(super) async fn all(connection: &mut DbConnection) -> Result<Vec<Webhook>, StoreError> {
    let rows = query(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks ORDER BY webhook_id"
    ))
    .fetch_all(connection)
    .await
    .map_err(trouble)?;
    rows.iter().map(webhook_of).collect()
}

/// Those that this version can read, by id. One that it cannot is told nothing, and holds up no workflow.
pub(super) async fn readable(connection: &mut DbConnection) -> Result<Vec<Webhook>, StoreError> {
    let rows = query(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks ORDER BY webhook_id"
    ))
    .fetch_all(connection)
    .await
    .map_err(trouble)?;
    Ok(rows.iter().filter_map(webhook_or_warning).collect())
}

fn webhook_or_warning(row: &DbRow) -> Option<Webhook> {
    let told = |error: &StoreError| tracing::warn!("a webhook is told nothing: {error}");
    webhook_of(row).inspect_err(told).ok()
}

/// Those that something is due of, what is due longest first.
pub(super) async fn due(
    connection: &mut DbConnection,
    now_us: i64,
) -> Result<Vec<Webhook>, StoreError> {
    let rows = query(
        concat!(
            "SELECT ", columns!(), " FROM (SELECT ", columns!(), ", (SELECT min(due_us) FROM deliveries \
             WHERE deliveries.webhook_id = webhooks.webhook_id AND head = 1) AS due_us FROM webhooks \
             WHERE disabled IS NULL AND coalesce(not_before_us, 0) <= $1) AS owed WHERE due_us <= $1 \
             ORDER BY due_us, webhook_id",
        ),
    )
    .bind(now_us)
    .fetch_all(connection)
    .await
    .map_err(trouble)?;
    Ok(rows.iter().filter_map(webhook_or_warning).collect())
}

/// One by its id.
pub(super) async fn one(
    connection: &mut DbConnection,
    webhook_id: &str,
) -> Result<Webhook, StoreError> {
    let row = row_of(connection, webhook_id).await?;
    let row = row.ok_or_else(|| StoreError::NoWebhook(webhook_id.to_owned()))?;
    webhook_of(&row)
}

/// Writes down how it goes with a webhook after an attempt. One that somebody disabled meanwhile stays so.
pub(super) async fn judged(
    write: &mut Write,
    webhook: Webhook,
    judged: &Judgement,
    now: SystemTime,
) -> Result<Webhook, StoreError> {
    let by_itself = judged.disables.map(|reason| Disabled {
        reason,
        since_us: micros(now),
    });
    let after = Webhook {
        disabled: webhook.disabled.or(by_itself),
        health: judged.health,
        ..webhook.clone()
    };
    if after != webhook {
        put(write, &after).await?;
    }
    Ok(after)
}

async fn put(write: &mut Write, webhook: &Webhook) -> Result<(), StoreError> {
    let source = match webhook.source {
        WebhookSource::ConfigFile => CONFIG_FILE,
        WebhookSource::Created => CREATED,
    };
    query(
        "INSERT INTO webhooks \
         (webhook_id, source, spec, created_us, disabled, disabled_us, failing_since_us, not_before_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (webhook_id) DO UPDATE SET source = excluded.source, \
         spec = excluded.spec, disabled = excluded.disabled, disabled_us = excluded.disabled_us, \
         failing_since_us = excluded.failing_since_us, not_before_us = excluded.not_before_us",
    )
    .bind(webhook.id())
    .bind(source)
    .bind(json(&webhook.spec)?)
    .bind(webhook.created_us)
    .bind(webhook.disabled.map(|disabled| disabled.reason.as_str()))
    .bind(webhook.disabled.map(|disabled| disabled.since_us))
    .bind(webhook.health.failing_since_us)
    .bind(webhook.health.not_before_us)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

const CONFIG_FILE: &str = "CONFIG_FILE";
const CREATED: &str = "CREATED";

/// With what it is owed, and its secrets: they go with it.
async fn remove(write: &mut Write, id: &str) -> Result<(), StoreError> {
    query("DELETE FROM webhooks WHERE webhook_id = $1")
        .bind(id)
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}

async fn row_of(connection: &mut DbConnection, id: &str) -> Result<Option<DbRow>, StoreError> {
    query(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks WHERE webhook_id = $1"
    ))
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(trouble)
}

fn webhook_of(row: &DbRow) -> Result<Webhook, StoreError> {
    let id: String = row.try_get("webhook_id").map_err(trouble)?;
    let unreadable =
        |what: &str, why: &str| StoreError::Unreadable(format!("webhook {id}: {what}: {why}"));
    let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(trouble);
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(trouble);
    let spec: String = row.try_get("spec").map_err(trouble)?;
    let source = match text("source")?.as_deref() {
        Some(CONFIG_FILE) => WebhookSource::ConfigFile,
        Some(CREATED) => WebhookSource::Created,
        other => return Err(unreadable("source", other.unwrap_or_default())),
    };
    let disabled = match (text("disabled")?, number("disabled_us")?) {
        (Some(word), Some(since_us)) => {
            let mut reasons = DisabledReason::ALL.iter();
            let reason = reasons.find(|reason| reason.as_str() == word).copied();
            let reason = reason.ok_or_else(|| unreadable("disabled", &word))?;
            Some(Disabled { reason, since_us })
        }
        _ => None,
    };
    Ok(Webhook {
        spec: serde_json::from_str(&spec)
            .map_err(|error| unreadable("spec", &error.to_string()))?,
        source,
        created_us: row.try_get("created_us").map_err(trouble)?,
        disabled,
        health: WebhookHealth {
            failing_since_us: number("failing_since_us")?,
            not_before_us: number("not_before_us")?,
        },
    })
}
