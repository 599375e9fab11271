//! What comes of what the runner of a workflow reports.

use super::command::{Command, Failure, Refusal};
use super::decide::{Decision, with_etag};
use super::event::Event;
use super::gate::OnTimeout;
use super::looks::{looks, verdict_policy};
use super::state::{Phase, RollbackCause, Workflow};
use super::verdict::{Observation, verdict};
use super::words::PauseReason;

impl Decision<'_> {
    /// What its runner reports.
    pub(super) fn reported(&self, command: &Command) -> Result<Event, Refusal> {
        let state = self.state;
        let paused = state.pause.is_some();
        match (state.phase, command) {
            (_, Command::Fail(failure)) => self.fail(failure),
            (_, Command::TimeOver { problem }) => self.time_over(problem.as_deref()),
            // what was begun before the pause is brought to its end
            (Phase::Writing { target }, Command::Written { revision }) => Ok(Event::Written {
                target,
                revision: revision.clone(),
            }),
            (
                Phase::Writing { target } | Phase::AwaitingReady { target },
                Command::Drifted { .. },
            ) => self.drifted(command, Some(target)),
            (_, _) if paused => Err(self.late("it is paused")),
            (Phase::Analysing, Command::Analysed(analysis)) => Ok(Event::Analysed {
                analysis: analysis.clone(),
            }),
            (Phase::Analysing | Phase::Planning, Command::NothingToDo { headline }) => {
                Ok(Event::NothingToDo {
                    headline: headline.clone(),
                })
            }
            (Phase::Planning, Command::Planned(draft)) => Ok(Event::Planned {
                plan: Box::new(with_etag(draft)),
            }),
            (Phase::Approved, Command::PlanOutdated { message }) => Ok(Event::PlanOutdated {
                message: message.clone(),
            }),
            (Phase::Draining { .. }, Command::PlanOutdated { message }) if !state.has_touched() => {
                Ok(Event::PlanOutdated {
                    message: message.clone(),
                })
            }
            (Phase::Approved | Phase::RollingOut, Command::Drain { leaves_traffic }) => {
                match state.next_target() {
                    Some(target) => Ok(Event::DrainStarted {
                        target,
                        leaves_traffic: *leaves_traffic,
                    }),
                    None => Err(self.late("every target is written")),
                }
            }
            (
                Phase::Approved | Phase::RollingOut | Phase::Draining { .. },
                Command::Intend { epoch, baseline },
            ) => match state.next_target() {
                Some(target) => Ok(Event::WriteIntended {
                    target,
                    operation_id: self.next_operation(),
                    epoch: *epoch,
                    baseline: baseline.clone().filter(|_| !state.has_written()),
                }),
                None => Err(self.late("every target is written")),
            },
            // before anything is touched the plan is made anew instead
            (Phase::Draining { .. }, Command::Drifted { .. }) if state.has_touched() => {
                self.drifted(command, state.next_target())
            }
            (Phase::RollingOut, Command::Drifted { .. }) => {
                self.drifted(command, state.next_target())
            }
            (Phase::Observing, Command::Observed(observation)) => self.observed(observation),
            (Phase::Observing, Command::Drifted { .. }) => self.drifted(command, None),
            (Phase::CheckingQuality, Command::QualityChecked(report)) => {
                Ok(Event::QualityChecked {
                    report: report.clone(),
                })
            }
            (Phase::AwaitingReady { target }, Command::Ready) => Ok(Event::Ready { target }),
            (Phase::Measuring, Command::Measured(effects)) => Ok(Event::Completed {
                effects: effects.clone(),
            }),
            (Phase::Measuring, Command::Drifted { .. }) => self.drifted(command, None),
            (Phase::RollingBack, Command::Intend { epoch, .. }) => match state.next_to_restore() {
                Some(target) => Ok(Event::RestoreIntended {
                    target,
                    operation_id: self.next_operation(),
                    epoch: *epoch,
                }),
                None => Err(self.late("every target is restored")),
            },
            (Phase::RollingBack, Command::AllRestored) if state.next_to_restore().is_none() => {
                Ok(Event::RolledBack)
            }
            (Phase::Restoring { target }, Command::Written { revision }) => Ok(Event::Restored {
                target,
                revision: revision.clone(),
            }),
            (Phase::AwaitingRestored { target }, Command::Ready) => Ok(Event::Ready { target }),
            _ => Err(self.late("what its runner reports is of another phase")),
        }
    }

    /// What all that was observed of this part says.
    fn observed(&self, observation: &Observation) -> Result<Event, Refusal> {
        let state = self.state;
        let Some((canary, policy)) = state.canary().zip(verdict_policy(state)) else {
            return Err(self.late("the change goes out without a canary"));
        };
        let mut windows = state.observations.clone();
        windows.push(observation.clone());
        let looks = looks(&windows, canary);
        let verdict = looks
            .is_due
            .then(|| Box::new(verdict(&looks.complete, &policy)));
        Ok(Event::Observed {
            step: state.step,
            observation: Box::new(observation.clone()),
            verdict,
        })
    }

    fn fail(&self, failure: &Failure) -> Result<Event, Refusal> {
        let state = self.state;
        let failure = failure.clone();
        if state.status().has_ended() {
            return Err(self.late("it has ended"));
        }
        if state.phase.is_rollback() {
            return Ok(Event::RollbackFailed { failure });
        }
        Ok(match state.has_touched() {
            true => Event::RollbackStarted {
                attempt: self.attempt(),
                cause: RollbackCause::Failure,
                overwrites: false,
                message: format!("{}: {}", failure.reason, failure.message),
                failure: Some(failure),
            },
            false => Event::Failed { failure },
        })
    }

    fn time_over(&self, problem: Option<&str>) -> Result<Event, Refusal> {
        let state = self.state;
        if state
            .deadline_us
            .is_none_or(|deadline| self.now_us < deadline)
        {
            return Err(self.late("its time is not over"));
        }
        let failed = |reason: &str, message: &str, hint: &str| {
            self.fail(&Failure {
                reason: reason.to_owned(),
                message: match problem {
                    Some(problem) => format!("{message}: {problem}."),
                    None => format!("{message}."),
                },
                hint: hint.to_owned(),
            })
        };
        match state.phase {
            Phase::AwaitingApproval | Phase::AwaitingPromotion => {
                Ok(match state.spec.gate.on_timeout {
                    OnTimeout::Reject if state.has_touched() => self.way_back(
                        RollbackCause::Rejected,
                        "Nobody agreed in time that it goes further.",
                    ),
                    OnTimeout::Reject => Event::Rejected {
                        timed_out: true,
                        note: "Nobody approved it in time.".to_owned(),
                    },
                    OnTimeout::Hold => Event::Paused {
                        reason: PauseReason::ApprovalTimeout,
                        message: "Nobody approved it in time; resumed, it waits as long again."
                            .to_owned(),
                        target: None,
                        digest: None,
                    },
                })
            }
            Phase::Observing if state.is_held_undecided() => failed(
                "INCONCLUSIVE",
                "What was observed does not tell whether the change does harm, and nobody decided in time",
                "Start it again under more load, or with more time to observe.",
            ),
            Phase::Observing if state.observations.is_empty() => failed(
                "NOT_MEASURED",
                "The replicas with the change could not be held against the others",
                "See the engines' logs and the instance's status: do all replicas serve?",
            ),
            Phase::Observing => Ok(undecided(state)),
            Phase::CheckingQuality => failed(
                "NOT_MEASURED",
                "Answers with the change and without could not be compared in time",
                "See the engines' logs: do they answer at /v1/completions?",
            ),
            Phase::Measuring => Ok(Event::Completed { effects: None }),
            Phase::Analysing | Phase::Planning => failed(
                "TIME_OVER",
                "No plan could be made in time",
                "See the agent's log and the instance's status; start it again with more time for the plan.",
            ),
            phase if phase.is_rollback() => failed(
                "TIME_OVER",
                "The settings from before could not be restored in time",
                "Roll back to try again, or restore them by hand and cancel with `acknowledge`.",
            ),
            _ => failed(
                "NOT_READY",
                "A target was not ready with its new settings in time",
                "See the engine's log; if it only loads slowly, give it more time to get ready.",
            ),
        }
    }

    fn drifted(&self, command: &Command, target: Option<u32>) -> Result<Event, Refusal> {
        let Command::Drifted {
            message,
            target: seen,
            digest,
        } = command
        else {
            return Err(self.late("what its runner reports is of another phase"));
        };
        if self
            .state
            .pause
            .as_ref()
            .is_some_and(|pause| pause.reason == PauseReason::Drift)
        {
            return Err(self.late("it is paused for drift already"));
        }
        let target = seen.or(target);
        if target.is_some_and(|place| self.state.target(place).is_none()) {
            return Err(self.late("the plan has no such target"));
        }
        Ok(Event::Paused {
            reason: PauseReason::Drift,
            message: message.clone(),
            target,
            digest: Some(digest.clone()),
        })
    }
}

/// Nobody knows whether the change does harm: somebody has to say.
fn undecided(state: &Workflow) -> Event {
    let why = state.verdict().map_or("", |verdict| &verdict.reason);
    Event::Paused {
        reason: PauseReason::Inconclusive,
        message: format!(
            "What was observed does not tell whether the change does harm. {why} Resume to let it go further, roll back \
             to undo it."
        ),
        target: None,
        digest: None,
    }
}
