//! Behind a proxy all callers have one address.

use std::str::FromStr;

use perfagent::agent::Reason;
use perfagent::edge::grpc::health_pb::HealthCheckRequest;
use perfagent::edge::grpc::health_pb::health_client::HealthClient;
use perfagent::edge::grpc::pb::GetAgentInfoRequest;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use perfagent::scrape::Network;
use tonic::{Code, Request, Status};

use crate::errors::Seen;
use crate::fake::TestAgent;

/// As a proxy sends it on.
fn from<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let caller = caller.parse().unwrap();
    request.metadata_mut().insert("x-forwarded-for", caller);
    request
}

/// How a call of each ends while the first of them has as many open as one may have.
async fn with_one_at_its_limit(trusted: &[&str], callers: [&str; 2]) -> [Result<(), Status>; 2] {
    let trusted = trusted.iter().map(|text| Network::from_str(text).unwrap());
    let trusted = trusted.collect();
    let agent = TestAgent::with(|config| config.server.trusted_proxies = trusted).await;
    let mut health = HealthClient::new(agent.channel().await);
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let watch = from(callers[0], HealthCheckRequest::default());
        open.push(health.watch(watch).await.unwrap());
    }
    let mut other = AgentServiceClient::new(agent.channel().await);
    let mut call = async |caller| {
        let called = other.get_agent_info(from(caller, GetAgentInfoRequest {}));
        called.await.map(|_| ())
    };
    [call(callers[0]).await, call(callers[1]).await]
}

#[tokio::test]
async fn callers_of_a_trusted_proxy_have_limits_of_their_own() {
    let seen = Seen::default();
    let callers = ["192.0.2.1", "192.0.2.2"];
    let [first, second] = with_one_at_its_limit(&["127.0.0.0/8"], callers).await;
    let reason = Reason::TooManyStreams;
    seen.check(&first.unwrap_err(), Code::ResourceExhausted, reason);
    second.unwrap();
}

#[tokio::test]
async fn others_are_not_believed_for_whom_they_call() {
    let seen = Seen::default();
    let callers = ["192.0.2.1", "192.0.2.2"];
    for trusted in [&[][..], &["10.0.0.0/8"]] {
        for ended in with_one_at_its_limit(trusted, callers).await {
            let reason = Reason::TooManyStreams;
            seen.check(&ended.unwrap_err(), Code::ResourceExhausted, reason);
        }
    }
}
