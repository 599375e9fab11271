//! Who uses the store, by the clock of the database.

use std::time::Duration;

use sqlx::Row;

use super::leases::micros_of;
use super::{Backend, commit, query, trouble};
use crate::store::{Beat, StoreError};

/// For how long one that has said nothing is waited for.
const ALIVE_AGAIN: Duration = Duration::from_secs(15);

/// Says that an agent is there for this time, and who is.
pub(super) async fn beat(
    store: &Backend,
    agent_id: &str,
    time: Duration,
) -> Result<Beat, StoreError> {
    let mut write = store.begin_aside().await?;
    query(concat!(
        "INSERT INTO agents (agent_id, until_us) VALUES ($1, ",
        now_us!(),
        " + $2) ON CONFLICT (agent_id) DO UPDATE SET until_us = excluded.until_us"
    ))
    .bind(agent_id)
    .bind(micros_of(time))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    // each is gone for ever: one that is started again has another id. As long again it is waited for one that could not say
    // so: while the database was away nobody could
    query(concat!(
        "DELETE FROM agents WHERE agent_id <> $1 AND until_us + $2 < ",
        now_us!()
    ))
    .bind(agent_id)
    .bind(micros_of(ALIVE_AGAIN))
    .execute(&mut *write)
    .await
    .map_err(trouble)?;
    let rows = query("SELECT agent_id FROM agents ORDER BY agent_id")
        .fetch_all(&mut *write)
        .await
        .map_err(trouble)?;
    let clock = query(concat!("SELECT ", now_us!(), " AS now_us"))
        .fetch_one(&mut *write)
        .await
        .map_err(trouble)?;
    commit(write).await?;
    let ids = rows.iter().map(|row| row.try_get("agent_id"));
    Ok(Beat {
        agents: ids.collect::<Result<_, _>>().map_err(trouble)?,
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
