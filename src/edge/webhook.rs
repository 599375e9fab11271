//! Posts deliveries of webhooks over HTTP.

use std::sync::Arc;

use async_trait::async_trait;

use crate::agent::{Agent, WebhookTransport};
use crate::config::WebhookPolicy;
use crate::scrape::{ClientError, FetchLimits, Fetcher, Refusal, ScrapeFailure};
use crate::webhook::{Answer, Signed};

/// Posts over HTTP. No redirects, no proxies, no cookies; addresses are checked when they are connected to.
#[derive(Debug)]
struct HttpTransport(Fetcher);

/// Has an agent deliver what it owes webhooks.
///
/// # Errors
/// The TLS set-up of this machine.
pub(in crate::edge) fn deliver(agent: &Agent) -> Result<(), ClientError> {
    if let Some(policy) = agent.webhook_policy() {
        agent.deliver_by(Arc::new(HttpTransport::new(policy)?));
    }
    Ok(())
}

impl HttpTransport {
    fn new(policy: &WebhookPolicy) -> Result<Self, ClientError> {
        let limits = FetchLimits {
            connect_timeout: policy.connect_timeout,
            timeout: policy.timeout,
            ..FetchLimits::default()
        };
        Fetcher::new(policy.urls.clone(), limits).map(Self)
    }
}

#[async_trait]
impl WebhookTransport for HttpTransport {
    async fn post(&self, url: &str, signed: &Signed) -> Answer {
        let headers = [
            (standardwebhooks::HEADER_WEBHOOK_ID, signed.id.clone()),
            (
                standardwebhooks::HEADER_WEBHOOK_TIMESTAMP,
                signed.timestamp.to_string(),
            ),
            (
                standardwebhooks::HEADER_WEBHOOK_SIGNATURE,
                signed.signature.clone(),
            ),
        ];
        match self.0.post_json(url, &headers, signed.body.clone()).await {
            Ok(posted) => Answer::Status {
                status: posted.status,
                retry_after: posted.retry_after,
            },
            Err(failure) => Answer::None {
                problem: problem_of(&failure),
            },
        }
    }
}

/// Why nothing was answered, without the address that a name has inside: callers need not learn it.
fn problem_of(failure: &ScrapeFailure) -> String {
    match failure {
        ScrapeFailure::Refused(Refusal::NotAllowed { .. }) => {
            "the address is not public, and not in [webhook] allow".to_owned()
        }
        other => other.to_string(),
    }
}
