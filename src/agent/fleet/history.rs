//! The samples of an instance that its next measurement is made from. Bounded, and it can be lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{EngineProfile, Probed};
use crate::instance::InstanceSpec;
use crate::measure::{DropCause, InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind};
use crate::scrape::{ScrapeError, shown_url};

use super::timing::Timing;
use crate::agent::replica::failure_of;

/// Most bytes of samples that are kept of one replica. Engines' samples have some kilobytes each.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Scrapes between two questions to endpoints that told nothing.
const ASK_AGAIN_AFTER: u32 = 40;

/// What is remembered of an instance.
#[derive(Debug)]
pub(super) struct History {
    window: Duration,
    interval: Duration,
    timing: Timing,
    /// Engine, once it is known.
    profile: Option<Arc<EngineProfile>>,
    /// The operator named it.
    named: bool,
    instance_id: String,
    replicas: Vec<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    url: String,
    samples: Vec<Sample>,
    probed: Probed,
    /// Scrape from which on its endpoints are worth asking.
    ask_at: u32,
    /// Scrapes within the window that failed.
    failed: VecDeque<u32>,
    failures_in_a_row: u32,
    /// The scrape before which it is left alone.
    due: u32,
    last_failure: Option<ScrapeError>,
}

/// What one scrape of a replica gave.
pub(super) struct Reading {
    pub(super) profile: Arc<EngineProfile>,
    pub(super) sample: Sample,
    /// What its endpoints said, where they were asked.
    pub(super) probed: Option<Probed>,
}

/// A replica as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaState {
    /// Its URL, without what may be secret.
    pub metrics_url: String,
    /// Whether its last scrape could be read; none before the first.
    pub up: Option<bool>,
    /// Why it could not.
    pub failure: Option<ScrapeError>,
}

