//! Actuators, the programs in `deploy/actuator`, and what `perfagent actuator check` finds of them.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::actuator_host::{Host, answer_of, here};
use crate::cli::{self, text};
use crate::peers::python;
use crate::simulator::simulate;

/// Words of each line.
fn outcomes(table: &str) -> Vec<(String, String)> {
    let lines = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let outcome = words
            .next()
            .filter(|word| word.chars().all(char::is_uppercase))?;
        Some((outcome.to_owned(), words.next()?.to_owned()))
    });
    lines.collect()
}

const STEPS: [&str; 9] = [
    "read",
    "plan",
    "apply",
    "repeat",
    "stale_revision",
    "stale_epoch",
    "restore",
    "route",
    "hang",
];

#[tokio::test]
async fn the_example_programs_keep_what_they_promise() {
    for host in [Host::local(), Host::systemd()] {
        host.ready().await;
        let before = std::fs::read(host.settings()).unwrap();
        let (code, table, error) = host.check(&[], &["--yes"]).await;
        assert_eq!(code, Some(0), "{table}{error}");
        let routed = std::fs::read_to_string(host.path("routed")).ok();
        let passed: Vec<_> = STEPS
            .iter()
            .filter(|step| **step != "route" || routed.is_some())
            .map(|step| ("PASSED".to_owned(), (*step).to_owned()))
            .collect();
        assert_eq!(outcomes(&table), passed, "{table}");
        if let Some(routed) = routed {
            assert!(routed.starts_with("replica-0 out\n"), "{routed}");
            assert!(routed.ends_with("replica-0 in\n"), "{routed}");
        }
        assert_eq!(std::fs::read(host.settings()).unwrap(), before);
        let starts = host.starts();
        assert_eq!(starts.len(), 3, "{starts:?}");
        assert_eq!(starts[0], starts[2]);
        assert_eq!(starts[1], starts[0].replace("seqs 4", "seqs 3"));
        assert!(!(table + &error).contains("canary"));
        let record = host.path("state/actuators/host.json");
        let mode = std::fs::metadata(record).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_program_that_does_not_keep_them_is_found_out_and_its_engine_left_as_it_was() {
    let between = here("tests/fixtures/actuator/between.py");
    for (how, wrong) in [
        ("any_revision", "stale_revision"),
        ("any_epoch", "stale_epoch"),
    ] {
        let host = Host::local();
        host.ready().await;
        let before = std::fs::read(host.settings()).unwrap();
        let kept = host.path("kept");
        // programs are given by their whole path, which the shell finds
        let python = text(
            &Command::new("sh")
                .args(["-c", "command -v python3"])
                .output()
                .unwrap()
                .stdout,
        );
        let stands = [
            python.trim(),
            between.to_str().unwrap(),
            how,
            kept.to_str().unwrap(),
        ];
        let (code, out, error) = host.check(&stands, &["--yes", "--output", "json"]).await;
        assert_eq!(code, Some(1), "{out}{error}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        for step in answer["steps"].as_array().unwrap() {
            let is_wrong = step["name"] == wrong;
            let outcome = if is_wrong { "FAILED" } else { "PASSED" };
            assert_eq!(step["outcome"], outcome, "{step}");
        }
        assert_eq!(answer["passed"], false);
        assert!(!host.path("state/actuators/host.json").exists());
        assert_eq!(std::fs::read(host.settings()).unwrap(), before);
    }
}

#[tokio::test]
async fn nobody_is_surprised_by_a_restart() {
    let host = Host::local();
    host.ready().await;
    let (code, _, error) = host.check(&[], &[]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(host.starts().len(), 1);
    let output = cli::command()
        .args(["actuator", "check", "hots", "--instance", "a", "--config"])
        .arg(host.config(&[]))
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the nearest is `host`"));
}

#[tokio::test]
async fn of_two_writes_at_once_one_wins_and_a_repeat_is_none() {
    for host in [Host::local(), Host::systemd()] {
        let target = host.ready().await;
        let apply = host.apply(&target, "op-1", "8").await;
        let (first, second) = (host.begin(&apply), host.begin(&apply));
        for answer in [answer_of(first).await, answer_of(second).await] {
            assert_eq!(answer["ok"]["target"]["operation_id"], "op-1", "{answer}");
        }
        let target = host.ready().await;
        assert_eq!(host.starts().len(), 2, "one write, one start");

        let (one, other) = (
            host.apply(&target, "op-2", "9").await,
            host.apply(&target, "op-3", "10").await,
        );
        let (first, second) = (host.begin(&one), host.begin(&other));
        let answers = [answer_of(first).await, answer_of(second).await];
        let won = answers.iter().filter(|answer| answer["ok"].is_object());
        assert_eq!(won.count(), 1, "{answers:?}");
        let now = host.ready().await;
        let lost = answers
            .iter()
            .find(|answer| answer["error"].is_object())
            .unwrap();
        assert_eq!(lost["error"]["code"], "STALE_REVISION");
        assert_eq!(lost["error"]["current_revision"], now["revision"]);
        assert_eq!(host.starts().len(), 3);
    }
}

#[tokio::test]
async fn a_write_that_was_killed_before_the_restart_is_completed_by_its_repeat() {
    for host in [Host::local(), Host::systemd()] {
        let target = host.ready().await;
        let apply = host.apply(&target, "op-1", "8").await;
        let wanted = STANDARD
            .decode(apply["content_base64"].as_str().unwrap())
            .unwrap();
        // the engine does not end, or its restart hangs, so that the program is between both
        std::fs::write(host.path("stubborn"), "").unwrap();
        std::fs::write(host.path("blocked"), "").unwrap();
        let mut child = host.begin(&apply);
        while std::fs::read(host.settings()).unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(host.starts().len(), 1);
        let read = host.ask(&host.request("read", json!({}))).await;
        let half = &read["ok"]["targets"][0];
        assert_eq!(half["ready"], false, "it runs with other settings");
        assert_eq!(half["operation_id"], "op-1");

        std::fs::remove_file(host.path("stubborn")).unwrap();
        std::fs::remove_file(host.path("blocked")).unwrap();
        let repeated = host.ask(&apply).await;
        assert_eq!(
            repeated["ok"]["target"]["operation_id"], "op-1",
            "{repeated}"
        );
        host.ready().await;
        host.started(2).await;
        assert!(host.starts()[1].contains("--max-num-seqs 8"));
        // and once more changes nothing
        let again = host.ask(&apply).await;
        assert_eq!(again["ok"]["target"]["ready"], true, "{again}");
        assert_eq!(host.starts().len(), 2);
    }
}

#[tokio::test]
async fn what_is_written_by_hand_is_seen_and_what_cannot_be_is_refused() {
    let host = Host::systemd();
    let target = host.ready().await;
    let words: Vec<&str> = target["launch_args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(words.last(), Some(&"100% of $it"));
    let apply = host.apply(&target, "op-1", "8").await;
    let text = std::fs::read_to_string(host.settings()).unwrap();
    std::fs::write(host.settings(), text.replace("Nice=5", "Nice=6")).unwrap();
    let refused = host.ask(&apply).await;
    assert_eq!(refused["error"]["code"], "STALE_REVISION", "{refused}");
    let mut elsewhere = apply.clone();
    elsewhere["target"] = "other.service".into();
    assert_eq!(host.ask(&elsewhere).await["error"]["code"], "NO_TARGET");
    let mut outside = host.request("read", json!({}));
    outside["instance"]["labels"]["systemd-unit"] = "../../etc.service".into();
    assert_eq!(host.ask(&outside).await["error"]["code"], "FAILED");
    let now = &host.ask(&host.request("read", json!({}))).await["ok"]["targets"][0];
    let mut no_command = apply;
    no_command["expect_revision"] = now["revision"].clone();
    no_command["content_base64"] = STANDARD.encode("[Service]\nNice=1\n").into();
    assert_eq!(host.ask(&no_command).await["error"]["code"], "FAILED");
    assert_eq!(host.starts().len(), 1);
}

#[tokio::test]
async fn the_schema_is_what_is_spoken() {
    let host = Host::local();
    host.ready().await;
    let between = here("tests/fixtures/actuator/between.py");
    let kept = host.path("kept");
    let stands = [
        python().to_str().unwrap(),
        between.to_str().unwrap(),
        "as_it_is",
        kept.to_str().unwrap(),
    ];
    let (code, out, error) = host.check(&stands, &["--yes"]).await;
    assert_eq!(code, Some(0), "{out}{error}");
    let validated = Command::new(python())
        .arg(here("tests/fixtures/actuator/validate.py"))
        .arg(here("deploy/actuator/protocol.schema.json"))
        .arg(here("deploy/actuator/README.md"))
        .arg(kept)
        .output()
        .unwrap();
    let error = text(&validated.stderr);
    assert!(validated.status.success(), "{error}");
    let seen: Value = serde_json::from_slice(&validated.stdout).unwrap();
    assert_eq!(
        seen,
        json!({
            "ops": ["apply", "plan", "read", "restore", "route"],
            "codes": ["STALE_EPOCH", "STALE_REVISION"],
            "refused": 5,
        })
    );
}

#[tokio::test]
async fn the_simulator_is_driven_as_an_engine_is() {
    let simulator = simulate(
        2,
        "--replicas 2 --max-num-seqs 4 --clients 4 --load-time 100ms",
    )
    .await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("perfagent.toml");
    let text_of = format!(
        "[[actuators]]\nname = \"host\"\ntype = \"simulator\"\n[[instances]]\ninstance_id = \"a\"\nmetrics_urls = {:?}\nactuator = \"host\"\n",
        simulator.urls
    );
    std::fs::write(&config, text_of).unwrap();
    let output = cli::command()
        .args([
            "actuator",
            "check",
            "host",
            "--instance",
            "a",
            "--yes",
            "--config",
        ])
        .arg(&config)
        .output();
    let output = output.await.unwrap();
    let table = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{table}{}",
        text(&output.stderr)
    );
    let passed: Vec<_> = STEPS[..8]
        .iter()
        .map(|step| ("PASSED".to_owned(), (*step).to_owned()))
        .collect();
    assert_eq!(outcomes(&table), passed, "{table}");
    let (status, body) = simulator.get("/control/settings").await;
    assert_eq!(status, 200);
    let settings: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(settings["launch_args"], json!(["--max-num-seqs", "4"]));
    assert_eq!(settings["restarts"], 2);
    let applies: Vec<u64> = settings["applies"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .collect();
    assert_eq!(applies, [1, 1]);
}
