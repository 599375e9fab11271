//! Snapshots of settings: what they hold is read one snapshot at a time, and never with a list.

use sqlx::{QueryBuilder, Row};

use super::{Backend, Db, DbConnection, DbRow, Write, commit, json, query, trouble};
use crate::store::{Snapshot, SnapshotTarget, StoreError};

pub(super) async fn put_alone(store: &Backend, snapshot: &Snapshot) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    put(&mut write, snapshot).await?;
    commit(write).await
}

/// Keeps a snapshot. One that is there is never written over: it may be what a workflow has to restore.
pub(super) async fn put(write: &mut Write, snapshot: &Snapshot) -> Result<(), StoreError> {
    let id = &snapshot.snapshot_id;
    match read(write, id).await? {
        Some(there) if there == *snapshot => return Ok(()),
        Some(_) => {
            return Err(StoreError::Unavailable(format!(
                "there is a snapshot {id} already, and it is another"
            )));
        }
        None => {}
    }
    query(
        "INSERT INTO snapshots \
         (snapshot_id, instance_id, actuator, created_us, created_by, workflow_id, note, planned) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(&snapshot.instance_id)
    .bind(&snapshot.actuator)
    .bind(snapshot.created_us)
    .bind(&snapshot.created_by)
    .bind(&snapshot.workflow_id)
    .bind(&snapshot.note)
    .bind(i64::from(snapshot.is_planned))
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    for (place, target) in (0_i64..).zip(&snapshot.targets) {
        query(
            "INSERT INTO snapshot_targets (snapshot_id, place, name, revision, digest, launch_args, content) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(place)
        .bind(&target.name)
        .bind(&target.revision)
        .bind(&target.digest)
        .bind(json(&target.launch_args)?)
        .bind(target.content.as_slice())
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    }
    Ok(())
}

/// A snapshot with its content. Both its tables are read: the caller has a transaction.
pub(super) async fn read(
    connection: &mut DbConnection,
    snapshot_id: &str,
) -> Result<Option<Snapshot>, StoreError> {
    let row = query("SELECT snapshot_id, instance_id, actuator, created_us, created_by, workflow_id, note, planned FROM snapshots \
         WHERE snapshot_id = $1")
        .bind(snapshot_id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(trouble)?;
    let Some(row) = row else { return Ok(None) };
    let mut snapshot = snapshot_of(&row)?;
    let targets = query(
        "SELECT name AS target, revision, digest, launch_args, content FROM snapshot_targets \
         WHERE snapshot_id = $1 ORDER BY place",
    )
    .bind(snapshot_id)
    .fetch_all(connection)
    .await
    .map_err(trouble)?;
    for row in &targets {
        let mut target = target_of(row, snapshot_id)?;
        target.content = row.try_get("content").map_err(trouble)?;
        snapshot.targets.push(target);
    }
    Ok(Some(snapshot))
}

/// Those that no workflow has planned, the newest first, without content.
pub(super) async fn list(
    view: &mut DbConnection,
    instance_id: Option<&str>,
    before: Option<&str>,
    size: u32,
) -> Result<Vec<Snapshot>, StoreError> {
    let mut query = QueryBuilder::<Db>::new(
        "SELECT listed.*, target.name AS target, target.revision, target.digest, target.launch_args \
         FROM (SELECT snapshot_id, instance_id, actuator, created_us, created_by, workflow_id, note, planned \
         FROM snapshots WHERE planned = 0",
    );
    for (column, value) in [
        (" AND instance_id = ", instance_id),
        (" AND snapshot_id < ", before),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    query.push(" ORDER BY snapshot_id DESC LIMIT ");
    query.push_bind(i64::from(size));
    query.push(
        ") AS listed LEFT JOIN snapshot_targets AS target ON target.snapshot_id = listed.snapshot_id \
         ORDER BY listed.snapshot_id DESC, target.place",
    );
    let rows = query
        .build()
        .persistent(super::keeps_statements())
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    let mut found: Vec<Snapshot> = Vec::new();
    for row in &rows {
        let id: String = row.try_get("snapshot_id").map_err(trouble)?;
        let is_next = found.last().is_none_or(|last| last.snapshot_id != id);
        if is_next {
            found.push(snapshot_of(row)?);
        }
        let name: Option<String> = row.try_get("target").map_err(trouble)?;
        if let (Some(_), Some(last)) = (name, found.last_mut()) {
            last.targets.push(target_of(row, &id)?);
        }
    }
    Ok(found)
}

fn snapshot_of(row: &DbRow) -> Result<Snapshot, StoreError> {
    let read = || {
        Ok(Snapshot {
            snapshot_id: row.try_get("snapshot_id")?,
            instance_id: row.try_get("instance_id")?,
            actuator: row.try_get("actuator")?,
            created_us: row.try_get("created_us")?,
            created_by: row.try_get("created_by")?,
            workflow_id: row.try_get("workflow_id")?,
            note: row.try_get("note")?,
            is_planned: row.try_get::<i64, _>("planned")? == 1,
            targets: Vec::new(),
        })
    };
    read().map_err(trouble)
}

/// A target without its content.
fn target_of(row: &DbRow, snapshot_id: &str) -> Result<SnapshotTarget, StoreError> {
    let launch_args: String = row.try_get("launch_args").map_err(trouble)?;
    let launch_args = serde_json::from_str(&launch_args)
        .map_err(|error| StoreError::Unreadable(format!("snapshot {snapshot_id}: {error}")))?;
    let read = || {
        Ok(SnapshotTarget {
            name: row.try_get("target")?,
            revision: row.try_get("revision")?,
            digest: row.try_get("digest")?,
            launch_args,
            content: Vec::new(),
        })
    };
    read().map_err(trouble)
}
