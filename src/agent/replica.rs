//! One replica: its scrapes over a window and what its endpoints say.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::engine::{EngineProfile, Probed, Registry, read_endpoint};
use crate::exposition::{Mode, Options};
use crate::measure::{ReplicaFailure, ReplicaSamples, Sample, detect_engine};
use crate::scrape::{Fetched, Fetcher, ScrapeError, ScrapeFailure, shown_url};
use crate::telemetry::Metrics;

use super::reason::Reason;

/// What scraping needs from outside.
#[derive(Clone, Copy)]
pub(super) struct Means<'m> {
    pub(super) registry: &'m Registry,
    pub(super) fetcher: &'m Fetcher,
    pub(super) metrics: &'m Metrics,
    /// Bounds how many connections one caller has open.
    pub(super) outbound: &'m Semaphore,
}

/// A fixed relation between the clock that steps and the one that does not.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    instant: Instant,
    unix_seconds: f64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        }
    }

    /// By how many seconds the clock that steps has stepped since.
    pub(super) fn is_off_by(self) -> f64 {
        let now = Self::now();
        now.unix_seconds - self.unix_seconds(now.instant)
    }

    fn unix_seconds(self, at: Instant) -> f64 {
        let since = at.saturating_duration_since(self.instant);
        self.unix_seconds + since.as_secs_f64()
    }
}

