//! Deliveries: written with what causes them, tried one after the other, and never lost.

use std::time::{Duration, SystemTime};

use super::at;
use super::support::{With, advance_with, delivery, failed, id, paused, start};
use super::webhooks::{create, delete_all, secret};
use crate::store::{Claim, Claimed, DeliveryFilter, Store, StoreError, micros};
use crate::webhook::{
    Answer, Attempt, Delivery, DeliveryState, DisabledReason, Judgement, NewDelivery, Next,
    Webhook, WebhookHealth,
};

pub(super) async fn conform(store: &dyn Store) {
    deliveries_come_with_their_event(store).await;
    one_of_each_order_is_tried_at_a_time(store).await;
    who_claimed_it_before_records_nothing(store).await;
    what_a_receiver_wants_is_heeded(store).await;
    a_delivery_is_tried_again_when_it_is_asked_for(store).await;
    what_ended_is_forgotten(store).await;
}

pub(super) fn of(webhook_id: &str, order: &str, number: u32) -> NewDelivery {
    NewDelivery {
        delivery_id: format!("msg_{webhook_id}_{order}_{number}"),
        webhook_id: webhook_id.to_owned(),
        ordered_by: order.to_owned(),
        workflow_id: None,
        revision: None,
        ..delivery("")
    }
}

pub(super) async fn put(store: &dyn Store, all: &[NewDelivery], now: SystemTime) -> u32 {
    store.put_deliveries(&|_| all.to_vec(), now).await.unwrap()
}

const CLAIM: Claim = Claim {
    time: Duration::from_secs(60),
    size: 100,
    per_webhook: 100,
};

async fn claim(store: &dyn Store, now: SystemTime) -> Vec<Claimed> {
    let claimed = store.claim_deliveries(&CLAIM, now).await.unwrap();
    assert!(claimed.iter().all(|one| one.epoch > 0));
    claimed
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    let ids = claimed
        .iter()
        .map(|one| one.delivery.what.delivery_id.as_str());
    ids.collect()
}

async fn record(
    store: &dyn Store,
    claimed: &Claimed,
    (status, next): (u16, Next),
    now: SystemTime,
) -> Result<(Delivery, Webhook), StoreError> {
    let attempt = Attempt {
        number: claimed.delivery.attempts + 1,
        started_us: micros(now),
        duration_seconds: 0.25,
        answer: Answer::Status {
            status,
            retry_after: None,
        },
    };
    let judge = |webhook: &Webhook, _: u32| Judgement {
        next,
        health: webhook.health,
        disables: None,
    };
    store.record_attempt(claimed, &attempt, &judge, now).await
}

async fn deliveries_come_with_their_event(store: &dyn Store) {
    assert_eq!(store.next_delivery().await, Ok(None));
    let begun = start(store, &id(50), "o", None, at(0)).await.unwrap();
    // nobody is told
    assert_eq!(begun.deliveries, 0);
    create(store, "pager").await;
    let given = [delivery("9"), delivery("3"), delivery("5")];
    let with = With {
        deliveries: &given[..2],
        ..With::default()
    };
    let held = advance_with(store, &begun.workflow, &paused(), with).await;
    let held = held.unwrap();
    assert_eq!(held.deliveries, 2);
    let with = With {
        deliveries: &given[2..],
        ..With::default()
    };
    let ended = advance_with(store, &held.workflow, &failed(), with).await;
    assert_eq!(ended.unwrap().deliveries, 1);
    assert_eq!(store.next_delivery().await, Ok(Some(at(5))));
    // in the order in which they were given, which is not that of their ids
    let filter = DeliveryFilter::default();
    let all = store.deliveries(&filter, None, 10).await.unwrap();
    let what: Vec<_> = all.iter().rev().map(|one| one.what.clone()).collect();
    assert_eq!(what, given);
    let (first, attempts) = store.delivery("9").await.unwrap();
    assert_eq!(first.due_us, Some(micros(at(5))));
    assert_eq!(
        (first.state, attempts),
        (DeliveryState::Pending, Vec::new())
    );
    // the others wait for it
    assert_eq!(all[1].due_us, None);
    let page = store.deliveries(&filter, Some(all[0].place), 1).await;
    assert_eq!(page, Ok(vec![all[1].clone()]));
    for (filter, count) in [
        (("pager", "", "", None), 3),
        (("other", "", "", None), 0),
        (("", "0190-o", "", None), 3),
        (("", "0190-p", "", None), 0),
        (("", "", "o", Some(DeliveryState::Pending)), 3),
        (("", "", "o", Some(DeliveryState::Failed)), 0),
    ] {
        let (webhook, workflow, instance, state) = filter;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let filter = DeliveryFilter {
            webhook_id: some(webhook),
            workflow_id: some(workflow),
            instance_id: some(instance),
            state,
        };
        let found = store.deliveries(&filter, None, 10).await.unwrap();
        assert_eq!(found.len(), count, "{filter:?}");
    }
    let counts = store.webhook_counts().await.unwrap();
    assert_eq!((counts.pending, counts.disabled), (3, 0));
    // they go with their webhook
    store.delete_webhook("pager").await.unwrap();
    let none = Err(StoreError::NoDelivery("9".to_owned()));
    assert_eq!(store.delivery("9").await, none);
    assert_eq!(store.next_delivery().await, Ok(None));
}

