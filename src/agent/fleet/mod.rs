//! The instances that the agent watches in the background: one loop each, none in the way of another.

mod duty;
mod elsewhere;
mod history;
mod hub;
mod state;
mod thread;
mod timing;
mod watcher;
mod window;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::ledger::Ledger;
use crate::analysis::{Slo, Thresholds};
use crate::engine::Registry;
use crate::instance::{Instance, SloTable};
use crate::scrape::Fetcher;
use crate::telemetry::Metrics;

use thread::FleetThread;

pub use elsewhere::Elsewhere;
pub use history::ReplicaState;
pub use state::{Forms, Health, InstanceState, Latest};

pub(in crate::agent) use duty::Hold;
pub(in crate::agent) use elsewhere::ToldOthers;
pub(in crate::agent) use hub::Watcher;

/// The instances that are watched.
#[derive(Debug)]
pub(super) struct Fleet {
    registry: Registry,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    /// Told of each window.
    ledger: Arc<Ledger>,
    thresholds: Arc<Thresholds>,
    slos: Arc<SloTable>,
    scrape_timeout: Duration,
    entries: RwLock<BTreeMap<Arc<str>, Arc<Entry>>>,
    hub: hub::Hub,
    duty: duty::Duty,
    /// Watchers that are the agent's own, and no streams.
    own_watchers: AtomicUsize,
    /// What times are counted from.
    begin: Instant,
    /// Started with the first instance. None where this machine has no thread for it.
    thread: OnceLock<Option<FleetThread>>,
}

/// One instance.
#[derive(Debug)]
struct Entry {
    id: Arc<str>,
    state: Mutex<Arc<InstanceState>>,
    stop: CancellationToken,
    /// Replicas that failed are to be asked with the next scrape, however often they failed.
    retry: AtomicBool,
    wanted: Arc<duty::Wanted>,
    /// It is measured here in place of another agent.
    stands_in: AtomicBool,
    /// Since when that other agent has told nothing.
    untold_since: Mutex<Option<Instant>>,
    /// What another agent found last.
    found_elsewhere: Mutex<Option<Arc<Elsewhere>>>,
}

impl Entry {
    fn state(&self) -> Arc<InstanceState> {
        self.lock().clone()
    }

    /// Replaces the state by what follows from it; nobody changes it in between.
    fn update(&self, next: impl FnOnce(&InstanceState) -> InstanceState) {
        let mut state = self.lock();
        *state = Arc::new(next(&state));
    }

