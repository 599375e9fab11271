//! Requests about workflows, read.

use std::time::Duration;

use uuid::Uuid;

use super::convert_instance;
use super::convert_struct::settings_of;
use super::deadline::Deadline;
use super::fields::short;
use super::pb;
use crate::agent::{
    CanaryAsked, Error, FieldViolation, GateAsked, StartInstance, StrategyAsked, TimeoutsAsked,
    WatchFrom, WorkflowStart,
};
use crate::store::{EventFilter, WorkflowFilter};
use crate::workflow::{OnTimeout, Status, WorkflowKind};

/// Longest that an answer is held back for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Instance ids are not longer.
const MAX_ID_BYTES: usize = 63;
const MAX_STATUSES: usize = 32;

/// What is to be started, and how it is to be answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) start: WorkflowStart,
    /// The engine that the caller takes a registered instance for.
    pub(super) engine: Option<String>,
    pub(super) request_id: String,
    pub(super) wait: Option<Duration>,
    pub(super) validate_only: bool,
}

/// What is to be started.
///
/// # Errors
/// Fields that cannot be read. Whether they go together is the agent's to say.
pub(super) fn start_of(
    request: pb::StartWorkflowRequest,
    deadline: Option<Deadline>,
) -> Result<Asked, Error> {
    let mut wrong = Wrong::default();
    let kind = wrong.take(kind_of(&request.workflow_type), WorkflowKind::Optimization);
    let changes = wrong.take(settings_of("changes", request.changes), Default::default());
    let snapshot_id = wrong.take(
        optional(request.snapshot_id, |id| uuid("snapshot_id", id)),
        None,
    );
    let asked = request.gate.unwrap_or_default();
    if pb::WorkflowGateKind::try_from(asked.kind).is_err() {
        wrong.say("gate.kind", none_of(asked.kind));
    }
    let gate = GateAsked {
        approvals: Some(asked.approvals).filter(|approvals| *approvals > 0),
        approvers: asked.approvers,
        separate_requester: asked.separate_requester,
        timeout: wrong.time("gate.timeout", asked.timeout),
        on_timeout: match pb::WorkflowOnTimeout::try_from(asked.on_timeout) {
            Ok(pb::WorkflowOnTimeout::Unspecified) => None,
            Ok(pb::WorkflowOnTimeout::Reject) => Some(OnTimeout::Reject),
            Ok(pb::WorkflowOnTimeout::Hold) => Some(OnTimeout::Hold),
            Err(_) => {
                wrong.say("gate.on_timeout", none_of(asked.on_timeout));
                None
            }
        },
    };
    let strategy = wrong.strategy(request.strategy, request.canary);
    let timeouts = TimeoutsAsked {
        plan: wrong.time("plan_timeout", request.plan_timeout),
        ready: wrong.time("ready_timeout", request.ready_timeout),
        observe: wrong.time("observe_timeout", request.observe_timeout),
        rollback: wrong.time("rollback_timeout", request.rollback_timeout),
    };
    let wait = wrong.take(wait_of(request.wait, deadline), None);
    if request.instance_id.is_empty() {
        wrong.say("instance_id", "must be set");
    }
    let engine = Some(request.instance_type).filter(|one| !one.is_empty() && one != "auto");
    let is_known = request.metrics_url.is_empty() && request.metrics_urls.is_empty();
    let instance = match is_known {
        true => {
            wrong.filtered("instance_id", &request.instance_id);
            StartInstance::Known(request.instance_id)
        }
        false => {
            let given = pb::RegisterInstanceRequest {
                instance_id: request.instance_id,
                instance_type: engine.clone().unwrap_or_default(),
                metrics_url: request.metrics_url,
                metrics_urls: request.metrics_urls,
                ..pb::RegisterInstanceRequest::default()
            };
            // it is checked like one that is registered
            StartInstance::Given(Box::new(convert_instance::spec_of(given)?.0))
        }
    };
    wrong.none()?;
    Ok(Asked {
        start: WorkflowStart {
            instance,
            kind,
            changes,
            snapshot_id,
            optimization_id: Some(request.optimization_id).filter(|id| !id.is_empty()),
            no_restart: request.no_restart,
            no_answer_change: request.no_answer_change,
            auto_approve: request.auto_approve,
            gate,
            strategy,
            timeouts,
            note: request.note,
        },
        engine: engine.filter(|_| is_known),
        request_id: request.request_id,
        wait,
        validate_only: request.validate_only,
    })
}

