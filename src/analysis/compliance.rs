//! A measurement held against SLOs: kept, missed, or not to be told.

use std::sync::Arc;

use super::slo::{Aggregation, FAILURE_RATIO, Side, Slo, Subject};
use crate::engine::Quantity;
use crate::measure::{
    Absence, Basis, Bounded, Distribution, Figures, Measurement, Share, WindowKind,
};

/// How an SLO was kept over a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Compliance {
    /// Which.
    pub slo: Slo,
    /// In short.
    pub status: ComplianceStatus,
    /// One sentence with the numbers, or why it cannot be told.
    pub reason: String,
    /// What was measured; none where nothing was.
    pub value: Option<Measured>,
    /// How far the value is from the target, as a share of it: above zero there is room, below it is missed. A bound where
    /// the value is one.
    pub margin_ratio: Option<Bounded>,
    /// The share of observations beyond the target, where buckets tell it.
    pub share_beyond: Option<Share>,
    /// What is missing, where it cannot be told.
    pub missing: Option<Missing>,
}

/// How an SLO was kept, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComplianceStatus {
    /// Kept.
    Met,
    /// Missed.
    Violated,
    /// Nothing happened that it is about: no request, or none that waits.
    NotApplicable,
    /// The engine does not say enough to tell.
    Unknown,
}

impl ComplianceStatus {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Met,
        Self::Violated,
        Self::NotApplicable,
        Self::Unknown,
    ];

    /// The word on the wire, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "MET",
            Self::Violated => "VIOLATED",
            Self::NotApplicable => "NOT_APPLICABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A value that an SLO is held against.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The value, or the bound that is known of it.
    pub value: Bounded,
    /// How far it can be trusted.
    pub basis: Basis,
    /// The engine's metrics that it comes from.
    pub source: Arc<str>,
}

/// What it would take to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The quantity that is not there.
    pub quantity: String,
    /// What would make it appear.
    pub hint: Option<String>,
}

/// Whether and by how much each of these was kept.
pub fn evaluate(measurement: &Measurement, slos: &[Slo]) -> Vec<Compliance> {
    slos.iter().map(|slo| held(measurement, slo)).collect()
}

fn held(measurement: &Measurement, slo: &Slo) -> Compliance {
    let figures = &measurement.figures;
    let told = |status, reason: String| Compliance {
        slo: slo.clone(),
        status,
        reason,
        value: None,
        margin_ratio: None,
        share_beyond: None,
        missing: None,
    };
    // totals since the start say nothing of how it is now
    if measurement.window.kind == WindowKind::SinceStart {
        let reason =
            "there is one scrape only, and totals since the engine's start tell nothing of now";
        return told(ComplianceStatus::Unknown, reason.to_owned());
    }
    let lacking = |lack: Lack| match lack {
        Lack::Nothing(reason) => told(ComplianceStatus::NotApplicable, reason),
        Lack::Missing(reason, missing) => Compliance {
            missing: Some(missing),
            ..told(ComplianceStatus::Unknown, reason)
        },
    };
    let waiting = match Waiting::of(figures) {
        _ if !slo.only_while_requests_wait => Waiting::Throughout,
        Ok(Waiting::Never) => {
            return lacking(Lack::Nothing("no request waited in the window".to_owned()));
        }
        Ok(waiting) => waiting,
        Err(lack) => return lacking(lack),
    };
    let measured = match measured(figures, slo) {
        Ok(measured) => measured,
        Err(lack) => return lacking(lack),
    };
    let share_beyond = distribution(figures, slo).and_then(|one| beyond(one, slo));
    let decided = decide(measured.value, slo);
    let (status, reason) = match (decided, waiting) {
        (Some(false), Waiting::PartOfTheTime) => (
            ComplianceStatus::Unknown,
            format!(
                "{}; requests waited during a part of the window only, and it may hold for that part",
                sentence(slo, &measured)
            ),
        ),
        (Some(kept), _) => {
            let status = match kept {
                true => ComplianceStatus::Met,
                false => ComplianceStatus::Violated,
            };
            let beyond = share_beyond.filter(|_| !kept).map(beyond_text);
            let beyond = beyond.unwrap_or_default();
            (status, format!("{}{beyond}", sentence(slo, &measured)))
        }
        (None, _) => (
            ComplianceStatus::Unknown,
            format!(
                "{}: the engine's buckets are too coarse to tell on which side of the target it is",
                sentence(slo, &measured)
            ),
        ),
    };
    Compliance {
        margin_ratio: Some(margin(measured.value, slo)).filter(|ratio| ratio.number().is_finite()),
        share_beyond,
        value: Some(measured),
        ..told(status, reason)
    }
}

