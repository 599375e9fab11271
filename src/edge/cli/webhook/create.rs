//! `perfagent webhook create`

use std::io::Read;

use clap::Args;
use uuid::Uuid;

use super::page::secret_text;
use super::reach::{AskArgs, Reached, request};
use crate::edge::cli::instances::label;
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Flags of `perfagent webhook create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent webhook create pager --url https://hooks.example/perfagent
  perfagent webhook create chat --url https://hooks.example/chat --type workflow.status_changed \\
      --type workflow.approval_needed --label team=search
  perfagent webhook create alarm --url https://hooks.example/alarm --type bottleneck.opened \\
      --type bottleneck.resolved --min-severity high

The secret is printed this once. Private and loopback addresses are refused unless `[webhook] allow` in the agent's
config file lists them.

Types: workflow.status_changed (default), workflow.stage_changed, workflow.verdict,
workflow.approval_needed, bottleneck.opened,
bottleneck.resolved.

Exit codes: 0 created; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct CreateArgs {
    /// Its id
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// Where deliveries are posted to
    #[arg(long, value_name = "URL")]
    url: String,
    /// Of what it is told; may be repeated [default: workflow.status_changed]
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only of this instance; may be repeated
    #[arg(long = "instance", value_name = "INSTANCE")]
    instances: Vec<String>,
    /// Only of instances with this label; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// Only of bottlenecks that are at least so severe
    #[arg(long, value_enum, value_name = "SEVERITY")]
    min_severity: Option<AtLeast>,
    /// What it is for
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    description: String,
    /// Read its secret from standard input instead of having one made
    #[arg(long)]
    secret_stdin: bool,
    #[command(flatten)]
    ask: AskArgs,
}

/// How severe a bottleneck has to be.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum AtLeast {
    Low,
    Medium,
    High,
    Critical,
}

pub(super) async fn run(args: CreateArgs) -> Result<Outcome, Failure> {
    let secret = match args.secret_stdin {
        true => secret_of_stdin()?,
        false => String::new(),
    };
    let reached = Reached::by(&args.ask).await?;
    let min_severity = match args.min_severity {
        None => pb::Severity::Unspecified,
        Some(AtLeast::Low) => pb::Severity::Low,
        Some(AtLeast::Medium) => pb::Severity::Medium,
        Some(AtLeast::High) => pb::Severity::High,
        Some(AtLeast::Critical) => pb::Severity::Critical,
    };
    let call = request(pb::CreateWebhookRequest {
        request_id: Uuid::new_v4().to_string(),
        webhook_id: args.webhook,
        url: args.url,
        types: args.types,
        instance_ids: args.instances,
        labels: args.labels.into_iter().collect(),
        min_severity: min_severity.into(),
        description: args.description,
        secret,
    });
    let answer = reached.client().create_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let webhook = answer.webhook.clone().unwrap_or_default();
    reached.print("CreateWebhookResponse", &answer, || {
        secret_text("created", &webhook, &answer.secret, &reached.server)
    })
}

/// A secret that is piped in: an argument would stand in the shell's history.
pub(super) fn secret_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    // more than any secret has
    let read = std::io::stdin().take(4_096).read_to_string(&mut text);
    read.map_err(|error| {
        let message = format!("cannot read the secret from standard input: {error}");
        Failure::new(Outcome::Failed, message, None)
    })?;
    Ok(text.trim().to_owned())
}
