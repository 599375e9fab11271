//! Registered instances, and requests that are repeated.

use std::time::Duration;

use super::{at, once, spec};
use crate::instance::{FieldViolation, InstanceSpec};
use crate::store::{Store, StoreError};

fn with_window(seconds: u64) -> impl Fn(InstanceSpec) -> Result<InstanceSpec, Vec<FieldViolation>> {
    move |mut spec| {
        spec.window = Duration::from_secs(seconds);
        Ok(spec)
    }
}

pub(super) async fn instances_are_kept(store: &dyn Store) {
    let b = store
        .create_instance(&spec("b"), None, at(0))
        .await
        .unwrap();
    let a = store
        .create_instance(&spec("a"), None, at(1))
        .await
        .unwrap();
    assert!(!a.repeated);
    assert_eq!(
        store.instances().await.unwrap(),
        [a.instance.clone(), b.instance.clone()]
    );
    let exists = store.create_instance(&spec("a"), None, at(2)).await;
    assert_eq!(exists, Err(StoreError::Exists("a".to_owned())));
    assert!(a.instance.revision > b.instance.revision);

    let stale = b.instance.revision;
    let updated = store
        .update_instance("a", a.instance.revision, &with_window(90), None, at(3))
        .await
        .unwrap();
    assert_eq!(updated.instance.spec.window, Duration::from_secs(90));
    assert_eq!(updated.instance.created_at, Some(at(1)));
    assert_eq!(updated.instance.updated_at, Some(at(3)));
    let current = updated.instance.revision.unwrap();
    let refused = store
        .update_instance("a", stale, &with_window(30), None, at(4))
        .await;
    let id = "a".to_owned();
    assert_eq!(
        refused,
        Err(StoreError::Changed {
            id: id.clone(),
            current
        })
    );
    let refused = store.delete_instance("a", stale, None, at(4)).await;
    assert_eq!(refused, Err(StoreError::Changed { id, current }));
    let wrong = |_| Err(vec![FieldViolation::new("window", "no")]);
    let refused = store.update_instance("a", None, &wrong, None, at(4)).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    assert_eq!(
        store.instances().await.unwrap(),
        [updated.instance.clone(), b.instance.clone()]
    );

    let deleted = store.delete_instance("a", None, None, at(5)).await.unwrap();
    assert_eq!(deleted.instance, updated.instance);
    for gone in [
        store.delete_instance("a", None, None, at(6)).await,
        store
            .update_instance("a", None, &with_window(30), None, at(6))
            .await,
    ] {
        assert_eq!(gone, Err(StoreError::NotFound("a".to_owned())));
    }
    assert_eq!(store.instances().await.unwrap(), [b.instance]);
}

pub(super) async fn repeats_change_nothing(store: &dyn Store) {
    let first = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(0))
        .await
        .unwrap();
    let later = store
        .update_instance("r", None, &with_window(90), None, at(1))
        .await
        .unwrap();
    // the answer of then, though the instance has changed since
    let again = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(2))
        .await
        .unwrap();
    assert_eq!(again.instance, first.instance);
    assert!(again.repeated);
    assert_eq!(
        store.answered(&once("1", 1), at(2)).await.unwrap(),
        Some(again)
    );
    assert_eq!(store.answered(&once("9", 1), at(2)).await.unwrap(), None);
    let other = store
        .create_instance(&spec("r2"), Some(&once("1", 2)), at(3))
        .await;
    assert_eq!(other, Err(StoreError::RequestIdReused("1".to_owned())));
    // another caller's ids are another caller's
    let mut bob = once("1", 2);
    bob.principal = "bob".to_owned();
    let of_bob = store
        .create_instance(&spec("r2"), Some(&bob), at(4))
        .await
        .unwrap();
    assert!(!of_bob.repeated);
    // what was refused is not remembered
    let exists = store
        .create_instance(&spec("r"), Some(&once("2", 3)), at(5))
        .await;
    assert_eq!(exists, Err(StoreError::Exists("r".to_owned())));
    let deleted = store
        .delete_instance("r", later.instance.revision, Some(&once("3", 4)), at(6))
        .await
        .unwrap();
    let again = store
        .delete_instance("r", later.instance.revision, Some(&once("3", 4)), at(7))
        .await
        .unwrap();
    assert_eq!((again.instance, again.repeated), (deleted.instance, true));
    let created = store
        .create_instance(&spec("r"), Some(&once("2", 3)), at(8))
        .await
        .unwrap();
    assert!(!created.repeated);
    // a day later the id is forgotten
    let day = 24 * 3_600 + 1;
    let exists = store
        .create_instance(&spec("r"), Some(&once("1", 1)), at(day))
        .await;
    assert_eq!(exists, Err(StoreError::Exists("r".to_owned())));
}
