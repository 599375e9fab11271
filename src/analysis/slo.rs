//! Service level objectives: what was promised to users, and what such a promise may say.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::slo_text::SloText;
use super::thresholds::Targets;
use crate::engine::{Quantity, QuantityKind};
use crate::measure::DERIVED;
use crate::units::nearest;

/// A target on a quantity.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "SloText", into = "SloText")]
pub struct Slo {
    /// What it is called; unique among those of an instance.
    pub name: String,
    /// The quantity's name with its unit, as in a measurement.
    pub quantity: String,
    /// What of it.
    pub aggregation: Aggregation,
    /// On which side of the target it is to be.
    pub comparison: Side,
    /// The target, in the unit of the quantity.
    pub target: f64,
    /// It holds only while requests wait: an idle engine owes nobody tokens.
    pub only_while_requests_wait: bool,
}

/// What of a quantity is held against a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregation {
    /// Mean of a distribution, or of a gauge's samples.
    Mean,
    /// Quantile of a distribution, between 0 and 1. Made by [`Aggregation::quantile`], which rounds to millionths.
    Quantile(f64),
    /// The value of a rate or a ratio.
    Value,
}

/// On which side of its target a value is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At or below it.
    AtMost,
    /// At or above it.
    AtLeast,
}

/// Most SLOs of an instance.
pub const MAX_SLOS: usize = 8;
const MAX_NAME: usize = 63;
/// What is beyond makes sentences of hundreds of digits.
const TARGETS: RangeInclusive<f64> = 1e-9..=1e15;
pub(super) const FAILURE_RATIO: &str = "request_failure_ratio";

impl Slo {
    /// What holds where nobody says otherwise.
    pub fn defaults() -> Vec<Self> {
        let at_most = |name: &str, quantity: &str, aggregation, target| Self {
            name: name.to_owned(),
            quantity: quantity.to_owned(),
            aggregation,
            comparison: Side::AtMost,
            target,
            only_while_requests_wait: false,
        };
        let ttft = Quantity::TimeToFirstToken.name();
        let itl = Quantity::InterTokenLatency.name();
        vec![
            at_most("ttft_p50", ttft, Aggregation::Quantile(0.5), 0.1),
            at_most("ttft_p99", ttft, Aggregation::Quantile(0.99), 0.5),
            at_most("itl_p99", itl, Aggregation::Quantile(0.99), 0.1),
            at_most("error_ratio", FAILURE_RATIO, Aggregation::Value, 0.01),
            Self {
                comparison: Side::AtLeast,
                only_while_requests_wait: true,
                ..at_most(
                    "generation_rate",
                    "generation_tokens_per_second",
                    Aggregation::Value,
                    100.0,
                )
            },
        ]
    }

    /// Everything that is wrong with it: field, and what would be right.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let of_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.bytes().all(of_name) {
            found.push((
                "name",
                format!("must be 1 to {MAX_NAME} lower-case letters, digits, `_`, `-` and `.`, such as ttft_p99"),
            ));
        }
        let subject = Subject::of(&self.quantity);
        if subject.is_none() {
            found.push(("quantity", unknown(&self.quantity)));
        }
        if let Aggregation::Quantile(q) = self.aggregation
            && !(q > 0.0 && q < 1.0)
        {
            found.push((
                "quantile",
                "must lie between 0 and 1, such as 0.99".to_owned(),
            ));
        }
        let meant = match (subject, self.aggregation) {
            (Some(Subject::Distribution(_)), Aggregation::Value) => Some("mean or a quantile"),
            (Some(Subject::Gauge(_)), Aggregation::Value | Aggregation::Quantile(_)) => {
                Some("mean")
            }
            (Some(Subject::Single), Aggregation::Mean | Aggregation::Quantile(_)) => Some("value"),
            _ => None,
        };
        if let Some(meant) = meant {
            found.push((
                "aggregation",
                format!(
                    "of {} it is {meant}, not {}",
                    self.quantity, self.aggregation
                ),
            ));
        }
        let side = self.comparison.as_str();
        if !(self.target.is_finite() && self.target > 0.0) {
            found.push((side, "must be a number above 0".to_owned()));
        } else if !TARGETS.contains(&self.target) {
            found.push((
                side,
                format!(
                    "must lie between {:e} and {:e}",
                    TARGETS.start(),
                    TARGETS.end()
                ),
            ));
        } else if self.quantity.ends_with("_ratio") && self.target > 1.0 {
            found.push((side, "is a share: at most 1".to_owned()));
        }
        found
    }

    /// Whether a value is on the wrong side of the target.
    pub fn is_missed_by(&self, value: f64) -> bool {
        match self.comparison {
            Side::AtMost => value > self.target,
            Side::AtLeast => value < self.target,
        }
    }

    /// The promise in words: `p99 of time_to_first_token_seconds at most 0.5`.
    pub fn promise(&self) -> String {
        let of = match self.aggregation {
            Aggregation::Value => String::new(),
            aggregation => format!("{aggregation} of "),
        };
        let side = match self.comparison {
            Side::AtMost => "at most",
            Side::AtLeast => "at least",
        };
        let only = match self.only_while_requests_wait {
            true => " while requests wait",
            false => "",
        };
        format!("{of}{} {side} {}{only}", self.quantity, self.target)
    }
}

