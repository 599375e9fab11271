//! `perfagent recommend`, `predict`, `settings` and `predictions` as a user types them.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::cli::{golden, run, text};
use crate::diagnosing::recorded;
use crate::fake::TestAgent;

const SATURATED: &str = "vllm-0.32.0/c-saturation";

fn code(of: &Output) -> i32 {
    of.status.code().unwrap()
}

fn answer(of: &Output) -> Value {
    serde_json::from_slice(&of.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&of.stdout), text(&of.stderr)))
}

/// What `perfagent collect` wrote of a recorded engine.
async fn collected() -> tempfile::NamedTempFile {
    let engine = recorded(SATURATED).await;
    let url = engine.url();
    let collect = [
        "collect", "--url", &url, "--window", "1s", "--id", "vllm-1", "-o", "json",
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), run(&collect).await.stdout).unwrap();
    file
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// Keeps what an answer is made of: numbers and the sentences with them follow from the model.
fn shape(value: &mut Value) {
    match value {
        Value::Number(_) => *value = json!("NUMBER"),
        Value::Array(items) => items.iter_mut().for_each(shape),
        Value::Object(fields) => {
            for (name, value) in fields {
                let sentences = ["headline", "description", "title", "reason", "trade_off"];
                match (name.as_str(), &value) {
                    ("optimization_id", _) => *value = json!("ID"),
                    ("to_value", _) => *value = json!("VALUE"),
                    (name, Value::String(_)) if sentences.contains(&name) => *value = json!("TEXT"),
                    _ => shape(value),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_page_the_json_and_the_launch_line_say_the_same() {
    let file = collected().await;
    let ask = ["recommend", "--file", path(file.path())];
    let json = run(&[&ask[..], &["-o", "json"]].concat()).await;
    assert_eq!(code(&json), 10, "{}", text(&json.stderr));
    let mut whole = answer(&json);
    assert_eq!(whole["advice"], "CHANGE");
    let first = whole["optimizations"][0].clone();
    let change = &first["changes"][0];
    assert_eq!(change["flag"], "--max-num-seqs");
    let (from, to) = (
        change["from_value"].as_str().unwrap().to_owned(),
        change["to_value"].as_str().unwrap().to_owned(),
    );
    let page = run(&ask).await;
    assert_eq!(code(&page), 10);
    let page = text(&page.stdout);
    assert!(
        page.contains(&format!("--max-num-seqs {from} → {to}")),
        "{page}"
    );
    for word in ["title", "reason", "undo"] {
        assert!(
            page.contains(first[word].as_str().unwrap()),
            "{word}: {page}"
        );
    }
    assert!(!page.contains('\u{1b}'), "no colour without a terminal");
    let line = format!("vllm serve m --max-num-seqs {from} --port 8000");
    let args = run(&[&ask[..], &["--as-args", "--launch-args", &line]].concat()).await;
    let args = text(&args.stdout);
    let mut lines = args.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .contains(&format!("--max-num-seqs {to} --port 8000")),
        "{args}"
    );
    assert!(
        args.contains(&format!("# --max-num-seqs {from} → {to}")),
        "{args}"
    );
    assert!(lines.all(|line| line.starts_with("# ")), "{args}");
    // the form is fixed; which numbers there are is the model's
    let settings = whole["settings"].as_array_mut().unwrap();
    settings.retain(|one| one["name"] == "max_num_seqs");
    for list in ["optimizations", "left_out"] {
        if let Some(all) = whole[list].as_array_mut() {
            all.truncate(1);
        }
    }
    shape(&mut whole);
    golden("recommend.json", &format!("{whole:#}\n"));
}

#[tokio::test]
async fn what_if_is_answered_here_and_by_a_server() {
    let file = collected().await;
    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    let ask = [
        "predict",
        "--file",
        path(file.path()),
        "--set",
        "max-num-seqs=64",
    ];
    let here = run(&[&ask[..], &["-o", "json"]].concat()).await;
    let there = run(&[&ask[..], &["-o", "json", "--server", &address]].concat()).await;
    assert_eq!(answer(&here), answer(&there));
    assert_eq!(code(&here), 0, "{}", text(&here.stdout));
    let page = text(&run(&ask).await.stdout);
    assert!(
        page.contains("→ 64") && page.contains("predicted (90 % interval):"),
        "{page}"
    );
    let unknown = [
        "predict",
        "--file",
        path(file.path()),
        "--set",
        "max-num-seq=64",
    ];
    let refused = run(&unknown).await;
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains("max_num_seqs"),
        "{}",
        text(&refused.stderr)
    );
    let nothing = run(&["predict", "--file", path(file.path())]).await;
    assert_eq!(code(&nothing), 2);
}

#[tokio::test]
async fn settings_say_who_says_so() {
    let engine = recorded(SATURATED).await;
    let ask = ["settings", "--url", &engine.url(), "--window", "1s"].map(str::to_owned);
    let ask: Vec<&str> = ask.iter().map(String::as_str).collect();
    let page = run(&ask).await;
    assert_eq!(code(&page), 0, "{}", text(&page.stderr));
    let page = text(&page.stdout);
    assert!(
        page.contains("WHO SAYS SO") && page.contains("--max-num-seqs"),
        "{page}"
    );
    let json = answer(&run(&[&ask[..], &["-o", "json"]].concat()).await);
    assert!(json["config"].is_object(), "{json}");
    for one in json["settings"].as_array().unwrap() {
        let known = one["state"] == "KNOWN";
        assert_eq!(one.get("value").is_some(), known, "{one}");
    }
}

#[tokio::test]
async fn predictions_are_those_of_an_agent() {
    let agent = TestAgent::start().await;
    let address = agent.address.to_string();
    let none = run(&["predictions", "--server", &address]).await;
    assert_eq!(code(&none), 0, "{}", text(&none.stderr));
    assert!(text(&none.stdout).contains("no predictions"));
    let json = run(&["predictions", "--server", &address, "-o", "json"]).await;
    assert_eq!(answer(&json), json!({}));
    let gone = run(&["predictions", "--server", "127.0.0.1:1"]).await;
    assert_eq!(code(&gone), 1);
}

#[tokio::test]
async fn help_teaches_by_examples() {
    for (command, words) in [
        ("recommend", ["--as-args", "--must-hold", "Exit codes"]),
        ("predict", ["--unset", "max-num-seqs=64", "Exit codes"]),
        ("settings", ["declared", "inferred", "Exit codes"]),
        ("predictions", ["--state", "7 days", "Exit codes"]),
    ] {
        let help = text(&run(&[command, "--help"]).await.stdout);
        for word in words {
            assert!(help.contains(word), "{command}: {word}\n{help}");
        }
        // what is to be pasted is not broken into lines
        let mut examples = help.lines().skip_while(|line| *line != "Examples:");
        assert!(examples.all(|line| line.len() <= 100), "{help}");
    }
}
