//! What checks look at: the numbers of one replica, or of the whole instance, by what they mean.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::{Quantity as Q, Setting, Version};
use crate::measure::{Bounded, Distribution, Figures, Gauge, Measurement, Series};

use super::finding::{Comparison, Evidence};
use super::minutes::Usage;
use super::thresholds::{Targets, Thresholds};

/// The numbers of one replica, or of the whole instance, with what they are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'m> {
    pub(super) figures: &'m Figures,
    pub(super) measurement: &'m Measurement,
    pub(super) thresholds: &'m Thresholds,
    pub(super) targets: &'m Targets,
    pub(super) usage: Option<&'m Usage>,
}

/// A mean time to first token, and what it is made of, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FirstToken {
    pub(super) total: f64,
    pub(super) queue: Option<f64>,
    pub(super) prefill: Option<f64>,
    /// What is neither.
    pub(super) frontend: Option<f64>,
}

impl<'m> Facts<'m> {
    pub(super) fn engine(&self) -> &'m str {
        &self.measurement.engine
    }

    /// Whether the engine is of this version or a newer one; also where its version is not told.
    pub(super) fn since(&self, major: u32, minor: u32, patch: u32) -> bool {
        let version = self.measurement.engine_version.as_deref();
        let version = version.and_then(|text| text.parse::<Version>().ok());
        version.is_none_or(|version| version >= Version::new(major, minor, patch))
    }

    pub(super) fn window_seconds(&self) -> f64 {
        self.measurement.window.observed_seconds
    }

    pub(super) fn gauge(&self, quantity: Q) -> Option<&'m Gauge> {
        self.figures.gauge(quantity)
    }

    /// A distribution in which something was observed.
    pub(super) fn distribution(&self, quantity: Q) -> Option<&'m Distribution> {
        self.figures
            .distribution(quantity)
            .filter(|distribution| distribution.count > 0.0)
    }

    pub(super) fn mean(&self, quantity: Q) -> Option<f64> {
        self.distribution(quantity)?.mean
    }

    pub(super) fn quantile(&self, quantity: Q, q: f64) -> Option<Bounded> {
        let quantiles = &self.distribution(quantity)?.quantiles;
        let found = quantiles.iter().find(|one| (one.q - q).abs() < 1e-9)?;
        Some(found.value)
    }

    /// By how much a counter rose over the window.
    pub(super) fn increase(&self, quantity: Q) -> Option<f64> {
        self.figures.value(quantity.counter_names()[1])
    }

    pub(super) fn per_second(&self, quantity: Q) -> Option<f64> {
        self.figures.value(quantity.counter_names()[2])
    }

    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.figures.value(name)
    }

    /// Interval by interval; of the whole instance only.
    pub(super) fn series(&self, name: &str) -> Option<&'m Series> {
        let all = &self.measurement.figures.series;
        all.iter().find(|series| series.name == name)
    }

    pub(super) fn setting(&self, names: &[&str]) -> Option<(&'m Setting, &'m str)> {
        let settings = &self.measurement.settings;
        names.iter().find_map(|name| {
            let setting = settings.iter().find(|one| one.name == *name)?;
            Some((setting, setting.value.as_deref()?))
        })
    }

    /// A setting that is a number.
    pub(super) fn setting_number(&self, names: &[&str]) -> Option<(&'m Setting, f64)> {
        let (setting, value) = self.setting(names)?;
        let number: f64 = value.parse().ok()?;
        number.is_finite().then_some((setting, number))
    }

    /// Why a quantity is missing, and what would make it appear.
    pub(super) fn absence(&self, quantity: Q) -> (String, Option<String>) {
        let absent = &self.figures.absent;
        match absent.iter().find(|one| one.quantity == quantity) {
            Some(absence) => (
                absence.reason.to_string(),
                absence.hint.as_ref().map(ToString::to_string),
            ),
            None if self.figures.distribution(quantity).is_some() => (
                format!("{} was not observed in this window", quantity.name()),
                Some("measure under load, or over a longer window".to_owned()),
            ),
            None => (
                format!(
                    "{} exports nothing that tells {}",
                    self.engine(),
                    quantity.name()
                ),
                None,
            ),
        }
    }

    /// Where the mean time to first token goes.
    pub(super) fn first_token(&self) -> Option<FirstToken> {
        let total = self.mean(Q::TimeToFirstToken)?;
        let queue = self.mean(Q::QueueTime);
        let prefill = self
            .mean(Q::PrefillTime)
            .or_else(|| self.mean(Q::PrefillStepTime));
        let frontend = self.mean(Q::ValidationTime).or_else(|| {
            let rest = total - queue? - prefill?;
            // means of different requests: those that got a first token, and those that finished
            (rest > 0.0).then_some(rest)
        });
        Some(FirstToken {
            total,
            queue,
            prefill,
            frontend,
        })
    }

    /// Requests whose first token came, or that finished, a second: whatever tells more.
    pub(super) fn served_per_second(&self) -> Option<f64> {
        let seconds = self.window_seconds();
        let begun = self
            .distribution(Q::TimeToFirstToken)
            .map(|first| first.count / seconds);
        let finished = self.per_second(Q::RequestsFinished);
        [begun, finished].into_iter().flatten().reduce(f64::max)
    }

    /// The numbers of the whole instance.
    pub(super) fn of_instance(&self) -> Self {
        Self {
            figures: &self.measurement.figures,
            ..*self
        }
    }

    /// Whether requests were too few to say anything of latency. They are counted over all replicas: what each of several
    /// serves may be little, and is not when all of them are late.
    pub(super) fn few_served(&self) -> bool {
        let fewest = self.thresholds.min_requests;
        let served =
            |facts: &Facts<'_>| facts.served_per_second().unwrap_or(0.0) * facts.window_seconds();
        let replicas = self.measurement.replicas.len().max(1) as f64;
        served(&self.of_instance()).max(served(self)) < fewest || served(self) < fewest / replicas
    }

    /// See [`Figures::gap_seconds`].
    pub(super) fn gap_seconds(&self) -> Option<f64> {
        self.figures.gap_seconds()
    }

    /// Whether the median or the tail of the time to first token misses its target, by how much the mean goes beyond
    /// the median's, in seconds.
    pub(super) fn first_token_is_late(&self) -> Option<bool> {
        let first = self.distribution(Q::TimeToFirstToken)?;
        let beyond = |q, target: f64| match self.quantile(Q::TimeToFirstToken, q)? {
            Bounded::Value(value) | Bounded::AtLeast(value) => Some(value > target),
            Bounded::AtMost(bound) if bound <= target => Some(false),
            // somewhere below: not told
            Bounded::AtMost(_) => None,
        };
        let median = beyond(0.5, self.targets.ttft_p50_seconds);
        let tail = beyond(0.99, self.targets.ttft_p99_seconds);
        // between what half and nearly all of the requests were promised
        let between = (self.targets.ttft_p50_seconds * self.targets.ttft_p99_seconds).sqrt();
        let mean = first.mean.map(|mean| mean > between);
        match (median, tail) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => mean,
        }
    }

    /// Whether tokens were generated; also where it cannot be told and requests finished.
    pub(super) fn moves(&self) -> bool {
        let rose = |quantity| {
            self.increase(quantity)
                .is_some_and(|increase| increase > 0.0)
        };
        rose(Q::GenerationTokens) || rose(Q::RequestsFinished)
    }

    pub(super) fn evidence(&self) -> Evidences<'m> {
        Evidences {
            facts: *self,
            all: Vec::new(),
            told: false,
        }
    }
}

