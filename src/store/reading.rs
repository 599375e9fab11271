//! Whether this version can read all that a store holds.

use super::{
    DeliveryFilter, EventFilter, PredictionFilter, PredictionPlace, Store, StoreError,
    WorkflowFilter,
};

/// So much at a time.
const PAGE: u32 = 500;

/// Reads everything once, and says what could not be read: the first of each kind.
pub async fn read_all(store: &dyn Store) -> Vec<String> {
    let mut problems = Vec::new();
    for (what, read) in [
        ("instances", store.instances().await.map(|_| ())),
        ("webhooks", store.webhooks().await.map(|_| ())),
        ("workflows", workflows(store).await),
        ("events", events(store).await),
        ("snapshots", snapshots(store).await),
        ("predictions", predictions(store).await),
        ("deliveries", deliveries(store).await),
    ] {
        if let Err(error) = read {
            problems.push(format!("{what}: {error}"));
        }
    }
    problems
}

async fn workflows(store: &dyn Store) -> Result<(), StoreError> {
    let mut before: Option<String> = None;
    loop {
        let all = WorkflowFilter::default();
        let page = store.workflows(&all, before.as_deref(), PAGE).await?;
        match page.last() {
            Some(last) => before = Some(last.workflow_id.clone()),
            None => return Ok(()),
        }
    }
}

async fn events(store: &dyn Store) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        match store.events(after, &EventFilter::default(), PAGE).await {
            Ok(page) => {
                after = page.read_to_revision;
                if !page.more {
                    return Ok(());
                }
            }
            Err(StoreError::Compacted { oldest_revision }) => after = oldest_revision,
            Err(error) => return Err(error),
        }
    }
}

async fn snapshots(store: &dyn Store) -> Result<(), StoreError> {
    let mut before: Option<String> = None;
    loop {
        let page = store.snapshots(None, before.as_deref(), PAGE).await?;
        match page.last() {
            Some(last) => before = Some(last.snapshot_id.clone()),
            None => return Ok(()),
        }
    }
}

async fn predictions(store: &dyn Store) -> Result<(), StoreError> {
    let mut after: Option<PredictionPlace> = None;
    loop {
        let all = PredictionFilter::default();
        let page = store.predictions(&all, after.as_ref(), PAGE).await?;
        match page.last() {
            Some(last) => after = Some(PredictionPlace::of(last)),
            None => return Ok(()),
        }
    }
}

async fn deliveries(store: &dyn Store) -> Result<(), StoreError> {
    let mut before = None;
    loop {
        let all = DeliveryFilter::default();
        let page = store.deliveries(&all, before, PAGE).await?;
        match page.last() {
            Some(last) => before = Some(last.place),
            None => return Ok(()),
        }
    }
}
