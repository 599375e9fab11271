//! What is said of a canary.

use serde::{Deserialize, Serialize};

use super::observation::Evidence;
use super::quantity::JudgedQuantity;

/// What is said of a canary, or of one quantity of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VerdictWord {
    /// It is shown not to be worse by more than what is tolerated or accepted.
    Pass,
    /// It is shown to be worse.
    Fail,
    /// Neither was shown.
    Inconclusive,
    /// A comparison would mean nothing.
    NotComparable,
}

/// What is said of a canary after some looks.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Verdict {
    /// Of all together.
    pub word: VerdictWord,
    /// Each quantity that at least one side has.
    pub quantities: Vec<QuantityVerdict>,
    /// The look that says so, from 1; 0 without any.
    pub look: u32,
    /// Looks that are planned.
    pub looks: u32,
    /// How strong the evidence is; none without any.
    pub evidence: Option<Evidence>,
    /// In a sentence.
    pub reason: String,
}

/// What is said of one quantity.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct QuantityVerdict {
    /// Which.
    pub quantity: JudgedQuantity,
    /// Whether it decides.
    pub enforced: bool,
    /// Of this one.
    pub word: VerdictWord,
    /// Its value with the change, in the quantity's unit.
    pub canary: Option<f64>,
    /// Its value without it.
    pub control: Option<f64>,
    /// Canary over control; none where the control is zero.
    pub effect_ratio: Option<f64>,
    /// Bounds of that ratio; of a share see `difference_interval`.
    pub interval: Option<(f64, f64)>,
    /// Of a share, canary less control, in parts of 1.
    #[serde(default)]
    pub difference: Option<f64>,
    /// Bounds of that difference.
    #[serde(default)]
    pub difference_interval: Option<(f64, f64)>,
    /// Chance that the interval holds the truth: of each bound, half the chance that it does not. It is corrected for
    /// the looks that may pass.
    #[serde(default)]
    pub interval_confidence: f64,
    /// Intervals in which it was observed on both sides.
    pub intervals: u32,
    /// Requests, gaps or seconds that the canary's value is of.
    pub canary_count: f64,
    /// Of the control's.
    pub control_count: f64,
    /// The change for the worse, in parts of the control's value, that would be called harm four times out of five.
    pub smallest_detectable_ratio: Option<f64>,
    /// In a sentence.
    pub reason: String,
}

impl VerdictWord {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::NotComparable => "NOT_COMPARABLE",
        }
    }
}

impl QuantityVerdict {
    /// Without numbers that have no end: they could not be written down. No engine has such.
    pub(super) fn told(mut self) -> Self {
        let number = |of: Option<f64>| of.filter(|number| number.is_finite());
        let both = |of: Option<(f64, f64)>| of.filter(|(low, high)| (low + high).is_finite());
        self.canary = number(self.canary);
        self.control = number(self.control);
        self.effect_ratio = number(self.effect_ratio);
        self.difference = number(self.difference);
        self.smallest_detectable_ratio = number(self.smallest_detectable_ratio);
        self.interval = both(self.interval);
        self.difference_interval = both(self.difference_interval);
        if !(self.canary_count.is_finite() && self.control_count.is_finite()) {
            self.word = VerdictWord::NotComparable;
            self.reason = "more is counted than any engine can do".to_owned();
            (self.canary_count, self.control_count) = (0.0, 0.0);
        }
        self
    }
}