async fn one_of_each_order_is_tried_at_a_time(store: &dyn Store) {
    create(store, "p").await;
    create(store, "q").await;
    let all = [
        of("p", "x", 1),
        of("p", "x", 2),
        of("p", "y", 1),
        of("q", "x", 1),
        of("p", "x", 3),
    ];
    assert_eq!(put(store, &all, at(0)).await, 5);
    // what is there already is left as it is
    assert_eq!(put(store, &all[..3], at(9)).await, 0);
    let few = Claim { size: 2, ..CLAIM };
    let claimed = store.claim_deliveries(&few, at(0)).await.unwrap();
    assert_eq!(ids(&claimed), ["msg_p_x_1", "msg_p_y_1"]);
    assert_eq!(claimed[0].secrets, [secret(1)]);
    // of one webhook so many, with those that are taken
    let bounded = Claim {
        per_webhook: 2,
        ..CLAIM
    };
    let rest = store.claim_deliveries(&bounded, at(0)).await.unwrap();
    assert_eq!(ids(&rest), ["msg_q_x_1"]);
    assert_eq!(ids(&claim(store, at(0)).await), [""; 0]);
    assert_eq!(store.next_delivery().await, Ok(Some(at(60))));

    let taken = record(store, &claimed[0], (200, Next::Delivered), at(1)).await;
    let (delivery, _) = taken.unwrap();
    assert_eq!(delivery.state, DeliveryState::Delivered);
    assert_eq!(
        (delivery.ended_us, delivery.due_us),
        (Some(micros(at(1))), None)
    );
    let next = claim(store, at(1)).await;
    assert_eq!(ids(&next), ["msg_p_x_2"]);
    // one that has to be tried again holds up those of its order
    let due_us = micros(at(300));
    let held = record(store, &next[0], (500, Next::Retry { due_us }), at(2)).await;
    assert_eq!(held.unwrap().0.due_us, Some(due_us));
    assert_eq!(ids(&claim(store, at(59)).await), [""; 0]);
    // one that is given up does not
    let third = claim(store, at(300)).await;
    // and the claims before are over
    assert_eq!(ids(&third), ["msg_p_x_2", "msg_p_y_1", "msg_q_x_1"]);
    let last = &third[0];
    assert_eq!((last.delivery.attempts, last.delivery.tries), (1, 1));
    let given_up = record(store, last, (500, Next::Failed), at(301)).await;
    assert_eq!(given_up.unwrap().0.state, DeliveryState::Failed);
    let after = claim(store, at(301)).await;
    assert_eq!(ids(&after), ["msg_p_x_3"]);
    let (_, attempts) = store.delivery("msg_p_x_2").await.unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|one| (one.number, one.answer.status()))
        .collect();
    assert_eq!(told, [(1, Some(500)), (2, Some(500))]);
    delete_all(store).await;
}

