//! Webhooks: who is told, with what secret, and how they follow the config file.

use std::collections::BTreeMap;

use super::deliveries::{of, put};
use super::{at, once};
use crate::store::{Store, StoreError, micros};
use crate::webhook::{
    ConfiguredWebhook, DisabledReason, EventType, MAX_WEBHOOKS, Secret, Webhook, WebhookHealth,
    WebhookSource, WebhookSpec,
};

pub(super) async fn conform(store: &dyn Store) {
    webhooks_are_kept_and_their_secrets_apart(store).await;
    those_of_the_config_file_follow_it(store).await;
}

fn spec(webhook_id: &str) -> WebhookSpec {
    WebhookSpec {
        webhook_id: webhook_id.to_owned(),
        url: "https://hooks.example/a?token=s".to_owned(),
        types: vec![EventType::WorkflowStatusChanged],
        instance_ids: vec!["chat".to_owned()],
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        min_severity: None,
        description: "on call".to_owned(),
    }
}

pub(super) fn secret(byte: u8) -> Secret {
    Secret::of(&[byte; 32])
}

/// A webhook of this id, where there is none.
pub(super) async fn create(store: &dyn Store, webhook_id: &str) -> Webhook {
    match store
        .create_webhook(&spec(webhook_id), &secret(1), None, at(0))
        .await
    {
        Ok(webhook) => webhook,
        Err(StoreError::WebhookExists(_)) => {
            let all = store.webhooks().await.unwrap();
            all.into_iter().find(|one| one.id() == webhook_id).unwrap()
        }
        Err(other) => panic!("{other}"),
    }
}

pub(super) async fn delete_all(store: &dyn Store) {
    for webhook in store.webhooks().await.unwrap() {
        store.delete_webhook(webhook.id()).await.unwrap();
    }
}

async fn webhooks_are_kept_and_their_secrets_apart(store: &dyn Store) {
    delete_all(store).await;
    let first = once("hook", 1);
    let created = store
        .create_webhook(&spec("a"), &secret(1), Some(&first), at(5))
        .await
        .unwrap();
    assert_eq!(
        created,
        Webhook {
            spec: spec("a"),
            source: WebhookSource::Created,
            created_us: micros(at(5)),
            disabled: None,
            health: WebhookHealth::default(),
        }
    );
    assert_eq!(store.webhooks().await, Ok(vec![created.clone()]));
    let shown = format!("{created:?}");
    assert!(!shown.contains(secret(1).expose()), "{shown}");
    // the same request again makes no other secret
    let again = store
        .create_webhook(&spec("a"), &secret(2), Some(&first), at(6))
        .await;
    assert_eq!(again, Ok(created.clone()));
    assert_eq!(
        store.answered_webhook(&first, at(6)).await,
        Ok(Some(created))
    );
    assert_eq!(store.webhook_secrets("a", at(6)).await, Ok(vec![secret(1)]));
    let exists = StoreError::WebhookExists("a".to_owned());
    let taken = store
        .create_webhook(&spec("a"), &secret(2), None, at(6))
        .await;
    assert_eq!(taken, Err(exists));

    // the old one is signed with for a while
    let (turn, long) = (once("turn", 2), at(100));
    for _ in 0..2 {
        let rotated = store
            .rotate_webhook_secret("a", &secret(3), long, Some(&turn), at(10))
            .await;
        rotated.unwrap();
    }
    let both = Ok(vec![secret(3), secret(1)]);
    assert_eq!(store.webhook_secrets("a", at(99)).await, both);
    assert_eq!(store.webhook_secrets("a", long).await, Ok(vec![secret(3)]));
    // and a later turn does not keep it for longer
    store
        .rotate_webhook_secret("a", &secret(4), at(200), None, at(50))
        .await
        .unwrap();
    let three = Ok(vec![secret(4), secret(3), secret(1)]);
    assert_eq!(store.webhook_secrets("a", at(99)).await, three);
    let two = Ok(vec![secret(4), secret(3)]);
    assert_eq!(store.webhook_secrets("a", at(101)).await, two);

    let none = || StoreError::NoWebhook("b".to_owned());
    let turned = store
        .rotate_webhook_secret("b", &secret(3), long, None, at(10))
        .await;
    assert_eq!(turned, Err(none()));
    assert_eq!(store.disable_webhook("b", None, at(1)).await, Err(none()));
    assert_eq!(store.delete_webhook("b").await, Err(none()));
    store.delete_webhook("a").await.unwrap();
    assert_eq!(store.webhooks().await, Ok(Vec::new()));
    assert_eq!(store.webhook_secrets("a", at(1)).await, Ok(Vec::new()));

    for number in 0..MAX_WEBHOOKS {
        create(store, &format!("many-{number}")).await;
    }
    let more = store
        .create_webhook(&spec("more"), &secret(2), None, at(6))
        .await;
    assert_eq!(more, Err(StoreError::TooManyWebhooks(MAX_WEBHOOKS)));
    delete_all(store).await;
}

async fn those_of_the_config_file_follow_it(store: &dyn Store) {
    let entry = |id: &str, is_enabled: bool| ConfiguredWebhook {
        spec: spec(id),
        is_enabled,
    };
    create(store, "mine").await;
    let file = [entry("a", true), entry("b", false)];
    store.put_configured_webhooks(&file, at(1)).await.unwrap();
    let all = store.webhooks().await.unwrap();
    let known: Vec<_> = all
        .iter()
        .map(|one| (one.id(), one.source, one.disabled.map(|off| off.reason)))
        .collect();
    let (file, call) = (WebhookSource::ConfigFile, WebhookSource::Created);
    assert_eq!(
        known,
        [
            ("a", file, None),
            ("b", file, Some(DisabledReason::Configured)),
            ("mine", call, None),
        ]
    );
    assert_eq!(store.webhook_secrets("a", at(1)).await, Ok(Vec::new()));
    // what disabled itself stays so over a restart, until it is another one
    let gone = Some(DisabledReason::Gone);
    store.disable_webhook("a", gone, at(2)).await.unwrap();
    put(store, &[of("mine", "x", 1)], at(2)).await;
    let again = [entry("a", true)];
    store.put_configured_webhooks(&again, at(3)).await.unwrap();
    let all = store.webhooks().await.unwrap();
    let reasons = |all: &[Webhook]| -> Vec<_> {
        let reason = |one: &Webhook| (one.id().to_owned(), one.disabled.map(|off| off.reason));
        all.iter().map(reason).collect()
    };
    assert_eq!(
        reasons(&all),
        [("a".to_owned(), gone), ("mine".to_owned(), None)]
    );
    let mut moved = entry("a", true);
    moved.spec.url = "https://other.example/".to_owned();
    store
        .put_configured_webhooks(&[moved], at(4))
        .await
        .unwrap();
    assert_eq!(reasons(&store.webhooks().await.unwrap())[0].1, None);
    store.put_configured_webhooks(&[], at(5)).await.unwrap();
    assert_eq!(store.webhooks().await.unwrap().len(), 1);
    delete_all(store).await;
}
