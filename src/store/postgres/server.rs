//! What is at the other end.

use std::time::{Instant, SystemTime};

use serde::Serialize;
use sqlx::Row;

use super::{PostgresStore, trouble};
use crate::store::{StoreError, micros};

/// The database server, as it answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PostgresServer {
    /// Such as `15.18`.
    pub version: String,
    /// The connection is encrypted.
    pub is_encrypted: bool,
    /// Between a question and its answer: the shortest of some.
    pub round_trip_seconds: f64,
    /// How far its clock is ahead of this machine's. Leases go by its clock alone.
    pub clock_ahead_seconds: f64,
}

const QUESTIONS: usize = 5;

impl PostgresStore {
    /// Asks the server about itself.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn server(&self) -> Result<PostgresServer, StoreError> {
        let mut view = self.view().await?;
        let mut found: Option<PostgresServer> = None;
        for _ in 0..QUESTIONS {
            let (asked, wall) = (Instant::now(), SystemTime::now());
            let row = sqlx::query(concat!(
                "SELECT current_setting('server_version') AS version, \
                 coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), FALSE) AS ssl, ",
                now_us!(),
                " AS now_us"
            ))
            .persistent(super::keeps_statements())
            .fetch_one(&mut *view)
            .await
            .map_err(trouble)?;
            let round_trip_seconds = asked.elapsed().as_secs_f64();
            let version: String = row.try_get("version").map_err(trouble)?;
            let now_us: i64 = row.try_get("now_us").map_err(trouble)?;
            let between = round_trip_seconds / 2.0;
            let server = PostgresServer {
                // without what a distribution adds
                version: version.split(' ').next().unwrap_or_default().to_owned(),
                is_encrypted: row.try_get("ssl").map_err(trouble)?,
                round_trip_seconds,
                clock_ahead_seconds: (now_us - micros(wall)) as f64 / 1e6 - between,
            };
            found = match found {
                Some(best) if best.round_trip_seconds <= round_trip_seconds => Some(best),
                _ => Some(server),
            };
        }
        found.ok_or_else(|| StoreError::Unavailable("the database says nothing".to_owned()))
    }
}
