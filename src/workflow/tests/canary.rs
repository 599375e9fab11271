//! Changes that go out part by part.

use super::example::{Run, canaried, observation, written};
use crate::workflow::VerdictWord;
use crate::workflow::{
    Baseline, Canary, Command, Event, GateKind, PauseReason, Phase, RefusalReason, RollbackCause,
    Stage, StageStatus, Status, Strategy, TargetPhase, WorkflowSpec, waiting_for,
};

/// As much better or worse first tokens come with the change.
const BETTER: f64 = 0.5;
const WORSE: f64 = 2.0;

fn with(change: impl FnOnce(&mut Canary)) -> WorkflowSpec {
    let mut spec = canaried();
    if let Strategy::Canary(canary) = &mut spec.strategy {
        change(canary);
    }
    spec
}

fn no_drain(canary: &mut Canary) {
    canary.drain_seconds = 0.0;
}

/// The next target gets the change.
fn write(run: &mut Run) {
    run.report(Command::Intend {
        epoch: 1,
        baseline: None,
    });
    run.report(written());
    run.report(Command::Ready);
}

/// One for four targets, of which the first has the change.
fn observing(spec: WorkflowSpec) -> Run {
    let mut run = Run::planned(spec, 4);
    run.approve("bob").unwrap();
    write(&mut run);
    assert_eq!(run.state().phase, Phase::Observing);
    run
}

/// Windows of a minute each until there is a verdict other than INCONCLUSIVE.
fn observe(run: &mut Run, ratio: f64) -> VerdictWord {
    let step = run.state().step;
    for at in 0..8 {
        run.report(Command::Observed(Box::new(observation(at, ratio))));
        let said = run.state().verdicts.get(&step).map(|verdict| verdict.word);
        match said {
            Some(word) if word != VerdictWord::Inconclusive => return word,
            _ => {}
        }
    }
    VerdictWord::Inconclusive
}

fn stage(run: &Run, stage: Stage) -> StageStatus {
    let found = run.state().stages.iter().find(|one| one.stage == stage);
    found.unwrap().status
}

fn touched(run: &Run) -> usize {
    let is_touched = |phase| phase != TargetPhase::Untouched;
    let targets = run.state().targets.iter();
    targets.filter(|target| is_touched(target.phase)).count()
}

#[test]
fn what_helps_goes_further_part_by_part() {
    let mut run = observing(with(no_drain));
    assert_eq!(run.state().canary().unwrap().steps, [1, 2, 4]);
    assert_eq!(run.state().stage(), Stage::Validation);
    assert_eq!(observe(&mut run, BETTER), VerdictWord::Pass);
    assert_eq!(
        (run.state().phase, run.state().step),
        (Phase::RollingOut, 1)
    );
    assert_eq!(run.state().stage(), Stage::Rollout);
    write(&mut run);
    assert_eq!(run.state().phase, Phase::Observing);
    assert!(run.state().observations.is_empty());
    assert_eq!(observe(&mut run, BETTER), VerdictWord::Pass);
    write(&mut run);
    assert_eq!(run.state().phase, Phase::RollingOut);
    write(&mut run);
    // nothing is left to hold the last part against
    assert_eq!(run.state().phase, Phase::Measuring);
    run.report(Command::Measured(None));
    for gone in [Stage::Canary, Stage::Validation, Stage::Rollout] {
        assert_eq!(stage(&run, gone), StageStatus::Done, "{gone:?}");
    }
    assert_eq!(run.state().verdicts.len(), 2);
}

#[test]
fn harm_is_undone_at_once_and_the_others_stay_untouched() {
    let mut run = observing(with(no_drain));
    assert_eq!(observe(&mut run, WORSE), VerdictWord::Fail);
    let state = run.state();
    assert_eq!(state.phase, Phase::RollingBack);
    assert_eq!(state.failure.as_ref().unwrap().reason, "HARMED");
    assert_eq!(
        state.rollback.as_ref().unwrap().cause,
        RollbackCause::Failure
    );
    assert_eq!(touched(&run), 1);
    assert_eq!(stage(&run, Stage::Validation), StageStatus::Failed);
    run.report(Command::Intend {
        epoch: 2,
        baseline: None,
    });
    run.report(written());
    run.report(Command::Ready);
    run.report(Command::AllRestored);
    assert_eq!(run.state().status(), Status::RolledBack);
    assert_eq!(touched(&run), 1);
}

