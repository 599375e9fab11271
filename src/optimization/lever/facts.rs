//! What levers look at: findings, and the numbers of the measurement.

use crate::analysis::{Cause, Finding};
use crate::engine::{Quantity as Q, Version};
use crate::measure::{Bounded, Figures, Gauge};
use crate::optimization::Situation;
pub(super) use crate::units::{percent, seconds};

impl<'s> Situation<'s> {
    /// The engine, as in `instance_type`.
    pub(super) fn engine(&self) -> &'s str {
        &self.profile.name
    }

    /// Its version, as far as anybody tells.
    pub(super) fn version(&self) -> Option<Version> {
        let measured = || self.measurement?.engine_version.as_ref()?.parse().ok();
        self.in_force.version.or_else(measured)
    }

    /// The finding of a cause.
    pub(super) fn found(&self, cause: Cause) -> Option<&'s Finding> {
        self.findings.iter().find(|one| one.cause == cause)
    }

    /// Those of these causes that were found, in their order as found: root cause first.
    pub(in crate::optimization) fn treated(&self, causes: &[Cause]) -> Vec<&'s Finding> {
        let is_meant = |one: &&Finding| causes.contains(&one.cause);
        self.findings.iter().filter(is_meant).collect()
    }

    fn figures(&self) -> Option<&'s Figures> {
        self.measurement.map(|measurement| &measurement.figures)
    }

    /// The numbers of each replica, or of the whole instance where none are told apart.
    fn each_replica(&self) -> Vec<&'s Figures> {
        let Some(measurement) = self.measurement else {
            return Vec::new();
        };
        let replicas = measurement.replicas.iter();
        let told: Vec<&Figures> = replicas
            .filter_map(|replica| replica.outcome.as_ref().ok())
            .collect();
        match told.is_empty() {
            true => vec![&measurement.figures],
            false => told,
        }
    }

    /// Replicas that were measured; none without a measurement.
    pub(super) fn replicas(&self) -> Option<u32> {
        let replicas = &self.measurement?.replicas;
        u32::try_from(replicas.len().max(1)).ok()
    }

    /// A gauge of the whole instance.
    pub(super) fn gauge(&self, quantity: Q) -> Option<&'s Gauge> {
        self.figures()?.gauge(quantity)
    }

    /// The largest value of a gauge at any replica.
    pub(super) fn peak(&self, quantity: Q) -> Option<f64> {
        let of = |figures: &Figures| Some(figures.gauge(quantity)?.max);
        self.each_replica()
            .into_iter()
            .filter_map(of)
            .reduce(f64::max)
    }

    /// The mean of a gauge at the replica where it is largest.
    pub(super) fn busiest(&self, quantity: Q) -> Option<f64> {
        let of = |figures: &Figures| Some(figures.gauge(quantity)?.mean);
        self.each_replica()
            .into_iter()
            .filter_map(of)
            .reduce(f64::max)
    }

    /// The mean of a distribution in which something was observed.
    pub(super) fn mean(&self, quantity: Q) -> Option<f64> {
        let distribution = self.figures()?.distribution(quantity)?;
        distribution.mean.filter(|_| distribution.count > 0.0)
    }

    /// A quantile of a distribution, where it is known and not only bounded.
    pub(super) fn quantile(&self, quantity: Q, q: f64) -> Option<f64> {
        let quantiles = &self.figures()?.distribution(quantity)?.quantiles;
        match quantiles.iter().find(|one| (one.q - q).abs() < 1e-9)?.value {
            Bounded::Value(value) => Some(value),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }
    }

    /// A single value by its name.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.figures()?.value(name)
    }

    /// Requests were thrown out of the batch, more than by accident.
    pub(super) fn preempts(&self) -> bool {
        let count = self.value("preemptions_increase");
        count.is_some_and(|count| count >= self.thresholds.min_preemptions)
    }

    /// Whether the KV cache is full, and why that is said. A bigger batch into a full cache only preempts more.
    pub(super) fn kv_full(&self) -> Option<String> {
        let usage = self.peak(Q::KvCacheUsage);
        if let Some(peak) = usage.filter(|peak| *peak >= self.thresholds.kv_full_ratio) {
            return Some(format!("the KV cache is up to {} full", percent(peak)));
        }
        if self.preempts() {
            return Some("requests are preempted for want of KV cache".to_owned());
        }
        let found = self
            .found(Cause::KvCapacity)
            .or(self.found(Cause::KvNearCapacity));
        found.map(|_| "the KV cache was found full".to_owned())
    }

    /// Requests that finish a second at each replica.
    pub(super) fn served_per_second(&self) -> Option<f64> {
        let served = self.value("requests_finished_per_second")?;
        Some(served / f64::from(self.replicas()?))
    }

    /// The mean gap between tokens, what prompts take of it included where they have steps of their own.
    pub(super) fn gap_with_prompts_seconds(&self) -> Option<f64> {
        let gap = self.gap_seconds()?;
        let told = |quantities: &[Q]| {
            let figures = self.figures()?;
            quantities.iter().find_map(|one| figures.distribution(*one))
        };
        if told(&[Q::InterTokenLatency]).is_some() {
            return Some(gap);
        }
        let prompts = told(&[Q::PrefillStepTime]).and_then(|one| Some(one.count * one.mean?));
        let decodes = told(&[Q::DecodeStepTotalTime, Q::DecodeStepTime])?.count;
        Some(gap + prompts.unwrap_or(0.0) / decodes.max(1.0))
    }

    /// See [`Figures::gap_seconds`].
    pub(super) fn gap_seconds(&self) -> Option<f64> {
        self.figures()?.gap_seconds()
    }
}
