//! `perfagent workflow get` and `list`

use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::page::{Told, render, table};
use super::reach::{Purpose, READ_DEADLINE, Reached, json_of, request};
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::terminal::{colour_on_stdout, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Flags of `perfagent workflow get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent workflow get vllm-1
  perfagent workflow get latest -o json | jq '.workflow | {status, waiting_for, progress}'

Exit codes: 0 shown; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct GetArgs {
    /// Id of a workflow; or of an instance, for the one that is under way on it or ran last; or `latest`
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn get(args: &GetArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let id = reached.id_of(&args.workflow, Purpose::Look).await?;
    let answer = reached.get(&id).await?;
    match args.output {
        Output::Json => print(&json_of("GetWorkflowResponse", &answer)?),
        Output::Table => {
            let told = Told {
                of: &answer.workflow.unwrap_or_default(),
                now: SystemTime::now(),
                server: &reached.server,
            };
            print(&render(&told, colour_on_stdout()));
        }
    }
    Ok(Outcome::Done)
}

/// Flags of `perfagent workflow list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent workflow list
  perfagent workflow list vllm-1 --status pending-approval
  perfagent workflow list --status paused --status rollback-failed -o json

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct ListArgs {
    /// Only those of this instance
    #[arg(value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only those in this status; may be repeated
    #[arg(long = "status", value_enum, value_name = "STATUS")]
    statuses: Vec<Status>,
    /// How many at most, the newest first
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// Its plan waits for somebody
    PendingApproval,
    /// Its plan is approved, and the change has not begun
    Approved,
    /// Its plan was rejected, or nobody approved it in time
    Rejected,
    /// It works
    InProgress,
    /// It stands still until it is resumed
    Paused,
    /// It has ended as it should
    Completed,
    /// It has ended with an error, and nothing was changed
    Failed,
    /// Somebody ended it before anything was changed
    Cancelled,
    /// It has ended, and the settings are what they were
    RolledBack,
    /// It has ended, and settings could not be restored
    RollbackFailed,
}

impl From<Status> for pb::WorkflowStatus {
    fn from(of: Status) -> Self {
        match of {
            Status::PendingApproval => Self::PendingApproval,
            Status::Approved => Self::Approved,
            Status::Rejected => Self::Rejected,
            Status::InProgress => Self::InProgress,
            Status::Paused => Self::Paused,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
            Status::RolledBack => Self::RolledBack,
            Status::RollbackFailed => Self::RollbackFailed,
        }
    }
}

pub(super) async fn list(args: ListArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let statuses = args
        .statuses
        .iter()
        .map(|one| pb::WorkflowStatus::from(*one).into());
    let statuses: Vec<i32> = statuses.collect();
    let mut all = pb::ListWorkflowsResponse::default();
    while all.workflows.len() < args.limit {
        let left = args.limit.saturating_sub(all.workflows.len());
        let call = request(
            pb::ListWorkflowsRequest {
                page_size: u32::try_from(left.min(MOST_A_PAGE)).unwrap_or(0),
                page_token: std::mem::take(&mut all.next_page_token),
                instance_id: args.instance.clone().unwrap_or_default(),
                statuses: statuses.clone(),
                workflow_type: pb::WorkflowType::Unspecified.into(),
            },
            READ_DEADLINE,
        );
        let page = reached.client().list_workflows(call).await;
        let page = page.map_err(|status| reached.failed(&status))?.into_inner();
        all.workflows.extend(page.workflows);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    match args.output {
        Output::Json => print(&json_of("ListWorkflowsResponse", &all)?),
        Output::Table => {
            print(&table(&all.workflows, SystemTime::now()));
            if !all.next_page_token.is_empty() {
                print("there are more; raise --limit\n");
            }
        }
    }
    Ok(Outcome::Done)
}

/// The agent gives no more at once.
const MOST_A_PAGE: usize = 100;
