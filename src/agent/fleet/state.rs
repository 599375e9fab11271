//! What is known of an instance now. Replaced as a whole with each scrape; whoever reads it holds one moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::elsewhere::Elsewhere;
use super::history::ReplicaState;
use super::window::WindowSamples;
use crate::agent::diagnose::{Diagnosed, Diagnosing};
use crate::analysis::{Minutes, Slo, Tracker};
use crate::engine::EngineProfile;
use crate::instance::Instance;
use crate::measure::{Measurement, ReplicaSamples, WindowKind};
use crate::model::LoadRange;
use crate::scrape::ScrapeError;

/// What is known of an instance now.
#[derive(Debug, Clone)]
pub struct InstanceState {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Rises with each change of the state.
    pub version: u64,
    /// How many scrapes there were, those that failed included.
    pub sequence: u64,
    /// How it is.
    pub health: Health,
    /// Since when.
    pub since: SystemTime,
    /// When it was last scraped, whatever came of it.
    pub scraped_at: Option<SystemTime>,
    /// The last measurement that there is.
    pub latest: Option<Arc<Latest>>,
    /// What holds it back, as far as it was found often enough.
    pub bottlenecks: Arc<Tracker>,
    /// What its users were promised: the SLOs in force.
    pub slos: Arc<[Slo]>,
    /// How they were kept, minute by minute.
    pub minutes: Arc<Minutes>,
    /// What its steps took at different load, since its engine was started.
    pub load_range: Arc<LoadRange>,
    /// What another agent found, where that one measures it and this one does not: then there is no measurement here.
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// Its replicas, in the order of the URLs.
    pub replicas: Vec<ReplicaState>,
    /// Of this state.
    pub forms: Forms,
}

/// Room for an edge to keep what it made of something: many ask for the same. Empty in a copy, which may be changed.
#[derive(Debug, Default)]
pub struct Forms([OnceLock<Bytes>; 2]);

impl Clone for Forms {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Forms {
    /// The form of this number, made once; made each time where there is no room for it.
    pub fn get_or_make(&self, number: usize, make: impl FnOnce() -> Bytes) -> Bytes {
        match self.0.get(number) {
            Some(form) => form.get_or_init(make).clone(),
            None => make(),
        }
    }
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not scraped yet.
    Pending,
    /// Every replica was read.
    Up,
    /// Some replicas were read, and others not.
    Degraded,
    /// No replica was read.
    Down,
}

/// The last window of an instance, diagnosed. The measurement is kept when somebody asks for it.
#[derive(Debug)]
pub struct Latest {
    samples: WindowSamples,
    measured: OnceLock<Measurement>,
    diagnosed: Arc<Diagnosed>,
    /// The scrape that it ends with.
    pub sequence: u64,
    /// When that was.
    pub taken: Instant,
    /// Of this measurement.
    pub forms: Forms,
}

impl Latest {
    /// With what it adds to the load that was seen before, if anything.
    pub(super) fn new(
        samples: WindowSamples,
        sequence: u64,
        by: Diagnosing<'_>,
        before: &LoadRange,
    ) -> (Self, Option<LoadRange>) {
        let measurement = samples.measure();
        let latest = Self {
            diagnosed: Arc::new(by.diagnosed(&measurement)),
            samples,
            measured: OnceLock::new(),
            sequence,
            taken: Instant::now(),
            forms: Forms::default(),
        };
        (latest, before.with(&measurement))
    }

    /// The measurement, kept for whoever asks next.
    pub fn measurement(&self) -> &Measurement {
        self.measured.get_or_init(|| self.samples.measure())
    }

    /// Looks at the measurement without keeping it: not all are asked for again.
    pub fn look<T>(&self, at: impl FnOnce(&Measurement) -> T) -> T {
        match self.measured.get() {
            Some(measured) => at(measured),
            None => at(&self.samples.measure()),
        }
    }

    /// What holds the instance back by the thresholds in force.
    pub fn diagnosed(&self) -> &Arc<Diagnosed> {
        &self.diagnosed
    }

    /// The scrapes of each replica that it is made from.
    pub fn replica_samples(&self) -> &[ReplicaSamples] {
        self.samples.replicas()
    }

