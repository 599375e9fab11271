//! The clock that deliveries are due by. Tests have one of their own, by which days pass at once.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

/// What time it is.
#[async_trait]
pub(super) trait WebhookClock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> SystemTime;

    /// Waits until this time, or less long.
    async fn sleep_until(&self, time: SystemTime);
}

/// The machine's.
#[derive(Debug)]
pub(super) struct SystemClock;

/// A clock that was set is noticed after so long.
const LOOK: Duration = Duration::from_secs(30);

#[async_trait]
impl WebhookClock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep_until(&self, time: SystemTime) {
        let left = time.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
