//! What a later version wrote, or what is damaged, stops its own workflow and no other; and no list leaves it out silently.

use super::at;
use super::support::{advance, end, failed, id, paused, revision, start};
use crate::store::{EventFilter, SqliteStore, Store, StoreError, WorkflowFilter};

/// A store in whose tables a test can write.
pub(super) trait Tamper: Store {
    async fn tamper(&self, sql: &str);
}

impl Tamper for SqliteStore {
    async fn tamper(&self, sql: &str) {
        self.run(sql).await;
    }
}

/// It names the workflow that it is about.
fn is_about<T: std::fmt::Debug>(result: &Result<T, StoreError>, number: u32) {
    let names = matches!(result, Err(StoreError::Unreadable(why)) if why.contains(&id(number)));
    assert!(names, "{result:?}");
}

pub(super) async fn a_state_stops_its_own_workflow(store: &impl Tamper) {
    start(store, &id(100), "u", None, at(0)).await.unwrap();
    let other = start(store, &id(101), "u2", None, at(0)).await.unwrap();
    let keep = "UPDATE workflows SET state = replace(state, '\"phase\":\"ANALYSING\"', '\"phase\":\"TELEPORTING\"')";
    store
        .tamper(&format!("{keep} WHERE workflow_id = '{}'", id(100)))
        .await;
    is_about(&store.workflow(&id(100)).await, 100);
    // a list that it would be in says so; one that it would not be in is whole
    let all = WorkflowFilter::default();
    is_about(&store.workflows(&all, None, 1_000).await, 100);
    let of_other = WorkflowFilter {
        instance_id: Some("u2".to_owned()),
        ..WorkflowFilter::default()
    };
    let listed = store.workflows(&of_other, None, 1_000).await;
    assert_eq!(listed, Ok(vec![other.workflow.clone()]));
    assert!(store.workflows(&all, Some(&id(100)), 1_000).await.is_ok());
    // whoever takes up what is unfinished hears of both, and goes on with the other
    let unfinished = store.unfinished_workflows().await.unwrap();
    assert!(unfinished.contains(&id(100)) && unfinished.contains(&id(101)));
    let held = advance(store, &other.workflow, &paused()).await.unwrap();
    assert_eq!(store.workflow(&id(101)).await, Ok(Some(held.workflow)));
    end(store, &id(101)).await;
    let locked = start(store, &id(102), "u", None, at(0)).await;
    assert!(
        matches!(locked, Err(StoreError::Locked { .. })),
        "{locked:?}"
    );
    // and a version that can read it goes on
    store
        .tamper("UPDATE workflows SET state = replace(state, 'TELEPORTING', 'ANALYSING')")
        .await;
    end(store, &id(100)).await;
}

pub(super) async fn an_event_stops_who_would_miss_it(store: &impl Tamper) {
    let before = revision(store).await;
    let bad = start(store, &id(110), "u", None, at(0)).await.unwrap();
    let other = start(store, &id(111), "u2", None, at(0)).await.unwrap();
    advance(store, &bad.workflow, &failed()).await.unwrap();
    advance(store, &other.workflow, &failed()).await.unwrap();
    store
        .tamper(&format!(
            "UPDATE workflow_events SET event = replace(event, '\"type\":\"failed\"', '\"type\":\"teleported\"') \
             WHERE workflow_id = '{}'",
            id(110)
        ))
        .await;
    // what is before it can be read
    let all = EventFilter::default();
    let page = store.events(before, &all, 10).await.unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!((page.read_to_revision, page.more), (before + 2, true));
    let stopped = store.events(page.read_to_revision, &all, 10).await;
    is_about(&stopped, 110);
    let says = format!("{stopped:?}");
    assert!(says.contains(&format!("revision {}", before + 3)), "{says}");
    let of = |number| EventFilter {
        workflow_id: Some(id(number)),
        ..EventFilter::default()
    };
    is_about(&store.events(before + 1, &of(110), 10).await, 110);
    let page = store.events(before, &of(111), 10).await.unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!((page.read_to_revision, page.more), (before + 4, false));
    store
        .tamper("UPDATE workflow_events SET event = replace(event, 'teleported', 'failed')")
        .await;
}
