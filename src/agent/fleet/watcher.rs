//! One instance's background loop: scrape its replicas, measure, publish.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::history::{History, Reading};
use super::state::{Health, InstanceState, Latest, next_version};
use super::{Entry, Fleet};
use crate::agent::replica::{Clock, Means};
use crate::engine::EngineProfile;
use crate::scrape::{ScrapeError, ScrapeFailure, shown_url};

/// A replica that takes longer does not hold up what the others showed.
const PATIENCE: Duration = Duration::from_secs(1);
/// The clocks may differ by this before samples before and after cannot be compared.
const CLOCK_STEP_SECONDS: f64 = 0.5;

/// Scrapes the instance until it is told to stop.
pub(super) async fn watch(fleet: Arc<Fleet>, entry: Arc<Entry>, start_after: Duration) {
    let start = tokio::time::Instant::now() + start_after;
    let spec = entry.state().instance.spec.clone();
    let profile = spec
        .instance_type
        .as_deref()
        .and_then(|name| fleet.registry.get(name));
    let mut history = History::new(&spec, profile.cloned());
    let timeout = spec.scrape_interval.min(fleet.scrape_timeout);
    // its own, so that what others hang on does not hold it up
    let outbound = Semaphore::new(spec.metrics_urls.len());
    let fetcher = fleet.fetcher.each(spec.scrape_interval);
    let mut clock = Clock::now();
    let mut tick = 0_u32;
    loop {
        let due = start + history.timing().due(tick);
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = entry.stop.cancelled() => return,
        }
        if clock.is_off_by().abs() > CLOCK_STEP_SECONDS {
            tracing::info!(
                instance_id = spec.instance_id,
                "the clock was set: windows begin anew"
            );
            clock = Clock::now();
            history.forget();
        }
        let means = Means {
            registry: &fleet.registry,
            fetcher: &fetcher,
            metrics: &fleet.metrics,
            outbound: &outbound,
        };
        tokio::select! {
            () = scrape(&fleet, &entry, means, &mut history, tick, (clock, timeout)) => {}
            () = entry.stop.cancelled() => return,
        }
        tick = tick.saturating_add(1);
        // after a machine that slept, or scrapes that took longer than the interval
        while start + history.timing().due(tick.saturating_add(1)) <= tokio::time::Instant::now() {
            tick = tick.saturating_add(1);
        }
    }
}

/// One scrape of all replicas that are due.
async fn scrape(
    fleet: &Fleet,
    entry: &Entry,
    means: Means<'_>,
    history: &mut History,
    tick: u32,
    (clock, timeout): (Clock, Duration),
) {
    let sequence = entry.state().sequence + 1;
    let profile = history.profile().cloned();
    let mut running: FuturesUnordered<_> = history
        .due(tick)
        .into_iter()
        .map(|(at, url, ask)| {
            let profile = profile.as_ref();
            async move { (at, read(means, profile, &url, ask, (clock, timeout)).await) }
        })
        .collect();
    let patience = tokio::time::sleep(PATIENCE.min(timeout / 2));
    let mut patience = std::pin::pin!(patience);
    let mut waiting = true;
    let mut unpublished = true;
    loop {
        tokio::select! {
            read = running.next() => match read {
                Some((at, result)) => {
                    let result = same_engine(history, result);
                    history.add(at, tick, result);
                    unpublished = true;
                }
                None => break,
            },
            () = &mut patience, if waiting => {
                waiting = false;
                if unpublished {
                    publish(fleet, entry, history, tick, sequence);
                    unpublished = false;
                }
            }
        }
    }
    if unpublished {
        publish(fleet, entry, history, tick, sequence);
    }
    if history.engine_changed() {
        history.forget();
    }
}

async fn read(
    means: Means<'_>,
    profile: Option<&Arc<EngineProfile>>,
    url: &str,
    ask: bool,
    (clock, timeout): (Clock, Duration),
) -> Result<Reading, ScrapeError> {
    let scraped = tokio::time::timeout(timeout, means.scrape(profile, url, clock)).await;
    let scraped = scraped.unwrap_or_else(|_| {
        let failure = ScrapeFailure::TimedOut {
            seconds: timeout.as_secs_f64(),
        };
        means.metrics.scrape_failure(failure.step().as_str());
        Err(failure.at(shown_url(url)))
    })?;
    let probed = match scraped.probed {
        Some(probed) => Some(probed),
        None if ask => Some(means.probe(&scraped.profile, url).await),
        None => None,
    };
    Ok(Reading {
        profile: scraped.profile,
        sample: scraped.sample,
        probed,
    })
}

/// Of replicas that were recognised at once, the first says what the instance is.
fn same_engine(
    history: &History,
    result: Result<Reading, ScrapeError>,
) -> Result<Reading, ScrapeError> {
    let reading = result?;
    match history.profile() {
        Some(known) if known.name != reading.profile.name => {
            let failure = ScrapeFailure::WrongEngine {
                asked: known.name.to_string(),
                found: reading.profile.name.to_string(),
            };
            Err(failure.at("metrics_urls"))
        }
        _ => Ok(reading),
    }
}

fn publish(fleet: &Fleet, entry: &Entry, history: &mut History, tick: u32, sequence: u64) {
    let before = entry.state();
    let replicas = history.replica_states();
    let health = Health::of(&replicas);
    let now = SystemTime::now();
    let latest = match health {
        Health::Up | Health::Degraded => history.measure(tick).map(|measurement| {
            Arc::new(Latest {
                measurement,
                sequence,
                taken: Instant::now(),
                forms: Default::default(),
            })
        }),
        Health::Down | Health::Pending => None,
    };
    let changed = health != before.health;
    if changed {
        let failure = replicas.iter().find_map(|replica| replica.failure.as_ref());
        log_change(&before, health, failure);
    }
    entry.update(|before| InstanceState {
        instance: before.instance.clone(),
        version: next_version(),
        sequence,
        health,
        since: if changed { now } else { before.since },
        scraped_at: Some(now),
        latest: latest.or_else(|| before.latest.clone()),
        replicas,
    });
    fleet.hub.changed(&entry.id);
}

fn log_change(before: &InstanceState, health: Health, failure: Option<&ScrapeError>) {
    let (instance_id, was, is) = (
        before.instance.id(),
        before.health.as_str(),
        health.as_str(),
    );
    match failure {
        Some(failure) => tracing::warn!(instance_id, was, is, "{failure}"),
        None => tracing::info!(instance_id, was, is, "instance changed"),
    }
}
