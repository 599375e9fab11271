//! What holds of every workflow at any time. What is checked is worked out from the log, not from the state.

use std::collections::BTreeSet;

use super::example::Run;
use super::random::CALLERS;
use crate::workflow::VerdictWord;
use crate::workflow::{
    Command, Event, Outcome, PauseReason, Phase, Stage, StageStatus, Status, Step, StepEffect,
    TargetPhase, Verb, Workflow, decide, decode_event, encode_event, evolve, next_step, progress,
    waiting_for,
};

/// What a log says, read by other rules than `evolve` has.
#[derive(Debug, Default)]
pub(super) struct Witness {
    approvers: BTreeSet<String>,
    approved: bool,
    operations: BTreeSet<String>,
    written: BTreeSet<u32>,
    /// Of those that were not written, those that take no requests.
    left_traffic: BTreeSet<u32>,
    restored: BTreeSet<u32>,
    ready_again: BTreeSet<u32>,
    /// Parts after the first that may get the change.
    let_further: u32,
    /// What was left when it was paused; none within where that had no end.
    left_us: Option<Option<i64>>,
}

impl Witness {
    /// Takes the last event of a run, and what was before it.
    pub(super) fn saw(&mut self, before: Option<&Workflow>, run: &Run) {
        let after = run.state();
        let recorded = run.log.last().unwrap();
        if let Some(before) = before {
            follows_an_end(before, &recorded.event);
            self.times(before, after, &recorded.event, recorded.at_us);
        }
        self.counts(after, &recorded.event, &recorded.actor);
    }

    fn counts(&mut self, after: &Workflow, event: &Event, actor: &str) {
        let spec = &after.spec;
        match event {
            Event::Planned { .. } | Event::PlanOutdated { .. } => {
                assert!(self.written.is_empty(), "a new plan over a touched target");
                self.approvers.clear();
                self.approved = spec.auto_approve && spec.kind.changes();
            }
            Event::ApprovalGiven { approval } => {
                assert_eq!(approval.principal, actor);
                assert!(self.approvers.insert(actor.to_owned()), "{actor} twice");
            }
            Event::Approved { approval } => {
                assert_eq!(approval.as_ref().unwrap().principal, actor);
                assert!(self.approvers.insert(actor.to_owned()), "{actor} twice");
                assert_eq!(self.approvers.len(), spec.gate.approvals as usize);
                self.let_further += u32::from(self.approved);
                self.approved = true;
            }
            Event::Observed {
                verdict: Some(verdict),
                ..
            } => {
                if verdict.word == VerdictWord::Pass {
                    self.stood(after);
                }
                let failed = verdict.word == VerdictWord::Fail;
                assert_eq!(failed, after.phase == Phase::RollingBack);
            }
            Event::QualityChecked { report } => {
                assert_eq!(!report.passed, after.phase == Phase::RollingBack);
                if report.passed {
                    self.stood(after);
                }
            }
            Event::WriteIntended {
                target,
                operation_id,
                ..
            } => {
                assert!(self.approved, "written before it was approved");
                let part = after.canary().map_or(0, |canary| {
                    let earlier = canary.steps.iter().filter(|step| **step <= *target);
                    earlier.count()
                });
                assert!(part <= self.let_further as usize, "{part}: {after:?}");
                assert!(self.written.insert(*target), "written twice: {target}");
                self.left_traffic.remove(target);
                self.operation(operation_id);
            }
            Event::DrainStarted {
                target,
                leaves_traffic: true,
            } => {
                self.left_traffic.insert(*target);
            }
            Event::RestoreIntended {
                target,
                operation_id,
                ..
            } => {
                if self.left_traffic.remove(target) {
                    self.written.insert(*target);
                }
                assert!(self.written.contains(target), "never written: {target}");
                self.operation(operation_id);
                self.restored.remove(target);
                self.ready_again.remove(target);
            }
            Event::Restored { target, .. } => {
                self.restored.insert(*target);
            }
            Event::Ready { target } if self.restored.contains(target) => {
                self.ready_again.insert(*target);
            }
            Event::RolledBack => {
                assert!(self.left_traffic.is_empty(), "some take no requests");
                assert_eq!(self.written, self.ready_again);
            }
            _ => {}
        }
        for name in &self.approvers {
            assert!(spec.gate.approvers.is_empty() || spec.gate.approvers.contains(name));
            assert!(!spec.gate.separate_requester || *name != after.started_by);
        }
        let untouched = self.written.is_empty() && self.left_traffic.is_empty();
        assert_eq!(after.has_touched(), !untouched);
    }

