//! The embedded store: one SQLite file in WAL, one connection that writes, every commit on disk before it is acknowledged.
//! Reads have connections of their own, so that a long one holds up no commit.

/// SQL of the time, unix time in microseconds, by SQLite's clock: the same for a whole statement.
macro_rules! now_us {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

#[path = "sql/mod.rs"]
mod sql;

use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use tokio::sync::watch;

use super::migrate::{self, Step};
use super::{OpenError, Opening, StateDir, StoreError};
use sql::Write;

// what the SQL is compiled for
use SqliteStore as Backend;
use sqlx::Sqlite as Db;
use sqlx::SqliteConnection as DbConnection;
use sqlx::sqlite::SqliteRow as DbRow;

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

pub(super) const MIGRATIONS: [Step; 6] = [
    (
        1,
        "instances",
        include_str!("migrations/sqlite/1_instances.sql"),
    ),
    (2, "slos", include_str!("migrations/sqlite/2_slos.sql")),
    (
        3,
        "predictions",
        include_str!("migrations/sqlite/3_predictions.sql"),
    ),
    (
        4,
        "workflows",
        include_str!("migrations/sqlite/4_workflows.sql"),
    ),
    (
        5,
        "webhooks",
        include_str!("migrations/sqlite/5_webhooks.sql"),
    ),
    (6, "agents", include_str!("migrations/sqlite/6_agents.sql")),
];

/// Nobody else has it.
const IS_SHARED: bool = false;

/// Statements stay prepared.
fn keeps_statements() -> bool {
    true
}

/// What follows an import: nothing.
const AFTER_IMPORT: [&str; 0] = [];

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
        Self::open_as(path, Opening::Upgrade).await
    }

    /// Opens the store in a directory, with or without an upgrade.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_as(path: &Path, opening: Opening) -> Result<Self, OpenError> {
        let directory = StateDir::take(path)?;
        let file = directory.file(FILE)?;
        let failed = |message: String| OpenError::Database {
            place: file.display().to_string(),
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
        let mut connection = writer
            .acquire()
            .await
            .map_err(|error| failed(error.to_string()))?;
        let place = file.display().to_string();
        migrate::migrate(&mut *connection, &MIGRATIONS, opening, &place).await?;
        drop(connection);
        let store = Self {
            writer,
            // opened when they are needed
            readers: pool(READERS).connect_lazy_with(options.read_only(true)),
            broken: AtomicBool::new(false),
            _directory: directory,
        };
        // the lock of the directory proves that every process that held one is gone, so that nobody waits for their time to
        // be over
        match store.writing(sql::drop_leases_and_claims(&store)).await {
            // on a full disk they end with their time
            Ok(()) | Err(StoreError::Full(_)) => {}
            Err(error) => return Err(failed(error.to_string())),
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

    /// Nobody else has it.
    fn hint(&self) {}

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Writes what need not be in the order of the other writes.
    async fn begin_aside(&self) -> Result<Write, StoreError> {
        self.begin().await
    }

    /// Reads what is committed, in one view.
    async fn view(&self) -> Result<Write, StoreError> {
        self.readers.begin().await.map_err(trouble)
    }

    async fn long_view(&self) -> Result<Write, StoreError> {
        self.view().await
    }

    async fn reading<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        work.await
    }

    /// Remembers whether the connection can be used again.
    async fn writing<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let result = work.await;
        if let Err(StoreError::Full(_) | StoreError::Unavailable(_) | StoreError::Unreadable(_)) =
            &result
        {
            self.broken.store(true, Ordering::SeqCst);
        }
        result
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
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
        use sqlx::Row as _;
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
