//! The ledger of predictions: the entry as JSON, beside what it is found by.

use std::time::SystemTime;

use sqlx::{QueryBuilder, Row};

use super::{
    Backend, Db, DbConnection, DbRow, Write, commit, json, micros, query, signed, trouble, unsigned,
};
use crate::optimization::{Ended, LedgerEntry, LedgerState};
use crate::store::{PredictionFilter, PredictionPlace, StoreError};

/// Keeps these, and forgets those of these ids that are open still.
pub(super) async fn put(
    store: &Backend,
    entries: &[LedgerEntry],
    gone: &[String],
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    for id in gone {
        query("DELETE FROM predictions WHERE prediction_id = $1 AND state = $2")
            .bind(id)
            .bind(Ended::Open.as_str())
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
    }
    for entry in entries {
        put_one(&mut write, entry).await?;
    }
    commit(write).await
}

async fn put_one(write: &mut Write, entry: &LedgerEntry) -> Result<(), StoreError> {
    query(
        "INSERT INTO predictions (prediction_id, instance_id, lever, state, made_us, entry) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (prediction_id) DO UPDATE SET instance_id = excluded.instance_id, \
         lever = excluded.lever, state = excluded.state, made_us = excluded.made_us, entry = excluded.entry",
    )
    .bind(&entry.prediction_id)
    .bind(&entry.instance_id)
    .bind(&entry.lever)
    .bind(entry.state.ended().as_str())
    .bind(PredictionPlace::of(entry).made_us)
    .bind(json(entry)?)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// Takes those that are open still to what they have become.
pub(super) async fn advance(
    store: &Backend,
    entries: &[LedgerEntry],
) -> Result<Vec<String>, StoreError> {
    let mut write = store.begin().await?;
    let mut advanced = Vec::new();
    for entry in entries {
        let updated = query(
            "UPDATE predictions SET state = $1, entry = $2 WHERE prediction_id = $3 AND state = $4",
        )
        .bind(entry.state.ended().as_str())
        .bind(json(entry)?)
        .bind(&entry.prediction_id)
        .bind(Ended::Open.as_str())
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
        if updated.rows_affected() > 0 {
            advanced.push(entry.prediction_id.clone());
        }
    }
    commit(write).await?;
    Ok(advanced)
}

/// The newest first.
pub(super) async fn read(
    view: &mut DbConnection,
    filter: &PredictionFilter,
    after: Option<&PredictionPlace>,
    size: u32,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut query =
        QueryBuilder::<Db>::new("SELECT prediction_id, entry FROM predictions WHERE TRUE");
    let state = filter.state.map(Ended::as_str);
    for (column, value) in [
        (" AND instance_id = ", filter.instance_id.as_deref()),
        (" AND lever = ", filter.lever.as_deref()),
        (" AND state = ", state),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    if let Some(after) = after {
        query.push(" AND (made_us, prediction_id) < (");
        query.push_bind(after.made_us).push(", ");
        query.push_bind(&after.prediction_id).push(")");
    }
    query.push(" ORDER BY made_us DESC, prediction_id DESC LIMIT ");
    query.push_bind(i64::from(size));
    let rows = query
        .build()
        .persistent(super::keeps_statements())
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    rows.iter().map(entry_of).collect()
}

/// Forgets what has ended and was made before, and of more than may be kept what has ended longest.
pub(super) async fn forget(
    store: &Backend,
    made_before: SystemTime,
    most: u32,
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    query("DELETE FROM predictions WHERE state <> $1 AND made_us < $2")
        .bind(Ended::Open.as_str())
        .bind(micros(made_before))
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    let row = query("SELECT count(*) AS there FROM predictions")
        .fetch_one(&mut *write)
        .await
        .map_err(trouble)?;
    let too_many = unsigned(&row, "there")?.saturating_sub(u64::from(most));
    query(
        "DELETE FROM predictions WHERE prediction_id IN \
         (SELECT prediction_id FROM predictions WHERE state <> $1 ORDER BY made_us, prediction_id LIMIT $2)",
    )
    .bind(Ended::Open.as_str())
    .bind(signed(too_many))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    commit(write).await
}

/// Expires what is open of an instance that is deleted.
pub(super) async fn expire_all_of(
    write: &mut Write,
    instance_id: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let open =
        query("SELECT prediction_id, entry FROM predictions WHERE instance_id = $1 AND state = $2")
            .bind(instance_id)
            .bind(Ended::Open.as_str())
            .fetch_all(&mut **write)
            .await
            .map_err(trouble)?;
    for row in &open {
        // one that this version cannot read stays as it is
        let Ok(mut entry) = entry_of(row) else {
            continue;
        };
        entry.state = LedgerState::Expired {
            at_unix_seconds: micros(now) as f64 / 1e6,
            reason: "The instance was deleted.".to_owned(),
        };
        put_one(write, &entry).await?;
    }
    Ok(())
}

fn entry_of(row: &DbRow) -> Result<LedgerEntry, StoreError> {
    let entry: String = row.try_get("entry").map_err(trouble)?;
    serde_json::from_str(&entry).map_err(|error| {
        let id: String = row.try_get("prediction_id").unwrap_or_default();
        StoreError::Unreadable(format!("prediction {id}: {error}"))
    })
}