impl Means<'_> {
    /// One request to a metrics URL.
    async fn fetch(&self, url: &str) -> Result<Fetched, ScrapeError> {
        let fetched = self.get(url).await;
        match &fetched {
            Ok(fetched) => {
                self.metrics.scrape_step("request", fetched.request_time);
                self.metrics.scrape_step("body", fetched.body_time);
            }
            Err(failure) => self.metrics.scrape_failure(failure.step().as_str()),
        }
        fetched.map_err(|failure| failure.at(shown_url(url)))
    }

    async fn get(&self, url: &str) -> Result<Fetched, ScrapeFailure> {
        // the semaphore is never closed
        let _permit = self.outbound.acquire().await;
        self.fetcher.get(url).await
    }

    /// A body in canonical terms, or what it is instead.
    fn read(
        &self,
        profile: &EngineProfile,
        url: &str,
        fetched: &Fetched,
        clock: Clock,
    ) -> Result<Sample, ScrapeError> {
        // both formats end every line, so that half a number is not taken for a whole one
        if !fetched.body.is_empty()
            && !fetched.body.ends_with(b"\n")
            && looks_like(&fetched.body).is_none()
        {
            let failure = ScrapeFailure::Broken("the last line does not end".to_owned());
            self.metrics.scrape_failure(failure.step().as_str());
            return Err(failure.at(shown_url(url)));
        }
        let start = Instant::now();
        let options = Options {
            mode: Mode::Lenient,
            ..Options::default()
        };
        let at = clock.unix_seconds(fetched.at);
        let read = Sample::read(profile, &fetched.body, at, &options);
        self.metrics.scrape_step("parse", start.elapsed());
        let failure = match read {
            Err(error) => ScrapeFailure::Parse(error),
            Ok((sample, _)) if sample.overflow => ScrapeFailure::TooManySeries,
            Ok((sample, report)) => match report.errors.first() {
                Some(error) if report.samples == 0 => match looks_like(&fetched.body) {
                    Some(what) => ScrapeFailure::NotMetrics(what),
                    None => ScrapeFailure::Parse(error.clone()),
                },
                _ if sample.families_recognised > 0
                    // an engine that exports nothing until its first request
                    || (profile.empty_when_idle && report.samples == 0) =>
                {
                    return Ok(sample);
                }
                _ => self.other_engine(profile, &fetched.body, &options),
            },
        };
        self.metrics.scrape_failure(failure.step().as_str());
        let hint = profile.no_metrics_hint.to_string();
        let mut error = failure.at(shown_url(url));
        if matches!(error.failure, ScrapeFailure::NoKnownMetrics { .. }) {
            error.hint = Some(hint);
        }
        Err(error)
    }

    /// One scrape in canonical terms, and when it was true. An engine that is not known yet is recognised.
    pub(super) async fn scrape(
        &self,
        known: Option<&Arc<EngineProfile>>,
        url: &str,
        clock: Clock,
    ) -> Result<Scraped, ScrapeError> {
        let fetched = self.fetch(url).await.map_err(|mut error| {
            if let (Some(profile), ScrapeFailure::Status(404)) = (known, &error.failure) {
                error.hint = Some(profile.no_metrics_hint.to_string());
            }
            error
        })?;
        let profile = match known {
            Some(known) => known.clone(),
            None => self.recognise(url, &fetched).await?,
        };
        let sample = self.read(&profile, url, &fetched, clock)?;
        // nothing but an endpoint can prove an engine that exports nothing
        let probed = match sample.families_recognised {
            0 => Some(self.probe(&profile, url).await),
            _ => None,
        };
        if probed.as_ref().is_some_and(|probed| !probed.proves_engine) {
            let failure = ScrapeFailure::NoKnownMetrics {
                engine: profile.title.to_string(),
            };
            let mut error = failure.at(shown_url(url));
            error.hint = Some(profile.no_metrics_hint.to_string());
            return Err(error);
        }
        Ok(Scraped {
            profile,
            sample,
            at: fetched.at,
            probed,
        })
    }

    /// The engine that an answer is of.
    async fn recognise(
        &self,
        url: &str,
        fetched: &Fetched,
    ) -> Result<Arc<EngineProfile>, ScrapeError> {
        if let Some(found) = detect_engine(self.registry, &fetched.body, &Options::default()) {
            return Ok(found.clone());
        }
        if fetched.body.trim_ascii().is_empty() {
            for profile in self
                .registry
                .iter()
                .filter(|profile| profile.empty_when_idle)
            {
                if self.probe(profile, url).await.proves_engine {
                    return Ok(profile.clone());
                }
            }
        }
        Err(self.unknown(url, fetched))
    }

    /// What an answer is that no engine gives.
    fn unknown(&self, url: &str, fetched: &Fetched) -> ScrapeError {
        let failure = not_metrics(&fetched.body).unwrap_or_else(|| ScrapeFailure::NoKnownMetrics {
            engine: "any known engine".to_owned(),
        });
        self.metrics.scrape_failure(failure.step().as_str());
        failure.at(shown_url(url))
    }

    fn other_engine(
        &self,
        profile: &EngineProfile,
        body: &[u8],
        options: &Options,
    ) -> ScrapeFailure {
        match detect_engine(self.registry, body, options) {
            Some(found) => ScrapeFailure::WrongEngine {
                asked: profile.name.to_string(),
                found: found.name.to_string(),
            },
            None => ScrapeFailure::NoKnownMetrics {
                engine: profile.title.to_string(),
            },
        }
    }

    /// What the engine's endpoints say. One that does not answer says nothing.
    pub(super) async fn probe(&self, profile: &EngineProfile, metrics_url: &str) -> Probed {
        let mut probed = Probed::default();
        let mut answered = false;
        for endpoint in &profile.endpoints {
            if endpoint.fallback && answered {
                continue;
            }
            let Some(url) = sibling(metrics_url, &endpoint.path) else {
                continue;
            };
            // settings are worth waiting for, but not as long as metrics; waiting for one's turn does not count
            let _permit = self.outbound.acquire().await;
            let asked = self.fetcher.get_within(&url, PROBE_BYTES);
            let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
            let parsed = match answer {
                Ok(Ok(fetched)) => serde_json::from_slice::<Value>(&fetched.body).ok(),
                _ => None,
            };
            answered = parsed.is_some();
            if let Some(answer) = parsed {
                probed.merge(read_endpoint(profile, &endpoint.path, &answer));
            }
        }
        probed
    }

    /// Scrapes at the given times after the first scrape, which was done before.
    pub(super) async fn sample(
        &self,
        profile: &EngineProfile,
        url: &str,
        (first, start): (Sample, Instant),
        schedule: Schedule<'_>,
        on_tick: &(dyn Fn(usize) + Sync),
    ) -> ReplicaSamples {
        let mut replica = ReplicaSamples {
            metrics_url: url.to_owned(),
            samples: vec![Arc::new(first)],
            failed_scrapes: 0,
            last_failure: None,
            probed: Arc::default(),
        };
        let last = schedule.ticks.len().saturating_sub(1);
        for (tick, after) in schedule.ticks.iter().enumerate().skip(1) {
            let due = start + *after;
            // an engine that answers slower than we ask is asked less often; the end of the window always counts
            let next_due = schedule.ticks.get(tick + 1).map(|next| start + *next);
            if tick < last && next_due.is_some_and(|next| next <= Instant::now()) {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = schedule.stop.cancelled() => break,
            }
            let scraped = match self.fetch(url).await {
                Ok(fetched) => self.read(profile, url, &fetched, schedule.clock),
                Err(error) => Err(error),
            };
            match scraped {
                Ok(mut sample) => {
                    sample.settle_after(replica.samples.last().map(AsRef::as_ref));
                    sample.tick = u32::try_from(tick).unwrap_or(u32::MAX);
                    replica.samples.push(Arc::new(sample));
                }
                Err(error) => {
                    replica.failed_scrapes += 1;
                    replica.last_failure = Some(failure_of(&error));
                }
            }
            on_tick(tick);
        }
        replica
    }
}

