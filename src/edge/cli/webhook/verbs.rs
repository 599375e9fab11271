//! `perfagent webhook test`, `list`, `get`, `enable`, `disable`, `rotate` and `delete`

use std::time::SystemTime;

use clap::Args;
use uuid::Uuid;

use super::create::secret_of_stdin;
use super::page::{attempt_line, details, secret_text, table};
use super::reach::{AskArgs, Reached, request, test_request};
use crate::edge::cli::terminal::clean;
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Which one.
#[derive(Debug, Args)]
struct WhichArgs {
    /// Its id
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// Flags of `perfagent webhook test`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook test pager

It is a ping of type `webhook.test`, posted once, also to one that is disabled.

Exit codes: 0 taken; 1 not taken, or failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct TestArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Flags of `perfagent webhook list`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook list

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct ListArgs {
    #[command(flatten)]
    ask: AskArgs,
}

/// Flags of `perfagent webhook get`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook get pager

Exit codes: 0 shown; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct GetArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Flags of `perfagent webhook enable`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook enable pager

One whose receiver answered 410, or nothing but failures for five days, is disabled by itself. What it is owed is tried
at once.

Exit codes: 0 enabled; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct EnableArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Flags of `perfagent webhook disable`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook disable pager

What it is owed is kept for a week; what happens meanwhile is not told later.

Exit codes: 0 disabled; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct DisableArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Flags of `perfagent webhook rotate`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook rotate pager

For 24 hours deliveries are signed with both secrets: give the receiver the new one by then. The secret is printed this
once.

Exit codes: 0 it has a new secret; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct RotateArgs {
    /// Read the new secret from standard input instead of having one made
    #[arg(long)]
    secret_stdin: bool,
    #[command(flatten)]
    which: WhichArgs,
}

/// Flags of `perfagent webhook delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent webhook delete pager

Exit codes: 0 deleted; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct DeleteArgs {
    #[command(flatten)]
    which: WhichArgs,
}

pub(super) async fn test(args: TestArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.which.ask).await?;
    let call = test_request(pb::TestWebhookRequest {
        webhook_id: args.which.webhook,
    });
    let answer = reached.client().test_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let attempt = answer.attempt.clone().unwrap_or_default();
    reached.print("TestWebhookResponse", &answer, || {
        format!("{}\n", attempt_line(&attempt))
    })?;
    Ok(match attempt.taken {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}

pub(super) async fn list(args: &ListArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.ask).await?;
    let call = request(pb::ListWebhooksRequest {});
    let answer = reached.client().list_webhooks(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    reached.print("ListWebhooksResponse", &answer, || {
        table(&answer.webhooks, SystemTime::now())
    })
}

pub(super) async fn get(args: GetArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.which.ask).await?;
    let call = request(pb::GetWebhookRequest {
        webhook_id: args.which.webhook,
    });
    let answer = reached.client().get_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let webhook = answer.webhook.clone().unwrap_or_default();
    reached.print("GetWebhookResponse", &answer, || {
        details(&webhook, SystemTime::now(), &reached.server)
    })
}

pub(super) async fn enable(args: EnableArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.which.ask).await?;
    let call = request(pb::EnableWebhookRequest {
        webhook_id: args.which.webhook,
    });
    let answer = reached.client().enable_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let webhook = answer.webhook.clone().unwrap_or_default();
    reached.print("EnableWebhookResponse", &answer, || {
        format!("enabled {}\n", clean(&webhook.webhook_id))
    })
}

pub(super) async fn disable(args: DisableArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.which.ask).await?;
    let call = request(pb::DisableWebhookRequest {
        webhook_id: args.which.webhook,
    });
    let answer = reached.client().disable_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let webhook = answer.webhook.clone().unwrap_or_default();
    reached.print("DisableWebhookResponse", &answer, || {
        let id = clean(&webhook.webhook_id);
        let server = &reached.server;
        format!("disabled {id}\nenable it again: perfagent webhook enable {id}{server}\n")
    })
}

pub(super) async fn rotate(args: RotateArgs) -> Result<Outcome, Failure> {
    let secret = match args.secret_stdin {
        true => secret_of_stdin()?,
        false => String::new(),
    };
    let reached = Reached::by(&args.which.ask).await?;
    let call = request(pb::RotateWebhookSecretRequest {
        request_id: Uuid::new_v4().to_string(),
        webhook_id: args.which.webhook,
        secret,
    });
    let answer = reached.client().rotate_webhook_secret(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let webhook = answer.webhook.clone().unwrap_or_default();
    reached.print("RotateWebhookSecretResponse", &answer, || {
        secret_text("new secret of", &webhook, &answer.secret, &reached.server)
    })
}

pub(super) async fn delete(args: DeleteArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.which.ask).await?;
    let id = clean(&args.which.webhook);
    let call = request(pb::DeleteWebhookRequest {
        webhook_id: args.which.webhook,
    });
    let answer = reached.client().delete_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    reached.print("DeleteWebhookResponse", &answer, || {
        format!("deleted {id}\n")
    })
}
