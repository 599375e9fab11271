//! Predictions and recommendations for tests.

use super::prediction::{PredictedQuantity, Prediction, PredictionBasis, QuantityPrediction};

/// A prediction of these quantities: which, before, and the ratio, with an interval of a tenth to both sides.
pub(crate) fn prediction(of: &[(PredictedQuantity, f64, f64)]) -> Prediction {
    let quantities = of.iter();
    Prediction {
        quantities: quantities
            .map(|(quantity, before, ratio)| QuantityPrediction {
                quantity: *quantity,
                before: *before,
                ratio: *ratio,
                ratio_low: 0.9 * ratio,
                ratio_high: 1.1 * ratio,
            })
            .collect(),
        unpredicted: Vec::new(),
        basis: PredictionBasis {
            windows: 3,
            observed_requests: 120.0,
            simulated_requests: 4_000,
            simulations: 8,
            mismatch_ratio: 0.05,
            assumptions: vec!["Clients ask again as soon as they are answered.".to_owned()],
            track_record: 0,
        },
    }
}
