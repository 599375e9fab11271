//! The shared store: a PostgreSQL that any number of agents use. Writes take turns on one lock of the database, so that they
//! are in the order of their revisions, as in the embedded store; reads have connections of their own and wait for none.

/// SQL of the time, unix time in microseconds, by the database's clock. Not that of the transaction's beginning: it may have
/// waited for its turn since.
macro_rules! now_us {
    () => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

mod connect;
mod hint;
mod server;
#[path = "sql/mod.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "the SQL is one, and compiled for each driver"
)]
mod sql;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgPool, PgPoolOptions};

use tokio::sync::watch;

use super::migrate::{self, Step};
use super::{OpenError, Opening, StoreError};
use crate::config::PostgresOptions;
use crate::instance::FieldViolation;
use hint::Hints;
pub use server::PostgresServer;
use sql::Write;

// what the SQL is compiled for
use PostgresStore as Backend;
use sqlx::PgConnection as DbConnection;
use sqlx::Postgres as Db;
use sqlx::postgres::PgRow as DbRow;

/// Durable state in a database that others use as well.
#[derive(Debug)]
pub struct PostgresStore {
    /// One waits for its turn while the other commits.
    writers: PgPool,
    readers: PgPool,
    hints: Hints,
}

/// Numbers are those of the embedded store, so that the same number means the same tables.
const MIGRATIONS: [Step; 2] = [
    (5, "begin", include_str!("migrations/postgres/5_begin.sql")),
    (
        6,
        "agents",
        include_str!("migrations/postgres/6_agents.sql"),
    ),
];

/// Other agents may have it too.
const IS_SHARED: bool = true;

/// Whether statements stay prepared in a connection: not where a pooler gives another one for each transaction. Of a process,
/// since it is asked where a query is made; a process has one database.
static KEEPS_STATEMENTS: AtomicBool = AtomicBool::new(true);

fn keeps_statements() -> bool {
    KEEPS_STATEMENTS.load(Ordering::Relaxed)
}

/// What follows an import: numbers that the database gives go on after those that came.
const AFTER_IMPORT: [&str; 2] = [
    "SELECT setval(pg_get_serial_sequence('webhook_secrets', 'place'), coalesce((SELECT max(place) FROM webhook_secrets), 0) + 1, FALSE)",
    "SELECT setval(pg_get_serial_sequence('deliveries', 'place'), coalesce((SELECT max(place) FROM deliveries), 0) + 1, FALSE)",
];

const WRITERS: u32 = 2;
const READERS: u32 = 4;
/// For a connection, with the time until a database that is restarted takes some again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// For all of one read or write. Longer than what the database itself allows, so that its error is the one that is told;
/// what this ends is what hears nothing from it.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// For a sign of life of a connection that is given back.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// What a write may rely on does not depend on how the database is set up. Who stands still in the middle of one loses it, and
/// with it the connection. The two writers of a process may hold the turn one after the other: twice `2s` is what the
/// others wait at most.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
    SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '10s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// The turn to write. It is of the schema, so that two installations in one database do not wait for each other.
const TAKE_TURN: &str = "SELECT pg_advisory_xact_lock(1885696614, hashtext(current_schema()))";

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '15s'";

const BEGIN_ASIDE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
    SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";

const BEGIN_LONG_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Others wait until the schema is there; it may take its time. What a pooler's connection has prepared for another agent would
/// be in the way: migrations are made with prepared statements.
const BEGIN_MIGRATION: &str = "BEGIN; DEALLOCATE ALL; \
    SELECT pg_advisory_xact_lock(1885696615, hashtext(current_schema()))";

