//! Bottlenecks that open and are resolved, told to webhooks.
//!
//! What is open is known from measuring alone: after a restart it opens anew, and is told anew.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use super::Webhooks;
use crate::agent::WatchEvent;
use crate::agent::fleet::InstanceState;
use crate::analysis::Tracker;
use crate::store::micros;
use crate::webhook::{Webhook, bottleneck_turns, of_bottlenecks};

/// What was told of an instance last.
struct Told {
    open: Arc<Tracker>,
    labels: BTreeMap<String, String>,
    simulated: bool,
}

/// Tells of what opens and is resolved on instances, until it is told to stop.
pub(super) async fn tell(
    webhooks: Weak<Webhooks>,
    states: impl Stream<Item = WatchEvent>,
    owns: impl Fn(&str) -> bool,
    stop: CancellationToken,
) {
    let mut states = pin!(states);
    let mut told: HashMap<Arc<str>, Told> = HashMap::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = states.next() => event,
        };
        let Some(hooks) = webhooks.upgrade() else {
            return;
        };
        match event {
            None => return,
            Some(WatchEvent::Heartbeat) => {}
            Some(WatchEvent::State { state, .. }) => {
                let id: Arc<str> = state.instance.id().into();
                // another agent tells it; one that takes over tells anew what is open, as one that is started
                if !owns(&id) {
                    told.remove(&id);
                    continue;
                }
                let now = told_of(&state);
                if hooks.turned(&id, told.get(&id), &now).await {
                    told.insert(id, now);
                }
            }
            // nobody measures any more whether it still holds the instance back
            Some(WatchEvent::Removed { instance_id }) => {
                if let Some(before) = told.remove(&instance_id) {
                    let nothing = Told {
                        open: Arc::default(),
                        labels: before.labels.clone(),
                        simulated: before.simulated,
                    };
                    hooks.turned(&instance_id, Some(&before), &nothing).await;
                }
            }
        }
    }
}

fn told_of(state: &InstanceState) -> Told {
    Told {
        open: state.bottlenecks.clone(),
        labels: state.instance.spec.labels.clone(),
        simulated: state
            .latest
            .as_ref()
            .is_some_and(|latest| latest.simulated()),
    }
}

impl Webhooks {
    /// Whether what turned between the two is written down.
    async fn turned(&self, instance_id: &str, before: Option<&Told>, now: &Told) -> bool {
        let nothing = Arc::default();
        let before = before.map_or(&nothing, |told| &told.open);
        if Arc::ptr_eq(before, &now.open) {
            return true;
        }
        let turns = bottleneck_turns(before, &now.open);
        if turns.is_empty() {
            return true;
        }
        let at = self.clock.now();
        let of_instance = (&now.labels, now.simulated);
        let deliver = |webhooks: &[Webhook]| {
            of_bottlenecks(instance_id, of_instance, &turns, micros(at), webhooks)
        };
        match self.store.put_deliveries(&deliver, at).await {
            Ok(0) => true,
            Ok(_) => {
                self.wake();
                true
            }
            Err(error) => {
                tracing::warn!(
                    instance_id,
                    "a bottleneck could not be told to webhooks: {error}"
                );
                false
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::analysis::{Cause, Diagnosis, Finding, Severity, Verdict};
    use crate::config::Config;
    use crate::instance::{Instance, InstanceSpec};
    use crate::store::{DeliveryFilter, SqliteStore, WebhookStore};
    use crate::webhook::{EventType, Secret, WebhookSpec};

    fn state(bottlenecks: &Tracker) -> WatchEvent {
        let spec = InstanceSpec {
            instance_id: "a".to_owned(),
            instance_type: None,
            metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
            scrape_interval: Duration::from_secs(15),
            window: Duration::from_secs(60),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        };
        let instance = Arc::new(Instance::configured(spec));
        let state = InstanceState::new(instance, Arc::default(), SystemTime::UNIX_EPOCH);
        WatchEvent::State {
            state: Arc::new(InstanceState {
                bottlenecks: Arc::new(bottlenecks.clone()),
                ..state
            }),
            missed: 0,
        }
    }

    fn diagnosis(findings: Vec<Finding>) -> Diagnosis {
        Diagnosis {
            verdict: match findings.is_empty() {
                true => Verdict::Healthy,
                false => Verdict::Findings,
            },
            headline: String::new(),
            findings,
            unclear: Vec::new(),
        }
    }

    fn full() -> Finding {
        Finding {
            cause: Cause::KvCapacity,
            severity: Severity::Critical,
            confidence: 1.0,
            description: String::new(),
            evidence: Vec::new(),
            costs: Vec::new(),
            recommendation: String::new(),
            treatments: Vec::new(),
            explained_by: None,
            replicas: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_opens_and_is_resolved_is_told_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
        let config = Config::default();
        let hooks = Webhooks::new(&config, store.clone(), Arc::default()).unwrap();
        let spec = WebhookSpec {
            webhook_id: "pager".to_owned(),
            url: "https://hooks.example/x".to_owned(),
            types: vec![EventType::BottleneckOpened, EventType::BottleneckResolved],
            instance_ids: Vec::new(),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            min_severity: Some(Severity::High),
            description: String::new(),
        };
        let (now, secret) = (SystemTime::now(), Secret::of(&[1; 32]));
        let created = store.create_webhook(&spec, &secret, None, now);
        created.await.unwrap();
        let nothing = Tracker::default();
        let mut open = nothing.clone();
        open.observe(&diagnosis(vec![full()]), 1.0);
        let mut gone = open.clone();
        for at in [2.0, 3.0, 4.0] {
            gone.observe(&diagnosis(Vec::new()), at);
        }
        let mut again = gone.clone();
        again.observe(&diagnosis(vec![full()]), 5.0);
        let states = [
            state(&nothing),
            state(&open),
            WatchEvent::Heartbeat,
            state(&open),
            state(&gone),
            state(&again),
            WatchEvent::Removed {
                instance_id: "a".into(),
            },
        ];
        let stop = CancellationToken::new();
        let weak = Arc::downgrade(&hooks);
        tell(weak, futures_util::stream::iter(states), |_| true, stop).await;
        let filter = DeliveryFilter::default();
        let told = store.deliveries(&filter, None, 10).await.unwrap();
        let kinds: Vec<&str> = told
            .iter()
            .rev()
            .map(|one| one.what.kind.as_str())
            .collect();
        let (opened, resolved) = ("bottleneck.opened", "bottleneck.resolved");
        assert_eq!(kinds, [opened, resolved, opened, resolved]);
        assert!(told.iter().all(|one| one.what.ordered_by == "instance/a"));
        // one after the other
        let due = told.iter().filter(|one| one.due_us.is_some());
        assert_eq!(due.count(), 1);
    }
}
