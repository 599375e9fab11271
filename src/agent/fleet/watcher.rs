//! One instance's background loop: scrape its replicas, publish what that showed, ask for settings beside it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::history::History;
use super::state::{Forms, Health, InstanceState, Latest, next_version};
use super::timing::on_grid;
use super::window::WindowSamples;
use super::{Entry, Fleet};
use crate::agent::diagnose::Diagnosing;
use crate::agent::replica::{Clock, Means};
use crate::analysis::{Minutes, Tracker};
use crate::engine::{EngineProfile, Probed};
use crate::measure::{Sample, WindowKind};
use crate::scrape::{ScrapeError, ScrapeFailure, shown_url};

/// A replica that takes longer does not hold up what the others showed.
const PATIENCE: Duration = Duration::from_secs(1);
const MINUTE_SECONDS: f64 = 60.0;
/// The clocks may differ by this before samples before and after cannot be compared.
const CLOCK_STEP_SECONDS: f64 = 0.5;

/// Scrapes the instance until it is told to stop.
pub(super) async fn watch(fleet: Arc<Fleet>, entry: Arc<Entry>, start_after: Duration) {
    let mut begin = fleet.begin.elapsed() + start_after;
    let spec = entry.state().instance.spec.clone();
    let named = spec.instance_type.as_deref();
    let profile = named.and_then(|name| fleet.registry.get(name)).cloned();
    let mut reader = Reader {
        // of an engine that is not configured any more; it is not taken for another
        unknown: named.filter(|_| profile.is_none()).map(str::to_owned),
        timeout: spec.scrape_interval.min(fleet.scrape_timeout),
        // its own, so that what others hang on does not hold it up
        outbound: Semaphore::new(spec.metrics_urls.len()),
        clock: Clock::now(),
        fleet: fleet.clone(),
    };
    let mut history = History::new(&spec, profile.clone());
    // endpoints are asked beside the scrapes, which do not wait for them
    let mut asking: FuturesUnordered<BoxFuture<'static, (usize, Probed)>> = FuturesUnordered::new();
    let mut tick = 0_u32;
    loop {
        if !fleet.measures(&entry) {
            asking.clear();
            history = History::new(&spec, profile.clone());
            if !fleet.until_measured_here(&entry).await {
                return;
            }
            // many may become this agent's business at once
            let after = match fleet.duty.is_ours(&entry.id) {
                true => history.timing().takeover_after(),
                false => Duration::ZERO,
            };
            (begin, tick) = (fleet.begin.elapsed() + after, 0);
            reader.clock = Clock::now();
        }
        let due = on_grid(begin + history.timing().due(tick), spec.scrape_interval);
        tokio::select! {
            biased;
            () = entry.stop.cancelled() => return,
            () = tokio::time::sleep_until(fleet.begin + due) => {}
            Some((at, probed)) = asking.next(), if !asking.is_empty() => {
                let last = tick.saturating_sub(1);
                if history.told(at, last, probed) {
                    let number = entry.state().sequence;
                    publish(&fleet, &entry, &mut history, (last, number));
                }
                continue;
            }
        }
        if !fleet.measures(&entry) {
            continue;
        }
        if reader.clock.is_off_by().abs() > CLOCK_STEP_SECONDS {
            let instance_id = &*entry.id;
            tracing::info!(instance_id, "the clock was set: windows begin anew");
            reader.clock = Clock::now();
            history.forget();
        }
        if entry.retry.swap(false, Ordering::Relaxed) {
            history.retry(tick);
        }
        tokio::select! {
            biased;
            () = entry.stop.cancelled() => return,
            // on the heap for its own time only: it is large, and there are thousands that wait
            () = Box::pin(scrape(&reader, &entry, &mut history, tick)) => {}
        }
        for (at, url) in history.begin_asking(tick) {
            if let Some(profile) = history.profile().cloned() {
                let fleet = fleet.clone();
                asking.push(Box::pin(
                    async move { (at, ask(&fleet, &profile, &url).await) },
                ));
            }
        }
        tick = tick.saturating_add(1);
        // after a machine that slept, or scrapes that took longer than the interval
        while begin + history.timing().due(tick.saturating_add(1)) <= fleet.begin.elapsed() {
            tick = tick.saturating_add(1);
        }
    }
}

/// One scrape of all replicas that are due.
async fn scrape(reader: &Reader, entry: &Entry, history: &mut History, tick: u32) {
    let due = history.due(tick);
    if due.is_empty() {
        return;
    }
    let number = entry.state().sequence + 1;
    let profile = history.profile().cloned();
    match due.as_slice() {
        // most instances have one replica, with nothing to wait for beside it
        [(at, url)] => {
            let read = reader.read(profile.as_ref(), url).await;
            history.add(*at, tick, read);
            publish(&reader.fleet, entry, history, (tick, number));
        }
        several => {
            let of_all = (profile, several);
            scrape_several(reader, entry, history, (tick, number), of_all).await;
        }
    }
    if history.engine_changed() {
        history.forget();
    }
}

