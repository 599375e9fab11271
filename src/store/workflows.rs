//! Durable state of workflows: the log, the states that it leads to, snapshots of settings, and leases.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Once, StoreError};
use crate::instance::{Instance, InstanceSpec};
use crate::webhook::{NewDelivery, Webhook};
use crate::workflow::{Event, RecordedEvent, Status, Workflow, WorkflowKind};

/// Durable state of workflows.
///
/// What this version cannot read (a later one wrote it, or it is damaged) stops its own workflow and no other: see each
/// method. No list leaves it out silently: one that it belongs to is refused with [`StoreError::Unreadable`], which names
/// the workflow, and a filter that passes it over gives the rest.
#[async_trait]
pub trait WorkflowStore: Send + Sync {
    /// Starts a workflow in one transaction: its first event, its state, and the registration of an instance that came
    /// with it. `begin` makes the state of the first event, once its revision is known. Where anything fails nothing is
    /// written, and the revision is the next event's.
    ///
    /// # Errors
    /// What `begin` fails with, [`StoreError::Moved`] where there is a workflow of this id, [`StoreError::Unreadable`] where
    /// event or state could not be read again (a number that is none), [`StoreError::Locked`] where another workflow holds the instance, [`StoreError::Exists`] where an instance that is
    /// to be registered is there already with another spec, a repeated request that differs, a store that cannot be
    /// written.
    async fn start_workflow(
        &self,
        start: &NewWorkflow<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError>;

    /// Adds an event to a workflow in one transaction: event, state, snapshots, deliveries, lock of the instance. Where anything
    /// fails nothing is written, and the revision is the next event's.
    ///
    /// # Errors
    /// What `evolve` fails with, [`StoreError::NoWorkflow`], [`StoreError::Moved`] where it has had other events since, or the lease of this epoch
    /// is over or another's,
    /// [`StoreError::Locked`] where it takes the lock of its instance again and another workflow has it, a repeated request
    /// that differs, a store that cannot be written.
    async fn advance_workflow(
        &self,
        advance: &Advance<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError>;

    /// What a request about a workflow was answered, if it was carried out before.
    ///
    /// # Errors
    /// A repeated request that differs, a store that cannot be read.
    async fn answered_workflow(
        &self,
        once: &Once,
        now: SystemTime,
    ) -> Result<Option<Workflow>, StoreError>;

    /// A workflow.
    ///
    /// # Errors
    /// A store that cannot be read, a state that this version cannot.
    async fn workflow(&self, workflow_id: &str) -> Result<Option<Workflow>, StoreError>;

    /// At most so many workflows, the newest first, from before this id on (ids are in the order of time).
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn workflows(
        &self,
        filter: &WorkflowFilter,
        before: Option<&str>,
        size: u32,
    ) -> Result<Vec<Workflow>, StoreError>;

    /// Ids of all workflows that have not ended, the oldest first; also of those whose state this version cannot read.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn unfinished_workflows(&self) -> Result<Vec<String>, StoreError>;

    /// Ids of all workflows that have not ended and that nobody holds, the oldest first, with the revisions of their last
    /// events; also of those whose state this version cannot read.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn idle_workflows(&self) -> Result<Vec<(String, u64)>, StoreError>;

    /// The log after a revision, at most so many events, in order. Before an event that this version cannot read the page
    /// ends early, so that all before it can be read.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where events after it are gone, [`StoreError::Unreadable`] where the very next one cannot be
    /// read, a store that cannot be read.
    async fn events(
        &self,
        after_revision: u64,
        filter: &EventFilter,
        size: u32,
    ) -> Result<EventsPage, StoreError>;

    /// Changes when another agent may have written something; none where there is no word of it. What is there is found by
    /// looking: this says only when.
    fn hints(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Forgets the log up to a revision, but not from the first event on of a workflow that holds its instance (it has not
    /// ended, or could not be rolled back), and says up to where it is gone. States and snapshots stay.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn compact_events(&self, up_to_revision: u64) -> Result<u64, StoreError>;

    /// The revision at which the log stood at this time, as far as is known: what is older may be compacted. Where clocks
    /// were set back, nothing younger is taken for old.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn revision_before(&self, time: SystemTime) -> Result<u64, StoreError>;

    /// Takes the lease of a workflow, or takes it again: from now on nobody else advances it, until the time is over by
    /// the store's clock. The epoch is higher than any before, of any workflow, and than those of a store that was lost
    /// before: it is not below the store's unix time in microseconds. Who has it already gets another epoch.
    ///
    /// # Errors
    /// [`StoreError::Leased`] where another has it, [`StoreError::NoWorkflow`], a store that cannot be written.
    async fn acquire_lease(
        &self,
        workflow_id: &str,
        holder: &str,
        time: Duration,
    ) -> Result<Lease, StoreError>;

    /// Has leases for this time from now on, also those that are over and that nobody has taken, in one write however many
    /// they are. Answers with the workflows of those that it has: the others are somebody else's by now, or were given up.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn renew_leases(
        &self,
        leases: &[Lease],
        time: Duration,
    ) -> Result<BTreeSet<String>, StoreError>;

    /// Gives a lease up; one that is another's by now stays with it.
    ///
    /// # Errors
    /// A store that cannot be written.
    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Keeps a snapshot that no workflow makes. An equal one is left as it is.
    ///
    /// # Errors
    /// A store that cannot be written, or has another snapshot of this id, which is never written over.
    async fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(), StoreError>;

    /// A snapshot with its content.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn snapshot(&self, snapshot_id: &str) -> Result<Option<Snapshot>, StoreError>;

    /// At most so many snapshots of an instance, or of all, without content, the newest first, from before this id on.
    /// What workflows have planned is not among them.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn snapshots(
        &self,
        instance_id: Option<&str>,
        before: Option<&str>,
        size: u32,
    ) -> Result<Vec<Snapshot>, StoreError>;
}

/// Makes the state that the first event leads to, given its place in the log.
pub type Begin<'b> = dyn Fn(&RecordedEvent) -> Result<Workflow, StoreError> + Send + Sync + 'b;

/// Makes the state that an event leads to, given its place in the log.
pub type Evolve<'e> = dyn Fn(&RecordedEvent) -> Result<Workflow, StoreError> + Send + Sync + 'e;

/// Makes the deliveries that an event causes, given its place in the log, the state that it leads to and the webhooks that
/// there are.
pub type Deliver<'d> =
    dyn Fn(&RecordedEvent, &Workflow, &[Webhook]) -> Vec<NewDelivery> + Send + Sync + 'd;

/// A workflow that is to start.
pub struct NewWorkflow<'n> {
    /// UUIDv7.
    pub workflow_id: &'n str,
    /// Of which instance.
    pub instance_id: &'n str,
    /// An instance that is registered with it, where there is none of this id; an equal one is left as it is.
    pub register: Option<&'n InstanceSpec>,
    /// Who starts it.
    pub actor: &'n str,
    /// The first event.
    pub event: &'n Event,
    /// The state after it.
    pub begin: &'n Begin<'n>,
    /// What is to be delivered.
    pub deliver: &'n Deliver<'n>,
}

/// A workflow that goes on.
pub struct Advance<'a> {
    /// Which.
    pub workflow_id: &'a str,
    /// How many events it has had.
    pub expect_sequence: u64,
    /// Epoch of the runner's lease; none for what callers ask.
    pub epoch: Option<u64>,
    /// Who.
    pub actor: &'a str,
    /// What happened.
    pub event: &'a Event,
    /// The state after it.
    pub evolve: &'a Evolve<'a>,
    /// Snapshots that are made with it.
    pub snapshots: &'a [Snapshot],
    /// What is to be delivered.
    pub deliver: &'a Deliver<'a>,
}

