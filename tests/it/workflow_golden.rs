//! Golden logs of workflows: what was once written is read for ever, and leads to what it led to.
//!
//! `tests/fixtures/workflow/NAME.jsonl` is a log, a line an event, `event` as the store keeps it; `NAME.summary.json` is
//! what it leads to. An existing line must never change, nor a summary: there are stores that hold such events. If this test
//! fails, the code is wrong. `UPDATE_GOLDEN=1` writes the files of new runs, and touches none that is there.

#[path = "workflow_golden/plans.rs"]
mod plans;
#[path = "workflow_golden/runs.rs"]
mod runs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use perfagent::workflow::{
    Event, EventError, RecordedEvent, Workflow, decode_event, encode_event, evolve, progress,
};
use serde_json::{Value, json};

/// Every type of event that has ever been written.
const TYPES: [&str; 21] = [
    "started",
    "analysed",
    "planned",
    "nothing_to_do",
    "approval_given",
    "approved",
    "rejected",
    "paused",
    "resumed",
    "cancelled",
    "plan_outdated",
    "write_intended",
    "written",
    "ready",
    "completed",
    "rollback_started",
    "restore_intended",
    "restored",
    "rolled_back",
    "rollback_failed",
    "failed",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/workflow")
}

/// An event with its place, as a line.
fn line(recorded: &RecordedEvent) -> String {
    let event = encode_event(&recorded.event).unwrap();
    let mut envelope = json!({
        "workflow_id": recorded.workflow_id,
        "instance_id": recorded.instance_id,
        "revision": recorded.revision,
        "sequence": recorded.sequence,
        "at_us": recorded.at_us,
        "actor": recorded.actor,
    });
    envelope["event"] = serde_json::from_str(&event).unwrap();
    envelope.to_string()
}

fn read(line: &str) -> Result<RecordedEvent, EventError> {
    let envelope: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| envelope[name].as_str().unwrap().to_owned();
    Ok(RecordedEvent {
        workflow_id: text("workflow_id"),
        instance_id: text("instance_id"),
        revision: envelope["revision"].as_u64().unwrap(),
        sequence: envelope["sequence"].as_u64().unwrap(),
        at_us: envelope["at_us"].as_i64().unwrap(),
        actor: text("actor"),
        event: decode_event(&envelope["event"].to_string())?,
    })
}

fn fold(log: &str) -> Workflow {
    let fold = |state, line: &str| Some(evolve(state, &read(line).unwrap()).unwrap());
    log.lines().fold(None, fold).unwrap()
}

/// What a log leads to, in what callers see of it. Chosen here and not derived, so that a state may have more fields later;
/// without sentences, which may be put better later.
fn summary(log: &str, state: &Workflow) -> Value {
    let digest = perfagent::actuator::content_digest(log.as_bytes());
    let stages = state.stages.iter();
    let stages: Vec<String> = stages
        .map(|one| {
            let times = (one.started_us.unwrap_or(0), one.ended_us.unwrap_or(0));
            format!("{} {:?} {times:?}", one.stage.as_str(), one.status)
        })
        .collect();
    let targets = state.targets.iter();
    let targets: Vec<String> = targets
        .map(|one| {
            let operation = one.operation_id.as_deref().unwrap_or("none");
            let accepted = one.accepted_digest.as_deref().unwrap_or("none");
            format!(
                "{} {:?} {} by {operation}, accepted {accepted}",
                one.name, one.phase, one.revision
            )
        })
        .collect();
    let approvals = state.gate.iter().flat_map(|gate| &gate.approvals);
    let approvals: Vec<&str> = approvals.map(|one| one.principal.as_str()).collect();
    let rollback = state.rollback.as_ref().map(|one| {
        json!({"attempt": one.attempt, "cause": one.cause, "by": one.by, "overwrites": one.overwrites})
    });
    json!({
        "log_sha256": digest,
        "status": state.status().as_str(),
        "stage": state.stage().as_str(),
        "outcome": state.outcome.map(|outcome| outcome.as_str()),
        "progress": progress(state),
        "failure": state.failure,
        "stages": stages,
        "targets": targets,
        "operations": state.operations,
        "rollback": rollback,
        "etag": state.plan.as_ref().map(|plan| plan.etag.as_str()),
        "changes": state.plan.as_ref().map(|plan| plan.draft.changes.clone()),
        "optimizations": state.plan.as_ref().map(|plan| plan.draft.optimizations.len()),
        "approvals": approvals,
        "effects": state.effects,
        "baseline": state.baseline,
        "findings": state.analysis.as_ref().map_or(0, |analysis| analysis.findings.len()),
        "locks_instance": state.locks_instance(),
        "started_by": state.started_by,
        "sequence": state.sequence,
        "revision": state.revision,
        "updated_us": state.updated_us,
        "simulated": state.simulated,
    })
}