#[test]
fn nothing_passes_before_late_harm_could_show() {
    let mut run = observing(with(no_drain));
    for at in 0..2 {
        run.report(Command::Observed(Box::new(observation(at, BETTER))));
        assert_eq!(run.state().phase, Phase::Observing, "look {at}");
    }
    run.report(Command::Observed(Box::new(observation(2, WORSE))));
    assert_ne!(run.state().step, 1);
}

#[test]
fn somebody_has_to_agree_before_the_rest_where_it_is_asked_for() {
    let gated = || {
        let mut run = observing(with(|canary| {
            no_drain(canary);
            canary.gate_before_rollout = true;
        }));
        assert_eq!(observe(&mut run, BETTER), VerdictWord::Pass);
        run
    };
    let mut run = gated();
    assert_eq!(run.state().phase, Phase::AwaitingPromotion);
    assert_eq!(run.state().status(), Status::PendingApproval);
    assert_eq!(run.state().stage(), Stage::Validation);
    let gate = run.state().gate.as_ref().unwrap();
    assert_eq!(
        (gate.kind, gate.approvals.len()),
        (GateKind::BeforeRollout, 0)
    );
    let another = Command::Approve {
        etag: "another".to_owned(),
        note: String::new(),
    };
    assert_eq!(
        run.ask("bob", &another).unwrap_err().reason,
        RefusalReason::PlanChanged
    );
    // who agreed to the plan may agree to this
    run.approve("bob").unwrap();
    assert_eq!(
        (run.state().phase, run.state().step),
        (Phase::RollingOut, 1)
    );
    write(&mut run);
    assert_eq!(observe(&mut run, BETTER), VerdictWord::Pass);
    assert_eq!(run.state().phase, Phase::RollingOut, "asked for once");

    let mut refused = gated();
    let reject = Command::Reject {
        note: "Not before Monday.".to_owned(),
    };
    refused.ask("bob", &reject).unwrap();
    assert_eq!(refused.state().phase, Phase::RollingBack);
    let cause = refused.state().rollback.as_ref().unwrap().cause;
    assert_eq!(cause, RollbackCause::Rejected);

    let mut late = gated();
    late.now_us = late.state().deadline_us.unwrap();
    late.report(Command::TimeOver { problem: None });
    assert_eq!(late.state().phase, Phase::RollingBack);
}

#[test]
fn a_change_of_answers_stops_at_the_gate_whatever_was_asked_for() {
    let mut run = Run::begin(WorkflowSpec {
        auto_approve: true,
        ..with(no_drain)
    });
    run.report(Command::Analysed(Box::new(super::example::analysis())));
    let mut draft = super::example::draft_of(&run.state().spec, 4);
    draft.changes_answers = true;
    run.report(Command::Planned(Box::new(draft)));
    write(&mut run);
    assert_eq!(observe(&mut run, BETTER), VerdictWord::Pass);
    assert_eq!(run.state().phase, Phase::AwaitingPromotion);
}

/// The time to observe is over, and what was seen does not tell.
fn undecided() -> Run {
    let mut run = observing(with(no_drain));
    run.report(Command::Observed(Box::new(observation(0, 1.02))));
    run.now_us = run.state().deadline_us.unwrap();
    run.report(Command::TimeOver { problem: None });
    run
}

