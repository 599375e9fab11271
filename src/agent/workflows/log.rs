//! The log of events, as its readers see it.
//!
//! The store has the log; the last of it is in memory, once for all readers. A reader is a cursor: it asks for what comes
//! after a revision, and is answered from memory where that is there, else from the store. So one that does not read
//! costs nothing, and none is ever skipped.

mod waiter;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use crate::agent::Forms;
use crate::agent::watch::HEARTBEAT;
use crate::store::{EventFilter, EventsPage, StoreError, WorkflowStore};
use crate::workflow::{Event, RecordedEvent, encode_event};

use waiter::About;
pub(super) use waiter::Waiter;
pub(in crate::agent) use waiter::{ChangedSettings, hinted};

/// Events that are kept in memory.
const MOST_EVENTS: usize = 4_096;
/// Bytes of them, as the log has them.
const MOST_BYTES: usize = 16 << 20;
/// Events that may wait for those before them; later ones are in the store.
const MOST_EARLY: usize = 1_024;
/// Events of one read from the store into memory.
const CATCH_UP_PAGE: u32 = 256;
/// Events of one read from the store for one reader, who may not take them for long.
const READER_PAGE: u32 = 16;
/// So often it is looked whether the store has more: what was committed without word of it, by another agent or in a task
/// that was broken off.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// An event, for all who are told of it.
#[derive(Debug)]
pub struct LoggedEvent {
    /// The event in its place.
    pub event: RecordedEvent,
    /// What an edge made of it.
    pub forms: Forms,
    /// Whether its workflow ended with it, once somebody has found out.
    ends: OnceCell<bool>,
}

/// The log of events.
pub(in crate::agent) struct EventLog {
    store: Arc<dyn WorkflowStore>,
    tail: Mutex<Tail>,
    waiting: Mutex<HashMap<About, watch::Sender<u64>>>,
    /// Reads from the store into memory take turns.
    catching_up: tokio::sync::Mutex<()>,
    /// Somebody sees to a hole.
    filling: AtomicBool,
    measure: Measure,
}

/// How much is kept in memory, and how often things are done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// See [`LOOK_INTERVAL`].
    pub(super) look: Duration,
    /// Between two bookmarks.
    pub(super) bookmark: Duration,
}

/// The last of the log, without gaps.
#[derive(Debug, Default)]
struct Tail {
    /// Each with its bytes.
    events: VecDeque<(Arc<LoggedEvent>, usize)>,
    bytes: usize,
    /// Revision of the last of them.
    end: u64,
    /// Behind a gap.
    early: BTreeMap<u64, RecordedEvent>,
}

/// A part of the log.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) events: Vec<Arc<LoggedEvent>>,
    /// Up to here nothing is missing.
    pub(super) read_to: u64,
    /// There is more.
    pub(super) more: bool,
}

