//! What agents found of the instances that they measure, for those who do not.

use std::time::Duration;

use sqlx::{QueryBuilder, Row};

use super::leases::micros_of;
use super::{Db, Write, query, trouble};
use crate::store::{Found, StoreError};

/// For how long it is kept: of what is measured no more it is of no use.
const KEPT: Duration = Duration::from_secs(4 * 3_600);
/// Transactions end in another order than they look at the clock, by less than this.
const OVERLAP: Duration = Duration::from_secs(60);
/// Rows of a statement.
const ROWS: usize = 500;

/// Keeps what an agent found. `found` is in the order of the instances, so that two that write the same do not wait for one
/// another.
pub(super) async fn put(
    write: &mut Write,
    agent_id: &str,
    found: &[(String, String)],
) -> Result<(), StoreError> {
    for some in found.chunks(ROWS) {
        let mut insert = QueryBuilder::<Db>::new(
            "INSERT INTO instances_found (instance_id, agent_id, found, updated_us) ",
        );
        insert.push_values(some, |mut row, (instance_id, found)| {
            row.push_bind(instance_id)
                .push_bind(agent_id)
                .push_bind(found)
                .push(now_us!());
        });
        insert.push(
            " ON CONFLICT (instance_id) DO UPDATE SET agent_id = excluded.agent_id, found = excluded.found, \
             updated_us = excluded.updated_us",
        );
        // of another length each time
        let insert = insert.build().persistent(false);
        insert.execute(&mut **write).await.map_err(trouble)?;
    }
    Ok(())
}

/// What others found since then, and a little before; what is too old is forgotten.
pub(super) async fn of_others(
    write: &mut Write,
    agent_id: &str,
    since_us: i64,
) -> Result<Vec<Found>, StoreError> {
    query(concat!(
        "DELETE FROM instances_found WHERE updated_us + $1 < ",
        now_us!()
    ))
    .bind(micros_of(KEPT))
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    let rows = query(
        "SELECT instance_id, agent_id, found FROM instances_found WHERE agent_id <> $1 AND updated_us >= $2",
    )
    .bind(agent_id)
    .bind(since_us.saturating_sub(micros_of(OVERLAP)))
    .fetch_all(&mut **write)
    .await
    .map_err(trouble)?;
    let found = rows.iter().map(|row| {
        Ok(Found {
            instance_id: row.try_get("instance_id").map_err(trouble)?,
            agent_id: row.try_get("agent_id").map_err(trouble)?,
            found: row.try_get("found").map_err(trouble)?,
        })
    });
    found.collect()
}

/// What was found of an instance that is deleted.
pub(super) async fn forget(write: &mut Write, instance_id: &str) -> Result<(), StoreError> {
    query("DELETE FROM instances_found WHERE instance_id = $1")
        .bind(instance_id)
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}
