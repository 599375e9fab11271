//! The samples of an instance that its next measurement is made from. Bounded, and it can be lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::timing::Timing;
use super::window::WindowSamples;
use crate::agent::replica::failure_of;
use crate::engine::{EngineProfile, Probed};
use crate::instance::InstanceSpec;
use crate::measure::{ReplicaFailure, ReplicaSamples, Sample, has_restarted};
use crate::scrape::{ScrapeError, ScrapeFailure, shown_url};

/// Most bytes of samples that are kept of one replica. Engines' samples have some kilobytes each.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Between two questions to endpoints that told nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// A replica whose newest sample is this many scrapes old is not part of what the instance does now.
const TOO_OLD: u32 = 2;

/// What is remembered of an instance.
#[derive(Debug)]
pub(super) struct History {
    /// Intervals of a window.
    intervals: u32,
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
    samples: Vec<Arc<Sample>>,
    probed: Arc<Probed>,
    asked: Asked,
    /// Scrapes within the window that failed.
    failed: VecDeque<u32>,
    /// The last failure within the window.
    window_failure: Option<ReplicaFailure>,
    failures_in_a_row: u32,
    /// The scrape before which it is left alone.
    due: u32,
    /// Why the last scrape failed, if it did.
    failure: Option<ScrapeError>,
}

/// Whether a replica's endpoints are worth asking for version and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// From this scrape on.
    From(u32),
    /// They are being asked.
    Now,
    /// They have told.
    Done,
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
            probed: Arc::default(),
            asked: Asked::From(0),
            failed: VecDeque::new(),
            window_failure: None,
            failures_in_a_row: 0,
            due: 0,
            failure: None,
        };
        let intervals = spec.window.as_secs_f64() / spec.scrape_interval.as_secs_f64();
        Self {
            intervals: intervals.ceil() as u32,
            interval: spec.scrape_interval,
            timing: Timing::new(&spec.instance_id, spec.scrape_interval),
            named: spec.instance_type.is_some(),
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

    /// The replicas to scrape now: place and URL.
    pub(super) fn due(&self, tick: u32) -> Vec<(usize, String)> {
        let replicas = self.replicas.iter().enumerate();
        let due = replicas.filter(|(_, replica)| replica.due <= tick);
        due.map(|(at, replica)| (at, replica.url.clone())).collect()
    }

    /// Replicas that failed are due, however long they would have been left alone.
    pub(super) fn retry(&mut self, tick: u32) {
        for replica in &mut self.replicas {
            replica.due = replica.due.min(tick);
        }
    }

    /// Keeps what a scrape gave.
    pub(super) fn add(
        &mut self,
        at: usize,
        tick: u32,
        result: Result<(Arc<EngineProfile>, Sample), ScrapeError>,
    ) {
        let oldest = tick.saturating_sub(self.intervals);
        let timing = self.timing;
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let kept = result.and_then(|(profile, sample)| {
            let profile = self.profile.get_or_insert(profile);
            replica.keep(profile, sample, (tick, oldest))
        });
        match kept {
            Ok(()) => {
                replica.failures_in_a_row = 0;
                replica.due = tick.saturating_add(1);
                replica.failure = None;
            }
            Err(error) => {
                replica.failures_in_a_row = replica.failures_in_a_row.saturating_add(1);
                replica.due = tick.saturating_add(timing.backoff(replica.failures_in_a_row));
                replica.failed.push_back(tick);
                replica.window_failure = Some(failure_of(&error));
                replica.failure = Some(error);
            }
        }
        replica.forget_before(oldest);
    }

    /// The replicas whose endpoints are worth asking: place and URL. They count as asked from now on.
    pub(super) fn begin_asking(&mut self, tick: u32) -> Vec<(usize, String)> {
        let mut to_ask = Vec::new();
        for (at, replica) in self.replicas.iter_mut().enumerate() {
            let worth = matches!(replica.asked, Asked::From(from) if from <= tick);
            if worth && replica.failures_in_a_row == 0 && !replica.samples.is_empty() {
                replica.asked = Asked::Now;
                to_ask.push((at, replica.url.clone()));
            }
        }
        to_ask
    }

    /// Keeps what a replica's endpoints said; whether that is anything new.
    pub(super) fn told(&mut self, at: usize, tick: u32, probed: Probed) -> bool {
        let again = ASK_AGAIN_AFTER.as_secs_f64() / self.interval.as_secs_f64();
        let Some(replica) = self.replicas.get_mut(at) else {
            return false;
        };
        let told = probed.proves_engine || !probed.settings.is_empty();
        replica.asked = match (replica.asked, told) {
            // it has restarted meanwhile
            (Asked::From(from), _) => Asked::From(from),
            (_, true) => Asked::Done,
            (_, false) => Asked::From(tick.saturating_add(again.ceil() as u32)),
        };
        if *replica.probed == probed {
            return false;
        }
        replica.probed = Arc::new(probed);
        true
    }

    /// The window that ends with this scrape; none where it brought no sample.
    ///
    /// A replica that was not read in it or in the one before is not part of what the instance does now, and shown as
    /// failed.
    pub(super) fn window(&mut self, tick: u32) -> Option<WindowSamples> {
        let profile = self.profile.clone()?;
        let oldest = tick.saturating_sub(self.intervals);
        for replica in &mut self.replicas {
            replica.forget_before(oldest);
        }
        let newest = |replica: &Remembered| replica.samples.last().map(|sample| sample.tick);
        if !self
            .replicas
            .iter()
            .any(|replica| newest(replica) == Some(tick))
        {
            return None;
        }
        let replicas = self.replicas.iter().map(|replica| {
            let age = newest(replica).map_or(u32::MAX, |newest| tick.saturating_sub(newest));
            ReplicaSamples {
                metrics_url: shown_url(&replica.url),
                samples: match age < TOO_OLD {
                    true => replica.samples.clone(),
                    false => Vec::new(),
                },
                failed_scrapes: u32::try_from(replica.failed.len()).unwrap_or(u32::MAX),
                last_failure: replica.window_failure.clone(),
                probed: replica.probed.clone(),
            }
        });
        Some(WindowSamples::new(
            self.instance_id.clone(),
            profile,
            replicas.collect(),
        ))
    }

    /// Intervals that this many seconds have, at least one.
    pub(super) fn intervals_in(&self, seconds: f64) -> u32 {
        (seconds / self.interval.as_secs_f64()).round().max(1.0) as u32
    }

    /// All samples are forgotten: the clock was set, or another engine answers.
    pub(super) fn forget(&mut self) {
        for replica in &mut self.replicas {
            replica.samples.clear();
            replica.failed.clear();
            replica.window_failure = None;
            replica.probed = Arc::default();
            replica.asked = Asked::From(0);
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
                .filter_map(|replica| replica.failure.as_ref())
        };
        let other =
            |error: &ScrapeError| matches!(error.failure, ScrapeFailure::WrongEngine { .. });
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
            failure: replica.failure.clone(),
        };
        self.replicas.iter().map(state).collect()
    }
}

