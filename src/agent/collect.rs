//! Measuring a target on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, Stream};
use tokio_util::sync::CancellationToken;

use crate::engine::EngineProfile;
use crate::measure::{InstanceSamples, Measurement, ReplicaSamples};
use crate::scrape::{ScrapeError, shown_url};

use super::replica::{Clock, Means, Schedule, failed_replica};
use super::window::Plan;
use super::{Agent, Answer, Caller, Error, FieldViolation, LIMITS, Target, WindowRequest};

/// How far a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Scrapes done or given up, over all replicas.
    pub done: usize,
    /// Scrapes in all.
    pub of: usize,
}

impl Agent {
    /// Measures a target over a window.
    ///
    /// A replica whose first scrape fails is not waited for; with others left it is shown as failed.
    ///
    /// # Errors
    /// A caller that may not name targets; a request that is wrong; a target of which no replica could be measured.
    pub async fn collect(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Measurement, Error> {
        if !target.metrics_urls.is_empty() {
            caller.may_name_targets()?;
        }
        self.measure_now(caller, target, window, on_progress).await
    }

    /// How many replicas a measurement asks: of an instance none where its last window is meant.
    fn replicas_asked(&self, target: &Target, window: WindowRequest) -> usize {
        match (target.metrics_urls.len(), window.length) {
            (0, None) => 0,
            (0, Some(_)) => {
                let known = self.instance(&target.instance_id);
                known.map_or(0, |known| known.instance.spec.metrics_urls.len())
            }
            (inline, _) => inline,
        }
    }

    /// The same of a target that was registered, or that the caller may name.
    pub(super) async fn measure_now(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Measurement, Error> {
        let violations = target.violations(self.engines());
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let plan = window.plan()?;
        let means = Means {
            registry: &self.registry,
            fetcher: &self.fetcher,
            metrics: &self.metrics,
            outbound: &caller.outbound,
        };
        let named = target
            .engine
            .as_deref()
            .and_then(|name| self.registry.get(name));
        let ticks = plan.ticks();
        let stop = CancellationToken::new();
        let schedule = Schedule {
            ticks: &ticks,
            clock: Clock::now(),
            stop: &stop,
        };
        let common = OnceLock::new();
        let done = AtomicUsize::new(0);
        let of = target.metrics_urls.len() * ticks.len();
        let on_tick = |_| {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            on_progress(Progress { done, of });
        };
        // each by itself: one that hangs must not stretch the window of the others
        let watched = target
            .metrics_urls
            .iter()
            .map(|url| watch(means, (named, &common), url, schedule, &on_tick));
        finish(target, plan, join_all(watched).await)
    }

    /// Measures many targets; results come as they are ready, with their place in the request.
    ///
    /// # Errors
    /// An empty batch or one that is too large, before anything is asked. A target's own failure is its result.
    pub fn collect_batch(
        self: Arc<Self>,
        caller: Caller,
        targets: Vec<Result<(Target, WindowRequest), Error>>,
    ) -> Result<impl Stream<Item = (usize, Result<Answer, Error>)> + Send, Error> {
        let wrong = |description: String| {
            Error::Invalid(vec![FieldViolation::new("requests", description)])
        };
        if targets.is_empty() {
            return Err(wrong("give at least one target".to_owned()));
        }
        if targets.len() > LIMITS.batch {
            return Err(wrong(format!(
                "{} targets; at most {} in one batch",
                targets.len(),
                LIMITS.batch
            )));
        }
        let replicas: usize = targets
            .iter()
            .flatten()
            .map(|(target, window)| self.replicas_asked(target, *window))
            .sum();
        if replicas > LIMITS.batch_replicas {
            return Err(wrong(format!(
                "{replicas} replicas; at most {} in one batch",
                LIMITS.batch_replicas
            )));
        }
        let running: FuturesUnordered<_> = targets
            .into_iter()
            .enumerate()
            .map(|(at, target)| {
                let (agent, caller) = (self.clone(), caller.clone());
                async move {
                    let result = match target {
                        Ok((target, window)) => agent.measure(&caller, &target, window).await,
                        Err(error) => Err(error),
                    };
                    (at, result)
                }
            })
            .collect();
        Ok(running)
    }
}

/// What came of watching one replica.
struct Watched {
    url: String,
    /// Its engine, as soon as that was known.
    profile: Option<Arc<EngineProfile>>,
    /// Its samples, or why its first scrape failed.
    result: Result<ReplicaSamples, ScrapeError>,
}

/// Everything that is asked of one replica.
async fn watch(
    means: Means<'_>,
    (named, common): (Option<&Arc<EngineProfile>>, &OnceLock<Arc<EngineProfile>>),
    url: &str,
    schedule: Schedule<'_>,
    on_tick: &(dyn Fn(usize) + Sync),
) -> Watched {
    let mut profile = named.cloned();
    let result = samples_of(means, (&mut profile, common), url, schedule, on_tick).await;
    if result.is_err() {
        (0..schedule.ticks.len()).for_each(on_tick);
    }
    Watched {
        url: url.to_owned(),
        profile,
        result,
    }
}

async fn samples_of(
    means: Means<'_>,
    (known, common): (
        &mut Option<Arc<EngineProfile>>,
        &OnceLock<Arc<EngineProfile>>,
    ),
    url: &str,
    schedule: Schedule<'_>,
    on_tick: &(dyn Fn(usize) + Sync),
) -> Result<ReplicaSamples, ScrapeError> {
    let first = means.scrape(known.as_ref(), url, schedule.clock).await?;
    let profile = known.insert(first.profile);
    // replicas of two engines are one wrong request: the window need not pass to tell
    if common.get_or_init(|| profile.clone()).name != profile.name {
        schedule.stop.cancel();
    }
    on_tick(0);
    let probe = async {
        match first.probed {
            Some(probed) => probed,
            None => means.probe(profile, url).await,
        }
    };
    let (mut replica, probed) = tokio::join!(
        means.sample(profile, url, (first.sample, first.at), schedule, on_tick),
        probe
    );
    replica.probed = Arc::new(probed);
    Ok(replica)
}

fn finish(target: &Target, plan: Plan, watched: Vec<Watched>) -> Result<Measurement, Error> {
    let profile = one_engine(&watched)?;
    let first_error = watched
        .iter()
        .find_map(|replica| replica.result.as_ref().err().cloned());
    let Some(profile) = profile else {
        return Err(nothing_measured(first_error, &[]));
    };
    let replicas = watched
        .into_iter()
        .map(|replica| match replica.result {
            Ok(samples) => samples,
            Err(error) => failed_replica(&replica.url, &error),
        })
        .collect();
    let instance = InstanceSamples {
        instance_id: target.instance_id.clone(),
        profile: &profile,
        kind: plan.kind,
        replicas,
    };
    let measurement = instance.measure();
    if measurement
        .replicas
        .iter()
        .any(|replica| replica.outcome.is_ok())
    {
        return Ok(measurement);
    }
    Err(nothing_measured(first_error, &instance.replicas))
}

/// Why no replica could be measured: the first failure of a first scrape, else the last of a later one.
fn nothing_measured(first_error: Option<ScrapeError>, replicas: &[ReplicaSamples]) -> Error {
    if let Some(error) = first_error {
        return error.into();
    }
    let last = replicas
        .iter()
        .find_map(|replica| replica.last_failure.as_ref());
    Error::TooFewSamples {
        last: last.map_or_else(|| "none".to_owned(), |failure| failure.message.clone()),
    }
}

/// The engine that all replicas run; none where none is known.
fn one_engine(watched: &[Watched]) -> Result<Option<Arc<EngineProfile>>, Error> {
    let mut found: Option<(&str, &Arc<EngineProfile>)> = None;
    for replica in watched {
        let Some(profile) = &replica.profile else {
            continue;
        };
        match found {
            None => found = Some((&replica.url, profile)),
            Some((first_url, first)) if first.name != profile.name => {
                return Err(Error::MixedEngines {
                    first_url: shown_url(first_url),
                    first: first.name.to_string(),
                    other_url: shown_url(&replica.url),
                    other: profile.name.to_string(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(found.map(|(_, profile)| profile.clone()))
}
