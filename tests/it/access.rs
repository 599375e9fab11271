//! Who may call what, over the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use http::uri::PathAndQuery;
use perfagent::agent::Reason;
use perfagent::auth::{Role, Token};
use perfagent::edge::grpc::DESCRIPTORS;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use perfagent::edge::grpc::pb::batch_collect_metrics_response::Result as BatchResult;
use perfagent::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use perfagent::edge::grpc::pb::{self, BatchCollectMetricsRequest, GetAgentInfoRequest};
use prost_reflect::DescriptorPool;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt;

use crate::errors::{RawCodec, Seen, hint};
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, request, vllm_body};
use crate::instances::{millis, registration};
use crate::pki::Files;

/// A request with a token, or whatever the text is.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

/// Calls any method with an empty message; its first answer, or none at the end.
async fn call(agent: &TestAgent, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(agent.channel().await);
    client.ready().await.unwrap();
    let messages = tokio_stream::once(&b""[..]);
    let request = match token {
        Some(token) => with_token(messages, token),
        None => Request::new(messages),
    };
    let path = PathAndQuery::try_from(path).unwrap();
    let answered = client.streaming(request, path, RawCodec).await?;
    answered.into_inner().message().await.map(|_| ())
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// Roles that may call a method; none: everybody may, without a credential too.
fn expected(path: &str) -> Option<BTreeSet<&'static str>> {
    let method = path.rsplit('/').next().unwrap();
    match method {
        _ if path.starts_with("/grpc.health.v1.Health/") => None,
        "RegisterInstance"
        | "UpdateInstance"
        | "DeleteInstance"
        | "StartWorkflow"
        | "PauseWorkflow"
        | "ResumeWorkflow"
        | "CancelWorkflow"
        | "RollbackWorkflow"
        | "CreateConfigSnapshot"
        | "RedeliverWebhook"
        | "TestWebhook" => Some(BTreeSet::from(["operator", "admin"])),
        "CreateWebhook"
        | "DeleteWebhook"
        | "DisableWebhook"
        | "EnableWebhook"
        | "RotateWebhookSecret" => Some(BTreeSet::from(["admin"])),
        "ApproveWorkflow" | "RejectWorkflow" => Some(BTreeSet::from(["approver", "admin"])),
        _ => Some(BTreeSet::from(["viewer", "operator", "approver", "admin"])),
    }
}

#[tokio::test]
async fn every_method_is_for_those_roles_that_it_is_for() {
    let files = Files::new();
    let tokens: Vec<(Role, Token)> = Role::ALL
        .iter()
        .map(|role| (*role, files.token(&format!("the-{role}"), *role)))
        .collect();
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut paths: BTreeSet<String> = pool
        .services()
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            let methods: Vec<String> = service
                .methods()
                .map(|method| format!("/{name}/{}", method.name()))
                .collect();
            methods
        })
        .collect();
    for version in ["v1", "v1alpha"] {
        let service = format!("/grpc.reflection.{version}.ServerReflection");
        paths.insert(format!("{service}/ServerReflectionInfo"));
    }
    // who may is said before they are there, and checked before it is seen that they are not
    for method in ["RegisterInstance", "UpdateInstance", "DeleteInstance"] {
        paths.insert(format!("/perfagent.v1.InstanceService/{method}"));
    }
    assert!(paths.len() >= 12, "{paths:?}");
    let unknown = Token::generate().unwrap();
    for path in &paths {
        let allowed = expected(path);
        for token in [None, Some(""), Some("x"), Some(unknown.expose())] {
            let refused = call(&agent, path, token).await.err().is_some_and(|status| {
                reason(&status) == "UNAUTHENTICATED" && status.code() == Code::Unauthenticated
            });
            assert_eq!(refused, allowed.is_some(), "{path}");
        }
        for (role, token) in &tokens {
            let answered = call(&agent, path, Some(token.expose())).await;
            let refused = answered.err().is_some_and(|status| {
                assert_ne!(status.code(), Code::Unauthenticated, "{path} as {role}");
                status.code() == Code::PermissionDenied && reason(&status) == "ROLE_NOT_ALLOWED"
            });
            let may = allowed
                .as_ref()
                .is_none_or(|roles| roles.contains(role.as_str()));
            assert_eq!(refused, !may, "{path} as {role}");
        }
    }
    // what nobody said anything about is there for nobody
    let nothing = "/perfagent.v1.MetricsService/Nothing";
    let status = call(&agent, nothing, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = call(&agent, nothing, Some(tokens[3].1.expose())).await;
    assert_eq!(reason(&status.unwrap_err()), "UNKNOWN_METHOD");
}

/// Calls that are refused for want of a credential or of a role, for the test of all reasons.
pub async fn provoke(seen: &Seen) {
    let files = Files::new();
    let viewer = files.token("viewer", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let mut client = agent.metrics().await;
    let target = || request("vllm", &["http://127.0.0.1:1/metrics"], 0);
    let status = client.collect_metrics(target()).await.unwrap_err();
    seen.check(&status, Code::Unauthenticated, Reason::Unauthenticated);
    assert!(hint(&status).contains("PERFAGENT_TOKEN"), "{status:?}");
    let asked = client.collect_metrics(with_token(target(), viewer.expose()));
    let status = asked.await.unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::RoleNotAllowed);
    assert!(status.message().contains("operator or admin"), "{status:?}");
}

