//! Every command in every state: which event comes of it, or why it is refused.

use std::collections::BTreeSet;

use super::example::{
    BEGIN_US, RUNNER, Run, SECOND_US, analysis, canaried, draft, drifted, effects, failure,
    observation, report, spec, start, written,
};
use super::table_rows::{REPORTS, VERBS};
use crate::workflow::{
    Command, GateKind, GateState, Pause, PauseReason, Phase, RecordedEvent, RefusalReason, Status,
    TargetPhase, Verb, Workflow, WorkflowKind, decide, evolve,
};

/// A match that names each of a closed set, and all the names: what is added to the set has to be added here.
macro_rules! names {
    ($fun:ident, $all:ident, $of:ty, { $($pattern:pat => $name:literal,)+ }) => {
        fn $fun(one: &$of) -> &'static str {
            match one { $($pattern => $name,)+ }
        }
        const $all: &[&str] = &[$($name,)+];
    };
}

names!(phase_name, PHASES, Phase, {
    Phase::Analysing => "analysing",
    Phase::Planning => "planning",
    Phase::AwaitingApproval => "awaiting_approval",
    Phase::Approved => "approved",
    Phase::RollingOut => "rolling_out",
    Phase::Draining { .. } => "draining",
    Phase::Writing { .. } => "writing",
    Phase::AwaitingReady { .. } => "awaiting_ready",
    Phase::Observing => "observing",
    Phase::CheckingQuality => "checking_quality",
    Phase::AwaitingPromotion => "awaiting_promotion",
    Phase::Measuring => "measuring",
    Phase::RollingBack => "rolling_back",
    Phase::Restoring { .. } => "restoring",
    Phase::AwaitingRestored { .. } => "awaiting_restored",
    Phase::Ended { status: Status::Rejected } => "rejected",
    Phase::Ended { status: Status::Completed } => "completed",
    Phase::Ended { status: Status::Failed } => "failed",
    Phase::Ended { status: Status::Cancelled } => "cancelled",
    Phase::Ended { status: Status::RolledBack } => "rolled_back",
    Phase::Ended { status: Status::RollbackFailed } => "rollback_failed",
    Phase::Ended {
        status: Status::PendingApproval | Status::Approved | Status::InProgress | Status::Paused
    } => "no end",
});

names!(command_name, COMMANDS, Command, {
    Command::Start { .. } => "start",
    Command::Approve { .. } => "approve",
    Command::Reject { .. } => "reject",
    Command::Pause { .. } => "pause",
    Command::Resume { .. } => "resume",
    Command::Cancel { .. } => "cancel",
    Command::Rollback { .. } => "rollback",
    Command::Analysed(_) => "analysed",
    Command::Planned(_) => "planned",
    Command::NothingToDo { .. } => "nothing_to_do",
    Command::Intend { .. } => "intend",
    Command::PlanOutdated { .. } => "plan_outdated",
    Command::Written { .. } => "written",
    Command::Ready => "ready",
    Command::Drain { .. } => "drain",
    Command::Observed(_) => "observed",
    Command::QualityChecked(_) => "quality_checked",
    Command::Measured(_) => "measured",
    Command::Drifted { .. } => "drifted",
    Command::AllRestored => "all_restored",
    Command::Fail(_) => "fail",
    Command::TimeOver { .. } => "time_over",
});

fn phases() -> Vec<Phase> {
    let ended = Status::ALL.iter().filter(|status| status.has_ended());
    let mut phases = vec![
        Phase::Analysing,
        Phase::Planning,
        Phase::AwaitingApproval,
        Phase::Approved,
        Phase::RollingOut,
        Phase::Draining { target: 0 },
        Phase::Writing { target: 0 },
        Phase::AwaitingReady { target: 0 },
        Phase::Observing,
        Phase::CheckingQuality,
        Phase::AwaitingPromotion,
        Phase::Measuring,
        Phase::RollingBack,
        Phase::Restoring { target: 0 },
        Phase::AwaitingRestored { target: 0 },
    ];
    phases.extend(ended.map(|status| Phase::Ended { status: *status }));
    phases
}

