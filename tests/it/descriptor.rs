//! The contract as a file, for tools that do not ask the agent for it.

use std::collections::HashSet;
use std::process::{Output, Stdio};

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

use crate::cli::{command, run, text};
use crate::contract::{comment, files};

#[tokio::test]
async fn the_set_has_all_that_tools_need() {
    let written = run(&["descriptor"]).await;
    assert!(written.status.success(), "{}", text(&written.stderr));
    let set = FileDescriptorSet::decode(written.stdout.as_slice()).unwrap();
    // protobuf's own pool, which Envoy fills, wants each file after those that it imports
    let mut seen = HashSet::new();
    for file in &set.file {
        for import in &file.dependency {
            assert!(
                seen.contains(import),
                "{} comes before {import}",
                file.name()
            );
        }
        assert!(seen.insert(file.name().to_owned()), "{}", file.name());
    }
    let pool = DescriptorPool::decode(written.stdout.as_slice()).unwrap();
    for service in [
        "perfagent.v1.AgentService",
        "perfagent.v1.AnalysisService",
        "perfagent.v1.InstanceService",
        "perfagent.v1.MetricsService",
        "perfagent.v1.OptimizationService",
        "perfagent.v1.WebhookService",
        "perfagent.v1.WorkflowService",
        "grpc.health.v1.Health",
    ] {
        assert!(pool.get_service_by_name(service).is_some(), "{service}");
    }
    for details in ["ErrorInfo", "BadRequest", "RetryInfo"] {
        let name = format!("google.rpc.{details}");
        assert!(pool.get_message_by_name(&name).is_some(), "{name}");
    }
    // without the options there is nothing for a transcoder to serve
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    for file in files(&pool) {
        for method in file
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            assert!(method.options().has_extension(&http), "{method:?}");
            assert!(comment(&file, method.path()).contains("Deadline:"));
        }
    }
}

#[tokio::test]
async fn it_goes_to_a_file_or_on_but_not_to_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("perfagent.binpb");
    let written = run(&["descriptor", "--output", path.to_str().unwrap()]).await;
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(written.stdout.is_empty() && written.stderr.is_empty());
    let piped = run(&["descriptor"]).await;
    assert_eq!(std::fs::read(&path).unwrap(), piped.stdout);

    let nowhere = directory.path().join("nowhere/perfagent.binpb");
    let failed = run(&["descriptor", "--output", nowhere.to_str().unwrap()]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("cannot write"), "{failed:?}");

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let failed = written_to(full.unwrap()).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("cannot write"), "{failed:?}");

    let (terminal, _other_end) = terminal();
    let refused = written_to(terminal).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("--output FILE"),
        "{refused:?}"
    );
}

async fn written_to(file: std::fs::File) -> Output {
    let child = command()
        .arg("descriptor")
        .stdout(file)
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap().wait_with_output().await.unwrap()
}

/// A terminal to read from and write to, and its other end.
pub fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let other_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&other_end).unwrap();
    unlockpt(&other_end).unwrap();
    let name = ptsname(&other_end, Vec::new()).unwrap();
    let terminal = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (terminal, other_end.into())
}

#[tokio::test]
async fn help_teaches_grpcurl_and_envoy_and_shells_know_it() {
    let help = text(&run(&["descriptor", "--help"]).await.stdout);
    for word in [
        "--output",
        "grpcurl -protoset",
        "grpc_json_transcoder",
        "proto_descriptor",
        "perfagent.v1.MetricsService",
        "perfagent.v1.OptimizationService",
        "preserve_proto_field_names",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    // what is to be pasted is not broken into lines
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completions", shell]).await.stdout);
        assert!(script.contains("descriptor"), "{shell}");
    }
}