    /// A part stood: what is next goes further, or waits for something.
    fn stood(&mut self, after: &Workflow) {
        match after.phase {
            Phase::CheckingQuality => {}
            Phase::AwaitingPromotion => {
                assert_eq!(after.step, self.let_further);
                self.approvers.clear();
            }
            phase => {
                assert!(matches!(phase, Phase::RollingOut), "{phase:?}");
                self.let_further += 1;
            }
        }
    }

    fn operation(&mut self, operation_id: &str) {
        let new = self.operations.insert(operation_id.to_owned());
        assert!(new, "{operation_id} twice");
    }

    /// Deadlines stand still while it is paused.
    fn times(&mut self, before: &Workflow, after: &Workflow, event: &Event, at_us: i64) {
        match event {
            Event::Paused {
                reason: PauseReason::Inconclusive,
                ..
            } => {
                let decision = after.canary().unwrap().decision_seconds * 1e6;
                assert_eq!(after.deadline_us, Some(at_us + decision as i64));
            }
            Event::Resumed { .. } if before.is_held_undecided() => {
                self.let_further += 1;
                assert_eq!(after.step, before.step + 1);
                assert!(matches!(after.phase, Phase::RollingOut));
            }
            Event::Paused { reason, .. } => {
                assert_eq!(after.deadline_us, None);
                let left = match reason {
                    crate::workflow::PauseReason::ApprovalTimeout => {
                        Some((after.spec.gate.timeout_seconds * 1e6) as i64)
                    }
                    _ => before.deadline_us.map(|until| (until - at_us).max(0)),
                };
                // a reason that comes on top of another takes no time away and gives none
                self.left_us.get_or_insert(left);
            }
            Event::Resumed { .. } => {
                let left = self.left_us.take().expect("resumed, and was not paused");
                assert_eq!(after.deadline_us, left.map(|left| at_us + left));
            }
            _ if after.pause.is_none() => self.left_us = None,
            _ if after.is_held_undecided() => {}
            _ => assert_eq!(after.deadline_us, None),
        }
    }
}

/// After an end, only what could not be restored, or what was completed, may go on.
fn follows_an_end(before: &Workflow, event: &Event) {
    if !before.status().has_ended() {
        return;
    }
    let may = match (before.status(), event) {
        (Status::Completed, Event::RollbackStarted { .. }) => before.has_touched(),
        (Status::RollbackFailed, Event::RollbackStarted { .. }) => true,
        (Status::RollbackFailed, Event::Cancelled { abandons, .. }) => *abandons,
        _ => false,
    };
    assert!(may, "{event:?} after {:?}", before.status());
}

/// What holds of a state by itself.
pub(super) fn check(run: &Run) {
    let state = run.state();
    status_and_phase(state);
    stages(state);
    targets(state);
    outcome(state);
    next(run);
    let share = progress(state);
    assert!((0.0..=1.0).contains(&share), "{share}");
    assert!(!state.status().has_ended() || share == 1.0, "{share}");
    let ended = matches!(state.phase, Phase::Ended { .. });
    let failed_back = state.status() == Status::RollbackFailed;
    assert_eq!(state.locks_instance(), !ended || failed_back);
    assert_eq!(state.sequence, run.log.len() as u64);
}

fn status_and_phase(state: &Workflow) {
    let ended = matches!(state.phase, Phase::Ended { .. });
    assert_eq!(state.status().has_ended(), ended);
    assert_eq!(state.status() == Status::Paused, state.pause.is_some());
    assert!(state.pause.is_none() || !(ended || state.phase.is_rollback()));
    let timeless = matches!(
        state.phase,
        Phase::Approved | Phase::RollingOut | Phase::Draining { .. }
    );
    let undecided = state.is_held_undecided();
    let timed = undecided || !(ended || timeless || state.pause.is_some());
    assert_eq!(state.deadline_us.is_some(), timed, "{:?}", state.phase);
}

fn stages(state: &Workflow) {
    let of = |status| state.stages.iter().filter(move |one| one.status == status);
    let running: Vec<Stage> = of(StageStatus::Running).map(|one| one.stage).collect();
    match state.status().has_ended() {
        true => {
            assert!(running.is_empty(), "{running:?}");
            assert_eq!(of(StageStatus::NotStarted).count(), 0);
        }
        false => assert_eq!(running, [state.stage()]),
    }
    assert!(
        state
            .stages
            .is_sorted_by(|one, next| one.stage < next.stage)
    );
    let went_back = state.stages.iter().any(|one| one.stage == Stage::Rollback);
    assert_eq!(went_back, state.rollback.is_some());
    for one in &state.stages {
        let (begun, ended) = (one.started_us, one.ended_us);
        let expected = match one.status {
            StageStatus::NotStarted | StageStatus::Skipped => (false, false),
            StageStatus::Running => (true, false),
            StageStatus::Done | StageStatus::Failed => (true, true),
        };
        assert_eq!((begun.is_some(), ended.is_some()), expected, "{one:?}");
        assert!(begun <= ended || ended.is_none(), "{one:?}");
    }
}