impl History {
    pub(super) fn new(spec: &InstanceSpec, profile: Option<Arc<EngineProfile>>) -> Self {
        let remembered = |url: &String| Remembered {
            url: url.clone(),
            samples: Vec::new(),
            probed: Probed::default(),
            ask_at: 0,
            failed: VecDeque::new(),
            failures_in_a_row: 0,
            due: 0,
            last_failure: None,
        };
        Self {
            window: spec.window,
            interval: spec.scrape_interval,
            timing: Timing::new(&spec.instance_id, spec.scrape_interval),
            named: profile.is_some(),
            profile,
            instance_id: spec.instance_id.clone(),
            replicas: spec.metrics_urls.iter().map(remembered).collect(),
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn profile(&self) -> Option<&Arc<EngineProfile>> {
        self.profile.as_ref()
    }

    /// The replicas to scrape now: place, URL, and whether to ask the endpoints too.
    pub(super) fn due(&self, tick: u32) -> Vec<(usize, String, bool)> {
        let due = self.replicas.iter().enumerate();
        due.filter(|(_, replica)| replica.due <= tick)
            .map(|(at, replica)| (at, replica.url.clone(), replica.ask_at <= tick))
            .collect()
    }

    /// Keeps what a scrape gave.
    pub(super) fn add(&mut self, at: usize, tick: u32, result: Result<Reading, ScrapeError>) {
        let (timing, window) = (self.timing, self.window);
        let slack = self.interval / 2;
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let reading = match result {
            Ok(reading) => reading,
            Err(error) => {
                replica.failures_in_a_row = replica.failures_in_a_row.saturating_add(1);
                replica.due = tick.saturating_add(timing.backoff(replica.failures_in_a_row));
                replica.failed.push_back(tick);
                replica.last_failure = Some(error);
                return;
            }
        };
        let profile = self.profile.get_or_insert(reading.profile);
        if replica.failures_in_a_row > 0 {
            // it may have come back as another version, with other settings
            replica.ask_at = tick;
        }
        if let Some(probed) = reading.probed {
            let told = probed.proves_engine || !probed.settings.is_empty();
            let again = tick.saturating_add(ASK_AGAIN_AFTER);
            replica.ask_at = if told { u32::MAX } else { again };
            replica.probed = probed;
        }
        replica.failures_in_a_row = 0;
        replica.due = tick.saturating_add(1);
        replica.last_failure = None;
        let mut sample = reading.sample;
        sample.tick = tick;
        if let Some(before) = replica.samples.last_mut() {
            // those of the last sample are in force
            before.settings = Vec::new();
        }
        sample.settle_after(replica.samples.last());
        let oldest = sample.at_unix_seconds - (window + slack).as_secs_f64();
        replica.samples.push(sample);
        replica
            .samples
            .retain(|kept| kept.at_unix_seconds >= oldest);
        let mut bytes: usize = replica.samples.iter().map(Sample::heap_bytes).sum();
        while bytes > MAX_BYTES && replica.samples.len() > 1 {
            bytes -= replica.samples.remove(0).heap_bytes();
        }
        if bytes > MAX_BYTES {
            tracing::warn!(
                instance_id = self.instance_id,
                engine = %profile.name,
                "a scrape of {bytes} bytes is too large to be kept"
            );
            replica.samples.clear();
        }
    }

    /// The measurement over the window that ends with this scrape; none where no replica has a sample.
    pub(super) fn measure(&mut self, tick: u32) -> Option<Measurement> {
        let profile = self.profile.clone()?;
        if self
            .replicas
            .iter()
            .all(|replica| replica.samples.is_empty())
        {
            return None;
        }
        let intervals = (self.window.as_secs_f64() / self.interval.as_secs_f64()).ceil() as u32;
        let oldest = tick.saturating_sub(intervals);
        let any_interval = self
            .replicas
            .iter()
            .any(|replica| replica.samples.len() > 1);
        let replicas = self.replicas.iter_mut().map(|replica| {
            while replica
                .failed
                .front()
                .is_some_and(|failed| *failed < oldest)
            {
                replica.failed.pop_front();
            }
            ReplicaSamples {
                metrics_url: shown_url(&replica.url),
                samples: std::mem::take(&mut replica.samples),
                failed_scrapes: u32::try_from(replica.failed.len()).unwrap_or(u32::MAX),
                last_failure: replica.last_failure.as_ref().map(failure_of),
                probed: replica.probed.clone(),
            }
        });
        let instance = InstanceSamples {
            instance_id: self.instance_id.clone(),
            profile: &profile,
            kind: match any_interval {
                true => WindowKind::Interval,
                false => WindowKind::SinceStart,
            },
            replicas: replicas.collect(),
        };
        let measurement = instance.measure();
        for (replica, measured) in self.replicas.iter_mut().zip(instance.replicas) {
            replica.samples = measured.samples;
        }
        self.note_restarts(tick, &measurement);
        Some(measurement)
    }

    /// A replica that started anew may have other settings.
    fn note_restarts(&mut self, tick: u32, measurement: &Measurement) {
        for (replica, measured) in self.replicas.iter_mut().zip(&measurement.replicas) {
            let newest = replica.samples.last().map(|sample| sample.at_unix_seconds);
            let restarted = measured.dropped.iter().any(|dropped| {
                matches!(dropped.cause, DropCause::Restart { .. })
                    && Some(dropped.end_unix_seconds) == newest
            });
            if restarted {
                replica.ask_at = tick;
            }
        }
    }

    /// All samples are forgotten: the clock was set, or another engine answers.
    pub(super) fn forget(&mut self) {
        for replica in &mut self.replicas {
            replica.samples.clear();
            replica.failed.clear();
            replica.probed = Probed::default();
            replica.ask_at = 0;
        }
        if !self.named {
            self.profile = None;
        }
    }

    /// Every replica that answers is of another engine than before, and the operator named none.
    pub(super) fn engine_changed(&self) -> bool {
        let failures = || {
            self.replicas
                .iter()
                .filter_map(|replica| replica.last_failure.as_ref())
        };
        let other = |error: &ScrapeError| {
            matches!(
                error.failure,
                crate::scrape::ScrapeFailure::WrongEngine { .. }
            )
        };
        !self.named
            && self
                .replicas
                .iter()
                .all(|replica| replica.failures_in_a_row > 0)
            && failures().any(other)
    }

    /// The replicas as they stand.
    pub(super) fn replica_states(&self) -> Vec<ReplicaState> {
        let state = |replica: &Remembered| ReplicaState {
            metrics_url: shown_url(&replica.url),
            up: match (replica.failures_in_a_row, replica.samples.is_empty()) {
                (0, true) => None,
                (failures, _) => Some(failures == 0),
            },
            failure: replica.last_failure.clone(),
        };
        self.replicas.iter().map(state).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Registry;
    use crate::exposition::Options;
    use crate::instance::default_window;

    fn history(interval: Duration, window: Duration) -> History {
        let spec = InstanceSpec {
            instance_id: "a".to_owned(),
            instance_type: None,
            metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
            scrape_interval: interval,
            window,
            labels: Default::default(),
        };
        History::new(&spec, None)
    }

    fn reading(body: &str, at: f64) -> Reading {
        let registry = Registry::builtin();
        let profile = registry.get("vllm").unwrap().clone();
        let (sample, _) = Sample::read(&profile, body.as_bytes(), at, &Options::default()).unwrap();
        Reading {
            profile,
            sample,
            probed: None,
        }
    }

    fn capture() -> String {
        let path = "tests/fixtures/captures/vllm-0.32.0/c-saturation/scrape-1.prom";
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
            .unwrap()
    }

    fn kept(history: &History) -> &Remembered {
        history.replicas.first().unwrap()
    }

    /// What the README says of memory.
    #[test]
    fn a_window_of_samples_is_kept_and_no_more() {
        let body = capture();
        let interval = Duration::from_secs(15);
        let mut history = history(interval, default_window(interval));
        for tick in 0..100 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 15.0)));
            assert!(history.measure(tick).is_some());
        }
        let samples = &kept(&history).samples;
        // five ends of four intervals, and one more within the slack for jitter
        assert!((5..=6).contains(&samples.len()), "{}", samples.len());
        let bytes: Vec<usize> = samples.iter().map(Sample::heap_bytes).collect();
        assert!(bytes.iter().all(|bytes| *bytes <= 8_000), "{bytes:?}");
        let longest = Duration::from_millis(200);
        let mut history = self::history(longest, default_window(longest));
        for tick in 0..200 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
        }
        assert_eq!(kept(&history).samples.len(), 61);
    }

    #[test]
    fn no_engine_fills_the_memory() {
        // each sample is as large as it may be
        let mut body = String::new();
        for family in [
            "time_to_first_token_seconds",
            "inter_token_latency_seconds",
            "e2e_request_latency_seconds",
        ] {
            body += &format!("# TYPE vllm:{family} histogram\n");
            for le in 1..4_000 {
                body += &format!("vllm:{family}_bucket{{le=\"{le}\"}} {le}\n");
            }
            body += &format!(
                "vllm:{family}_bucket{{le=\"+Inf\"}} 4000\nvllm:{family}_sum 1\nvllm:{family}_count 4000\n"
            );
        }
        let mut history = history(Duration::from_millis(200), Duration::from_secs(12));
        for tick in 0..60 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
            let bytes: usize = kept(&history).samples.iter().map(Sample::heap_bytes).sum();
            assert!(bytes <= MAX_BYTES, "{bytes}");
        }
        assert!(kept(&history).samples.len() > 2);
    }

    #[test]
    fn failures_are_counted_within_the_window_and_forgotten_after_it() {
        let mut history = history(Duration::from_secs(1), Duration::from_secs(4));
        let body = capture();
        history.add(0, 0, Ok(reading(&body, 0.0)));
        let failure = || crate::scrape::ScrapeFailure::Status(503).at("http://127.0.0.1:1/metrics");
        history.add(0, 1, Err(failure()));
        assert_eq!(history.replica_states().first().unwrap().up, Some(false));
        assert!(history.due(1).is_empty(), "not again in the same round");
        assert_eq!(history.due(2).len(), 1);
        history.add(0, 2, Ok(reading(&body, 2.0)));
        let measured = history.measure(2).unwrap();
        assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 1);
        for tick in 3..9 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick))));
        }
        let measured = history.measure(8).unwrap();
        assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 0);
        assert!(!history.engine_changed());
    }
}
