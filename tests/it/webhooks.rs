//! Webhooks over the wire: what receivers get, verified with the reference library, whatever goes wrong.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use perfagent::agent::Reason;
use perfagent::auth::Role;
use perfagent::config::{Config, WebhookEntry};
use perfagent::edge::grpc::pb;
use perfagent::store::Store;
use tonic::Code;

use crate::access::with_token;
use crate::errors::{Seen, hint};
use crate::fake::TestAgent;
use crate::http::get;
use crate::pki::Files;
use crate::receiver::{Does, Post, Receiver};
use crate::workflows::{over, pause, pending, resume, store};

const SECRET: &str = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5";
const OTHER: &str = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI=";

fn loopback(config: &mut Config) {
    config.webhook.allow = vec!["127.0.0.1".to_owned()];
}

/// Tried again soon, and often.
fn impatient(config: &mut Config) {
    loopback(config);
    config.webhook.timeout = Duration::from_millis(300);
    config.webhook.retries = vec!["50ms".to_owned(); 40];
}

fn creation(id: &str, url: &str) -> pb::CreateWebhookRequest {
    pb::CreateWebhookRequest {
        webhook_id: id.to_owned(),
        url: url.to_owned(),
        secret: SECRET.to_owned(),
        ..pb::CreateWebhookRequest::default()
    }
}

async fn create(agent: &TestAgent, request: pb::CreateWebhookRequest) -> pb::CreateWebhookResponse {
    let mut client = agent.webhooks().await;
    client.create_webhook(request).await.unwrap().into_inner()
}

async fn webhook(agent: &TestAgent, id: &str) -> pb::Webhook {
    let request = pb::GetWebhookRequest {
        webhook_id: id.to_owned(),
    };
    let answer = agent.webhooks().await.get_webhook(request).await.unwrap();
    answer.into_inner().webhook.unwrap()
}

async fn deliveries(agent: &TestAgent) -> Vec<pb::WebhookDelivery> {
    let request = pb::ListWebhookDeliveriesRequest::default();
    let mut client = agent.webhooks().await;
    let answer = client.list_webhook_deliveries(request).await;
    answer.unwrap().into_inner().deliveries
}

