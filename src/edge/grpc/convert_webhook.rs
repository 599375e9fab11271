//! Webhooks ↔ protobuf.

use prost_types::Timestamp;

use super::convert_workflow::instant;
use super::pb;
use crate::agent::{Caller, Error, FieldViolation};
use crate::analysis::Severity;
use crate::scrape::parse_url;
use crate::store::DeliveryFilter;
use crate::webhook::{
    Attempt, Delivery, DeliveryState, DisabledReason, EventType, Secret, Webhook, WebhookSource,
    WebhookSpec,
};

/// A new webhook, its secret where one is given, and the id of the request.
///
/// # Errors
/// Fields that cannot be read.
pub(super) fn spec_of(
    request: pb::CreateWebhookRequest,
) -> Result<(WebhookSpec, Option<Secret>, String), Error> {
    let mut wrong = Vec::new();
    let mut types = Vec::new();
    for (place, word) in request.types.iter().enumerate().take(MAX_TYPES) {
        match EventType::parse(word) {
            Some(kind) => types.push(kind),
            None => {
                let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
                let why = format!("is none of {}", known.join(", "));
                wrong.push(FieldViolation::new(format!("types[{place}]"), why));
            }
        }
    }
    if request.types.len() > MAX_TYPES {
        let why = format!("{} types; at most {MAX_TYPES}", request.types.len());
        wrong.push(FieldViolation::new("types", why));
    }
    if request.types.is_empty() {
        types.push(EventType::DEFAULT);
    }
    let min_severity = match pb::Severity::try_from(request.min_severity) {
        Ok(pb::Severity::Unspecified) => None,
        Ok(pb::Severity::Low) => Some(Severity::Low),
        Ok(pb::Severity::Medium) => Some(Severity::Medium),
        Ok(pb::Severity::High) => Some(Severity::High),
        Ok(pb::Severity::Critical) => Some(Severity::Critical),
        Err(_) => {
            let why = format!("{} is none of the enum", request.min_severity);
            wrong.push(FieldViolation::new("min_severity", why));
            None
        }
    };
    let secret = secret_of(&request.secret).unwrap_or_else(|violation| {
        wrong.push(violation);
        None
    });
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let spec = WebhookSpec {
        webhook_id: request.webhook_id,
        url: request.url,
        types,
        instance_ids: request.instance_ids,
        labels: request.labels.into_iter().collect(),
        min_severity,
        description: request.description,
    };
    Ok((spec, secret, request.request_id))
}

const MAX_TYPES: usize = 32;

/// A secret as a caller gives it; none where it is empty.
///
/// # Errors
/// One that is none, without showing it.
pub(super) fn secret_of(text: &str) -> Result<Option<Secret>, FieldViolation> {
    match text.is_empty() {
        true => Ok(None),
        false => Secret::parse(text)
            .map(Some)
            .map_err(|error| FieldViolation::new("secret", error.to_string())),
    }
}

/// Which deliveries are to be listed.
///
/// # Errors
/// A state that there is not.
pub(super) fn filter_of(
    request: &pb::ListWebhookDeliveriesRequest,
) -> Result<DeliveryFilter, Error> {
    let state = match pb::WebhookDeliveryState::try_from(request.state) {
        Ok(pb::WebhookDeliveryState::Unspecified) => None,
        Ok(pb::WebhookDeliveryState::Pending) => Some(DeliveryState::Pending),
        Ok(pb::WebhookDeliveryState::Delivered) => Some(DeliveryState::Delivered),
        Ok(pb::WebhookDeliveryState::Failed) => Some(DeliveryState::Failed),
        Err(_) => {
            let why = format!("{} is none of the enum", request.state);
            return Err(Error::Invalid(vec![FieldViolation::new("state", why)]));
        }
    };
    let given = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
    Ok(DeliveryFilter {
        webhook_id: given(&request.webhook_id),
        workflow_id: given(&request.workflow_id),
        instance_id: given(&request.instance_id),
        state,
    })
}

