//! Every refusal that has to do with instances and the store.

use std::sync::Arc;
use std::time::SystemTime;

use perfagent::agent::Reason;
use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use perfagent::store::{Store, StoreError};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::broken_store::BrokenStore;
use crate::errors::Seen;
use crate::fake::{TestAgent, request};
use crate::instances::{
    NOWHERE, REQUEST_ID, configured, delete, millis, register, registration, update,
};

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