/// The command of a column. `approve~` has the etag of another plan, `cancel!` acknowledges.
fn command(column: &str, state: &Workflow) -> Command {
    let note = String::new();
    match column {
        "start" => start(spec(WorkflowKind::Optimization)),
        "approve" => Command::Approve {
            etag: state.plan.as_ref().unwrap().etag.clone(),
            note,
        },
        "approve~" => Command::Approve {
            etag: "another".to_owned(),
            note,
        },
        "reject" => Command::Reject { note },
        "pause" => Command::Pause { note },
        "resume" => Command::Resume { note },
        "cancel" => Command::Cancel {
            acknowledge: false,
            note,
        },
        "cancel!" => Command::Cancel {
            acknowledge: true,
            note,
        },
        "rollback" => Command::Rollback { note },
        "analysed" => Command::Analysed(Box::new(analysis())),
        "planned" => Command::Planned(Box::new(draft(2))),
        "nothing_to_do" => Command::NothingToDo { headline: note },
        "intend" => Command::Intend {
            epoch: 3,
            baseline: None,
        },
        "plan_outdated" => Command::PlanOutdated { message: note },
        "written" => written(),
        "ready" => Command::Ready,
        "drain" => Command::Drain {
            leaves_traffic: false,
        },
        "observed" => Command::Observed(Box::new(observation(0, 1.0))),
        "quality_checked" => Command::QualityChecked(Box::new(report(true))),
        "measured" => Command::Measured(Some(Box::new(effects()))),
        "drifted" => drifted(Some(0)),
        "all_restored" => Command::AllRestored,
        "fail" => Command::Fail(failure()),
        "time_over" => Command::TimeOver { problem: None },
        column => panic!("column {column}"),
    }
}

/// A state of the table: phase, paused or not and why, and whether something is touched.
struct Case {
    phase: &'static str,
    pause: &'static str,
    touched: &'static str,
    state: Workflow,
}

fn cases() -> Vec<Case> {
    let reasons = PauseReason::ALL.iter().map(|reason| Some(*reason));
    let pauses: Vec<Option<PauseReason>> = std::iter::once(None).chain(reasons).collect();
    let mut cases = Vec::new();
    for phase in phases() {
        for pause in &pauses {
            if pause.is_some() && (phase.is_rollback() || matches!(phase, Phase::Ended { .. })) {
                continue;
            }
            for touched in [false, true] {
                cases.push(Case {
                    phase: phase_name(&phase),
                    pause: pause.map_or("no", PauseReason::as_str),
                    touched: if touched { "yes" } else { "no" },
                    state: state(phase, *pause, touched),
                });
            }
        }
    }
    cases
}

/// A state put together by hand, whether a log leads to it or not: every command has an answer in all of them. There are
/// two targets, and where something is touched that is the first. Where the phase has a deadline, it is over in a second.
fn state(phase: Phase, pause: Option<PauseReason>, touched: bool) -> Workflow {
    let mut state = Run::planned(canaried(), 2).state().clone();
    state.phase = phase;
    state.gate = Some(GateState {
        kind: GateKind::BeforeCanary,
        since_us: BEGIN_US,
        approvals: Vec::new(),
    });
    if touched {
        state.targets[0].phase = TargetPhase::Writing;
    }
    let timed = !matches!(
        phase,
        Phase::Approved | Phase::RollingOut | Phase::Draining { .. } | Phase::Ended { .. }
    );
    state.deadline_us = (timed && pause.is_none()).then_some(BEGIN_US + SECOND_US);
    state.pause = pause.map(|reason| Pause {
        reason,
        message: String::new(),
        by: "carol".to_owned(),
        since_us: BEGIN_US,
        left_us: timed.then_some(SECOND_US),
    });
    state
}

/// What comes of a command: the kind of the event, or the reason with `!` before it.
fn answer(state: &Workflow, column: &str, now_us: i64) -> String {
    let command = command(column, state);
    match decide(Some(state), &command, "dave", now_us) {
        Ok(event) => {
            let recorded = RecordedEvent {
                workflow_id: state.workflow_id.clone(),
                instance_id: state.spec.instance_id.clone(),
                revision: state.revision + 1,
                sequence: state.sequence + 1,
                at_us: now_us,
                actor: RUNNER.to_owned(),
                event: event.clone(),
            };
            let after = evolve(Some(state.clone()), &recorded).unwrap();
            assert_eq!(after.sequence, recorded.sequence);
            event.kind().to_owned()
        }
        Err(refusal) => {
            assert_eq!(refusal.status, Some(state.status()), "{refusal:?}");
            assert!(!refusal.message.is_empty());
            format!("!{:?}", refusal.reason)
        }
    }
}

