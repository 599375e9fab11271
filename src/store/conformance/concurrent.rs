//! Many at once: who follows the log misses nothing, and reads are not held up by writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::at;
use super::support::{advance, failed, id, paused, resumed, revision, start, whole_log};
use crate::store::{EventFilter, Store, StoreError};
use crate::workflow::{RecordedEvent, evolve};

const WORKFLOWS: u32 = 8;
const FIRST: u32 = 200;

/// Reads the log as it grows, until it is over and read to its end.
async fn follow(
    store: Arc<dyn Store>,
    mut after: u64,
    filter: EventFilter,
    over: Arc<AtomicBool>,
) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    loop {
        let was_over = over.load(Ordering::SeqCst);
        let page = store.events(after, &filter, 3).await.unwrap();
        assert!(page.read_to_revision >= after);
        after = page.read_to_revision;
        events.extend(page.events);
        if was_over && !page.more {
            return events;
        }
        tokio::task::yield_now().await;
    }
}

/// Starts and goes through workflows at once, while others read; each through one of the stores, which share what they hold.
pub(super) async fn the_log_is_followed_without_a_gap(stores: &[Arc<dyn Store>]) {
    let store = stores.first().unwrap();
    let before = revision(&**store).await;
    let over = Arc::new(AtomicBool::new(false));
    let filters = [
        EventFilter::default(),
        EventFilter {
            workflow_id: Some(id(FIRST + 3)),
            ..EventFilter::default()
        },
        EventFilter {
            instance_id: Some("p2".to_owned()),
            ..EventFilter::default()
        },
    ];
    let followers: Vec<_> = filters
        .iter()
        .zip(stores.iter().cycle())
        .map(|(filter, store)| {
            let (store, filter, over) = (store.clone(), filter.clone(), over.clone());
            tokio::spawn(follow(store, before, filter, over))
        })
        .collect();
    let writers: Vec<_> = (FIRST..FIRST + WORKFLOWS)
        .zip(stores.iter().cycle())
        .map(|(number, store)| {
            let store = store.clone();
            tokio::spawn(async move {
                // two want each instance
                let instance = format!("p{}", number % (WORKFLOWS / 2));
                let mut state = loop {
                    match start(&*store, &id(number), &instance, None, at(0)).await {
                        Ok(begun) => break begun.workflow,
                        Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                        Err(other) => panic!("{other}"),
                    }
                };
                for event in [paused(), resumed(), paused(), failed()] {
                    let next = advance(&*store, &state, &event).await.unwrap();
                    state = next.workflow;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);

    let log = whole_log(&**store, before).await;
    let revisions: Vec<u64> = log.iter().map(|event| event.revision).collect();
    let count = u64::from(WORKFLOWS) * 5;
    assert_eq!(
        revisions,
        (before + 1..=before + count).collect::<Vec<u64>>()
    );
    for (filter, follower) in filters.iter().zip(followers) {
        let matches = |event: &&RecordedEvent| {
            let workflow = filter.workflow_id.as_ref();
            let instance = filter.instance_id.as_ref();
            workflow.is_none_or(|id| *id == event.workflow_id)
                && instance.is_none_or(|id| *id == event.instance_id)
        };
        let expected: Vec<RecordedEvent> = log.iter().filter(matches).cloned().collect();
        assert!(expected.len() >= 5, "{filter:?}");
        assert_eq!(follower.await.unwrap(), expected, "{filter:?}");
    }
    is_what_its_log_leads_to(&**store, before).await;
}

/// Each workflow that began after a revision is in the state that its events lead to.
pub(super) async fn is_what_its_log_leads_to(store: &dyn Store, before: u64) {
    let mut states = std::collections::BTreeMap::new();
    for event in whole_log(store, before).await {
        let state = states.remove(&event.workflow_id);
        let next = evolve(state, &event).unwrap();
        states.insert(event.workflow_id, next);
    }
    for (workflow_id, state) in states {
        assert_eq!(store.workflow(&workflow_id).await, Ok(Some(state)));
    }
}
