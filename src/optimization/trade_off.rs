//! What is gained and what is given, and how a predicted number is written.

use crate::units::{percent, seconds};

use super::prediction::{Effect, PredictedQuantity as P, Prediction, QuantityPrediction};

/// A quantity gets worse if it moves the wrong way by more than this share.
const NOTICED: f64 = 0.03;

impl QuantityPrediction {
    /// Whether users get less than before, as far as the middle tells.
    pub fn is_worse(&self) -> bool {
        match self.quantity.more_is_better() {
            Some(true) => self.ratio < 1.0 - NOTICED,
            Some(false) => self.ratio > 1.0 + NOTICED,
            None => false,
        }
    }

    /// Whether users get more than before, by all of the interval.
    pub fn is_surely_better(&self) -> bool {
        match self.quantity.more_is_better() {
            Some(true) => self.ratio_low > 1.0,
            Some(false) => self.ratio_high < 1.0,
            None => false,
        }
    }
}

impl P {
    /// What operators call it.
    pub fn short(self) -> &'static str {
        match self {
            Self::GenerationTokensPerSecond => "tokens/s",
            Self::TimeToFirstTokenMean => "mean TTFT",
            Self::TimeToFirstTokenP99 => "TTFT p99",
            Self::InterTokenLatencyMean => "mean ITL",
            Self::InterTokenLatencyP99 => "ITL p99",
            Self::KvCacheUsage => "KV cache in use",
        }
    }
}

impl Prediction {
    /// The prediction of a quantity, if it could be made.
    pub fn of(&self, quantity: P) -> Option<&QuantityPrediction> {
        self.quantities.iter().find(|one| one.quantity == quantity)
    }

    /// What is given for what is gained, a sentence; none where nothing gets worse.
    pub fn trade_off(&self) -> Option<String> {
        let (mut gained, mut given) = (Vec::new(), Vec::new());
        for one in &self.quantities {
            let [after, _, _] = one.after();
            let text = format!(
                "{} from {} to {}",
                one.quantity.short(),
                shown(one.quantity, one.before),
                shown(one.quantity, after)
            );
            match (one.is_worse(), one.is_surely_better()) {
                (true, _) => given.push(text),
                (false, true) => gained.push(text),
                (false, false) => {}
            }
        }
        match (given.is_empty(), gained.is_empty()) {
            (true, _) => None,
            (false, true) => Some(format!("It costs {}.", given.join(" and "))),
            (false, false) => Some(format!(
                "It brings {} and costs {}.",
                gained.join(" and "),
                given.join(" and ")
            )),
        }
    }
}

impl Effect {
    /// The numbers, if there are any.
    pub fn prediction(&self) -> Option<&Prediction> {
        match self {
            Self::Predicted(prediction) => Some(prediction),
            Self::NotPredictable(_) => None,
        }
    }
}

/// A value of a quantity with its unit.
pub(crate) fn shown(quantity: P, value: f64) -> String {
    match quantity {
        P::GenerationTokensPerSecond if value >= 100.0 => format!("{value:.0}"),
        P::GenerationTokensPerSecond => format!("{value:.1}"),
        P::KvCacheUsage => percent(value),
        _ => seconds(value),
    }
}
