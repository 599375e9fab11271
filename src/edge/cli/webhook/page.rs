//! Webhooks and deliveries, as people read them.

use std::time::SystemTime;

use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::terminal::clean;
use crate::edge::cli::workflow::words::{age, instant, span};
use crate::edge::grpc::pb;

/// What is said of a secret that is shown this once.
pub(super) fn secret_text(said: &str, webhook: &pb::Webhook, secret: &str, server: &str) -> String {
    let id = clean(&webhook.webhook_id);
    format!(
        "{said} {id}\nsecret: {}\nIt is shown this once. The receiver verifies deliveries with it.\n\
         try it: perfagent webhook test {id}{server}\n",
        clean(secret)
    )
}

pub(super) fn table(of: &[pb::Webhook], now: SystemTime) -> String {
    if of.is_empty() {
        return "no webhooks; `perfagent webhook create` makes one\n".to_owned();
    }
    let head = ["WEBHOOK", "STATE", "TYPES", "OF", "URL"];
    let row = |one: &pb::Webhook| {
        [
            clean(&one.webhook_id),
            state(one, now),
            types(one),
            filter(one),
            clean(&one.url),
        ]
    };
    let rows: Vec<[String; 5]> = std::iter::once(head.map(str::to_owned))
        .chain(of.iter().map(row))
        .collect();
    aligned(&rows)
}

pub(super) fn details(of: &pb::Webhook, now: SystemTime, server: &str) -> String {
    let id = clean(&of.webhook_id);
    let from = match of.source() {
        pb::WebhookSource::ConfigFile => "the config file",
        _ => "a call",
    };
    let mut text = format!(
        "{id}: {}\n  url    {}\n  types  {}\n  of     {}\n  from   {from}\n",
        state(of, now),
        clean(&of.url),
        types(of),
        filter(of),
    );
    if !of.description.is_empty() {
        text += &format!("  for    {}\n", clean(&of.description));
    }
    if of.disabled.is_some() && of.source() != pb::WebhookSource::ConfigFile {
        text += &format!("enable it: perfagent webhook enable {id}{server}\n");
    }
    text + &format!("deliveries: perfagent webhook deliveries {id}{server}\n")
}

fn state(of: &pb::Webhook, now: SystemTime) -> String {
    let since = |at: Option<prost_types::Timestamp>| {
        at.map_or_else(String::new, |at| format!(" for {}", span(age(at, now))))
    };
    if let Some(disabled) = &of.disabled {
        let why = match disabled.reason() {
            pb::WebhookDisabledReason::Gone => "disabled: its receiver is gone,",
            pb::WebhookDisabledReason::Failing => "disabled: its receiver failed for days,",
            pb::WebhookDisabledReason::Configured => "disabled by the config file,",
            _ => "disabled,",
        };
        return format!("{why}{}", since(disabled.since_time));
    }
    match of.failing_since_time {
        Some(at) => format!("failing{}", since(Some(at))),
        None => "enabled".to_owned(),
    }
}

fn types(of: &pb::Webhook) -> String {
    let words: Vec<String> = of.types.iter().map(|word| clean(word)).collect();
    words.join(", ")
}

fn filter(of: &pb::Webhook) -> String {
    let mut parts: Vec<String> = of.instance_ids.iter().map(|id| clean(id)).collect();
    let mut labels: Vec<_> = of.labels.iter().collect();
    labels.sort();
    parts.extend(
        labels
            .iter()
            .map(|(name, value)| format!("{}={}", clean(name), clean(value))),
    );
    match of.min_severity() {
        pb::Severity::Unspecified => {}
        least => {
            let word = least.as_str_name().trim_start_matches("SEVERITY_");
            parts.push(format!("at least {word}"));
        }
    }
    match parts.is_empty() {
        true => "all instances".to_owned(),
        false => parts.join(", "),
    }
}

