//! What the runner of a workflow does next.

use super::state::{Phase, Workflow};

/// What the runner of a workflow does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This, now. What comes of it is a command.
    Do(Effect),
    /// Nothing until somebody asks for something, or until this unix time in microseconds, when its time is over.
    Wait {
        /// When its time is over; none where it may wait for ever.
        until_us: Option<i64>,
    },
    /// Nothing more.
    Nothing,
}

/// What a runner does for a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Find out what holds the instance back.
    Analyse,
    /// Make a plan: read the settings, keep a snapshot of them, work out what they become.
    Plan,
    /// See that the next target is as the plan found it, then commit the intent to write it.
    BeginWrite,
    /// Let a target finish its requests, then commit the intent to write it.
    Drain {
        /// Which.
        target: u32,
    },
    /// Write the settings of a target, or see that they are written.
    Write {
        /// Which, by its place in the plan.
        target: u32,
    },
    /// Wait until a target is ready.
    AwaitReady {
        /// Which.
        target: u32,
    },
    /// Hold the targets that have the change against those that do not.
    Observe,
    /// Ask the same prompts with the change and without.
    CheckQuality,
    /// Measure what came of it.
    Measure,
    /// Commit the intent to restore the next target, or say that all are restored.
    BeginRestore,
    /// Restore the settings of a target, or see that they are restored.
    Restore {
        /// Which.
        target: u32,
    },
    /// Wait until a restored target is ready.
    AwaitRestored {
        /// Which.
        target: u32,
    },
}

/// What the runner of this workflow does next.
pub fn next_step(state: &Workflow) -> Step {
    let wait = Step::Wait {
        until_us: state.deadline_us,
    };
    match state.phase {
        Phase::Ended { .. } => Step::Nothing,
        // an effect that may be under way is brought to its end, or found to be done, unless what is found is not ours
        Phase::Writing { target } if !state.is_held_for_drift() => {
            Step::Do(Effect::Write { target })
        }
        _ if state.pause.is_some() => wait,
        Phase::Writing { .. } | Phase::AwaitingApproval | Phase::AwaitingPromotion => wait,
        Phase::Analysing => Step::Do(Effect::Analyse),
        Phase::Planning => Step::Do(Effect::Plan),
        Phase::Approved | Phase::RollingOut => Step::Do(Effect::BeginWrite),
        Phase::AwaitingReady { target } => Step::Do(Effect::AwaitReady { target }),
        Phase::Draining { target } => Step::Do(Effect::Drain { target }),
        Phase::Observing => Step::Do(Effect::Observe),
        Phase::CheckingQuality => Step::Do(Effect::CheckQuality),
        Phase::Measuring => Step::Do(Effect::Measure),
        Phase::RollingBack => Step::Do(Effect::BeginRestore),
        Phase::Restoring { target } => Step::Do(Effect::Restore { target }),
        Phase::AwaitingRestored { target } => Step::Do(Effect::AwaitRestored { target }),
    }
}
