//! Several agents on one store: who they are, what the others changed, and workflows that nobody carries on.
//!
//! ```text
//! store ┬ beat: who is there          → who measures an instance, and tells webhooks of it
//!       ├ beat: what others found     → states of instances that they measure
//!       ├ revision of the instances   → the fleet
//!       ├ log of events               → tasks of workflows that somebody asked something of elsewhere
//!       └ workflows that nobody holds → tasks
//! ```
//!
//! All of it is read again and again, by revision: what is missed once is found the next time.

mod members;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::workflows::hinted;
use crate::store::{Store, StoreError};

use members::BEAT;

pub(super) use members::Sharing;

/// How often it is looked what others did.
const LOOK: Duration = Duration::from_secs(1);

impl Agent {
    /// Tells others that this agent is there, where there can be others, and learns who measures what and what time it is,
    /// before anything is measured or carried on.
    ///
    /// # Errors
    /// A store that cannot be told.
    pub(super) async fn arrive(
        &mut self,
        agent_id: &str,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        if !store.is_shared() {
            return Ok(());
        }
        let sharing = Arc::new(Sharing::new(agent_id));
        sharing.beat(store, &self.fleet).await?;
        // what was found is read again once the instances are known
        sharing.has_found_nothing();
        self.fleet.share(sharing.clone());
        self.sharing = Some(sharing);
        Ok(())
    }

    /// Begins to look at what others do, where others can.
    pub(super) fn follow_others(self: &Arc<Self>, store: &Arc<dyn Store>) {
        let Some(sharing) = &self.sharing else {
            return;
        };
        let (weak, stop) = (Arc::downgrade(self), &sharing.stop);
        tokio::spawn(beat(weak.clone(), store.clone(), stop.clone()));
        tokio::spawn(look(weak.clone(), store.clone(), stop.clone()));
        tokio::spawn(hear(weak, stop.clone()));
    }

    /// Whether the store answers, now and as it changes; none for one that is this agent's own.
    pub fn store_answers(&self) -> Option<watch::Receiver<bool>> {
        let sharing = self.sharing.as_ref()?;
        Some(sharing.reachable.subscribe())
    }

    /// Whether this agent may carry workflows on and write down when something was done.
    ///
    /// # Errors
    /// A clock that is wrong.
    pub(super) fn may_act(&self) -> Result<(), StoreError> {
        let sharing = self.sharing.as_ref();
        sharing.map_or(Ok(()), |sharing| sharing.clock_is_right())
    }

    /// Tells the others that this agent goes.
    pub(super) async fn leave(&self) {
        if let (Some(sharing), Some(store)) = (&self.sharing, &self.store) {
            sharing.stop.cancel();
            if let Err(error) = store.leave(&sharing.agent_id).await {
                tracing::warn!("the store could not be told that this agent goes: {error}");
            }
        }
    }
}

async fn beat(agent: Weak<Agent>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut each = tokio::time::interval(BEAT);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = each.tick() => {}
        }
        let Some(agent) = agent.upgrade() else {
            return;
        };
        let Some(sharing) = &agent.sharing else {
            return;
        };
        let beaten = tokio::select! {
            // who goes does not say once more that it is there
            () = stop.cancelled() => return,
            beaten = sharing.beat(&*store, &agent.fleet) => beaten,
        };
        match beaten {
            Ok(found) => {
                agent.fleet.found_elsewhere(found);
                agent.fleet.reconsider();
            }
            Err(error) => {
                tracing::warn!("the store could not be told that this agent is there: {error}");
            }
        }
    }
}

/// What others registered and changed, and what nobody carries on.
async fn look(agent: Weak<Agent>, store: Arc<dyn Store>, stop: CancellationToken) {
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
            if is_time && agent.may_act().is_ok() {
                looked_at = Some(Instant::now());
                agent.adopt(store.idle_workflows().await?);
            }
            Ok::<_, StoreError>(())
        };
        let looked = looked.await;
        let Some(sharing) = &agent.sharing else {
            return;
        };
        let looked = looked
            .and_then(|()| sharing.clock_is_right())
            .and_then(|()| sharing.is_known());
        let was = sharing.reachable.send_replace(looked.is_ok());
        match looked {
            Ok(()) if !was => tracing::info!("this agent serves again"),
            Err(error) if was => tracing::warn!("this agent serves no more for now: {error}"),
            _ => {}
        }
    }
}

/// What callers asked of workflows at other agents, where this one carries them on, and whose settings others changed.
async fn hear(agent: Weak<Agent>, stop: CancellationToken) {
    let Some(log) = agent.upgrade().and_then(|agent| agent.events.clone()) else {
        return;
    };
    let mut events = log.heard_elsewhere();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = events.next() => heard,
        };
        let Some(agent) = agent.upgrade() else {
            return;
        };
        for workflow_id in &heard.asked {
            agent.nudge(workflow_id);
        }
        for changed in &heard.changed {
            // what was read here before another changed it holds no more
            if !agent.has_task(&changed.workflow_id) {
                agent.changed_elsewhere(changed).await;
            }
        }
    }
}