/// A webhook as this caller may see it.
pub(super) fn webhook(of: &Webhook, caller: &Caller) -> pb::Webhook {
    let spec = &of.spec;
    pb::Webhook {
        webhook_id: spec.webhook_id.clone(),
        url: match caller.sees_queries() {
            true => spec.url.clone(),
            false => origin(&spec.url),
        },
        types: spec
            .types
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        instance_ids: spec.instance_ids.clone(),
        labels: spec.labels.clone().into_iter().collect(),
        min_severity: spec
            .min_severity
            .map_or(pb::Severity::Unspecified, severity)
            .into(),
        description: spec.description.clone(),
        source: match of.source {
            WebhookSource::ConfigFile => pb::WebhookSource::ConfigFile,
            WebhookSource::Created => pb::WebhookSource::Created,
        }
        .into(),
        create_time: Some(instant(of.created_us)),
        disabled: of.disabled.map(|disabled| pb::WebhookDisabled {
            reason: reason(disabled.reason).into(),
            since_time: Some(instant(disabled.since_us)),
        }),
        failing_since_time: time(of.health.failing_since_us),
        not_before_time: time(of.health.not_before_us),
    }
}

/// Where a URL leads; its path, too, can be a secret.
fn origin(url: &str) -> String {
    match parse_url(url) {
        Ok(url) => format!("{}/***", url.origin().ascii_serialization()),
        Err(_) => "***".to_owned(),
    }
}

fn severity(of: Severity) -> pb::Severity {
    match of {
        Severity::Low => pb::Severity::Low,
        Severity::Medium => pb::Severity::Medium,
        Severity::High => pb::Severity::High,
        Severity::Critical => pb::Severity::Critical,
    }
}

fn reason(of: DisabledReason) -> pb::WebhookDisabledReason {
    match of {
        DisabledReason::Requested => pb::WebhookDisabledReason::Requested,
        DisabledReason::Configured => pb::WebhookDisabledReason::Configured,
        DisabledReason::Gone => pb::WebhookDisabledReason::Gone,
        DisabledReason::Failing => pb::WebhookDisabledReason::Failing,
    }
}

/// A delivery.
pub(super) fn delivery(of: &Delivery) -> pb::WebhookDelivery {
    let what = &of.what;
    pb::WebhookDelivery {
        delivery_id: what.delivery_id.clone(),
        webhook_id: what.webhook_id.clone(),
        r#type: what.kind.clone(),
        workflow_id: what.workflow_id.clone().unwrap_or_default(),
        instance_id: what.instance_id.clone(),
        revision: what.revision,
        state: match of.state {
            DeliveryState::Pending => pb::WebhookDeliveryState::Pending,
            DeliveryState::Delivered => pb::WebhookDeliveryState::Delivered,
            DeliveryState::Failed => pb::WebhookDeliveryState::Failed,
        }
        .into(),
        attempts: of.attempts,
        create_time: Some(instant(of.created_us)),
        due_time: time(of.due_us),
        end_time: time(of.ended_us),
        body: what.body.clone(),
    }
}

/// An attempt.
pub(super) fn attempt(of: &Attempt) -> pb::WebhookAttempt {
    pb::WebhookAttempt {
        number: of.number,
        start_time: Some(instant(of.started_us)),
        duration_seconds: of.duration_seconds,
        http_status: of.answer.status().map(u32::from),
        problem: of.answer.problem().unwrap_or_default().to_owned(),
        taken: of.answer.is_taken(),
    }
}

fn time(us: Option<i64>) -> Option<Timestamp> {
    us.map(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_operate_sees_no_secret_of_a_url() {
        let url = "https://hooks.example:8443/services/T0/secret?token=s";
        assert_eq!(origin(url), "https://hooks.example:8443/***");
        assert_eq!(origin("no url"), "***");
    }
}
