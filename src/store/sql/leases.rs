//! Leases of workflows, by the clock of the database.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{QueryBuilder, Row};

use super::{Backend, Db, Write, commit, query, signed, trouble, unsigned};
use crate::store::{Lease, StoreError};

/// Ends all leases.
pub(super) async fn drop_all(write: &mut Write) -> Result<(), StoreError> {
    query("DELETE FROM leases")
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}

pub(super) async fn acquire(
    store: &Backend,
    workflow_id: &str,
    holder: &str,
    time: Duration,
) -> Result<Lease, StoreError> {
    let mut write = store.begin().await?;
    let row = query("SELECT 1 FROM workflows WHERE workflow_id = $1")
        .bind(workflow_id)
        .fetch_optional(&mut *write)
        .await
        .map_err(trouble)?;
    if row.is_none() {
        return Err(StoreError::NoWorkflow(workflow_id.to_owned()));
    }
    // targets remember the highest epoch: one of a store that was lost must be lower, so that time is in it
    let row = query(concat!(
        "UPDATE workflow_counters SET epoch = CASE WHEN epoch < ",
        now_us!(),
        " THEN ",
        now_us!(),
        " ELSE epoch + 1 END RETURNING epoch"
    ))
    .fetch_one(&mut *write)
    .await
    .map_err(trouble)?;
    let epoch = unsigned(&row, "epoch")?;
    // in one statement: who holds it may be renewing it at the same time
    let taken = query(concat!(
        "INSERT INTO leases (workflow_id, holder, epoch, expires_us) VALUES ($1, $2, $3, ",
        now_us!(),
        " + $4) ON CONFLICT (workflow_id) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, \
         expires_us = excluded.expires_us WHERE leases.holder = excluded.holder OR leases.expires_us <= ",
        now_us!()
    ))
    .bind(workflow_id)
    .bind(holder)
    .bind(signed(epoch))
    .bind(micros_of(time))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    if taken.rows_affected() == 0 {
        let held = query("SELECT holder FROM leases WHERE workflow_id = $1")
            .bind(workflow_id)
            .fetch_one(&mut *write)
            .await
            .map_err(trouble)?;
        return Err(StoreError::Leased {
            workflow_id: workflow_id.to_owned(),
            holder: held.try_get("holder").map_err(trouble)?,
        });
    }
    commit(write).await?;
    Ok(Lease {
        workflow_id: workflow_id.to_owned(),
        holder: holder.to_owned(),
        epoch,
    })
}

/// Leases in one statement.
const TOGETHER: usize = 500;

/// One whose time is over is had for longer as well, as long as nobody took it: its epoch still says so.
pub(super) async fn renew(
    store: &Backend,
    leases: &[Lease],
    time: Duration,
) -> Result<BTreeSet<String>, StoreError> {
    let mut renewed = BTreeSet::new();
    if leases.is_empty() {
        return Ok(renewed);
    }
    let mut write = store.begin_aside().await?;
    for together in leases.chunks(TOGETHER) {
        let mut update =
            QueryBuilder::<Db>::new(concat!("UPDATE leases SET expires_us = ", now_us!(), " + "));
        update.push_bind(micros_of(time));
        update.push(" WHERE (workflow_id, epoch) IN (");
        update.push_values(together, |mut row, lease| {
            row.push_bind(lease.workflow_id.clone())
                .push_bind(signed(lease.epoch));
        });
        update.push(") RETURNING workflow_id");
        let rows = update
            .build()
            .persistent(false)
            .fetch_all(&mut *write)
            .await;
        for row in rows.map_err(trouble)? {
            renewed.insert(row.try_get("workflow_id").map_err(trouble)?);
        }
    }
    commit(write).await?;
    Ok(renewed)
}

pub(super) async fn release(store: &Backend, lease: &Lease) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    query("DELETE FROM leases WHERE workflow_id = $1 AND epoch = $2")
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
    let row = query(concat!(
        "SELECT 1 FROM leases WHERE workflow_id = $1 AND epoch = $2 AND expires_us > ",
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

pub(super) fn micros_of(time: Duration) -> i64 {
    // room for the time of day before it
    const LONGEST: i64 = i64::MAX / 2;
    i64::try_from(time.as_micros()).map_or(LONGEST, |micros| micros.min(LONGEST))
}