/// What was read is published when all have answered, and once before where some take long.
async fn scrape_several(
    reader: &Reader,
    entry: &Entry,
    history: &mut History,
    (tick, number): (u32, u64),
    (profile, due): (Option<Arc<EngineProfile>>, &[(usize, String)]),
) {
    let profile = profile.as_ref();
    let mut running: FuturesUnordered<_> = due
        .iter()
        .map(|(at, url)| async move { (*at, reader.read(profile, url).await) })
        .collect();
    let patience = tokio::time::sleep(PATIENCE.min(reader.timeout / 2));
    let mut patience = std::pin::pin!(patience);
    let (mut waiting, mut unpublished) = (true, false);
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
                // nothing was read yet: nothing is known that was not before
                if std::mem::take(&mut unpublished) {
                    publish(&reader.fleet, entry, history, (tick, number));
                }
            }
        }
    }
    if unpublished {
        publish(&reader.fleet, entry, history, (tick, number));
    }
}

/// Reads the replicas of one instance.
struct Reader {
    fleet: Arc<Fleet>,
    /// The engine that the operator named and that there is not.
    unknown: Option<String>,
    timeout: Duration,
    outbound: Semaphore,
    clock: Clock,
}

impl Reader {
    async fn read(
        &self,
        profile: Option<&Arc<EngineProfile>>,
        url: &str,
    ) -> Result<(Arc<EngineProfile>, Sample), ScrapeError> {
        if let Some(engine) = self.unknown.clone() {
            return Err(ScrapeFailure::UnknownEngine { engine }.at(shown_url(url)));
        }
        let means = Means {
            registry: &self.fleet.registry,
            fetcher: &self.fleet.fetcher,
            metrics: &self.fleet.metrics,
            outbound: &self.outbound,
        };
        let scraped = means.scrape(profile, url, self.clock);
        let scraped = tokio::time::timeout(self.timeout, scraped).await;
        let scraped = scraped.unwrap_or_else(|_| {
            let failure = ScrapeFailure::TimedOut {
                seconds: self.timeout.as_secs_f64(),
            };
            self.fleet.metrics.scrape_failure(failure.step().as_str());
            Err(failure.at(shown_url(url)))
        })?;
        Ok((scraped.profile, scraped.sample))
    }
}

/// What a replica's endpoints say.
async fn ask(fleet: &Fleet, profile: &EngineProfile, url: &str) -> Probed {
    let outbound = Semaphore::new(1);
    let means = Means {
        registry: &fleet.registry,
        fetcher: &fleet.fetcher,
        metrics: &fleet.metrics,
        outbound: &outbound,
    };
    means.probe(profile, url).await
}

/// Of replicas that were recognised at once, the first says what the instance is.
fn same_engine(
    history: &History,
    result: Result<(Arc<EngineProfile>, Sample), ScrapeError>,
) -> Result<(Arc<EngineProfile>, Sample), ScrapeError> {
    let (profile, sample) = result?;
    match history.profile() {
        Some(known) if known.name != profile.name => {
            let failure = ScrapeFailure::WrongEngine {
                asked: known.name.to_string(),
                found: profile.name.to_string(),
            };
            Err(failure.at("metrics_urls"))
        }
        _ => Ok((profile, sample)),
    }
}

/// Shows the instance as it is after the scrape of this number.
fn publish(fleet: &Fleet, entry: &Entry, history: &mut History, (tick, number): (u32, u64)) {
    let state = entry.state();
    let slos = state.slos.clone();
    let window = history.window(tick);
    let minutes = window
        .as_ref()
        .and_then(|window| minutes_after(&state, window, history, (tick, fleet.minute())));
    let diagnosing = Diagnosing {
        thresholds: &fleet.thresholds,
        slos: &slos,
        usage: Some(match &minutes {
            Some(minutes) => minutes.usage(fleet.minute()),
            None => state.minutes.usage(fleet.minute()),
        }),
    };
    let measured = window.map(|window| Latest::new(window, number, diagnosing, &state.load_range));
    let (latest, load_range) = match measured {
        Some((latest, load_range)) => (Some(Arc::new(latest)), load_range.map(Arc::new)),
        None => (None, None),
    };
    let replicas = history.replica_states();
    let health = Health::of(&replicas);
    let is_measured = latest.is_some();
    let now = SystemTime::now();
    let mut change = None;
    entry.update(|before| {
        if health != before.health {
            change = Some(before.health);
        }
        InstanceState {
            bottlenecks: open_after(before, latest.as_deref()),
            instance: before.instance.clone(),
            slos: before.slos.clone(),
            minutes: minutes.clone().unwrap_or_else(|| before.minutes.clone()),
            load_range: load_range.unwrap_or_else(|| before.load_range.clone()),
            version: next_version(),
            sequence: number,
            health,
            since: match health == before.health {
                true => before.since,
                false => now,
            },
            scraped_at: match number == before.sequence {
                true => before.scraped_at,
                false => Some(now),
            },
            latest: latest.clone().or_else(|| before.latest.clone()),
            elsewhere: None,
            replicas,
            forms: Forms::default(),
        }
    });
    if let Some(was) = change {
        let state = entry.state();
        log_change(&entry.id, was, health, state.failure());
    }
    fleet.hub.changed(&entry.id);
    // of what another agent measures as well, that one holds what was predicted against it
    if is_measured && fleet.is_ours(&entry.id) {
        fleet.ledger.measured(&entry.id);
    }
}

