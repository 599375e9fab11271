//! Leases of workflows, by SQLite's clock.

use std::time::Duration;

use sqlx::Row;

use super::{SqliteStore, Write, commit, signed, trouble, unsigned};
use crate::store::{Lease, StoreError};

/// SQL of the time, unix time in microseconds, by SQLite's clock: the same for a whole statement.
macro_rules! now_us {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

/// Ends all leases. The lock of the state directory proves that every process that held one is gone, so that nobody waits
/// for their time to be over.
pub(super) async fn drop_all(store: &SqliteStore) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    sqlx::query("DELETE FROM leases")
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    commit(write).await
}

pub(super) async fn acquire(
    store: &SqliteStore,
    workflow_id: &str,
    holder: &str,
    time: Duration,
) -> Result<Lease, StoreError> {
    let mut write = store.begin().await?;
    let row = sqlx::query("SELECT 1 FROM workflows WHERE workflow_id = ?")
        .bind(workflow_id)
        .fetch_optional(&mut *write)
        .await
        .map_err(trouble)?;
    if row.is_none() {
        return Err(StoreError::NoWorkflow(workflow_id.to_owned()));
    }
    let held = sqlx::query(concat!(
        "SELECT holder FROM leases WHERE workflow_id = ? AND holder <> ? AND expires_us > ",
        now_us!()
    ))
    .bind(workflow_id)
    .bind(holder)
    .fetch_optional(&mut *write)
    .await
    .map_err(trouble)?;
    if let Some(held) = held {
        return Err(StoreError::Leased {
            workflow_id: workflow_id.to_owned(),
            holder: held.try_get("holder").map_err(trouble)?,
        });
    }
    // targets remember the highest epoch: one of a store that was lost must be lower, so that time is in it
    let row = sqlx::query(concat!(
        "UPDATE workflow_counters SET epoch = max(epoch + 1, ",
        now_us!(),
        ") RETURNING epoch"
    ))
    .fetch_one(&mut *write)
    .await
    .map_err(trouble)?;
    let epoch = unsigned(&row, "epoch")?;
    sqlx::query(concat!(
        "INSERT OR REPLACE INTO leases (workflow_id, holder, epoch, expires_us) VALUES (?, ?, ?, ",
        now_us!(),
        " + ?)"
    ))
    .bind(workflow_id)
    .bind(holder)
    .bind(signed(epoch))
    .bind(micros_of(time))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    commit(write).await?;
    Ok(Lease {
        workflow_id: workflow_id.to_owned(),
        holder: holder.to_owned(),
        epoch,
    })
}

/// One whose time is over is had for longer as well, as long as nobody took it: its epoch still says so.
pub(super) async fn renew(
    store: &SqliteStore,
    lease: &Lease,
    time: Duration,
) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    let renewed = sqlx::query(concat!(
        "UPDATE leases SET expires_us = ",
        now_us!(),
        " + ? WHERE workflow_id = ? AND epoch = ?"
    ))
    .bind(micros_of(time))
    .bind(&lease.workflow_id)
    .bind(signed(lease.epoch))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    if renewed.rows_affected() == 0 {
        return Err(StoreError::Moved(lease.workflow_id.clone()));
    }
    commit(write).await
}

pub(super) async fn release(store: &SqliteStore, lease: &Lease) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    sqlx::query("DELETE FROM leases WHERE workflow_id = ? AND epoch = ?")
        .bind(&lease.workflow_id)
        .bind(signed(lease.epoch))
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    commit(write).await
}

/// Refuses who holds a lease no more.
pub(super) async fn check(
    write: &mut Write,
    workflow_id: &str,
    epoch: u64,
) -> Result<(), StoreError> {
    let row = sqlx::query(concat!(
        "SELECT 1 FROM leases WHERE workflow_id = ? AND epoch = ? AND expires_us > ",
        now_us!()
    ))
    .bind(workflow_id)
    .bind(signed(epoch))
    .fetch_optional(&mut **write)
    .await
    .map_err(trouble)?;
    row.map(|_| ())
        .ok_or_else(|| StoreError::Moved(workflow_id.to_owned()))
}

fn micros_of(time: Duration) -> i64 {
    // room for the time of day before it
    const LONGEST: i64 = i64::MAX / 2;
    i64::try_from(time.as_micros()).map_or(LONGEST, |micros| micros.min(LONGEST))
}
