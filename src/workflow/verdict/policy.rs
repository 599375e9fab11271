//! What a canary has to show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quantity::JudgedQuantity as J;
use super::sequential;
use crate::optimization::{PredictedQuantity, Prediction};

/// What a canary has to show, and how sure that has to be.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct VerdictPolicy {
    /// A mean that is worse by less than this still passes.
    pub tolerance_ratio: f64,
    /// A share of requests or gaps beyond a bound that is larger by less than this, in parts of 1, still passes.
    pub tolerance_share: f64,
    /// The same of failed requests.
    pub tolerance_failure_share: f64,
    /// A mean that is worse by less than this is no harm, however sure that is.
    pub harm_ratio: f64,
    /// A share that is larger by less than this is no harm; nor is one that is larger by less than `harm_ratio` times what it
    /// is without the change, unless it is of failures.
    pub harm_share: f64,
    /// Looks that are planned. Observations beyond are not judged: the chance of an error is spent.
    pub looks: u32,
    /// The first look that may pass.
    pub pass_from_look: u32,
    /// Fewest intervals in which a quantity was observed on both sides.
    pub least_intervals: u32,
    /// Fewest requests, or gaps between tokens, on each side.
    pub least_requests: u32,
    /// One minus the chance that harm beyond the tolerance passes, and that a change of nothing fails.
    pub confidence: f64,
    /// Load or lengths of requests that differ by more than this can explain any verdict.
    pub most_traffic_ratio: f64,
    /// What is shown and decides nothing; what is not here is enforced.
    pub modes: BTreeMap<J, Mode>,
    /// How much worse a quantity may become, worse over before, since who approved the change was told so. Of a share
    /// beyond a bound, that bound moves as much, see [`super::Bounds::of`].
    pub accepted_ratio: BTreeMap<J, f64>,
}

/// Whether a quantity decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// It does.
    Enforce,
    /// It is shown and decides nothing.
    Observe,
}

/// A policy that means nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} = {value}: {meant}")]
pub struct PolicyError {
    /// Which field.
    pub field: &'static str,
    /// What it is.
    pub value: f64,
    /// What is meant.
    pub meant: &'static str,
}

impl Default for VerdictPolicy {
    fn default() -> Self {
        Self {
            tolerance_ratio: 0.05,
            tolerance_share: 0.01,
            tolerance_failure_share: 0.002,
            harm_ratio: 0.02,
            harm_share: 0.002,
            looks: 4,
            pass_from_look: 3,
            least_intervals: 20,
            least_requests: 200,
            confidence: 0.95,
            most_traffic_ratio: 1.25,
            modes: BTreeMap::new(),
            accepted_ratio: BTreeMap::new(),
        }
    }
}