    /// The engine that all replicas run.
    pub fn profile(&self) -> &EngineProfile {
        self.samples.profile()
    }

    /// What the numbers cover.
    pub fn kind(&self) -> WindowKind {
        self.samples.kind()
    }

    /// End of the window, unix time in seconds.
    pub fn end_unix_seconds(&self) -> f64 {
        let ends = self.samples.newest().map(|sample| sample.at_unix_seconds);
        ends.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Name of the engine.
    pub fn engine(&self) -> &str {
        &self.samples.profile().name
    }

    /// Version as the engine writes it.
    pub fn engine_version(&self) -> Option<&str> {
        self.samples.version()
    }

    /// Served model, as the engine labels its series.
    pub fn model_name(&self) -> Option<&str> {
        self.samples
            .newest()
            .find_map(|sample| sample.model_name.as_deref())
    }

    /// The endpoint says that it is simulated.
    pub fn simulated(&self) -> bool {
        self.samples.newest().any(|sample| sample.simulated)
    }
}

impl InstanceState {
    /// Of an instance that was not scraped yet.
    pub(in crate::agent) fn new(
        instance: Arc<Instance>,
        slos: Arc<[Slo]>,
        now: SystemTime,
    ) -> Self {
        Self {
            instance,
            version: next_version(),
            sequence: 0,
            health: Health::Pending,
            since: now,
            scraped_at: None,
            latest: None,
            bottlenecks: Arc::default(),
            slos,
            minutes: Arc::default(),
            load_range: Arc::default(),
            elsewhere: None,
            replicas: Vec::new(),
            forms: Forms::default(),
        }
    }

    /// It is about to be measured: there is no window yet, and nothing stands in the way.
    pub(in crate::agent) fn is_beginning(&self) -> bool {
        let is_window = |latest: &Arc<Latest>| latest.kind() == WindowKind::Interval;
        match (&self.elsewhere, self.health) {
            (Some(_), _) | (None, Health::Pending) => true,
            (None, Health::Down) => false,
            _ => !self.latest.as_ref().is_some_and(is_window),
        }
    }

    /// The last scrape gave no measurement.
    pub fn is_missing(&self) -> bool {
        self.latest
            .as_ref()
            .is_none_or(|latest| latest.sequence != self.sequence)
    }

    /// The measurement does not tell how things are now: it is older than two intervals, or the last scrape failed.
    pub fn is_stale(&self, now: Instant) -> bool {
        if self.is_missing() && self.latest.is_some() {
            return true;
        }
        let limit = self.instance.spec.scrape_interval * 2;
        let age = |latest: &Arc<Latest>| now.saturating_duration_since(latest.taken);
        self.latest
            .as_ref()
            .is_some_and(|latest| age(latest) > limit)
    }

    /// Name of the engine, as it was found here or elsewhere, or as the operator named it.
    pub(in crate::agent) fn engine(&self) -> Option<&str> {
        let found = self.latest.as_ref().map(|latest| latest.engine());
        let elsewhere = self.elsewhere.as_ref();
        found
            .or_else(|| elsewhere.and_then(|found| found.engine.as_deref()))
            .or(self.instance.spec.instance_type.as_deref())
    }

    /// Why a replica could not be read, of the first that could not.
    pub fn failure(&self) -> Option<&ScrapeError> {
        self.replicas
            .iter()
            .find_map(|replica| replica.failure.as_ref())
    }
}

/// Versions are one row for all instances, so that one that was deleted and came back is not taken for what it was.
pub(super) fn next_version() -> u64 {
    static VERSION: AtomicU64 = AtomicU64::new(1);
    VERSION.fetch_add(1, Ordering::Relaxed)
}

impl Health {
    pub(super) fn of(replicas: &[ReplicaState]) -> Self {
        let up = replicas
            .iter()
            .filter(|replica| replica.up == Some(true))
            .count();
        let known = replicas
            .iter()
            .filter(|replica| replica.up.is_some())
            .count();
        match (up, known) {
            (_, 0) => Self::Pending,
            (0, _) => Self::Down,
            (up, _) if up == replicas.len() => Self::Up,
            _ => Self::Degraded,
        }
    }

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}
