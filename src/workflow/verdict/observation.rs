//! What one window of a canary came to: all that a verdict needs of it, small enough for an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::quantity::JudgedQuantity;

/// Sufficient statistics of one window, interval by interval. An event keeps it for ever: fields are only added, with a
/// default.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Observation {
    /// Beginning of the canary's window, unix time in seconds.
    pub start_unix_seconds: f64,
    /// Its end.
    pub end_unix_seconds: f64,
    /// Place of its first scrape in the schedule.
    pub first_tick: u32,
    /// Place of its last scrape.
    pub last_tick: u32,
    /// Whether the control was watched at the same time.
    pub evidence: Evidence,
    /// Beginning of the control's window; the canary's own where it is the same time.
    pub control_start_unix_seconds: f64,
    /// Its end.
    pub control_end_unix_seconds: f64,
    /// Which engine.
    pub engine: String,
    /// Replicas with the change.
    pub canary_replicas: u32,
    /// Replicas without it.
    pub control_replicas: u32,
    /// The canary's endpoint says that it is simulated.
    pub simulated: bool,
    /// The control's endpoint says so.
    pub control_simulated: bool,
    /// From where on a latency is beyond its bound.
    pub bounds: Bounds,
    /// Requests were waiting on every replica throughout.
    pub saturated: bool,
    /// What came in on both sides.
    pub traffic: Traffic,
    /// Seconds between scrapes that do not count, and why: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Both sides of each interval. What neither has is missing; what only one has is in `one_sided`.
    pub pairs: BTreeMap<JudgedQuantity, Vec<Pair>>,
    /// What only one side has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_sided: Vec<JudgedQuantity>,
}

/// Whether both sides were watched at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Evidence {
    /// Canary and control at the same time.
    SameTime,
    /// The same replicas before the change and after it: weaker, since load and users change with time.
    BeforeAfter,
}

/// One interval on both sides, to seven digits. As JSON: numerator and denominator of the canary, then of the control.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(from = "[f64; 4]", into = "[f64; 4]")]
pub struct Pair {
    /// With the change.
    pub canary: Side,
    /// Without it.
    pub control: Side,
}

/// What one side did in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Side {
    /// Sum of what was observed, how many of it were beyond or failed, or tokens.
    pub numerator: f64,
    /// How many were observed; of a rate, seconds of all replicas.
    pub denominator: f64,
}

/// Totals of a window: what came in on both sides, as `[canary, control]`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Traffic {
    /// Seconds that were watched, of all replicas together.
    pub replica_seconds: [f64; 2],
    /// Requests that got their first token, or where that is not told, ended.
    pub requests: [f64; 2],
    /// Mean prompt, in tokens; none where it is not told.
    pub prompt_tokens: Option<[f64; 2]>,
    /// Mean output, in tokens; none where it is not told.
    pub output_tokens: Option<[f64; 2]>,
}

impl From<[f64; 4]> for Pair {
    fn from([numerator, denominator, control, of_control]: [f64; 4]) -> Self {
        Self {
            canary: Side {
                numerator,
                denominator,
            },
            control: Side {
                numerator: control,
                denominator: of_control,
            },
        }
    }
}

impl From<Pair> for [f64; 4] {
    fn from(of: Pair) -> Self {
        [
            of.canary.numerator,
            of.canary.denominator,
            of.control.numerator,
            of.control.denominator,
        ]
    }
}

impl Pair {
    /// Whether these can be sums and counts.
    pub(super) fn is_sound(&self) -> bool {
        <[f64; 4]>::from(*self)
            .iter()
            .all(|number| number.is_finite() && *number >= 0.0)
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            canary: self.canary.plus(other.canary),
            control: self.control.plus(other.control),
        }
    }

    /// To seven digits.
    pub(super) fn rounded(self) -> Self {
        <[f64; 4]>::from(self).map(rounded).into()
    }
}

impl Side {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            numerator: self.numerator + other.numerator,
            denominator: self.denominator + other.denominator,
        }
    }
}

/// To seven digits: more are noise, and events are to be small.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 6 - value.abs().log10().floor() as i32;
    match digits {
        ..=0 => value.round(),
        1..=300 => {
            let scale = 10_f64.powi(digits);
            (value * scale).round() / scale
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_digits_stay() {
        assert_eq!(rounded(1_234.567_891_2), 1_234.568);
        assert_eq!(rounded(0.001_234_567_89), 0.001_234_568);
        assert_eq!(rounded(123_456_789.4), 123_456_789.0);
        assert_eq!(rounded(7.0), 7.0);
        assert_eq!(rounded(0.0), 0.0);
    }
}