impl EventLog {
    /// The log of a store, from its present end on in memory.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(in crate::agent) async fn open(
        store: Arc<dyn WorkflowStore>,
    ) -> Result<Arc<Self>, StoreError> {
        let measure = Measure {
            events: MOST_EVENTS,
            bytes: MOST_BYTES,
            look: LOOK_INTERVAL,
            bookmark: HEARTBEAT,
        };
        Self::measured(store, measure).await
    }

    pub(super) async fn measured(
        store: Arc<dyn WorkflowStore>,
        measure: Measure,
    ) -> Result<Arc<Self>, StoreError> {
        let end = end_of(&*store).await?;
        let log = Arc::new(Self {
            store,
            tail: Mutex::new(Tail {
                end,
                ..Tail::default()
            }),
            waiting: Mutex::default(),
            catching_up: tokio::sync::Mutex::default(),
            filling: AtomicBool::new(false),
            measure,
        });
        let weak = Arc::downgrade(&log);
        let mut hints = log.store.hints();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(measure.look) => {}
                    () = hinted(&mut hints) => {}
                }
                let Some(log) = weak.upgrade() else { return };
                if log.has_readers()
                    && let Err(error) = log.catch_up().await
                {
                    tracing::warn!(%error, "the log of workflows cannot be read");
                }
            }
        });
        Ok(log)
    }

    /// Tells of an event that was just committed. Where those before it are not known yet they are read from the store, so
    /// that all are told in the order of their revisions.
    pub(in crate::agent) fn committed(self: &Arc<Self>, event: &RecordedEvent) {
        if self.put([event.clone()]) && !self.filling.swap(true, Ordering::AcqRel) {
            let log = self.clone();
            tokio::spawn(async move {
                let filled = log.catch_up().await;
                log.filling.store(false, Ordering::Release);
                if let Err(error) = filled {
                    // looked at again before long
                    tracing::warn!(%error, "the log of workflows cannot be read");
                }
            });
        }
    }

    /// Revision of the last event that is known with all before it.
    pub(super) fn end(&self) -> u64 {
        self.tail().end
    }

    /// What comes after a revision, at most so many events.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where a part of it is gone, a store that cannot be read.
    pub(super) async fn read(
        &self,
        after: u64,
        filter: &EventFilter,
        size: u32,
    ) -> Result<Part, StoreError> {
        if let Some(part) = self.tail().after(after, filter, size) {
            return Ok(part);
        }
        let page = self.stored(after, filter, size.min(READER_PAGE)).await?;
        Ok(Part {
            events: page.events.into_iter().map(logged).collect(),
            read_to: page.read_to_revision.max(after),
            more: page.more,
        })
    }

    /// A part of the log as the store has it. Of a workflow that is there from its first event on nothing is gone, whatever
    /// is of others.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where a part of it is gone, a store that cannot be read.
    pub(super) async fn stored(
        &self,
        after: u64,
        filter: &EventFilter,
        size: u32,
    ) -> Result<EventsPage, StoreError> {
        let gone = match self.store.events(after, filter, size).await {
            Err(StoreError::Compacted { oldest_revision }) => oldest_revision,
            page => return page,
        };
        let compacted = StoreError::Compacted {
            oldest_revision: gone,
        };
        if filter.workflow_id.is_none() {
            return Err(compacted);
        }
        let page = self.store.events(gone, filter, size).await?;
        match page.events.first() {
            Some(first) if first.sequence == 1 => Ok(page),
            _ => Err(compacted),
        }
    }

    /// Whether the workflow ended with this event, as far as is known of its kind and, where that does not tell, of the
    /// workflow.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(super) async fn ends(&self, event: &LoggedEvent) -> Result<bool, StoreError> {
        match event.event.event {
            Event::NothingToDo { .. }
            | Event::Rejected { .. }
            | Event::Cancelled { .. }
            | Event::Completed { .. }
            | Event::RolledBack
            | Event::RollbackFailed { .. }
            | Event::Failed { .. } => Ok(true),
            // an analysis ends with its plan, and what nothing can carry out with its approval; nothing follows then
            Event::Planned { .. } | Event::Approved { .. } => {
                let RecordedEvent {
                    workflow_id,
                    revision,
                    ..
                } = &event.event;
                let found = event.ends.get_or_try_init(|| async {
                    let state = self.store.workflow(workflow_id).await?;
                    let last = state.filter(|state| state.revision == *revision);
                    Ok(last.is_some_and(|state| state.status().has_ended()))
                });
                found.await.copied()
            }
            _ => Ok(false),
        }
    }

    /// Reads what the store has and memory has not.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let _turn = self.catching_up.lock().await;
        loop {
            let end = self.end();
            let all = EventFilter::default();
            let page = match self.store.events(end, &all, CATCH_UP_PAGE).await {
                Err(StoreError::Compacted { oldest_revision }) => {
                    // who is still before it hears so from the store
                    let mut tail = self.tail();
                    tail.events.clear();
                    tail.bytes = 0;
                    tail.end = tail.end.max(oldest_revision);
                    continue;
                }
                page => page?,
            };
            let more = page.more && !page.events.is_empty();
            self.put(page.events);
            if !more {
                return Ok(());
            }
        }
    }

    /// How long a watcher is told nothing at most.
    pub(super) fn bookmark_interval(&self) -> Duration {
        self.measure.bookmark
    }

    pub(super) fn store(&self) -> &Arc<dyn WorkflowStore> {
        &self.store
    }

    /// Whether there is a gap before some of what is known.
    fn put(&self, events: impl IntoIterator<Item = RecordedEvent>) -> bool {
        let (new, gap) = self.tail().put(events, self.measure);
        if !new.is_empty() {
            self.tell(&new);
        }
        gap
    }

    fn tell(&self, new: &[Arc<LoggedEvent>]) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = |about: &About, revision: u64| {
            if let Some(sender) = waiting.get(about) {
                sender.send_if_modified(|last| {
                    let is_news = *last < revision;
                    *last = (*last).max(revision);
                    is_news
                });
            }
        };
        if waiting.is_empty() {
            return;
        }
        for logged in new {
            let event = &logged.event;
            tell(&About::Workflow(event.workflow_id.clone()), event.revision);
            tell(&About::Instance(event.instance_id.clone()), event.revision);
        }
        if let Some(last) = new.last() {
            tell(&About::All, last.event.revision);
        }
    }

    fn has_readers(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        !waiting.is_empty()
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.end();
        out.debug_struct("EventLog")
            .field("end", &end)
            .finish_non_exhaustive()
    }
}

