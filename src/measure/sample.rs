//! One parsed scrape of one replica, in canonical terms.

use std::sync::Arc;

use crate::engine::{EngineProfile, QuantityKind, Setting, Version};
use crate::exposition::{self, Mode, ParseError, Report};

use super::collect::Collector;

/// What one scrape of one replica said.
///
/// Readings are kept by alias, not by quantity: which alias counts is decided over all samples of a window.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Unix time in seconds at which the numbers were true: as the exposition says, else when it was fetched.
    pub at_unix_seconds: f64,
    /// Position in the schedule of a window, so that replicas can be added up instant by instant.
    pub tick: u32,
    /// Counters and gauges that are present, by alias.
    pub scalars: Vec<ScalarReading>,
    /// Distributions that are present, by alias.
    pub distributions: Vec<DistributionReading>,
    /// What tells one run of the process from the next.
    pub incarnation: Incarnation,
    /// Settings that the metrics show. Samples of one replica share them.
    pub settings: Arc<[Setting]>,
    /// Served model, as the engine labels its series.
    pub model_name: Option<String>,
    /// Families of this engine that were seen.
    pub families_recognised: usize,
    /// Aliases whose family is there, whether or not a series has their labels; of those that need it only.
    pub families_of: Vec<usize>,
    /// Aliases whose family is there with a value that is no count or level (NaN, negative, infinite), or with
    /// another type: not zero, whatever else their absence would mean.
    pub unreadable: Vec<usize>,
    /// More series or buckets than any engine has: nothing of this sample is used.
    pub overflow: bool,
    /// The engine is at least of this version, as its families show.
    pub version_floor: Option<Version>,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// Values that cannot be what they claim to be (a ratio of -0.39), by alias. They are not used.
    pub out_of_range: Vec<ScalarReading>,
    /// Lines that could not be read.
    pub bad_lines: u64,
}

/// One counter or gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScalarReading {
    /// Index into [`EngineProfile::aliases`].
    pub alias: usize,
    /// The value, in the quantity's unit.
    pub value: f64,
}

/// One distribution.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DistributionReading {
    /// Index into [`EngineProfile::aliases`].
    pub alias: usize,
    /// Observations.
    pub count: f64,
    /// Their sum; absent where the engine gives none.
    pub sum: Option<f64>,
    /// Upper bounds, rising; empty where the engine gives no buckets or series of different bounds.
    /// Samples of one replica share them.
    pub bounds: Arc<[f64]>,
    /// Observations up to each bound.
    pub cumulative: Vec<f64>,
}

/// What tells one run of the process from the next.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Incarnation {
    /// Earliest creation time among the series that count.
    pub created_unix_seconds: Option<f64>,
    /// Start of the process.
    pub process_start_unix_seconds: Option<f64>,
    /// Digest of the engine's configuration as its metrics show it.
    pub config_digest: Option<u64>,
}

impl Sample {
    /// Reads a scrape.
    ///
    /// # Errors
    /// Bounds on the body, and in [`Mode::Strict`] any malformed line.
    pub fn read(
        profile: &EngineProfile,
        body: &[u8],
        fetched_unix_seconds: f64,
        options: &exposition::Options,
    ) -> Result<(Self, Report), ParseError> {
        let mut collector = Collector::new(profile);
        let report = exposition::parse(body, options, &mut collector)?;
        let mut sample = collector.finish(fetched_unix_seconds);
        if options.mode == Mode::Lenient {
            sample.bad_lines = report.bad_lines;
        }
        Ok((sample, report))
    }

    /// Takes settings and the bounds of distributions from the sample before, where they are the same, so that they are
    /// kept once; and gives back what was allocated and is not used.
    pub fn settle_after(&mut self, before: Option<&Sample>) {
        for reading in &mut self.distributions {
            let known = before.and_then(|before| before.distribution(reading.alias));
            if let Some(known) = known.filter(|known| known.bounds == reading.bounds) {
                reading.bounds = known.bounds.clone();
            }
            reading.cumulative.shrink_to_fit();
        }
        if let Some(before) = before.filter(|before| before.settings == self.settings) {
            self.settings = before.settings.clone();
        }
        self.scalars.shrink_to_fit();
        self.distributions.shrink_to_fit();
    }

    /// Bytes that it keeps, about, without what it shares.
    pub fn heap_bytes(&self) -> usize {
        let distribution = |reading: &DistributionReading| {
            let own_bounds = match Arc::strong_count(&reading.bounds) {
                1 => size_of_val(&*reading.bounds),
                _ => 0,
            };
            own_bounds + size_of_val(reading.cumulative.as_slice())
        };
        let setting = |setting: &Setting| {
            size_of::<Setting>()
                + setting.name.len()
                + setting.flag.len()
                + setting.value.as_ref().map_or(0, String::len)
                + setting.source.len()
        };
        let own_settings = match Arc::strong_count(&self.settings) {
            1 => self.settings.iter().map(setting).sum::<usize>(),
            _ => 0,
        };
        size_of::<Self>()
            + size_of_val(self.scalars.as_slice())
            + size_of_val(self.distributions.as_slice())
            + self.distributions.iter().map(distribution).sum::<usize>()
            + own_settings
            + size_of_val(self.families_of.as_slice())
            + size_of_val(self.unreadable.as_slice())
            + size_of_val(self.out_of_range.as_slice())
            + self.model_name.as_ref().map_or(0, String::len)
    }

    pub(super) fn scalar(&self, alias: usize) -> Option<f64> {
        let at = self
            .scalars
            .binary_search_by_key(&alias, |reading| reading.alias)
            .ok()?;
        self.scalars.get(at).map(|reading| reading.value)
    }

    pub(super) fn distribution(&self, alias: usize) -> Option<&DistributionReading> {
        let at = self
            .distributions
            .binary_search_by_key(&alias, |reading| reading.alias)
            .ok()?;
        self.distributions.get(at)
    }

    /// Whether anything that counts is present by this alias.
    pub(super) fn has(&self, kind: QuantityKind, alias: usize) -> bool {
        match kind {
            QuantityKind::Distribution => self.distribution(alias).is_some(),
            QuantityKind::Counter | QuantityKind::Gauge => self.scalar(alias).is_some(),
        }
    }
}
