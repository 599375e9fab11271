//! What a workflow is asked to do, checked and filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::strategy::StrategyAsked;
use crate::agent::{Error, FieldViolation};
use crate::config::{APPROVAL_TIMES, MAX_APPROVALS, STEP_TIMES, WorkflowsConfig};
use crate::instance::InstanceSpec;
use crate::workflow::{GatePolicy, OnTimeout, QualityPolicy, Timeouts, WorkflowKind, WorkflowSpec};

/// What a workflow is asked to do; what is left out is filled in by the agent's policy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct WorkflowStart {
    /// On which instance.
    pub instance: StartInstance,
    /// What is to be done.
    pub kind: WorkflowKind,
    /// Of a config change what settings become, by name or flag; none within takes the flag away.
    pub changes: BTreeMap<String, Option<String>>,
    /// Of a restore the snapshot.
    pub snapshot_id: Option<String>,
    /// Of an optimization the one of those recommended that is to be carried out.
    pub optimization_id: Option<String>,
    /// No change that needs a restart.
    pub no_restart: bool,
    /// No change that can make answers others.
    pub no_answer_change: bool,
    /// Go on without an approval.
    pub auto_approve: bool,
    /// What an approval takes.
    pub gate: GateAsked,
    /// How the change goes out.
    pub strategy: StrategyAsked,
    /// How long things may take.
    pub timeouts: TimeoutsAsked,
    /// Why, in the caller's words.
    pub note: String,
}

/// On which instance a workflow is to run.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub enum StartInstance {
    /// One that the agent knows.
    Known(String),
    /// One that is registered with the workflow.
    Given(Box<InstanceSpec>),
}

/// What an approval takes; what is none is the agent's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct GateAsked {
    /// How many different principals.
    pub approvals: Option<u32>,
    /// Principals who may; empty for all whose role allows it.
    pub approvers: Vec<String>,
    /// Who starts it may not approve it.
    pub separate_requester: bool,
    /// How long it waits.
    pub timeout: Option<Duration>,
    /// What then.
    pub on_timeout: Option<OnTimeout>,
}

/// How long things may take; what is none is the agent's policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TimeoutsAsked {
    /// Until the plan is ready.
    pub plan: Option<Duration>,
    /// Until a target is ready with new settings.
    pub ready: Option<Duration>,
    /// Until what came of it is measured.
    pub observe: Option<Duration>,
    /// The whole way back.
    pub rollback: Option<Duration>,
}

/// Most bytes of what callers say.
pub(super) const MAX_NOTE_BYTES: usize = 1_024;
const MAX_APPROVERS: usize = 32;
const MAX_NAME_BYTES: usize = 256;
const MAX_CHANGES: usize = 256;

impl StartInstance {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Known(id) => id,
            Self::Given(spec) => &spec.instance_id,
        }
    }
}

impl WorkflowStart {
    /// The spec by the agent's policy, on an instance with this actuator. `authenticates`: callers have names.
    ///
    /// # Errors
    /// Fields that are wrong, and an approval that may not be left out.
    pub(super) fn spec(
        &self,
        policy: &WorkflowsConfig,
        actuator: &str,
        authenticates: bool,
    ) -> Result<WorkflowSpec, Error> {
        let mut wrong = self.violations(authenticates);
        // more than the policy asks for can be asked for, never less
        if self
            .gate
            .approvals
            .is_some_and(|asked| asked < policy.approvals)
        {
            let description = format!(
                "must be at least {}, as the agent's config file says",
                policy.approvals
            );
            wrong.push(FieldViolation::new("gate.approvals", description));
        }
        let mut seconds =
            |field: &str, asked: Option<Duration>, default: Duration, (least, most)| {
                let time = asked.unwrap_or(default);
                if asked.is_some() && !(least..=most).contains(&time) {
                    let description = format!(
                        "must be from {} to {}",
                        humantime::format_duration(least),
                        humantime::format_duration(most)
                    );
                    wrong.push(FieldViolation::new(field, description));
                }
                time.as_secs_f64()
            };
        let asked = &self.timeouts;
        let timeouts = Timeouts {
            plan_seconds: seconds("plan_timeout", asked.plan, policy.plan_timeout, STEP_TIMES),
            ready_seconds: seconds(
                "ready_timeout",
                asked.ready,
                policy.ready_timeout,
                STEP_TIMES,
            ),
            observe_seconds: seconds(
                "observe_timeout",
                asked.observe,
                policy.observe_timeout,
                STEP_TIMES,
            ),
            rollback_seconds: seconds(
                "rollback_timeout",
                asked.rollback,
                policy.rollback_timeout,
                STEP_TIMES,
            ),
        };
        let gate = GatePolicy {
            approvals: self.gate.approvals.unwrap_or(policy.approvals),
            approvers: self.gate.approvers.clone(),
            separate_requester: self.gate.separate_requester || policy.separate_requester,
            timeout_seconds: seconds(
                "gate.timeout",
                self.gate.timeout,
                policy.approval_timeout,
                APPROVAL_TIMES,
            ),
            on_timeout: self.gate.on_timeout.unwrap_or(policy.on_timeout.into()),
        };
        let quality = policy.quality_prompts.as_ref().map(|_| QualityPolicy {
            agreement_ratio: policy.quality_agreement_ratio,
            ..QualityPolicy::default()
        });
        let strategy = self.strategy.spec(quality, &mut wrong);
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        if self.auto_approve && self.kind.changes() && !policy.auto_approve {
            return Err(Error::AutoApproveNotAllowed);
        }
        Ok(WorkflowSpec {
            instance_id: self.instance.id().to_owned(),
            kind: self.kind,
            actuator: actuator.to_owned(),
            changes: self.changes.clone(),
            snapshot_id: self.snapshot_id.clone(),
            optimization_id: self.optimization_id.clone(),
            no_restart: self.no_restart,
            no_answer_change: self.no_answer_change,
            auto_approve: self.auto_approve,
            gate,
            strategy,
            timeouts,
            note: self.note.clone(),
        })
    }

