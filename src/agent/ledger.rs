//! The open predictions, in memory so that a scrape knows at once whether one waits for it, and what closes them.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod closing;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{MutexGuard, Notify};
use tokio_util::sync::CancellationToken;

use super::actuated::Actuated;
use super::fleet::Fleet;
use super::optimize::settings_in_force;
use crate::analysis::Thresholds;
use crate::engine::Registry;
use crate::measure::WindowKind;
use crate::optimization::{
    Ended, KEPT_SECONDS, LedgerEntry, LedgerState, MAX_ENTRIES, TrackRecord, expired, next,
    superseded,
};
use crate::store::{PredictionFilter, PredictionPlace, Store, StoreError};

/// The open predictions of all instances, and the record of those that closed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By instance; none is empty.
    open: RwLock<BTreeMap<String, Vec<LedgerEntry>>>,
    /// Of engines, and of simulated ones.
    records: RwLock<[Arc<TrackRecord>; 2]>,
    /// Instances that were measured since their predictions were last looked at.
    measured: Mutex<BTreeSet<Arc<str>>>,
    wake: Notify,
    /// Changes take turns, so that memory follows the store.
    turns: tokio::sync::Mutex<()>,
}

/// Predictions that are read from the store at a time.
const PAGE: u32 = 500;
/// Between two looks for predictions whose time is over.
const TIDY_EACH: Duration = Duration::from_secs(3_600);

/// Between two looks at what other agents predicted.
const LOOK_AGAIN_EACH: Duration = Duration::from_secs(60);

impl Ledger {
    /// Reads what the store holds.
    pub(super) async fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _turn = self.turns.lock().await;
        self.read_open(store).await?;
        self.read_records(store).await
    }

    /// Reads what is open by now: other agents predict and close as well.
    async fn look_again(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _turn = self.turns.lock().await;
        self.read_open(store).await
    }

    async fn read_open(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut open = BTreeMap::<String, Vec<LedgerEntry>>::new();
        for entry in all_that_are(store, Ended::Open).await? {
            open.entry(entry.instance_id.clone())
                .or_default()
                .push(entry);
        }
        *write(&self.open) = open;
        Ok(())
    }

    /// What closed predictions say of the next one, of a simulated engine or another.
    pub(super) fn record(&self, simulated: bool) -> Arc<TrackRecord> {
        let [measured, of_simulated] = &*read(&self.records);
        match simulated {
            true => of_simulated.clone(),
            false => measured.clone(),
        }
    }

    /// An instance has a new window. Costs next to nothing where no prediction waits for it.
    pub(super) fn measured(&self, instance_id: &Arc<str>) {
        if read(&self.open).contains_key(&**instance_id) {
            let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
            measured.insert(instance_id.clone());
            drop(measured);
            self.wake.notify_one();
        }
    }

    /// Keeps new predictions of one instance, and says under which ids: one that was made of the same window before is
    /// kept already.
    pub(super) async fn keep(
        &self,
        store: &dyn Store,
        new: Vec<LedgerEntry>,
    ) -> Result<Vec<String>, StoreError> {
        let _turn = self.turns.lock().await;
        let Some(instance_id) = new.first().map(|entry| entry.instance_id.clone()) else {
            return Ok(Vec::new());
        };
        let mut open = self.open_now(store, &instance_id).await?;
        let (mut ids, mut put, mut gone) = (Vec::new(), Vec::new(), BTreeSet::new());
        for mut entry in new {
            let same = |known: &&LedgerEntry| {
                known.is_about_the_same_as(&entry) && known.baseline == entry.baseline
            };
            if let Some(known) = open.iter().find(same) {
                ids.push(known.prediction_id.clone());
                continue;
            }
            for place in superseded(&open, &entry) {
                let Some(old) = open.get(place) else { continue };
                entry.keep_advice_of(old);
                gone.insert(old.prediction_id.clone());
            }
            open.retain(|old| !gone.contains(&old.prediction_id));
            ids.push(entry.prediction_id.clone());
            open.push(entry.clone());
            put.push(entry);
        }
        if put.is_empty() {
            return Ok(ids);
        }
        put.retain(|entry| !gone.contains(&entry.prediction_id));
        let too_many = self.oldest_beyond(MAX_ENTRIES.saturating_sub(put.len()));
        gone.extend(too_many);
        let gone: Vec<String> = gone.into_iter().collect();
        store.put_predictions(&put, &gone).await?;
        let mut all = write(&self.open);
        all.insert(instance_id, open);
        for entries in all.values_mut() {
            entries.retain(|entry| !gone.contains(&entry.prediction_id));
        }
        all.retain(|_, entries| !entries.is_empty());
        Ok(ids)
    }

    /// Takes each open prediction of an instance to what follows.
    async fn step(
        &self,
        store: &dyn Store,
        instance_id: &str,
        next: impl Fn(&LedgerEntry) -> Option<LedgerState>,
    ) -> Result<(), StoreError> {
        let _turn = self.turns.lock().await;
        let mut open = self.open_now(store, instance_id).await?;
        let mut changed = Vec::new();
        for entry in &mut open {
            if let Some(state) = next(entry) {
                entry.state = state;
                changed.push(entry.clone());
            }
        }
        if !changed.is_empty() {
            // one that another agent took further is none of what is to be done here
            let advanced = store.advance_predictions(&changed).await?;
            let not_advanced = |entry: &LedgerEntry| !advanced.contains(&entry.prediction_id);
            let lost: Vec<LedgerEntry> = changed.extract_if(.., |one| not_advanced(one)).collect();
            open.retain(|entry| entry.state.ended() == Ended::Open && !lost.contains(entry));
        }
        match open.is_empty() {
            true => drop(write(&self.open).remove(instance_id)),
            false => drop(write(&self.open).insert(instance_id.to_owned(), open)),
        }
        let closed = |entry: &LedgerEntry| entry.state.ended() == Ended::Closed;
        match changed.iter().any(closed) {
            true => self.read_records(store).await,
            false => Ok(()),
        }
    }

    /// Nothing else changes for as long as this is held.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turns.lock().await
    }

    /// Forgets what is open of an instance that the store has forgotten.
    pub(super) fn forget(&self, instance_id: &str) {
        write(&self.open).remove(instance_id);
    }

    /// What is open of an instance, whoever predicted it.
    async fn open_now(
        &self,
        store: &dyn Store,
        instance_id: &str,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        if !store.is_shared() {
            return Ok(self.open_of(instance_id));
        }
        let filter = PredictionFilter {
            instance_id: Some(instance_id.to_owned()),
            state: Some(Ended::Open),
            ..PredictionFilter::default()
        };
        let mut open = all(store, &filter).await?;
        // the oldest first, as they came
        open.reverse();
        Ok(open)
    }

    fn open_of(&self, instance_id: &str) -> Vec<LedgerEntry> {
        let open = read(&self.open);
        open.get(instance_id).cloned().unwrap_or_default()
    }

    /// Ids of the oldest, where there are more than so many.
    fn oldest_beyond(&self, most: usize) -> Vec<String> {
        let open = read(&self.open);
        let count: usize = open.values().map(Vec::len).sum();
        if count <= most {
            return Vec::new();
        }
        let mut all: Vec<&LedgerEntry> = open.values().flatten().collect();
        all.sort_by(|one, other| {
            one.made_at_unix_seconds
                .total_cmp(&other.made_at_unix_seconds)
        });
        let oldest = all.into_iter().take(count - most);
        oldest.map(|entry| entry.prediction_id.clone()).collect()
    }

    async fn read_records(&self, store: &dyn Store) -> Result<(), StoreError> {
        let closed = all_that_are(store, Ended::Closed).await?;
        let records = [false, true].map(|simulated| Arc::new(TrackRecord::of(&closed, simulated)));
        *write(&self.records) = records;
        Ok(())
    }
}

