//! What is shown of workflows: pure functions from messages to text, held against golden files.

use super::draw::{Canvas, View};
use super::example::{at, completed, events, golden, now, pending, stuck};
use super::page::{Told, commands, event_line, render, table};
use super::reach::json_of;
use crate::edge::cli::json;
use crate::edge::grpc::pb;

const SERVER: &str = " --server 127.0.0.1:9999";

fn told<'a>(of: &'a pb::Workflow, seconds: u64) -> Told<'a> {
    Told {
        of,
        now: now(seconds),
        server: SERVER,
    }
}

fn canvas(height: usize, width: usize, seconds: u64) -> Canvas<'static> {
    Canvas {
        height,
        width,
        colour: false,
        now: now(seconds),
        server: SERVER,
    }
}

/// A view after so many of the events.
fn view(of: pb::Workflow, told: usize) -> View {
    let mut view = View::default();
    view.is(of);
    events()
        .into_iter()
        .take(told)
        .for_each(|event| view.took(event));
    view
}

#[test]
fn the_page_says_what_it_waits_for_and_how_to_approve() {
    let page = render(&told(&pending(), 30), false);
    golden("workflow-pending.txt", &page);
    let approve = format!(
        "perfagent workflow approve {} --etag 9b1c04d27f3e8a65{SERVER}",
        super::example::ID
    );
    assert!(page.contains(&approve), "{page}");
}

#[test]
fn the_page_shows_the_gain_beside_what_was_predicted() {
    let page = render(&told(&completed(), 200), false);
    golden("workflow-completed.txt", &page);
    assert!(
        page.contains("in the interval") && page.contains("OUTSIDE the interval"),
        "{page}"
    );
    golden(
        "workflow-rollback-failed.txt",
        &render(&told(&stuck(), 200), false),
    );
}

#[test]
fn the_live_view_is_drawn_from_what_is_known() {
    let drawn = |of: View, on: Canvas<'_>| of.lines(&on).join("\n") + "\n";
    golden(
        "workflow-live-pending.txt",
        &drawn(view(pending(), 3), canvas(48, 100, 30)),
    );
    golden(
        "workflow-live-completed.txt",
        &drawn(view(completed(), 8), canvas(48, 100, 200)),
    );
    let mut lost = view(pending(), 3);
    lost.trouble = Some("connection refused\u{1b}[2J".to_owned());
    let mut other = pending();
    other.workflow_id = "0197c1a2-ffff-7d58-8f64-2a0c1f7f2d10".to_owned();
    other.instance_id = "vllm-2".to_owned();
    lost.is(other);
    golden("workflow-live-lost.txt", &drawn(lost, canvas(24, 100, 30)));
}

#[test]
fn the_live_view_fits_every_terminal() {
    for (height, width) in [(1, 1), (2, 10), (5, 20), (24, 80), (60, 200)] {
        for colour in [false, true] {
            let on = Canvas {
                colour,
                ..canvas(height, width, 30)
            };
            let lines = view(pending(), 8).lines(&on);
            assert!(
                lines.len() <= height,
                "{height} x {width}: {} lines",
                lines.len()
            );
            for line in &lines {
                let plain = uncoloured(line);
                assert!(
                    plain.chars().count() <= width,
                    "{height} x {width}: {plain}"
                );
            }
        }
    }
    let last = |view: View| view.lines(&canvas(24, 80, 30)).pop().unwrap();
    assert!(last(view(pending(), 8)).starts_with("Ctrl-C"));
    assert!(View::default().lines(&canvas(24, 80, 30))[0].contains("no workflow"));
}

fn uncoloured(line: &str) -> String {
    let parts = line.split('\u{1b}').enumerate();
    let parts = parts.map(|(place, part)| match place {
        0 => part,
        _ => part.split_once('m').map_or("", |(_, rest)| rest),
    });
    parts.collect()
}