/// What was committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The state after it.
    pub workflow: Workflow,
    /// The event in its place; none where the request had been carried out before, and nothing was changed now.
    pub event: Option<RecordedEvent>,
    /// The instance that was registered with it, where it was not there before.
    pub registered: Option<Instance>,
    /// How many deliveries were written with it.
    pub deliveries: u32,
}

/// Which workflows are asked for; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowFilter {
    /// Of this instance.
    pub instance_id: Option<String>,
    /// In one of these statuses; empty for any.
    pub statuses: Vec<Status>,
    /// Of this kind.
    pub kind: Option<WorkflowKind>,
}

/// Which events are asked for; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this workflow.
    pub workflow_id: Option<String>,
    /// Of this instance.
    pub instance_id: Option<String>,
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct EventsPage {
    /// Events, in order.
    pub events: Vec<RecordedEvent>,
    /// Up to where the log was read: whoever goes on from here misses nothing that matches.
    pub read_to_revision: u64,
    /// There is more to read.
    pub more: bool,
}

/// The right to advance a workflow and to act for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of which workflow.
    pub workflow_id: String,
    /// Who has it.
    pub holder: String,
    /// Higher than any before.
    pub epoch: u64,
}

/// Settings of an instance's targets at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// UUIDv7.
    pub snapshot_id: String,
    /// Of which instance.
    pub instance_id: String,
    /// Name of the actuator that read it.
    pub actuator: String,
    /// When, unix time in microseconds.
    pub created_us: i64,
    /// Who: a principal, or `perfagent`.
    pub created_by: String,
    /// The workflow that made it, where one did.
    pub workflow_id: Option<String>,
    /// In the words of who made it.
    pub note: String,
    /// What a workflow is to write, not what was there: not listed.
    pub is_planned: bool,
    /// Targets in their order.
    pub targets: Vec<SnapshotTarget>,
}

/// Settings of one target.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotTarget {
    /// Its name.
    pub name: String,
    /// Revision, as the actuator gave it.
    pub revision: String,
    /// SHA-256 of the content, in hexadecimal.
    pub digest: String,
    /// Launch arguments, with values taken out that set nothing the agent knows.
    pub launch_args: Vec<String>,
    /// The settings; empty in lists. May hold secrets.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for SnapshotTarget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SnapshotTarget")
            .field("name", &self.name)
            .field("revision", &self.revision)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
