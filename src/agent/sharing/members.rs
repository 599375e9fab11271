//! Which agents share the store, and whose business an instance is: by rendezvous among those that are there.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::fleet::{Fleet, ToldOthers};
use crate::store::{Found, Says, Store, StoreError, micros};

/// How long an agent counts as there after it said so, and how often it does.
const ALIVE: Duration = Duration::from_secs(15);
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// Clocks that differ by more are no matter of chance, and times of workflows would be wrong by it.
const MOST_CLOCK_SECONDS: f64 = 5.0;
/// What an agent knows of the others.
#[derive(Debug)]
pub(in crate::agent) struct Sharing {
    pub(super) agent_id: String,
    /// Agents that are there, in order; only this one until it has asked.
    members: Mutex<Arc<[String]>>,
    /// What others were told of instances that this agent measures.
    told: Mutex<ToldOthers>,
    /// What others said before this is known, by the store's clock.
    since_us: AtomicI64,
    beaten: Mutex<Beaten>,
    /// By how much the clock of this machine is wrong, where it is wrong by too much to act by, in seconds.
    clock_ahead: Mutex<Option<f64>>,
    /// The store answers, and this agent can act.
    pub(super) reachable: watch::Sender<bool>,
    pub(super) stop: CancellationToken,
}

/// When the store was told that this agent is there.
#[derive(Debug, Clone, Copy)]
struct Beaten {
    last: Instant,
    /// Each time since then.
    steadily_since: Instant,
}

impl Beaten {
    fn now() -> Self {
        let now = Instant::now();
        Self {
            last: now,
            steadily_since: now,
        }
    }

    fn again(&mut self) {
        let now = Self::now();
        if self.last.elapsed() > 2 * BEAT {
            self.steadily_since = now.last;
        }
        self.last = now.last;
    }

    /// How much longer others are waited for: while the store was away none of them could say that it is there.
    fn patience(&self) -> Duration {
        match self.last.elapsed() > 2 * BEAT {
            true => ALIVE,
            false => ALIVE.saturating_sub(self.steadily_since.elapsed()),
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sharing {
    pub(super) fn new(agent_id: &str) -> Self {
        Self {
            agent_id: agent_id.to_owned(),
            members: Mutex::new(Arc::from([agent_id.to_owned()])),
            told: Mutex::default(),
            since_us: AtomicI64::new(0),
            beaten: Mutex::new(Beaten::now()),
            clock_ahead: Mutex::default(),
            reachable: watch::Sender::new(true),
            stop: CancellationToken::new(),
        }
    }

    /// This agent and all that are there.
    pub(in crate::agent) fn who(&self) -> (String, Arc<[String]>) {
        (self.agent_id.clone(), self.members())
    }

    /// The other agent that measures an instance; none where it is this one. Each instance has its own order of the agents, so
    /// that one that comes or goes moves only what is its own. One whose clock is wrong measures what nobody else does.
    pub(in crate::agent) fn owner(&self, instance_id: &str) -> Option<String> {
        let members = self.members();
        let counts = self.clock_is_right().is_ok();
        let first = members
            .iter()
            .filter(|member| counts || **member != self.agent_id)
            .max_by_key(|member| weight(member, instance_id));
        first.filter(|first| **first != self.agent_id).cloned()
    }

    /// How many other agents come before this one where an instance is to be measured.
    pub(in crate::agent) fn rank(&self, instance_id: &str) -> usize {
        let members = self.members();
        let others = members.iter();
        let others = others.filter(|member| self.comes_after(member, instance_id));
        others.count()
    }

    /// Whether that other agent is there and comes before this one where an instance is to be measured.
    pub(in crate::agent) fn comes_after(&self, other: &str, instance_id: &str) -> bool {
        let counts = self.clock_is_right().is_ok();
        let is_before =
            || !counts || weight(other, instance_id) > weight(&self.agent_id, instance_id);
        other != self.agent_id && self.is_there(other) && is_before()
    }

    /// Whether an agent is known to be there.
    pub(in crate::agent) fn is_there(&self, agent_id: &str) -> bool {
        self.members().iter().any(|member| member == agent_id)
    }

    fn members(&self) -> Arc<[String]> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.clone()
    }

    /// Says that this agent is there and what it found, and learns who else is, what they found, and what time it is.
    pub(super) async fn beat(
        &self,
        store: &dyn Store,
        fleet: &Fleet,
    ) -> Result<Vec<Found>, StoreError> {
        // who cannot act is counted by nobody, and learns what time it is
        let time = match self.clock_is_right() {
            Ok(()) => ALIVE,
            Err(_) => Duration::ZERO,
        };
        let news = fleet.news_for_others(&mut self.told());
        let says = Says {
            agent_id: &self.agent_id,
            time,
            patience: self.beaten().patience(),
            found: &news,
            since_us: self.since_us.load(Ordering::Relaxed),
        };
        let asked = SystemTime::now();
        let beat = store.beat(&says).await?;
        self.told().told(&news, &beat.found);
        self.since_us.store(beat.now_us, Ordering::Relaxed);
        self.beaten().again();
        self.clock_said(asked, beat.now_us, SystemTime::now());
        let agents = beat.agents.len();
        if self.found(beat.agents) {
            tracing::info!(agents, "agents on this store");
        }
        Ok(beat.found)
    }

    /// What others found is read anew.
    pub(super) fn has_found_nothing(&self) {
        self.since_us.store(0, Ordering::Relaxed);
    }

    fn beaten(&self) -> std::sync::MutexGuard<'_, Beaten> {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, ToldOthers> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn is_known(&self) -> Result<(), StoreError> {
        match self.beaten().last.elapsed() < ALIVE {
            true => Ok(()),
            false => Err(StoreError::Unavailable("nothing can be written".to_owned())),
        }
    }

    /// # Errors
    /// The clock of this machine is not the store's: what is begun by one agent and ended by another would take another
    /// time than it should.
    pub(in crate::agent) fn clock_is_right(&self) -> Result<(), StoreError> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sharing(agent_id: &str, members: &[&str]) -> Sharing {
        let sharing = Sharing::new(agent_id);
        sharing.found(members.iter().map(|one| (*one).to_owned()).collect());
        sharing
    }

    fn owners<'m>(members: &[&'m str]) -> BTreeMap<String, &'m str> {
        let instances = (0..1_000).map(|number| format!("vllm-{number}"));
        let owner = |instance: &String| {
            let all = members
                .iter()
                .filter(|one| sharing(one, members).owner(instance).is_none());
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
