//! The embedded store: one SQLite file, one connection, WAL, every commit on disk before it is acknowledged.

mod migrate;
mod predictions;

use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use super::{
    Change, Once, OpenError, PredictionFilter, PredictionPlace, REQUESTS_KEPT, StateDir, Store,
    StoreError, Written,
};
use crate::instance::{Instance, InstanceSpec, Source};
use crate::optimization::LedgerEntry;

/// Durable state in one file.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// The last write failed. SQLite may have rolled back by itself (a full disk), which sqlx does not notice: what it
    /// takes for the next transaction would then be part of one that never ends, so another connection takes over.
    broken: AtomicBool,
    _directory: StateDir,
}

const FILE: &str = "perfagent.db";
/// Bounds what a stuck disk holds up.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

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
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            // one writer at a time is what SQLite has; reads are few, since instances are in memory too
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(|error| failed(error.to_string()))?;
        migrate::migrate(&pool, &file).await?;
        Ok(Self {
            pool,
            broken: AtomicBool::new(false),
            _directory: directory,
        })
    }

    async fn begin(&self) -> Result<Write, StoreError> {
        if self.broken.swap(false, Ordering::SeqCst) {
            let connection = self.pool.acquire().await.map_err(trouble)?;
            // what it still holds was acknowledged to nobody
            let _ = connection.close().await;
        }
        // refused within another transaction, which there must never be
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(trouble)
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
        let rows = sqlx::query("SELECT * FROM instances ORDER BY instance_id")
            .fetch_all(&self.pool)
            .await
            .map_err(trouble)?;
        rows.iter().map(instance_of).collect()
    }

    async fn answered(&self, once: &Once, now: SystemTime) -> Result<Option<Written>, StoreError> {
        self.settled(self.earlier(once, now).await)
    }

    async fn create_instance(
        &self,
        spec: &InstanceSpec,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(self.create(spec, once, now).await)
    }

    async fn update_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        change: &Change<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(self.update(id, expected, change, once, now).await)
    }

    async fn delete_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.settled(self.delete(id, expected, once, now).await)
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
        predictions::read(&self.pool, filter, after, size).await
    }

    async fn forget_predictions(
        &self,
        made_before: SystemTime,
        most: u32,
    ) -> Result<(), StoreError> {
        self.settled(predictions::forget(self, made_before, most).await)
    }
}

impl SqliteStore {
    async fn earlier(&self, once: &Once, now: SystemTime) -> Result<Option<Written>, StoreError> {
        let mut read = self.begin().await?;
        earlier(&mut read, Some(once), now).await
    }

    async fn create(
        &self,
        spec: &InstanceSpec,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        let mut write = self.begin().await?;
        if let Some(before) = earlier(&mut write, once, now).await? {
            return Ok(before);
        }
        let id = &spec.instance_id;
        if read(&mut write, id).await?.is_some() {
            return Err(StoreError::Exists(id.clone()));
        }
        let instance = Instance {
            spec: spec.clone(),
            source: Source::Registered,
            revision: Some(next_revision(&mut write).await?),
            created_at: Some(to_the_microsecond(now)),
            updated_at: Some(to_the_microsecond(now)),
        };
        put(&mut write, &instance).await?;
        finish(write, instance, once, now).await
    }

    async fn update(
        &self,
        id: &str,
        expected: Option<u64>,
        change: &Change<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        let mut write = self.begin().await?;
        if let Some(before) = earlier(&mut write, once, now).await? {
            return Ok(before);
        }
        let mut instance = read_expected(&mut write, id, expected).await?;
        instance.spec = change(instance.spec).map_err(StoreError::Invalid)?;
        instance.revision = Some(next_revision(&mut write).await?);
        instance.updated_at = Some(to_the_microsecond(now));
        put(&mut write, &instance).await?;
        finish(write, instance, once, now).await
    }

    async fn delete(
        &self,
        id: &str,
        expected: Option<u64>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        let mut write = self.begin().await?;
        if let Some(before) = earlier(&mut write, once, now).await? {
            return Ok(before);
        }
        let instance = read_expected(&mut write, id, expected).await?;
        next_revision(&mut write).await?;
        predictions::expire_all_of(&mut write, id, now).await?;
        sqlx::query("DELETE FROM instances WHERE instance_id = ?")
            .bind(id)
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
        finish(write, instance, once, now).await
    }
}

type Write = Transaction<'static, Sqlite>;

