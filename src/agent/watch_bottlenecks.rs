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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::analysis::{Cause, ChangeKind, Diagnosis, Finding, Severity, Verdict};
    use crate::instance::{Instance, InstanceSpec};

    fn state() -> Arc<InstanceState> {
        let spec = InstanceSpec {
            instance_id: "a".to_owned(),
            instance_type: None,
            metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
            scrape_interval: Duration::from_secs(15),
            window: Duration::from_secs(60),
            labels: BTreeMap::new(),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        };
        let instance = Arc::new(Instance::configured(spec));
        Arc::new(InstanceState::new(
            instance,
            Arc::default(),
            SystemTime::UNIX_EPOCH,
        ))
    }

    fn told(bottlenecks: &Tracker, sequence: u64) -> Told {
        Told {
            bottlenecks: Arc::new(bottlenecks.clone()),
            sequence,
            health: Health::Up,
            missing: false,
        }
    }

    fn missing(bottlenecks: &Tracker, sequence: u64, health: Health) -> Told {
        Told {
            health,
            missing: true,
            ..told(bottlenecks, sequence)
        }
    }

    fn words(before: Option<&Told>, now: &Told) -> Vec<&'static str> {
        let events = events(before, now, &state());
        let word = |event: &BottleneckEvent| match event {
            BottleneckEvent::Current(_) => "current",
            BottleneckEvent::Missing(_) => "missing",
            BottleneckEvent::Change { change, .. } => match change.kind {
                ChangeKind::Opened => "opened",
                ChangeKind::Changed => "changed",
                ChangeKind::Resolved => "resolved",
            },
            BottleneckEvent::Removed { .. } => "removed",
            BottleneckEvent::Heartbeat => "heartbeat",
        };
        events.iter().map(word).collect()
    }

    fn open(severity: Severity) -> Diagnosis {
        let finding = Finding {
            cause: Cause::KvCapacity,
            severity,
            confidence: 1.0,
            description: String::new(),
            evidence: Vec::new(),
            costs: Vec::new(),
            recommendation: String::new(),
            treatments: Vec::new(),
            explained_by: None,
            replicas: Vec::new(),
        };
        Diagnosis {
            verdict: Verdict::Findings,
            headline: String::new(),
            findings: vec![finding],
            unclear: Vec::new(),
        }
    }

    #[test]
    fn the_state_comes_first_then_each_change() {
        let nothing = Tracker::default();
        let mut critical = nothing.clone();
        critical.observe(&open(Severity::Critical), 1.0);
        let mut lower = critical.clone();
        lower.observe(&open(Severity::High), 2.0);
        lower.observe(&open(Severity::High), 3.0);
        let mut gone = lower.clone();
        let healthy = Diagnosis {
            verdict: Verdict::Healthy,
            findings: Vec::new(),
            ..open(Severity::Low)
        };
        for at in [4.0, 5.0, 6.0] {
            gone.observe(&healthy, at);
        }
        assert_eq!(words(None, &told(&critical, 7)), ["current"]);
        let first = told(&nothing, 6);
        assert_eq!(words(Some(&first), &told(&nothing, 7)), [""; 0]);
        let opened = told(&critical, 7);
        assert_eq!(words(Some(&first), &opened), ["opened"]);
        let changed = told(&lower, 9);
        assert_eq!(words(Some(&opened), &changed), ["changed"]);
        assert_eq!(words(Some(&changed), &told(&gone, 12)), ["resolved"]);
        // a reader that was too slow for what came in between
        assert_eq!(words(Some(&first), &changed), ["opened"]);
        assert_eq!(words(Some(&opened), &told(&gone, 12)), ["resolved"]);
        assert_eq!(words(Some(&first), &told(&gone, 12)), [""; 0]);
        // moved elsewhere, it begins anew
        assert_eq!(words(Some(&changed), &told(&nothing, 1)), ["current"]);
    }

    #[test]
    fn what_is_missing_is_told_once_and_then_how_it_is() {
        let nothing = Tracker::default();
        let up = told(&nothing, 3);
        let degraded = missing(&nothing, 4, Health::Degraded);
        let down = missing(&nothing, 5, Health::Down);
        assert_eq!(words(None, &down), ["missing"]);
        assert_eq!(words(Some(&up), &degraded), ["missing"]);
        assert_eq!(words(Some(&degraded), &down), ["missing"]);
        let still = missing(&nothing, 6, Health::Down);
        assert_eq!(words(Some(&down), &still), [""; 0]);
        assert_eq!(words(Some(&still), &told(&nothing, 7)), ["current"]);
    }
}
