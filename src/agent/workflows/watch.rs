//! Watching workflows: how they are, and each event as it is committed, without gap or duplicate.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;

use super::log::{EventLog, LoggedEvent, Part, Waiter};
use crate::agent::{Agent, Error, FieldViolation};
use crate::store::{EventFilter, StoreError, WorkflowFilter};
use crate::workflow::{Status, Workflow, evolve};

/// From where on what is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchFrom {
    /// This workflow; the watch ends with it.
    pub workflow_id: Option<String>,
    /// Workflows of this instance.
    pub instance_id: Option<String>,
    /// Events after this revision. None for all that a workflow has had, and for none that others have had.
    pub after_revision: Option<u64>,
    /// How they are comes first, unless a revision is given.
    pub include_snapshot: bool,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub struct WorkflowNews {
    /// Whoever resumes after it misses nothing; 0 where that is told later.
    pub revision: u64,
    /// What.
    pub told: WorkflowTold,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum WorkflowTold {
    /// How a workflow is.
    Snapshot(Box<Workflow>),
    /// What happened.
    Event(Arc<LoggedEvent>),
    /// Nothing but the revision.
    Bookmark {
        /// All that there was when the watch began has been told.
        synced: bool,
    },
}

/// A page of the log, and where to go on.
#[derive(Debug, Clone)]
pub struct EventsPart {
    /// Events, in order.
    pub events: Vec<Arc<LoggedEvent>>,
    /// Whoever goes on after it misses nothing.
    pub read_to_revision: u64,
    /// There is more now.
    pub more: bool,
}

/// Events that a watcher holds at most.
const BATCH: u32 = 32;
/// Events of one read where a state is worked out from its log.
const REPLAYED: u32 = 64;
/// Workflows of an instance that are looked through for those that have not ended.
const UNFINISHED: u32 = 100;

impl Agent {
    /// Tells how workflows are, if asked, and then each event. Ends with a workflow that is named.
    ///
    /// # Errors
    /// A workflow that there is not, a revision that the log has not reached, [`StoreError::Compacted`], the store; in
    /// the stream too, which ends with it.
    pub async fn watch_workflows(
        self: &Arc<Self>,
        from: WatchFrom,
    ) -> Result<impl Stream<Item = Result<WorkflowNews, Error>> + Send + use<>, Error> {
        watch(self.event_log()?.clone(), from).await
    }

    /// A page of the log after a revision; where there is nothing it is waited for. Revision 0 is from the first event
    /// that is kept.
    ///
    /// # Errors
    /// A workflow that there is not, [`StoreError::Compacted`], the store.
    pub async fn workflow_events(
        &self,
        after_revision: u64,
        filter: &EventFilter,
        size: u32,
        wait: Duration,
    ) -> Result<EventsPart, Error> {
        page(self.event_log()?, after_revision, filter, size, wait).await
    }
}

/// See [`Agent::workflow_events`].
async fn page(
    log: &Arc<EventLog>,
    after_revision: u64,
    filter: &EventFilter,
    size: u32,
    wait: Duration,
) -> Result<EventsPart, Error> {
    let until = Instant::now() + wait;
    if let Some(id) = &filter.workflow_id {
        existing(log, id).await?;
    }
    not_ahead(log, after_revision).await?;
    let mut waiter = log.waiter(filter);
    let mut after = after_revision;
    let mut events = Vec::new();
    loop {
        waiter.look();
        let left = size.saturating_sub(u32::try_from(events.len()).unwrap_or(size));
        let part = match log.read(after, filter, left).await {
            Err(StoreError::Compacted { oldest_revision }) if after == 0 => {
                after = oldest_revision;
                continue;
            }
            part => part?,
        };
        after = after.max(part.read_to);
        events.extend(part.events);
        let full = events.len() >= usize::try_from(size).unwrap_or(usize::MAX);
        if part.more && !full {
            continue;
        }
        if !events.is_empty() || timeout_at(until, waiter.news()).await.is_err() {
            return Ok(EventsPart {
                events,
                read_to_revision: after,
                more: part.more,
            });
        }
    }
}

/// See [`Agent::watch_workflows`].
async fn watch(
    log: Arc<EventLog>,
    from: WatchFrom,
) -> Result<impl Stream<Item = Result<WorkflowNews, Error>> + Send + use<>, Error> {
    let filter = EventFilter {
        workflow_id: from.workflow_id,
        instance_id: from.instance_id,
    };
    let state = match &filter.workflow_id {
        Some(id) => Some(existing(&log, id).await?),
        None => None,
    };
    // from before anything is read, so that nothing falls in between
    let waiter = log.waiter(&filter);
    let mut watch = Watch {
        snapshots: VecDeque::new(),
        snapshot_revision: 0,
        filter,
        cursor: 0,
        goal: log.end(),
        batch: VecDeque::new(),
        read_to: 0,
        synced: false,
        ended: false,
        over: false,
        bookmark: Instant::now() + log.bookmark_interval(),
        waiter,
        log,
    };
    match (from.after_revision, state) {
        (Some(after), state) => {
            not_ahead(&watch.log, after).await?;
            watch.cursor = after;
            watch.ended = state.is_some_and(|state| ended_by(&state, after));
        }
        (None, Some(state)) if from.include_snapshot => {
            watch.cursor = state.revision;
            watch.ended = state.status().has_ended();
            watch.goal = watch.goal.max(state.revision);
            watch.snapshots.push_back(Snapshot::Read(Box::new(state)));
        }
        // from its first on
        (None, Some(_)) => {}
        (None, None) if from.include_snapshot => watch.snapshots_of_unfinished().await?,
        (None, None) => watch.cursor = watch.goal,
    }
    // what is gone is told at once, and not in the stream
    let cursor = watch.cursor;
    let first = watch.log.read(cursor, &watch.filter, BATCH).await?;
    watch.take(first);
    Ok(futures_util::stream::unfold(watch, Watch::next))
}

async fn existing(log: &EventLog, id: &str) -> Result<Workflow, Error> {
    let found = log.store().workflow(id).await?;
    found.ok_or_else(|| StoreError::NoWorkflow(id.chars().take(64).collect()).into())
}

/// A cursor from another log, such as one from before a backup was restored, would wait for what has long been.
async fn not_ahead(log: &EventLog, after: u64) -> Result<(), Error> {
    if after > log.end() {
        log.catch_up().await?;
    }
    let end = log.end();
    match after > end {
        true => Err(Error::Invalid(vec![FieldViolation::new(
            "after_revision",
            format!("the log ends at revision {end}: is this revision of another agent's?"),
        )])),
        false => Ok(()),
    }
}

fn ended_by(state: &Workflow, revision: u64) -> bool {
    state.status().has_ended() && state.revision <= revision
}

struct Watch {
    log: Arc<EventLog>,
    filter: EventFilter,
    waiter: Waiter,
    /// What is still to be told of how workflows are.
    snapshots: VecDeque<Snapshot>,
    /// How they were at this revision.
    snapshot_revision: u64,
    /// Up to here all is told.
    cursor: u64,
    /// The end of the log when the watch began.
    goal: u64,
    /// What is to be told next.
    batch: VecDeque<Arc<LoggedEvent>>,
    /// Up to here all is in the batch.
    read_to: u64,
    synced: bool,
    /// The workflow has ended with what was told last.
    ended: bool,
    /// It broke.
    over: bool,
    /// When a bookmark is due.
    bookmark: Instant,
}

enum Snapshot {
    Read(Box<Workflow>),
    /// Read when its turn comes: a watcher that does not read holds ids only.
    Of(String),
}

impl Watch {
    async fn next(mut self) -> Option<(Result<WorkflowNews, Error>, Self)> {
        if self.over {
            return None;
        }
        match self.told().await {
            Ok(Some(news)) => {
                self.bookmark = Instant::now() + self.log.bookmark_interval();
                Some((Ok(news), self))
            }
            Ok(None) => None,
            Err(error) => {
                self.over = true;
                Some((Err(error), self))
            }
        }
    }

    async fn told(&mut self) -> Result<Option<WorkflowNews>, Error> {
        while let Some(snapshot) = self.snapshots.pop_front() {
            if let Some(news) = self.snapshot(snapshot).await? {
                return Ok(Some(news));
            }
        }
        loop {
            if let Some(event) = self.batch.pop_front() {
                return self.event(event).await.map(Some);
            }
            self.cursor = self.cursor.max(self.read_to);
            self.waiter.look();
            let part = self.log.read(self.cursor, &self.filter, BATCH).await?;
            let (any, more) = (!part.events.is_empty(), part.more);
            self.take(part);
            if any {
                continue;
            }
            self.cursor = self.cursor.max(self.read_to);
            if more {
                continue;
            }
            if !self.synced && self.cursor >= self.goal {
                self.synced = true;
                return Ok(Some(self.bookmarked()));
            }
            if self.ended && self.filter.workflow_id.is_some() {
                return Ok(None);
            }
            if timeout_at(self.bookmark, self.waiter.news()).await.is_err() {
                return Ok(Some(self.bookmarked()));
            }
        }
    }

    fn take(&mut self, part: Part) {
        self.batch = part.events.into();
        self.read_to = part.read_to;
    }

    async fn event(&mut self, event: Arc<LoggedEvent>) -> Result<WorkflowNews, Error> {
        if self.filter.workflow_id.is_some() {
            self.ended = self.log.ends(&event).await?;
        }
        self.cursor = event.event.revision;
        Ok(WorkflowNews {
            revision: self.cursor,
            told: WorkflowTold::Event(event),
        })
    }

    fn bookmarked(&self) -> WorkflowNews {
        WorkflowNews {
            revision: self.cursor,
            told: WorkflowTold::Bookmark {
                synced: self.synced,
            },
        }
    }

    /// Ids of all that have not ended at one revision, after which the log is told.
    async fn snapshots_of_unfinished(&mut self) -> Result<(), Error> {
        let log = self.log.clone();
        self.snapshot_revision = self.goal;
        self.cursor = self.goal;
        let mut ids: BTreeSet<String> = match &self.filter.instance_id {
            None => log.store().unfinished_workflows().await?,
            Some(id) => {
                let ended = |status: &&Status| !status.has_ended();
                let unfinished = WorkflowFilter {
                    instance_id: Some(id.clone()),
                    statuses: Status::ALL.iter().filter(ended).copied().collect(),
                    kind: None,
                };
                let found = log.store().workflows(&unfinished, None, UNFINISHED).await?;
                found.into_iter().map(|found| found.workflow_id).collect()
            }
        }
        .into_iter()
        .collect();
        // one that ended since, or went on again, is told as it was; the store may have known of it before memory did
        log.catch_up().await?;
        let mut after = self.goal;
        loop {
            let part = log.read(after, &self.filter, BATCH).await?;
            ids.extend(
                part.events
                    .iter()
                    .map(|event| event.event.workflow_id.clone()),
            );
            after = after.max(part.read_to);
            if !part.more {
                break;
            }
        }
        self.snapshots = ids.into_iter().map(Snapshot::Of).collect();
        Ok(())
    }

    async fn snapshot(&self, snapshot: Snapshot) -> Result<Option<WorkflowNews>, Error> {
        let (state, revision) = match snapshot {
            Snapshot::Read(state) => {
                let revision = state.revision;
                (Some(*state), revision)
            }
            Snapshot::Of(id) => (self.state_then(&id).await?, 0),
        };
        let state = state.filter(|state| {
            // one that is named is told however it is
            let named = self.filter.workflow_id.is_some();
            named || !state.status().has_ended()
        });
        Ok(state.map(|state| WorkflowNews {
            revision,
            told: WorkflowTold::Snapshot(Box::new(state)),
        }))
    }

    /// How a workflow was at the revision of the snapshots; none where it had not begun.
    async fn state_then(&self, id: &str) -> Result<Option<Workflow>, Error> {
        let store = self.log.store();
        let then = self.snapshot_revision;
        let now = store.workflow(id).await?;
        if now.as_ref().is_none_or(|now| now.revision <= then) {
            return Ok(now);
        }
        let filter = EventFilter {
            workflow_id: Some(id.to_owned()),
            instance_id: None,
        };
        let (mut state, mut after) = (None, 0);
        loop {
            let page = self.log.stored(after, &filter, REPLAYED).await?;
            for event in &page.events {
                if event.revision > then {
                    return Ok(state);
                }
                let next = evolve(state.take(), event);
                state = Some(next.map_err(|error| StoreError::Unreadable(error.to_string()))?);
            }
            after = page.read_to_revision;
            if !page.more {
                return Ok(state);
            }
        }
    }
}