impl Tail {
    /// The events that are new and without a gap, and whether there is one before others.
    fn put(
        &mut self,
        events: impl IntoIterator<Item = RecordedEvent>,
        most: Measure,
    ) -> (Vec<Arc<LoggedEvent>>, bool) {
        for event in events {
            if event.revision > self.end && self.early.len() < MOST_EARLY {
                self.early.insert(event.revision, event);
            }
        }
        let mut new = Vec::new();
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.end.saturating_add(1) {
                break;
            }
            let event = first.remove();
            if event.revision <= self.end {
                continue;
            }
            self.end = event.revision;
            // what cannot be written was not committed
            let bytes = encode_event(&event.event).map_or(0, |text| text.len());
            let event = logged(event);
            self.bytes += bytes;
            self.events.push_back((event.clone(), bytes));
            new.push(event);
        }
        while self.events.len() > most.events || self.bytes > most.bytes {
            match self.events.pop_front() {
                Some((_, bytes)) => self.bytes -= bytes,
                None => break,
            }
        }
        (new, !self.early.is_empty())
    }

    /// None where what comes after it is not in memory.
    fn after(&self, after: u64, filter: &EventFilter, size: u32) -> Option<Part> {
        let kept = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        let start = self.end.saturating_sub(kept);
        let skipped = usize::try_from(after.checked_sub(start)?).unwrap_or(usize::MAX);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut part = Part {
            events: Vec::new(),
            read_to: after.max(self.end),
            more: false,
        };
        for (event, _) in self.events.iter().skip(skipped) {
            if !matches(filter, &event.event) {
                continue;
            }
            if part.events.len() >= size {
                part.read_to = part.events.last().map_or(after, |last| last.event.revision);
                part.more = true;
                break;
            }
            part.events.push(event.clone());
        }
        Some(part)
    }
}

fn logged(event: RecordedEvent) -> Arc<LoggedEvent> {
    Arc::new(LoggedEvent {
        event,
        forms: Forms::default(),
        ends: OnceCell::new(),
    })
}

fn matches(filter: &EventFilter, event: &RecordedEvent) -> bool {
    let is = |asked: &Option<String>, of: &String| asked.as_ref().is_none_or(|id| id == of);
    is(&filter.workflow_id, &event.workflow_id) && is(&filter.instance_id, &event.instance_id)
}

/// Revision of the last event that was committed.
async fn end_of(store: &dyn WorkflowStore) -> Result<u64, StoreError> {
    // of none: the log is read to its end
    let none = EventFilter {
        workflow_id: Some(String::new()),
        instance_id: None,
    };
    let page = match store.events(0, &none, 1).await {
        Err(StoreError::Compacted { oldest_revision }) => {
            store.events(oldest_revision, &none, 1).await?
        }
        page => page?,
    };
    Ok(page.read_to_revision)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
