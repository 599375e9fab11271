//! `perfagent webhook deliveries` and `redeliver`

use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::page::{attempts_text, deliveries_table};
use super::reach::{AskArgs, Reached, request};
use crate::edge::cli::terminal::clean;
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Flags of `perfagent webhook deliveries`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perfagent webhook deliveries pager --state failed
  perfagent webhook deliveries --workflow 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10
  perfagent webhook deliveries --id msg_0f3c9a52b6d14e8f9c7a1b2d3e4f5061

Those that have ended are kept for a week.

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct DeliveriesArgs {
    /// Only those to this webhook
    #[arg(value_name = "WEBHOOK")]
    webhook: Option<String>,
    /// Show this one with each of its attempts
    #[arg(long, value_name = "DELIVERY", conflicts_with_all = ["webhook", "workflow", "instance", "state"])]
    id: Option<String>,
    /// Only those of this workflow
    #[arg(long, value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// Only those of this instance
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// How many at most, the newest first
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    #[command(flatten)]
    ask: AskArgs,
}

/// How a delivery is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Pending,
    Delivered,
    Failed,
}

/// Flags of `perfagent webhook redeliver`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent webhook redeliver msg_0f3c9a52b6d14e8f9c7a1b2d3e4f5061

It is tried at once, from the beginning of the schedule, under the same id: a receiver that has it already knows it.

Exit codes: 0 it is tried again; 1 failed; 2 wrong usage or configuration."
)]
pub(in crate::edge::cli) struct RedeliverArgs {
    /// Its id, as `deliveries` shows it
    #[arg(value_name = "DELIVERY")]
    delivery: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// The agent gives no more at once.
const MOST_A_PAGE: usize = 500;

pub(super) async fn list(args: DeliveriesArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.ask).await?;
    if let Some(delivery_id) = args.id {
        let call = request(pb::GetWebhookDeliveryRequest { delivery_id });
        let answer = reached.client().get_webhook_delivery(call).await;
        let answer = answer
            .map_err(|status| reached.failed(&status))?
            .into_inner();
        return reached.print("GetWebhookDeliveryResponse", &answer, || {
            attempts_text(&answer, &reached.server)
        });
    }
    let state = match args.state {
        None => pb::WebhookDeliveryState::Unspecified,
        Some(State::Pending) => pb::WebhookDeliveryState::Pending,
        Some(State::Delivered) => pb::WebhookDeliveryState::Delivered,
        Some(State::Failed) => pb::WebhookDeliveryState::Failed,
    };
    let mut all = pb::ListWebhookDeliveriesResponse::default();
    while all.deliveries.len() < args.limit {
        let left = args.limit.saturating_sub(all.deliveries.len());
        let call = request(pb::ListWebhookDeliveriesRequest {
            page_size: u32::try_from(left.min(MOST_A_PAGE)).unwrap_or(0),
            page_token: std::mem::take(&mut all.next_page_token),
            webhook_id: args.webhook.clone().unwrap_or_default(),
            workflow_id: args.workflow.clone().unwrap_or_default(),
            instance_id: args.instance.clone().unwrap_or_default(),
            state: state.into(),
        });
        let page = reached.client().list_webhook_deliveries(call).await;
        let page = page.map_err(|status| reached.failed(&status))?.into_inner();
        all.deliveries.extend(page.deliveries);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    reached.print("ListWebhookDeliveriesResponse", &all, || {
        deliveries_table(&all, SystemTime::now())
    })
}

pub(super) async fn redeliver(args: RedeliverArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.ask).await?;
    let call = request(pb::RedeliverWebhookRequest {
        delivery_id: args.delivery,
    });
    let answer = reached.client().redeliver_webhook(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let delivery = answer.delivery.clone().unwrap_or_default();
    reached.print("RedeliverWebhookResponse", &answer, || {
        let id = clean(&delivery.delivery_id);
        let when = match delivery.due_time {
            Some(_) => "it is tried now",
            None => "it is tried when those before it have ended",
        };
        let server = &reached.server;
        format!("{when}\nlook: perfagent webhook deliveries --id {id}{server}\n")
    })
}
