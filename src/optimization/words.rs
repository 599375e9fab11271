//! What is predicted, in one sentence.

use super::prediction::{Effect, PredictedQuantity, QuantityPrediction};
use super::recommendation::Optimization;

impl Optimization {
    /// What to do and what it is expected to do, in a sentence or two.
    pub fn description(&self) -> String {
        format!(
            "{}. {}",
            self.title.trim_end_matches('.'),
            self.effect.in_words()
        )
    }
}

impl Effect {
    /// What is predicted, as a sentence: the middle, and the 90 % interval in brackets.
    pub fn in_words(&self) -> String {
        let prediction = match self {
            Self::NotPredictable(reason) => return format!("Not predictable: {reason}"),
            Self::Predicted(prediction) => prediction,
        };
        let told: Vec<String> = prediction.quantities.iter().map(in_words).collect();
        match told.is_empty() {
            true => "Nothing of it is predictable.".to_owned(),
            false => format!("Predicted: {}.", told.join(", ")),
        }
    }
}

fn in_words(of: &QuantityPrediction) -> String {
    let name = match of.quantity {
        PredictedQuantity::GenerationTokensPerSecond => "tokens a second",
        PredictedQuantity::TimeToFirstTokenMean => "mean TTFT",
        PredictedQuantity::TimeToFirstTokenP99 => "TTFT p99",
        PredictedQuantity::InterTokenLatencyMean => "mean ITL",
        PredictedQuantity::InterTokenLatencyP99 => "ITL p99",
        PredictedQuantity::KvCacheUsage => "KV cache in use",
    };
    let shown = |value: f64| match of.quantity {
        PredictedQuantity::GenerationTokensPerSecond => rate(value),
        PredictedQuantity::KvCacheUsage => format!("{:.0} %", value * 100.0),
        _ => seconds(value),
    };
    let [after, low, high] = of.after().map(shown);
    let before = shown(of.before);
    format!("{name} {before} → {after} ({low} to {high})")
}

fn rate(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn seconds(value: f64) -> String {
    match value {
        value if value < 0.0095 => format!("{:.1} ms", value * 1e3),
        value if value < 0.9995 => format!("{:.0} ms", value * 1e3),
        value if value < 10.0 => format!("{value:.1} s"),
        value => format!("{value:.0} s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::example::prediction;
    use super::*;

    #[test]
    fn the_numbers_are_in_it_with_units() {
        let effect = Effect::Predicted(prediction(&[
            (PredictedQuantity::GenerationTokensPerSecond, 400.0, 2.0),
            (PredictedQuantity::TimeToFirstTokenMean, 4.7, 0.1),
            (PredictedQuantity::KvCacheUsage, 0.1, 2.0),
        ]));
        assert_eq!(
            effect.in_words(),
            "Predicted: tokens a second 400 → 800 (720 to 880), mean TTFT 4.7 s → 470 ms (423 ms to 517 ms), KV cache in \
             use 10 % → 20 % (18 % to 22 %)."
        );
    }

    #[test]
    fn what_is_not_predicted_says_so() {
        let none = Effect::NotPredictable("no model knows the speed of fp8.".to_owned());
        assert_eq!(
            none.in_words(),
            "Not predictable: no model knows the speed of fp8."
        );
        let nothing = Effect::Predicted(prediction(&[])).in_words();
        assert_eq!(nothing, "Nothing of it is predictable.");
    }
}