/// Holds the predictions of instances against what is measured of them, and expires and forgets those whose time is
/// over, until it is told to stop.
pub(super) async fn hold_against_measurements(
    (ledger, fleet, actuated): (Arc<Ledger>, Arc<Fleet>, Arc<Actuated>),
    (registry, thresholds): (Registry, Arc<Thresholds>),
    store: Arc<dyn Store>,
    stop: CancellationToken,
) {
    let mut tidy = tokio::time::interval(TIDY_EACH);
    let mut look = tokio::time::interval(LOOK_AGAIN_EACH);
    loop {
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tidy.tick() => tidy_up(&ledger, &*store).await,
            _ = look.tick(), if store.is_shared() => ledger.look_again(&*store).await,
            () = ledger.wake.notified() => look_at_measured((&ledger, &fleet, &actuated), (&registry, &thresholds), &*store).await,
        };
        if let Err(error) = done {
            tracing::warn!("what became of predictions could not be kept: {error}");
        }
    }
}

async fn look_at_measured(
    (ledger, fleet, actuated): (&Ledger, &Fleet, &Actuated),
    (registry, thresholds): (&Registry, &Thresholds),
    store: &dyn Store,
) -> Result<(), StoreError> {
    let measured = {
        let mut measured = ledger
            .measured
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *measured)
    };
    for id in measured {
        let state = fleet.get(&id);
        let latest = state.as_ref().and_then(|state| state.latest.clone());
        let (Some(state), Some(latest)) = (state, latest) else {
            continue;
        };
        let profile = registry.get(latest.engine());
        let (Some(profile), WindowKind::Interval) = (profile, latest.kind()) else {
            continue;
        };
        let measurement = Box::new(latest.look(Clone::clone));
        let args = &actuated.launch_args(&state.instance);
        let measured = Some((&*measurement, thresholds));
        let (in_force, _) = settings_in_force(profile, measured, args, &BTreeMap::new());
        let now = unix_seconds();
        let step = ledger.step(store, &id, |entry| {
            next(entry, &in_force, &measurement, now)
        });
        step.await?;
    }
    Ok(())
}

async fn tidy_up(ledger: &Ledger, store: &dyn Store) -> Result<(), StoreError> {
    let now = unix_seconds();
    let ids: Vec<String> = read(&ledger.open).keys().cloned().collect();
    for id in ids {
        ledger.step(store, &id, |entry| expired(entry, now)).await?;
    }
    let kept = Duration::from_secs_f64(KEPT_SECONDS);
    let made_before = SystemTime::now().checked_sub(kept).unwrap_or(UNIX_EPOCH);
    let most = u32::try_from(MAX_ENTRIES).unwrap_or(u32::MAX);
    store.forget_predictions(made_before, most).await?;
    match store.is_shared() {
        true => ledger.load(store).await,
        false => Ok(()),
    }
}

/// All predictions in a state.
async fn all_that_are(store: &dyn Store, state: Ended) -> Result<Vec<LedgerEntry>, StoreError> {
    let filter = PredictionFilter {
        state: Some(state),
        ..PredictionFilter::default()
    };
    all(store, &filter).await
}

/// All predictions of these.
async fn all(store: &dyn Store, filter: &PredictionFilter) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut found: Vec<LedgerEntry> = Vec::new();
    loop {
        let after = found.last().map(PredictionPlace::of);
        let page = store.predictions(filter, after.as_ref(), PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}

pub(super) fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

fn read<T>(of: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    of.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(of: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    of.write().unwrap_or_else(PoisonError::into_inner)
}
