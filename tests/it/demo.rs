//! The demo: simulated engines, an agent and what it finds, in one command.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::{command, run, text};
use crate::receiver::{Does, Receiver};

const SECRET: &str = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5";

#[tokio::test]
async fn it_walks_to_its_end_says_that_it_is_simulated_and_leaves_nothing() {
    let scratch = crate::cli::state_home();
    std::fs::create_dir_all(&scratch).unwrap();
    let receiver = Receiver::start(|_| Does::Answers(204)).await;
    let done = command()
        .args(["demo", "--once", "--listen", "127.0.0.1:0"])
        .args(["--webhook", &receiver.url()])
        .env("WEBHOOK_SECRET", SECRET)
        .env("TMPDIR", &scratch)
        .output()
        .await
        .unwrap();
    let shown = text(&done.stdout);
    assert!(done.status.success(), "{shown}{}", text(&done.stderr));
    assert_eq!(left(&scratch), 0);
    let (walk, canaries) = shown.split_once("\ncanaries: ").unwrap();
    finds_and_mends(walk);
    decides(canaries);
    tells(canaries, &receiver);
    assert!(
        !shown.contains(SECRET) && !shown.contains("canary-url"),
        "{shown}"
    );
}

/// The troubles that were built in are measured, named, and one of them mended.
fn finds_and_mends(shown: &str) {
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
    for (line, flag) in recommended.iter().zip([
        "--max-num-seqs",
        "--mem-fraction-static",
        "--max-batch-size",
    ]) {
        assert!(line.contains(flag) && line.contains(" → "), "{line}");
    }
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

/// One canary wins and one loses, and it is on the screen why.
fn decides(shown: &str) {
    let (_, both) = shown
        .split_once("canary 1 of 2: a change that helps")
        .unwrap();
    let (helps, harms) = both
        .split_once("canary 2 of 2: a change that harms")
        .unwrap();
    // the rows of its table that say so
    let rows = |of: &str, verdict: &str| -> Vec<Vec<String>> {
        let ends = format!("  {verdict}");
        let cells = |line: &str| -> Vec<String> {
            let cells = line.split("  ").map(str::trim);
            let cells = cells.filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect()
        };
        let rows = of.lines().filter(|line| line.ends_with(&ends));
        rows.map(cells).collect()
    };
    for (of, parts, verdict) in [
        (
            helps,
            [
                "--max-num-seqs 4 → 32",
                "  demo-pool  CONFIG_CHANGE  SIMULATED\nCOMPLETED APPLIED: ",
                "Part 1: PASS at look ",
                "  Nothing became worse by more than is accepted, over ",
            ],
            "PASS",
        ),
        (
            harms,
            [
                "--max-num-seqs 32 → 2",
                "  demo-pool  CONFIG_CHANGE  SIMULATED\nROLLED_BACK RESTORED: ",
                "Part 1: FAIL at look ",
                "  The canary does harm. The ",
            ],
            "FAIL",
        ),
    ] {
        for part in parts {
            assert!(of.contains(part), "{part}: {of}");
        }
        let rows = rows(of, verdict);
        assert!(!rows.is_empty(), "{of}");
        for row in rows {
            let [_, with, without, difference, intervals, _] = &row[..] else {
                panic!("{row:?}");
            };
            assert!([with, without].iter().all(|side| *side != "-"), "{row:?}");
            assert!(difference.contains(" to "), "{row:?}");
            assert!(intervals.parse::<u32>().unwrap() >= 20, "{row:?}");
        }
    }
    assert_eq!(helps.matches("  READY  ").count(), 3, "{helps}");
    assert_eq!(harms.matches("  UNTOUCHED ").count(), 2, "{harms}");
    assert_eq!(harms.matches("  RESTORED_READY ").count(), 1, "{harms}");
}

/// A receiver took all that was told, signed, and both verdicts were among it.
fn tells(shown: &str, receiver: &Receiver) {
    let posts = receiver.posts();
    assert!(
        posts
            .iter()
            .all(|post| post.is_taken() && post.is_signed_with(SECRET))
    );
    let mut verdicts = Vec::new();
    let mut ids = HashSet::new();
    for post in &posts {
        ids.insert(post.id.clone());
        if let Some(verdict) = post.json()["data"]["verdict"].as_str() {
            verdicts.push(verdict.to_owned());
        }
    }
    verdicts.retain(|verdict| verdict != "INCONCLUSIVE");
    assert_eq!(verdicts, ["PASS", "FAIL"]);
    // beside the ping, and what was told after the count
    let (_, count) = shown.rsplit_once("webhook: ").unwrap();
    let told: Vec<&str> = count.split(' ').collect();
    assert_eq!(told[0], told[2], "{count}");
    assert!(ids.len() > told[0].parse().unwrap(), "{count}");
}

fn left(scratch: &Path) -> usize {
    std::fs::read_dir(scratch).unwrap().count()
}

#[tokio::test]
async fn a_webhook_that_cannot_be_is_refused() {
    let run = async |url: &str, secret: &str| {
        let done = command()
            .args([
                "demo",
                "--once",
                "--listen",
                "127.0.0.1:0",
                "--webhook",
                url,
            ])
            .env("WEBHOOK_SECRET", secret)
            .output()
            .await
            .unwrap();
        assert_eq!(done.status.code(), Some(1));
        text(&done.stderr)
    };
    let told = run("nonsense", "").await;
    assert!(told.contains("not a URL"), "{told}");
    let told = run("http://169.254.169.254/", "").await;
    assert!(told.contains("link-local"), "{told}");
    let told = run("http://127.0.0.1:1/", "password").await;
    assert!(
        told.contains("WEBHOOK_SECRET must be `whsec_`") && !told.contains("password"),
        "{told}"
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
    assert_eq!(left(&scratch), 1, "its state");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(left(&scratch), 0);
}