fn write_new_ones() {
    std::fs::create_dir_all(directory()).unwrap();
    for (name, log) in runs::all() {
        let path = directory().join(format!("{name}.jsonl"));
        if path.exists() {
            continue;
        }
        let log: String = log.iter().map(|event| line(event) + "\n").collect();
        let text = serde_json::to_string_pretty(&summary(&log, &fold(&log))).unwrap() + "\n";
        std::fs::write(&path, &log).unwrap();
        std::fs::write(path.with_extension("summary.json"), text).unwrap();
    }
}

fn logs() -> Vec<(PathBuf, String)> {
    let files = std::fs::read_dir(directory()).unwrap().flatten();
    let mut paths: Vec<PathBuf> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn logs_of_before_lead_to_what_they_led_to() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write_new_ones();
    }
    let logs = logs();
    for (path, log) in &logs {
        let kept = std::fs::read_to_string(path.with_extension("summary.json")).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        let now = summary(log, &fold(log));
        assert_eq!(now, kept, "{}", path.display());
    }
    let names: BTreeSet<&str> = logs
        .iter()
        .map(|(path, _)| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    for (name, _) in runs::all() {
        assert!(
            names.contains(name),
            "{name} has no log yet: UPDATE_GOLDEN=1 writes it"
        );
    }
}

#[test]
fn every_type_of_event_is_in_a_log() {
    let logs = logs();
    let lines = logs.iter().flat_map(|(_, log)| log.lines());
    let events: Vec<Event> = lines.map(|line| read(line).unwrap().event).collect();
    let kinds: BTreeSet<&str> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, TYPES.into());
    // and the type in the log is what the kind says
    for event in &events {
        let text: Value = serde_json::from_str(&encode_event(event).unwrap()).unwrap();
        assert_eq!(text["type"], event.kind());
    }
}

#[test]
fn a_log_of_a_newer_version_stops_with_a_clear_error() {
    let (_, log) = logs().swap_remove(0);
    let line = log.lines().next().unwrap();
    let newer = line.replace(r#""v":1"#, r#""v":2"#);
    let text = read(&newer).unwrap_err().to_string();
    assert!(text.contains("form 2") && text.contains("newer"), "{text}");
    let unknown = line.replace(r#""type":"started""#, r#""type":"promoted""#);
    assert_ne!(unknown, line);
    let text = read(&unknown).unwrap_err().to_string();
    assert!(
        text.contains("`promoted`") && text.contains("newer"),
        "{text}"
    );
    // what a newer version only adds is no reason to stop
    let more = line.replace(r#""v":1"#, r#""v":1,"colour":"red""#);
    assert_eq!(read(&more), read(line));
}

#[test]
fn a_log_with_a_gap_stops() {
    for (_, log) in logs() {
        let lines: Vec<&str> = log.lines().collect();
        let mut state = Some(evolve(None, &read(lines[0]).unwrap()).unwrap());
        let after_a_gap = read(lines[2]).unwrap();
        let error = evolve(state.take(), &after_a_gap).unwrap_err();
        assert!(matches!(error, EventError::OutOfPlace { .. }), "{error}");
    }
}
