//! `perfagent workflow reject`, `pause`, `resume`, `cancel` and `rollback`

use std::time::SystemTime;

use clap::Args;
use uuid::Uuid;

use super::page::{Told, commands};
use super::reach::{Purpose, Reached, WRITE_DEADLINE, json_of, request};
use super::watch::to_its_end;
use super::words::status_word;
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::terminal::{clean, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Which, and why.
#[derive(Debug, Args)]
struct WhichArgs {
    /// Id of the workflow; or of the instance that it is under way on; or `latest`
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// Why, for those who read it later
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    note: String,
}

/// What comes after it.
#[derive(Debug, Args)]
pub(super) struct AfterArgs {
    /// Look on to its end, as `perfagent workflow watch` does
    #[arg(long)]
    watch: bool,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// Flags of `perfagent workflow reject`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent workflow reject vllm-1 --note 'not before the launch'

It is for a plan that waits for approval. The workflow ends as REJECTED, and nothing was changed."
)]
pub(in crate::edge::cli) struct RejectArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    after: AfterArgs,
}

/// Flags of `perfagent workflow pause`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent workflow pause vllm-1 --note 'incident'

What it has begun, such as writing the settings of a target, is brought to its end first. Deadlines stop."
)]
pub(in crate::edge::cli) struct PauseArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    after: AfterArgs,
}

/// Flags of `perfagent workflow resume`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent workflow resume vllm-1

One that was paused because somebody else changed settings goes on with these; `rollback` restores those from before.")]
pub(in crate::edge::cli) struct ResumeArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    after: AfterArgs,
}

/// Flags of `perfagent workflow cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent workflow cancel vllm-1
  perfagent workflow cancel vllm-1 --acknowledge --note 'repaired by hand'

Where nothing was changed it ends as CANCELLED at once; else the settings from before are restored, and it ends as
ROLLED_BACK. One whose rollback failed keeps the instance locked until it is rolled back again, or you take over with
--acknowledge, which leaves settings as they are.")]
pub(in crate::edge::cli) struct CancelArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// You know that settings could not be restored, and take over
    #[arg(long)]
    acknowledge: bool,
    #[command(flatten)]
    after: AfterArgs,
}

/// Flags of `perfagent workflow rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent workflow rollback vllm-1 --watch
  perfagent workflow rollback 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10 --note 'tails are worse'

It restores the settings from before, byte for byte; of one that has completed, too, where nobody has changed them since.
Asked of one whose rollback failed it is a new attempt, and overwrites what others changed.")]
pub(in crate::edge::cli) struct RollbackArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    after: AfterArgs,
}

macro_rules! verb {
    ($name:ident $args:ident $call:ident $request:ident $response:literal $said:literal $($field:ident)?) => {
        pub(super) async fn $name(args: $args) -> Result<Outcome, Failure> {
            let reached = Reached::by(&args.after.connect).await?;
            let workflow_id = reached.id_of(&args.which.workflow, Purpose::Act).await?;
            let call = request(
                pb::$request {
                    request_id: Uuid::new_v4().to_string(),
                    workflow_id,
                    note: args.which.note,
                    $($field: args.$field,)?
                },
                WRITE_DEADLINE,
            );
            let answer = reached.client().$call(call).await;
            let answer = answer.map_err(|status| reached.failed(&status))?.into_inner();
            let workflow = answer.workflow.as_ref();
            answered(&reached, &args.after, ($response, &answer), workflow, $said).await
        }
    };
}

verb!(reject RejectArgs reject_workflow RejectWorkflowRequest "RejectWorkflowResponse" "rejected");
verb!(pause PauseArgs pause_workflow PauseWorkflowRequest "PauseWorkflowResponse" "paused");
verb!(resume ResumeArgs resume_workflow ResumeWorkflowRequest "ResumeWorkflowResponse" "resumed");
verb!(cancel CancelArgs cancel_workflow CancelWorkflowRequest "CancelWorkflowResponse" "cancelled" acknowledge);
verb!(rollback RollbackArgs rollback_workflow RollbackWorkflowRequest "RollbackWorkflowResponse" "rolling back");

/// Says that it was done and how the workflow is now, or looks on.
pub(super) async fn answered(
    reached: &Reached,
    after: &AfterArgs,
    (name, answer): (&str, &impl prost::Message),
    workflow: Option<&pb::Workflow>,
    said: &str,
) -> Result<Outcome, Failure> {
    let empty = pb::Workflow::default();
    let of = workflow.unwrap_or(&empty);
    match (after.watch, after.output) {
        (true, output) => return to_its_end(reached, &of.workflow_id, output).await,
        (false, Output::Json) => print(&json_of(name, answer)?),
        (false, Output::Table) => print(&in_short(reached, of, said)),
    }
    Ok(Outcome::Done)
}

fn in_short(reached: &Reached, of: &pb::Workflow, said: &str) -> String {
    let told = Told {
        of,
        now: SystemTime::now(),
        server: &reached.server,
    };
    let id = clean(&of.workflow_id);
    let mut text = format!(
        "{said} {id}\n{}: {}\n",
        status_word(of.status()),
        clean(&of.headline)
    );
    if let Some(waiting) = &of.waiting_for {
        text += &format!("waits for: {}\n", clean(&waiting.what));
    }
    for command in commands(&told) {
        text += &format!("  {command}\n");
    }
    if !of.done {
        text += &format!("look on: perfagent workflow watch {id}{}\n", reached.server);
    }
    text
}
