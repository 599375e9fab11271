//! Changes that go to a part of the replicas first: what helps goes to all, what harms is undone, and it says why.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::cli::{command, text};
use crate::http::get_at;
use crate::simulator::{Simulator, simulate};

/// Short requests, so that seconds tell; clients that wait for a place.
const LOAD: &str =
    "--max-num-seqs 4 --clients 96 --prompt-tokens 16 --output-tokens 8 --load-time 500ms";
const REPLICAS: usize = 3;
/// A third first, then all. More requests at once make gaps between tokens a few percent longer.
const HOW: &str = "--canary 33% --warm-up 2s --observe 30s --drain 1s --tolerance 20%";

/// An agent over a pool of simulated replicas.
struct Pool {
    simulator: Simulator,
    server: String,
    _agent: Child,
    _directory: TempDir,
}

async fn pool() -> Pool {
    let simulator = simulate(REPLICAS, &format!("--replicas {REPLICAS} {LOAD}")).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let config = format!(
        "[workflows]\nauto_approve = true\n[[actuators]]\nname = \"sim\"\ntype = \"simulator\"\n\
         [[instances]]\ninstance_id = \"pool\"\nmetrics_urls = {:?}\nscrape_interval = \"1s\"\nwindow = \"5s\"\nactuator = \"sim\"\n",
        simulator.urls
    );
    std::fs::write(path("config.toml"), config).unwrap();
    let mut agent = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--config", path("config.toml").to_str().unwrap()])
        .args(["--state-dir", path("state").to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(agent.stderr.take().unwrap()).lines();
    let server = loop {
        let line = log.next_line().await.unwrap().expect("it serves");
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let message = entry["fields"]["message"].as_str().unwrap_or_default();
        if let Some(address) = message.strip_prefix("listening on ") {
            break address.to_owned();
        }
    };
    // whoever does not read holds up who writes
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    Pool {
        simulator,
        server,
        _agent: agent,
        _directory: directory,
    }
}

impl Pool {
    /// Exit code and output of `perfagent workflow`.
    async fn workflow(&self, arguments: &str) -> (i32, String) {
        let mut words: Vec<&str> = vec!["workflow"];
        words.extend(arguments.split_whitespace());
        words.extend(["--server", &self.server]);
        let done = command().args(words).output().await.unwrap();
        let said = text(&done.stdout) + &text(&done.stderr);
        (done.status.code().unwrap_or(-1), said)
    }

    /// The workflow as it is.
    async fn got(&self) -> Value {
        let (_, said) = self.workflow("get pool -o json").await;
        let answer: Value = serde_json::from_str(&said).expect(&said);
        answer["workflow"].clone()
    }

    /// How often settings of each replica were written.
    async fn applies(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for url in &self.simulator.urls {
            let host = url
                .trim_start_matches("http://")
                .trim_end_matches("/metrics");
            let answer = get_at(host, "/control/settings", host).await;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let shown: Value = serde_json::from_str(body).unwrap();
            let applies = shown["applies"].as_object().unwrap().values();
            all.push(applies.map(|times| times.as_u64().unwrap()).sum());
        }
        all
    }
}

#[tokio::test]
async fn what_helps_goes_to_all_replicas_once_a_third_has_shown_it() {
    let pool = pool().await;
    let start = format!("start pool --set max-num-seqs=32 --auto-approve --watch -o json {HOW}");
    let (code, said) = pool.workflow(&start).await;
    let got = pool.got().await;
    assert_eq!(code, 0, "{said}\n{got:#}");
    assert_eq!(got["status"], "COMPLETED", "{got:#}");
    let verdict = &got["verdicts"][0];
    assert_eq!(verdict["verdict"], "PASS", "{verdict:#}");
    assert_eq!(verdict["evidence"], "SAME_TIME");
    let first = verdict["quantities"].as_array().unwrap().iter();
    let mut first = first.filter(|one| one["quantity"] == "TIME_TO_FIRST_TOKEN_MEAN");
    let first = first.next().unwrap();
    assert!(
        first["effect_ratio_high"].as_f64().unwrap() < 1.0,
        "{first:#}"
    );
    assert!(first["intervals"].as_u64().unwrap() >= 20, "{first:#}");
    assert_eq!(pool.applies().await, [1, 1, 1]);
    let (_, page) = pool.workflow("get pool").await;
    assert!(page.contains("Part 1: PASS"), "{page}");
    assert!(
        page.contains("goes out to: 1, then 3 of 3 targets"),
        "{page}"
    );
}

#[tokio::test]
async fn what_harms_is_undone_and_the_other_replicas_were_never_touched() {
    let pool = pool().await;
    // what does not tell ends too
    let start = format!(
        "start pool --set max-num-seqs=1 --auto-approve --watch -o json --decision 1s {HOW}"
    );
    let (code, said) = pool.workflow(&start).await;
    let got = pool.got().await;
    assert_eq!(code, 5, "{said}\n{got:#}");
    assert_eq!(got["status"], "ROLLED_BACK", "{got:#}");
    assert_eq!(got["failure"]["reason"], "HARMED", "{got:#}");
    assert_eq!(got["verdicts"][0]["verdict"], "FAIL", "{got:#}");
    // written and restored
    assert_eq!(pool.applies().await, [2, 0, 0]);
    let (_, page) = pool.workflow("get pool").await;
    assert!(page.contains("Part 1: FAIL"), "{page}");
}

#[tokio::test]
async fn somebody_lets_it_go_further_where_that_is_asked_for() {
    let pool = pool().await;
    let start = format!("start pool --set max-num-seqs=32 --gate-before-rollout {HOW}");
    let (code, said) = pool.workflow(&start).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = pool.workflow("approve pool --yes").await;
    assert_eq!(code, 0, "{said}");
    let gate = loop {
        let got = pool.got().await;
        let status = got["status"].as_str().unwrap_or_default().to_owned();
        match status.as_str() {
            "PENDING_APPROVAL" => break got,
            "APPROVED" | "IN_PROGRESS" => {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            other => panic!("{other}: {got:#}"),
        }
    };
    assert_eq!(gate["gate"]["kind"], "BEFORE_ROLLOUT");
    assert_eq!(gate["current_stage"], "VALIDATION");
    assert_eq!(pool.applies().await, [1, 0, 0]);
    let (code, said) = pool.workflow("reject pool --note no").await;
    assert_eq!(code, 0, "{said}");
    let (code, _) = pool.workflow("watch pool").await;
    assert_eq!(code, 5);
    assert_eq!(pool.applies().await, [2, 0, 0]);
}
