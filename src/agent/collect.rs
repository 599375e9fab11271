//! Measuring a target on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, Stream};

use crate::engine::EngineProfile;
use crate::exposition::Options;
use crate::measure::{InstanceSamples, Measurement, ReplicaSamples, detect_engine};
use crate::scrape::{Fetched, ScrapeError, ScrapeFailure};

use super::replica::{Clock, Means, Schedule, failed_replica, shown_url};
use super::target::Plan;
use super::{Agent, Caller, Error, FieldViolation, LIMITS, Target, WindowRequest};

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
    /// A request that is wrong; a target of which no replica could be measured.
    pub async fn collect(
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
        let clock = Clock::now();
        let start = Instant::now();
        let urls = &target.metrics_urls;
        let bodies = join_all(urls.iter().map(|url| means.fetch(url))).await;
        let profile = self.profile_of(target, &bodies, means).await?;
        let ticks = plan.ticks();
        let schedule = Schedule {
            start,
            ticks: &ticks,
            clock,
        };
        let done = AtomicUsize::new(0);
        let of = urls.len() * ticks.len();
        let on_tick = |_| {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            on_progress(Progress { done, of });
        };
        let replicas = join_all(urls.iter().zip(bodies).map(|(url, body)| {
            let profile = &profile;
            let on_tick = &on_tick;
            async move { watch(means, profile, url, body, schedule, on_tick).await }
        }))
        .await;
        finish(target, &profile, plan, replicas)
    }

    /// Measures many targets; results come as they are ready, with their place in the request.
    ///
    /// # Errors
    /// An empty batch or one that is too large, before anything is asked. A target's own failure is its result.
    pub fn collect_batch(
        self: Arc<Self>,
        caller: Caller,
        targets: Vec<(Target, WindowRequest)>,
    ) -> Result<impl Stream<Item = (usize, Result<Measurement, Error>)> + Send, Error> {
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
        let running: FuturesUnordered<_> = targets
            .into_iter()
            .enumerate()
            .map(|(at, (target, window))| {
                let (agent, caller) = (self.clone(), caller.clone());
                async move {
                    let result = agent.collect(&caller, &target, window, &|_| {}).await;
                    (at, result)
                }
            })
            .collect();
        Ok(running)
    }

    /// The engine that was named, or the one that the answers are of.
    async fn profile_of(
        &self,
        target: &Target,
        bodies: &[Result<Fetched, ScrapeError>],
        means: Means<'_>,
    ) -> Result<Arc<EngineProfile>, Error> {
        if let Some(named) = &target.engine
            && let Some(profile) = self.registry.get(named)
        {
            return Ok(profile.clone());
        }
        let mut found: Option<(&str, Arc<EngineProfile>)> = None;
        let mut unknown = None;
        let mut failed = None;
        for (url, body) in target.metrics_urls.iter().zip(bodies) {
            let fetched = match body {
                Ok(fetched) => fetched,
                Err(error) => {
                    failed = failed.or(Some(error.clone()));
                    continue;
                }
            };
            match (self.recognise(url, fetched, means).await, &found) {
                (None, _) => unknown = unknown.or(Some(url)),
                (Some(profile), None) => found = Some((url, profile)),
                (Some(other), Some((first_url, first))) if other.name != first.name => {
                    return Err(Error::MixedEngines {
                        first_url: shown_url(first_url),
                        first: first.name.to_string(),
                        other_url: shown_url(url),
                        other: other.name.to_string(),
                    });
                }
                (Some(_), Some(_)) => {}
            }
        }
        if let Some((_, profile)) = found {
            return Ok(profile);
        }
        let nothing_known = |url: &String| {
            let engine = "any known engine".to_owned();
            ScrapeFailure::NoKnownMetrics { engine }.at(shown_url(url))
        };
        Err(match (unknown, failed) {
            (Some(url), _) => self
                .unrecognised(url, bodies, target)
                .unwrap_or_else(|| nothing_known(url)),
            (None, Some(error)) => error,
            (None, None) => nothing_known(&String::new()),
        }
        .into())
    }

    async fn recognise(
        &self,
        url: &str,
        fetched: &Fetched,
        means: Means<'_>,
    ) -> Option<Arc<EngineProfile>> {
        if let Some(profile) = detect_engine(&self.registry, &fetched.body, &Options::default()) {
            return Some(profile.clone());
        }
        if !fetched.body.trim_ascii().is_empty() {
            return None;
        }
        for profile in self
            .registry
            .iter()
            .filter(|profile| profile.empty_when_idle)
        {
            if means.probe(profile, url).await.proves_engine {
                return Some(profile.clone());
            }
        }
        None
    }

    /// What an answer is that no engine gives: HTML, JSON, or nothing readable.
    fn unrecognised(
        &self,
        url: &str,
        bodies: &[Result<Fetched, ScrapeError>],
        target: &Target,
    ) -> Option<ScrapeError> {
        let at = target.metrics_urls.iter().position(|known| known == url)?;
        let fetched = bodies.get(at)?.as_ref().ok()?;
        super::replica::not_metrics(&fetched.body).map(|failure| failure.at(shown_url(url)))
    }
}

/// Everything that is asked of one replica after its first answer.
async fn watch(
    means: Means<'_>,
    profile: &EngineProfile,
    url: &str,
    first: Result<Fetched, ScrapeError>,
    schedule: Schedule<'_>,
    on_tick: &(dyn Fn(usize) + Sync),
) -> (ReplicaSamples, Option<ScrapeError>) {
    let give_up = |error: ScrapeError| {
        (0..schedule.ticks.len()).for_each(on_tick);
        (failed_replica(url, &error), Some(error))
    };
    let first = match first {
        Ok(fetched) => means.read(profile, url, &fetched, schedule.clock),
        Err(mut error) => {
            if matches!(error.failure, ScrapeFailure::Status(404)) {
                error.hint = Some(profile.no_metrics_hint.to_string());
            }
            Err(error)
        }
    };
    let first = match first {
        Ok(first) => first,
        Err(error) => return give_up(error),
    };
    // nothing but an endpoint can prove an engine that exports nothing
    let silent = first.families_recognised == 0;
    if silent && !means.probe(profile, url).await.proves_engine {
        let failure = ScrapeFailure::NoKnownMetrics {
            engine: profile.title.to_string(),
        };
        let mut error = failure.at(shown_url(url));
        error.hint = Some(profile.no_metrics_hint.to_string());
        return give_up(error);
    }
    on_tick(0);
    let (mut replica, probed) = tokio::join!(
        means.sample(profile, url, first, schedule, on_tick),
        means.probe(profile, url)
    );
    replica.probed = probed;
    (replica, None)
}

fn finish(
    target: &Target,
    profile: &EngineProfile,
    plan: Plan,
    replicas: Vec<(ReplicaSamples, Option<ScrapeError>)>,
) -> Result<Measurement, Error> {
    let first_error = replicas.iter().find_map(|(_, error)| error.clone());
    let instance = InstanceSamples {
        instance_id: target.instance_id.clone(),
        profile,
        kind: plan.kind,
        replicas: replicas.into_iter().map(|(replica, _)| replica).collect(),
    };
    let measurement = instance.measure();
    if measurement
        .replicas
        .iter()
        .any(|replica| replica.outcome.is_ok())
    {
        return Ok(measurement);
    }
    Err(match first_error {
        Some(error) => error.into(),
        None => Error::TooFewSamples {
            last: instance
                .replicas
                .iter()
                .find_map(|replica| replica.last_failure.as_ref())
                .map_or_else(|| "none".to_owned(), |failure| failure.message.clone()),
        },
    })
}