impl Remembered {
    fn keep(
        &mut self,
        profile: &EngineProfile,
        mut sample: Sample,
        (tick, oldest): (u32, u32),
    ) -> Result<(), ScrapeError> {
        sample.tick = tick;
        let before = self.samples.last().map(AsRef::as_ref);
        sample.settle_after(before);
        let restarted = before.is_some_and(|before| has_restarted(profile, before, &sample));
        if restarted || self.failures_in_a_row > 0 {
            // it may have other settings, and be another version
            self.asked = Asked::From(tick);
        }
        self.samples.push(Arc::new(sample));
        self.forget_before(oldest);
        let mut bytes: usize = self.samples.iter().map(|sample| sample.heap_bytes()).sum();
        while bytes > MAX_BYTES && self.samples.len() > 1 {
            bytes -= self.samples.remove(0).heap_bytes();
        }
        if bytes > MAX_BYTES {
            self.samples.clear();
            return Err(ScrapeFailure::TooManySeries.at(shown_url(&self.url)));
        }
        Ok(())
    }

    fn forget_before(&mut self, oldest: u32) {
        self.samples.retain(|sample| sample.tick >= oldest);
        while self.failed.front().is_some_and(|failed| *failed < oldest) {
            self.failed.pop_front();
        }
        // why it is down is known for as long as it is
        if self.failed.is_empty() && self.failures_in_a_row == 0 {
            self.window_failure = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
