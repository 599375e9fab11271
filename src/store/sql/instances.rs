//! Registered instances: the spec as JSON, beside its revision and times.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{
    Backend, DbConnection, DbRow, Write, commit, found, json, micros, predictions, query, requests,
    time, to_the_microsecond, trouble, unsigned, workflows,
};
use crate::instance::{Instance, InstanceSpec, Source};
use crate::store::{Change, Once, StoreError, Written};

/// All, by id.
pub(super) async fn all(view: &mut DbConnection) -> Result<Vec<Instance>, StoreError> {
    let rows = query("SELECT instance_id, revision, created_us, updated_us, spec FROM instances ORDER BY instance_id")
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    rows.iter().map(instance_of).collect()
}

/// The revision of the last change.
pub(super) async fn revision(view: &mut DbConnection) -> Result<u64, StoreError> {
    let row = query("SELECT revision FROM counter")
        .fetch_one(view)
        .await
        .map_err(trouble)?;
    unsigned(&row, "revision")
}

/// What the same request was answered before.
pub(super) async fn earlier(
    connection: &mut DbConnection,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Option<Written>, StoreError> {
    let answer: Option<StoredInstance> = requests::earlier(connection, once, now).await?;
    Ok(answer.map(|stored| Written {
        instance: stored.instance(),
        repeated: true,
    }))
}

pub(super) async fn create(
    store: &Backend,
    spec: &InstanceSpec,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Written, StoreError> {
    let mut write = store.begin().await?;
    if let Some(before) = earlier(&mut write, once, now).await? {
        return Ok(before);
    }
    if read(&mut write, &spec.instance_id).await?.is_some() {
        return Err(StoreError::Exists(spec.instance_id.clone()));
    }
    let instance = insert(&mut write, spec, now).await?;
    finish(store, write, instance, once, now).await
}

/// Sees to it that an instance is registered with this spec; gives it where it was not there before.
pub(super) async fn ensure(
    write: &mut Write,
    spec: &InstanceSpec,
    now: SystemTime,
) -> Result<Option<Instance>, StoreError> {
    match read(write, &spec.instance_id).await? {
        None => Ok(Some(insert(write, spec, now).await?)),
        Some(there) if there.spec == *spec => Ok(None),
        Some(_) => Err(StoreError::Exists(spec.instance_id.clone())),
    }
}

pub(super) async fn update(
    store: &Backend,
    id: &str,
    expected: Option<u64>,
    change: &Change<'_>,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Written, StoreError> {
    let mut write = store.begin().await?;
    if let Some(before) = earlier(&mut write, once, now).await? {
        return Ok(before);
    }
    let mut instance = read_expected(&mut write, id, expected).await?;
    instance.spec = change(instance.spec).map_err(StoreError::Invalid)?;
    instance.revision = Some(next_revision(&mut write).await?);
    instance.updated_at = Some(to_the_microsecond(now));
    put(&mut write, &instance).await?;
    finish(store, write, instance, once, now).await
}

pub(super) async fn delete(
    store: &Backend,
    id: &str,
    expected: Option<u64>,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Written, StoreError> {
    let mut write = store.begin().await?;
    if let Some(before) = earlier(&mut write, once, now).await? {
        return Ok(before);
    }
    let instance = read_expected(&mut write, id, expected).await?;
    workflows::refuse_if_locked(&mut write, id, None).await?;
    next_revision(&mut write).await?;
    predictions::expire_all_of(&mut write, id, now).await?;
    found::forget(&mut write, id).await?;
    query("DELETE FROM instances WHERE instance_id = $1")
        .bind(id)
        .execute(&mut *write)
        .await
        .map_err(trouble)?;
    finish(store, write, instance, once, now).await
}

/// Remembers the answer and commits.
async fn finish(
    store: &Backend,
    mut write: Write,
    instance: Instance,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Written, StoreError> {
    requests::remember(&mut write, once, &StoredInstance::of(&instance), now).await?;
    commit(write).await?;
    store.hint();
    Ok(Written {
        instance,
        repeated: false,
    })
}

async fn insert(
    write: &mut Write,
    spec: &InstanceSpec,
    now: SystemTime,
) -> Result<Instance, StoreError> {
    let instance = Instance {
        spec: spec.clone(),
        source: Source::Registered,
        revision: Some(next_revision(write).await?),
        created_at: Some(to_the_microsecond(now)),
        updated_at: Some(to_the_microsecond(now)),
    };
    put(write, &instance).await?;
    Ok(instance)
}

async fn next_revision(write: &mut Write) -> Result<u64, StoreError> {
    let row = query("UPDATE counter SET revision = revision + 1 RETURNING revision")
        .fetch_one(&mut **write)
        .await
        .map_err(trouble)?;
    unsigned(&row, "revision")
}

async fn put(write: &mut Write, instance: &Instance) -> Result<(), StoreError> {
    let stored = StoredInstance::of(instance);
    query(
        "INSERT INTO instances (instance_id, revision, created_us, updated_us, spec) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (instance_id) DO UPDATE SET revision = excluded.revision, created_us = excluded.created_us, \
         updated_us = excluded.updated_us, spec = excluded.spec",
    )
    .bind(instance.id())
    .bind(stored.revision)
    .bind(stored.created_us)
    .bind(stored.updated_us)
    .bind(json(&instance.spec)?)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

async fn read(write: &mut Write, id: &str) -> Result<Option<Instance>, StoreError> {
    let row = query("SELECT instance_id, revision, created_us, updated_us, spec FROM instances WHERE instance_id = $1")
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

fn instance_of(row: &DbRow) -> Result<Instance, StoreError> {
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
