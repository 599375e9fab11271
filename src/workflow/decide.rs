//! What comes of a command: an event, or a refusal. Every command is legal or refused in every state.

use ring::digest::{SHA256, digest};

use super::command::{Command, Failure, Refusal, RefusalReason};
use super::event::Event;
use super::gate::{Approval, OnTimeout};
use super::operation_id;
use super::plan::{Plan, PlanDraft};
use super::state::{Phase, RollbackCause, Workflow};
use super::words::{PauseReason, Status, Verb};
use crate::units::hex;

/// What comes of a command of a principal at a time, unix time in microseconds.
///
/// # Errors
/// Why it is refused; nothing changes then.
pub fn decide(
    state: Option<&Workflow>,
    command: &Command,
    principal: &str,
    now_us: i64,
) -> Result<Event, Refusal> {
    match (state, command) {
        (None, Command::Start { spec, .. }) => Ok(Event::Started { spec: spec.clone() }),
        (None, _) => Err(late(None, "there is no such workflow")),
        (Some(state), Command::Start { .. }) => Err(late(Some(state), "it has begun already")),
        (Some(state), command) => Decision {
            state,
            principal,
            now_us,
        }
        .of(command),
    }
}

struct Decision<'d> {
    state: &'d Workflow,
    principal: &'d str,
    now_us: i64,
}

