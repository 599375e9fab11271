//! The lease of a workflow while its runner works on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::{Lease, Store, StoreError};

/// How long a lease is, how often it is renewed, and how long after a renewal its holder still acts: a holder that was
/// stopped stops acting before another begins.
pub(super) const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
const ACT: Duration = Duration::from_secs(10);

/// A lease that is renewed for as long as this is there.
#[derive(Debug)]
pub(super) struct Held {
    lease: Lease,
    /// Taken from before the call that gave it, by a clock that does not jump.
    renewed: Arc<Mutex<Instant>>,
    _renewing: DropGuard,
}

impl Held {
    /// Takes the lease of a workflow.
    pub(super) async fn take(
        store: Arc<dyn Store>,
        workflow_id: &str,
        holder: &str,
    ) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let lease = store.acquire_lease(workflow_id, holder, LEASE).await?;
        let renewed = Arc::new(Mutex::new(asked));
        let stop = CancellationToken::new();
        tokio::spawn(renew(store, lease.clone(), renewed.clone(), stop.clone()));
        Ok(Self {
            lease,
            renewed,
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
        renewed.elapsed() < ACT
    }
}

async fn renew(
    store: Arc<dyn Store>,
    lease: Lease,
    renewed: Arc<Mutex<Instant>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEW) => {}
        }
        let asked = Instant::now();
        match store.renew_lease(&lease, LEASE).await {
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
