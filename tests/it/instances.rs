//! Registering, changing, listing and deleting instances.

use std::collections::HashMap;
use std::sync::Arc;

use perfagent::agent::Reason;
use perfagent::config::{Config, InstanceEntry};
use perfagent::edge::grpc::pb;
use tonic::Code;

use crate::errors::Seen;
use crate::fake::{TestAgent, counting_vllm};

/// A registration of an instance that is scraped often.
pub fn registration(id: &str, url: &str) -> pb::RegisterInstanceRequest {
    pb::RegisterInstanceRequest {
        instance_id: id.to_owned(),
        metrics_url: url.to_owned(),
        scrape_interval: Some(millis(200)),
        window: Some(millis(2_000)),
        ..pb::RegisterInstanceRequest::default()
    }
}

pub fn millis(millis: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: millis / 1_000,
        nanos: i32::try_from(millis % 1_000 * 1_000_000).unwrap(),
    }
}

/// A row of the config file.
pub fn configured(id: &str, url: &str) -> InstanceEntry {
    InstanceEntry {
        instance_id: id.to_owned(),
        instance_type: None,
        metrics_url: Some(url.to_owned()),
        metrics_urls: Vec::new(),
        scrape_interval: Some(std::time::Duration::from_millis(200)),
        window: Some(std::time::Duration::from_secs(2)),
        labels: [("from".to_owned(), "file".to_owned())].into(),
        slos: Vec::new(),
        launch_args: Vec::new(),
        actuator: None,
    }
}

pub const NOWHERE: &str = "http://127.0.0.1:1/metrics";
pub const REQUEST_ID: &str = "0a2d2c4e-6d2c-4b7e-9c1f-0b7a3c9d1e5f";

pub async fn register(agent: &TestAgent, id: &str) -> pb::Instance {
    let mut client = agent.instances().await;
    let answer = client.register_instance(registration(id, NOWHERE)).await;
    answer.unwrap().into_inner().instance.unwrap()
}