impl VerdictPolicy {
    /// Whether it can be.
    ///
    /// # Errors
    /// The first field that cannot.
    pub fn check(&self) -> Result<(), PolicyError> {
        let refuse = |field, value, meant| {
            Err(PolicyError {
                field,
                value,
                meant,
            })
        };
        for (field, value) in [
            ("tolerance_ratio", self.tolerance_ratio),
            ("tolerance_share", self.tolerance_share),
            ("tolerance_failure_share", self.tolerance_failure_share),
            ("harm_ratio", self.harm_ratio),
            ("harm_share", self.harm_share),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(field, value, "a part of 1 is meant, such as 0.05");
            }
        }
        if !(self.confidence > 0.5 && self.confidence < 1.0) {
            let meant = "more than 0.5 and less than 1 is meant, such as 0.95";
            return refuse("confidence", self.confidence, meant);
        }
        if self.looks == 0 {
            return refuse("looks", 0.0, "at least one look is needed");
        }
        if !(1..=self.looks).contains(&self.pass_from_look) {
            let meant = "one of the looks is meant, counted from 1";
            return refuse("pass_from_look", self.pass_from_look.into(), meant);
        }
        if self.most_traffic_ratio.is_nan() || self.most_traffic_ratio <= 1.0 {
            let meant = "a ratio above 1 is meant, such as 1.25";
            return refuse("most_traffic_ratio", self.most_traffic_ratio, meant);
        }
        let accepted = self.accepted_ratio.values().copied();
        if let Some(value) = accepted
            .into_iter()
            .find(|ratio| !(1.0..=100.0).contains(ratio))
        {
            let meant = "worse over before is meant, from 1 to 100, such as 1.15";
            return refuse("accepted_ratio", value, meant);
        }
        Ok(())
    }

    /// Accepts what a prediction says becomes worse: to the worse end of its interval, and no more. The end-to-end latency is
    /// a sum of the time to first token and of gaps, so that it becomes worse by no more than the worse of the two.
    pub fn accept(&mut self, prediction: &Prediction) {
        let worst = |predicted: PredictedQuantity| {
            let of = prediction.of(predicted)?;
            let worse = match predicted.more_is_better() {
                Some(true) => (of.ratio < 1.0).then(|| 1.0 / of.ratio_low),
                _ => (of.ratio > 1.0).then_some(of.ratio_high),
            };
            worse.filter(|ratio| ratio.is_finite() && *ratio > 1.0)
        };
        let larger =
            |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::max);
        let first = worst(PredictedQuantity::TimeToFirstTokenMean);
        let gaps = worst(PredictedQuantity::InterTokenLatencyMean);
        let first_tail = larger(first, worst(PredictedQuantity::TimeToFirstTokenP99));
        let gaps_tail = larger(gaps, worst(PredictedQuantity::InterTokenLatencyP99));
        let rate = worst(PredictedQuantity::GenerationTokensPerSecond);
        for (quantity, ratio) in [
            (J::TimeToFirstTokenMean, first),
            (J::InterTokenLatencyMean, gaps),
            (J::EndToEndLatencyMean, larger(first, gaps)),
            (J::TimeToFirstTokenBeyond, first_tail),
            (J::InterTokenLatencyBeyond, gaps_tail),
            (J::EndToEndLatencyBeyond, larger(first_tail, gaps_tail)),
            (J::GenerationTokensPerSecond, rate),
        ] {
            self.accepted_ratio
                .extend(ratio.map(|ratio| (quantity, ratio)));
        }
    }

    pub(super) fn enforces(&self, quantity: J) -> bool {
        self.modes.get(&quantity) != Some(&Mode::Observe)
    }

    /// Worse over before: below it, a mean passes.
    pub(super) fn most_ratio(&self, quantity: J) -> f64 {
        let accepted = self.accepted_ratio.get(&quantity).copied();
        accepted.unwrap_or(1.0).max(1.0 + self.tolerance_ratio)
    }

    /// Worse over before: above it, a mean fails.
    pub(super) fn harm_from_ratio(&self, quantity: J) -> f64 {
        let accepted = self.accepted_ratio.get(&quantity).copied();
        accepted.unwrap_or(1.0).max(1.0 + self.harm_ratio)
    }

    /// Canary less control: above it, a share fails. Of a share that is large on both sides, as much as of a mean; of
    /// failures none is large enough.
    pub(super) fn harm_from_difference(&self, quantity: J, control: f64) -> f64 {
        match quantity {
            J::FailureShare => self.harm_share,
            _ => self.harm_share.max(self.harm_ratio * control),
        }
    }

    /// Canary less control: below it, a share passes. Of a share that is large on both sides, as much as of a mean.
    pub(super) fn most_difference(&self, quantity: J, control: f64) -> f64 {
        let least = match quantity {
            J::FailureShare => self.tolerance_failure_share,
            _ => self.tolerance_share,
        };
        least.max(self.tolerance_ratio * control)
    }

    /// Chance of an error in one tail of what this look passes. Looks before the first that may pass spend nothing.
    pub(super) fn pass_level(&self, look: u32) -> f64 {
        sequential::level(look, self.pass_from_look, self.looks, 1.0 - self.confidence)
    }

    /// Chance of an error of one test for harm, of so many at each look.
    pub(super) fn harm_level(&self, tests: usize) -> f64 {
        (1.0 - self.confidence) / f64::from(self.looks.max(1)) / tests.max(1) as f64
    }
}
