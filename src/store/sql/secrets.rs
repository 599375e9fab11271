//! Secrets of webhooks.

use sqlx::Row;

use super::{DbConnection, DbRow, Write, query, trouble};
use crate::store::StoreError;
use crate::webhook::Secret;

/// What one is signed with, the newest first.
pub(super) async fn of(
    connection: &mut DbConnection,
    webhook_id: &str,
    now_us: i64,
) -> Result<Vec<Secret>, StoreError> {
    let rows = query(
        "SELECT secret FROM webhook_secrets WHERE webhook_id = $1 AND (until_us IS NULL OR until_us > $2) \
         ORDER BY place DESC",
    )
    .bind(webhook_id)
    .bind(now_us)
    .fetch_all(connection)
    .await
    .map_err(trouble)?;
    let secret = |row: &DbRow| {
        let text: String = row.try_get("secret").map_err(trouble)?;
        // the error does not show it
        Secret::parse(&text).map_err(|error| {
            StoreError::Unreadable(format!("a secret of webhook {webhook_id}: {error}"))
        })
    };
    rows.iter().map(secret).collect()
}

/// A new one, the newest.
pub(super) async fn add(write: &mut Write, id: &str, secret: &Secret) -> Result<(), StoreError> {
    query("INSERT INTO webhook_secrets (webhook_id, secret) VALUES ($1, $2)")
        .bind(id)
        .bind(secret.expose())
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}

/// All of one.
pub(super) async fn remove(write: &mut Write, id: &str) -> Result<(), StoreError> {
    query("DELETE FROM webhook_secrets WHERE webhook_id = $1")
        .bind(id)
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    Ok(())
}
