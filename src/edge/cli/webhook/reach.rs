//! Reaching the webhooks of an agent.

use std::time::Duration;

use clap::Args;

use crate::edge::cli::collect::{Output, failure_of};
use crate::edge::cli::connect::{AgentChannel, ConnectArgs, ConnectedAgent};
use crate::edge::cli::terminal::print;
use crate::edge::cli::{Failure, Outcome, json};
use crate::edge::grpc::pb::webhook_service_client::WebhookServiceClient;

/// Enough for whatever the store does; a ping has time of its own.
const DEADLINE: Duration = Duration::from_secs(10);
/// A receiver has 15 seconds, and a configured agent may give it a minute.
const TEST_DEADLINE: Duration = Duration::from_secs(75);

/// How an agent is asked, and answered.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
}

/// An agent that can be asked about webhooks.
pub(super) struct Reached {
    agent: ConnectedAgent,
    output: Output,
    /// What commands need behind them to reach it too.
    pub(super) server: String,
}

impl Reached {
    pub(super) async fn by(ask: &AskArgs) -> Result<Self, Failure> {
        Ok(Self {
            agent: ask.connect.connect().await?,
            output: ask.output,
            server: ask.connect.as_flag(),
        })
    }

    pub(super) fn client(&self) -> WebhookServiceClient<AgentChannel> {
        WebhookServiceClient::new(self.agent.channel())
    }

    pub(super) fn failed(&self, status: &tonic::Status) -> Failure {
        self.agent
            .explain(status)
            .unwrap_or_else(|| failure_of(status))
    }

    /// Prints an answer: as JSON under this name, or as the text that says it.
    pub(super) fn print(
        &self,
        name: &str,
        answer: &impl prost::Message,
        text: impl FnOnce() -> String,
    ) -> Result<Outcome, Failure> {
        match self.output {
            Output::Table => print(&text()),
            Output::Json => {
                let value = json::to_json(&format!("perfagent.v1.{name}"), answer);
                let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
                print(&json::text_of(&value));
            }
        }
        Ok(Outcome::Done)
    }
}

/// A request with its deadline.
pub(super) fn request<T>(message: T) -> tonic::Request<T> {
    within(message, DEADLINE)
}

/// A request that waits for a receiver.
pub(super) fn test_request<T>(message: T) -> tonic::Request<T> {
    within(message, TEST_DEADLINE)
}

fn within<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}
