use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::analysis::{Cause, Severity};
use crate::workflow::tests::example::{Run, spec as workflow_spec};
use crate::workflow::{Command, Workflow, WorkflowKind};

fn webhook(types: &[EventType]) -> Webhook {
    Webhook {
        spec: WebhookSpec {
            webhook_id: "pager".to_owned(),
            url: "https://hooks.example/x".to_owned(),
            types: types.to_vec(),
            instance_ids: Vec::new(),
            labels: BTreeMap::new(),
            min_severity: None,
            description: String::new(),
        },
        source: WebhookSource::Created,
        created_us: 0,
        disabled: None,
        health: WebhookHealth::default(),
    }
}

/// What each event of a run tells.
fn told_of(run: &Run, webhooks: &[Webhook]) -> Vec<NewDelivery> {
    let mut state: Option<Workflow> = None;
    let mut all = Vec::new();
    for recorded in &run.log {
        let after = crate::workflow::evolve(state.clone(), recorded).unwrap();
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        all.extend(of_transition(
            state.as_ref(),
            recorded,
            &after,
            &labels,
            webhooks,
        ));
        state = Some(after);
    }
    all
}

fn data(delivery: &NewDelivery) -> Value {
    let body: Value = serde_json::from_str(&delivery.body).unwrap();
    assert_eq!(body["type"], delivery.kind);
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'), "{body}");
    body["data"].clone()
}

fn ways(deliveries: &[NewDelivery]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let way = |one: &NewDelivery| (text(&data(one)["from"]), text(&data(one)["to"]));
    deliveries.iter().map(way).collect()
}

fn way(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[test]
fn a_workflow_tells_each_status_once() {
    let mut run = Run::measuring(2);
    run.report(Command::Fail(crate::workflow::tests::example::failure()));
    let told = told_of(&run, &[webhook(&[EventType::DEFAULT])]);
    let ways = ways(&told);
    assert_eq!(
        ways[..4],
        [
            way("-", "IN_PROGRESS"),
            way("IN_PROGRESS", "PENDING_APPROVAL"),
            way("PENDING_APPROVAL", "APPROVED"),
            way("APPROVED", "IN_PROGRESS"),
        ]
    );
    let mut ids: Vec<_> = told.iter().map(|one| &one.delivery_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), told.len());
    let first = data(&told[0]);
    assert_eq!(
        first,
        json!({
            "workflow_id": "w",
            "instance_id": "chat",
            "workflow_type": "OPTIMIZATION",
            "to": "IN_PROGRESS",
            "revision": 7,
        })
    );
    // measurements of a simulated engine say so
    assert_eq!(data(&told[1])["simulated"], true);
    assert!(told.iter().all(|one| one.ordered_by == "workflow/w"));
    // the same log tells the same again, under the same ids
    assert_eq!(told_of(&run, &[webhook(&[EventType::DEFAULT])]), told);
}

#[test]
fn stages_and_needed_approvals_are_told_to_who_asks() {
    let run = Run::planned(workflow_spec(WorkflowKind::Optimization), 1);
    let stages = told_of(&run, &[webhook(&[EventType::WorkflowStageChanged])]);
    assert_eq!(
        ways(&stages),
        [
            way("-", "ANALYSIS"),
            way("ANALYSIS", "RECOMMENDATION"),
            way("RECOMMENDATION", "APPROVAL"),
        ]
    );
    let needed = told_of(&run, &[webhook(&[EventType::WorkflowApprovalNeeded])]);
    assert_eq!(ways(&needed), [way("IN_PROGRESS", "PENDING_APPROVAL")]);
    assert!(data(&needed[0])["approve_by"].is_string());
    // one event tells each of its types to each webhook, and each under an id of its own
    let mut other = webhook(EventType::ALL);
    other.spec.webhook_id = "chat".to_owned();
    let both = told_of(&run, &[webhook(EventType::ALL), other]);
    let mut ids: Vec<_> = both.iter().map(|one| &one.delivery_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2 * (3 + 2 + 1));
}

#[test]
fn filters_leave_out_what_was_not_asked_for() {
    let run = Run::planned(workflow_spec(WorkflowKind::Optimization), 1);
    let told = |change: fn(&mut Webhook)| {
        let mut webhook = webhook(&[EventType::DEFAULT]);
        change(&mut webhook);
        told_of(&run, &[webhook]).len()
    };
    assert_eq!(told(|_| {}), 2);
    assert_eq!(
        told(|hook| hook.spec.instance_ids = vec!["chat".to_owned()]),
        2
    );
    assert_eq!(
        told(|hook| hook.spec.instance_ids = vec!["x".to_owned()]),
        0
    );
    let label = |value: &str| BTreeMap::from([("team".to_owned(), value.to_owned())]);
    let mut asked = webhook(&[EventType::DEFAULT]);
    asked.spec.labels = label("a");
    assert_eq!(told_of(&run, &[asked.clone()]).len(), 2);
    asked.spec.labels = label("b");
    assert_eq!(told_of(&run, &[asked]).len(), 0);
    let off = |hook: &mut Webhook| {
        hook.disabled = Some(Disabled {
            reason: DisabledReason::Gone,
            since_us: 1,
        });
    };
    assert_eq!(told(off), 0);
}