impl Decision<'_> {
    fn of(&self, command: &Command) -> Result<Event, Refusal> {
        match command {
            Command::Start { .. } => Err(self.late("it has begun already")),
            Command::Approve { etag, note } => self.approve(etag, note),
            Command::Reject { note } => self.reject(note),
            Command::Pause { note } => self.pause(note),
            Command::Resume { note } => self.resume(note),
            Command::Cancel { acknowledge, note } => self.cancel(*acknowledge, note),
            Command::Rollback { note } => self.rollback(note),
            reported => self.reported(reported),
        }
    }

    fn approve(&self, etag: &str, note: &str) -> Result<Event, Refusal> {
        let state = self.state;
        match (state.status(), state.phase) {
            (Status::PendingApproval, _) => {}
            (_, Phase::Analysing | Phase::Planning) if state.pause.is_none() => {
                let message = "the plan is not ready yet: wait for PENDING_APPROVAL, for example with WatchWorkflow";
                return Err(self.refused(RefusalReason::PlanNotReady, message));
            }
            (status, _) => {
                return Err(self.wrong(Verb::Approve, status, "it is for PENDING_APPROVAL"));
            }
        }
        let plan_etag = state.plan.as_ref().map(|plan| plan.etag.as_str());
        if plan_etag != Some(etag) {
            let message =
                "the plan is another one than the etag is of: read it again, and approve that one";
            return Err(self.refused(RefusalReason::PlanChanged, message));
        }
        let policy = &state.spec.gate;
        let who = self.principal;
        if !policy.approvers.is_empty() && !policy.approvers.iter().any(|may| may == who) {
            let message = format!(
                "{who} may not approve this workflow; {} may",
                policy.approvers.join(", ")
            );
            return Err(self.refused(RefusalReason::NotAnApprover, &message));
        }
        if policy.separate_requester && state.started_by == who {
            let message =
                format!("{who} started this workflow, and somebody else has to approve it");
            return Err(self.refused(RefusalReason::NotAnApprover, &message));
        }
        let given = state.gate.as_ref().map_or(&[][..], |gate| &gate.approvals);
        if given.iter().any(|approval| approval.principal == who) {
            let message = format!(
                "{who} has approved it already; {} have to in all",
                policy.approvals
            );
            return Err(self.refused(RefusalReason::ApprovedAlready, &message));
        }
        let approval = Approval {
            principal: who.to_owned(),
            at_us: self.now_us,
            note: note.to_owned(),
        };
        let enough = given.len() + 1 >= usize::try_from(policy.approvals).unwrap_or(usize::MAX);
        Ok(match enough {
            true => Event::Approved {
                approval: Some(approval),
            },
            false => Event::ApprovalGiven { approval },
        })
    }

    fn reject(&self, note: &str) -> Result<Event, Refusal> {
        let state = self.state;
        match (state.status(), state.phase) {
            (Status::PendingApproval, _) => Ok(Event::Rejected {
                timed_out: false,
                note: note.to_owned(),
            }),
            (_, Phase::Analysing | Phase::Planning) if state.pause.is_none() => {
                let message = "the plan is not ready yet: wait for it, or cancel the workflow";
                Err(self.refused(RefusalReason::PlanNotReady, message))
            }
            (status, _) => Err(self.wrong(Verb::Reject, status, "it is for PENDING_APPROVAL")),
        }
    }

    fn pause(&self, note: &str) -> Result<Event, Refusal> {
        let status = self.state.status();
        let may = !status.has_ended() && status != Status::Paused;
        if !may || self.state.phase.is_rollback() {
            return Err(self.wrong(
                Verb::Pause,
                status,
                "it is for a workflow on its way, and not for the way back",
            ));
        }
        Ok(Event::Paused {
            reason: PauseReason::Requested,
            message: match note {
                "" => format!("{} paused it.", self.principal),
                note => note.to_owned(),
            },
            target: None,
            digest: None,
        })
    }

    fn resume(&self, note: &str) -> Result<Event, Refusal> {
        match self.state.status() {
            Status::Paused => Ok(Event::Resumed {
                note: note.to_owned(),
            }),
            status => Err(self.wrong(Verb::Resume, status, "it is for PAUSED")),
        }
    }

    fn cancel(&self, acknowledge: bool, note: &str) -> Result<Event, Refusal> {
        let state = self.state;
        let status = state.status();
        if status == Status::RollbackFailed {
            if !acknowledge {
                let message = "settings could not be restored: set `acknowledge` to leave them as they are and unlock the \
                               instance, or roll back to try again";
                return Err(self.refused(RefusalReason::AcknowledgeNeeded, message));
            }
            return Ok(Event::Cancelled {
                abandons: true,
                note: note.to_owned(),
            });
        }
        if status.has_ended() || state.phase.is_rollback() {
            return Err(self.wrong(
                Verb::Cancel,
                status,
                "it is for a workflow on its way, and not for the way back",
            ));
        }
        Ok(match state.has_touched() {
            true => self.way_back(RollbackCause::Cancelled, note),
            false => Event::Cancelled {
                abandons: false,
                note: note.to_owned(),
            },
        })
    }

    fn rollback(&self, note: &str) -> Result<Event, Refusal> {
        let state = self.state;
        let status = state.status();
        if state.phase.is_rollback() {
            return Err(self.wrong(Verb::Rollback, status, "the way back has begun already"));
        }
        let may = match status {
            Status::Completed | Status::RollbackFailed => true,
            status => !status.has_ended(),
        };
        if !may {
            return Err(self.wrong(
                Verb::Rollback,
                status,
                "it is for a workflow that has changed something",
            ));
        }
        if !state.has_touched() {
            let message = match status.has_ended() {
                true => "nothing was changed that could be rolled back",
                false => {
                    "nothing was changed yet that could be rolled back: cancel it, or reject its plan"
                }
            };
            return Err(self.refused(RefusalReason::NothingApplied, message));
        }
        Ok(self.way_back(RollbackCause::Requested, note))
    }

    /// Somebody asks for the way back.
    fn way_back(&self, cause: RollbackCause, note: &str) -> Event {
        let state = self.state;
        let drifted = state
            .pause
            .as_ref()
            .is_some_and(|pause| pause.reason == PauseReason::Drift);
        let message = match (note, cause) {
            ("", RollbackCause::Cancelled) => format!("{} cancelled it.", self.principal),
            ("", _) => format!("{} rolls it back.", self.principal),
            (note, _) => note.to_owned(),
        };
        Event::RollbackStarted {
            attempt: self.attempt(),
            cause,
            overwrites: drifted || state.status() == Status::RollbackFailed,
            message,
            failure: None,
        }
    }

    fn attempt(&self) -> u32 {
        let before = self.state.rollback.as_ref();
        before.map_or(1, |before| before.attempt.saturating_add(1))
    }

    /// What its runner reports.
    fn reported(&self, command: &Command) -> Result<Event, Refusal> {
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
            (Phase::Approved | Phase::RollingOut, Command::Intend { epoch, baseline }) => {
                match state.next_target() {
                    Some(target) => Ok(Event::WriteIntended {
                        target,
                        operation_id: self.next_operation(),
                        epoch: *epoch,
                        baseline: baseline.clone().filter(|_| !state.has_touched()),
                    }),
                    None => Err(self.late("every target is written")),
                }
            }
            (Phase::RollingOut, Command::Drifted { .. }) => {
                self.drifted(command, state.next_target())
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
            Phase::AwaitingApproval => Ok(match state.spec.gate.on_timeout {
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
            }),
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

    fn next_operation(&self) -> String {
        operation_id(
            &self.state.workflow_id,
            self.state.operations.saturating_add(1),
        )
    }

    fn wrong(&self, verb: Verb, status: Status, legal: &str) -> Refusal {
        Refusal::wrong_status(verb, status, legal)
    }

    fn refused(&self, reason: RefusalReason, message: &str) -> Refusal {
        Refusal::new(reason, Some(self.state.status()), message.to_owned())
    }

    fn late(&self, message: &str) -> Refusal {
        late(Some(self.state), message)
    }
}

fn late(state: Option<&Workflow>, message: &str) -> Refusal {
    Refusal::new(
        RefusalReason::Late,
        state.map(Workflow::status),
        message.to_owned(),
    )
}

/// The plan with the digest of what an approval is bound to.
fn with_etag(draft: &PlanDraft) -> Plan {
    // where the store keeps the settings is not among it: their digests are
    let bound = (&draft.changes, &draft.targets, &draft.strategy);
    // serialising plain data cannot fail; if it did, no approval would match
    let text = serde_json::to_vec(&bound).unwrap_or_default();
    let digest = digest(&SHA256, &text);
    let half = digest.as_ref().get(..16).unwrap_or(digest.as_ref());
    Plan {
        etag: hex(half),
        draft: draft.clone(),
    }
}