/// What the same request was answered before.
async fn earlier(
    write: &mut Write,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Option<Written>, StoreError> {
    let Some(once) = once else { return Ok(None) };
    let oldest = micros(now) - i64::try_from(REQUESTS_KEPT.as_micros()).unwrap_or(i64::MAX);
    sqlx::query("DELETE FROM requests WHERE done_us < ?")
        .bind(oldest)
        .execute(&mut **write)
        .await
        .map_err(trouble)?;
    let row = sqlx::query(
        "SELECT digest, answer FROM requests WHERE principal = ? AND method = ? AND request_id = ?",
    )
    .bind(&once.principal)
    .bind(once.method)
    .bind(&once.request_id)
    .fetch_optional(&mut **write)
    .await
    .map_err(trouble)?;
    let Some(row) = row else { return Ok(None) };
    let digest: Vec<u8> = row.try_get("digest").map_err(trouble)?;
    if digest != once.digest {
        return Err(StoreError::RequestIdReused(once.request_id.clone()));
    }
    let answer: String = row.try_get("answer").map_err(trouble)?;
    let stored: StoredInstance = serde_json::from_str(&answer)
        .map_err(|error| StoreError::Unreadable(format!("an earlier answer: {error}")))?;
    Ok(Some(Written {
        instance: stored.instance(),
        repeated: true,
    }))
}

/// Remembers the answer and commits.
async fn finish(
    mut write: Write,
    instance: Instance,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Written, StoreError> {
    if let Some(once) = once {
        let answer = serde_json::to_string(&StoredInstance::of(&instance))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        sqlx::query(
            "INSERT INTO requests (principal, method, request_id, digest, answer, done_us) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&once.principal)
        .bind(once.method)
        .bind(&once.request_id)
        .bind(once.digest.as_slice())
        .bind(answer)
        .bind(micros(now))
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    }
    write.commit().await.map_err(trouble)?;
    Ok(Written {
        instance,
        repeated: false,
    })
}

async fn next_revision(write: &mut Write) -> Result<u64, StoreError> {
    let row = sqlx::query("UPDATE counter SET revision = revision + 1 RETURNING revision")
        .fetch_one(&mut **write)
        .await
        .map_err(trouble)?;
    let revision: i64 = row.try_get("revision").map_err(trouble)?;
    u64::try_from(revision).map_err(|_| StoreError::Unreadable(format!("revision {revision}")))
}

async fn put(write: &mut Write, instance: &Instance) -> Result<(), StoreError> {
    let spec = serde_json::to_string(&instance.spec)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let stored = StoredInstance::of(instance);
    sqlx::query(
        "INSERT OR REPLACE INTO instances (instance_id, revision, created_us, updated_us, spec) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(instance.id())
    .bind(stored.revision)
    .bind(stored.created_us)
    .bind(stored.updated_us)
    .bind(spec)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

async fn read(write: &mut Write, id: &str) -> Result<Option<Instance>, StoreError> {
    let row = sqlx::query("SELECT * FROM instances WHERE instance_id = ?")
        .bind(id)
        .fetch_optional(&mut **write)
        .await
        .map_err(trouble)?;
    row.as_ref().map(instance_of).transpose()
}

async fn read_expected(
    write: &mut Write,
    id: &str,
    expected: Option<u64>,
) -> Result<Instance, StoreError> {
    let found = read(write, id).await?;
    let instance = found.ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
    let current = instance.revision.unwrap_or_default();
    if expected.is_some_and(|expected| expected != current) {
        let id = id.to_owned();
        return Err(StoreError::Changed { id, current });
    }
    Ok(instance)
}

/// An instance as it is stored.
#[derive(Debug, Deserialize, Serialize)]
struct StoredInstance {
    revision: i64,
    created_us: i64,
    updated_us: i64,
    spec: InstanceSpec,
}

impl StoredInstance {
    fn of(instance: &Instance) -> Self {
        Self {
            revision: instance
                .revision
                .and_then(|revision| i64::try_from(revision).ok())
                .unwrap_or_default(),
            created_us: instance.created_at.map(micros).unwrap_or_default(),
            updated_us: instance.updated_at.map(micros).unwrap_or_default(),
            spec: instance.spec.clone(),
        }
    }

    fn instance(self) -> Instance {
        Instance {
            spec: self.spec,
            source: Source::Registered,
            revision: u64::try_from(self.revision).ok(),
            created_at: Some(time(self.created_us)),
            updated_at: Some(time(self.updated_us)),
        }
    }
}

fn instance_of(row: &SqliteRow) -> Result<Instance, StoreError> {
    let spec: String = row.try_get("spec").map_err(trouble)?;
    let stored = StoredInstance {
        revision: row.try_get("revision").map_err(trouble)?,
        created_us: row.try_get("created_us").map_err(trouble)?,
        updated_us: row.try_get("updated_us").map_err(trouble)?,
        spec: serde_json::from_str(&spec).map_err(|error| {
            let id: String = row.try_get("instance_id").unwrap_or_default();
            StoreError::Unreadable(format!("instance {id}: {error}"))
        })?,
    };
    Ok(stored.instance())
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
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
        let mut connection = self.pool.acquire().await.unwrap();
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
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (?, 'later', TRUE, x'00', 0)",
        )
        .bind(version)
        .execute(&self.pool)
        .await
        .unwrap();
    }
}
