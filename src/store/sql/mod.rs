//! The tables and what is done with them, in SQL that SQLite and PostgreSQL both understand. Each backend includes this
//! module and says before it what differs: the types of its driver, how a transaction begins, what its errors mean, and SQL
//! of the time (`now_us!`).

/// Reads in one view of the store, in which nothing changes.
macro_rules! read {
    ($store:expr, $view:ident => $work:expr) => {{
        $store
            .reading(async {
                let mut view = $store.view().await?;
                let $view: &mut super::DbConnection = &mut view;
                $work.await
            })
            .await
    }};
}

mod agents;
mod deliveries;
mod found;
mod instances;
mod leases;
mod log;
mod predictions;
mod requests;
mod secrets;
mod snapshots;
mod transfer;
mod webhooks;
mod workflows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Serialize;
use sqlx::query::Query;
use sqlx::{Database, Row, SqlSafeStr, Transaction};

use super::{Backend, Db, DbConnection, DbRow, keeps_statements, trouble};
use crate::instance::{Instance, InstanceSpec};
use crate::optimization::LedgerEntry;
use crate::store::{
    Beat, Change, Once, PredictionFilter, PredictionPlace, Says, Store, StoreError, Written, micros,
};

#[async_trait]
impl Store for Backend {
    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        read!(self, view => instances::all(view))
    }

    async fn instances_revision(&self) -> Result<u64, StoreError> {
        read!(self, view => instances::revision(view))
    }

    fn is_shared(&self) -> bool {
        super::IS_SHARED
    }

    async fn beat(&self, says: &Says<'_>) -> Result<Beat, StoreError> {
        self.writing(agents::beat(self, says)).await
    }

    async fn leave(&self, agent_id: &str) -> Result<(), StoreError> {
        self.writing(agents::leave(self, agent_id)).await
    }

    async fn answered(&self, once: &Once, now: SystemTime) -> Result<Option<Written>, StoreError> {
        read!(self, view => instances::earlier(view, Some(once), now))
    }

    async fn create_instance(
        &self,
        spec: &InstanceSpec,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.writing(instances::create(self, spec, once, now)).await
    }

    async fn update_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        change: &Change<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.writing(instances::update(self, id, expected, change, once, now))
            .await
    }

    async fn delete_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError> {
        self.writing(instances::delete(self, id, expected, once, now))
            .await
    }

    async fn put_predictions(
        &self,
        entries: &[LedgerEntry],
        gone: &[String],
    ) -> Result<(), StoreError> {
        self.writing(predictions::put(self, entries, gone)).await
    }

    async fn advance_predictions(
        &self,
        entries: &[LedgerEntry],
    ) -> Result<Vec<String>, StoreError> {
        self.writing(predictions::advance(self, entries)).await
    }

    async fn predictions(
        &self,
        filter: &PredictionFilter,
        after: Option<&PredictionPlace>,
        size: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        read!(self, view => predictions::read(view, filter, after, size))
    }

    async fn forget_predictions(
        &self,
        made_before: SystemTime,
        most: u32,
    ) -> Result<(), StoreError> {
        self.writing(predictions::forget(self, made_before, most))
            .await
    }
}

pub(super) type Write = Transaction<'static, Db>;

/// Ends all leases of workflows and all claims of deliveries, for a store that nobody else can be using.
#[allow(dead_code, reason = "only an embedded store knows that it is alone")]
pub(super) async fn drop_leases_and_claims(store: &Backend) -> Result<(), StoreError> {
    let mut write = store.begin().await?;
    leases::drop_all(&mut write).await?;
    deliveries::drop_claims(&mut write).await?;
    commit(write).await
}

/// A query as the backend has them prepared.
fn query<'q>(sql: impl SqlSafeStr) -> Query<'q, Db, <Db as Database>::Arguments> {
    sqlx::query(sql).persistent(keeps_statements())
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
fn unsigned(row: &DbRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(trouble)?;
    u64::try_from(number).map_err(|_| StoreError::Unreadable(format!("{column} {number}")))
}

/// A number as databases have them: none is beyond what they can count to.
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