#[test]
fn each_verb_that_is_offered_can_be_typed() {
    let typed = |of: &pb::Workflow| -> Vec<String> {
        let words = |line: &str| line.split(' ').nth(2).unwrap_or_default().to_owned();
        commands(&told(of, 0))
            .iter()
            .map(|line| words(line))
            .collect()
    };
    assert_eq!(typed(&pending()), ["approve", "reject", "cancel"]);
    assert_eq!(typed(&stuck()), ["rollback", "cancel"]);
    assert!(commands(&told(&stuck(), 0))[1].contains("--acknowledge"));
    let mut paused = pending();
    let waiting = paused.waiting_for.as_mut().unwrap();
    waiting.verbs = ["RESUME", "PAUSE", "SOMETHING_LATER"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(typed(&paused), ["resume", "pause"]);
    assert!(commands(&told(&completed(), 0)).is_empty());
}

#[test]
fn events_and_lists_are_a_line_each() {
    let lines: String = events().iter().map(event_line).collect();
    golden("workflow-events.txt", &lines);
    golden(
        "workflow-list.txt",
        &table(&[pending(), completed(), stuck()], now(200)),
    );
    let mut failed = events().remove(0);
    failed.failure = stuck().failure;
    failed.message = "a\nb".to_owned();
    let line = event_line(&failed);
    assert!(
        line.contains("(ACTUATOR_TIMED_OUT: the program") && line.lines().count() == 1,
        "{line}"
    );
}

#[test]
fn the_json_of_each_command_is_fixed() {
    let get = pb::GetWorkflowResponse {
        workflow: Some(completed()),
    };
    golden(
        "workflow-get.json",
        &json_of("GetWorkflowResponse", &get).unwrap(),
    );
    let start = pb::StartWorkflowResponse {
        workflow: Some(pending()),
    };
    golden(
        "workflow-start.json",
        &json_of("StartWorkflowResponse", &start).unwrap(),
    );
    let short = |of: pb::Workflow| pb::Workflow {
        plan: None,
        effects: None,
        optimizations: Vec::new(),
        ..of
    };
    let list = pb::ListWorkflowsResponse {
        workflows: vec![short(pending()), short(stuck())],
        next_page_token: String::new(),
    };
    golden(
        "workflow-list.json",
        &json_of("ListWorkflowsResponse", &list).unwrap(),
    );
    let approve = pb::ApproveWorkflowResponse {
        workflow: Some(short(pending())),
    };
    golden(
        "workflow-approve.json",
        &json_of("ApproveWorkflowResponse", &approve).unwrap(),
    );
    let snapshot = pb::ConfigSnapshot {
        snapshot_id: "0197c1a2-6a55-7000-8000-000000000001".to_owned(),
        instance_id: "vllm-1".to_owned(),
        actuator: "simulator".to_owned(),
        create_time: at(3),
        created_by: "perfagent".to_owned(),
        workflow_id: super::example::ID.to_owned(),
        targets: vec![pb::ConfigSnapshotTarget {
            name: "vllm-1-0".to_owned(),
            revision: "r1".to_owned(),
            digest: "00".repeat(32),
            launch_args: vec!["--max-num-seqs".to_owned(), "4".to_owned()],
        }],
        ..pb::ConfigSnapshot::default()
    };
    let snapshots = pb::ListConfigSnapshotsResponse {
        snapshots: vec![snapshot],
        next_page_token: String::new(),
    };
    golden(
        "workflow-snapshots.json",
        &json_of("ListConfigSnapshotsResponse", &snapshots).unwrap(),
    );
}

#[test]
fn a_watch_is_an_object_a_line() {
    use pb::watch_workflow_response::Told as Message;
    let first = events().remove(0);
    let told = [
        (
            0,
            Message::Snapshot(pb::Workflow {
                plan: None,
                ..pending()
            }),
        ),
        (1, Message::Event(first)),
        (1, Message::Bookmark(pb::WatchBookmark { synced: true })),
    ];
    let lines = told.map(|(revision, told)| {
        let message = pb::WatchWorkflowResponse {
            revision,
            told: Some(told),
        };
        let value = json::to_json("perfagent.v1.WatchWorkflowResponse", &message).unwrap();
        json::line_of(&value)
    });
    assert!(lines.iter().all(|line| line.lines().count() == 1));
    golden("workflow-watch.jsonl", &lines.concat());
}

#[test]
fn nothing_from_outside_controls_the_terminal() {
    let bad = "x\u{1b}]0;y\u{7}\u{202e}".to_owned();
    let mut of = stuck();
    of.workflow_id = bad.clone();
    of.instance_id = bad.clone();
    of.headline = bad.clone();
    of.note = bad.clone();
    of.started_by = bad.clone();
    of.actuator = bad.clone();
    of.findings[0].description = bad.clone();
    of.optimizations[1].title = bad.clone();
    of.targets[0].name = bad.clone();
    of.waiting_for.as_mut().unwrap().what = bad.clone();
    of.failure.as_mut().unwrap().message = bad.clone();
    let plan = of.plan.as_mut().unwrap();
    plan.etag = bad.clone();
    plan.snapshot_id = bad.clone();
    plan.targets[0].launch_args.push(bad.clone());
    let mut view = view(of.clone(), 0);
    let mut event = events().remove(0);
    event.message = bad.clone();
    event.r#type = bad.clone();
    event.actor = bad;
    let line = event_line(&event);
    view.took(event);
    let shown = [
        render(&told(&of, 100), false),
        table(&[of], now(100)),
        line,
        view.lines(&canvas(60, 200, 100)).join("\n"),
    ];
    for text in shown {
        assert!(
            !text.contains(|char: char| char != '\n' && crate::edge::cli::terminal::controls(char)),
            "{text}"
        );
    }
}
