//! The state that an event leads to. What `decide` gives for a state always has a place after it.

use std::collections::BTreeMap;

use super::event::{Event, EventError, RecordedEvent};
use super::gate::{GateKind, GateState};
use super::spec::WorkflowSpec;
use super::state::{
    Pause, Phase, Rollback, StageRecord, StageStatus, TargetPhase, TargetState, Workflow,
};
use super::words::{Outcome, PauseReason, Stage, Status, WorkflowKind};

/// The state after an event.
///
/// # Errors
/// An event that cannot follow: the log is damaged, or another version's.
pub fn evolve(state: Option<Workflow>, recorded: &RecordedEvent) -> Result<Workflow, EventError> {
    let out_of_place = |phase: Option<Phase>| EventError::OutOfPlace {
        event: recorded.event.kind(),
        phase: phase.map_or_else(|| "none".to_owned(), |phase| format!("{phase:?}")),
    };
    let (mut state, is_new) = match (state, &recorded.event) {
        (None, Event::Started { spec }) => (begun(recorded, spec), true),
        (None, _) => return Err(out_of_place(None)),
        (Some(state), _) => (state, false),
    };
    if !is_new {
        let phase = state.phase;
        if state.sequence.checked_add(1) != Some(recorded.sequence) {
            return Err(out_of_place(Some(phase)));
        }
        let mut change = Change {
            at_us: recorded.at_us,
            actor: &recorded.actor,
            state: &mut state,
        };
        change
            .apply(&recorded.event)
            .ok_or_else(|| out_of_place(Some(phase)))?;
    }
    state.sequence = recorded.sequence;
    state.revision = recorded.revision;
    state.updated_us = recorded.at_us;
    Ok(state)
}

/// The way that every workflow has before it.
const WAY: [Stage; 7] = [
    Stage::Analysis,
    Stage::Recommendation,
    Stage::Approval,
    Stage::Canary,
    Stage::Validation,
    Stage::Rollout,
    Stage::Completion,
];

fn begun(recorded: &RecordedEvent, spec: &WorkflowSpec) -> Workflow {
    let stages = WAY.map(|stage| StageRecord {
        stage,
        status: StageStatus::NotStarted,
        started_us: None,
        ended_us: None,
    });
    let mut state = Workflow {
        workflow_id: recorded.workflow_id.clone(),
        spec: spec.clone(),
        started_by: recorded.actor.clone(),
        started_us: recorded.at_us,
        updated_us: recorded.at_us,
        sequence: recorded.sequence,
        revision: recorded.revision,
        phase: Phase::Analysing,
        phase_since_us: recorded.at_us,
        deadline_us: None,
        pause: None,
        stages: stages.to_vec(),
        analysis: None,
        plan: None,
        gate: None,
        targets: Vec::new(),
        baseline: None,
        step: 0,
        observations: Vec::new(),
        verdicts: BTreeMap::new(),
        quality: None,
        operations: 0,
        rollback: None,
        effects: None,
        outcome: None,
        headline: "It has begun.".to_owned(),
        failure: None,
        simulated: false,
    };
    let mut change = Change {
        at_us: recorded.at_us,
        actor: &recorded.actor,
        state: &mut state,
    };
    change.enter(Phase::Analysing);
    state
}

fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

/// A state while an event changes it.
pub(super) struct Change<'c> {
    pub(super) at_us: i64,
    pub(super) actor: &'c str,
    pub(super) state: &'c mut Workflow,
}