impl Aggregation {
    /// A quantile, in millionths.
    pub fn quantile(q: f64) -> Self {
        Self::Quantile((q * 1e6).round() / 1e6)
    }
}

impl Display for Aggregation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => out.write_str("mean"),
            Self::Value => out.write_str("value"),
            Self::Quantile(q) => write!(out, "p{}", (q * 1e6).round() / 1e4),
        }
    }
}

impl Side {
    /// The word on the wire and in the config file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtMost => "at_most",
            Self::AtLeast => "at_least",
        }
    }
}

/// What an SLO is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Has a mean and quantiles.
    Distribution(Quantity),
    /// Has a mean over the window.
    Gauge(Quantity),
    /// A rate or a ratio over the window.
    Single,
}

impl Subject {
    pub(super) fn of(name: &str) -> Option<Self> {
        match Quantity::from_name(name) {
            Some(quantity) if quantity.kind() == QuantityKind::Distribution => {
                Some(Self::Distribution(quantity))
            }
            Some(quantity) if quantity.kind() == QuantityKind::Gauge => Some(Self::Gauge(quantity)),
            _ => singles()
                .any(|single| single == name)
                .then_some(Self::Single),
        }
    }
}

/// Rates and ratios. Totals since the engine's start and increases, which grow with the window, promise nothing.
fn singles() -> impl Iterator<Item = &'static str> {
    let counters = Quantity::ALL
        .iter()
        .filter(|quantity| quantity.kind() == QuantityKind::Counter);
    let derived = DERIVED.iter().map(|(name, _)| *name);
    counters
        .map(|quantity| quantity.counter_names()[2])
        .chain(derived.filter(|name| !name.ends_with("_increase")))
}

/// What people call them.
const SHORT_FORMS: &[(&str, Quantity)] = &[
    ("ttft", Quantity::TimeToFirstToken),
    ("itl", Quantity::InterTokenLatency),
    ("tpot", Quantity::TimePerOutputToken),
    ("e2e", Quantity::EndToEndLatency),
    ("latency", Quantity::EndToEndLatency),
];

fn unknown(name: &str) -> String {
    let others = Quantity::ALL
        .iter()
        .filter(|quantity| quantity.kind() != QuantityKind::Counter)
        .map(|quantity| quantity.name());
    let word = name.split('_').next().unwrap_or_default();
    let meant = SHORT_FORMS.iter().find(|(short, _)| *short == word);
    let nearest = match meant {
        Some((_, quantity)) => quantity.name(),
        None => nearest(name, singles().chain(others)).unwrap_or_default(),
    };
    let shown: String = name.chars().take(80).collect();
    format!(
        "`{shown}` is no distribution, gauge, rate or ratio of a measurement; the nearest is `{nearest}`"
    )
}

/// From which quantile on a promise is one of the tail.
const TAIL: f64 = 0.9;

impl Targets {
    /// What these SLOs promise of latency and errors. Of what they say nothing the defaults hold, as far as the rest of the
    /// promise allows: a median may be as large as the tail that was promised, and a tail is no smaller than its median.
    pub fn of(slos: &[Slo]) -> Self {
        let mut targets = Self::default();
        let (middle, tail) = promised(slos, &[Quantity::TimeToFirstToken]);
        if middle.is_some() || tail.is_some() {
            targets.ttft_p50_seconds = middle.or(tail).unwrap_or(targets.ttft_p50_seconds);
            let least = targets.ttft_p99_seconds.max(targets.ttft_p50_seconds);
            targets.ttft_p99_seconds = tail.unwrap_or(least);
        }
        let gaps = [Quantity::InterTokenLatency, Quantity::TimePerOutputToken];
        let (middle, tail) = promised(slos, &gaps);
        let least = middle.map_or(targets.itl_p99_seconds, |middle| {
            targets.itl_p99_seconds.max(middle)
        });
        targets.itl_p99_seconds = tail.unwrap_or(least);
        let errors = slos
            .iter()
            .filter(|slo| slo.quantity == FAILURE_RATIO && slo.comparison == Side::AtMost);
        if let Some(ratio) = errors.map(|slo| slo.target).reduce(f64::min) {
            targets.error_ratio = ratio;
        }
        targets
    }
}