#[test]
fn a_bottleneck_opens_to_a_webhook_when_it_is_as_severe_as_it_asks() {
    let turn = |before, after| BottleneckTurn {
        cause: Cause::KvCapacity,
        before,
        after,
        opened_unix_seconds: 1_800_000_000.5,
    };
    let mut high = webhook(&[EventType::BottleneckOpened, EventType::BottleneckResolved]);
    high.spec.min_severity = Some(Severity::High);
    let told = |turn: BottleneckTurn| {
        let labels = BTreeMap::new();
        let at_us = 1_800_000_100_000_000;
        of_bottlenecks("a", (&labels, false), &[turn], at_us, &[high.clone()])
    };
    let (low, severe) = (Some(Severity::Low), Some(Severity::Critical));
    assert_eq!(told(turn(None, low)), []);
    assert_eq!(told(turn(low, None)), []);
    for (one, kind) in [
        (turn(None, severe), EventType::BottleneckOpened),
        (turn(low, severe), EventType::BottleneckOpened),
        (turn(severe, low), EventType::BottleneckResolved),
        (turn(severe, None), EventType::BottleneckResolved),
    ] {
        let told = told(one);
        assert_eq!(told[0].kind, kind.as_str());
        assert_eq!(told[0].ordered_by, "instance/a");
        assert_eq!(data(&told[0])["cause"], "KV_CAPACITY");
        assert_eq!(data(&told[0])["opened"], "2027-01-15T08:00:00.500000Z");
    }
    assert_eq!(data(&told(turn(severe, None))[0])["severity"], "CRITICAL");
}

#[test]
fn what_is_wrong_with_a_webhook_is_named() {
    let fields = |change: fn(&mut WebhookSpec)| {
        let mut spec = webhook(&[EventType::DEFAULT]).spec;
        change(&mut spec);
        let wrong = spec.violations().into_iter();
        wrong.map(|one| one.field).collect::<Vec<_>>()
    };
    assert_eq!(fields(|_| {}), [""; 0]);
    assert_eq!(
        fields(|spec| spec.webhook_id = "A b".to_owned()),
        ["webhook_id"]
    );
    assert_eq!(fields(|spec| spec.url = "ftp://x/".to_owned()), ["url"]);
    assert_eq!(fields(|spec| spec.url = "x".repeat(3_000)), ["url"]);
    assert_eq!(fields(|spec| spec.types.clear()), ["types"]);
    assert_eq!(
        fields(|spec| spec.types.push(EventType::DEFAULT)),
        ["types"]
    );
    assert_eq!(
        fields(|spec| spec.instance_ids = vec!["a".to_owned(), "?".to_owned()]),
        ["instance_ids[1]"]
    );
    assert_eq!(
        fields(|spec| spec.instance_ids = vec!["a".to_owned(); 101]),
        ["instance_ids"]
    );
    assert_eq!(
        fields(|spec| spec.description = "x".repeat(2_000)),
        ["description"]
    );
    assert_eq!(
        fields(|spec| spec.labels = [(String::new(), String::new())].into()),
        ["labels[\"\"]"]
    );
}

#[test]
fn secrets_are_read_and_never_shown() {
    let secret = Secret::of(&[7; 32]);
    assert_eq!(Secret::parse(secret.expose()), Ok(secret.clone()));
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    for text in [
        "",
        "whsec_",
        "whsec_AAAA",
        "AAAA",
        "whsec_!",
        &"A".repeat(32),
    ] {
        let refused = Secret::parse(text).unwrap_err();
        assert!(text.is_empty() || !refused.to_string().contains(text) || text == "whsec_");
    }
    let file = format!(
        "{}\n\n  {}\n",
        secret.expose(),
        Secret::of(&[8; 32]).expose()
    );
    assert_eq!(
        Secret::all_of(&file),
        Ok(vec![secret, Secret::of(&[8; 32])])
    );
    assert_eq!(Secret::all_of("\n"), Err(BadSecret::None));
    assert_eq!(Secret::all_of(&file.repeat(3)), Err(BadSecret::TooMany));
}

#[test]
fn a_signature_is_that_of_the_standard() {
    // the example of the reference libraries
    let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    let id = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    let one = sign(id, 1_649_367_553, body, std::slice::from_ref(&secret)).unwrap();
    let expected = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    assert_eq!(one.signature, expected);
    let two = sign(id, 1_649_367_553, body, &[Secret::of(&[1; 32]), secret]).unwrap();
    let parts: Vec<&str> = two.signature.split(' ').collect();
    assert_eq!((parts.len(), parts[1]), (2, expected));
    assert_eq!(sign(id, 1, body, &[]), Err(BadSecret::None));
}

const NOW: i64 = 1_800_000_000_000_000;
const SECOND: i64 = 1_000_000;

fn answered(status: u16, retry_after: Option<&str>) -> Answer {
    Answer::Status {
        status,
        retry_after: retry_after.map(str::to_owned),
    }
}

