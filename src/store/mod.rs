//! Durable state behind one trait. What is elsewhere in memory is a cache of it or of a metrics endpoint.
//!
//! A write is one transaction: what it changes, the revision that it takes, and the answer that a repeat of the same
//! request gets.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod conformance;
mod migrate;
mod postgres;
mod predictions;
mod reading;
mod sqlite;
mod state_dir;
mod transfer;
mod webhooks;
mod workflows;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::instance::{FieldViolation, Instance, InstanceSpec};
use crate::optimization::LedgerEntry;

pub use postgres::{PostgresServer, PostgresStore};
pub use predictions::{PredictionFilter, PredictionPlace};
pub use reading::read_all;
pub use sqlite::SqliteStore;
pub use state_dir::{StateDir, default_state_dir};
pub use transfer::{TransferError, TransferStore, Transferred};
pub use webhooks::{
    Claim, Claimed, DeliverNow, DeliveryFilter, Judge, WebhookCounts, WebhookStore,
};
pub use workflows::{
    Advance, Begin, Committed, Deliver, EventFilter, EventsPage, Evolve, Lease, NewWorkflow,
    Snapshot, SnapshotTarget, WorkflowFilter, WorkflowStore,
};

/// How long a repeated request is recognised.
pub const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Durable state.
#[async_trait]
pub trait Store: WorkflowStore + WebhookStore + TransferStore + Debug {
    /// All registered instances, by id.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn instances(&self) -> Result<Vec<Instance>, StoreError>;

    /// Changes with each change of an instance, whoever makes it.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn instances_revision(&self) -> Result<u64, StoreError>;

    /// Whether other agents may have the store as well.
    fn is_shared(&self) -> bool;

    /// Says that an agent is there, and what it found; gives all agents that are there, and what they found.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn beat(&self, says: &Says<'_>) -> Result<Beat, StoreError>;

    /// Says that an agent is there no more.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn leave(&self, agent_id: &str) -> Result<(), StoreError>;

    /// What a request was answered, if it was carried out before.
    ///
    /// # Errors
    /// A repeated request that differs, a store that cannot be read.
    async fn answered(&self, once: &Once, now: SystemTime) -> Result<Option<Written>, StoreError>;

    /// Registers an instance.
    ///
    /// # Errors
    /// [`StoreError::Exists`], a repeated request that differs, a store that cannot be written.
    async fn create_instance(
        &self,
        spec: &InstanceSpec,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError>;

    /// Changes an instance to what `change` makes of it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`] where `expected` is not its revision, what `change` finds
    /// wrong, a repeated request that differs, a store that cannot be written.
    async fn update_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        change: &Change<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError>;

    /// Deletes an instance, and answers with what it was. Its open predictions expire; its workflows, their events and its
    /// snapshots stay readable.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`] where `expected` is not its revision, [`StoreError::Locked`] where
    /// a workflow holds it, a repeated request that differs, a store that cannot be written.
    async fn delete_instance(
        &self,
        id: &str,
        expected: Option<u64>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Written, StoreError>;

    /// Keeps new predictions, and forgets those of the ids in `gone` that are open still.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn put_predictions(
        &self,
        entries: &[LedgerEntry],
        gone: &[String],
    ) -> Result<(), StoreError>;

    /// Takes predictions that are open to what they have become, and gives the ids of those that were open still.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn advance_predictions(&self, entries: &[LedgerEntry])
    -> Result<Vec<String>, StoreError>;

    /// At most so many predictions, the newest first, from after this place on.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn predictions(
        &self,
        filter: &PredictionFilter,
        after: Option<&PredictionPlace>,
        size: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError>;

    /// Forgets predictions that have ended: those made before, and the oldest where there are more than `most` in all.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn forget_predictions(
        &self,
        made_before: SystemTime,
        most: u32,
    ) -> Result<(), StoreError>;
}

/// What an agent says to the store.
#[derive(Debug, Clone, Copy)]
pub struct Says<'s> {
    /// Its id.
    pub agent_id: &'s str,
    /// It counts as there for this time from now on, by the store's clock.
    pub time: Duration,
    /// Others are waited for this much longer than they said.
    pub patience: Duration,
    /// What it found of instances that it measures: instance and JSON, each instance once. It is kept for some hours.
    pub found: &'s [(String, String)],
    /// It knows what others said before this, unix time in microseconds by the store's clock.
    pub since_us: i64,
}

/// What the store says to an agent that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Ids of all agents that are, in their order.
    pub agents: Vec<String>,
    /// What others found. Some of it may be known.
    pub found: Vec<Found>,
    /// What the store's clock says, unix time in microseconds.
    pub now_us: i64,
}

