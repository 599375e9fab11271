//! `perfagent workflow` as a user types it, against an agent of which a test says what it does.

use std::io::{Read, Write};
use std::process::{Output, Stdio};

use perfagent::edge::grpc::pb;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::{command, run, text};
use crate::descriptor::terminal;
use crate::scripted::{Fake, ID, OTHER, pending, workflow};

fn code(of: &Output) -> i32 {
    of.status.code().unwrap()
}

/// The types of the events that were printed.
fn events_in(out: &str) -> Vec<String> {
    let words = out.lines().flat_map(str::split_whitespace);
    words
        .filter(|word| word.starts_with("event"))
        .map(str::to_owned)
        .collect()
}

fn expected(events: u64) -> Vec<String> {
    (1..=events)
        .map(|number| format!("event{number}"))
        .collect()
}

#[tokio::test]
async fn start_prints_the_plan_and_the_command_that_approves_it() {
    let fake = Fake::start(vec![pending()]).await;
    let started = fake
        .run(&[
            "start",
            "vllm-1",
            "--set",
            "max-num-seqs=32",
            "--unset",
            "seed",
        ])
        .await;
    assert_eq!(code(&started), 0, "{}", text(&started.stderr));
    let out = text(&started.stdout);
    assert!(out.starts_with(&format!("started {ID}\n")), "{out}");
    let approve = format!(
        "perfagent workflow approve {ID} --etag e1 --server {}\n",
        fake.address
    );
    assert!(out.contains(&approve), "{out}");
    let asked = fake.asked().concat();
    assert!(
        asked.starts_with("start_workflow vllm-1 config_change "),
        "{asked}"
    );
    assert!(
        asked.contains("max-num-seqs") && asked.contains("NullValue"),
        "{asked}"
    );
    let json = fake.run(&["start", "vllm-1", "-o", "json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["workflow"]["workflow_id"], ID);
    assert!(fake.asked()[1].starts_with("start_workflow vllm-1 optimization "));
    let wrong = fake
        .run(&["start", "vllm-1", "--type", "analysis", "--set", "a=1"])
        .await;
    assert_eq!(code(&wrong), 2);
}

#[tokio::test]
async fn nothing_is_approved_unread() {
    let fake = Fake::start(vec![pending()]).await;
    let refused = fake.run(&["approve", ID]).await;
    assert_eq!(code(&refused), 2);
    let hint = text(&refused.stderr);
    assert!(
        hint.contains("--etag e1") && hint.contains("--yes"),
        "{hint}"
    );
    assert!(fake.asked().is_empty());
    for how in [&["--yes"][..], &["--etag", "e1"]] {
        let approved = fake.run(&[&["approve", "vllm-1"], how].concat()).await;
        assert_eq!(code(&approved), 0, "{}", text(&approved.stderr));
        assert!(text(&approved.stdout).starts_with(&format!("approved {ID}\n")));
    }
    assert_eq!(fake.asked(), vec![format!("approve_workflow {ID} e1"); 2]);
}

#[tokio::test]
async fn on_a_terminal_the_plan_is_shown_and_asked_about() {
    for (answer, asked) in [("maybe\nyes\n", 1), ("no\n", 0)] {
        let fake = Fake::start(vec![pending()]).await;
        let (end, mut other_end) = terminal();
        let mut child = command()
            .args(["workflow", "approve", "latest", "--server", &fake.address])
            .stdin(Stdio::from(end.try_clone().unwrap()))
            .stdout(Stdio::from(end))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        other_end.write_all(answer.as_bytes()).unwrap();
        let ended = child.wait().await.unwrap();
        assert_eq!(ended.code().unwrap(), i32::from(asked == 0), "{answer}");
        // in parts; after the last, what was a terminal is an error
        let mut shown = Vec::new();
        let _ = other_end.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        assert!(
            shown.contains("Raise --max-num-seqs") && shown.contains("Approve this plan?"),
            "{shown}"
        );
        assert_eq!(fake.asked().len(), asked, "{answer}");
    }
}

#[tokio::test]
async fn a_workflow_is_found_by_its_instance_where_one_is_meant() {
    let done = workflow(OTHER, "vllm-2", pb::WorkflowStatus::Completed);
    let fake = Fake::start(vec![pending(), done.clone()]).await;
    for (verb, reference, id) in [
        ("reject", "vllm-1", ID),
        ("pause", "latest", ID),
        // none is under way: the last one
        ("rollback", "vllm-2", OTHER),
        ("resume", OTHER, OTHER),
    ] {
        let told = fake.run(&[verb, reference, "--note", "n"]).await;
        assert_eq!(code(&told), 0, "{}", text(&told.stderr));
        assert_eq!(
            fake.asked().last().unwrap(),
            &format!("{verb}_workflow {id} n")
        );
    }
    fake.run(&["cancel", "vllm-1", "--acknowledge"]).await;
    assert_eq!(
        fake.asked().last().unwrap(),
        &format!("cancel_workflow {ID} true")
    );
    let none = fake.run(&["get", "vllm-3"]).await;
    assert_eq!(code(&none), 1);
    assert!(text(&none.stderr).contains("vllm-3"));
    let second = workflow(OTHER, "vllm-2", pb::WorkflowStatus::Paused);
    let fake = Fake::start(vec![pending(), second]).await;
    let many = fake.run(&["cancel", "latest"]).await;
    assert_eq!(code(&many), 2);
    assert!(text(&many.stderr).contains(ID) && text(&many.stderr).contains(OTHER));
    assert!(fake.asked().is_empty());
    // looking does no harm
    assert_eq!(code(&fake.run(&["get", "latest"]).await), 0);
}

#[tokio::test]
async fn a_watch_goes_on_after_the_last_event_and_says_how_it_ended() {
    use pb::WorkflowStatus as Status;
    for (status, exit) in [
        (Status::Completed, 0),
        (Status::Failed, 1),
        (Status::Rejected, 4),
        (Status::RolledBack, 5),
        (Status::RollbackFailed, 6),
    ] {
        let fake = Fake::start(vec![workflow(ID, "vllm-1", status)]).await;
        fake.with_events(7);
        fake.shared.lock().unwrap().breaks = vec![3, 0, 2];
        let watched = fake.run(&["watch", "vllm-1"]).await;
        assert_eq!(code(&watched), exit, "{}", text(&watched.stderr));
        assert_eq!(events_in(&text(&watched.stdout)), expected(7));
        // streams that have lived their time are no trouble
        assert_eq!(text(&watched.stderr), "");
        let begun = [0, 3, 3, 5].map(|after| format!("watch_workflow {after}"));
        assert_eq!(fake.asked(), begun);
    }
}

#[tokio::test]
async fn a_watch_outlives_the_agent() {
    let mut fake = Fake::start(vec![workflow(ID, "vllm-1", pb::WorkflowStatus::InProgress)]).await;
    fake.with_events(2);
    fake.shared.lock().unwrap().hangs = true;
    let mut child = command()
        .args([
            "workflow",
            "watch",
            ID,
            "--output",
            "json",
            "--server",
            &fake.address,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(out.next_line().await.unwrap().unwrap());
    }
    fake.kill();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let lost = errors.next_line().await.unwrap().unwrap();
    assert!(lost.contains("agent not reachable, retrying"), "{lost}");
    fake.with_events(4);
    {
        let mut script = fake.shared.lock().unwrap();
        script.hangs = false;
        script.workflows = vec![workflow(ID, "vllm-1", pb::WorkflowStatus::Completed)];
    }
    fake.restart().await;
    while let Some(line) = out.next_line().await.unwrap() {
        told.push(line);
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let types = told
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let types: Vec<String> = types
        .map(|message| message["event"]["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, expected(4));
}

#[tokio::test]
async fn a_watch_gives_up_when_told_to() {
    let mut fake = Fake::start(vec![pending()]).await;
    fake.with_events(1);
    fake.shared.lock().unwrap().hangs = true;
    let mut child = command()
        .args([
            "workflow",
            "watch",
            ID,
            "--give-up-after",
            "1s",
            "--server",
            &fake.address,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    out.next_line().await.unwrap().unwrap();
    fake.kill();
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    // what no retry mends ends it at once
    let fake = Fake::start(vec![pending()]).await;
    let refused = fake.run(&["watch", "--all"]).await;
    assert_eq!(code(&refused), 1);
    assert!(
        text(&refused.stderr).contains("wants to know who calls"),
        "{}",
        text(&refused.stderr)
    );
}

#[tokio::test]
async fn the_whole_log_is_printed_page_by_page() {
    let fake = Fake::start(vec![pending()]).await;
    fake.with_events(5);
    let all = fake.run(&["events", ID]).await;
    assert_eq!(events_in(&text(&all.stdout)), expected(5));
    let json = fake
        .run(&["events", "--all", "--after-revision", "3", "-o", "json"])
        .await;
    let revisions = text(&json.stdout);
    let revisions = revisions
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let revisions: Vec<u64> = revisions
        .map(|event| event["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(revisions, [4, 5]);
    // one subject, and not two
    assert_eq!(code(&fake.run(&["events", ID, "--all"]).await), 2);
    assert_eq!(code(&fake.run(&["events"]).await), 2);
}

#[tokio::test]
async fn help_teaches_each_of_them() {
    for (verb, word) in [
        ("start", "--validate-only"),
        ("approve", "PLAN_CHANGED"),
        ("reject", "REJECTED"),
        ("pause", "Deadlines stop"),
        ("resume", "rollback"),
        ("cancel", "--acknowledge"),
        ("rollback", "byte for byte"),
        ("get", "latest"),
        ("list", "--status"),
        ("watch", "6 ROLLBACK_FAILED"),
        ("events", "--after-revision"),
        ("snapshot", "--snapshot ID"),
        ("snapshots", "newest first"),
    ] {
        let help = text(&run(&["workflow", verb, "--help"]).await.stdout);
        // as wide as the terminal has it
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.contains("Example") && help.contains(word),
            "{verb}: {help}"
        );
    }
}
