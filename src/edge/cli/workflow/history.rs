//! `perfagent workflow events`

use clap::{ArgGroup, Args};

use super::page::event_line;
use super::reach::{Purpose, READ_DEADLINE, Reached, request};
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::terminal::print;
use crate::edge::cli::{Failure, Outcome, json};
use crate::edge::grpc::pb;

/// Flags of `perfagent workflow events`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["workflow", "instance", "all"])
)]
pub(in crate::edge::cli) struct EventsArgs {
    /// Id of a workflow; or of an instance, for the one that is under way on it or ran last; or `latest`
    #[arg(value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// Of all workflows of this instance
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Of all workflows
    #[arg(long)]
    all: bool,
    /// Only those after this revision
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REVISION"
    )]
    after_revision: u64,
    /// What to print: a line an event; or JSON, one object a line
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent workflow events vllm-1
  perfagent workflow events --all --after-revision 1200 -o json
  perfagent workflow events latest -o json | jq 'select(.type == \"planned\") | .plan'

Events are in the order in which they were committed; `revision` numbers those of all workflows without gaps. `watch` goes
on where this ends.

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.";

pub(super) async fn run(args: &EventsArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let workflow_id = match &args.workflow {
        Some(reference) => reached.id_of(reference, Purpose::Look).await?,
        None => String::new(),
    };
    let mut after_revision = args.after_revision;
    loop {
        let call = request(
            pb::ListWorkflowEventsRequest {
                workflow_id: workflow_id.clone(),
                instance_id: args.instance.clone().unwrap_or_default(),
                after_revision,
                page_size: 0,
                wait: None,
            },
            READ_DEADLINE,
        );
        let page = reached.client().list_workflow_events(call).await;
        let page = page.map_err(|status| reached.failed(&status))?.into_inner();
        for event in &page.events {
            print(&line(event, args.output)?);
        }
        if !page.more || page.next_after_revision <= after_revision {
            return Ok(Outcome::Done);
        }
        after_revision = page.next_after_revision;
    }
}

fn line(event: &pb::WorkflowEvent, output: Output) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(event_line(event)),
        Output::Json => {
            let value = json::to_json("perfagent.v1.WorkflowEvent", event);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            Ok(json::line_of(&value))
        }
    }
}