/// The id of a workflow.
///
/// # Errors
/// One that none can have.
pub(super) fn workflow_id(id: String) -> Result<String, Error> {
    uuid("workflow_id", id).map_err(invalid)
}

/// Which workflows are to be listed.
///
/// # Errors
/// A filter that cannot be.
pub(super) fn filter_of(request: &pb::ListWorkflowsRequest) -> Result<WorkflowFilter, Error> {
    let mut wrong = Wrong::default();
    wrong.filtered("instance_id", &request.instance_id);
    let mut statuses = Vec::new();
    if request.statuses.len() > MAX_STATUSES {
        let many = format!(
            "{} statuses; at most {MAX_STATUSES}",
            request.statuses.len()
        );
        wrong.say("statuses", many);
    }
    for (at, number) in request.statuses.iter().take(MAX_STATUSES).enumerate() {
        match status_of(*number) {
            Some(status) => statuses.push(status),
            None => wrong.say(&format!("statuses[{at}]"), none_of(*number)),
        }
    }
    let kind = match pb::WorkflowType::try_from(request.workflow_type) {
        Ok(pb::WorkflowType::Unspecified) => None,
        Ok(pb::WorkflowType::Optimization) => Some(WorkflowKind::Optimization),
        Ok(pb::WorkflowType::ConfigChange) => Some(WorkflowKind::ConfigChange),
        Ok(pb::WorkflowType::Restore) => Some(WorkflowKind::Restore),
        Ok(pb::WorkflowType::Analysis) => Some(WorkflowKind::Analysis),
        Err(_) => {
            wrong.say("workflow_type", none_of(request.workflow_type));
            None
        }
    };
    wrong.none()?;
    Ok(WorkflowFilter {
        instance_id: Some(request.instance_id.clone()).filter(|id| !id.is_empty()),
        statuses,
        kind,
    })
}

/// From where on a workflow is to be watched.
///
/// # Errors
/// An id that no workflow can have.
pub(super) fn watch_one(request: pb::WatchWorkflowRequest) -> Result<WatchFrom, Error> {
    Ok(WatchFrom {
        workflow_id: Some(workflow_id(request.workflow_id)?),
        instance_id: None,
        after_revision: Some(request.after_revision).filter(|after| *after > 0),
        include_snapshot: request.include_snapshot,
    })
}

/// From where on workflows are to be watched.
///
/// # Errors
/// An id that no instance can have.
pub(super) fn watch_all(request: pb::WatchWorkflowsRequest) -> Result<WatchFrom, Error> {
    Ok(WatchFrom {
        workflow_id: None,
        instance_id: instance_filter(request.instance_id)?,
        after_revision: Some(request.after_revision).filter(|after| *after > 0),
        include_snapshot: request.include_snapshot,
    })
}

/// Which part of the log, and how long it is waited for.
///
/// # Errors
/// Ids that cannot be, a time that cannot be waited.
pub(super) fn events_of(
    request: &pb::ListWorkflowEventsRequest,
    deadline: Option<Deadline>,
) -> Result<(EventFilter, Duration), Error> {
    let mut wrong = Wrong::default();
    let workflow = optional(request.workflow_id.clone(), |id| uuid("workflow_id", id));
    let workflow_id = wrong.take(workflow, None);
    wrong.filtered("instance_id", &request.instance_id);
    let wait = wrong.take(wait_of(request.wait, deadline), None);
    wrong.none()?;
    let filter = EventFilter {
        workflow_id,
        instance_id: Some(request.instance_id.clone()).filter(|id| !id.is_empty()),
    };
    Ok((filter, wait.unwrap_or_default()))
}

/// The instance that a list is of.
///
/// # Errors
/// An id that none can have.
pub(super) fn instance_filter(id: String) -> Result<Option<String>, Error> {
    let mut wrong = Wrong::default();
    wrong.filtered("instance_id", &id);
    wrong.none()?;
    Ok(Some(id).filter(|id| !id.is_empty()))
}

