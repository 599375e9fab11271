//! The ledger of predictions: the entry as JSON, beside what it is found by.

use std::time::SystemTime;

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{SqliteStore, Write, commit, json, micros, trouble};
use crate::optimization::{Ended, LedgerEntry, LedgerState};
use crate::store::{PredictionFilter, PredictionPlace, StoreError};

/// Keeps these as they are now, and forgets those of these ids.
pub(super) async fn put(
    store: &SqliteStore,
    entries: &[LedgerEntry],
    gone: &[String],
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    for id in gone {
        sqlx::query("DELETE FROM predictions WHERE prediction_id = ?")
            .bind(id)
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
    }
    for entry in entries {
        sqlx::query(
            "INSERT OR REPLACE INTO predictions (prediction_id, instance_id, lever, state, made_us, entry) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&entry.prediction_id)
        .bind(&entry.instance_id)
        .bind(&entry.lever)
        .bind(entry.state.ended().as_str())
        .bind(PredictionPlace::of(entry).made_us)
        .bind(json(entry)?)
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    }
    commit(write).await
}

/// The newest first.
pub(super) async fn read(
    pool: &SqlitePool,
    filter: &PredictionFilter,
    after: Option<&PredictionPlace>,
    size: u32,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut query =
        QueryBuilder::<Sqlite>::new("SELECT prediction_id, entry FROM predictions WHERE TRUE");
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
    let rows = query.build().fetch_all(pool).await.map_err(trouble)?;
    rows.iter().map(entry_of).collect()
}

/// Forgets what has ended and was made before, and of more than may be kept what has ended longest.
pub(super) async fn forget(
    store: &SqliteStore,
    made_before: SystemTime,
    most: u32,
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    sqlx::query("DELETE FROM predictions WHERE state <> ? AND made_us < ?")
        .bind(Ended::Open.as_str())
        .bind(micros(made_before))
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    sqlx::query(
        "DELETE FROM predictions WHERE prediction_id IN \
         (SELECT prediction_id FROM predictions WHERE state <> ? ORDER BY made_us, prediction_id \
          LIMIT max(0, (SELECT count(*) FROM predictions) - ?))",
    )
    .bind(Ended::Open.as_str())
    .bind(i64::from(most))
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
    let expired = LedgerState::Expired {
        at_unix_seconds: micros(now) as f64 / 1e6,
        reason: "The instance was deleted.".to_owned(),
    };
    sqlx::query(
        "UPDATE predictions SET state = ?, entry = json_set(entry, '$.state', json(?)) \
         WHERE instance_id = ? AND state = ?",
    )
    .bind(expired.ended().as_str())
    .bind(json(&expired)?)
    .bind(instance_id)
    .bind(Ended::Open.as_str())
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

fn entry_of(row: &SqliteRow) -> Result<LedgerEntry, StoreError> {
    let entry: String = row.try_get("entry").map_err(trouble)?;
    serde_json::from_str(&entry).map_err(|error| {
        let id: String = row.try_get("prediction_id").unwrap_or_default();
        StoreError::Unreadable(format!("prediction {id}: {error}"))
    })
}