async fn who_claimed_it_before_records_nothing(store: &dyn Store) {
    create(store, "p").await;
    put(store, &[of("p", "x", 1)], at(0)).await;
    let first = claim(store, at(0)).await.remove(0);
    // a claim that is over is another's
    let second = claim(store, at(60)).await.remove(0);
    assert!(second.epoch > first.epoch);
    let lost = || Err(StoreError::ClaimLost("msg_p_x_1".to_owned()));
    let late = record(store, &first, (200, Next::Delivered), at(61)).await;
    assert_eq!(late, lost());
    record(store, &second, (200, Next::Delivered), at(61))
        .await
        .unwrap();
    let twice = record(store, &second, (200, Next::Delivered), at(62)).await;
    assert_eq!(twice, lost());
    put(store, &[of("p", "x", 2)], at(70)).await;
    let third = claim(store, at(70)).await.remove(0);
    delete_all(store).await;
    let gone = record(store, &third, (200, Next::Delivered), at(71)).await;
    assert_eq!(gone, Err(StoreError::ClaimLost("msg_p_x_2".to_owned())));
}

async fn what_a_receiver_wants_is_heeded(store: &dyn Store) {
    create(store, "p").await;
    put(store, &[of("p", "x", 1), of("p", "y", 1)], at(0)).await;
    let few = Claim { size: 1, ..CLAIM };
    let claimed = store.claim_deliveries(&few, at(0)).await.unwrap().remove(0);
    let attempt = Attempt {
        number: 1,
        started_us: micros(at(0)),
        duration_seconds: 15.0,
        answer: Answer::None {
            problem: "It took too long.".to_owned(),
        },
    };
    let wants = WebhookHealth {
        failing_since_us: Some(micros(at(1))),
        not_before_us: Some(micros(at(100))),
    };
    let judge = |webhook: &Webhook, tries: u32| {
        assert_eq!((webhook.id(), tries), ("p", 1));
        Judgement {
            next: Next::Retry {
                due_us: micros(at(50)),
            },
            health: wants,
            disables: None,
        }
    };
    let recorded = store
        .record_attempt(&claimed, &attempt, &judge, at(1))
        .await;
    assert_eq!(recorded.unwrap().1.health, wants);
    let (_, attempts) = store.delivery("msg_p_x_1").await.unwrap();
    assert_eq!(attempts, std::slice::from_ref(&attempt));
    // nothing of the webhook, not even what was not tried yet
    assert_eq!(ids(&claim(store, at(99)).await), [""; 0]);
    assert_eq!(store.next_delivery().await, Ok(Some(at(100))));
    let both = claim(store, at(100)).await;
    assert_eq!(ids(&both), ["msg_p_x_1", "msg_p_y_1"]);
    // one that is gone is told nothing more, and what it is owed is kept
    let gone = |_: &Webhook, _: u32| Judgement {
        next: Next::Retry {
            due_us: micros(at(7_000)),
        },
        health: wants,
        disables: Some(DisabledReason::Gone),
    };
    let recorded = store
        .record_attempt(&both[1], &attempt, &gone, at(101))
        .await;
    let disabled = recorded.unwrap().1.disabled.unwrap();
    assert_eq!(disabled.reason, DisabledReason::Gone);
    assert_eq!(disabled.since_us, micros(at(101)));
    assert_eq!(ids(&claim(store, at(9_000)).await), [""; 0]);
    assert_eq!(store.next_delivery().await, Ok(None));
    assert_eq!(store.webhook_counts().await.unwrap().disabled, 1);
    let retry = Next::Retry {
        due_us: micros(at(500)),
    };
    record(store, &both[0], (500, retry), at(102))
        .await
        .unwrap();
    let again = store.disable_webhook("p", None, at(200)).await.unwrap();
    assert_eq!(
        (again.disabled, again.health),
        (None, WebhookHealth::default())
    );
    assert_eq!(store.next_delivery().await, Ok(Some(at(200))));
    assert_eq!(claim(store, at(200)).await.len(), 2);
    delete_all(store).await;
}