/// A table: its columns of commands, and its rows, each with the states that it is of and what comes of each command.
struct Table {
    columns: Vec<&'static str>,
    rows: Vec<[Vec<&'static str>; 4]>,
}

fn table(text: &'static str) -> Table {
    let split = |line: &'static str| -> Vec<Vec<&'static str>> {
        let cells = line
            .split('|')
            .map(|cell| cell.split_whitespace().collect());
        cells.collect()
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let columns = split(lines.next().unwrap()).remove(3);
    let rows = lines.map(|line| <[_; 4]>::try_from(split(line)).expect(line));
    Table {
        columns,
        rows: rows.collect(),
    }
}

fn holds(cell: &[&str], word: &str) -> bool {
    cell.iter()
        .any(|one| *one == word || *one == "any" || (*one == "yes" && word != "no"))
}

fn check(table: &Table) {
    let now_us = BEGIN_US + 2 * SECOND_US;
    let mut used = BTreeSet::new();
    for case in cases() {
        let is_of = |row: &[Vec<&str>; 4]| {
            holds(&row[0], case.phase) && holds(&row[1], case.pause) && holds(&row[2], case.touched)
        };
        let of: Vec<usize> = (0..table.rows.len())
            .filter(|row| is_of(&table.rows[*row]))
            .collect();
        let name = format!(
            "{}, paused: {}, touched: {}",
            case.phase, case.pause, case.touched
        );
        assert_eq!(of.len(), 1, "{name} has rows {of:?}");
        used.insert(of[0]);
        let expected = &table.rows[of[0]][3];
        assert_eq!(expected.len(), table.columns.len(), "row of {name}");
        for (column, expected) in table.columns.iter().zip(expected) {
            let answer = answer(&case.state, column, now_us);
            assert_eq!(answer, *expected, "{column} while {name}");
        }
    }
    assert_eq!(used.len(), table.rows.len(), "rows that are of no state");
}

#[test]
fn every_verb_is_legal_or_refused_in_every_state() {
    check(&table(VERBS));
}

#[test]
fn every_report_is_taken_or_refused_in_every_state() {
    check(&table(REPORTS));
}

#[test]
fn the_tables_have_every_command_and_every_phase() {
    let (verbs, reports) = (table(VERBS), table(REPORTS));
    let columns = verbs.columns.iter().chain(&reports.columns);
    let state = state(Phase::Analysing, None, false);
    let known: BTreeSet<&str> = columns
        .map(|column| command_name(&command(column, &state)))
        .collect();
    assert_eq!(known, COMMANDS.iter().copied().collect());
    let known: BTreeSet<&str> = phases().iter().map(phase_name).collect();
    let all: BTreeSet<&str> = PHASES.iter().copied().collect();
    assert_eq!(
        known,
        all.into_iter().filter(|name| *name != "no end").collect()
    );
    for verb in Verb::ALL {
        let name = verb.as_str().to_lowercase();
        assert!(verbs.columns.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn before_its_time_is_over_time_over_is_late() {
    for case in cases() {
        let before = answer(&case.state, "time_over", BEGIN_US + SECOND_US - 1);
        assert_eq!(before, "!Late", "{} {}", case.phase, case.pause);
    }
}

#[test]
fn of_no_workflow_only_start_is_legal() {
    let state = state(Phase::Analysing, None, false);
    for column in table(VERBS).columns.iter().chain(&table(REPORTS).columns) {
        let command = command(column, &state);
        match decide(None, &command, "dave", BEGIN_US) {
            Ok(event) => assert_eq!((*column, event.kind()), ("start", "started")),
            Err(refusal) => assert_eq!(refusal.reason, RefusalReason::Late, "{column}"),
        }
    }
}