pub fn update(instance: pb::Instance, paths: &[&str]) -> pb::UpdateInstanceRequest {
    pb::UpdateInstanceRequest {
        instance: Some(instance),
        update_mask: (!paths.is_empty()).then(|| prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        request_id: String::new(),
    }
}

pub fn delete(id: &str, etag: &str) -> pb::DeleteInstanceRequest {
    pb::DeleteInstanceRequest {
        instance_id: id.to_owned(),
        etag: etag.to_owned(),
        request_id: String::new(),
    }
}

#[tokio::test]
async fn an_instance_is_registered_read_changed_and_deleted() {
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    let registered = client
        .register_instance(pb::RegisterInstanceRequest {
            instance_id: "vllm-1".to_owned(),
            metrics_url: NOWHERE.to_owned(),
            metrics_urls: vec!["http://127.0.0.1:2/metrics".to_owned()],
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..pb::RegisterInstanceRequest::default()
        })
        .await
        .unwrap()
        .into_inner()
        .instance
        .unwrap();
    // what was left out is shown as it will be
    assert_eq!(registered.instance_type, "auto");
    assert_eq!(registered.scrape_interval, Some(millis(15_000)));
    assert_eq!(registered.window, Some(millis(60_000)));
    assert_eq!(registered.metrics_urls.len(), 2);
    assert_eq!(registered.source(), pb::InstanceSource::Registered);
    assert!(!registered.etag.is_empty());
    let get = |id: &str| pb::GetInstanceRequest {
        instance_id: id.to_owned(),
    };
    let read = client
        .get_instance(get("vllm-1"))
        .await
        .unwrap()
        .into_inner()
        .instance
        .unwrap();
    assert_eq!(read.etag, registered.etag);

    // only what the mask names is changed
    let change = pb::Instance {
        instance_type: "vllm".to_owned(),
        window: Some(millis(90_000)),
        metrics_urls: vec!["http://127.0.0.1:3/metrics".to_owned()],
        labels: HashMap::new(),
        ..read.clone()
    };
    let updated = client
        .update_instance(update(change, &["instance_type", "window", "labels"]))
        .await;
    let updated = updated.unwrap().into_inner().instance.unwrap();
    assert_eq!(updated.instance_type, "vllm");
    assert_eq!(updated.window, Some(millis(90_000)));
    assert_eq!(updated.metrics_urls, registered.metrics_urls);
    assert!(updated.labels.is_empty());
    assert_ne!(updated.etag, registered.etag);
    assert_eq!(updated.create_time, registered.create_time);
    // without a mask what is set
    let only_type = pb::Instance {
        instance_id: "vllm-1".to_owned(),
        instance_type: "auto".to_owned(),
        ..pb::Instance::default()
    };
    let updated = client
        .update_instance(update(only_type, &[]))
        .await
        .unwrap();
    let updated = updated.into_inner().instance.unwrap();
    assert_eq!(
        (updated.instance_type.as_str(), updated.window),
        ("auto", Some(millis(90_000)))
    );

    client
        .delete_instance(delete("vllm-1", &updated.etag))
        .await
        .unwrap();
    let gone = client.get_instance(get("vllm-1")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_before() {
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    let mut once = registration("a", NOWHERE);
    once.request_id = REQUEST_ID.to_owned();
    let first = client
        .register_instance(once.clone())
        .await
        .unwrap()
        .into_inner()
        .instance
        .unwrap();
    let second = client
        .register_instance(once.clone())
        .await
        .unwrap()
        .into_inner()
        .instance
        .unwrap();
    assert_eq!(first.etag, second.etag);
    // the same id for deleting is another request; a repeat of it deletes nothing that came later
    let mut gone = delete("a", "");
    gone.request_id = REQUEST_ID.to_owned();
    client.delete_instance(gone.clone()).await.unwrap();
    client
        .register_instance(registration("a", NOWHERE))
        .await
        .unwrap();
    client.delete_instance(gone).await.unwrap();
    let id = "a".to_owned();
    client
        .get_instance(pb::GetInstanceRequest { instance_id: id })
        .await
        .unwrap();
}

#[tokio::test]
async fn of_two_who_change_the_same_one_only_the_first_does() {
    let agent = TestAgent::start().await;
    let instance = register(&agent, "a").await;
    let window = |millis_: i64| {
        let mut changed = instance.clone();
        changed.window = Some(millis(millis_));
        update(changed, &["window"])
    };
    let (mut one, mut two) = (agent.instances().await, agent.instances().await);
    let both = tokio::join!(
        one.update_instance(window(4_000)),
        two.update_instance(window(6_000))
    );
    let lost = match both {
        (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => lost,
        other => panic!("{other:?}"),
    };
    Seen::default().check(&lost, Code::Aborted, Reason::EtagMismatch);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let agent = TestAgent::with(|config| config.instances = vec![configured("m", NOWHERE)]).await;
    let mut client = agent.instances().await;
    for at in 0..24 {
        register(&agent, &format!("i-{at:02}")).await;
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = client
            .list_instances(pb::ListInstancesRequest {
                page_size: 7,
                page_token: token,
                ..pb::ListInstancesRequest::default()
            })
            .await
            .unwrap()
            .into_inner();
        assert!(page.instances.len() <= 7);
        seen.extend(
            page.instances
                .into_iter()
                .map(|instance| instance.instance_id),
        );
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<String> = (0..24).map(|at| format!("i-{at:02}")).collect();
    expected.push("m".to_owned());
    assert_eq!(seen, expected);
    let from_file = client
        .list_instances(pb::ListInstancesRequest {
            labels: [("from".to_owned(), "file".to_owned())].into(),
            ..pb::ListInstancesRequest::default()
        })
        .await
        .unwrap()
        .into_inner()
        .instances;
    assert_eq!(from_file.len(), 1);
    assert_eq!(from_file[0].source(), pb::InstanceSource::ConfigFile);
}

#[tokio::test]
async fn a_page_stays_below_what_an_answer_may_have() {
    let agent = TestAgent::start().await;
    let mut client = agent.instances().await;
    let path = "x".repeat(1_900);
    for at in 0..20 {
        let mut wide = registration(&format!("i-{at:02}"), "");
        wide.metrics_urls = (0..64)
            .map(|replica| format!("http://127.0.0.1:{}/{path}", replica + 1))
            .collect();
        client.register_instance(wide).await.unwrap();
    }
    let mut client = agent.instances().await.max_decoding_message_size(1 << 20);
    let (mut token, mut count, mut pages) = (String::new(), 0, 0);
    loop {
        let page_size = 500;
        let labels = HashMap::new();
        let asked = pb::ListInstancesRequest {
            page_size,
            page_token: token,
            labels,
        };
        let page = client.list_instances(asked).await.unwrap().into_inner();
        count += page.instances.len();
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(count, 20);
    assert!(pages > 2, "{pages}");
}

#[tokio::test]
async fn what_was_registered_is_there_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let engine = counting_vllm(|count| count as u64).await;
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let open = || async {
        Arc::new(
            perfagent::store::SqliteStore::open(state.path())
                .await
                .unwrap(),
        )
    };
    let agent = TestAgent::over(&config, open().await, None).await;
    let mut client = agent.instances().await;
    let before = client
        .register_instance(registration("a", &engine.url()))
        .await
        .unwrap()
        .into_inner();
    drop(client);
    agent.handle.stop();
    agent.served.await.unwrap();
    let agent = TestAgent::over(&config, open().await, None).await;
    let get = pb::GetInstanceRequest {
        instance_id: "a".to_owned(),
    };
    let after = agent
        .instances()
        .await
        .get_instance(get)
        .await
        .unwrap()
        .into_inner();
    let (before, after) = (before.instance.unwrap(), after.instance.unwrap());
    assert_eq!(
        (before.etag, before.create_time),
        (after.etag, after.create_time)
    );
    crate::watching::until_state(&agent, "a", pb::InstanceState::Up).await;
}
