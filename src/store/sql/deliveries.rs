//! Deliveries: written with what causes them, taken by who tries them, one of each order at a time.

use std::time::SystemTime;

use sqlx::{QueryBuilder, Row};

use super::{
    Backend, Db, DbConnection, DbRow, Write, commit, micros, query, secrets, signed, time, trouble,
    unsigned, webhooks,
};
use crate::store::{
    Claim, Claimed, Deliver, DeliverNow, DeliveryFilter, Judge, StoreError, WebhookCounts,
};
use crate::webhook::{Answer, Attempt, Delivery, DeliveryState, NewDelivery, Next, Webhook};
use crate::workflow::{RecordedEvent, Workflow};

/// Attempts that are kept of a delivery that is asked for again and again.
const ATTEMPTS_KEPT: u32 = 50;
/// Deliveries that one transaction forgets: transitions come in between.
const FORGOTTEN_AT_ONCE: i64 = 2_000;

const COLUMNS: &str = "place, delivery_id, webhook_id, ordered_by, type, workflow_id, instance_id, revision, body, state, \
     head, attempts, tries, created_us, due_us, ended_us, claims";

/// Writes what an event causes.
pub(super) async fn of_event(
    write: &mut Write,
    (deliver, recorded, after): (&Deliver<'_>, &RecordedEvent, &Workflow),
    now: SystemTime,
) -> Result<u32, StoreError> {
    let webhooks = webhooks::readable(write).await?;
    if webhooks.is_empty() {
        return Ok(0);
    }
    insert(write, &deliver(recorded, after, &webhooks), now).await
}

/// Writes what no event of a workflow causes.
pub(super) async fn put(
    store: &Backend,
    deliver: &DeliverNow<'_>,
    now: SystemTime,
) -> Result<u32, StoreError> {
    let mut write = store.begin().await?;
    let webhooks = webhooks::readable(&mut write).await?;
    let added = insert(&mut write, &deliver(&webhooks), now).await?;
    commit(write).await.map(|()| added)
}

async fn insert(
    write: &mut Write,
    deliveries: &[NewDelivery],
    now: SystemTime,
) -> Result<u32, StoreError> {
    let mut added = 0;
    for delivery in deliveries {
        let inserted = query(
            "INSERT INTO deliveries (delivery_id, webhook_id, ordered_by, type, workflow_id, instance_id, \
             revision, body, state, head, attempts, tries, created_us, due_us, claims) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'PENDING', CAST(NOT EXISTS \
             (SELECT 1 FROM deliveries WHERE webhook_id = $2 AND ordered_by = $3 AND state = 'PENDING') AS INTEGER), 0, 0, $9, $9, 0) \
             ON CONFLICT (delivery_id) DO NOTHING",
        )
        .bind(&delivery.delivery_id)
        .bind(&delivery.webhook_id)
        .bind(&delivery.ordered_by)
        .bind(&delivery.kind)
        .bind(&delivery.workflow_id)
        .bind(&delivery.instance_id)
        .bind(delivery.revision.map(signed))
        .bind(&delivery.body)
        .bind(micros(now))
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
        added += u32::from(inserted.rows_affected() > 0);
    }
    Ok(added)
}

/// Ends all claims.
pub(super) async fn drop_claims(write: &mut Write) -> Result<(), StoreError> {
    query(
        "UPDATE deliveries SET due_us = created_us, claimed_until_us = NULL WHERE claimed_until_us IS NOT NULL",
    )
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// When the next one is due.
pub(super) async fn next(view: &mut DbConnection) -> Result<Option<SystemTime>, StoreError> {
    let row = query(
        "SELECT min(CASE WHEN not_before_us > due_us THEN not_before_us ELSE due_us END) AS due_us \
         FROM (SELECT not_before_us, (SELECT min(due_us) FROM deliveries \
         WHERE deliveries.webhook_id = webhooks.webhook_id AND head = 1) AS due_us \
         FROM webhooks WHERE disabled IS NULL) AS owed WHERE due_us IS NOT NULL",
    )
    .fetch_one(view)
    .await
    .map_err(trouble)?;
    let due: Option<i64> = row.try_get("due_us").map_err(trouble)?;
    Ok(due.map(time))
}

/// Takes those that are due.
pub(super) async fn claim(
    store: &Backend,
    claim: &Claim,
    now: SystemTime,
) -> Result<Vec<Claimed>, StoreError> {
    let mut write = store.begin().await?;
    let (now_us, until_us) = (micros(now), micros(now + claim.time));
    let mut claimed = Vec::new();
    for webhook in webhooks::due(&mut write, now_us).await? {
        let left = claim
            .size
            .saturating_sub(u32::try_from(claimed.len()).unwrap_or(u32::MAX));
        let taken = taken(&mut write, webhook.id(), now_us).await?;
        let size = left.min(claim.per_webhook.saturating_sub(taken));
        if size == 0 {
            continue;
        }
        let text = format!(
            "UPDATE deliveries SET due_us = $1, claimed_until_us = $1, claims = claims + 1 WHERE place IN \
             (SELECT place FROM deliveries WHERE webhook_id = $2 AND head = 1 AND due_us <= $3 ORDER BY due_us, place \
             LIMIT $4) RETURNING {COLUMNS}"
        );
        let rows = query(sqlx::AssertSqlSafe(text))
            .bind(until_us)
            .bind(webhook.id())
            .bind(now_us)
            .bind(i64::from(size))
            .fetch_all(&mut *write)
            .await
            .map_err(trouble)?;
        let secrets = secrets::of(&mut write, webhook.id(), now_us).await?;
        let mut of_webhook = Vec::with_capacity(rows.len());
        for row in &rows {
            of_webhook.push(Claimed {
                delivery: delivery_of(row)?,
                webhook: webhook.clone(),
                secrets: secrets.clone(),
                epoch: unsigned(row, "claims")?,
            });
        }
        // SQLite returns them in no order
        of_webhook.sort_by_key(|one| one.delivery.place);
        claimed.append(&mut of_webhook);
    }
    commit(write).await.map(|()| claimed)
}

/// How many of a webhook somebody tries.
async fn taken(write: &mut Write, webhook_id: &str, now_us: i64) -> Result<u32, StoreError> {
    let row = query(
        "SELECT count(*) AS taken FROM deliveries WHERE webhook_id = $1 AND claimed_until_us > $2",
    )
    .bind(webhook_id)
    .bind(now_us)
    .fetch_one(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(u32::try_from(unsigned(&row, "taken")?).unwrap_or(u32::MAX))
}

/// Writes down what came of an attempt.
pub(super) async fn record(
    store: &Backend,
    (claimed, attempt): (&Claimed, &Attempt),
    judge: &Judge<'_>,
    now: SystemTime,
) -> Result<(Delivery, Webhook), StoreError> {
    let id = &claimed.delivery.what.delivery_id;
    let lost = || StoreError::ClaimLost(id.clone());
    let mut write = store.begin().await?;
    let row = row_of(&mut write, id).await?.ok_or_else(lost)?;
    let delivery = delivery_of(&row)?;
    let is_claimed = unsigned(&row, "claims")? == claimed.epoch;
    if !is_claimed || delivery.state != DeliveryState::Pending {
        return Err(lost());
    }
    let webhook = webhooks::one(&mut write, &delivery.what.webhook_id).await?;
    let tries = delivery.tries.saturating_add(1);
    let judged = judge(&webhook, tries);
    insert_attempt(&mut write, id, attempt).await?;
    let (state, due_us, ended_us) = match judged.next {
        Next::Delivered => (DeliveryState::Delivered, None, Some(micros(now))),
        Next::Failed => (DeliveryState::Failed, None, Some(micros(now))),
        Next::Retry { due_us } => (DeliveryState::Pending, Some(due_us), None),
    };
    query(
        "UPDATE deliveries SET state = $1, head = $2, attempts = $3, tries = $4, due_us = coalesce($5, due_us), ended_us = $6, \
         claimed_until_us = NULL WHERE delivery_id = $7",
    )
    .bind(state.as_str())
    .bind(i64::from(ended_us.is_none()))
    .bind(i64::from(attempt.number))
    .bind(i64::from(tries))
    .bind(due_us)
    .bind(ended_us)
    .bind(id)
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    if ended_us.is_some() {
        begin_next(&mut write, &delivery.what, now).await?;
    }
    let webhook = webhooks::judged(&mut write, webhook, &judged, now).await?;
    commit(write).await?;
    let after = Delivery {
        state,
        attempts: attempt.number,
        tries,
        due_us,
        ended_us,
        ..delivery
    };
    Ok((after, webhook))
}

async fn insert_attempt(write: &mut Write, id: &str, attempt: &Attempt) -> Result<(), StoreError> {
    query(
        "INSERT INTO delivery_attempts (delivery_id, number, started_us, duration_seconds, status, problem) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(i64::from(attempt.number))
    .bind(attempt.started_us)
    .bind(attempt.duration_seconds)
    .bind(attempt.answer.status().map(i64::from))
    .bind(attempt.answer.problem())
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    query("DELETE FROM delivery_attempts WHERE delivery_id = $1 AND number <= $2")
        .bind(id)
        .bind(i64::from(attempt.number.saturating_sub(ATTEMPTS_KEPT)))
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}

/// The next of an order is the first now, and due.
async fn begin_next(
    write: &mut Write,
    after: &NewDelivery,
    now: SystemTime,
) -> Result<(), StoreError> {
    query(
        "UPDATE deliveries SET head = 1, due_us = $1 WHERE place = (SELECT min(place) FROM deliveries \
         WHERE webhook_id = $2 AND ordered_by = $3 AND state = 'PENDING')",
    )
    .bind(micros(now))
    .bind(&after.webhook_id)
    .bind(&after.ordered_by)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// The newest first.
pub(super) async fn list(
    view: &mut DbConnection,
    filter: &DeliveryFilter,
    before: Option<u64>,
    size: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let mut query = QueryBuilder::<Db>::new("SELECT ");
    query.push(COLUMNS).push(" FROM deliveries WHERE TRUE");
    for (column, value) in [
        (" AND webhook_id = ", filter.webhook_id.as_deref()),
        (" AND workflow_id = ", filter.workflow_id.as_deref()),
        (" AND instance_id = ", filter.instance_id.as_deref()),
        (" AND state = ", filter.state.map(DeliveryState::as_str)),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    if let Some(before) = before {
        query.push(" AND place < ").push_bind(signed(before));
    }
    query.push(" ORDER BY place DESC LIMIT ");
    query.push_bind(i64::from(size));
    let rows = query
        .build()
        .persistent(super::keeps_statements())
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    rows.iter().map(delivery_of).collect()
}

/// One with its attempts.
pub(super) async fn one(
    view: &mut DbConnection,
    delivery_id: &str,
) -> Result<(Delivery, Vec<Attempt>), StoreError> {
    let row = row_of(view, delivery_id).await?;
    let row = row.ok_or_else(|| StoreError::NoDelivery(delivery_id.to_owned()))?;
    let attempts = query(
        "SELECT number, started_us, duration_seconds, status, problem FROM delivery_attempts WHERE delivery_id = $1 \
         ORDER BY number",
    )
    .bind(delivery_id)
    .fetch_all(view)
    .await
    .map_err(trouble)?;
    let attempts: Result<_, StoreError> = attempts.iter().map(attempt_of).collect();
    Ok((delivery_of(&row)?, attempts?))
}

/// Has one tried from the beginning.
pub(super) async fn redeliver(
    store: &Backend,
    delivery_id: &str,
    now: SystemTime,
) -> Result<Delivery, StoreError> {
    let mut write = store.begin().await?;
    // one that somebody tries right now is left with who does
    query(
        "UPDATE deliveries SET state = 'PENDING', tries = 0, ended_us = NULL, due_us = $1, head = CAST(NOT EXISTS \
         (SELECT 1 FROM deliveries AS other WHERE other.webhook_id = deliveries.webhook_id \
          AND other.ordered_by = deliveries.ordered_by AND other.head = 1 AND other.place <> deliveries.place) AS INTEGER) \
         WHERE delivery_id = $2 AND claimed_until_us IS NULL",
    )
    .bind(micros(now))
    .bind(delivery_id)
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    let row = row_of(&mut write, delivery_id).await?;
    let row = row.ok_or_else(|| StoreError::NoDelivery(delivery_id.to_owned()))?;
    let delivery = delivery_of(&row)?;
    commit(write).await.map(|()| delivery)
}

/// Forgets what nobody asks for any more.
pub(super) async fn forget(
    store: &Backend,
    before: SystemTime,
    most: u32,
) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    loop {
        let mut write = store.begin().await?;
        let mut now = 0;
        for text in [
            "DELETE FROM deliveries WHERE place IN (SELECT place FROM deliveries WHERE ended_us < $1 LIMIT $2)",
            "DELETE FROM deliveries WHERE place IN (SELECT place FROM deliveries WHERE state = 'PENDING' AND created_us < $1 \
             AND webhook_id IN (SELECT webhook_id FROM webhooks WHERE disabled IS NOT NULL) LIMIT $2)",
        ] {
            let gone = query(text)
                .bind(micros(before))
                .bind(FORGOTTEN_AT_ONCE)
                .execute(&mut *write)
                .await;
            now += gone.map_err(trouble)?.rows_affected();
        }
        let row = query("SELECT count(*) AS there FROM deliveries")
            .fetch_one(&mut *write)
            .await
            .map_err(trouble)?;
        let too_many = unsigned(&row, "there")?.saturating_sub(u64::from(most));
        let gone = query(
            "DELETE FROM deliveries WHERE place IN (SELECT place FROM deliveries WHERE ended_us IS NOT NULL \
             ORDER BY ended_us, place LIMIT $1)",
        )
        .bind(signed(too_many).min(FORGOTTEN_AT_ONCE))
        .execute(&mut *write)
        .await;
        now += gone.map_err(trouble)?.rows_affected();
        if now == 0 {
            return Ok(forgotten);
        }
        restore_heads(&mut write).await?;
        commit(write).await?;
        forgotten += now;
    }
}

/// Where the first of an order was forgotten, the next is the first.
async fn restore_heads(write: &mut Write) -> Result<(), StoreError> {
    query(
        "UPDATE deliveries SET head = 1 WHERE state = 'PENDING' AND head = 0 AND NOT EXISTS \
         (SELECT 1 FROM deliveries AS other WHERE other.webhook_id = deliveries.webhook_id \
          AND other.ordered_by = deliveries.ordered_by AND other.state = 'PENDING' AND other.place < deliveries.place) \
         AND NOT EXISTS (SELECT 1 FROM deliveries AS other WHERE other.webhook_id = deliveries.webhook_id \
          AND other.ordered_by = deliveries.ordered_by AND other.head = 1)",
    )
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// How many there are.
pub(super) async fn counts(view: &mut DbConnection) -> Result<WebhookCounts, StoreError> {
    let row = query(
        "SELECT (SELECT count(*) FROM deliveries WHERE state = 'PENDING') AS pending, \
         (SELECT count(*) FROM webhooks WHERE disabled IS NOT NULL) AS disabled",
    )
    .fetch_one(view)
    .await
    .map_err(trouble)?;
    Ok(WebhookCounts {
        pending: unsigned(&row, "pending")?,
        disabled: unsigned(&row, "disabled")?,
    })
}

async fn row_of(
    connection: &mut DbConnection,
    delivery_id: &str,
) -> Result<Option<DbRow>, StoreError> {
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE delivery_id = $1");
    let found = query(sqlx::AssertSqlSafe(text))
        .bind(delivery_id)
        .fetch_optional(connection);
    found.await.map_err(trouble)
}

fn delivery_of(row: &DbRow) -> Result<Delivery, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(trouble);
    let whether = |column: &str| row.try_get::<Option<String>, _>(column).map_err(trouble);
    let number = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(trouble);
    let count = |column: &str| {
        let count = unsigned(row, column)?;
        u32::try_from(count).map_err(|_| StoreError::Unreadable(format!("{column} {count}")))
    };
    let (word, is_head) = (text("state")?, number("head")? == Some(1));
    let mut states = DeliveryState::ALL.iter();
    let state = states.find(|state| state.as_str() == word).copied();
    Ok(Delivery {
        what: NewDelivery {
            delivery_id: text("delivery_id")?,
            webhook_id: text("webhook_id")?,
            ordered_by: text("ordered_by")?,
            kind: text("type")?,
            workflow_id: whether("workflow_id")?,
            instance_id: text("instance_id")?,
            revision: number("revision")?.and_then(|revision| u64::try_from(revision).ok()),
            body: text("body")?,
        },
        place: unsigned(row, "place")?,
        state: state.ok_or_else(|| StoreError::Unreadable(format!("a delivery's state {word}")))?,
        attempts: count("attempts")?,
        tries: count("tries")?,
        created_us: row.try_get("created_us").map_err(trouble)?,
        due_us: number("due_us")?.filter(|_| is_head),
        ended_us: number("ended_us")?,
    })
}

fn attempt_of(row: &DbRow) -> Result<Attempt, StoreError> {
    let status: Option<i64> = row.try_get("status").map_err(trouble)?;
    let problem: Option<String> = row.try_get("problem").map_err(trouble)?;
    let number = unsigned(row, "number")?;
    let answer = match (status.map(u16::try_from), problem) {
        (Some(Ok(status)), _) => Answer::Status {
            status,
            retry_after: None,
        },
        (None, Some(problem)) => Answer::None { problem },
        _ => {
            return Err(StoreError::Unreadable(format!(
                "attempt {number} of a delivery: it says neither what was answered nor why nothing was"
            )));
        }
    };
    Ok(Attempt {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        started_us: row.try_get("started_us").map_err(trouble)?,
        duration_seconds: row.try_get("duration_seconds").map_err(trouble)?,
        answer,
    })
}
