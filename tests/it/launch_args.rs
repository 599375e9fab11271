//! Launch arguments that are declared: what sets a knob is kept, and what may be secret never is.

use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fake::TestAgent;
use crate::instances::{configured, registration};

const NOWHERE: &str = "http://127.0.0.1:1/metrics";
const SECRET: &str = "sk-canary-5e1f";

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn fields_of(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    let violations = details.field_violations.into_iter();
    violations.map(|violation| violation.field).collect()
}

fn declared(line: &str) -> pb::RegisterInstanceRequest {
    pb::RegisterInstanceRequest {
        instance_type: "vllm".to_owned(),
        launch_args: words(line),
        ..registration("a", NOWHERE)
    }
}

#[tokio::test]
async fn values_of_knobs_are_kept_and_others_hidden() {
    let state = tempfile::tempdir().unwrap();
    let store = perfagent::store::SqliteStore::open(state.path())
        .await
        .unwrap();
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let agent = TestAgent::over(&config, std::sync::Arc::new(store), None).await;
    let mut client = agent.instances().await;
    let line = format!("vllm serve m --max-num-seqs 64 --api-key {SECRET} --hf-token={SECRET}");
    let answer = client.register_instance(declared(&line)).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.hidden_launch_args, ["--api-key", "--hf-token"]);
    let kept = words("--max-num-seqs 64 --api-key *** --hf-token=***");
    let instance = answer.instance.unwrap();
    assert_eq!(instance.launch_args, kept);

    // what was read can be sent back
    let update = |line: &[String]| pb::UpdateInstanceRequest {
        instance: Some(pb::Instance {
            instance_id: "a".to_owned(),
            launch_args: line.to_vec(),
            ..pb::Instance::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["launch_args".to_owned()],
        }),
        ..Default::default()
    };
    let same = client.update_instance(update(&kept)).await.unwrap();
    assert_eq!(same.into_inner().instance.unwrap().launch_args, kept);
    let line = words(&format!("--api-key {SECRET}"));
    let changed = client.update_instance(update(&line)).await.unwrap();
    let changed = changed.into_inner();
    assert_eq!(changed.hidden_launch_args, ["--api-key"]);
    assert_eq!(
        changed.instance.unwrap().launch_args,
        words("--api-key ***")
    );
    let none = client.update_instance(update(&[])).await.unwrap();
    assert_eq!(
        none.into_inner().instance.unwrap().launch_args,
        Vec::<String>::new()
    );

    for file in std::fs::read_dir(state.path()).unwrap().flatten() {
        let content = std::fs::read(file.path()).unwrap();
        let found = content
            .windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes());
        assert!(!found, "{:?}", file.path());
    }
}

#[tokio::test]
async fn arguments_that_cannot_be_are_refused_without_their_text() {
    let agent = TestAgent::start().await;
    let mut request = declared("--max-num-seqs 64");
    request.launch_args.push(format!("{SECRET}\n"));
    let mut client = agent.instances().await;
    let refused = client.register_instance(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields_of(&refused), ["launch_args[2]"]);
    assert!(!format!("{refused:?}").contains(SECRET));
}

#[tokio::test]
async fn a_row_of_the_config_file_declares_them_too() {
    let agent = TestAgent::with(|config| {
        let mut row = configured("a", NOWHERE);
        row.instance_type = Some("vllm".to_owned());
        row.launch_args = words(&format!("--max-num-seqs 64 --api-key {SECRET}"));
        config.instances.push(row);
    })
    .await;
    let get = pb::GetInstanceRequest {
        instance_id: "a".to_owned(),
    };
    let answer = agent.instances().await.get_instance(get).await.unwrap();
    assert_eq!(
        answer.into_inner().instance.unwrap().launch_args,
        words("--max-num-seqs 64 --api-key ***")
    );
}
