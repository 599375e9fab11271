//! `perfagent workflow`

mod approve;
mod canary_args;
mod draw;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod example;
mod follow;
mod history;
pub(super) mod page;
mod reach;
mod show;
mod snapshots;
mod start;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod verbs;
mod verdict;
mod watch;
pub(super) mod words;

use clap::Subcommand;

use super::{Failure, Outcome};

/// What can be done with workflows.
#[derive(Debug, Subcommand)]
#[command(after_help = ABOUT)]
pub(super) enum WorkflowCommand {
    /// Start one on an instance: find out what holds it back, plan a change, and wait for approval
    Start(Box<start::StartArgs>),
    /// Agree to the plan, which is then carried out
    Approve(approve::ApproveArgs),
    /// Refuse the plan, which ends the workflow
    Reject(verbs::RejectArgs),
    /// Let it stand still; what it has begun is brought to its end first
    Pause(verbs::PauseArgs),
    /// Let it go on
    Resume(verbs::ResumeArgs),
    /// End it; what it has changed is restored
    Cancel(verbs::CancelArgs),
    /// Restore the settings from before, also of one that has completed
    Rollback(verbs::RollbackArgs),
    /// Show one: how it is, whom it waits for, its plan, and what came of it
    Get(show::GetArgs),
    /// List them, the newest first
    List(show::ListArgs),
    /// Look on, live
    Watch(watch::WatchArgs),
    /// Print what has happened
    Events(history::EventsArgs),
    /// Keep the settings of an instance as they are now, to restore them later
    Snapshot(snapshots::SnapshotArgs),
    /// List kept settings, the newest first
    Snapshots(snapshots::SnapshotsArgs),
}

const ABOUT: &str = "A workflow goes from an analysis over an approval to a change that is applied and measured, or back to exactly
where it was. It is on disk: it goes on when the agent is killed and started again.

  perfagent workflow start vllm-1            plan a change, and say how to approve it
  perfagent workflow watch vllm-1            look on, from another terminal
  perfagent workflow approve vllm-1          read the plan, and agree to it
  perfagent workflow rollback vllm-1         take it back

Where a WORKFLOW is asked for, its id will do; or the id of an instance, for the workflow that is under way on it, or ran
last; or `latest`.";

pub(super) async fn run(command: WorkflowCommand) -> Outcome {
    let ended = match command {
        WorkflowCommand::Start(args) => start::run(*args).await,
        WorkflowCommand::Approve(args) => approve::run(args).await,
        WorkflowCommand::Reject(args) => verbs::reject(args).await,
        WorkflowCommand::Pause(args) => verbs::pause(args).await,
        WorkflowCommand::Resume(args) => verbs::resume(args).await,
        WorkflowCommand::Cancel(args) => verbs::cancel(args).await,
        WorkflowCommand::Rollback(args) => verbs::rollback(args).await,
        WorkflowCommand::Get(args) => show::get(&args).await,
        WorkflowCommand::List(args) => show::list(args).await,
        WorkflowCommand::Watch(args) => watch::run(&args).await,
        WorkflowCommand::Events(args) => history::run(&args).await,
        WorkflowCommand::Snapshot(args) => snapshots::take(args).await,
        WorkflowCommand::Snapshots(args) => snapshots::list(args).await,
    };
    ended.unwrap_or_else(|failure: Failure| failure.told())
}
