//! Who uses the store, by the clock of the database.

use sqlx::Row;

use super::leases::micros_of;
use super::{Backend, commit, found, query, trouble};
use crate::store::{Beat, Says, StoreError};

/// Says that an agent is there and what it found, and who is and what they found.
pub(super) async fn beat(store: &Backend, says: &Says<'_>) -> Result<Beat, StoreError> {
    let agent_id = says.agent_id;
    let mut write = store.begin_aside().await?;
    query(concat!(
        "INSERT INTO agents (agent_id, until_us) VALUES ($1, ",
        now_us!(),
        " + $2) ON CONFLICT (agent_id) DO UPDATE SET until_us = excluded.until_us"
    ))
    .bind(agent_id)
    .bind(micros_of(says.time))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    // each is gone for ever: one that is started again has another id
    query(concat!(
        "DELETE FROM agents WHERE agent_id <> $1 AND until_us + $2 < ",
        now_us!()
    ))
    .bind(agent_id)
    .bind(micros_of(says.patience))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    let rows = query("SELECT agent_id FROM agents ORDER BY agent_id")
        .fetch_all(&mut *write)
        .await
        .map_err(trouble)?;
    // before it is overwritten: who finds that another told the same is not to be the last to tell it
    let found = found::of_others(&mut write, agent_id, says.since_us).await?;
    found::put(&mut write, agent_id, says.found).await?;
    let clock = query(concat!("SELECT ", now_us!(), " AS now_us"))
        .fetch_one(&mut *write)
        .await
        .map_err(trouble)?;
    commit(write).await?;
    let ids = rows.iter().map(|row| row.try_get("agent_id"));
    Ok(Beat {
        agents: ids.collect::<Result<_, _>>().map_err(trouble)?,
        found,
        now_us: clock.try_get("now_us").map_err(trouble)?,
    })
}

/// Says that an agent is there no more.
pub(super) async fn leave(store: &Backend, agent_id: &str) -> Result<(), StoreError> {
    let mut write = store.begin_aside().await?;
    query("DELETE FROM agents WHERE agent_id = $1")
        .bind(agent_id)
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    commit(write).await
}
