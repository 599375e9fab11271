//! `perfagent store`, and agents that share one.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use serde_json::Value;

use crate::cli::{command, run, state_home, text};
use crate::fake::FakeEngine;
use crate::instances::{NOWHERE, registration};
use crate::postgres::Postgres;

/// An agent process; its address.
async fn serve(arguments: &[&str]) -> (tokio::process::Child, String) {
    use tokio::io::AsyncBufReadExt;
    let mut child = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(arguments)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = tokio::io::BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = log.next_line().await.unwrap().expect("it serves");
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let message = entry["fields"]["message"].as_str().unwrap_or_default();
        if let Some(address) = message.strip_prefix("listening on ") {
            let address = address.to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
            return (child, address);
        }
    }
}

async fn instances(address: &str) -> Vec<String> {
    let mut client = InstanceServiceClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let listed = client
        .list_instances(pb::ListInstancesRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().instances;
    listed.into_iter().map(|one| one.instance_id).collect()
}

#[tokio::test]
async fn an_embedded_store_moves_to_postgres() {
    let url = Postgres::shared().database().await;
    let (old, new) = (state_home(), state_home());
    let old = old.to_str().unwrap();
    let (mut agent, address) = serve(&["--state-dir", old]).await;
    let mut client = InstanceServiceClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    for id in ["a", "b"] {
        client
            .register_instance(registration(id, NOWHERE))
            .await
            .unwrap();
    }
    // an agent has it
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("store.jsonl");
    let path = file.to_str().unwrap();
    let refused = run(&["store", "export", "--state-dir", old, path]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("in use by process"), "{said}");
    agent.start_kill().unwrap();
    agent.wait().await.unwrap();

    let exported = run(&["store", "export", "--state-dir", old, path]).await;
    let said = text(&exported.stdout);
    assert!(said.contains("2 instances"), "{said} {exported:?}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    // what is there is not written over
    let again = run(&["store", "export", "--state-dir", old, path]).await;
    assert_eq!(again.status.code(), Some(1));

    // not there yet, then made
    let check = ["store", "check", "--store-url", &url, "--output", "json"];
    let checked = run(&check).await;
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(said.contains("perfagent store migrate"), "{said}");
    assert!(
        run(&["store", "migrate", "--store-url", &url])
            .await
            .status
            .success()
    );
    let imported = run(&["store", "import", path, "--store-url", &url]).await;
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let twice = run(&["store", "import", path, "--store-url", &url]).await;
    let said = text(&twice.stderr);
    assert!(said.contains("a new and empty one"), "{said}");
    let checked = run(&check).await;
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["rows"]["instances"], 2);
    assert_eq!(checked["unreadable"], serde_json::json!([]));
    assert!(checked["server"]["version"].is_string(), "{checked}");

    let arguments = ["--store-url", &url, "--state-dir", new.to_str().unwrap()];
    let (_agent, address) = serve(&arguments).await;
    assert_eq!(instances(&address).await, ["a", "b"]);
}

#[tokio::test]
async fn what_one_agent_registers_the_others_watch() {
    let url = Postgres::shared().database().await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let home = state_home();
        agents.push(serve(&["--store-url", &url, "--state-dir", home.to_str().unwrap()]).await);
    }
    let engine = FakeEngine::start(|_, _| crate::fake::Answer::ok(crate::fake::vllm_body(1))).await;
    let mut first = InstanceServiceClient::connect(format!("http://{}", agents[0].1))
        .await
        .unwrap();
    first
        .register_instance(registration("shared", &engine.url()))
        .await
        .unwrap();
    let shown = async |wanted: &[&str]| {
        let begin = std::time::Instant::now();
        for (_, address) in &agents {
            while instances(address).await != wanted {
                assert!(begin.elapsed() < Duration::from_secs(60), "{wanted:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    shown(&["shared"]).await;
    let mut last = InstanceServiceClient::connect(format!("http://{}", agents[2].1))
        .await
        .unwrap();
    let delete = pb::DeleteInstanceRequest {
        instance_id: "shared".to_owned(),
        ..Default::default()
    };
    last.delete_instance(delete).await.unwrap();
    shown(&[]).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_had_is_told_with_what_to_do() {
    for (arguments, hint) in [
        (
            vec![
                "serve",
                "--store-url",
                "postgres://agent:secret@127.0.0.1/x",
            ],
            "password_file",
        ),
        (
            vec!["store", "check", "--store-url", "mysql://127.0.0.1/x"],
            "postgres://user@host:5432/database",
        ),
        (
            vec![
                "store",
                "check",
                "--store-url",
                "postgres://agent@127.0.0.1:1/x",
            ],
            "postgres://127.0.0.1:1/x",
        ),
    ] {
        let said = run(&arguments).await;
        assert!(!said.status.success());
        let said = text(&said.stderr);
        assert!(said.contains(hint), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
