//! `perfagent workflow approve`

use std::io::{BufRead, IsTerminal, Write};
use std::time::SystemTime;

use clap::Args;
use uuid::Uuid;

use super::page::{Told, to_approve};
use super::reach::{Purpose, Reached, WRITE_DEADLINE, request};
use super::verbs::{AfterArgs, answered};
use crate::edge::cli::terminal::{colour_on_stdout, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Flags of `perfagent workflow approve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::edge::cli) struct ApproveArgs {
    /// Id of the workflow; or of the instance that it is under way on; or `latest`
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
    /// Etag of the plan that you have read; without it the plan is shown and you are asked
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
    /// Approve the plan as it is now, without being asked
    #[arg(long, conflicts_with = "etag")]
    yes: bool,
    /// In your words, for those who read it later
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    note: String,
    #[command(flatten)]
    after: AfterArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent workflow approve vllm-1
  perfagent workflow approve 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10 --etag 9b1c04d27f3e8a65
  perfagent workflow approve latest --yes --watch

What is approved is the plan of one etag: where settings changed since it was made it is planned anew, the approval is
refused (PLAN_CHANGED), and the new plan waits for you.

Exit codes: 0 approved; 1 failed, or you said no; 2 wrong usage or configuration; with --watch those of `perfagent workflow
watch`.";

pub(super) async fn run(args: ApproveArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.after.connect).await?;
    let id = reached.id_of(&args.workflow, Purpose::Act).await?;
    let plan_etag = match args.etag {
        Some(etag) => etag,
        None => read(&reached, &id, args.yes).await?,
    };
    let call = request(
        pb::ApproveWorkflowRequest {
            request_id: Uuid::new_v4().to_string(),
            workflow_id: id,
            plan_etag,
            note: args.note,
        },
        WRITE_DEADLINE,
    );
    let answer = reached.client().approve_workflow(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let json = ("ApproveWorkflowResponse", &answer);
    answered(
        &reached,
        &args.after,
        json,
        answer.workflow.as_ref(),
        "approved",
    )
    .await
}

/// The etag of the plan as it is, after it was shown and agreed to, or taken as read.
async fn read(reached: &Reached, id: &str, is_read: bool) -> Result<String, Failure> {
    let answer = reached.get(id).await?;
    let workflow = answer.workflow.unwrap_or_default();
    let etag = workflow.plan.as_ref().map(|plan| plan.etag.clone());
    // the agent says what is amiss with one that cannot be approved
    let (Some(etag), pb::WorkflowStatus::PendingApproval, false) =
        (etag.clone(), workflow.status(), is_read)
    else {
        return Ok(etag.unwrap_or_default());
    };
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let text = "nobody is there to be asked: this is no terminal";
        let hint = format!(
            "read the plan with `perfagent workflow get {id}`, and give --etag {etag}; or --yes"
        );
        return Err(Failure::new(Outcome::Usage, text, Some(&hint)));
    }
    let told = Told {
        of: &workflow,
        now: SystemTime::now(),
        server: &reached.server,
    };
    print(&to_approve(&told, colour_on_stdout()));
    match asked("\nApprove this plan? (yes/no) ") {
        true => Ok(etag),
        false => {
            let hint =
                format!("`perfagent workflow reject {id}` refuses it, else it goes on waiting");
            Err(Failure::new(Outcome::Failed, "not approved", Some(&hint)))
        }
    }
}

/// Asks until yes or no is said; silence is no.
fn asked(question: &str) -> bool {
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print(question);
        // nothing more can be said where the terminal is gone
        let _ = std::io::stdout().flush();
        let Some(Ok(line)) = lines.next() else {
            return false;
        };
        match line.trim().to_ascii_lowercase().as_str() {
            "yes" | "y" => return true,
            "no" | "n" => return false,
            _ => {}
        }
    }
}
