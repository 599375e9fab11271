//! Leases: one holder at a time, by the store's clock, with epochs that only rise.

use std::collections::BTreeSet;
use std::time::Duration;

use super::at;
use super::support::{With, advance_with, failed, id, paused, renew, resumed, start};
use crate::store::{Lease, Store, StoreError};
use crate::workflow::Workflow;

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(5);

pub(super) async fn conform(store: &dyn Store) {
    one_holds_it_at_a_time(store).await;
    many_are_renewed_together(store).await;
    its_time_ends_by_the_clock_of_the_store(store).await;
    who_has_it_no_more_changes_nothing(store).await;
}

/// Takes a lease as soon as it can be had.
async fn take(store: &dyn Store, workflow_id: &str, holder: &str) -> Lease {
    loop {
        match store.acquire_lease(workflow_id, holder, LONG).await {
            Ok(lease) => return lease,
            Err(StoreError::Leased { .. }) => tokio::time::sleep(SHORT).await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn one_holds_it_at_a_time(store: &dyn Store) {
    let (w, v) = (id(80), id(81));
    let none = store.acquire_lease(&w, "one", LONG).await;
    assert_eq!(none, Err(StoreError::NoWorkflow(w.clone())));
    start(store, &w, "e", None, at(0)).await.unwrap();
    start(store, &v, "f", None, at(0)).await.unwrap();
    let first = store.acquire_lease(&w, "one", LONG).await.unwrap();
    assert_eq!((&first.workflow_id, first.holder.as_str()), (&w, "one"));
    let leased = Err(StoreError::Leased {
        workflow_id: w.clone(),
        holder: "one".to_owned(),
    });
    assert_eq!(store.acquire_lease(&w, "two", LONG).await, leased);
    // targets remember epochs of a store that was lost
    let year_2025_us = 1_735_689_600_000_000;
    assert!(first.epoch > year_2025_us, "{}", first.epoch);
    // epochs are of all workflows
    let other = store.acquire_lease(&v, "two", LONG).await.unwrap();
    assert!(other.epoch > first.epoch);
    // who takes it again has another epoch
    let again = store.acquire_lease(&w, "one", LONG).await.unwrap();
    assert!(again.epoch > other.epoch);
    renew(store, &again, LONG).await.unwrap();
    assert_eq!(
        renew(store, &first, LONG).await,
        Err(StoreError::Moved(w.clone()))
    );
    // the one of before gives up nothing
    store.release_lease(&first).await.unwrap();
    assert!(store.acquire_lease(&w, "two", LONG).await.is_err());
    store.release_lease(&again).await.unwrap();
    let moved = Err(StoreError::Moved(w.clone()));
    assert_eq!(renew(store, &again, LONG).await, moved);
    let two = store.acquire_lease(&w, "two", LONG).await.unwrap();
    assert!(two.epoch > again.epoch);
    store.release_lease(&again).await.unwrap();
    assert!(store.acquire_lease(&w, "one", LONG).await.is_err());
    // one that is never over
    let for_ever = store.acquire_lease(&v, "two", Duration::MAX).await.unwrap();
    assert!(store.acquire_lease(&v, "one", LONG).await.is_err());
    store.release_lease(&for_ever).await.unwrap();
    for workflow_id in [w, v] {
        super::support::end(store, &workflow_id).await;
    }
}

async fn many_are_renewed_together(store: &dyn Store) {
    let ids = [id(85), id(86), id(87)];
    let mut leases = Vec::new();
    for (workflow_id, instance) in ids.iter().zip(["e", "f", "g"]) {
        start(store, workflow_id, instance, None, at(0))
            .await
            .unwrap();
        let lease = store.acquire_lease(workflow_id, "one", SHORT).await;
        leases.push(lease.unwrap());
    }
    let taken = take(store, &ids[1], "two").await;
    // more than go into one statement, of which there is none
    let none = (0..1_200).map(|number| Lease {
        workflow_id: format!("none-{number}"),
        ..taken.clone()
    });
    let all: Vec<Lease> = none.chain(leases).collect();
    let renewed = store.renew_leases(&all, LONG).await.unwrap();
    assert_eq!(renewed, [ids[0].clone(), ids[2].clone()].into());
    for workflow_id in &ids {
        assert!(
            store
                .acquire_lease(workflow_id, "three", LONG)
                .await
                .is_err()
        );
    }
    assert_eq!(store.renew_leases(&[], LONG).await, Ok(BTreeSet::new()));
    for workflow_id in &ids {
        super::support::end(store, workflow_id).await;
    }
}

async fn its_time_ends_by_the_clock_of_the_store(store: &dyn Store) {
    let w = id(82);
    start(store, &w, "e", None, at(0)).await.unwrap();
    let short = store.acquire_lease(&w, "one", SHORT).await.unwrap();
    let taken = take(store, &w, "two").await;
    assert!(taken.epoch > short.epoch);
    assert_eq!(
        renew(store, &short, LONG).await,
        Err(StoreError::Moved(w.clone()))
    );
    // shorter from now on
    renew(store, &taken, SHORT).await.unwrap();
    let back = take(store, &w, "one").await;
    // and longer
    renew(store, &back, SHORT).await.unwrap();
    renew(store, &back, LONG).await.unwrap();
    assert!(store.acquire_lease(&w, "two", LONG).await.is_err());
    super::support::end(store, &w).await;
}

async fn who_has_it_no_more_changes_nothing(store: &dyn Store) {
    let w = id(83);
    let begun = start(store, &w, "e", None, at(0)).await.unwrap().workflow;
    let under = async |state: &Workflow, epoch: u64| {
        let with = With {
            epoch: Some(epoch),
            ..With::default()
        };
        let event = if state.pause.is_some() {
            resumed()
        } else {
            paused()
        };
        advance_with(store, state, &event, with).await
    };
    let moved = || Err(StoreError::Moved(w.clone()));
    // none has it
    assert_eq!(under(&begun, 1).await, moved());
    let one = store.acquire_lease(&w, "one", LONG).await.unwrap();
    assert_eq!(under(&begun, one.epoch + 1).await, moved());
    let held = under(&begun, one.epoch).await.unwrap().workflow;
    // the lease of another workflow is none of this one
    start(store, &id(84), "f", None, at(0)).await.unwrap();
    let other = store.acquire_lease(&id(84), "one", LONG).await.unwrap();
    assert_eq!(under(&held, other.epoch).await, moved());
    // what callers ask needs none
    let with = With::default();
    let resumed = advance_with(store, &held, &resumed(), with)
        .await
        .unwrap()
        .workflow;
    // its time is over, though nobody has taken it
    renew(store, &one, Duration::ZERO).await.unwrap();
    assert_eq!(under(&resumed, one.epoch).await, moved());
    // and had for longer after all, since nobody has
    renew(store, &one, LONG).await.unwrap();
    let held = under(&resumed, one.epoch).await.unwrap().workflow;
    renew(store, &one, SHORT).await.unwrap();
    let two = take(store, &w, "two").await;
    assert_eq!(under(&held, one.epoch).await, moved());
    let resumed = under(&held, two.epoch).await.unwrap().workflow;
    store.release_lease(&two).await.unwrap();
    assert_eq!(under(&resumed, two.epoch).await, moved());
    advance_with(store, &resumed, &failed(), With::default())
        .await
        .unwrap();
    super::support::end(store, &id(84)).await;
}
