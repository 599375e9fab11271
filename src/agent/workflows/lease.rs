//! The lease of a workflow while its runner works on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::{Lease, Store, StoreError};

/// How long a lease is, how often it is renewed, and how long after a renewal its holder still acts: a holder that was
/// stopped stops acting before another begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseTimes {
    lease: Duration,
    renew: Duration,
    act: Duration,
}

impl LeaseTimes {
    /// Renewed three times in its time, and used for two thirds of it.
    pub(super) fn of(lease: Duration) -> Self {
        Self {
            lease,
            renew: lease / 3,
            act: lease / 3 * 2,
        }
    }
}

/// A lease that is renewed for as long as this is there.
#[derive(Debug)]
pub(super) struct Held {
    lease: Lease,
    /// Taken from before the call that gave it, by a clock that does not jump.
    renewed: Arc<Mutex<Instant>>,
    act: Duration,
    _renewing: DropGuard,
}

impl Held {
    /// Takes the lease of a workflow.
    pub(super) async fn take(
        store: Arc<dyn Store>,
        workflow_id: &str,
        holder: &str,
        times: LeaseTimes,
    ) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let lease = store
            .acquire_lease(workflow_id, holder, times.lease)
            .await?;
        let renewed = Arc::new(Mutex::new(asked));
        let stop = CancellationToken::new();
        tokio::spawn(renew(
            (store, lease.clone()),
            times,
            renewed.clone(),
            stop.clone(),
        ));
        Ok(Self {
            lease,
            renewed,
            act: times.act,
            _renewing: stop.drop_guard(),
        })
    }

    /// What guards each write.
    pub(super) fn epoch(&self) -> u64 {
        self.lease.epoch
    }

    /// The lease itself.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether nobody else can have it yet.
    pub(super) fn may_act(&self) -> bool {
        let renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.elapsed() < self.act
    }
}

async fn renew(
    (store, lease): (Arc<dyn Store>, Lease),
    times: LeaseTimes,
    renewed: Arc<Mutex<Instant>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(times.renew) => {}
        }
        let asked = Instant::now();
        match store.renew_lease(&lease, times.lease).await {
            Ok(()) => *renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked,
            Err(StoreError::Moved(_)) => return,
            Err(error) => {
                tracing::warn!(
                    workflow_id = lease.workflow_id,
                    "a lease could not be renewed: {error}"
                );
            }
        }
    }
}