/// Waits until the agent has written down that all was delivered.
async fn settled(agent: &TestAgent) -> Vec<pb::WebhookDelivery> {
    loop {
        let all = deliveries(agent).await;
        let delivered = pb::WebhookDeliveryState::Delivered;
        if all.iter().all(|one| one.state() == delivered) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reject(agent: &TestAgent, id: &str) {
    let request = pb::RejectWorkflowRequest {
        workflow_id: id.to_owned(),
        ..pb::RejectWorkflowRequest::default()
    };
    agent
        .workflows()
        .await
        .reject_workflow(request)
        .await
        .unwrap();
}

/// In the order of their workflow, each once, under one id with one body.
fn are_in_order(posts: &[Post]) {
    let mut last: HashMap<String, u64> = HashMap::new();
    for post in posts.iter().filter(|post| post.is_taken()) {
        let data = post.json()["data"].clone();
        let workflow = data["workflow_id"].as_str().unwrap().to_owned();
        let revision = data["revision"].as_u64().unwrap();
        let before = last.insert(workflow, revision);
        assert!(before.is_none_or(|before| before < revision), "{data}");
    }
    let mut bodies: HashMap<&str, &str> = HashMap::new();
    for post in posts {
        assert!(post.is_signed_with(SECRET), "{post:?}");
        let body = bodies.entry(&post.id).or_insert(&post.body);
        assert_eq!(*body, post.body);
    }
}

#[tokio::test]
async fn each_status_of_a_workflow_is_told_and_verified() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, loopback).await;
    let receiver = Receiver::start(|_| Does::Answers(204)).await;
    let made = pb::CreateWebhookRequest {
        secret: String::new(),
        ..creation("pager", &receiver.url())
    };
    let created = create(&agent, made).await;
    let secret = created.secret;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let more = pb::CreateWebhookRequest {
        types: vec!["workflow.approval_needed".to_owned()],
        ..creation("chat", &receiver.url())
    };
    create(&agent, more).await;
    pause(&agent, &id).await;
    resume(&agent, &id).await;
    reject(&agent, &id).await;
    let posts = receiver.taken(4).await;
    let told: Vec<_> = posts
        .iter()
        .filter(|post| post.is_signed_with(&secret))
        .map(Post::told)
        .collect();
    let way = |from: &str, to: &str| {
        let kind = "workflow.status_changed".to_owned();
        (kind, from.to_owned(), to.to_owned())
    };
    assert_eq!(
        told,
        [
            way("PENDING_APPROVAL", "PAUSED"),
            way("PAUSED", "PENDING_APPROVAL"),
            way("PENDING_APPROVAL", "REJECTED"),
        ]
    );
    let needed: Vec<_> = posts
        .iter()
        .filter(|post| post.is_signed_with(SECRET))
        .map(|post| post.told().0)
        .collect();
    assert_eq!(needed, ["workflow.approval_needed"]);
    let post = posts
        .iter()
        .find(|post| post.is_signed_with(&secret))
        .unwrap();
    assert_eq!(post.json()["data"]["workflow_id"], id);
    assert_eq!(post.json()["data"]["instance_id"], "a");
    // what could be verified with anything would prove nothing
    assert!(!post.is_signed_with(OTHER));
    let mut changed = post.clone();
    changed.body = changed.body.replace("PAUSED", "COMPLETED");
    assert!(!changed.is_signed_with(&secret));
    let mut renamed = post.clone();
    renamed
        .headers
        .insert("webhook-id", "msg_0".parse().unwrap());
    assert!(!renamed.is_signed_with(&secret));

    let all = settled(&agent).await;
    assert_eq!(all.len(), 4);
    let metrics = get(&agent, "/metrics", "localhost").await;
    for line in [
        "perfagent_webhook_deliveries_total{outcome=\"delivered\"} 4",
        "perfagent_webhook_attempts_total{outcome=\"taken\"} 4",
        "perfagent_webhooks_disabled 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn whatever_a_receiver_does_everything_comes_in_order() {
    let (store, _state) = store().await;
    let mut ids = Vec::new();
    for instance in ["a", "b", "c"] {
        ids.push(pending(&*store, instance).await);
    }
    let agent = over(&store, impatient).await;
    // nobody listens there at first
    let address = Receiver::start(|_| Does::Answers(200)).await.address;
    let url = format!("http://{address}/hook?token=canary-url");
    create(&agent, creation("pager", &url)).await;
    for id in &ids {
        pause(&agent, id).await;
        resume(&agent, id).await;
        pause(&agent, id).await;
    }
    let refused = loop {
        let all = deliveries(&agent).await;
        match all.iter().find(|one| one.attempts > 2) {
            Some(one) => break one.clone(),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let request = pb::GetWebhookDeliveryRequest {
        delivery_id: refused.delivery_id,
    };
    let shown = agent.webhooks().await.get_webhook_delivery(request).await;
    let attempt = shown.unwrap().into_inner().attempts.remove(0);
    assert_eq!((attempt.http_status, attempt.taken), (None, false));
    assert!(attempt.problem.contains("refused"), "{attempt:?}");
    assert!(webhook(&agent, "pager").await.failing_since_time.is_some());
    let receiver = Receiver::at(address, |count| match count {
        0 | 1 => Does::Answers(500),
        2 => Does::Hangs,
        3 => Does::AnswersLater(429, 1),
        4 => Does::Answers(307),
        5 => Does::AnswersLater(503, 1),
        count if count % 3 == 0 => Does::Answers(502),
        _ => Does::Answers(200),
    })
    .await;
    let taken = receiver.taken(9).await;
    assert_eq!(taken.len(), 9);
    let posts = receiver.posts();
    are_in_order(&posts);
    let ids: BTreeSet<&String> = posts.iter().map(|post| &post.id).collect();
    assert_eq!(ids.len(), 9, "nothing else was posted");
    settled(&agent).await;
    assert_eq!(webhook(&agent, "pager").await.failing_since_time, None);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_disabled_and_that_is_said() {
    let (store, _state) = store().await;
    let id = pending(&*store, "a").await;
    let agent = over(&store, impatient).await;
    let receiver = Receiver::start(|count| match count {
        0 => Does::Answers(410),
        _ => Does::Answers(200),
    })
    .await;
    create(&agent, creation("pager", &receiver.url())).await;
    pause(&agent, &id).await;
    receiver.posted(1).await;
    let mut client = agent.webhooks().await;
    let disabled = loop {
        let all = client.list_webhooks(pb::ListWebhooksRequest {}).await;
        let one = all.unwrap().into_inner().webhooks.remove(0);
        match one.disabled {
            Some(disabled) => break disabled,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(disabled.reason(), pb::WebhookDisabledReason::Gone);
    // a ping is posted all the same: that is how it is seen that it is there again
    let test = pb::TestWebhookRequest {
        webhook_id: "pager".to_owned(),
    };
    let tested = client.test_webhook(test).await.unwrap().into_inner();
    assert!(tested.attempt.unwrap().taken);
    assert_eq!(receiver.posts()[1].json()["type"], "webhook.test");
    let enable = pb::EnableWebhookRequest {
        webhook_id: "pager".to_owned(),
    };
    client.enable_webhook(enable).await.unwrap();
    let posts = receiver.posted(3).await;
    assert_eq!(posts[2].id, posts[0].id, "what it was owed");
    let all = settled(&agent).await;
    // and once more, because somebody asks for it
    let again = pb::RedeliverWebhookRequest {
        delivery_id: all[0].delivery_id.clone(),
    };
    client.redeliver_webhook(again).await.unwrap();
    let posts = receiver.posted(4).await;
    assert_eq!(posts[3].id, posts[0].id);
    are_in_order(&[posts[0].clone(), posts[2].clone()]);
}

#[tokio::test]
async fn a_new_secret_is_signed_with_beside_the_old_one() {
    let (store, _state) = store().await;
    let agent = over(&store, loopback).await;
    let receiver = Receiver::start(|_| Does::Answers(200)).await;
    create(&agent, creation("pager", &receiver.url())).await;
    let rotate = pb::RotateWebhookSecretRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        webhook_id: "pager".to_owned(),
        secret: String::new(),
    };
    let mut client = agent.webhooks().await;
    let rotated = client.rotate_webhook_secret(rotate.clone()).await;
    let new = rotated.unwrap().into_inner().secret;
    assert_ne!(new, SECRET);
    // a repeat makes no other
    let again = client.rotate_webhook_secret(rotate).await.unwrap();
    assert_eq!(again.into_inner().secret, new);
    let test = pb::TestWebhookRequest {
        webhook_id: "pager".to_owned(),
    };
    client.test_webhook(test).await.unwrap();
    let post = receiver.posted(1).await.remove(0);
    assert!(post.is_signed_with(&new) && post.is_signed_with(SECRET));
    assert!(!post.is_signed_with(OTHER));
}

#[tokio::test]
async fn a_name_is_looked_up_and_held_against_the_list_when_it_is_connected_to() {
    let (store, _state) = store().await;
    let agent = over(&store, |config| {
        // listened on by nobody, so that loopback by its name is not allowed
        config.webhook.allow = vec!["10.0.0.0/8".to_owned()];
    })
    .await;
    let receiver = Receiver::start(|_| Does::Answers(200)).await;
    let url = receiver.url().replace("127.0.0.1", "localhost");
    create(&agent, creation("pager", &url)).await;
    let test = pb::TestWebhookRequest {
        webhook_id: "pager".to_owned(),
    };
    let tested = agent.webhooks().await.test_webhook(test).await.unwrap();
    let attempt = tested.into_inner().attempt.unwrap();
    assert_eq!((attempt.taken, attempt.http_status), (false, None));
    assert!(attempt.problem.contains("[webhook] allow"), "{attempt:?}");
    assert!(receiver.posts().is_empty());
}

fn entry(id: &str, url: &str, files: &Files, secret: &str) -> WebhookEntry {
    WebhookEntry {
        webhook_id: id.to_owned(),
        url: url.to_owned(),
        secret_file: files.write(id, secret),
        types: Vec::new(),
        instance_ids: Vec::new(),
        labels: [].into(),
        min_severity: None,
        description: String::new(),
        enabled: true,
    }
}

#[tokio::test]
async fn secrets_leave_the_agent_once() {
    let (store, state) = store().await;
    let files = Files::new();
    let id = pending(&*store, "a").await;
    let receiver = Receiver::start(|_| Does::Answers(200)).await;
    let file = entry("file", &receiver.url(), &files, OTHER);
    let (admin, viewer) = (
        files.token("ada", Role::Admin),
        files.token("vi", Role::Viewer),
    );
    let agent = over(&store, |config| {
        loopback(config);
        files.with_credentials(config);
        config.webhooks = vec![file];
    })
    .await;
    let mut client = agent.webhooks().await;
    let request = with_token(creation("pager", &receiver.url()), admin.expose());
    let created = client.create_webhook(request).await.unwrap().into_inner();
    assert_eq!(created.secret, SECRET);
    let paused = pb::PauseWorkflowRequest {
        workflow_id: id,
        ..pb::PauseWorkflowRequest::default()
    };
    let mut workflows = agent.workflows().await;
    let paused = workflows.pause_workflow(with_token(paused, admin.expose()));
    paused.await.unwrap();
    let posts = receiver.taken(2).await;
    assert!(posts.iter().any(|post| post.is_signed_with(OTHER)));
    assert!(posts.iter().any(|post| post.is_signed_with(SECRET)));

    let mut shown = String::new();
    for token in [&admin, &viewer] {
        let listed = client.list_webhooks(with_token(pb::ListWebhooksRequest {}, token.expose()));
        let listed = listed.await.unwrap().into_inner();
        let path = listed
            .webhooks
            .iter()
            .any(|one| one.url.contains("canary-url"));
        assert_eq!(
            path,
            token.expose() == admin.expose(),
            "URLs hold secrets, too"
        );
        shown += &format!("{listed:?}");
        let all = pb::ListWebhookDeliveriesRequest::default();
        let all = client.list_webhook_deliveries(with_token(all, token.expose()));
        let all = all.await.unwrap().into_inner();
        assert_eq!(all.deliveries.len(), 2);
        shown += &format!("{all:?}");
        for delivery in &all.deliveries {
            let one = pb::GetWebhookDeliveryRequest {
                delivery_id: delivery.delivery_id.clone(),
            };
            let one = client.get_webhook_delivery(with_token(one, token.expose()));
            shown += &format!("{:?}", one.await.unwrap().into_inner());
        }
    }
    shown += &posts
        .iter()
        .map(|post| post.body.clone())
        .collect::<String>();
    let logged = std::fs::read_dir(state.path()).unwrap().flatten();
    for file in logged.filter(|file| file.file_name().to_string_lossy().contains("audit")) {
        shown += &std::fs::read_to_string(file.path()).unwrap();
    }
    for secret in [SECRET, OTHER] {
        assert!(!shown.contains(&secret[6..]), "{shown}");
    }
    // what the receiver said beside its status is nobody's
    assert!(!shown.contains("\"canary\""), "{shown}");
}

#[tokio::test]
async fn what_was_posted_when_the_agent_was_killed_is_posted_again() {
    let files = Files::new();
    let state = tempfile::tempdir().unwrap();
    let seeded = {
        let store: Arc<dyn Store> = Arc::new(
            perfagent::store::SqliteStore::open(state.path())
                .await
                .unwrap(),
        );
        pending(&*store, "a").await
    };
    let receiver = Receiver::start(|count| match count {
        0 => Does::Hangs,
        _ => Does::Answers(200),
    })
    .await;
    let secret = files.write("secret", SECRET);
    let config = format!(
        "[webhook]\nallow = [\"127.0.0.1\"]\n[[webhooks]]\nwebhook_id = \"pager\"\nurl = \"{}\"\nsecret_file = \"{}\"\n",
        receiver.url(),
        secret.display()
    );
    let config = files.write("config.toml", &config);
    let arguments = [
        "--config",
        config.to_str().unwrap(),
        "--state-dir",
        state.path().to_str().unwrap(),
    ];
    let mut served = crate::cli::serve(&arguments).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", served.address));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut client = pb::workflow_service_client::WorkflowServiceClient::new(channel);
    let pause = pb::PauseWorkflowRequest {
        workflow_id: seeded,
        ..pb::PauseWorkflowRequest::default()
    };
    client.pause_workflow(pause).await.unwrap();
    receiver.posted(1).await;
    // as `kill -9` does
    served.child.kill().await.unwrap();
    let again = crate::cli::serve(&arguments).await;
    let posts = receiver.posted(2).await;
    assert_eq!(posts[0].id, posts[1].id);
    assert_eq!(posts[0].body, posts[1].body);
    are_in_order(&posts);
    drop(again);
}

/// Provokes every refusal that has to do with webhooks.
pub async fn every_refusal(seen: &Seen) {
    let (store, _state) = store().await;
    let files = Files::new();
    let id = pending(&*store, "a").await;
    let receiver = Receiver::start(|_| Does::Answers(410)).await;
    let file = entry("file", &receiver.url(), &files, SECRET);
    let agent = over(&store, |config| {
        loopback(config);
        config.webhooks = vec![file];
    })
    .await;
    let mut client = agent.webhooks().await;
    create(&agent, creation("pager", &receiver.url())).await;
    let status = client
        .create_webhook(creation("pager", &receiver.url()))
        .await
        .unwrap_err();
    seen.check(&status, Code::AlreadyExists, Reason::WebhookExists);
    let status = client
        .create_webhook(creation("x", "http://10.1.2.3/"))
        .await
        .unwrap_err();
    seen.check(&status, Code::PermissionDenied, Reason::UrlRefused);
    assert!(hint(&status).contains("[webhook] allow"), "{status:?}");
    let wrong = pb::CreateWebhookRequest {
        secret: "canary".to_owned(),
        types: vec!["workflow.started".to_owned()],
        ..creation("x", &receiver.url())
    };
    let status = client.create_webhook(wrong).await.unwrap_err();
    seen.check(&status, Code::InvalidArgument, Reason::InvalidArgument);
    assert!(!format!("{status:?}").contains("canary"), "{status:?}");
    let delete = |id: &str| pb::DeleteWebhookRequest {
        webhook_id: id.to_owned(),
    };
    let status = client.delete_webhook(delete("x")).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::WebhookNotFound);
    let status = client.delete_webhook(delete("file")).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::ReadOnlyWebhook);
    let one = pb::RedeliverWebhookRequest {
        delivery_id: "msg_0".to_owned(),
    };
    let status = client.redeliver_webhook(one).await.unwrap_err();
    seen.check(&status, Code::NotFound, Reason::DeliveryNotFound);
    pause(&agent, &id).await;
    let delivery = loop {
        let all = deliveries(&agent).await;
        if webhook(&agent, "pager").await.disabled.is_some() {
            break all
                .into_iter()
                .find(|one| one.webhook_id == "pager")
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let one = pb::RedeliverWebhookRequest {
        delivery_id: delivery.delivery_id,
    };
    let status = client.redeliver_webhook(one).await.unwrap_err();
    seen.check(&status, Code::FailedPrecondition, Reason::WebhookDisabled);
    for number in 0..98 {
        create(&agent, creation(&format!("many-{number}"), &receiver.url())).await;
    }
    let status = client
        .create_webhook(creation("x", &receiver.url()))
        .await
        .unwrap_err();
    seen.check(&status, Code::ResourceExhausted, Reason::TooManyWebhooks);
}
