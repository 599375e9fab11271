//! What came of an effect.

use std::fmt::Display;
use std::time::Duration;

use crate::store::Snapshot;
use crate::workflow::Command;

/// What came of an effect.
#[derive(Debug)]
pub(super) enum Came {
    /// This, to be committed with these snapshots.
    Command(Box<Command>, Vec<Snapshot>),
    /// Nothing yet: again after this long.
    Later {
        /// How long.
        after: Duration,
        /// Why, for whoever asks when the time is over.
        problem: String,
    },
    /// A later holder acts for the workflow: this one must not.
    NotOurs,
}

impl Came {
    pub(super) fn command(command: Command) -> Self {
        Self::Command(Box::new(command), Vec::new())
    }

    pub(super) fn later(after: Duration, problem: &dyn Display) -> Self {
        Self::Later {
            after,
            problem: problem.to_string(),
        }
    }
}