/// What is open after a window. One that is only completed by a slow replica, or by what the endpoints told, counts once;
/// totals since the start are no window.
fn open_after(before: &InstanceState, window: Option<&Latest>) -> Arc<Tracker> {
    let is_new = |window: &&Latest| {
        let last = before.latest.as_ref().map_or(0, |latest| latest.sequence);
        window.kind() == WindowKind::Interval && window.sequence > last
    };
    let Some(window) = window.filter(is_new) else {
        return before.bottlenecks.clone();
    };
    let mut after = Tracker::clone(&before.bottlenecks);
    after.observe(&window.diagnosed().diagnosis, window.end_unix_seconds());
    Arc::new(after)
}

/// The minutes with this one, where it has only begun: of what happened since the one before.
fn minutes_after(
    before: &InstanceState,
    window: &WindowSamples,
    history: &History,
    (tick, minute): (u32, u64),
) -> Option<Arc<Minutes>> {
    let passed = match before.minutes.last() {
        Some(last) => minute.saturating_sub(last),
        None => 1,
    };
    if passed == 0 {
        return None;
    }
    let intervals = history.intervals_in(MINUTE_SECONDS * passed as f64);
    let measurement = window.since(tick.saturating_sub(intervals)).measure();
    let seconds = measurement.window.end_unix_seconds - measurement.window.start_unix_seconds;
    let covers = (seconds / MINUTE_SECONDS).round().max(1.0) as u32;
    let mut after = Minutes::clone(&before.minutes);
    after.record(&measurement, &before.slos, minute, covers);
    (after.last() == Some(minute)).then(|| Arc::new(after))
}

fn log_change(instance_id: &str, was: Health, is: Health, failure: Option<&ScrapeError>) {
    let (was, is) = (was.as_str(), is.as_str());
    match failure {
        Some(failure) => tracing::warn!(instance_id, was, is, "{failure}"),
        None => tracing::info!(instance_id, was, is, "instance changed"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::analysis::{ErrorBudget, Slo, error_budgets};
    use crate::engine::Registry;
    use crate::exposition::Options;
    use crate::instance::{Instance, InstanceSpec};

    /// A first token a second, one of ten too late.
    fn sample(tick: u32, seconds: u64) -> Sample {
        let labels = "engine=\"0\",model_name=\"m\"";
        let name = "vllm:time_to_first_token_seconds";
        let (fast, all) = (9 * seconds, 10 * seconds);
        let body = format!(
            "# TYPE {name} histogram\n{name}_bucket{{{labels},le=\"0.5\"}} {fast}\n\
             {name}_bucket{{{labels},le=\"+Inf\"}} {all}\n{name}_sum{{{labels}}} {all}\n\
             {name}_count{{{labels}}} {all}\n"
        );
        let profile = Registry::builtin().get("vllm").unwrap().clone();
        let at = 1e9 + seconds as f64;
        let mut sample = Sample::read(&profile, body.as_bytes(), at, &Options::default())
            .unwrap()
            .0;
        sample.tick = tick;
        sample
    }

    /// What is known after half an hour of scrapes.
    fn budget(interval: Duration, window: Duration) -> ErrorBudget {
        let spec = InstanceSpec {
            instance_id: "a".to_owned(),
            instance_type: Some("vllm".to_owned()),
            metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
            scrape_interval: interval,
            window,
            labels: Default::default(),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        };
        let profile = Registry::builtin().get("vllm").unwrap().clone();
        let mut history = History::new(&spec, Some(profile.clone()));
        let slos: Vec<Slo> = vec![Slo::defaults().remove(1)];
        let instance = Arc::new(Instance::configured(spec));
        let mut state = InstanceState::new(instance, slos.clone().into(), SystemTime::UNIX_EPOCH);
        let (mut tick, mut seconds) = (0, 0);
        while seconds <= 1_800 {
            history.add(0, tick, Ok((profile.clone(), sample(tick, seconds))));
            let window = history.window(tick).unwrap();
            if let Some(minutes) = minutes_after(&state, &window, &history, (tick, seconds / 60)) {
                state.minutes = minutes;
            }
            tick += 1;
            seconds += interval.as_secs();
        }
        error_budgets(&state.minutes, &slos, 30).remove(0)
    }

    #[test]
    fn every_minute_is_counted_once_however_often_it_is_scraped() {
        for (interval, window) in [
            (5, 60),
            (15, 60),
            (15, 300),
            (60, 300),
            (150, 300),
            (300, 300),
        ] {
            let seconds = Duration::from_secs;
            let budget = budget(seconds(interval), seconds(window));
            let burn = budget.slow.short;
            assert_eq!(burn.covered_minutes, 30, "{interval} s: {budget:?}");
            let rate = burn.rate.unwrap();
            assert!((rate - 10.0).abs() < 1e-3, "{interval} s: {budget:?}");
        }
    }
}
