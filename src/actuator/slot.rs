//! Room for a workflow at an actuator.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room at an actuator, for as long as this is there.
#[derive(Debug)]
#[must_use = "the room is given back when this is dropped"]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Where there is room for everybody.
    pub fn free() -> Self {
        Self { _permit: None }
    }

    /// One of so many, once it is there: who asked first has it first.
    pub async fn of(slots: &Arc<Semaphore>) -> Self {
        // a semaphore that is closed has no bound to keep
        Self {
            _permit: slots.clone().acquire_owned().await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asked_first_has_it_first() {
        let slots = Arc::new(Semaphore::new(2));
        let first = Slot::of(&slots).await;
        let _second = Slot::of(&slots).await;
        let third = Slot::of(&slots);
        tokio::pin!(third);
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        let _third = third.await;
        assert_eq!(slots.available_permits(), 0);
    }
}