#[test]
fn what_does_not_tell_waits_for_somebody_and_is_undone_in_the_end() {
    let run = undecided();
    assert_eq!(run.state().status(), Status::Paused);
    let pause = run.state().pause.as_ref().unwrap();
    assert_eq!(pause.reason, PauseReason::Inconclusive);
    let waits = waiting_for(run.state()).unwrap();
    assert_eq!(waits.until_us, Some(run.now_us + 600_000_000));

    let mut promoted = run.clone();
    let note = String::new();
    promoted.ask("bob", &Command::Resume { note }).unwrap();
    assert_eq!(promoted.state().phase, Phase::RollingOut);
    assert_eq!(promoted.state().step, 1);

    let mut left = run.clone();
    left.now_us = left.state().deadline_us.unwrap();
    left.report(Command::TimeOver { problem: None });
    assert_eq!(left.state().phase, Phase::RollingBack);
    assert_eq!(
        left.state().failure.as_ref().unwrap().reason,
        "INCONCLUSIVE"
    );
}

#[test]
fn a_part_that_cannot_be_measured_is_undone() {
    let mut run = observing(with(no_drain));
    run.now_us = run.state().deadline_us.unwrap();
    run.report(Command::TimeOver { problem: None });
    assert_eq!(run.state().phase, Phase::RollingBack);
    assert_eq!(run.state().failure.as_ref().unwrap().reason, "NOT_MEASURED");
}

#[test]
fn a_target_finishes_its_requests_before_it_is_written() {
    let mut run = Run::planned(canaried(), 4);
    run.approve("bob").unwrap();
    run.report(Command::Drain {
        leaves_traffic: false,
    });
    assert_eq!(run.state().phase, Phase::Draining { target: 0 });
    assert_eq!(run.state().stage(), Stage::Canary);
    assert!(!run.state().has_touched());
    write(&mut run);
    assert_eq!(run.state().phase, Phase::Observing);
}

/// One for four targets, of which the first takes no new requests.
fn out_of_traffic() -> Run {
    let mut run = Run::planned(canaried(), 4);
    run.approve("bob").unwrap();
    run.report(Command::Drain {
        leaves_traffic: true,
    });
    assert_eq!(run.state().targets[0].phase, TargetPhase::Draining);
    assert!(run.state().has_touched() && !run.state().has_written());
    run
}

#[test]
fn what_takes_no_requests_is_brought_back_whatever_ends_it() {
    let note = String::new();
    let ends = [
        Command::Cancel {
            acknowledge: false,
            note: note.clone(),
        },
        Command::Rollback { note },
    ];
    for end in ends {
        let mut run = out_of_traffic();
        run.ask("bob", &end).unwrap();
        assert_eq!(run.state().phase, Phase::RollingBack);
        // not before it takes requests again
        let early = run.ask("perfagent", &Command::AllRestored);
        assert_eq!(early.unwrap_err().reason, RefusalReason::Late);
        run.report(Command::Intend {
            epoch: 2,
            baseline: None,
        });
        assert_eq!(run.state().phase, Phase::Restoring { target: 0 });
        run.report(written());
        run.report(Command::Ready);
        run.report(Command::AllRestored);
        assert_eq!(run.state().status(), Status::RolledBack);
        assert_eq!(touched(&run), 1);
    }
}

#[test]
fn what_was_before_is_kept_of_a_target_that_left_traffic() {
    let mut run = out_of_traffic();
    let event = run.report(Command::Intend {
        epoch: 1,
        baseline: Some(Box::new(Baseline {
            start_unix_seconds: 1_800_000_000.0,
            end_unix_seconds: 1_800_000_060.0,
            values: Vec::new(),
        })),
    });
    let Event::WriteIntended { baseline, .. } = event else {
        unreachable!()
    };
    assert!(baseline.is_some());
}

#[test]
fn time_to_observe_stands_still_while_it_is_paused() {
    let mut run = observing(with(no_drain));
    let deadline = run.state().deadline_us.unwrap();
    run.wait_seconds(60);
    let note = String::new();
    run.ask("bob", &Command::Pause { note: note.clone() })
        .unwrap();
    run.wait_seconds(1_000);
    run.ask("bob", &Command::Resume { note }).unwrap();
    assert_eq!(run.state().phase, Phase::Observing);
    assert_eq!(run.state().deadline_us, Some(deadline + 1_000_000_000));
}
