//! `perfagent workflow snapshot` and `snapshots`

use std::time::{Duration, SystemTime};

use clap::Args;

use super::reach::{READ_DEADLINE, Reached, json_of, request};
use super::words::{age, span};
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::terminal::{clean, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::pb;

/// Flags of `perfagent workflow snapshot`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent workflow snapshot vllm-1 --note 'before the launch'

A workflow keeps the settings from before by itself. `perfagent workflow start INSTANCE --snapshot ID` restores any of them.

Exit codes: 0 kept; 1 failed; 2 wrong usage or configuration."
)]
pub(in crate::edge::cli) struct SnapshotArgs {
    /// Instance that has an actuator
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// Why, for those who read it later
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    note: String,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The actuator may be a program that takes its time.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn take(args: SnapshotArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let call = request(
        pb::CreateConfigSnapshotRequest {
            instance_id: args.instance,
            note: args.note,
        },
        DEADLINE,
    );
    let answer = reached.client().create_config_snapshot(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    match args.output {
        Output::Json => print(&json_of("CreateConfigSnapshotResponse", &answer)?),
        Output::Table => print(&details(
            &answer.snapshot.unwrap_or_default(),
            &reached.server,
        )),
    }
    Ok(Outcome::Done)
}

fn details(of: &pb::ConfigSnapshot, server: &str) -> String {
    let (id, instance) = (clean(&of.snapshot_id), clean(&of.instance_id));
    let mut text = format!("kept {id}\n");
    for target in &of.targets {
        let words: Vec<String> = target.launch_args.iter().map(|word| clean(word)).collect();
        text += &format!("  {}: {}\n", clean(&target.name), words.join(" "));
    }
    text += &format!("restore: perfagent workflow start {instance} --snapshot {id}{server}\n");
    text
}

/// Flags of `perfagent workflow snapshots`.
#[derive(Debug, Args)]
#[command(after_help = "Example: perfagent workflow snapshots vllm-1

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.")]
pub(in crate::edge::cli) struct SnapshotsArgs {
    /// Only those of this instance
    #[arg(value_name = "INSTANCE")]
    instance: Option<String>,
    /// How many at most, the newest first
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn list(args: SnapshotsArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let mut all = pb::ListConfigSnapshotsResponse::default();
    while all.snapshots.len() < args.limit {
        let left = args.limit.saturating_sub(all.snapshots.len());
        let call = request(
            pb::ListConfigSnapshotsRequest {
                page_size: u32::try_from(left.min(MOST_A_PAGE)).unwrap_or(0),
                page_token: std::mem::take(&mut all.next_page_token),
                instance_id: args.instance.clone().unwrap_or_default(),
            },
            READ_DEADLINE,
        );
        let page = reached.client().list_config_snapshots(call).await;
        let page = page.map_err(|status| reached.failed(&status))?.into_inner();
        all.snapshots.extend(page.snapshots);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    match args.output {
        Output::Json => print(&json_of("ListConfigSnapshotsResponse", &all)?),
        Output::Table => print(&table(&all, SystemTime::now())),
    }
    Ok(Outcome::Done)
}

/// The agent gives no more at once.
const MOST_A_PAGE: usize = 100;

fn table(of: &pb::ListConfigSnapshotsResponse, now: SystemTime) -> String {
    if of.snapshots.is_empty() {
        return "no kept settings; `perfagent workflow snapshot INSTANCE` keeps some\n".to_owned();
    }
    let head = [
        "SNAPSHOT",
        "INSTANCE",
        "AGE",
        "BY",
        "OF WORKFLOW",
        "TARGETS",
        "NOTE",
    ];
    let row = |one: &pb::ConfigSnapshot| {
        [
            clean(&one.snapshot_id),
            clean(&one.instance_id),
            one.create_time
                .map_or_else(String::new, |at| span(age(at, now))),
            clean(&one.created_by),
            match one.workflow_id.as_str() {
                "" => "-".to_owned(),
                id => clean(id),
            },
            one.targets.len().to_string(),
            clean(&one.note),
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head.map(str::to_owned))
        .chain(of.snapshots.iter().map(row))
        .collect();
    let mut text = aligned(&rows);
    if !of.next_page_token.is_empty() {
        text += "there are more; raise --limit\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_settings_say_how_to_restore_them() {
        let snapshot = pb::ConfigSnapshot {
            snapshot_id: "0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10".to_owned(),
            instance_id: "vllm-1".to_owned(),
            targets: vec![pb::ConfigSnapshotTarget {
                name: "a\u{1b}".to_owned(),
                launch_args: vec!["--max-num-seqs".to_owned(), "4".to_owned()],
                ..pb::ConfigSnapshotTarget::default()
            }],
            ..pb::ConfigSnapshot::default()
        };
        let text = details(&snapshot, " --server h:1");
        let restore = "restore: perfagent workflow start vllm-1 --snapshot 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10 --server h:1\n";
        assert!(text.ends_with(restore), "{text}");
        assert!(text.contains("a\u{fffd}: --max-num-seqs 4\n"), "{text}");
        let page = table(
            &pb::ListConfigSnapshotsResponse {
                snapshots: vec![snapshot],
                next_page_token: "more".to_owned(),
            },
            SystemTime::UNIX_EPOCH,
        );
        assert!(page.ends_with("there are more; raise --limit\n"), "{page}");
        assert!(
            table(
                &pb::ListConfigSnapshotsResponse::default(),
                SystemTime::now()
            )
            .contains("snapshot INSTANCE")
        );
    }
}