/// Whether requests waited.
enum Waiting {
    Never,
    PartOfTheTime,
    Throughout,
}

impl Waiting {
    fn of(figures: &Figures) -> Result<Self, Lack> {
        let Some(gauge) = figures.gauge(Quantity::RequestsWaiting) else {
            let name = Quantity::RequestsWaiting.name();
            return Err(missing(figures, name, &[Quantity::RequestsWaiting]));
        };
        Ok(match (gauge.min > 0.0, gauge.max > 0.0) {
            (true, _) => Self::Throughout,
            (false, true) => Self::PartOfTheTime,
            (false, false) => Self::Never,
        })
    }
}

/// Why there is no value.
enum Lack {
    /// Nothing happened.
    Nothing(String),
    /// The engine does not tell.
    Missing(String, Missing),
}

/// What the engine says of the SLO's quantity.
fn measured(figures: &Figures, slo: &Slo) -> Result<Measured, Lack> {
    let name = slo.quantity.as_str();
    let known = |value, basis, source: &Arc<str>| Measured {
        value,
        basis,
        source: source.clone(),
    };
    match Subject::of(name) {
        Some(Subject::Distribution(quantity)) => {
            let Some(one) = figures.distribution(quantity) else {
                return Err(missing(figures, name, &[quantity]));
            };
            if one.count <= 0.0 {
                return Err(Lack::Nothing(format!(
                    "no {name} was observed in the window"
                )));
            }
            let (value, basis, what) = match slo.aggregation {
                Aggregation::Quantile(q) => (one.quantile(q), Basis::Interpolated, "buckets"),
                _ => (one.mean.map(Bounded::Value), one.basis, "sum"),
            };
            let basis = match one.basis {
                Basis::Approximate => Basis::Approximate,
                _ => basis,
            };
            value.map(|value| known(value, basis, &one.source)).ok_or_else(|| {
                let reason = format!(
                    "the engine exports no {what} of {name}, or those of its replicas do not agree"
                );
                let missing = Missing {
                    quantity: name.to_owned(),
                    hint: None,
                };
                Lack::Missing(reason, missing)
            })
        }
        Some(Subject::Gauge(quantity)) => match figures.gauge(quantity) {
            Some(gauge) => Ok(known(
                Bounded::Value(gauge.mean),
                gauge.basis,
                &gauge.source,
            )),
            None => Err(missing(figures, name, &[quantity])),
        },
        Some(Subject::Single) | None => match figures.quantity(name) {
            Some(value) => Ok(known(value.value, value.basis, &value.source)),
            None => Err(no_single(figures, name)),
        },
    }
}

fn distribution<'f>(figures: &'f Figures, slo: &Slo) -> Option<&'f Distribution> {
    match Subject::of(&slo.quantity) {
        Some(Subject::Distribution(quantity)) => figures.distribution(quantity),
        _ => None,
    }
}

/// Ratios over which nothing happened are not shown; the counters that they come from are.
fn no_single(figures: &Figures, name: &str) -> Lack {
    use Quantity as Q;
    let (parts, whole): (&[Q], Q) = match name {
        FAILURE_RATIO => (
            &[Q::RequestsErrored, Q::RequestsRejected],
            Q::RequestsFinished,
        ),
        "prefix_cache_hit_ratio" => (&[Q::PrefixCacheHits], Q::PrefixCacheQueries),
        "external_cache_hit_ratio" => (&[Q::ExternalCacheHits], Q::ExternalCacheQueries),
        "speculation_acceptance_ratio" => {
            (&[Q::SpeculationAcceptedTokens], Q::SpeculationDraftTokens)
        }
        "speculation_accepted_length_tokens" => {
            (&[Q::SpeculationAcceptedTokens], Q::SpeculationDrafts)
        }
        "graph_pass_ratio" => (&[Q::EagerPasses], Q::GraphPasses),
        _ => {
            let counters = Q::ALL.iter().copied();
            let of_name = |quantity: &Q| name.strip_suffix("_per_second") == Some(quantity.name());
            let counter: Vec<Q> = counters.filter(of_name).collect();
            return missing(figures, name, &counter);
        }
    };
    let told = |quantity: &Q| {
        let [_, increase, _] = quantity.counter_names();
        figures.value(increase)
    };
    if parts.iter().any(|part| told(part).is_some()) && told(&whole) == Some(0.0) {
        return Lack::Nothing(format!(
            "nothing happened in the window that {name} is a share of"
        ));
    }
    let lacking: Vec<Q> = match told(&whole) {
        None => vec![whole],
        Some(_) => parts.to_vec(),
    };
    missing(figures, name, &lacking)
}

