//! The embedded store: one SQLite file in WAL, one connection that writes, every commit on disk before it is acknowledged.
//! Reads have connections of their own, so that a long one holds up no commit.

mod deliveries;
mod instances;
mod leases;
mod log;
mod migrate;
mod predictions;
mod requests;
mod snapshots;
mod webhooks;
mod workflows;

use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Serialize;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use super::{
    Change, Once, OpenError, PredictionFilter, PredictionPlace, StateDir, Store, StoreError,
    Written, micros,
};
use crate::instance::{Instance, InstanceSpec};
use crate::optimization::LedgerEntry;

/// Durable state in one file.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection: one writer at a time is what SQLite has, and here they take turns in order.
    writer: SqlitePool,
    /// Read what is committed, whatever is being written.
    readers: SqlitePool,
    /// The last write failed. SQLite may have rolled back by itself (a full disk), which sqlx does not notice: what it
    /// takes for the next transaction would then be part of one that never ends, so another connection takes over.
    broken: AtomicBool,
    _directory: StateDir,
}

const FILE: &str = "perfagent.db";
/// Bounds what a stuck disk holds up.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

impl SqliteStore {
    /// Opens the store in a directory, making or upgrading it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let directory = StateDir::take(path)?;
        let file = directory.file(FILE)?;
        let failed = |message: String| OpenError::Database {
            path: file.clone(),
            message,
        };
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(|error| failed(error.to_string()))?
            .filename(&file)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writer = pool(1)
            .connect_with(writing)
            .await
            .map_err(|error| failed(error.to_string()))?;
        migrate::migrate(&writer, &file).await?;
        let store = Self {
            writer,
            // opened when they are needed
            readers: pool(READERS).connect_lazy_with(options.read_only(true)),
            broken: AtomicBool::new(false),
            _directory: directory,
        };
        for dropped in [
            leases::drop_all(&store).await,
            deliveries::drop_claims(&store).await,
        ] {
            match store.settled(dropped) {
                // on a full disk they end with their time
                Ok(()) | Err(StoreError::Full(_)) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Ok(store)
    }

    async fn begin(&self) -> Result<Write, StoreError> {
        if self.broken.swap(false, Ordering::SeqCst) {
            self.take_another_connection().await?;
        }
        // refused within another transaction, which there must never be
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            Ok(write) => Ok(write),
            Err(error @ sqlx::Error::PoolTimedOut) => Err(trouble(error)),
            // who used it before may not have said yet that it is broken
            Err(_) => {
                self.take_another_connection().await?;
                let write = self.writer.begin_with("BEGIN IMMEDIATE").await;
                write.map_err(trouble)
            }
        }
    }

    async fn take_another_connection(&self) -> Result<(), StoreError> {
        let connection = self.writer.acquire().await.map_err(trouble)?;
        // what it still holds was acknowledged to nobody
        let _ = connection.close().await;
        Ok(())
    }

    /// Remembers whether the connection can be used again.
    fn settled<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Full(_) | StoreError::Unavailable(_) | StoreError::Unreadable(_)) =
            &result
        {
            self.broken.store(true, Ordering::SeqCst);
        }
        result
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        instances::all(&self.readers).await
    }

    async fn answered(&self, once: &Once, now: SystemTime) -> Result<Option<Written>, StoreError> {
        let mut read = self.readers.acquire().await.map_err(trouble)?;
        instances::earlier(&mut read, Some(once), now).await
    }

    async fn create_instance(
        &self,
        spec: &InstanceSpec,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(instances::create(self, spec, once, now).await)
    }

    async fn update_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        change: &Change<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(instances::update(self, id, expected, change, once, now).await)
    }

    async fn delete_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(instances::delete(self, id, expected, once, now).await)
    }

    async fn put_predictions(
        &self,
        entries: &[LedgerEntry],
        gone: &[String],
    ) -> Result<(), StoreError> {
        self.settled(predictions::put(self, entries, gone).await)
    }

    async fn predictions(
        &self,
        filter: &PredictionFilter,
        after: Option<&PredictionPlace>,
        size: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        predictions::read(&self.readers, filter, after, size).await
    }

    async fn forget_predictions(
        &self,
        made_before: SystemTime,
        most: u32,
    ) -> Result<(), StoreError> {
        self.settled(predictions::forget(self, made_before, most).await)
    }
}

type Write = Transaction<'static, Sqlite>;

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// The only place where anything is committed.
async fn commit(write: Write) -> Result<(), StoreError> {
    failpoint!("store::before_commit", Err(failpoint_says()));
    write.commit().await.map_err(trouble)?;
    failpoint!("store::after_commit");
    // done, and told that it failed
    failpoint!("store::told_failed", Err(failpoint_says()));
    Ok(())
}

#[cfg(feature = "failpoints")]
fn failpoint_says() -> StoreError {
    StoreError::Unavailable("a failpoint says that it was not committed".to_owned())
}

fn json(of: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(of).map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// A number that is never negative.
fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(trouble)?;
    u64::try_from(number).map_err(|_| StoreError::Unreadable(format!("{column} {number}")))
}

/// A number as SQLite has them: none is beyond what it can count to.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// What is answered now is what is read later.
fn to_the_microsecond(at: SystemTime) -> SystemTime {
    time(micros(at))
}

/// SQLite's code for a disk without room.
const SQLITE_FULL: &str = "13";

/// And for a file that is damaged or none of its own.
const SQLITE_DAMAGED: [&str; 2] = ["11", "26"];

fn trouble(error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|database| database.code());
    match code.as_deref() {
        Some(SQLITE_FULL) => StoreError::Full(error.to_string()),
        Some(code) if SQLITE_DAMAGED.contains(&code) => StoreError::Unreadable(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl SqliteStore {
    /// Leaves room for this many pages more than there are, as a disk that fills up does.
    pub(crate) async fn leave_pages(&self, more: i64) {
        // of the connection that takes over, where the last write failed
        drop(self.begin().await.unwrap());
        let mut connection = self.writer.acquire().await.unwrap();
        let row = sqlx::query("PRAGMA page_count")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        let pages: i64 = row.get(0);
        let limit = format!("PRAGMA max_page_count = {}", pages + more);
        sqlx::query(sqlx::AssertSqlSafe(limit))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    }

    /// As if a later version had upgraded it.
    pub(super) async fn pretend_schema(&self, version: i64) {
        self.run(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES ({version}, 'later', TRUE, x'00', 0)"
        ))
        .await;
    }

    /// Writes what no store would.
    pub(super) async fn run(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&self.writer).await.unwrap();
    }

    /// Is writing for as long as this is kept.
    pub(super) async fn keep_writing(&self) -> impl Drop + use<> {
        self.begin().await.unwrap()
    }
}