fn kind_of(word: &str) -> Result<WorkflowKind, FieldViolation> {
    if word.is_empty() {
        return Ok(WorkflowKind::Optimization);
    }
    let mut all = WorkflowKind::ALL.iter();
    let found = all.find(|kind| kind.as_str().eq_ignore_ascii_case(word));
    found.copied().ok_or_else(|| {
        let why = format!(
            "`{}` is none of optimization, config_change, restore and analysis",
            short(word)
        );
        FieldViolation::new("workflow_type", why)
    })
}

fn status_of(number: i32) -> Option<Status> {
    let named = pb::WorkflowStatus::try_from(number).ok()?;
    let of = |status: &&Status| super::convert_workflow::status_of(**status) == named;
    Status::ALL.iter().find(of).copied()
}

fn wait_of(
    of: Option<prost_types::Duration>,
    deadline: Option<Deadline>,
) -> Result<Option<Duration>, FieldViolation> {
    let Some(wait) = of else { return Ok(None) };
    let wrong = |why: &str| FieldViolation::new("wait", why);
    let wait = Duration::try_from(wait).map_err(|_| wrong("must not be negative"))?;
    if wait > MAX_WAIT {
        return Err(wrong("must be at most 60 seconds"));
    }
    match deadline {
        Some(deadline) if wait >= deadline.left() => {
            Err(wrong("must be less than the time to the call's deadline"))
        }
        _ => Ok(Some(wait)),
    }
}

fn uuid(field: &str, id: String) -> Result<String, FieldViolation> {
    // in the one spelling in which ids are kept
    let read = Uuid::try_parse(&id).ok();
    match read.is_some_and(|read| read.as_hyphenated().to_string() == id) {
        true => Ok(id),
        false => {
            let why = match id.is_empty() {
                true => "must be set".to_owned(),
                false => format!("must be a UUID as it was given, not `{}`", short(&id)),
            };
            Err(FieldViolation::new(field, why))
        }
    }
}

fn optional(
    id: String,
    read: impl FnOnce(String) -> Result<String, FieldViolation>,
) -> Result<Option<String>, FieldViolation> {
    match id.is_empty() {
        true => Ok(None),
        false => read(id).map(Some),
    }
}

fn none_of(number: i32) -> String {
    format!("{number} is none of the enum")
}

fn invalid(violation: FieldViolation) -> Error {
    Error::Invalid(vec![violation])
}

/// What is wrong with a request.
#[derive(Debug, Default)]
struct Wrong(Vec<FieldViolation>);

impl Wrong {
    fn say(&mut self, field: &str, why: impl Into<String>) {
        self.0.push(FieldViolation::new(field, why));
    }

    fn take<T>(&mut self, read: Result<T, FieldViolation>, otherwise: T) -> T {
        read.unwrap_or_else(|violation| {
            self.0.push(violation);
            otherwise
        })
    }

    fn time(&mut self, field: &str, of: Option<prost_types::Duration>) -> Option<Duration> {
        let time = of.map(Duration::try_from).transpose();
        time.unwrap_or_else(|_| {
            self.say(field, "must not be negative");
            None
        })
    }

    fn strategy(&mut self, number: i32, canary: Option<pb::WorkflowCanary>) -> StrategyAsked {
        let asked = pb::WorkflowStrategy::try_from(number);
        if asked.is_err() {
            self.say("strategy", none_of(number));
        }
        if asked == Ok(pb::WorkflowStrategy::InPlace) {
            if canary.is_some() {
                self.say("canary", "is for the strategy CANARY only");
            }
            return StrategyAsked::InPlace;
        }
        let canary = canary.unwrap_or_default();
        StrategyAsked::Canary(CanaryAsked {
            shares: canary.shares,
            warm_up: self.time("canary.warm_up", canary.warm_up),
            observe: self.time("canary.observe", canary.observe),
            decision: self.time("canary.decision", canary.decision),
            drain: self.time("canary.drain", canary.drain),
            least_ready: canary.least_ready,
            tolerance_ratio: canary.tolerance_ratio,
            gate_before_rollout: canary.gate_before_rollout,
            gate_each_step: canary.gate_each_step,
        })
    }

    /// An id by which something is found: one that is not there is found nowhere.
    fn filtered(&mut self, field: &str, id: &str) {
        if id.len() > MAX_ID_BYTES {
            self.say(field, format!("{} bytes; at most {MAX_ID_BYTES}", id.len()));
        }
    }

    fn none(self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Error::Invalid(self.0)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