pub(super) fn deliveries_table(of: &pb::ListWebhookDeliveriesResponse, now: SystemTime) -> String {
    if of.deliveries.is_empty() {
        return "no deliveries\n".to_owned();
    }
    let head = ["DELIVERY", "WEBHOOK", "STATE", "TRIES", "AGE", "TYPE", "OF"];
    let row = |one: &pb::WebhookDelivery| {
        [
            clean(&one.delivery_id),
            clean(&one.webhook_id),
            delivery_state(one).to_owned(),
            one.attempts.to_string(),
            one.create_time
                .map_or_else(String::new, |at| span(age(at, now))),
            clean(&one.r#type),
            match one.workflow_id.as_str() {
                "" => clean(&one.instance_id),
                id => clean(id),
            },
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head.map(str::to_owned))
        .chain(of.deliveries.iter().map(row))
        .collect();
    let mut text = aligned(&rows);
    if !of.next_page_token.is_empty() {
        text += "there are more; raise --limit\n";
    }
    text
}

fn delivery_state(of: &pb::WebhookDelivery) -> &'static str {
    match (of.state(), of.due_time) {
        (pb::WebhookDeliveryState::Delivered, _) => "delivered",
        (pb::WebhookDeliveryState::Failed, _) => "given up",
        (_, Some(_)) => "pending",
        // others of its order come first
        (_, None) => "waits",
    }
}

/// One delivery with its attempts.
pub(super) fn attempts_text(of: &pb::GetWebhookDeliveryResponse, server: &str) -> String {
    let empty = pb::WebhookDelivery::default();
    let delivery = of.delivery.as_ref().unwrap_or(&empty);
    let id = clean(&delivery.delivery_id);
    let mut text = format!(
        "{id}: {}, {} to {}\n",
        delivery_state(delivery),
        clean(&delivery.r#type),
        clean(&delivery.webhook_id),
    );
    for attempt in &of.attempts {
        text += &format!("  {}\n", attempt_line(attempt));
    }
    if let Some(due) = delivery.due_time {
        text += &format!("next try: {}\n", instant(due));
    }
    text += &format!("{}\n", clean(&delivery.body));
    text + &format!("again: perfagent webhook redeliver {id}{server}\n")
}

/// One attempt in a line.
pub(in crate::edge::cli) fn attempt_line(of: &pb::WebhookAttempt) -> String {
    let at = of.start_time.map_or_else(String::new, instant);
    let what = match (of.taken, of.http_status) {
        (true, Some(status)) => format!("taken, HTTP {status}"),
        (_, Some(status)) => format!("not taken, HTTP {status}"),
        (_, None) => format!("no answer: {}", clean(&of.problem)),
    };
    format!("{at}  {what}, in {:.3} s", of.duration_seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn webhook() -> pb::Webhook {
        pb::Webhook {
            webhook_id: "pager".to_owned(),
            url: "https://hooks.example/x\u{1b}".to_owned(),
            types: vec!["workflow.status_changed".to_owned()],
            labels: [("team".to_owned(), "a".to_owned())].into(),
            min_severity: pb::Severity::High.into(),
            ..pb::Webhook::default()
        }
    }

    #[test]
    fn a_list_says_who_is_told_nothing_and_why() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7_200);
        let mut gone = webhook();
        gone.disabled = Some(pb::WebhookDisabled {
            reason: pb::WebhookDisabledReason::Gone.into(),
            since_time: Some(prost_types::Timestamp::default()),
        });
        let page = table(&[webhook(), gone.clone()], now);
        assert!(page.contains("team=a, at least HIGH"), "{page}");
        assert!(
            page.contains("disabled: its receiver is gone, for 2"),
            "{page}"
        );
        assert!(!page.contains('\u{1b}'), "{page}");
        let one = details(&gone, now, " --server h:1");
        assert!(
            one.contains("perfagent webhook enable pager --server h:1\n"),
            "{one}"
        );
        assert!(table(&[], now).contains("webhook create"));
    }

    #[test]
    fn a_delivery_shows_each_attempt_and_how_to_try_again() {
        let attempt = |status: Option<u32>, problem: &str| pb::WebhookAttempt {
            http_status: status,
            problem: problem.to_owned(),
            taken: status == Some(204),
            duration_seconds: 0.25,
            ..pb::WebhookAttempt::default()
        };
        let text = attempts_text(
            &pb::GetWebhookDeliveryResponse {
                delivery: Some(pb::WebhookDelivery {
                    delivery_id: "msg_1".to_owned(),
                    state: pb::WebhookDeliveryState::Delivered.into(),
                    ..pb::WebhookDelivery::default()
                }),
                attempts: vec![
                    attempt(None, "no answer within 15 s"),
                    attempt(Some(500), ""),
                    attempt(Some(204), ""),
                ],
            },
            "",
        );
        assert!(
            text.contains("no answer: no answer within 15 s, in 0.250 s\n"),
            "{text}"
        );
        assert!(text.contains("not taken, HTTP 500"), "{text}");
        assert!(text.contains("  taken, HTTP 204"), "{text}");
        assert!(
            text.ends_with("again: perfagent webhook redeliver msg_1\n"),
            "{text}"
        );
    }
}