fn judged(answer: &Answer, tries: u32, health: WebhookHealth) -> Judgement {
    judge(answer, tries, health, NOW, &RetryPolicy::default(), 0.0)
}

#[test]
fn the_schedule_is_that_of_the_standard() {
    let policy = RetryPolicy::default();
    let all: Duration = policy.slots.iter().sum();
    assert_eq!(all, Duration::from_secs(75 * 3_600 + 35 * 60 + 5));
    let fine = WebhookHealth::default();
    let failing = WebhookHealth {
        failing_since_us: Some(NOW),
        ..fine
    };
    let late = Answer::None {
        problem: "It took too long.".to_owned(),
    };
    for (tries, seconds) in [(1, 5), (2, 300), (3, 1_800), (9, 86_400)] {
        for answer in [&answered(500, None), &answered(302, None), &late] {
            let after = judged(answer, tries, fine);
            let due_us = NOW + seconds * SECOND;
            assert_eq!(after.next, Next::Retry { due_us });
            assert_eq!((after.health, after.disables), (failing, None));
        }
    }
    assert_eq!(judged(&answered(500, None), 10, fine).next, Next::Failed);
    for status in [200, 204, 299] {
        let after = judged(&answered(status, None), 3, failing);
        assert_eq!((after.next, after.health), (Next::Delivered, fine));
    }
}

#[test]
fn a_receiver_that_is_gone_or_fails_for_days_is_disabled() {
    let health = |hours: i64| WebhookHealth {
        failing_since_us: Some(NOW - hours * 3_600 * SECOND),
        not_before_us: None,
    };
    let gone = judged(&answered(410, None), 1, WebhookHealth::default());
    assert_eq!(gone.disables, Some(DisabledReason::Gone));
    assert!(matches!(gone.next, Next::Retry { .. }), "it is still owed");
    let failing = Some(DisabledReason::Failing);
    assert_eq!(
        judged(&answered(500, None), 1, health(120)).disables,
        failing
    );
    assert_eq!(judged(&answered(500, None), 1, health(119)).disables, None);
    assert_eq!(judged(&answered(200, None), 1, health(500)).disables, None);
}

#[test]
fn what_a_receiver_asks_for_is_the_least_that_it_is_left_alone() {
    let at = |seconds: u64| {
        let now = UNIX_EPOCH + Duration::from_micros(NOW as u64);
        httpdate::fmt_http_date(now + Duration::from_secs(seconds))
    };
    // status, Retry-After, seconds to the next try of a first one, and for which the webhook is left alone
    for (status, text, due, alone) in [
        (429, "60", 60, Some(60)),
        (503, "60", 60, Some(60)),
        (503, &*at(90), 90, Some(90)),
        (429, "1", 5, Some(1)),
        (429, "0", 5, Some(0)),
        (429, "999999999999999999999999", 86_400, Some(86_400)),
        (429, "soon", 5, None),
        (429, "-1", 5, None),
        (429, "", 5, None),
        (500, "60", 5, None),
    ] {
        let after = judged(&answered(status, Some(text)), 1, WebhookHealth::default());
        let due_us = NOW + due * SECOND;
        assert_eq!(after.next, Next::Retry { due_us }, "{status} {text}");
        let alone = alone.map(|seconds| NOW + seconds * SECOND);
        assert_eq!(after.health.not_before_us, alone, "{status} {text}");
    }
    // what is past says nothing
    let past = judged(&answered(503, Some(&at(0))), 1, WebhookHealth::default());
    assert_eq!(past.health.not_before_us, Some(NOW));
    // another that failed meanwhile does not shorten it
    let wanted = WebhookHealth {
        failing_since_us: Some(NOW),
        not_before_us: Some(NOW + 90 * SECOND),
    };
    let after = judged(&answered(500, None), 1, wanted);
    assert_eq!(after.health.not_before_us, wanted.not_before_us);
    let over = WebhookHealth {
        not_before_us: Some(NOW - SECOND),
        ..wanted
    };
    assert_eq!(
        judged(&answered(500, None), 1, over).health.not_before_us,
        None
    );
}

proptest! {
    #[test]
    fn whatever_a_receiver_answers_a_try_is_later_and_comes_to_an_end(
        status in 100..1_000_u16,
        text in proptest::option::of("\\PC{0,40}"),
        tries in 1..200_u32,
        since in proptest::option::of(0..2 * NOW),
        random in 0.0..1.0_f64,
    ) {
        let health = WebhookHealth { failing_since_us: since, not_before_us: since };
        let policy = RetryPolicy::default();
        let after = judge(&answered(status, text.as_deref()), tries, health, NOW, &policy, random);
        match after.next {
            Next::Retry { due_us } => {
                prop_assert!(tries < 10);
                let longest = policy.slots.iter().max().unwrap().mul_f64(1.2);
                prop_assert!(due_us > NOW && due_us <= NOW + longest.as_micros() as i64);
            }
            Next::Failed => prop_assert!(tries >= 10),
            Next::Delivered => prop_assert!((200..300).contains(&status)),
        }
        prop_assert_eq!(after.disables == Some(DisabledReason::Gone), status == 410);
    }
}
