//! Old events are forgotten, of workflows that have ended.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::store::{Store, StoreError};

/// Between two looks.
const EACH: Duration = Duration::from_secs(3_600);

/// Forgets events that are older than they are kept, until it is told to stop.
pub(super) async fn forget_old_events(
    agent: Weak<Agent>,
    store: Arc<dyn Store>,
    kept: Duration,
    stop: CancellationToken,
) {
    let mut each = tokio::time::interval(EACH);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = each.tick() => {}
        }
        let Some(agent) = agent.upgrade() else {
            return;
        };
        // of all agents
        if agent.may_act().is_err() {
            continue;
        }
        drop(agent);
        if let Err(error) = forget(&*store, kept).await {
            tracing::warn!("old events of workflows could not be forgotten: {error}");
        }
    }
}

async fn forget(store: &dyn Store, kept: Duration) -> Result<(), StoreError> {
    let Some(before) = SystemTime::now().checked_sub(kept) else {
        return Ok(());
    };
    match store.revision_before(before).await? {
        0 => Ok(()),
        revision => store.compact_events(revision).await.map(|_| ()),
    }
}
