//! Who watches what.
//!
//! A watcher is told which instances have changed, not what they changed to: it reads their state when it gets round
//! to it. So one that does not read costs one entry an instance, and sees the newest state when it reads again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Hub {
    watchers: Mutex<Watchers>,
}

#[derive(Debug, Default)]
struct Watchers {
    of_all: Vec<Weak<Watcher>>,
    of_one: HashMap<Arc<str>, Vec<Weak<Watcher>>>,
}

/// One watcher: what has changed since it last looked.
#[derive(Debug, Default)]
pub(in crate::agent) struct Watcher {
    changed: Mutex<BTreeSet<Arc<str>>>,
    wake: Notify,
}

impl Hub {
    /// A watcher of these instances; of all where none is named.
    pub(super) fn watch(&self, ids: &[Arc<str>]) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher::default());
        let mut watchers = self.lock();
        if ids.is_empty() {
            watchers.of_all.retain(alive);
            watchers.of_all.push(Arc::downgrade(&watcher));
        }
        for id in ids {
            let of_one = watchers.of_one.entry(id.clone()).or_default();
            of_one.retain(alive);
            of_one.push(Arc::downgrade(&watcher));
        }
        watcher
    }

    /// Forgets a watcher of these.
    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>, ids: &[Arc<str>]) {
        let mut watchers = self.lock();
        let others = |known: &Weak<Watcher>| known.as_ptr() != Arc::as_ptr(watcher);
        watchers.of_all.retain(others);
        for id in ids {
            if let Some(of_one) = watchers.of_one.get_mut(id) {
                of_one.retain(others);
                if of_one.is_empty() {
                    watchers.of_one.remove(id);
                }
            }
        }
    }

    /// Tells those that watch this instance that it has changed.
    pub(super) fn changed(&self, id: &Arc<str>) {
        let mut watchers = self.lock();
        let mut tell = |watcher: &Weak<Watcher>| match watcher.upgrade() {
            Some(watcher) => {
                watcher.note(id);
                true
            }
            None => false,
        };
        watchers.of_all.retain(&mut tell);
        if let Some(of_one) = watchers.of_one.get_mut(id) {
            of_one.retain(&mut tell);
            if of_one.is_empty() {
                watchers.of_one.remove(id);
            }
        }
    }

    /// How many watchers there are.
    pub(super) fn len(&self) -> usize {
        let watchers = self.lock();
        let of_one = watchers.of_one.values().flatten();
        let mut alive: Vec<*const Watcher> = watchers
            .of_all
            .iter()
            .chain(of_one)
            .filter(|watcher| watcher.strong_count() > 0)
            .map(Weak::as_ptr)
            .collect();
        alive.sort_unstable();
        alive.dedup();
        alive.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn alive(watcher: &Weak<Watcher>) -> bool {
    watcher.strong_count() > 0
}

impl Watcher {
    fn note(&self, id: &Arc<str>) {
        self.lock().insert(id.clone());
        self.wake.notify_one();
    }

    /// The instances that have changed; waits until there is one.
    pub(in crate::agent) async fn changes(&self) -> BTreeSet<Arc<str>> {
        loop {
            let changed = std::mem::take(&mut *self.lock());
            if !changed.is_empty() {
                return changed;
            }
            // a change in between has left a permit
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_is_told_once_however_often_it_changed() {
        let hub = Hub::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (all, only_b) = (hub.watch(&[]), hub.watch(std::slice::from_ref(&b)));
        for _ in 0..1_000 {
            hub.changed(&a);
        }
        hub.changed(&b);
        assert_eq!(all.changes().await, BTreeSet::from([a, b.clone()]));
        assert_eq!(only_b.changes().await, BTreeSet::from([b.clone()]));
        assert_eq!(hub.len(), 2);
        hub.unwatch(&only_b, std::slice::from_ref(&b));
        hub.unwatch(&all, &[]);
        assert_eq!(hub.len(), 0);
        assert!(hub.lock().of_all.is_empty() && hub.lock().of_one.is_empty());
    }
}