    fn found_elsewhere(&self) -> std::sync::MutexGuard<'_, Option<Arc<Elsewhere>>> {
        let found = self.found_elsewhere.lock();
        found.unwrap_or_else(PoisonError::into_inner)
    }

    /// Who should measures it: it is waited for word anew when that is another agent and says nothing.
    fn needs_nobody_else(&self) {
        *self.untold_since() = None;
        self.stands_in.store(false, Ordering::Relaxed);
    }

    fn untold_since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.untold_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<InstanceState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    pub(super) fn new(
        registry: Registry,
        fetcher: Fetcher,
        (metrics, ledger): (Arc<Metrics>, Arc<Ledger>),
        (thresholds, slos): (Arc<Thresholds>, Arc<SloTable>),
        scrape_timeout: Duration,
    ) -> Self {
        Self {
            registry,
            fetcher,
            metrics,
            ledger,
            thresholds,
            slos,
            scrape_timeout,
            entries: RwLock::default(),
            hub: hub::Hub::default(),
            duty: duty::Duty::default(),
            own_watchers: AtomicUsize::new(0),
            begin: Instant::now(),
            thread: OnceLock::new(),
        }
    }

    /// Watches an instance, or goes on with what it has become. A new place or engine begins a new history.
    pub(super) fn put(self: &Arc<Self>, instance: Instance, start_after: Duration) {
        let id: Arc<str> = instance.id().into();
        let instance = Arc::new(instance);
        let mut wanted = Arc::default();
        let mut entries = self.write();
        if let Some(known) = entries.get(&id) {
            let (before, after) = (&known.state().instance.spec, &instance.spec);
            let same_watch = before.metrics_urls == after.metrics_urls
                && before.instance_type == after.instance_type
                && before.scrape_interval == after.scrape_interval
                && before.window == after.window;
            if same_watch {
                let slos = self.slos_of(&instance);
                known.update(|state| InstanceState {
                    instance,
                    slos,
                    version: state::next_version(),
                    ..state.clone()
                });
                drop(entries);
                self.hub.changed(&id);
                return;
            }
            known.stop.cancel();
            // who wants it wants it wherever it is
            wanted = known.wanted.clone();
        }
        let entry = Arc::new(Entry {
            id: id.clone(),
            state: Mutex::new(Arc::new(self.new_state(instance))),
            stop: CancellationToken::new(),
            retry: AtomicBool::new(false),
            wanted,
            stands_in: AtomicBool::new(false),
            untold_since: Mutex::default(),
            found_elsewhere: Mutex::default(),
        });
        entries.insert(id.clone(), entry.clone());
        drop(entries);
        self.hub.changed(&id);
        self.spawn(watcher::watch(self.clone(), entry, start_after));
    }

    /// Of an instance that was not scraped yet.
    pub(super) fn new_state(&self, instance: Arc<Instance>) -> InstanceState {
        let slos = self.slos_of(&instance);
        InstanceState::new(instance, slos, SystemTime::now())
    }

    /// The SLOs in force for an instance.
    pub(super) fn slos_of(&self, instance: &Instance) -> Arc<[Slo]> {
        self.slos.of(&instance.spec)
    }

    /// The minute that it is, from when the agent was started.
    pub(super) fn minute(&self) -> u64 {
        self.begin.elapsed().as_secs() / 60
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let started = || {
            let started = FleetThread::start();
            let trouble = |error: &io::Error| tracing::warn!("no thread for the fleet: {error}");
            started.inspect_err(trouble).ok()
        };
        match self.thread.get_or_init(started) {
            Some(thread) => thread.spawn(work),
            None => drop(tokio::spawn(work)),
        }
    }

    /// How many tasks watch instances, with what they set going.
    pub(super) fn tasks(&self) -> usize {
        let thread = self.thread.get().and_then(Option::as_ref);
        thread.map_or(0, FleetThread::tasks)
    }

    /// Watches several from now on, spread over time.
    pub(super) fn put_all(self: &Arc<Self>, instances: impl IntoIterator<Item = Instance>) {
        for (place, instance) in instances.into_iter().enumerate() {
            let after = timing::start_after(place, instance.spec.scrape_interval);
            self.put(instance, after);
        }
    }

    /// Has replicas of an instance asked again that failed, for who knows that they serve now.
    pub(super) fn retry(&self, id: &str) {
        if let Some(entry) = self.read().get(id) {
            entry.retry.store(true, Ordering::Relaxed);
        }
    }

    /// Forgets an instance.
    pub(super) fn remove(&self, id: &str) {
        let removed = self.write().remove(id);
        if let Some(entry) = removed {
            entry.stop.cancel();
            self.hub.changed(&entry.id);
        }
    }

    /// What is known of an instance.
    pub(super) fn get(&self, id: &str) -> Option<Arc<InstanceState>> {
        self.read().get(id).map(|entry| entry.state())
    }

    /// What is known of all, by id, from after this id on.
    pub(super) fn after(&self, id: &str) -> Vec<Arc<InstanceState>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let entries = self.read();
        let later = entries.range::<str, _>((Excluded(id), Unbounded));
        later.map(|(_, entry)| entry.state()).collect()
    }

    /// How many instances, and how many replicas they have.
    pub(super) fn size(&self) -> (usize, usize) {
        let entries = self.read();
        let replicas = entries
            .values()
            .map(|entry| entry.state().instance.spec.metrics_urls.len());
        (entries.len(), replicas.sum())
    }

    /// A watcher of these; of all where none is named.
    pub(super) fn watch(&self, ids: &[Arc<str>]) -> Arc<Watcher> {
        self.hub.watch(ids)
    }

    /// A watcher of these that is needed no more.
    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>, ids: &[Arc<str>]) {
        self.hub.unwatch(watcher, ids);
    }

    /// How many watchers there are.
    pub(super) fn watchers(&self) -> usize {
        let own = self.own_watchers.load(Ordering::Relaxed);
        self.hub.len().saturating_sub(own)
    }

    /// One of the watchers is the agent's own.
    pub(super) fn has_own_watcher(&self) {
        self.own_watchers.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends all loops.
    pub(super) fn stop(&self) {
        for entry in self.write().values() {
            entry.stop.cancel();
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Entry>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Arc<str>, Arc<Entry>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}
