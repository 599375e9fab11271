//! `perfagent webhook`

mod create;
mod deliveries;
pub(super) mod page;
mod reach;
mod verbs;

use clap::Subcommand;

use super::{Failure, Outcome};

/// What can be done with webhooks.
#[derive(Debug, Subcommand)]
#[command(after_help = ABOUT)]
pub(super) enum WebhookCommand {
    /// Create one, and print the secret that its deliveries are signed with
    Create(create::CreateArgs),
    /// Post a signed ping to it, and say what came of it
    Test(verbs::TestArgs),
    /// List them
    List(verbs::ListArgs),
    /// Show one
    Get(verbs::GetArgs),
    /// Have it be told again, at once of what it is owed
    Enable(verbs::EnableArgs),
    /// Have it be told nothing more
    Disable(verbs::DisableArgs),
    /// Give it a new secret; for a day the one before holds as well
    Rotate(verbs::RotateArgs),
    /// Forget it with what it is owed
    Delete(verbs::DeleteArgs),
    /// List what was and is to be delivered, the newest first; with an id, what came of each attempt
    Deliveries(deliveries::DeliveriesArgs),
    /// Have something delivered again
    Redeliver(deliveries::RedeliverArgs),
}

const ABOUT: &str = "A webhook is told of what happens, by an HTTP POST of JSON that is signed as Standard Webhooks says
(https://www.standardwebhooks.com has libraries that verify it, in all languages). Deliveries are on disk before anything
is acknowledged, and are tried for three days; those of one workflow come in order.

  perfagent webhook create pager --url https://hooks.example/perfagent
  perfagent webhook test pager              is it reached?
  perfagent webhook deliveries pager        what was it told, and what came of it?

Receivers answer 2xx within 15 seconds and work afterwards; one id may come twice, with the same content.";

pub(super) async fn run(command: WebhookCommand) -> Outcome {
    let ended = match command {
        WebhookCommand::Create(args) => create::run(args).await,
        WebhookCommand::Test(args) => verbs::test(args).await,
        WebhookCommand::List(args) => verbs::list(&args).await,
        WebhookCommand::Get(args) => verbs::get(args).await,
        WebhookCommand::Enable(args) => verbs::enable(args).await,
        WebhookCommand::Disable(args) => verbs::disable(args).await,
        WebhookCommand::Rotate(args) => verbs::rotate(args).await,
        WebhookCommand::Delete(args) => verbs::delete(args).await,
        WebhookCommand::Deliveries(args) => deliveries::list(args).await,
        WebhookCommand::Redeliver(args) => deliveries::redeliver(args).await,
    };
    ended.unwrap_or_else(|failure: Failure| failure.told())
}
