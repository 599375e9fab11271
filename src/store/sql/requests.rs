//! Requests that were carried out: a repeat changes nothing, and is answered as it was then.

use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;

use super::{DbConnection, json, micros, query, trouble};
use crate::store::{Once, REQUESTS_KEPT, StoreError};

/// What the same request was answered before.
pub(super) async fn earlier<A: DeserializeOwned>(
    connection: &mut DbConnection,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Option<A>, StoreError> {
    let Some(once) = once else { return Ok(None) };
    let row = query(
        "SELECT digest, answer FROM requests \
         WHERE principal = $1 AND method = $2 AND request_id = $3 AND done_us >= $4",
    )
    .bind(&once.principal)
    .bind(once.method)
    .bind(&once.request_id)
    .bind(oldest(now))
    .fetch_optional(connection)
    .await
    .map_err(trouble)?;
    let Some(row) = row else { return Ok(None) };
    let digest: Vec<u8> = row.try_get("digest").map_err(trouble)?;
    if digest != once.digest {
        return Err(StoreError::RequestIdReused(once.request_id.clone()));
    }
    let answer: String = row.try_get("answer").map_err(trouble)?;
    serde_json::from_str(&answer)
        .map(Some)
        .map_err(|error| StoreError::Unreadable(format!("an earlier answer: {error}")))
}

/// Remembers what a request is answered, and forgets those of more than a day ago.
pub(super) async fn remember(
    connection: &mut DbConnection,
    once: Option<&Once>,
    answer: &impl Serialize,
    now: SystemTime,
) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    query("DELETE FROM requests WHERE done_us < $1")
        .bind(oldest(now))
        .execute(&mut *connection)
        .await
        .map_err(trouble)?;
    query(
        "INSERT INTO requests (principal, method, request_id, digest, answer, done_us) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&once.principal)
    .bind(once.method)
    .bind(&once.request_id)
    .bind(once.digest.as_slice())
    .bind(json(answer)?)
    .bind(micros(now))
    .execute(connection)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// When a request must have been carried out to be recognised, unix time in microseconds.
fn oldest(now: SystemTime) -> i64 {
    micros(now).saturating_sub(i64::try_from(REQUESTS_KEPT.as_micros()).unwrap_or(i64::MAX))
}
