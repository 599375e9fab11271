//! The thread that the fleet is watched on.
//!
//! Reading thousands of engines is steady work that one core does with ease. By itself it neither waits for the threads
//! that answer calls nor holds them up, and it does not wake them either.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// A thread with a runtime of its own. It ends, with all that runs on it, when this is dropped.
#[derive(Debug)]
pub(super) struct FleetThread {
    handle: Handle,
    stop: CancellationToken,
}

impl FleetThread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("fleet".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { handle, stop })
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    pub(super) fn tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }
}

impl Drop for FleetThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
