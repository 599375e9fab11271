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
