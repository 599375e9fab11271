//! Whose business it is to measure an instance. Of several agents on one store one does, and others for as long as somebody
//! asks them for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Entry, Fleet};
use crate::agent::sharing::Sharing;

/// For how long an instance is measured for somebody who asked once, or for some scrapes where that is longer: who asks
/// regularly finds windows.
const AFTER_A_CALL: Duration = Duration::from_secs(300);

/// For how long the next agent in order waits for word of an instance, and the one after it as long again.
const UNTOLD: Duration = Duration::from_secs(30);

/// Who measures what. An agent that shares with nobody measures all.
#[derive(Debug, Default)]
pub(super) struct Duty(OnceLock<Arc<Sharing>>);

impl Duty {
    /// Whether it is this agent that measures the instance whoever asks.
    pub(super) fn is_ours(&self, instance_id: &str) -> bool {
        self.owner(instance_id).is_none()
    }

    /// The other agent that measures the instance.
    pub(super) fn owner(&self, instance_id: &str) -> Option<String> {
        self.0.get()?.owner(instance_id)
    }

    /// How many other agents come before this one.
    fn rank(&self, instance_id: &str) -> usize {
        self.0.get().map_or(0, |sharing| sharing.rank(instance_id))
    }

    /// Whether that other agent comes before this one.
    fn comes_after(&self, agent_id: &str, instance_id: &str) -> bool {
        let sharing = self.0.get();
        sharing.is_some_and(|sharing| sharing.comes_after(agent_id, instance_id))
    }

    /// Whether an agent is known to be there.
    pub(super) fn is_there(&self, agent_id: &str) -> bool {
        let sharing = self.0.get();
        sharing.is_some_and(|sharing| sharing.is_there(agent_id))
    }
}

/// Who wants an instance measured here though another agent measures it.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    holds: AtomicUsize,
    /// Until then, in milliseconds from the fleet's begin.
    until_millis: AtomicU64,
    /// Told when that may have changed, or whose business the instance is.
    pub(super) changed: Notify,
}

/// For as long as it is there an instance is measured here.
#[derive(Debug)]
pub(in crate::agent) struct Hold(Arc<Wanted>);

impl Hold {
    fn on(wanted: &Arc<Wanted>) -> Self {
        wanted.holds.fetch_add(1, Ordering::Relaxed);
        wanted.changed.notify_one();
        Self(wanted.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fleet {
    /// Shares the instances with other agents from now on.
    pub(in crate::agent) fn share(&self, sharing: Arc<Sharing>) {
        // only at the start is it set
        let _ = self.duty.0.set(sharing);
    }

    /// Whether others may measure some of the instances.
    pub(in crate::agent) fn is_shared(&self) -> bool {
        self.duty.0.get().is_some()
    }

    /// Whether it is this agent that measures the instance whoever asks.
    pub(in crate::agent) fn is_ours(&self, instance_id: &str) -> bool {
        self.duty.is_ours(instance_id) || {
            let entry = self.read().get(instance_id).cloned();
            entry.is_some_and(|entry| entry.stands_in.load(Ordering::Relaxed))
        }
    }

    /// Has an instance measured here for as long as the hold is there; none of an instance that there is not.
    pub(in crate::agent) fn hold(&self, id: &str) -> Option<Hold> {
        self.read().get(id).map(|entry| Hold::on(&entry.wanted))
    }

    /// Has an instance measured here for some minutes.
    pub(in crate::agent) fn want(&self, id: &str) {
        if let Some(entry) = self.read().get(id) {
            let interval = entry.state().instance.spec.scrape_interval;
            let until = self.begin.elapsed() + AFTER_A_CALL.max(3 * interval);
            let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            entry
                .wanted
                .until_millis
                .fetch_max(until, Ordering::Relaxed);
            entry.wanted.changed.notify_one();
        }
    }

    /// It may have changed whose business instances are.
    pub(in crate::agent) fn reconsider(&self) {
        for entry in self.read().values() {
            entry.wanted.changed.notify_one();
        }
    }

    /// Whether an instance is measured here now.
    pub(super) fn measures(&self, entry: &Entry) -> bool {
        let wanted = &entry.wanted;
        let millis = self.begin.elapsed().as_millis();
        if self.duty.is_ours(&entry.id) {
            entry.needs_nobody_else();
            return true;
        }
        self.is_to_stand_in(entry)
            || wanted.holds.load(Ordering::Relaxed) > 0
            || u128::from(wanted.until_millis.load(Ordering::Relaxed)) > millis
    }

    /// Whether this agent measures in place of another that should and does not: that one may lack the instance in its config
    /// file. Who comes next in order waits for some time before, and the others longer.
    fn is_to_stand_in(&self, entry: &Entry) -> bool {
        if self.is_told_of(entry) {
            entry.needs_nobody_else();
            return false;
        }
        if entry.stands_in.load(Ordering::Relaxed) {
            return true;
        }
        let untold_since = *entry.untold_since().get_or_insert_with(Instant::now);
        let rank = u32::try_from(self.duty.rank(&entry.id)).unwrap_or(u32::MAX);
        if untold_since.elapsed() < UNTOLD.saturating_mul(rank) {
            return false;
        }
        let owner = self.duty.owner(&entry.id).unwrap_or_default();
        tracing::warn!(
            instance_id = &*entry.id,
            owner,
            "the agent to which the instance falls tells nothing of it, perhaps since its config file lacks it: this one \
             measures it"
        );
        entry.stands_in.store(true, Ordering::Relaxed);
        true
    }

    /// Whether an agent that comes before this one has told of the instance, as far as is known.
    fn is_told_of(&self, entry: &Entry) -> bool {
        let found = entry.found_elsewhere();
        let found = found.as_ref();
        found.is_some_and(|found| self.duty.comes_after(&found.agent_id, &entry.id))
    }

    /// Waits until an instance is to be measured here; false where its watch ends.
    pub(super) async fn until_measured_here(&self, entry: &Entry) -> bool {
        // it is looked again with each sign of life
        while !self.measures(entry) {
            self.show_elsewhere(entry);
            tokio::select! {
                biased;
                () = entry.stop.cancelled() => return false,
                () = entry.wanted.changed.notified() => {}
            }
        }
        true
    }
}
