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