/// What one scrape gave.
pub(super) struct Scraped {
    pub(super) profile: Arc<EngineProfile>,
    pub(super) sample: Sample,
    /// When the answer came.
    pub(super) at: Instant,
    /// What the endpoints said, where they had to be asked.
    pub(super) probed: Option<Probed>,
}

/// When to scrape.
#[derive(Clone, Copy)]
pub(super) struct Schedule<'s> {
    pub(super) ticks: &'s [Duration],
    pub(super) clock: Clock,
    /// Cancelled when the measurement cannot be had any more.
    pub(super) stop: &'s CancellationToken,
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Settings of an engine; SGLang's have 43 KB.
const PROBE_BYTES: usize = 256 << 10;

/// A replica that could not be measured.
pub(super) fn failed_replica(url: &str, error: &ScrapeError) -> ReplicaSamples {
    ReplicaSamples {
        metrics_url: url.to_owned(),
        samples: Vec::new(),
        failed_scrapes: 1,
        last_failure: Some(failure_of(error)),
        probed: Arc::default(),
    }
}

pub(super) fn failure_of(error: &ScrapeError) -> ReplicaFailure {
    let mut message = error.to_string();
    if let Some(hint) = &error.hint {
        message += &format!(" ({hint})");
    }
    ReplicaFailure {
        reason: Reason::of_scrape(&error.failure).as_str().to_owned(),
        message,
    }
}

/// Another path under the same root as the metrics URL.
fn sibling(metrics_url: &str, path: &str) -> Option<String> {
    let url = Url::parse(metrics_url).ok()?;
    let root = url.path().strip_suffix("/metrics").unwrap_or("");
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut sibling = url.clone();
    sibling.set_path(&format!("{root}{path}"));
    sibling.set_query(query);
    sibling.set_fragment(None);
    Some(sibling.into())
}

/// What an answer is that has no sample at all; none where it has some.
fn not_metrics(body: &[u8]) -> Option<ScrapeFailure> {
    if let Some(what) = looks_like(body) {
        return Some(ScrapeFailure::NotMetrics(what));
    }
    let options = Options {
        mode: Mode::Strict,
        ..Options::default()
    };
    crate::exposition::parse(body, &options, &mut Nothing)
        .err()
        .map(ScrapeFailure::Parse)
}

struct Nothing;

impl<'a> crate::exposition::Sink<'a> for Nothing {
    fn family(&mut self, _: &crate::exposition::Family<'a>) {}
    fn sample(&mut self, _: &crate::exposition::Family<'a>, _: &crate::exposition::Sample<'_, 'a>) {
    }
}

fn looks_like(body: &[u8]) -> Option<&'static str> {
    match body.trim_ascii_start().first()? {
        b'<' => Some("an HTML page"),
        b'{' | b'[' => Some("a JSON document"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_lie_beside_the_metrics() {
        let beside = |url, path| sibling(url, path).unwrap_or_default();
        assert_eq!(
            beside("http://h:8000/metrics", "/version"),
            "http://h:8000/version"
        );
        assert_eq!(
            beside(
                "http://h/models/a/metrics?x=1",
                "/server_info?config_format=json"
            ),
            "http://h/models/a/server_info?config_format=json"
        );
        assert_eq!(beside("http://h/prom", "/info"), "http://h/info");
    }
}