/// What is promised of the middle and of the tail of one of these; the strictest where several are.
fn promised(slos: &[Slo], of: &[Quantity]) -> (Option<f64>, Option<f64>) {
    let (mut middle, mut tail) = (None, None);
    for slo in slos {
        let about = of.iter().any(|quantity| quantity.name() == slo.quantity);
        if !about || slo.comparison != Side::AtMost {
            continue;
        }
        let place = match slo.aggregation {
            Aggregation::Quantile(q) if q >= TAIL => &mut tail,
            Aggregation::Quantile(_) | Aggregation::Mean => &mut middle,
            Aggregation::Value => continue,
        };
        *place = Some(place.map_or(slo.target, |known: f64| known.min(slo.target)));
    }
    (middle, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(quantity: &str, aggregation: Aggregation, target: f64) -> Slo {
        Slo {
            name: "a".to_owned(),
            quantity: quantity.to_owned(),
            aggregation,
            comparison: Side::AtMost,
            target,
            only_while_requests_wait: false,
        }
    }

    fn fields(slo: &Slo) -> Vec<&'static str> {
        slo.problems().into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn every_wrong_field_is_named() {
        use Aggregation::{Mean, Quantile, Value};
        let ttft = "time_to_first_token_seconds";
        for good in Slo::defaults() {
            assert_eq!(good.problems(), [], "{good:?}");
        }
        assert!(Slo::defaults().len() <= MAX_SLOS);
        let cases: [(Slo, &[&str]); 13] = [
            (slo(ttft, Mean, 5e-324), &["at_most"]),
            (slo(ttft, Mean, f64::MAX), &["at_most"]),
            (slo(ttft, Quantile(0.999), 1.0), &[]),
            (slo("kv_cache_usage_ratio", Mean, 0.9), &[]),
            (slo(ttft, Quantile(1.0), 1.0), &["quantile"]),
            (slo(ttft, Quantile(f64::NAN), 1.0), &["quantile"]),
            (slo(ttft, Value, 1.0), &["aggregation"]),
            (
                slo("requests_waiting", Quantile(0.9), 1.0),
                &["aggregation"],
            ),
            (slo(FAILURE_RATIO, Mean, 0.1), &["aggregation"]),
            (slo(FAILURE_RATIO, Value, 1.5), &["at_most"]),
            (slo(ttft, Mean, 0.0), &["at_most"]),
            (slo(ttft, Mean, f64::NAN), &["at_most"]),
            (slo("generation_tokens_total", Value, 1.0), &["quantity"]),
        ];
        for (slo, expected) in cases {
            assert_eq!(fields(&slo), expected, "{slo:?}");
        }
        let mut unnamed = slo(ttft, Mean, 1.0);
        for name in ["", "A", "a b", &"x".repeat(64)] {
            name.clone_into(&mut unnamed.name);
            assert_eq!(fields(&unnamed), ["name"], "{name}");
        }
        let short = slo("ttft_seconds", Mean, 1.0).problems();
        assert!(
            short
                .iter()
                .any(|(_, text)| text.contains(&format!("`{ttft}`"))),
            "{short:?}"
        );
        let near = slo("generation_tokens_per_secnd", Value, 1.0).problems();
        assert!(
            near.iter()
                .any(|(_, text)| text.contains("`generation_tokens_per_second`")),
            "{near:?}"
        );
    }

    #[test]
    fn targets_follow_from_what_was_promised() {
        use Aggregation::{Mean, Quantile};
        let ttft = |aggregation, target| slo("time_to_first_token_seconds", aggregation, target);
        assert_eq!(Targets::of(&[]), Targets::default());
        assert_eq!(Targets::of(&Slo::defaults()), Targets::default());
        let tail_only = Targets::of(&[ttft(Quantile(0.95), 5.0)]);
        assert_eq!(tail_only.ttft_p50_seconds, 5.0);
        assert_eq!(tail_only.ttft_p99_seconds, 5.0);
        let mean_only = Targets::of(&[ttft(Mean, 2.0)]);
        assert_eq!(mean_only.ttft_p50_seconds, 2.0);
        assert_eq!(
            mean_only.ttft_p99_seconds, 2.0,
            "no smaller than its median"
        );
        let several = Targets::of(&[
            slo("time_per_output_token_seconds", Mean, 0.2),
            slo("inter_token_latency_seconds", Quantile(0.99), 0.4),
            slo("inter_token_latency_seconds", Quantile(0.9), 0.3),
            slo(FAILURE_RATIO, Aggregation::Value, 0.05),
        ]);
        assert_eq!(several.itl_p99_seconds, 0.3, "the strictest");
        assert_eq!(several.error_ratio, 0.05);
        assert_eq!(several.ttft_p99_seconds, 0.5);
        let tpot = Targets::of(&[slo("time_per_output_token_seconds", Mean, 0.2)]);
        assert_eq!(tpot.itl_p99_seconds, 0.2);
    }
}