async fn a_delivery_is_tried_again_when_it_is_asked_for(store: &dyn Store) {
    create(store, "p").await;
    put(store, &[of("p", "x", 1), of("p", "x", 2)], at(0)).await;
    let first = claim(store, at(0)).await.remove(0);
    // somebody tries it: it is left with who does
    let asked = store.redeliver("msg_p_x_1", at(1)).await.unwrap();
    assert_eq!(asked.state, DeliveryState::Pending);
    record(store, &first, (500, Next::Failed), at(2))
        .await
        .unwrap();
    let second = claim(store, at(3)).await.remove(0);
    // another of its order is tried: it comes after it
    let asked = store.redeliver("msg_p_x_1", at(4)).await.unwrap();
    assert_eq!((asked.state, asked.tries), (DeliveryState::Pending, 0));
    assert_eq!((asked.due_us, asked.ended_us), (None, None));
    assert_eq!(ids(&claim(store, at(4)).await), [""; 0]);
    record(store, &second, (200, Next::Delivered), at(5))
        .await
        .unwrap();
    let again = claim(store, at(5)).await;
    assert_eq!(ids(&again), ["msg_p_x_1"]);
    // its attempts are counted on
    assert_eq!(again[0].delivery.attempts, 1);
    record(store, &again[0], (200, Next::Delivered), at(6))
        .await
        .unwrap();
    // one that was delivered, too
    let asked = store.redeliver("msg_p_x_2", at(7)).await.unwrap();
    assert_eq!(asked.due_us, Some(micros(at(7))));
    assert_eq!(ids(&claim(store, at(7)).await), ["msg_p_x_2"]);
    let none = Err(StoreError::NoDelivery("msg_0".to_owned()));
    assert_eq!(store.redeliver("msg_0", at(7)).await, none);
    delete_all(store).await;
}

async fn what_ended_is_forgotten(store: &dyn Store) {
    create(store, "p").await;
    create(store, "q").await;
    let all: Vec<NewDelivery> = (1..=6)
        .map(|number| of("p", &format!("{number}"), 1))
        .collect();
    put(store, &all, at(0)).await;
    for (seconds, claimed) in (1..).zip(&claim(store, at(0)).await[..5]) {
        record(store, claimed, (200, Next::Delivered), at(seconds))
            .await
            .unwrap();
    }
    assert_eq!(store.forget_deliveries(at(1), 1_000).await, Ok(0));
    assert_eq!(store.forget_deliveries(at(3), 1_000).await, Ok(2));
    // and the oldest of more than may be kept; what is pending stays
    assert_eq!(store.forget_deliveries(at(0), 2).await, Ok(2));
    let left = store.deliveries(&DeliveryFilter::default(), None, 10).await;
    let left: Vec<_> = left
        .unwrap()
        .into_iter()
        .map(|one| (one.what.ordered_by, one.state))
        .collect();
    let (done, open) = (DeliveryState::Delivered, DeliveryState::Pending);
    assert_eq!(left, [("6".to_owned(), open), ("5".to_owned(), done)]);
    assert_eq!(store.forget_deliveries(at(0), 0).await, Ok(1));
    assert_eq!(store.webhook_counts().await.unwrap().pending, 1);

    // what a disabled webhook was owed for too long goes as well, and the next of its order is the first then
    put(store, &[of("q", "x", 1)], at(10)).await;
    put(store, &[of("q", "x", 2)], at(20)).await;
    let off = Some(DisabledReason::Requested);
    store.disable_webhook("q", off, at(21)).await.unwrap();
    assert_eq!(store.forget_deliveries(at(15), 1_000).await, Ok(1));
    store.disable_webhook("q", None, at(22)).await.unwrap();
    let next = claim(store, at(22)).await;
    assert_eq!(ids(&next), ["msg_q_x_2"]);
    delete_all(store).await;
}
