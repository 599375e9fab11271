//! The demo: simulated engines, an agent and what it finds, in one command.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::{command, run, text};

#[tokio::test]
async fn it_walks_to_its_end_and_says_that_it_is_simulated() {
    let done = run(&["demo", "--once", "--listen", "127.0.0.1:0"]).await;
    let shown = text(&done.stdout);
    assert!(done.status.success(), "{shown}{}", text(&done.stderr));
    assert!(
        shown.starts_with("perfagent demo. The engines are SIMULATED"),
        "{shown}"
    );
    for (id, engine) in [
        ("demo-vllm", "vllm"),
        ("demo-sglang", "sglang"),
        ("demo-tgi", "tgi"),
    ] {
        assert!(
            shown.contains(&format!("{id}  {engine}, simulated\n")),
            "{shown}"
        );
    }
    let (collected, _) = shown.split_once("diagnose and recommend").unwrap();
    assert_eq!(collected.matches(" tokens/s").count(), 3, "{shown}");
    // the troubles that were built in are in the numbers
    let number_after = |start: &str, id: &str| -> f64 {
        let of = shown.split(id).last().unwrap();
        let line = of
            .lines()
            .find(|line| line.trim().starts_with(start))
            .unwrap();
        let digits = line.trim().trim_start_matches(start).trim();
        digits
            .split([' ', ',', '%'])
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let running = number_after("running, waiting", "demo-vllm  ");
    assert!((3.5..=4.0).contains(&running), "{running}: {shown}");
    assert!(number_after("KV cache in use", "demo-sglang  ") > 70.0);
    assert!(number_after("KV cache in use", "demo-vllm  ") < 20.0);
    // and named
    for (id, scenario) in [
        (
            "demo-vllm",
            include_str!("../../src/edge/cli/demo/vllm.toml"),
        ),
        (
            "demo-sglang",
            include_str!("../../src/edge/cli/demo/sglang.toml"),
        ),
        ("demo-tgi", include_str!("../../src/edge/cli/demo/tgi.toml")),
    ] {
        let scenario: toml::Table = toml::from_str(scenario).unwrap();
        let cause = scenario["cause"].as_str().unwrap();
        let start = format!("{id}, simulated: ");
        let line = shown.lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(line.contains(&format!(" {cause}: ")), "{line}");
    }
    // and what to change, with numbers
    let recommended: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("  recommended: "))
        .collect();
    assert_eq!(recommended.len(), 3, "{shown}");
    assert!(recommended.iter().all(|line| !line.is_empty()), "{shown}");
    let cap = recommended[0];
    assert!(
        cap.contains("--max-num-seqs") && cap.contains(" → "),
        "{cap}"
    );
    // and what came of it
    let happened: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    for event in ["planned", "written", "ready", "completed"] {
        assert!(happened.contains(&event), "{event}: {shown}");
    }
    let gain = shown
        .lines()
        .rfind(|line| line.contains("throughput"))
        .unwrap();
    assert!(
        gain.contains(" times") && gain.contains("predicted"),
        "{gain}"
    );
}

#[tokio::test]
async fn who_has_its_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = run(&["demo", "--listen", &address]).await;
    let complaint = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{complaint}");
    let us = format!("(pid {}) listens there", std::process::id());
    assert!(
        complaint.contains(&us) && complaint.contains("--listen"),
        "{complaint}"
    );
}

#[tokio::test]
async fn ctrl_c_ends_it_and_leaves_nothing() {
    let scratch = crate::cli::state_home();
    std::fs::create_dir_all(&scratch).unwrap();
    let mut child = command()
        .args(["demo", "--listen", "127.0.0.1:0"])
        .env("TMPDIR", &scratch)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("an agent watches them") {
            break;
        }
    }
    let left = |scratch: &Path| std::fs::read_dir(scratch).unwrap().count();
    assert_eq!(left(&scratch), 1, "its state");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(left(&scratch), 0);
}