#[tokio::test]
async fn only_who_operates_has_urls_fetched() {
    let files = Files::new();
    let tokens = Role::ALL
        .iter()
        .map(|role| (*role, files.token(role.as_str(), *role)));
    let tokens: Vec<_> = tokens.collect();
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let engine = counting_vllm(|_| 1).await;
    let mut client = agent.metrics().await;
    for (role, token) in tokens {
        let may = matches!(role, Role::Operator | Role::Admin);
        let before = engine.connections();
        let target = request("vllm", &[&engine.url()], 0);
        let one = client
            .collect_metrics(with_token(target.clone(), token.expose()))
            .await;
        assert_eq!(one.is_ok(), may, "{role}");
        let mut analysis = agent.analysis().await;
        let detect = pb::DetectBottlenecksRequest {
            instance_id: target.instance_id.clone(),
            metrics_url: target.metrics_url.clone(),
            window: target.window,
            ..Default::default()
        };
        let evaluate = pb::EvaluateSlosRequest {
            instance_id: target.instance_id.clone(),
            metrics_url: target.metrics_url.clone(),
            window: target.window,
            ..Default::default()
        };
        let detected = analysis
            .detect_bottlenecks(with_token(detect, token.expose()))
            .await;
        assert_eq!(detected.is_ok(), may, "{role}");
        let evaluated = analysis
            .evaluate_slos(with_token(evaluate, token.expose()))
            .await;
        assert_eq!(evaluated.is_ok(), may, "{role}");
        let config = pb::GetInstanceConfigRequest {
            instance_id: target.instance_id.clone(),
            metrics_url: target.metrics_url.clone(),
            window: target.window,
            ..Default::default()
        };
        let recommend = pb::RecommendOptimizationsRequest {
            instance_id: target.instance_id.clone(),
            metrics_url: target.metrics_url.clone(),
            window: target.window,
            ..Default::default()
        };
        let mut optimization = agent.optimization().await;
        let config = with_token(config, token.expose());
        let told = optimization.get_instance_config(config).await;
        assert_eq!(told.is_ok(), may, "{role}");
        let recommend = with_token(recommend, token.expose());
        let recommended = optimization.recommend_optimizations(recommend).await;
        assert_eq!(recommended.is_ok(), may, "{role}");
        let batch = BatchCollectMetricsRequest {
            requests: vec![target],
        };
        let batch = client
            .batch_collect_metrics(with_token(batch, token.expose()))
            .await;
        let first = batch
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        match first.result.unwrap() {
            BatchResult::Measurement(_) => assert!(may, "{role}"),
            BatchResult::Failure(failure) => {
                assert!(!may, "{role}: {failure:?}");
                assert_eq!(failure.reason, "ROLE_NOT_ALLOWED");
            }
        }
        assert_eq!(engine.connections() > before, may, "{role}");
    }
}

