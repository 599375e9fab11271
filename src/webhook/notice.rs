//! What there is to tell, and to whom.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::delivery::{Identity, NewDelivery, instant};
use super::kind::EventType;
use super::spec::Webhook;
use crate::analysis::{Cause, Open, Severity, Tracker};
use crate::workflow::{Event, RecordedEvent, Status, Workflow};

/// Deliveries that a transition causes. `labels` are those of its instance; `before` is none where it begins the
/// workflow.
pub fn of_transition(
    before: Option<&Workflow>,
    recorded: &RecordedEvent,
    after: &Workflow,
    labels: &BTreeMap<String, String>,
    webhooks: &[Webhook],
) -> Vec<NewDelivery> {
    let mut told = told_by(&recorded.event, after);
    let (was, is) = (before.map(Workflow::status), after.status());
    if was != Some(is) {
        told.insert(0, EventType::WorkflowStatusChanged);
    }
    if before.map(Workflow::stage) != Some(after.stage()) {
        told.push(EventType::WorkflowStageChanged);
    }
    let mut deliveries = Vec::new();
    for webhook in webhooks {
        for kind in &told {
            if webhook.wants(*kind, &recorded.instance_id, labels) {
                deliveries.push(of_workflow(webhook, *kind, before, recorded, after));
            }
        }
    }
    deliveries
}

/// What an event itself tells, beside what it does to status and stage. An event of a new kind that webhooks are to be
/// told of gets its arm here.
fn told_by(event: &Event, after: &Workflow) -> Vec<EventType> {
    let mut told = Vec::new();
    if matches!(
        event,
        Event::Observed {
            verdict: Some(_),
            ..
        }
    ) {
        told.push(EventType::WorkflowVerdict);
    }
    let asks = matches!(
        event,
        Event::Planned { .. }
            | Event::Resumed { .. }
            | Event::Observed { .. }
            | Event::QualityChecked { .. }
    );
    if asks && after.status() == Status::PendingApproval {
        told.push(EventType::WorkflowApprovalNeeded);
    }
    told
}

fn of_workflow(
    webhook: &Webhook,
    kind: EventType,
    before: Option<&Workflow>,
    recorded: &RecordedEvent,
    after: &Workflow,
) -> NewDelivery {
    let (from, to) = match kind {
        EventType::WorkflowStageChanged => (
            before.map(|state| state.stage().as_str()),
            after.stage().as_str(),
        ),
        _ => (
            before.map(|state| state.status().as_str()),
            after.status().as_str(),
        ),
    };
    let mut data = Map::new();
    put(&mut data, "workflow_id", recorded.workflow_id.as_str());
    put(&mut data, "instance_id", recorded.instance_id.as_str());
    put(&mut data, "workflow_type", after.spec.kind.as_str());
    if let Some(from) = from {
        put(&mut data, "from", from);
    }
    put(&mut data, "to", to);
    put(&mut data, "revision", recorded.revision);
    if let (
        EventType::WorkflowVerdict,
        Event::Observed {
            step,
            verdict: Some(verdict),
            ..
        },
    ) = (kind, &recorded.event)
    {
        put(&mut data, "step", *step);
        put(&mut data, "verdict", verdict.word.as_str());
        put(&mut data, "look", verdict.look);
        put(&mut data, "reason", verdict.reason.as_str());
    }
    let needs = kind == EventType::WorkflowApprovalNeeded;
    if let Some(until) = after.deadline_us.filter(|_| needs) {
        put(&mut data, "approve_by", instant(until));
    }
    if after.simulated {
        put(&mut data, "simulated", true);
    }
    NewDelivery::new(
        webhook,
        kind.as_str(),
        recorded.at_us,
        data,
        Identity {
            // a workflow's id is one of all times: another store's revisions begin anew
            event: format!("{}/{}", recorded.workflow_id, recorded.sequence),
            ordered_by: format!("workflow/{}", recorded.workflow_id),
            workflow_id: Some(recorded.workflow_id.clone()),
            instance_id: recorded.instance_id.clone(),
            revision: Some(recorded.revision),
        },
    )
}

