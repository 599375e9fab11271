//! Leases of workflows while their runners work on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::store::{Lease, Store, StoreError};

/// How long a lease is, how often it is renewed, and how long after a renewal its holder still acts: a holder that was
/// stopped stops acting before another begins.
#[derive(Debug, Clone, Copy)]
struct LeaseTimes {
    lease: Duration,
    renew: Duration,
    act: Duration,
}

impl LeaseTimes {
    /// Renewed three times in its time, and used for two thirds of it.
    fn of(lease: Duration) -> Self {
        Self {
            lease,
            renew: lease / 3,
            act: lease / 3 * 2,
        }
    }
}

/// The leases that this agent has. They are renewed together: it is one write, however many they are.
#[derive(Debug)]
pub(super) struct Leases {
    times: LeaseTimes,
    /// By workflow.
    kept: Mutex<HashMap<String, Kept>>,
    renewing: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone)]
struct Kept {
    lease: Lease,
    /// Taken from before the call that gave it, by a clock that does not jump.
    renewed: Arc<Mutex<Instant>>,
}

/// A lease that is renewed for as long as this is there.
#[derive(Debug)]
pub(super) struct Held {
    kept: Kept,
    of: Arc<Leases>,
}

impl Leases {
    /// None yet; each is for this time.
    pub(super) fn new(time: Duration) -> Arc<Self> {
        Arc::new(Self {
            times: LeaseTimes::of(time),
            kept: Mutex::default(),
            renewing: Mutex::default(),
        })
    }

    /// Takes the lease of a workflow.
    pub(super) async fn take(
        self: &Arc<Self>,
        store: Arc<dyn Store>,
        workflow_id: &str,
        holder: &str,
    ) -> Result<Held, StoreError> {
        let asked = Instant::now();
        let lease = store
            .acquire_lease(workflow_id, holder, self.times.lease)
            .await?;
        let kept = Kept {
            lease,
            renewed: Arc::new(Mutex::new(asked)),
        };
        self.kept().insert(workflow_id.to_owned(), kept.clone());
        self.see_to_renewals(&store);
        Ok(Held {
            kept,
            of: self.clone(),
        })
    }

    /// Has a task that renews, from the first lease on.
    fn see_to_renewals(self: &Arc<Self>, store: &Arc<dyn Store>) {
        let mut renewing = lock(&self.renewing);
        if renewing.as_ref().is_none_or(JoinHandle::is_finished) {
            let task = renew(Arc::downgrade(self), Arc::downgrade(store));
            *renewing = Some(tokio::spawn(task));
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        lock(&self.kept)
    }

    /// Renews it no more; a later lease of the same workflow stays.
    fn forget(&self, lease: &Lease) {
        let mut kept = self.kept();
        let is_it = |kept: &Kept| kept.lease.epoch == lease.epoch;
        if kept.get(&lease.workflow_id).is_some_and(is_it) {
            kept.remove(&lease.workflow_id);
        }
    }

    /// Renews all; how long until they are to be renewed again.
    async fn renew(&self, store: &dyn Store) -> Duration {
        let kept: Vec<Kept> = self.kept().values().cloned().collect();
        let leases: Vec<Lease> = kept.iter().map(|kept| kept.lease.clone()).collect();
        let asked = Instant::now();
        let renewed = match store.renew_leases(&leases, self.times.lease).await {
            Ok(renewed) => renewed,
            Err(error) => {
                let workflows = leases.len();
                tracing::warn!(workflows, "leases could not be renewed: {error}");
                // some more times before this agent may act no longer
                return self.times.renew / 4;
            }
        };
        for kept in kept {
            match renewed.contains(&kept.lease.workflow_id) {
                true => *lock(&kept.renewed) = asked,
                // another has it by now
                false => self.forget(&kept.lease),
            }
        }
        self.times.renew
    }
}

impl Held {
    /// What guards each write.
    pub(super) fn epoch(&self) -> u64 {
        self.kept.lease.epoch
    }

    /// The lease itself.
    pub(super) fn lease(&self) -> &Lease {
        &self.kept.lease
    }

    /// Whether nobody else can have it yet.
    pub(super) fn may_act(&self) -> bool {
        lock(&self.kept.renewed).elapsed() < self.of.times.act
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.forget(&self.kept.lease);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn renew(leases: Weak<Leases>, store: Weak<dyn Store>) {
    let Some(mut pause) = leases.upgrade().map(|leases| leases.times.renew) else {
        return;
    };
    loop {
        tokio::time::sleep(pause).await;
        let Some((leases, store)) = leases.upgrade().zip(store.upgrade()) else {
            return;
        };
        pause = leases.renew(&*store).await;
    }
}