#[tokio::test]
async fn viewers_measure_what_was_registered_and_see_no_secret_of_it() {
    let files = Files::new();
    let operator = files.token("ann", Role::Operator);
    let viewer = files.token("bob", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let engine = FakeEngine::start(|path, count| match path.split('?').next() {
        Some("/metrics") => Answer::ok(vllm_body(count as u64)),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await;
    let url = format!("{}?key=planted", engine.url());
    let mut instances = agent.instances().await;
    let register = with_token(registration("a", &url), operator.expose());
    let made = instances
        .register_instance(register)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.instance.unwrap().metrics_urls.first(), Some(&url));
    let get = || pb::GetInstanceRequest {
        instance_id: "a".to_owned(),
    };
    let seen = instances
        .get_instance(with_token(get(), operator.expose()))
        .await
        .unwrap();
    assert_eq!(seen.into_inner().instance.unwrap().metrics_urls, [url]);
    let seen = instances
        .get_instance(with_token(get(), viewer.expose()))
        .await
        .unwrap();
    assert!(!format!("{seen:?}").contains("planted"), "{seen:?}");
    let list = with_token(pb::ListInstancesRequest::default(), viewer.expose());
    let seen = instances.list_instances(list).await.unwrap();
    assert!(!format!("{seen:?}").contains("planted"), "{seen:?}");
    // over a window of its own too
    let now = pb::CollectMetricsRequest {
        instance_id: "a".to_owned(),
        window: Some(millis(200)),
        ..pb::CollectMetricsRequest::default()
    };
    let measured = agent
        .metrics()
        .await
        .collect_metrics(with_token(now, viewer.expose()))
        .await;
    let measured = measured.unwrap().into_inner();
    assert_eq!(
        measured
            .measurement
            .as_ref()
            .unwrap()
            .window
            .unwrap()
            .samples,
        2
    );
    assert!(!format!("{measured:?}").contains("planted"));
    let detect = pb::DetectBottlenecksRequest {
        instance_id: "a".to_owned(),
        window: Some(millis(200)),
        ..Default::default()
    };
    let detected = agent
        .analysis()
        .await
        .detect_bottlenecks(with_token(detect, viewer.expose()))
        .await
        .unwrap();
    assert!(!format!("{detected:?}").contains("planted"));
}

#[tokio::test]
async fn plain_http_asks_for_credentials_too() {
    let files = Files::new();
    let token = files.token("prometheus", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let get = async |path: &str, header: &str| {
        crate::http::get(&agent, path, &format!("localhost{header}")).await
    };
    let answer = get("/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for header in [
        "",
        "\r\nAuthorization: Bearer x",
        "\r\nAuthorization: Basic eDp4",
    ] {
        let answer = get("/metrics", header).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        assert!(!answer.contains("perfagent_"), "{answer}");
    }
    let header = format!("\r\nAuthorization: Bearer {}", token.expose());
    let answer = get("/metrics", &header).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let refused =
        "perfagent_rpc_duration_seconds_count{method=\"/metrics\",code=\"UNAUTHENTICATED\"} 3";
    assert!(answer.contains(refused), "{answer}");
    let secrets = [token.expose()[3..].to_owned(), token.digest().hex()];
    assert!(!secrets.iter().any(|secret| answer.contains(secret)));
    // two credentials are none: which one a proxy looked at is not known
    let answer = get("/metrics", &format!("{header}{header}")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

/// Waits until a call with this token is let in, or not any more.
async fn until(agent: &TestAgent, token: &Token, allowed: bool) {
    let mut client = AgentServiceClient::new(agent.channel().await);
    let waiting = async {
        loop {
            let asked = with_token(GetAgentInfoRequest {}, token.expose());
            match client.get_agent_info(asked).await {
                Ok(_) if allowed => return,
                Err(status) if !allowed => {
                    assert_eq!(status.code(), Code::Unauthenticated);
                    return;
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn credentials_come_and_go_without_a_restart() {
    let files = Files::new();
    let first = files.token("first", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    until(&agent, &first, true).await;
    let second = files.token("second", Role::Viewer);
    until(&agent, &second, true).await;
    // the first is taken out
    let text = std::fs::read_to_string(files.path("credentials")).unwrap();
    let (text, _) = perfagent::auth::edit::remove(&text, "first", None).unwrap();
    files.write("credentials", &text);
    until(&agent, &first, false).await;
    until(&agent, &second, true).await;
    // also where the file is written in place
    std::fs::write(files.path("credentials"), "").unwrap();
    until(&agent, &second, false).await;
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_it_was_opened_with() {
    let files = Files::new();
    let token = files.token("watcher", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let mut client = ServerReflectionClient::new(agent.channel().await);
    let (asks, questions) = tokio::sync::mpsc::channel(1);
    let ask = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    asks.send(ask()).await.unwrap();
    let opened = with_token(ReceiverStream::new(questions), token.expose());
    let mut answers = client
        .server_reflection_info(opened)
        .await
        .unwrap()
        .into_inner();
    answers.message().await.unwrap().unwrap();
    // a change that is not about it leaves it open
    let other = files.token("other", Role::Viewer);
    until(&agent, &other, true).await;
    asks.send(ask()).await.unwrap();
    answers.message().await.unwrap().unwrap();
    let text = std::fs::read_to_string(files.path("credentials")).unwrap();
    let (text, _) = perfagent::auth::edit::remove(&text, "watcher", None).unwrap();
    files.write("credentials", &text);
    let ended = tokio::time::timeout(Duration::from_secs(30), answers.message()).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(reason(&status), "UNAUTHENTICATED");
}

#[tokio::test]
async fn without_credentials_everybody_may_do_everything() {
    let agent = TestAgent::start().await;
    let engine = counting_vllm(|_| 1).await;
    agent.totals("vllm", &engine.url()).await.unwrap();
    // a token that nobody asked for does no harm
    let asked = with_token(request("vllm", &[&engine.url()], 0), "x");
    let mut client = MetricsServiceClient::new(agent.channel().await);
    client.collect_metrics(asked).await.unwrap();
}

/// Who shows no credential takes no place of those who do.
#[tokio::test]
async fn strangers_lock_nobody_out() {
    use perfagent::edge::grpc::health_pb::HealthCheckRequest;
    use perfagent::edge::grpc::health_pb::health_client::HealthClient;
    let files = Files::new();
    let viewer = files.token("bob", Role::Viewer);
    let agent = TestAgent::with(|config| {
        files.with_credentials(config);
        config.server.max_calls = 2;
    })
    .await;
    let mut health = HealthClient::new(agent.channel().await);
    let mut held = Vec::new();
    let refused = loop {
        match health.watch(HealthCheckRequest::default()).await {
            Ok(stream) => held.push(stream),
            Err(status) => break status,
        }
        assert!(held.len() < 1_000, "they are bounded too");
    };
    Seen::default().check(&refused, Code::ResourceExhausted, Reason::TooManyCalls);
    let mut info = AgentServiceClient::new(agent.channel().await);
    info.get_agent_info(with_token(GetAgentInfoRequest {}, viewer.expose()))
        .await
        .unwrap();
}
