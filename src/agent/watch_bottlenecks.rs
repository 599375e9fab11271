//! Watching what holds instances back: what is open now, and each change of that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::fleet::{Health, InstanceState};
use super::watch::{HEARTBEAT, WatchEvent};
use super::{Agent, Error};
use crate::analysis::{Change, Tracker};

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum BottleneckEvent {
    /// What is open on an instance: at first, and when it is measured again.
    Current(Arc<InstanceState>),
    /// One opened, changed or is resolved.
    Change {
        /// The instance after it.
        state: Arc<InstanceState>,
        /// The change.
        change: Change,
    },
    /// The instance is not measured now.
    Missing(Arc<InstanceState>),
    /// An instance is not watched any more: it was deleted, or lost the labels.
    Removed {
        /// Which.
        instance_id: Arc<str>,
    },
    /// Nothing has changed.
    Heartbeat,
}

/// What was told of an instance last.
#[derive(Debug)]
struct Told {
    bottlenecks: Arc<Tracker>,
    sequence: u64,
    health: Health,
    missing: bool,
}

impl Agent {
    /// What holds these instances back now and each change of it; of all where none is named, those that come later
    /// included. Ends when all that were named are gone.
    ///
    /// # Errors
    /// An instance that there is not; labels that no instance can have.
    pub fn watch_bottlenecks(
        &self,
        ids: &[String],
        labels: BTreeMap<String, String>,
    ) -> Result<impl Stream<Item = BottleneckEvent> + Send + use<>, Error> {
        let watch = Watch {
            states: Box::pin(self.watch(ids, labels)?),
            told: HashMap::new(),
            pending: VecDeque::new(),
            heartbeat: Instant::now() + HEARTBEAT,
        };
        Ok(futures_util::stream::unfold(watch, Watch::next))
    }
}

struct Watch {
    states: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
    told: HashMap<Arc<str>, Told>,
    pending: VecDeque<BottleneckEvent>,
    /// States come each interval, and mostly nothing of it is told.
    heartbeat: Instant,
}

impl Watch {
    async fn next(mut self) -> Option<(BottleneckEvent, Self)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.heartbeat = Instant::now() + HEARTBEAT;
                return Some((event, self));
            }
            match tokio::time::timeout_at(self.heartbeat, self.states.next()).await {
                Ok(Some(WatchEvent::State { state, .. })) => self.take(state),
                Ok(Some(WatchEvent::Removed { instance_id })) => {
                    self.told.remove(&instance_id);
                    self.pending
                        .push_back(BottleneckEvent::Removed { instance_id });
                }
                Ok(None) => return None,
                Ok(Some(WatchEvent::Heartbeat)) | Err(_) => {
                    self.pending.push_back(BottleneckEvent::Heartbeat);
                }
            }
        }
    }

    fn take(&mut self, state: Arc<InstanceState>) {
        let id: Arc<str> = state.instance.id().into();
        let now = Told {
            bottlenecks: state.bottlenecks.clone(),
            sequence: state.sequence,
            health: state.health,
            missing: state.is_missing(),
        };
        self.pending
            .extend(events(self.told.get(&id), &now, &state));
        self.told.insert(id, now);
    }
}

fn events(before: Option<&Told>, now: &Told, state: &Arc<InstanceState>) -> Vec<BottleneckEvent> {
    // another place or engine begins a new history
    let before = before.filter(|before| before.sequence <= now.sequence);
    match before {
        Some(before) if now.missing && before.missing && before.health == now.health => Vec::new(),
        _ if now.missing => vec![BottleneckEvent::Missing(state.clone())],
        Some(before) if !before.missing => {
            let changes = now.bottlenecks.changes_since(&before.bottlenecks);
            let told = changes.into_iter().map(|change| BottleneckEvent::Change {
                state: state.clone(),
                change,
            });
            told.collect()
        }
        _ => vec![BottleneckEvent::Current(state.clone())],
    }
}