/// The first of these that the engine is known not to export, and why.
fn missing(figures: &Figures, name: &str, of: &[Quantity]) -> Lack {
    let absent = |quantity: &Quantity| -> Option<&Absence> {
        figures
            .absent
            .iter()
            .find(|absence| absence.quantity == *quantity)
    };
    let quantity = of.first().map_or(name, |quantity| quantity.name());
    match of.iter().find_map(absent) {
        Some(absence) => Lack::Missing(
            format!("{name} cannot be told: {}", absence.reason),
            Missing {
                quantity: absence.quantity.name().to_owned(),
                hint: absence.hint.as_deref().map(str::to_owned),
            },
        ),
        None => Lack::Missing(
            format!("{name} is not part of what this engine exports"),
            Missing {
                quantity: quantity.to_owned(),
                hint: None,
            },
        ),
    }
}

/// Whether the value keeps the SLO; none where only a bound is known that lies on the wrong side to tell.
fn decide(value: Bounded, slo: &Slo) -> Option<bool> {
    let target = slo.target;
    match (slo.comparison, value) {
        (Side::AtMost, Bounded::Value(value)) => Some(value <= target),
        (Side::AtLeast, Bounded::Value(value)) => Some(value >= target),
        (Side::AtMost, Bounded::AtMost(bound)) => (bound <= target).then_some(true),
        (Side::AtLeast, Bounded::AtLeast(bound)) => (bound >= target).then_some(true),
        (Side::AtMost, Bounded::AtLeast(bound)) => (bound > target).then_some(false),
        (Side::AtLeast, Bounded::AtMost(bound)) => (bound < target).then_some(false),
    }
}

fn margin(value: Bounded, slo: &Slo) -> Bounded {
    let ratio = value.number() / slo.target;
    match (slo.comparison, value) {
        (Side::AtMost, Bounded::Value(_)) => Bounded::Value(1.0 - ratio),
        (Side::AtMost, Bounded::AtMost(_)) => Bounded::AtLeast(1.0 - ratio),
        (Side::AtMost, Bounded::AtLeast(_)) => Bounded::AtMost(1.0 - ratio),
        (Side::AtLeast, Bounded::Value(_)) => Bounded::Value(ratio - 1.0),
        (Side::AtLeast, Bounded::AtMost(_)) => Bounded::AtMost(ratio - 1.0),
        (Side::AtLeast, Bounded::AtLeast(_)) => Bounded::AtLeast(ratio - 1.0),
    }
}

/// The share of observations on the wrong side of the target.
pub(super) fn beyond(distribution: &Distribution, slo: &Slo) -> Option<Share> {
    let below = distribution.share_at_most(slo.target)?;
    // counts beyond what can be added up
    if !(below.at_least.is_finite() && below.at_most.is_finite()) {
        return None;
    }
    Some(match slo.comparison {
        Side::AtMost => below.complement(),
        Side::AtLeast => below,
    })
}

fn sentence(slo: &Slo, measured: &Measured) -> String {
    let value = match measured.value {
        Bounded::Value(value) => short(value),
        Bounded::AtMost(value) => format!("at most {}", short(value)),
        Bounded::AtLeast(value) => format!("at least {}", short(value)),
    };
    format!("{value} against {}", slo.promise())
}

fn beyond_text(share: Share) -> String {
    let percent = |share: f64| short(share * 100.0);
    match share.at_most - share.at_least < 1e-9 {
        true => format!("; {} % are beyond it", percent(share.at_least)),
        false => format!(
            "; from {} to {} % are beyond it",
            percent(share.at_least),
            percent(share.at_most)
        ),
    }
}

/// Three digits that count.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
