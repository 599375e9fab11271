//! Registering, changing, listing and deleting instances.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use perfagent::agent::Reason;
use perfagent::config::{Config, InstanceEntry};
use perfagent::edge::grpc::pb;
use perfagent::instance::{Instance, InstanceSpec};
use perfagent::optimization::LedgerEntry;
use perfagent::store::{
    Change, Once, PredictionFilter, PredictionPlace, Store, StoreError, Written,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::errors::Seen;
use crate::fake::{TestAgent, counting_vllm, request};

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
    }
}

const NOWHERE: &str = "http://127.0.0.1:1/metrics";
const REQUEST_ID: &str = "0a2d2c4e-6d2c-4b7e-9c1f-0b7a3c9d1e5f";

async fn register(agent: &TestAgent, id: &str) -> pb::Instance {
    let mut client = agent.instances().await;
    let answer = client.register_instance(registration(id, NOWHERE)).await;
    answer.unwrap().into_inner().instance.unwrap()
}

fn update(instance: pb::Instance, paths: &[&str]) -> pb::UpdateInstanceRequest {
    pb::UpdateInstanceRequest {
        instance: Some(instance),
        update_mask: (!paths.is_empty()).then(|| prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        request_id: String::new(),
    }
}

fn delete(id: &str, etag: &str) -> pb::DeleteInstanceRequest {
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

/// Provokes every refusal that has to do with instances and the store.
pub async fn every_refusal(seen: &Seen) {
    let agent =
        TestAgent::with(|config| config.instances = vec![configured("file", NOWHERE)]).await;
    let mut client = agent.instances().await;
    let check = |status: Status, code, reason| seen.check(&status, code, reason);
    let wrong = pb::RegisterInstanceRequest {
        request_id: "7".to_owned(),
        instance_id: "A".to_owned(),
        instance_type: "vlm".to_owned(),
        scrape_interval: Some(millis(1)),
        labels: (0..33)
            .map(|at| (format!("l{at}"), String::new()))
            .collect(),
        ..pb::RegisterInstanceRequest::default()
    };
    let status = client.register_instance(wrong).await.unwrap_err();
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    let all = [
        "instance_id",
        "instance_type",
        "metrics_url",
        "scrape_interval",
        "labels",
        "request_id",
    ];
    assert_eq!(fields, all);
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let mut negative = registration("a", NOWHERE);
    negative.window = Some(millis(-1));
    let status = client.register_instance(negative).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let metadata = registration("a", "http://169.254.169.254/latest");
    let status = client.register_instance(metadata).await.unwrap_err();
    check(status, Code::PermissionDenied, Reason::UrlRefused);

    let registered = register(&agent, "a").await;
    for id in ["a", "file"] {
        let status = client
            .register_instance(registration(id, NOWHERE))
            .await
            .unwrap_err();
        check(status, Code::AlreadyExists, Reason::InstanceExists);
    }
    for id in ["b", ""] {
        let get = pb::GetInstanceRequest {
            instance_id: id.to_owned(),
        };
        let status = client.get_instance(get).await.unwrap_err();
        check(status, Code::NotFound, Reason::InstanceNotFound);
    }
    let status = agent
        .metrics()
        .await
        .collect_metrics(request("", &[], 0))
        .await
        .unwrap_err();
    check(status, Code::NotFound, Reason::InstanceNotFound);
    let status = client.delete_instance(delete("b", "")).await.unwrap_err();
    check(status, Code::NotFound, Reason::InstanceNotFound);
    let status = client
        .delete_instance(delete("file", ""))
        .await
        .unwrap_err();
    check(status, Code::FailedPrecondition, Reason::ReadOnlyInstance);
    let status = client
        .delete_instance(delete("a", "r999"))
        .await
        .unwrap_err();
    check(status, Code::Aborted, Reason::EtagMismatch);
    let status = client.delete_instance(delete("a", "7")).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let status = client
        .update_instance(update(registered.clone(), &["etag"]))
        .await
        .unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let nothing = pb::UpdateInstanceRequest::default();
    let status = client.update_instance(nothing).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    // what it would become is checked, not only what changes
    let mut longer = registered.clone();
    longer.scrape_interval = Some(millis(100_000));
    let status = client
        .update_instance(update(longer, &["scrape_interval"]))
        .await
        .unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);
    let mut once = registration("c", NOWHERE);
    once.request_id = REQUEST_ID.to_owned();
    client.register_instance(once.clone()).await.unwrap();
    once.instance_id = "d".to_owned();
    let status = client.register_instance(once).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::RequestIdReused);
    let token = pb::ListInstancesRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let status = client.list_instances(token).await.unwrap_err();
    check(status, Code::InvalidArgument, Reason::InvalidArgument);

    // registered a moment ago, and its first answer hangs
    let hanging = crate::fake::FakeEngine::start(|_, _| crate::fake::Answer::Hang).await;
    let mut slow = registration("slow", &hanging.url());
    slow.scrape_interval = Some(millis(60_000));
    slow.window = Some(millis(120_000));
    client.register_instance(slow).await.unwrap();
    let of_slow = pb::CollectMetricsRequest {
        instance_id: "slow".to_owned(),
        ..Default::default()
    };
    let status = agent
        .metrics()
        .await
        .collect_metrics(of_slow)
        .await
        .unwrap_err();
    check(status, Code::Unavailable, Reason::NotMeasuredYet);

    for (error, code, reason) in [
        (
            StoreError::Full("disk".to_owned()),
            Code::ResourceExhausted,
            Reason::StoreFull,
        ),
        (
            StoreError::Unavailable("disk".to_owned()),
            Code::Unavailable,
            Reason::StoreUnavailable,
        ),
        (
            StoreError::Unreadable("row".to_owned()),
            Code::DataLoss,
            Reason::StoreUnreadable,
        ),
    ] {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        let broken = TestAgent::over(&config, Arc::new(BrokenStore(error)), None).await;
        let status = broken
            .instances()
            .await
            .register_instance(registration("a", NOWHERE))
            .await
            .unwrap_err();
        check(status, code, reason);
        // reading goes on
        let listed = broken
            .instances()
            .await
            .list_instances(pb::ListInstancesRequest::default())
            .await;
        assert!(listed.unwrap().into_inner().instances.is_empty());
    }

    // registered when there was such an engine
    let state = tempfile::tempdir().unwrap();
    let store = perfagent::store::SqliteStore::open(state.path())
        .await
        .unwrap();
    let mut spec = configured("old", NOWHERE).spec();
    spec.instance_type = Some("gone".to_owned());
    store
        .create_instance(&spec, None, SystemTime::now())
        .await
        .unwrap();
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let later = TestAgent::over(&config, Arc::new(store), Some(state)).await;
    crate::watching::until_state(&later, "old", pb::InstanceState::Down).await;
    let of_old = pb::CollectMetricsRequest {
        instance_id: "old".to_owned(),
        ..Default::default()
    };
    let status = later
        .metrics()
        .await
        .collect_metrics(of_old)
        .await
        .unwrap_err();
    check(status, Code::FailedPrecondition, Reason::UnknownEngine);

    let full = TestAgent::with(|config| {
        config.instances = (0..5_000)
            .map(|at| configured(&format!("i-{at}"), NOWHERE))
            .collect();
        config.instances.iter_mut().for_each(|row| {
            row.scrape_interval = Some(std::time::Duration::from_secs(300));
            row.window = None;
        });
    })
    .await;
    let status = full
        .instances()
        .await
        .register_instance(registration("a", NOWHERE))
        .await
        .unwrap_err();
    check(status, Code::ResourceExhausted, Reason::TooManyInstances);
}

/// A store whose every write fails.
#[derive(Debug)]
struct BrokenStore(StoreError);

#[tonic::async_trait]
impl Store for BrokenStore {
    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        Ok(Vec::new())
    }

    async fn answered(&self, _: &Once, _: SystemTime) -> Result<Option<Written>, StoreError> {
        Ok(None)
    }

    async fn create_instance(
        &self,
        _: &InstanceSpec,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn update_instance(
        &self,
        _: &str,
        _: Option<u64>,
        _: &Change<'_>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn delete_instance(
        &self,
        _: &str,
        _: Option<u64>,
        _: Option<&Once>,
        _: SystemTime,
    ) -> Result<Written, StoreError> {
        Err(self.0.clone())
    }

    async fn put_predictions(&self, _: &[LedgerEntry], _: &[String]) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    async fn predictions(
        &self,
        _: &PredictionFilter,
        _: Option<&PredictionPlace>,
        _: u32,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget_predictions(&self, _: SystemTime, _: u32) -> Result<(), StoreError> {
        Err(self.0.clone())
    }
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