    fn violations(&self, authenticates: bool) -> Vec<FieldViolation> {
        let mut wrong = Vec::new();
        let mut say =
            |field: &str, description: String| wrong.push(FieldViolation::new(field, description));
        let only = |kind: &str| format!("is for a workflow of type {kind} only");
        match self.kind {
            WorkflowKind::ConfigChange if self.changes.is_empty() => {
                say("changes", "must say what settings become".to_owned());
            }
            WorkflowKind::Restore if self.snapshot_id.is_none() => {
                say(
                    "snapshot_id",
                    "must be the id of a snapshot: see ListConfigSnapshots".to_owned(),
                );
            }
            _ => {}
        }
        if self.kind != WorkflowKind::ConfigChange && !self.changes.is_empty() {
            say("changes", only("config_change"));
        }
        if self.changes.len() > MAX_CHANGES {
            say(
                "changes",
                format!("{} settings; at most {MAX_CHANGES}", self.changes.len()),
            );
        }
        if self.kind != WorkflowKind::Restore && self.snapshot_id.is_some() {
            say("snapshot_id", only("restore"));
        }
        if self.kind != WorkflowKind::Optimization && self.optimization_id.is_some() {
            say("optimization_id", only("optimization"));
        }
        if self.note.len() > MAX_NOTE_BYTES {
            say(
                "note",
                format!("{} bytes; at most {MAX_NOTE_BYTES}", self.note.len()),
            );
        }
        if self
            .gate
            .approvals
            .is_some_and(|approvals| !(1..=MAX_APPROVALS).contains(&approvals))
        {
            say(
                "gate.approvals",
                format!("must be from 1 to {MAX_APPROVALS}"),
            );
        }
        let approvers = &self.gate.approvers;
        if approvers.len() > MAX_APPROVERS {
            say(
                "gate.approvers",
                format!("{} principals; at most {MAX_APPROVERS}", approvers.len()),
            );
        }
        if approvers
            .iter()
            .any(|name| name.is_empty() || name.len() > MAX_NAME_BYTES)
        {
            say(
                "gate.approvers",
                format!("must be names of 1 to {MAX_NAME_BYTES} bytes"),
            );
        }
        let enough = self.gate.approvals.unwrap_or(1);
        if !approvers.is_empty() && usize::try_from(enough).unwrap_or(usize::MAX) > approvers.len()
        {
            say(
                "gate.approvers",
                "are fewer than have to approve".to_owned(),
            );
        }
        let unknowable = self.gate.approvals.unwrap_or(1) > 1
            || self.gate.separate_requester
            || !approvers.is_empty();
        if !authenticates && unknowable {
            say(
                "gate",
                "who approves cannot be told while authentication is off: set auth.credentials_file, or leave it out"
                    .to_owned(),
            );
        }
        wrong
    }
}

/// What is wrong with what a caller says.
pub(super) fn note_violation(note: &str) -> Option<FieldViolation> {
    if note.contains('\0') {
        return Some(FieldViolation::new(
            "note",
            "must not hold the character NUL",
        ));
    }
    let long = note.len() > MAX_NOTE_BYTES;
    long.then(|| {
        FieldViolation::new(
            "note",
            format!("{} bytes; at most {MAX_NOTE_BYTES}", note.len()),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(approvals: Option<u32>) -> WorkflowStart {
        WorkflowStart {
            instance: StartInstance::Known("a".to_owned()),
            kind: WorkflowKind::Optimization,
            changes: BTreeMap::new(),
            snapshot_id: None,
            optimization_id: None,
            no_restart: false,
            no_answer_change: false,
            auto_approve: false,
            gate: GateAsked {
                approvals,
                ..GateAsked::default()
            },
            strategy: StrategyAsked::InPlace,
            timeouts: TimeoutsAsked::default(),
            note: String::new(),
        }
    }

    #[test]
    fn a_caller_can_ask_for_more_approvals_than_the_policy_and_not_for_fewer() {
        let policy = WorkflowsConfig {
            approvals: 2,
            ..WorkflowsConfig::default()
        };
        let approvals = |asked_for| {
            let spec = asked(asked_for).spec(&policy, "none", true);
            spec.map(|spec| spec.gate.approvals)
        };
        assert_eq!(approvals(None), Ok(2));
        assert_eq!(approvals(Some(3)), Ok(3));
        let Err(Error::Invalid(wrong)) = approvals(Some(1)) else {
            panic!("one is fewer than two");
        };
        let fields: Vec<&str> = wrong.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, ["gate.approvals"]);
    }
}
