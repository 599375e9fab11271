//! `perfagent diagnose` as a user types it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::captures;
use crate::cli::{command, golden, run, text};
use crate::cli_compare::rounded;
use crate::diagnosing::recorded;
use crate::fake::{FakeEngine, TestAgent};

fn code(of: &Output) -> i32 {
    of.status.code().unwrap()
}

fn answer(of: &Output) -> Value {
    serde_json::from_slice(&of.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&of.stdout), text(&of.stderr)))
}

/// The exit code that a verdict has.
fn code_of(verdict: &Value) -> i32 {
    match verdict.as_str().unwrap() {
        "HEALTHY" => 0,
        "FINDINGS" => 10,
        "CANNOT_TELL" => 11,
        other => panic!("{other}"),
    }
}

/// What a page says of a verdict.
fn word_of(verdict: &Value) -> String {
    verdict.as_str().unwrap().replace('_', " ")
}

/// A copy of a recording that a test may write to.
fn copy_of(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(captures::root().join(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

fn measurement() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/measurements/before.json")
}

#[tokio::test]
async fn alone_through_a_server_and_from_a_file_it_says_the_same() {
    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    let name = "vllm-0.32.0/c-saturation";
    let engines: [FakeEngine; 4] = [
        recorded(name).await,
        recorded(name).await,
        recorded(name).await,
        recorded(name).await,
    ];
    let urls = engines.each_ref().map(FakeEngine::url);
    let ask = |url| {
        [
            "diagnose", "--engine", "vllm", "--url", url, "--window", "1s",
        ]
    };
    let json = ["-o", "json"];
    let server = ["--server", &address];
    let alone = run(&[&ask(&urls[0])[..], &json].concat()).await;
    let through = run(&[&ask(&urls[1])[..], &json, &server].concat()).await;
    assert_eq!(answer(&alone), answer(&through));
    let found = answer(&alone);
    assert_eq!(code(&alone), code_of(&found["verdict"]));
    assert_eq!(code(&through), code(&alone));
    assert_eq!(text(&alone.stderr), "", "no progress without a terminal");
    assert!(found["bottlenecks"].is_array(), "{found}");
    // the page has what the JSON has
    let page = run(&ask(&urls[2])).await;
    assert_eq!(code(&page), code(&alone));
    let page = text(&page.stdout);
    assert!(page.contains(&word_of(&found["verdict"])), "{page}");
    assert!(page.contains(found["headline"].as_str().unwrap()), "{page}");
    for one in found["bottlenecks"].as_array().unwrap() {
        for word in ["type", "cause", "severity", "description", "recommendation"] {
            assert!(page.contains(one[word].as_str().unwrap()), "{word}: {page}");
        }
    }
    assert!(!page.contains('\u{1b}'), "no colour without a terminal");
    // and a measurement of it, by a file and by the standard input, here and by a server
    let collect = [
        "collect", "--url", &urls[3], "--window", "1s", "--id", "target",
    ];
    let collected = run(&[&collect[..], &json].concat()).await.stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &collected).unwrap();
    let of_file = ["diagnose", "--file", path(file.path())];
    let of_file_here = run(&[&of_file[..], &json].concat()).await;
    assert_eq!(answer(&of_file_here), found);
    assert_eq!(code(&of_file_here), code(&alone));
    let of_file_there = run(&[&of_file[..], &json, &server].concat()).await;
    assert_eq!(answer(&of_file_there), found);
    let mut piped = command()
        .args(["diagnose", "--file", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = piped.stdin.take().unwrap();
    input.write_all(&collected).await.unwrap();
    drop(input);
    let piped = piped.wait_with_output().await.unwrap();
    assert_eq!(answer(&piped), found);
}

#[tokio::test]
async fn every_recording_has_a_verdict_and_its_exit_code() {
    for name in [
        "vllm-0.32.0/a-idle",
        "vllm-0.32.0/c-saturation",
        "vllm-0.16.0/d-kv-pressure",
        "sglang-0.5.23/c-saturation",
        "tgi-3.3.6/b-light",
    ] {
        let directory = captures::root().join(name);
        let shown = run(&["diagnose", "--replay", path(&directory), "-o", "json"]).await;
        let whole = answer(&shown);
        let windows = whole["windows"].as_array().unwrap();
        let mut codes: Vec<i32> = windows.iter().map(|one| code_of(&one["verdict"])).collect();
        // findings are worse than not to know, and that worse than nothing
        codes.sort_by_key(|code| [10, 11, 0].iter().position(|one| one == code));
        assert_eq!(code(&shown), codes[0], "{name}");
        assert_eq!(windows.len(), 1, "{name}: shorter than a minute");
        assert!(windows[0]["engine_version"].is_string(), "{name}");
        assert!(
            whole.get("changes").is_none(),
            "{name}: nothing to hold it against"
        );
        let page = run(&["diagnose", "--replay", path(&directory)]).await;
        assert_eq!(code(&page), codes[0]);
        let word = word_of(&windows[0]["verdict"]);
        assert!(text(&page.stdout).contains(&word), "{name}");
    }
}

#[tokio::test]
async fn the_page_and_the_json_of_a_saturated_engine() {
    let directory = captures::root().join("vllm-0.32.0/c-saturation");
    let ask = ["diagnose", "--replay", path(&directory), "--id", "vllm-1"];
    let page = run(&ask).await;
    golden("diagnose.txt", &text(&page.stdout));
    assert_eq!(code(&page), 10);
    let mut whole = answer(&run(&[&ask[..], &["-o", "json"]].concat()).await);
    let found = &whole["windows"][0]["bottlenecks"];
    assert_eq!(found[0]["type"], "QUEUE_BUILDUP");
    assert_eq!(found[0]["cause"], "SEQUENCE_CAP");
    rounded(&mut whole);
    golden("diagnose.json", &format!("{whole:#}\n"));
}

#[tokio::test]
async fn a_recording_is_held_against_the_findings_that_were_kept_with_it() {
    let recording = copy_of("vllm-0.32.0/c-saturation");
    let directory = path(recording.path());
    let ask = ["diagnose", "--replay", directory];
    let saved = run(&[&ask[..], &["--window", "10s", "--save-findings"]].concat()).await;
    assert!([0, 10, 11].contains(&code(&saved)), "{saved:?}");
    // the windows are those of the findings where nothing else is said
    let again = run(&[&ask[..], &["-o", "json"]].concat()).await;
    let whole = answer(&again);
    assert_eq!(whole["windows"].as_array().unwrap().len(), 3);
    assert_eq!(whole["changes"], json!([]));
    let page = text(&run(&ask).await.stdout);
    assert!(page.contains("Nothing has changed"), "{page}");

    let file = recording.path().join("findings.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let gone = json!({ "cause": "SLOW_REPLICA", "type": "REPLICA_SKEW", "severity": "LOW" });
    kept["windows"][1]["bottlenecks"]
        .as_array_mut()
        .unwrap()
        .push(gone);
    std::fs::write(&file, kept.to_string()).unwrap();
    let changed = answer(&run(&[&ask[..], &["-o", "json"]].concat()).await);
    let expected = json!([{
        "window_end_time": kept["windows"][1]["window"]["end_time"],
        "change": "GONE",
        "about": "SLOW_REPLICA",
        "was": "LOW",
    }]);
    assert_eq!(changed["changes"], expected);
    let page = text(&run(&ask).await.stdout);
    assert!(page.contains("GONE     SLOW_REPLICA  was LOW"), "{page}");

    let others = run(&[&ask[..], &["--window", "5s"]].concat()).await;
    assert_eq!(code(&others), 2);
    assert!(text(&others.stderr).contains("has other windows, of 10 s"));
    std::fs::write(
        &file,
        "{\"window_seconds\": 10, \"windows\": [{\"verdct\": 1}]}",
    )
    .unwrap();
    let broken = run(&ask).await;
    assert_eq!(code(&broken), 2);
    let complaint = text(&broken.stderr);
    assert!(
        complaint.contains("windows[0].verdct: no such field"),
        "{complaint}"
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_exit_code() {
    let good = measurement();
    let good = path(&good);
    let basic = tempfile::NamedTempFile::new().unwrap();
    let mut json: Value = serde_json::from_slice(&std::fs::read(good).unwrap()).unwrap();
    json["measurement"]
        .as_object_mut()
        .unwrap()
        .remove("figures");
    std::fs::write(basic.path(), json.to_string()).unwrap();
    let url = "http://127.0.0.1:1/metrics";
    for (arguments, told) in [
        (
            &["--file", path(basic.path())][..],
            "--file: figures: must be set",
        ),
        (&["--file", "/nowhere.json"], "/nowhere.json: No such file"),
        (&["--file", good, "--window", "5s"], "cannot be used with"),
        (&["--file", good, "--url", url], "cannot be used with"),
        (
            &["--file", good, "--threshold", "stall_second=3"],
            "did you mean `stall_seconds`?",
        ),
        (
            &["--file", good, "--threshold", "stall_seconds=0"],
            "--threshold: stall_seconds = 0",
        ),
        (
            &["--file", good, "--threshold", "stall_seconds"],
            "NAME=VALUE",
        ),
        (
            &["--url", url, "--threshold", "stall_second=3"],
            "did you mean `stall_seconds`?",
        ),
        (&["--url", url, "--engine", "vlm"], "--engine"),
        (&["--url", url, "--window", "6m"], "--window"),
        (&["--replay", "/nowhere"], "cannot read /nowhere"),
        (
            &["--replay", good, "--server", "127.0.0.1:1"],
            "cannot be used with",
        ),
        (&["--url", url, "--save-findings"], "cannot be used with"),
        (&[], "required"),
    ] {
        let shown = run(&[&["diagnose"], arguments].concat()).await;
        let complaint = text(&shown.stderr);
        assert_eq!(code(&shown), 2, "{arguments:?}: {complaint}");
        assert!(complaint.contains(told), "{arguments:?}: {complaint}");
        assert_eq!(text(&shown.stdout), "");
    }
    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    for arguments in [
        &["--url", url, "--engine", "vllm", "--window", "1s"][..],
        &["vllm-1", "--server", &address],
        &["vllm-1", "--server", "127.0.0.1:1"],
    ] {
        let shown = run(&[&["diagnose"], arguments].concat()).await;
        assert_eq!(code(&shown), 1, "{arguments:?}: {}", text(&shown.stderr));
    }
}

#[tokio::test]
async fn thresholds_come_from_flags_over_variables_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[thresholds]\nstall_seconds = 20\n").unwrap();
    let check = ["config", "check", "--config", path(file.path())];
    let shown = run(&check).await;
    assert!(text(&shown.stdout).contains("thresholds stall_seconds = 20\n"));
    let variable = command()
        .args(check)
        .env("PERFAGENT_THRESHOLDS__STALL_SECONDS", "2.5")
        .output()
        .await
        .unwrap();
    assert!(text(&variable.stdout).contains("thresholds stall_seconds = 2.5\n"));
    std::fs::write(file.path(), "[thresholds]\nstall_second = 20\n").unwrap();
    for arguments in [
        &check[..],
        &[
            "diagnose",
            "--file",
            "/nowhere",
            "--config",
            path(file.path()),
        ],
    ] {
        let wrong = run(arguments).await;
        assert_eq!(code(&wrong), 2);
        let complaint = text(&wrong.stderr);
        let told = "unknown key `thresholds.stall_second`; the nearest known one is `thresholds.stall_seconds`";
        assert!(complaint.contains(told), "{complaint}");
    }
}

#[tokio::test]
async fn help_teaches() {
    let help = text(&run(&["diagnose", "--help"]).await.stdout);
    for word in [
        "perfagent diagnose --engine vllm --url http://127.0.0.1:8000/metrics",
        "--window",
        "--threshold",
        "--replay",
        "--save-findings",
        "--file",
        "0 nothing to do; 10 findings; 11 cannot tell; 1 failed; 2 wrong usage",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = text(&run(&["--help"]).await.stdout);
    assert!(help.contains("diagnose"), "{help}");
    assert!(
        help.contains("10 findings, a missed SLO, or something to change; 11"),
        "{help}"
    );
}

#[tokio::test]
async fn findings_are_written_anew_whatever_was_there() {
    let copy = copy_of("vllm-0.32.0/c-saturation");
    let file = copy.path().join("findings.json");
    let ask = ["diagnose", "--replay", path(copy.path())];
    for was in ["no JSON", "{}", r#"{"window_seconds": 60, "windows": []}"#] {
        std::fs::write(&file, was).unwrap();
        let refused = run(&ask).await;
        assert_eq!(code(&refused), 2, "{was}");
        assert!(text(&refused.stderr).contains("--save-findings"), "{was}");
        let saved = run(&[&ask[..], &["--save-findings"]].concat()).await;
        assert_eq!(code(&saved), 10, "{}", text(&saved.stderr));
        let same = run(&ask).await;
        assert!(text(&same.stdout).contains("Nothing has changed"), "{was}");
    }
}
