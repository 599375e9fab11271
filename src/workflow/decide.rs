//! What comes of a command: an event, or a refusal. Every command is legal or refused in every state.

use ring::digest::{SHA256, digest};

use super::command::{Command, Refusal, RefusalReason};
use super::event::Event;
use super::gate::Approval;
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

/// A command that is decided on.
pub(super) struct Decision<'d> {
    pub(super) state: &'d Workflow,
    principal: &'d str,
    pub(super) now_us: i64,
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
            (Status::PendingApproval, _) if state.has_touched() => {
                Ok(self.way_back(RollbackCause::Rejected, note))
            }
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
    pub(super) fn way_back(&self, cause: RollbackCause, note: &str) -> Event {
        let state = self.state;
        let drifted = state
            .pause
            .as_ref()
            .is_some_and(|pause| pause.reason == PauseReason::Drift);
        let message = match (note, cause) {
            ("", RollbackCause::Cancelled) => format!("{} cancelled it.", self.principal),
            ("", RollbackCause::Rejected) => {
                format!("{} does not let it go further.", self.principal)
            }
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

    pub(super) fn attempt(&self) -> u32 {
        let before = self.state.rollback.as_ref();
        before.map_or(1, |before| before.attempt.saturating_add(1))
    }

    pub(super) fn next_operation(&self) -> String {
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

    pub(super) fn late(&self, message: &str) -> Refusal {
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
pub(super) fn with_etag(draft: &PlanDraft) -> Plan {
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
