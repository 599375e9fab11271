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
use std::time::{Duration, Instant, SystemTime};

use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::workflows::hinted;
use crate::store::{Store, StoreError, micros};

/// How long an agent counts as there after it said so, and how often it does.
const ALIVE: Duration = Duration::from_secs(15);
const BEAT: Duration = Duration::from_secs(5);
/// Clocks that differ by more are no matter of chance, and times of workflows would be wrong by it.
const MOST_CLOCK_SECONDS: f64 = 5.0;
/// How often it is looked what others did.
const LOOK: Duration = Duration::from_secs(1);

/// What an agent knows of the others.
#[derive(Debug)]
pub(super) struct Sharing {
    agent_id: String,
    /// Agents that are there, in order; only this one until it has asked.
    members: Mutex<Arc<[String]>>,
    /// When the store was last told that this agent is there.
    beaten: Mutex<Instant>,
    /// By how much the clock of this machine is wrong, where it is wrong by too much to act by, in seconds.
    clock_ahead: Mutex<Option<f64>>,
    /// The store answers, and this agent can act.
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
        if self.clock_is_right().is_err() {
            return false;
        }
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

    /// Says that this agent is there, and learns who is and what time it is.
    async fn beat(&self, store: &dyn Store) -> Result<(), StoreError> {
        // who cannot act is counted by nobody, and learns what time it is
        let time = match self.clock_is_right() {
            Ok(()) => ALIVE,
            Err(_) => Duration::ZERO,
        };
        let asked = SystemTime::now();
        let beat = store.beat(&self.agent_id, time).await?;
        *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.clock_said(asked, beat.now_us, SystemTime::now());
        let agents = beat.agents.len();
        if self.found(beat.agents) {
            tracing::info!(agents, "agents on this store");
        }
        Ok(())
    }

    /// Takes note of what the store's clock says, between a question and its answer by this machine's.
    fn clock_said(&self, asked: SystemTime, now_us: i64, answered: SystemTime) {
        let seconds = |us: i64| us as f64 / 1e6;
        // what lies between may be the way
        let ahead = match now_us {
            now if now < micros(asked) => seconds(micros(asked) - now),
            now if now > micros(answered) => -seconds(now - micros(answered)),
            _ => 0.0,
        };
        let wrong = (ahead.abs() > MOST_CLOCK_SECONDS).then_some(ahead);
        let mut known = self
            .clock_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (*known, wrong) {
            (None, Some(ahead)) => {
                tracing::error!("{}; until then it carries on nothing", clock_text(ahead))
            }
            (Some(_), None) => tracing::info!("the clock is right again"),
            _ => {}
        }
        *known = wrong;
    }

    /// # Errors
    /// The store was not told for long that this agent is there: it can be read at most.
    fn is_known(&self) -> Result<(), StoreError> {
        let beaten = self.beaten.lock().unwrap_or_else(PoisonError::into_inner);
        match beaten.elapsed() < ALIVE {
            true => Ok(()),
            false => Err(StoreError::Unavailable("nothing can be written".to_owned())),
        }
    }

    /// # Errors
    /// The clock of this machine is not the store's: what is begun by one agent and ended by another would take another
    /// time than it should.
    pub(super) fn clock_is_right(&self) -> Result<(), StoreError> {
        let ahead = self
            .clock_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match *ahead {
            None => Ok(()),
            Some(ahead) => Err(StoreError::Unavailable(clock_text(ahead))),
        }
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

fn clock_text(ahead: f64) -> String {
    let (by, how) = (ahead.abs(), if ahead > 0.0 { "ahead of" } else { "behind" });
    format!(
        "the clock of this agent's machine is {by:.0} s {how} the database's: set it right, for example with NTP"
    )
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
    ///
    /// # Errors
    /// A store that cannot be told that this agent is there.
    pub(super) async fn share(
        self: &Arc<Self>,
        agent_id: &str,
        store: &Arc<dyn Store>,
    ) -> Result<(), StoreError> {
        if !store.is_shared() {
            return Ok(());
        }
        let stop = CancellationToken::new();
        let sharing = Arc::new(Sharing {
            agent_id: agent_id.to_owned(),
            members: Mutex::new(Arc::from([agent_id.to_owned()])),
            beaten: Mutex::new(Instant::now()),
            clock_ahead: Mutex::default(),
            reachable: watch::Sender::new(true),
            stop: stop.clone(),
        });
        // before anything is carried on it is known what time it is
        sharing.beat(&**store).await?;
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
        Ok(())
    }

    /// Whether the store answers, now and as it changes; none for one that is this agent's own.
    pub fn store_answers(&self) -> Option<watch::Receiver<bool>> {
        let sharing = self.sharing.get()?;
        Some(sharing.reachable.subscribe())
    }

    /// Whether this agent may carry workflows on and write down when something was done.
    ///
    /// # Errors
    /// A clock that is wrong.
    pub(super) fn may_act(&self) -> Result<(), StoreError> {
        let sharing = self.sharing.get();
        sharing.map_or(Ok(()), |sharing| sharing.clock_is_right())
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
        if let Err(error) = sharing.beat(&*store).await {
            tracing::warn!("the store could not be told that this agent is there: {error}");
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
            if is_time && agent.may_act().is_ok() {
                looked_at = Some(Instant::now());
                agent.adopt(store.idle_workflows().await?);
            }
            Ok::<_, StoreError>(())
        };
        let looked = looked.await;
        let Some(sharing) = sharing.upgrade() else {
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
            beaten: Mutex::new(Instant::now()),
            clock_ahead: Mutex::default(),
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
    fn who_has_another_time_does_not_act() {
        let sharing = sharing("a", &["a"]);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        let said = |now: u64| {
            // four seconds on the way tell nothing
            sharing.clock_said(at(100), micros(at(now)), at(104));
            sharing.clock_is_right().map_err(|error| error.to_string())
        };
        assert_eq!(said(102), Ok(()));
        assert_eq!(said(108), Ok(()));
        let behind = said(3_704).unwrap_err();
        assert!(behind.contains("3600 s behind"), "{behind}");
        assert_eq!(said(97), Ok(()));
        let ahead = said(40).unwrap_err();
        assert!(ahead.contains("60 s ahead of"), "{ahead}");
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
