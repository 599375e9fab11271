//! Watching instances: their state now, and each change of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::Stream;

use super::fleet::{Fleet, Hold, InstanceState, Watcher};
use super::instances::has_labels;
use super::{Agent, Error, FieldViolation, LIMITS};
use crate::instance::label_violations;

/// Without a change for this long a watcher is told that nothing has changed, so that nothing in between takes the
/// stream for dead.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// What an instance is now.
    State {
        /// Its state.
        state: Arc<InstanceState>,
        /// Scrapes between this and the last one told, which the watcher was too slow for.
        missed: u64,
    },
    /// An instance is not watched any more: it was deleted, or lost the labels.
    Removed {
        /// Which.
        instance_id: Arc<str>,
    },
    /// Nothing has changed.
    Heartbeat,
}

impl Agent {
    /// The state of these instances now and each change of it; of all where none is named, those that come later
    /// included. Ends when all that were named are gone.
    ///
    /// # Errors
    /// An instance that there is not; labels that no instance can have.
    pub fn watch(
        &self,
        ids: &[String],
        labels: BTreeMap<String, String>,
    ) -> Result<impl Stream<Item = WatchEvent> + Send + use<>, Error> {
        let mut violations = label_violations(&labels);
        if ids.len() > LIMITS.batch {
            let description = format!(
                "{} ids; at most {}, or none for all instances, by labels",
                ids.len(),
                LIMITS.batch
            );
            violations.push(FieldViolation::new("instance_ids", description));
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        // before anything is kept of them
        for id in ids {
            self.instance(id)?;
        }
        let named: Vec<Arc<str>> = ids.iter().map(|id| id.as_str().into()).collect();
        Ok(self.watch_any(named, labels, true))
    }

    /// The state of all instances and each change of it, as far as they are measured here anyway.
    pub(super) fn watch_as_it_is(&self) -> impl Stream<Item = WatchEvent> + Send + use<> {
        self.watch_any(Vec::new(), BTreeMap::new(), false)
    }

    fn watch_any(
        &self,
        named: Vec<Arc<str>>,
        labels: BTreeMap<String, String>,
        has_them_measured: bool,
    ) -> impl Stream<Item = WatchEvent> + Send + use<> {
        // from before the states are read, so that no change falls in between
        let watcher = self.fleet.watch(&named);
        let pending = match named.is_empty() {
            true => {
                let all = self.fleet.after("");
                all.iter().map(|state| state.instance.id().into()).collect()
            }
            false => named.iter().cloned().collect(),
        };
        let watch = Watch {
            fleet: self.fleet.clone(),
            watcher,
            labels,
            has_them_measured,
            pending,
            told: HashMap::new(),
            named: (!named.is_empty()).then_some(named),
            heartbeat: Instant::now(),
        };
        futures_util::stream::unfold(watch, Watch::next)
    }
}

struct Watch {
    fleet: Arc<Fleet>,
    watcher: Arc<Watcher>,
    labels: BTreeMap<String, String>,
    /// Instances that may have changed. Their state is read when its turn comes.
    pending: VecDeque<Arc<str>>,
    /// What is told of is measured here, whoever else measures it.
    has_them_measured: bool,
    /// What was told last.
    told: HashMap<Arc<str>, Told>,
    /// Those that were asked for; none for all.
    named: Option<Vec<Arc<str>>>,
    /// When the watcher is told that nothing has changed, if nothing has.
    heartbeat: Instant,
}

struct Told {
    version: u64,
    sequence: u64,
    _measured: Option<Hold>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.fleet
            .unwatch(&self.watcher, self.named.as_deref().unwrap_or_default());
    }
}

impl Watch {
    async fn next(mut self) -> Option<(WatchEvent, Self)> {
        loop {
            while let Some(id) = self.pending.pop_front() {
                if let Some(event) = self.tell(id) {
                    self.heartbeat = Instant::now() + HEARTBEAT;
                    return Some((event, self));
                }
            }
            let gone = |id: &Arc<str>| self.fleet.get(id).is_none();
            if self
                .named
                .as_ref()
                .is_some_and(|named| named.iter().all(gone))
            {
                // each is told to be gone before the end is
                self.pending.extend(self.told.keys().cloned());
                if self.pending.is_empty() {
                    return None;
                }
                continue;
            }
            // at first it is due at once: where there is nothing to tell, the caller knows that it watches
            match tokio::time::timeout_at(self.heartbeat, self.watcher.changes()).await {
                Ok(changed) => self.pending.extend(changed),
                Err(_) => {
                    self.heartbeat = Instant::now() + HEARTBEAT;
                    return Some((WatchEvent::Heartbeat, self));
                }
            }
        }
    }

    fn tell(&mut self, id: Arc<str>) -> Option<WatchEvent> {
        let state = self.fleet.get(&id);
        let Some(state) = state.filter(|state| has_labels(&state.instance, &self.labels)) else {
            self.told.remove(&id)?;
            return Some(WatchEvent::Removed { instance_id: id });
        };
        let told = Told {
            version: state.version,
            sequence: state.sequence,
            // anew each time: one that was registered again is another
            _measured: self.fleet.hold(&id).filter(|_| self.has_them_measured),
        };
        let missed = match self.told.insert(id, told) {
            Some(before) if before.version == state.version => return None,
            Some(before) => {
                let next = before.sequence.saturating_add(1);
                state.sequence.saturating_sub(next)
            }
            None => 0,
        };
        Some(WatchEvent::State { state, missed })
    }
}