impl Change<'_> {
    /// None where the event cannot follow.
    fn apply(&mut self, event: &Event) -> Option<()> {
        match event {
            Event::Started { .. } => return None,
            Event::Analysed { analysis } => {
                self.state.simulated |= analysis.simulated;
                self.state.headline.clone_from(&analysis.headline);
                self.state.analysis = Some((**analysis).clone());
                self.enter(Phase::Planning);
            }
            Event::Planned { plan } => self.planned(plan),
            Event::NothingToDo { headline } => {
                self.state.headline.clone_from(headline);
                self.end(Status::Completed, Some(Outcome::NothingToDo));
            }
            Event::ApprovalGiven { approval } => {
                self.state.gate.as_mut()?.approvals.push(approval.clone());
            }
            Event::Approved { approval } => {
                if let Some(approval) = approval {
                    self.state.gate.as_mut()?.approvals.push(approval.clone());
                }
                match self.state.phase {
                    Phase::AwaitingPromotion => self.next_part(),
                    _ => self.approved(),
                }
            }
            Event::Rejected { note, .. } => {
                self.say(note, "The plan was rejected.");
                self.end(Status::Rejected, None);
            }
            Event::Paused {
                reason,
                message,
                target,
                digest,
            } => self.paused(*reason, message, *target, digest.as_deref())?,
            Event::Resumed { .. } => self.resumed()?,
            Event::Cancelled { abandons, note } => {
                self.say(note, "It was cancelled.");
                self.end(Status::Cancelled, abandons.then_some(Outcome::Abandoned));
            }
            Event::PlanOutdated { message } => {
                self.state.headline.clone_from(message);
                self.state.plan = None;
                self.state.gate = None;
                self.state.targets.clear();
                self.enter(Phase::Planning);
            }
            Event::DrainStarted {
                target,
                leaves_traffic,
            } => {
                let drained = self.target(*target)?;
                if *leaves_traffic {
                    drained.leaves_traffic = true;
                    drained.phase = TargetPhase::Draining;
                }
                self.enter(Phase::Draining { target: *target });
            }
            Event::WriteIntended {
                target,
                operation_id,
                baseline,
                ..
            } => {
                if let Some(baseline) = baseline {
                    self.state.baseline = Some((**baseline).clone());
                }
                self.operation(*target, operation_id, TargetPhase::Writing)?;
                self.enter(Phase::Writing { target: *target });
            }
            Event::Written { target, revision } => {
                self.revision(*target, revision, TargetPhase::Written)?;
                // loading goes on from the write: the deadline stays
                self.go_on(Phase::AwaitingReady { target: *target });
            }
            Event::Ready { target } => self.ready(*target)?,
            Event::Observed {
                step,
                observation,
                verdict,
            } => self.observed(*step, observation, verdict.as_deref())?,
            Event::QualityChecked { report } => self.quality_checked(report),
            Event::Completed { effects } => {
                self.state.effects = effects.as_deref().cloned();
                let outcome = match effects {
                    Some(effects) => {
                        self.state.headline = effects.in_words();
                        Outcome::Applied
                    }
                    None => {
                        self.state.headline =
                            "The change is in force; what came of it could not be measured in time."
                                .to_owned();
                        Outcome::AppliedUnmeasured
                    }
                };
                self.end(Status::Completed, Some(outcome));
            }
            Event::RollbackStarted {
                attempt,
                cause,
                overwrites,
                message,
                failure,
            } => {
                let rollback = Rollback {
                    attempt: *attempt,
                    cause: *cause,
                    by: self.actor.to_owned(),
                    overwrites: *overwrites,
                };
                self.go_back(rollback, message, failure.clone());
            }
            Event::RestoreIntended {
                target,
                operation_id,
                ..
            } => {
                self.operation(*target, operation_id, TargetPhase::Restoring)?;
                self.go_on(Phase::Restoring { target: *target });
            }
            Event::Restored { target, revision } => {
                self.revision(*target, revision, TargetPhase::Restored)?;
                self.go_on(Phase::AwaitingRestored { target: *target });
            }
            Event::RolledBack => {
                self.state.headline = "The settings are what they were before.".to_owned();
                self.end(Status::RolledBack, Some(Outcome::Restored));
            }
            Event::RollbackFailed { failure } => {
                self.state.headline.clone_from(&failure.message);
                self.state.failure = Some(failure.clone());
                self.end(Status::RollbackFailed, None);
            }
            Event::Failed { failure } => {
                self.state.headline.clone_from(&failure.message);
                self.state.failure = Some(failure.clone());
                self.end(Status::Failed, None);
            }
        }
        Some(())
    }

    fn planned(&mut self, plan: &super::plan::Plan) {
        let target = |target: &super::plan::PlanTarget| TargetState {
            name: target.name.clone(),
            phase: TargetPhase::Untouched,
            operation_id: None,
            revision: target.revision.clone(),
            accepted_digest: None,
            leaves_traffic: false,
        };
        self.state.targets = plan.draft.targets.iter().map(target).collect();
        self.state.headline.clone_from(&plan.draft.headline);
        self.state.plan = Some(plan.clone());
        if self.state.spec.kind == WorkflowKind::Analysis {
            self.end(Status::Completed, Some(Outcome::Analysed));
        } else if self.state.spec.auto_approve {
            self.enter(Phase::Approved);
            self.approved();
        } else {
            self.state.gate = Some(GateState {
                kind: GateKind::BeforeCanary,
                since_us: self.at_us,
                approvals: Vec::new(),
            });
            self.enter(Phase::AwaitingApproval);
        }
    }

    fn approved(&mut self) {
        if self.state.targets.is_empty() {
            self.state.headline =
                "Approved, and not applied: the instance has no actuator.".to_owned();
            self.end(Status::Completed, Some(Outcome::NotApplied));
        } else {
            self.enter(Phase::Approved);
        }
    }

    fn paused(
        &mut self,
        reason: PauseReason,
        message: &str,
        target: Option<u32>,
        digest: Option<&str>,
    ) -> Option<()> {
        let left_us = match (&self.state.pause, reason) {
            // its time stands still already
            (Some(pause), _) => pause.left_us,
            (None, PauseReason::ApprovalTimeout) => None,
            (None, _) => self
                .state
                .deadline_us
                .map(|deadline| deadline.saturating_sub(self.at_us).max(0)),
        };
        if let Some(target) = target {
            // what is found there is accepted where the workflow is resumed
            self.target(target)?.accepted_digest = digest.map(str::to_owned);
        }
        self.state.pause = Some(Pause {
            reason,
            message: message.to_owned(),
            by: self.actor.to_owned(),
            since_us: self.at_us,
            left_us,
        });
        // somebody has to decide, but not at any time
        let to_decide = self.state.canary().map(|canary| canary.decision_seconds);
        self.state.deadline_us = to_decide
            .filter(|_| reason == PauseReason::Inconclusive)
            .map(|seconds| self.at_us.saturating_add(micros(seconds)));
        Some(())
    }

    fn resumed(&mut self) -> Option<()> {
        let pause = self.state.pause.take()?;
        if pause.reason == PauseReason::Inconclusive {
            // who resumes knows what is not known
            self.next_part();
            return Some(());
        }
        self.state.deadline_us = match pause.left_us {
            Some(left) => Some(self.at_us.saturating_add(left)),
            None => self.time_of(self.state.phase),
        };
        Some(())
    }

    fn ready(&mut self, place: u32) -> Option<()> {
        if matches!(self.state.phase, Phase::AwaitingRestored { .. }) {
            self.target(place)?.phase = TargetPhase::RestoredReady;
            self.go_on(Phase::RollingBack);
            return Some(());
        }
        self.target(place)?.phase = TargetPhase::Ready;
        match self.state.next_target() {
            Some(_) if self.state.is_to_be_observed() => self.enter(Phase::Observing),
            Some(_) => self.enter(Phase::RollingOut),
            None => self.enter(Phase::Measuring),
        }
        Some(())
    }

    fn operation(&mut self, place: u32, operation_id: &str, phase: TargetPhase) -> Option<()> {
        let target = self.target(place)?;
        target.operation_id = Some(operation_id.to_owned());
        target.phase = phase;
        self.state.operations = self.state.operations.saturating_add(1);
        Some(())
    }

    fn revision(&mut self, place: u32, revision: &str, phase: TargetPhase) -> Option<()> {
        let target = self.target(place)?;
        target.phase = phase;
        revision.clone_into(&mut target.revision);
        // ours now
        target.accepted_digest = None;
        Some(())
    }

    fn target(&mut self, place: u32) -> Option<&mut TargetState> {
        self.state.targets.get_mut(usize::try_from(place).ok()?)
    }

    fn say(&mut self, note: &str, or: &str) {
        self.state.headline = match note {
            "" => or.to_owned(),
            note => note.to_owned(),
        };
    }

    /// Into a phase with time of its own.
    pub(super) fn enter(&mut self, phase: Phase) {
        let within_plan = matches!(
            (self.state.phase, phase),
            (Phase::Analysing, Phase::Planning)
        );
        self.go_on(phase);
        if !within_plan {
            self.state.deadline_us = self.time_of(phase);
        }
    }

    /// Into a phase that shares the time of the one before.
    fn go_on(&mut self, phase: Phase) {
        self.arrive(self.state.stage(), phase);
    }

    pub(super) fn arrive(&mut self, from: Stage, phase: Phase) {
        self.state.phase = phase;
        self.state.phase_since_us = self.at_us;
        let to = self.state.stage();
        self.walk(from, to);
    }

    /// When a phase that begins now has to be over.
    pub(super) fn time_of(&self, phase: Phase) -> Option<i64> {
        let spec = &self.state.spec;
        let seconds = match phase {
            Phase::Analysing | Phase::Planning => spec.timeouts.plan_seconds,
            Phase::AwaitingApproval | Phase::AwaitingPromotion => spec.gate.timeout_seconds,
            // where the first time does not tell, once more as long
            Phase::Observing => self.state.canary().map_or(0.0, |canary| {
                canary.warm_up_seconds + 2.0 * canary.observe_seconds
            }),
            Phase::Writing { .. } | Phase::AwaitingReady { .. } => spec.timeouts.ready_seconds,
            Phase::CheckingQuality | Phase::Measuring => spec.timeouts.observe_seconds,
            Phase::RollingBack | Phase::Restoring { .. } | Phase::AwaitingRestored { .. } => {
                spec.timeouts.rollback_seconds
            }
            Phase::Approved | Phase::RollingOut | Phase::Draining { .. } | Phase::Ended { .. } => {
                return None;
            }
        };
        Some(self.at_us.saturating_add(micros(seconds)))
    }

    /// Ends one stage and begins another; those that lie between are left out.
    fn walk(&mut self, from: Stage, to: Stage) {
        let at_us = self.at_us;
        if to == Stage::Rollback && !self.state.stages.iter().any(|record| record.stage == to) {
            self.state.stages.push(StageRecord {
                stage: to,
                status: StageStatus::NotStarted,
                started_us: None,
                ended_us: None,
            });
        }
        for record in &mut self.state.stages {
            if record.stage == from && from != to && record.status == StageStatus::Running {
                record.status = match to {
                    Stage::Rollback => StageStatus::Failed,
                    _ => StageStatus::Done,
                };
                record.ended_us = Some(at_us);
            }
            if record.stage == to {
                let again = record.status == StageStatus::Running;
                record.status = StageStatus::Running;
                record.ended_us = None;
                if !again {
                    record.started_us = Some(at_us);
                }
            } else if record.status == StageStatus::NotStarted
                && (record.stage < to || to == Stage::Rollback)
            {
                record.status = StageStatus::Skipped;
            } else if to < from && record.stage > to && to != Stage::Rollback {
                // a new plan: what came after the old one is before it again
                *record = StageRecord {
                    stage: record.stage,
                    status: StageStatus::NotStarted,
                    started_us: None,
                    ended_us: None,
                };
            }
        }
    }

    fn end(&mut self, status: Status, outcome: Option<Outcome>) {
        let stage = self.state.stage();
        let well = matches!(status, Status::Completed | Status::RolledBack);
        for record in &mut self.state.stages {
            if record.stage == stage && record.status == StageStatus::Running {
                record.status = match well {
                    true => StageStatus::Done,
                    false => StageStatus::Failed,
                };
                record.ended_us = Some(self.at_us);
            } else if record.status == StageStatus::NotStarted {
                record.status = StageStatus::Skipped;
            }
        }
        self.state.phase = Phase::Ended { status };
        self.state.phase_since_us = self.at_us;
        self.state.deadline_us = None;
        self.state.pause = None;
        self.state.outcome = outcome;
    }
}
