//! Several agents on one store: who they are, what the others changed, and workflows that nobody carries on.
//!
//! ```text
//! store ┬ beat: who is there          → whose business an instance is
//!       ├ revision of the instances   → the fleet
//!       ├ log of events               → tasks of workflows that somebody asked something of elsewhere
//!       └ workflows that nobody holds → tasks
//! ```
//!
//! All of it is read again and again, by revision: what is missed once is found the next time.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::workflows::hinted;
use crate::store::{Store, StoreError};

/// How long an agent counts as there after it said so, and how often it does.
const ALIVE: Duration = Duration::from_secs(15);
const BEAT: Duration = Duration::from_secs(5);
/// How often it is looked what others did.
const LOOK: Duration = Duration::from_secs(1);

/// What an agent knows of the others.
#[derive(Debug)]
pub(super) struct Sharing {
    agent_id: String,
    /// Agents that are there, in order; only this one until it has asked.
    members: Mutex<Arc<[String]>>,
    /// The store answers.
    reachable: watch::Sender<bool>,
    stop: CancellationToken,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sharing {
    /// Whether an instance is this agent's business, of those that are there: what is told of it is told once. Each instance
    /// has its own order of the agents, so that one that comes or goes moves only what is its own.
    pub(super) fn owns(&self, instance_id: &str) -> bool {
        let members = self.members();
        let first = members
            .iter()
            .max_by_key(|member| weight(member, instance_id));
        first.is_none_or(|first| *first == self.agent_id)
    }

    fn members(&self) -> Arc<[String]> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.clone()
    }

    /// Whether that is news.
    fn found(&self, members: Vec<String>) -> bool {
        let mut known = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = **known != *members;
        if is_news {
            *known = members.into();
        }
        is_news
    }
}

/// Place of an agent in the order of an instance: the highest comes first (rendezvous hashing).
fn weight(agent_id: &str, instance_id: &str) -> [u8; 32] {
    let both = format!("{agent_id}\n{instance_id}");
    let mut weight = [0; 32];
    weight.copy_from_slice(digest(&SHA256, both.as_bytes()).as_ref());
    weight
}

impl Agent {
    /// Begins to look at what others do, where others can.
    pub(super) fn share(self: &Arc<Self>, agent_id: &str, store: &Arc<dyn Store>) {
        if !store.is_shared() {
            return;
        }
        let stop = CancellationToken::new();
        let sharing = Arc::new(Sharing {
            agent_id: agent_id.to_owned(),
            members: Mutex::new(Arc::from([agent_id.to_owned()])),
            reachable: watch::Sender::new(true),
            stop: stop.clone(),
        });
        // only here is it set
        let _ = self.sharing.set(sharing.clone());
        tokio::spawn(beat(Arc::downgrade(&sharing), store.clone(), stop.clone()));
        let weak = Arc::downgrade(self);
        tokio::spawn(look(
            weak.clone(),
            Arc::downgrade(&sharing),
            store.clone(),
            stop.clone(),
        ));
        tokio::spawn(hear(weak, stop));
    }

    /// Whether the store answers, now and as it changes; none for one that is this agent's own.
    pub fn store_answers(&self) -> Option<watch::Receiver<bool>> {
        let sharing = self.sharing.get()?;
        Some(sharing.reachable.subscribe())
    }

    /// Tells the others that this agent goes.
    pub(super) async fn leave(&self) {
        if let (Some(sharing), Some(store)) = (self.sharing.get(), &self.store) {
            sharing.stop.cancel();
            if let Err(error) = store.leave(&sharing.agent_id).await {
                tracing::warn!("the store could not be told that this agent goes: {error}");
            }
        }
    }
}

async fn beat(sharing: Weak<Sharing>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut each = tokio::time::interval(BEAT);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = each.tick() => {}
        }
        let Some(sharing) = sharing.upgrade() else {
            return;
        };
        match store.beat(&sharing.agent_id, ALIVE).await {
            Ok(members) => {
                let agents = members.len();
                if sharing.found(members) {
                    tracing::info!(agents, "agents on this store");
                }
            }
            Err(error) => {
                tracing::warn!("the store could not be told that this agent is there: {error}")
            }
        }
    }
}

/// What others registered and changed, and what nobody carries on.
async fn look(
    agent: Weak<Agent>,
    sharing: Weak<Sharing>,
    store: Arc<dyn Store>,
    stop: CancellationToken,
) {
    let mut revision = None;
    let mut hints = store.hints();
    let mut looked_at = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            () = hinted(&mut hints) => {}
        }
        let Some(agent) = agent.upgrade() else {
            return;
        };
        let is_time = looked_at.is_none_or(|at: Instant| at.elapsed() >= LOOK);
        let looked = async {
            let now = store.instances_revision().await?;
            if revision != Some(now) {
                agent.follow_all(&*store).await?;
                revision = Some(now);
            }
            // word comes often, and says of each workflow that goes on
            if is_time {
                looked_at = Some(Instant::now());
                agent.adopt(store.idle_workflows().await?);
            }
            Ok::<_, StoreError>(())
        };
        let looked = looked.await;
        let Some(sharing) = sharing.upgrade() else {
            return;
        };
        let was = sharing.reachable.send_replace(looked.is_ok());
        match looked {
            Ok(()) if !was => tracing::info!("the store answers again"),
            Err(error) if was => tracing::warn!("the store does not answer: {error}"),
            _ => {}
        }
    }
}

/// What callers asked of workflows at other agents, where this one carries them on.
async fn hear(agent: Weak<Agent>, stop: CancellationToken) {
    let Some(log) = agent.upgrade().and_then(|agent| agent.events.clone()) else {
        return;
    };
    let mut asked = log.asked_elsewhere();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = asked.next() => heard,
        };
        let Some(agent) = agent.upgrade() else {
            return;
        };
        for workflow_id in heard {
            agent.nudge(&workflow_id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sharing(agent_id: &str, members: &[&str]) -> Sharing {
        Sharing {
            agent_id: agent_id.to_owned(),
            members: Mutex::new(members.iter().map(|one| (*one).to_owned()).collect()),
            reachable: watch::Sender::new(true),
            stop: CancellationToken::new(),
        }
    }

    fn owners<'m>(members: &[&'m str]) -> BTreeMap<String, &'m str> {
        let instances = (0..1_000).map(|number| format!("vllm-{number}"));
        let owner = |instance: &String| {
            let all = members
                .iter()
                .filter(|one| sharing(one, members).owns(instance));
            let all: Vec<_> = all.collect();
            assert_eq!(all.len(), 1, "{instance}: {all:?}");
            *all.into_iter().next().unwrap()
        };
        instances.map(|one| (one.clone(), owner(&one))).collect()
    }

    #[test]
    fn each_instance_is_the_business_of_one_and_few_move() {
        let before = owners(&["a", "b", "c"]);
        for agent in ["a", "b", "c"] {
            let own = before.values().filter(|owner| **owner == agent).count();
            assert!((250..420).contains(&own), "{agent}: {own}");
        }
        // only what was its own moves
        let after = owners(&["a", "c"]);
        for (instance, owner) in &before {
            if *owner != "b" {
                assert_eq!(after.get(instance), Some(owner), "{instance}");
            }
        }
    }
}