/// Evidence, piece by piece.
pub(super) struct Evidences<'m> {
    facts: Facts<'m>,
    all: Vec<Evidence>,
    /// Whether the last piece that was asked for is there.
    told: bool,
}

impl Evidences<'_> {
    pub(super) fn done(self) -> Vec<Evidence> {
        self.all
    }

    fn push(
        mut self,
        quantity: Cow<'_, str>,
        statistic: &'static str,
        value: Bounded,
        source_metric: Arc<str>,
    ) -> Self {
        self.told = true;
        self.all.push(Evidence {
            quantity: quantity.into_owned(),
            statistic,
            value,
            comparison: Comparison::None,
            threshold: None,
            threshold_name: String::new(),
            source_metric,
        });
        self
    }

    fn untold(mut self) -> Self {
        self.told = false;
        self
    }

    /// What the last one is held against; where it does not stand so to it, another decided, and it only explains.
    pub(super) fn against(mut self, comparison: Comparison, threshold: f64, name: &str) -> Self {
        if !self.told {
            return self;
        }
        if let Some(last) = self.all.last_mut()
            && comparison.holds(last.value.number(), threshold)
        {
            last.comparison = comparison;
            last.threshold = Some(threshold);
            name.clone_into(&mut last.threshold_name);
        }
        self
    }

    /// Mean of a gauge, if it is told.
    pub(super) fn gauge_mean(self, quantity: Q) -> Self {
        match self.facts.gauge(quantity) {
            Some(gauge) => {
                let (value, source) = (Bounded::Value(gauge.mean), gauge.source.clone());
                self.push(quantity.name().into(), "mean", value, source)
            }
            None => self.untold(),
        }
    }

    pub(super) fn gauge_max(self, quantity: Q) -> Self {
        match self.facts.gauge(quantity) {
            Some(gauge) => {
                let (value, source) = (Bounded::Value(gauge.max), gauge.source.clone());
                self.push(quantity.name().into(), "max", value, source)
            }
            None => self.untold(),
        }
    }

    pub(super) fn mean(self, quantity: Q) -> Self {
        let told = self.facts.distribution(quantity);
        match told.and_then(|one| Some((one.mean?, one.source.clone()))) {
            Some((mean, source)) => {
                self.push(quantity.name().into(), "mean", Bounded::Value(mean), source)
            }
            None => self.untold(),
        }
    }

    pub(super) fn quantile(self, quantity: Q, q: f64, statistic: &'static str) -> Self {
        let told = self.facts.quantile(quantity, q);
        match told.zip(self.facts.distribution(quantity)) {
            Some((value, one)) => {
                let source = one.source.clone();
                self.push(quantity.name().into(), statistic, value, source)
            }
            None => self.untold(),
        }
    }

    /// A single value of the measurement.
    pub(super) fn value(self, name: &str) -> Self {
        match self.facts.figures.quantity(name) {
            Some(one) => {
                let (value, source) = (one.value, one.source.clone());
                self.push(name.to_owned().into(), "", value, source)
            }
            None => self.untold(),
        }
    }

    pub(super) fn increase(self, quantity: Q) -> Self {
        self.value(quantity.counter_names()[1])
    }

    /// A number that follows from others.
    pub(super) fn derived(self, name: &'static str, value: f64, from: &str) -> Self {
        self.push(name.into(), "", Bounded::Value(value), from.into())
    }
}
