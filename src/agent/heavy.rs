//! Work that takes a processor for seconds: beside the threads that answer and scrape, a little at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Error;

/// So many at once.
const AT_ONCE: usize = 2;
/// And so many that wait, those at work included: at some seconds each, more would wait in vain.
const WAITING: usize = 16;

/// Room for work that takes a processor for seconds.
#[derive(Debug, Clone)]
pub(super) struct Heavy {
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Heavy {
    fn default() -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

impl Heavy {
    /// Does this when there is room. What has begun is done to its end, and holds its room, whether or not the caller
    /// still waits.
    ///
    /// # Errors
    /// [`Error::TooManyPredictions`]
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let waiting = self.waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| Error::TooManyPredictions)?;
        let room = self.at_once.clone().acquire_owned().await;
        let room = room.map_err(|_| Error::TooManyPredictions)?;
        let work = tokio::task::spawn_blocking(move || {
            let _held = (waiting, room);
            work()
        });
        match work.await {
            Ok(done) => Ok(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // the agent is being stopped
                Err(_) => Err(Error::TooManyPredictions),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_room_comes_back() {
        let heavy = Heavy::default();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let running: Vec<_> = (0..WAITING)
            .map(|_| {
                let (heavy, held) = (heavy.clone(), held.clone());
                tokio::spawn(async move {
                    let wait = move || held.lock().unwrap().recv().is_ok();
                    heavy.run(wait).await
                })
            })
            .collect();
        while heavy.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(heavy.run(|| ()).await, Err(Error::TooManyPredictions));
        for _ in 0..WAITING {
            release.send(()).unwrap();
        }
        for one in running {
            assert_eq!(one.await.unwrap(), Ok(true));
        }
        assert_eq!(heavy.run(|| 1).await, Ok(1));
    }
}
