//! Requests about workflows, read.

use std::time::Duration;

use uuid::Uuid;

use super::convert_instance;
use super::convert_struct::settings_of;
use super::deadline::Deadline;
use super::fields::short;
use super::pb;
use crate::agent::{
    Error, FieldViolation, GateAsked, StartInstance, TimeoutsAsked, WatchFrom, WorkflowStart,
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
    // there is one strategy
    if pb::WorkflowStrategy::try_from(request.strategy).is_err() {
        wrong.say("strategy", none_of(request.strategy));
    }
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
mod tests {
    use super::*;

    const ID: &str = "01980000-0000-7000-8000-000000000001";

    fn start(change: impl FnOnce(&mut pb::StartWorkflowRequest)) -> pb::StartWorkflowRequest {
        let mut request = pb::StartWorkflowRequest {
            instance_id: "vllm-1".to_owned(),
            ..pb::StartWorkflowRequest::default()
        };
        change(&mut request);
        request
    }

    fn fields<T: std::fmt::Debug>(read: Result<T, Error>) -> Vec<String> {
        match read {
            Err(Error::Invalid(violations)) => {
                violations.into_iter().map(|one| one.field).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn what_is_left_out_is_left_to_the_agent() {
        let asked = start_of(start(|_| {}), None).unwrap();
        assert_eq!(asked.start.kind, WorkflowKind::Optimization);
        assert_eq!(
            asked.start.instance,
            StartInstance::Known("vllm-1".to_owned())
        );
        assert_eq!(asked.start.gate, GateAsked::default());
        assert_eq!(asked.start.timeouts, TimeoutsAsked::default());
        assert_eq!(
            (asked.engine, asked.wait, asked.validate_only),
            (None, None, false)
        );
    }

    #[test]
    fn types_are_read_in_any_case() {
        for (word, kind) in [
            ("config_change", WorkflowKind::ConfigChange),
            ("Analysis", WorkflowKind::Analysis),
            ("RESTORE", WorkflowKind::Restore),
        ] {
            let asked = start_of(start(|one| one.workflow_type = word.to_owned()), None).unwrap();
            assert_eq!(asked.start.kind, kind);
        }
        let wrong = start(|one| one.workflow_type = "canary".to_owned());
        assert_eq!(fields(start_of(wrong, None)), ["workflow_type"]);
    }

    #[test]
    fn an_instance_with_a_url_is_given() {
        let given = start(|one| {
            one.metrics_url = "http://127.0.0.1:1/metrics".to_owned();
            one.instance_type = "vllm".to_owned();
        });
        let asked = start_of(given, None).unwrap();
        let StartInstance::Given(spec) = asked.start.instance else {
            panic!("known");
        };
        assert_eq!(spec.instance_type.as_deref(), Some("vllm"));
        assert_eq!(spec.actuator, None);
        assert_eq!(asked.engine, None);
        let known = start(|one| one.instance_type = "vllm".to_owned());
        assert_eq!(
            start_of(known, None).unwrap().engine.as_deref(),
            Some("vllm")
        );
    }

    #[test]
    fn each_field_that_is_wrong_is_named() {
        let wrong = start(|one| {
            one.instance_id.clear();
            one.snapshot_id = "7".to_owned();
            one.strategy = 9;
            one.plan_timeout = seconds(-1);
            one.ready_timeout = seconds(-1);
            one.observe_timeout = seconds(-1);
            one.rollback_timeout = seconds(-1);
            one.wait = seconds(61);
            one.gate = Some(pb::WorkflowGate {
                timeout: seconds(-1),
                on_timeout: 9,
                kind: 9,
                ..pb::WorkflowGate::default()
            });
            let list = prost_types::value::Kind::ListValue(prost_types::ListValue::default());
            one.changes = Some(prost_types::Struct {
                fields: [("a".to_owned(), prost_types::Value { kind: Some(list) })].into(),
            });
        });
        assert_eq!(
            fields(start_of(wrong, None)),
            [
                "changes.a",
                "snapshot_id",
                "gate.kind",
                "gate.timeout",
                "gate.on_timeout",
                "strategy",
                "plan_timeout",
                "ready_timeout",
                "observe_timeout",
                "rollback_timeout",
                "wait",
                "instance_id",
            ]
        );
    }

    #[test]
    fn nobody_waits_longer_than_the_call_lasts() {
        let deadline = |seconds| {
            let at = tokio::time::Instant::now() + Duration::from_secs(seconds);
            Some(Deadline(at))
        };
        assert_eq!(wait_of(None, deadline(1)), Ok(None));
        assert_eq!(wait_of(seconds(60), None), Ok(Some(MAX_WAIT)));
        assert_eq!(
            wait_of(seconds(5), deadline(60)),
            Ok(Some(Duration::from_secs(5)))
        );
        assert!(wait_of(seconds(5), deadline(4)).is_err());
        assert!(wait_of(seconds(-5), None).is_err());
    }

    #[test]
    fn ids_have_one_spelling() {
        assert_eq!(workflow_id(ID.to_owned()).unwrap(), ID);
        for wrong in ["", "7", &ID.replace('-', ""), &format!("{{{ID}}}")] {
            assert_eq!(fields(workflow_id(wrong.to_owned())), ["workflow_id"]);
        }
    }

    #[test]
    fn filters_are_read_whole() {
        let filter = filter_of(&pb::ListWorkflowsRequest {
            instance_id: "vllm-1".to_owned(),
            statuses: vec![1, 10],
            workflow_type: 4,
            ..pb::ListWorkflowsRequest::default()
        });
        let filter = filter.unwrap();
        assert_eq!(
            filter.statuses,
            [Status::PendingApproval, Status::RollbackFailed]
        );
        assert_eq!(filter.kind, Some(WorkflowKind::Analysis));
        let wrong = filter_of(&pb::ListWorkflowsRequest {
            instance_id: "x".repeat(64),
            statuses: vec![1, 0, 99],
            workflow_type: 9,
            ..pb::ListWorkflowsRequest::default()
        });
        assert_eq!(
            fields(wrong),
            ["instance_id", "statuses[1]", "statuses[2]", "workflow_type"]
        );
    }
}