fn targets(state: &Workflow) {
    let expected = match state.phase {
        Phase::Writing { target } => Some((target, TargetPhase::Writing)),
        Phase::AwaitingReady { target } => Some((target, TargetPhase::Written)),
        Phase::Restoring { target } => Some((target, TargetPhase::Restoring)),
        Phase::AwaitingRestored { target } => Some((target, TargetPhase::Restored)),
        _ => None,
    };
    if let Some((place, phase)) = expected {
        assert_eq!(state.target(place).unwrap().phase, phase);
    }
    let unsure = |phase: TargetPhase| matches!(phase, TargetPhase::Writing | TargetPhase::Written);
    let open = state.targets.iter().filter(|target| unsure(target.phase));
    assert!(open.count() <= 1, "two at once");
    let untouched = |phase: TargetPhase| phase == TargetPhase::Untouched;
    let mut order = state.targets.iter().map(|target| untouched(target.phase));
    assert!(order.by_ref().is_sorted(), "not one after the other");
}

fn outcome(state: &Workflow) {
    let touched = state.has_touched();
    let may = match (state.status(), state.outcome) {
        (Status::Completed, Some(Outcome::Applied)) => touched && state.effects.is_some(),
        (Status::Completed, Some(Outcome::AppliedUnmeasured)) => touched && state.effects.is_none(),
        (Status::Completed, Some(Outcome::NotApplied)) => !touched && state.plan.is_some(),
        (Status::Completed, Some(Outcome::NothingToDo)) => !touched,
        (Status::Completed, Some(Outcome::Analysed)) => !touched && !state.spec.kind.changes(),
        (Status::RolledBack, Some(Outcome::Restored)) => touched,
        (Status::Cancelled, Some(Outcome::Abandoned)) => touched,
        (Status::Cancelled | Status::Rejected | Status::Failed, None) => !touched,
        (Status::RollbackFailed, None) => touched && state.failure.is_some(),
        (status, None) => !status.has_ended(),
        _ => false,
    };
    assert!(may, "{:?} with {:?}", state.status(), state.outcome);
}

/// Somebody can always do something: its runner, or a caller who is told so.
fn next(run: &Run) {
    let state = run.state();
    let waits = waiting_for(state);
    match next_step(state) {
        Step::Nothing => assert!(state.status().has_ended()),
        Step::Wait { until_us } => {
            let waits = waits
                .as_ref()
                .expect("it waits, and nobody is told for what");
            assert!(!waits.verbs.is_empty());
            assert_eq!((until_us, waits.until_us), (state.deadline_us, until_us));
        }
        Step::Do(effect) => {
            let writes = matches!(effect, StepEffect::Write { .. });
            assert!(state.pause.is_none() || writes, "{effect:?} while paused");
            assert!(!state.is_held_for_drift());
        }
    }
    if state.status() == Status::RollbackFailed {
        assert!(waits.is_some());
    }
    for verb in waits.iter().flat_map(|waits| &waits.verbs) {
        let command = asked(state, *verb);
        let takes = |who: &&str| decide(Some(state), &command, who, run.now_us).is_ok();
        // a gate that nobody can pass is refused where the workflow is started
        let may = CALLERS.iter().any(takes) || *verb == Verb::Approve;
        assert!(may, "{verb:?} is offered and refused: {state:?}");
    }
}

/// The command of a verb that is offered.
pub(super) fn asked(state: &Workflow, verb: Verb) -> Command {
    let note = String::new();
    match verb {
        Verb::Approve => Command::Approve {
            etag: state.plan.as_ref().unwrap().etag.clone(),
            note,
        },
        Verb::Reject => Command::Reject { note },
        Verb::Pause => Command::Pause { note },
        Verb::Resume => Command::Resume { note },
        Verb::Cancel => Command::Cancel {
            acknowledge: true,
            note,
        },
        Verb::Rollback => Command::Rollback { note },
    }
}

/// The state is what the stored log leads to.
pub(super) fn is_its_log(run: &Run) {
    let mut state = None;
    for recorded in &run.log {
        let mut read = recorded.clone();
        read.event = decode_event(&encode_event(&recorded.event).unwrap()).unwrap();
        state = Some(evolve(state, &read).unwrap());
    }
    assert_eq!(state, run.state);
    // and is stored and read without a loss
    let text = serde_json::to_string(run.state()).unwrap();
    assert_eq!(
        serde_json::from_str::<Workflow>(&text).unwrap(),
        *run.state()
    );
}