/// How a bottleneck stood and stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BottleneckTurn {
    /// Which.
    pub cause: Cause,
    /// How severe it was while it was open; none where it was not.
    pub before: Option<Severity>,
    /// How severe it is; none where it is resolved.
    pub after: Option<Severity>,
    /// When it opened, unix time in seconds.
    pub opened_unix_seconds: f64,
}

/// How bottlenecks of an instance turned between two looks, by cause. One that was open, was resolved and is open again
/// was not: it is another then.
pub fn bottleneck_turns(before: &Tracker, after: &Tracker) -> Vec<BottleneckTurn> {
    let (were, are) = (by_cause(before), by_cause(after));
    let causes: BTreeSet<Cause> = were.keys().chain(are.keys()).copied().collect();
    let turn = |cause: Cause| {
        let (was, is) = (were.get(&cause), are.get(&cause));
        let opened = is.or(was)?.opened_unix_seconds;
        let turn = BottleneckTurn {
            cause,
            before: was.map(|open| open.finding.severity),
            after: is.map(|open| open.finding.severity),
            opened_unix_seconds: opened,
        };
        (turn.before != turn.after).then_some(turn)
    };
    causes.into_iter().filter_map(turn).collect()
}

fn by_cause(tracker: &Tracker) -> BTreeMap<Cause, &Open> {
    let open = tracker.open().into_iter();
    open.map(|one| (one.finding.cause, one)).collect()
}

/// Deliveries that turns of bottlenecks cause, told at this time, unix time in microseconds. To a webhook that hears of
/// severe ones only, one opens as soon as it is so severe, and is resolved as soon as it is not.
pub fn of_bottlenecks(
    instance_id: &str,
    (labels, simulated): (&BTreeMap<String, String>, bool),
    turns: &[BottleneckTurn],
    at_us: i64,
    webhooks: &[Webhook],
) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    for webhook in webhooks {
        let least = webhook.spec.min_severity;
        let is_told = |severity: Option<Severity>| {
            severity.filter(|severity| least.is_none_or(|least| *severity >= least))
        };
        for turn in turns {
            let kind = match (is_told(turn.before), is_told(turn.after)) {
                (None, Some(_)) => EventType::BottleneckOpened,
                (Some(_), None) => EventType::BottleneckResolved,
                _ => continue,
            };
            if webhook.wants(kind, instance_id, labels) {
                deliveries.push(of_turn(webhook, kind, instance_id, simulated, turn, at_us));
            }
        }
    }
    deliveries
}

fn of_turn(
    webhook: &Webhook,
    kind: EventType,
    instance_id: &str,
    simulated: bool,
    turn: &BottleneckTurn,
    at_us: i64,
) -> NewDelivery {
    let cause = turn.cause.as_str();
    let mut data = Map::new();
    put(&mut data, "instance_id", instance_id);
    put(&mut data, "bottleneck_type", turn.cause.kind().as_str());
    put(&mut data, "cause", cause);
    if let Some(severity) = turn.after.or(turn.before) {
        put(&mut data, "severity", severity.as_str());
    }
    put(
        &mut data,
        "opened",
        instant((turn.opened_unix_seconds * 1e6) as i64),
    );
    if simulated {
        put(&mut data, "simulated", true);
    }
    NewDelivery::new(
        webhook,
        kind.as_str(),
        at_us,
        data,
        Identity {
            event: format!("{instance_id}/{cause}/{}/{at_us}", turn.opened_unix_seconds),
            ordered_by: format!("instance/{instance_id}"),
            workflow_id: None,
            instance_id: instance_id.to_owned(),
            revision: None,
        },
    )
}

fn put(data: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    data.insert(name.to_owned(), value.into());
}
