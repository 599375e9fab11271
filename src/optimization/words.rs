//! What is predicted, in one sentence.

use super::prediction::{Effect, QuantityPrediction};
use super::recommendation::Optimization;
use super::trade_off::shown;

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
    let show = |value| shown(of.quantity, value);
    let [after, low, high] = of.after().map(show);
    let (name, before) = (of.quantity.short(), show(of.before));
    format!("{name} {before} → {after} ({low} to {high})")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::example::prediction;
    use super::*;
    use crate::optimization::PredictedQuantity;

    #[test]
    fn the_numbers_are_in_it_with_units() {
        let effect = Effect::Predicted(prediction(&[
            (PredictedQuantity::GenerationTokensPerSecond, 400.0, 2.0),
            (PredictedQuantity::TimeToFirstTokenMean, 4.7, 0.1),
            (PredictedQuantity::KvCacheUsage, 0.1, 2.0),
        ]));
        assert_eq!(
            effect.in_words(),
            "Predicted: tokens/s 400 → 800 (720 to 880), mean TTFT 4.7 s → 470 ms (423 ms to 517 ms), KV cache in \
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
