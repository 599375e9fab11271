//! Workflows: what callers and watchers are told of them.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod fake;
mod log;
mod watch;

pub(super) use log::EventLog;
pub use log::LoggedEvent;
pub use watch::{EventsPart, WatchFrom, WorkflowNews, WorkflowTold};