impl PostgresStore {
    /// Opens the store, making or upgrading its schema. Others that do so wait.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        Self::open_as(options, Opening::Upgrade).await
    }

    /// Opens the store, with or without an upgrade.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_as(options: &PostgresOptions, opening: Opening) -> Result<Self, OpenError> {
        let store = Self::connect(options)?;
        let place = options.place();
        let failed = |error: sqlx::Error| connect::failed(options, &error);
        let migration = store.writers.begin_with(BEGIN_MIGRATION);
        let mut migration = migration.await.map_err(failed)?;
        migrate::migrate(&mut *migration, &MIGRATIONS, opening, &place).await?;
        migration.commit().await.map_err(failed)?;
        Ok(store)
    }

    fn connect(options: &PostgresOptions) -> Result<Self, OpenError> {
        let connect = connect::resolve(options)?;
        if options.is_pooled() {
            KEEPS_STATEMENTS.store(false, Ordering::Relaxed);
        }
        let readers = pool(READERS).connect_lazy_with(connect.clone());
        let listens = connect::resolve_listener(options)?;
        Ok(Self {
            writers: pool(WRITERS).connect_lazy_with(connect),
            hints: Hints::begin(readers.clone(), listens),
            readers,
        })
    }

    /// Has other agents look.
    fn hint(&self) {
        self.hints.tell();
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Some(self.hints.heard())
    }

    /// Takes its turn to write.
    async fn begin(&self) -> Result<Write, StoreError> {
        let mut write = begun(&self.writers, BEGIN_WRITE).await?;
        // within the transaction, so that it ends with it where there is no turn in time
        sqlx::query(TAKE_TURN)
            .persistent(keeps_statements())
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
        Ok(write)
    }

    /// Writes what need not be in the order of the other writes, and waits for none of them.
    async fn begin_aside(&self) -> Result<Write, StoreError> {
        begun(&self.readers, BEGIN_ASIDE).await
    }

    /// Reads what is committed, in one view.
    async fn view(&self) -> Result<Write, StoreError> {
        begun(&self.readers, BEGIN_READ).await
    }

    /// For as long as reading all of it takes.
    async fn long_view(&self) -> Result<Write, StoreError> {
        begun(&self.readers, BEGIN_LONG_READ).await
    }

    async fn reading<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        bounded(work).await
    }

    async fn writing<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        bounded(work).await
    }
}

/// A transaction that has begun. It is begun whether or not who asked still waits: the driver ends one that is dropped only
/// once it knows that it has begun.
async fn begun(pool: &PgPool, begin: &'static str) -> Result<Write, StoreError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(begin).await });
    match begun.await {
        Ok(begun) => begun.map_err(trouble),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// A database that is cut off says nothing, for as long as TCP goes on trying.
async fn bounded<T>(
    work: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let silent = |_| {
        let seconds = CALL_TIMEOUT.as_secs();
        StoreError::Unavailable(format!("the database said nothing for {seconds} s"))
    };
    tokio::time::timeout(CALL_TIMEOUT, work)
        .await
        .map_err(silent)
        .flatten()
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // one that is cut off would not come back for a quarter of an hour, and its place with it
        .after_release(|connection, _| {
            Box::pin(async move {
                match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
                    Ok(Ok(())) => Ok(true),
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(sqlx::Error::PoolTimedOut),
                }
            })
        })
}

/// What errors of PostgreSQL mean, by their SQLSTATE.
const DISK_FULL: &str = "53100";
/// `data_corrupted`, `index_corrupted`.
const DAMAGED: [&str; 2] = ["XX001", "XX002"];
/// `character_not_in_repertoire`: of text, the character NUL.
const NOT_TEXT: &str = "22021";

fn trouble(error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|database| database.code());
    match code.as_deref() {
        Some(NOT_TEXT) => StoreError::Invalid(vec![FieldViolation::new(
            "text",
            "must not hold the character NUL",
        )]),
        Some(DISK_FULL) => StoreError::Full(error.to_string()),
        Some(code) if DAMAGED.contains(&code) => StoreError::Unreadable(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl PostgresStore {
    /// Writes what no store would.
    pub(super) async fn run(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&self.writers).await.unwrap();
    }

    /// Is writing for as long as this is kept.
    pub(super) async fn keep_writing(&self) -> impl Drop + use<> {
        self.begin().await.unwrap()
    }
}
