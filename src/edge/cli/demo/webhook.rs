//! `--webhook`: what happens in the demo is posted to a receiver too.

use std::time::Duration;

use tonic::transport::Channel;
use url::{Host, Url};
use uuid::Uuid;

use super::failed;
use crate::config::WebhookConfig;
use crate::edge::cli::Failure;
use crate::edge::cli::terminal::{clean, print};
use crate::edge::cli::webhook::page::attempt_line;
use crate::edge::grpc::pb;
use crate::scrape::shown_url;
use crate::webhook::{EventType, Secret};
use pb::webhook_service_client::WebhookServiceClient;

/// Its id.
const ID: &str = "demo";
/// Where the receiver of the README has its secret too.
const SECRET: &str = "WEBHOOK_SECRET";
/// A receiver that is started late is not waited for long.
const RETRY: &str = "1s";
const TRIES: usize = 50;
/// What is owed is taken by then.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// There are far fewer.
const MOST_DELIVERIES: u32 = 500;

/// Lets the agent post there, on this machine too: whoever gave the URL asks for it.
pub(super) fn allow(url: &str, config: &mut WebhookConfig) {
    let url = Url::parse(url).ok();
    // one without is refused when the webhook is created
    let host = url.as_ref().and_then(Url::host).map(|host| match host {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    });
    config.allow.extend(host);
    let retries = std::iter::once("0s").chain(std::iter::repeat_n(RETRY, TRIES - 1));
    config.retries = retries.map(str::to_owned).collect();
}

/// Has the agent tell a receiver of everything, and says whether it is reached.
pub(super) async fn create(channel: &Channel, url: &str) -> Result<(), Failure> {
    let secret = std::env::var(SECRET).unwrap_or_default();
    let is_known = !secret.is_empty();
    if let Err(error) = Secret::parse(&secret)
        && is_known
    {
        return Err(failed(&format!("{SECRET} {error}")));
    }
    let mut client = WebhookServiceClient::new(channel.clone());
    let request = pb::CreateWebhookRequest {
        request_id: Uuid::new_v4().to_string(),
        webhook_id: ID.to_owned(),
        url: url.to_owned(),
        types: EventType::ALL
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        secret,
        ..pb::CreateWebhookRequest::default()
    };
    let answer = client.create_webhook(request).await;
    let answer = answer
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    let shown = clean(&shown_url(url));
    print(&format!("webhook: {shown} is told of everything\n"));
    print(&match is_known {
        true => format!("  signed with the secret in {SECRET}\n"),
        false => format!(
            "  secret, shown this once; the receiver verifies with it: {SECRET}={}\n",
            clean(&answer.secret)
        ),
    });
    let request = pb::TestWebhookRequest {
        webhook_id: ID.to_owned(),
    };
    let answer = client.test_webhook(request).await;
    let answer = answer
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    let attempt = answer.attempt.unwrap_or_default();
    let hint = match (attempt.taken, attempt.http_status) {
        (true, _) => "",
        (_, Some(401)) => "; has the receiver the same secret?",
        _ => "; it may be started now: each delivery is tried for a minute",
    };
    print(&format!(
        "  a signed ping: {}{hint}\n\n",
        attempt_line(&attempt)
    ));
    Ok(())
}

/// Waits until the receiver has what it is owed, and says how much that was.
pub(super) async fn settle(channel: &Channel) -> Result<(), Failure> {
    let mut client = WebhookServiceClient::new(channel.clone());
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = pb::ListWebhookDeliveriesRequest {
            page_size: MOST_DELIVERIES,
            ..pb::ListWebhookDeliveriesRequest::default()
        };
        let answer = client.list_webhook_deliveries(request).await;
        let all = answer
            .map_err(|status| failed(&status.message()))?
            .into_inner()
            .deliveries;
        let count = |state| all.iter().filter(|one| one.state() == state).count();
        let pending = count(pb::WebhookDeliveryState::Pending);
        if pending == 0 || tokio::time::Instant::now() >= end {
            let taken = count(pb::WebhookDeliveryState::Delivered);
            print(&format!(
                "webhook: {taken} of {} deliveries were taken\n",
                all.len()
            ));
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}