/// What an agent found of an instance that it measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub instance_id: String,
    /// Who.
    pub agent_id: String,
    /// JSON.
    pub found: String,
}

/// What is to become of an instance's spec.
pub type Change<'c> =
    dyn Fn(InstanceSpec) -> Result<InstanceSpec, Vec<FieldViolation>> + Send + Sync + 'c;

/// What makes a request the same as one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Who asks.
    pub principal: String,
    /// For what.
    pub method: &'static str,
    /// The caller's id of the request.
    pub request_id: String,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The instance after it, or before it where it was deleted.
    pub instance: Instance,
    /// The request had been carried out before; nothing was changed now.
    pub repeated: bool,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is an instance of this id.
    #[error("instance {0} is registered already")]
    Exists(String),
    /// There is no instance of this id.
    #[error("there is no instance {0}")]
    NotFound(String),
    /// It was changed since the caller read it.
    #[error("instance {id} was changed since it was read: it is at r{current}")]
    Changed {
        /// Which.
        id: String,
        /// Its revision now.
        current: u64,
    },
    /// There is no workflow of this id.
    #[error("there is no workflow {0}")]
    NoWorkflow(String),
    /// The workflow has had other events since it was read, or another holds its lease.
    #[error("workflow {0} has moved on since it was read")]
    Moved(String),
    /// Another agent holds the lease of the workflow.
    #[error("workflow {workflow_id} is held by {holder}")]
    Leased {
        /// Which.
        workflow_id: String,
        /// By whom.
        holder: String,
    },
    /// Another workflow holds the instance.
    #[error("workflow {workflow_id} runs on instance {instance_id}")]
    Locked {
        /// Which instance.
        instance_id: String,
        /// The workflow that holds it.
        workflow_id: String,
    },
    /// There is a webhook of this id.
    #[error("webhook {0} exists already")]
    WebhookExists(String),
    /// There is no webhook of this id.
    #[error("there is no webhook {0}")]
    NoWebhook(String),
    /// There are as many webhooks as there may be.
    #[error("there are {0} webhooks already, and there may be no more")]
    TooManyWebhooks(usize),
    /// There is no delivery of this id.
    #[error("there is no delivery {0}: it never was, or has ended too long ago")]
    NoDelivery(String),
    /// A delivery was claimed again, has ended or is gone.
    #[error("delivery {0} is another's by now, has ended or is gone")]
    ClaimLost(String),
    /// Events after this revision are gone.
    #[error("the log is kept from revision {oldest_revision} on")]
    Compacted {
        /// The oldest revision after which nothing is gone.
        oldest_revision: u64,
    },
    /// The change would make it wrong.
    #[error("{}", crate::instance::violations_text(.0))]
    Invalid(Vec<FieldViolation>),
    /// The request id was used for another request.
    #[error("request_id {0} was used within the last 24 hours for a request with another content")]
    RequestIdReused(String),
    /// The disk is full.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store cannot be read or written now.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// What is stored cannot be understood.
    #[error("the store holds what this version cannot read: {0}")]
    Unreadable(String),
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No directory for it.
    #[error(
        "no directory for the state: set --state-dir, XDG_STATE_HOME or HOME ([store] state_dir in the config file)"
    )]
    NoDirectory,
    /// The directory cannot be used.
    #[error("cannot use the state directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds other things.
    #[error(
        "{} is not empty and holds no state of perfagent; give a directory of its own with --state-dir",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(
        "the state directory {} is in use by {holder}; give this one another --state-dir, or stop the other first",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as it said.
        holder: String,
    },
    /// It was written by a newer version.
    #[error(
        "{place} was written by a newer perfagent (schema {found}, this one knows {known}); run that version or newer, or \
         give another store with --state-dir or [store] url"
    )]
    Newer {
        /// The file or the database.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// It was written by an older version, and is not to be upgraded now.
    #[error(
        "{place} has schema {found} and this version has schema {known}; upgrade it with `perfagent store migrate`"
    )]
    Older {
        /// The file or the database.
        place: String,
        /// Its schema; 0 where there is none.
        found: i64,
        /// The schema of this version.
        known: i64,
    },
    /// The database.
    #[error("cannot open the store {place}: {message}")]
    Database {
        /// The file or the database.
        place: String,
        /// Why.
        message: String,
    },
}

/// What becomes of the schema when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is made or upgraded to that of this version.
    Upgrade,
    /// It must be that of this version.
    AsItIs,
}

/// The step of the schema that this version has.
pub fn newest_schema() -> i64 {
    migrate::newest(&sqlite::MIGRATIONS)
}

/// Unix time in microseconds: how exactly the store keeps instants.
pub(crate) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
