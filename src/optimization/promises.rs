//! SLOs that must hold, held against what is predicted of a change.

use crate::analysis::{Aggregation, Side, Slo};

use super::prediction::{PredictedQuantity as P, Prediction, QuantityPrediction};
use super::trade_off::shown;

impl Prediction {
    /// Whether it says nothing of what it says something of elsewhere, and what an SLO is on.
    pub(super) fn lacks(&self, slo: &Slo) -> bool {
        P::of_slo(slo).is_some_and(|quantity| self.of(quantity).is_none())
    }

    /// Whether something is predicted of what an SLO is on, and it holds before the change.
    pub(super) fn is_held_to(&self, slo: &Slo) -> bool {
        let found = P::of_slo(slo).and_then(|quantity| self.of(quantity));
        found.is_some_and(|found| !slo.is_missed_by(found.before))
    }

    /// What is to be said of an SLO that must hold: that it would be broken or stays so, that it may be, or that nothing is
    /// predicted of it. None where it holds by all of the interval.
    pub fn promise(&self, slo: &Slo) -> Option<String> {
        let name = &slo.name;
        let found = P::of_slo(slo).and_then(|quantity| self.of(quantity));
        let Some(found) = found else {
            return Some(unsaid(slo));
        };
        let [_, low, high] = found.after();
        let how = match (
            slo.is_missed_by(found.before),
            slo.is_missed_by(low),
            slo.is_missed_by(high),
        ) {
            (_, false, false) => return None,
            (false, true, true) => "would be broken",
            (true, true, true) => "stays broken",
            (false, ..) => "may be broken",
            (true, ..) => "may stay broken",
        };
        Some(format!("`{name}` {how}: {}.", said(found, slo)))
    }
}

/// What is to be said of an SLO of which nothing is predicted.
pub fn unsaid(slo: &Slo) -> String {
    let name = &slo.name;
    format!("Whether `{name}` holds after it is not predicted: check it on one replica first.")
}

fn said(found: &QuantityPrediction, slo: &Slo) -> String {
    let [_, low, high] = found.after();
    let number = |value| shown(found.quantity, value);
    let side = match slo.comparison {
        Side::AtMost => "at most",
        Side::AtLeast => "at least",
    };
    format!(
        "{} of {} to {} is predicted, and it asks for {side} {}",
        found.quantity.short(),
        number(low),
        number(high),
        number(slo.target)
    )
}

impl P {
    /// What is predicted of what an SLO is on.
    fn of_slo(slo: &Slo) -> Option<Self> {
        let statistic = match slo.aggregation {
            Aggregation::Value => "value",
            Aggregation::Mean => "mean",
            Aggregation::Quantile(q) if (q - 0.99).abs() < 1e-9 => "p99",
            Aggregation::Quantile(_) => return None,
        };
        Self::ALL
            .into_iter()
            .find(|one| one.quantity() == slo.quantity && one.statistic() == statistic)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::example::prediction;
    use super::*;

    fn slo(quantity: &str, aggregation: Aggregation, comparison: Side, target: f64) -> Slo {
        Slo {
            name: "mine".to_owned(),
            quantity: quantity.to_owned(),
            aggregation,
            comparison,
            target,
            only_while_requests_wait: false,
        }
    }

    #[test]
    fn the_whole_interval_counts() {
        // 20 ms, half as long, give or take
        let all = prediction(&[(P::InterTokenLatencyP99, 0.02, 0.5)]);
        let [_, low, high] = all.quantities.first().unwrap().after();
        let said = |target| {
            let p99 = Aggregation::Quantile(0.99);
            all.promise(&slo(
                "inter_token_latency_seconds",
                p99,
                Side::AtMost,
                target,
            ))
        };
        assert_eq!(said(high * 1.01), None);
        assert!(
            said((low + high) / 2.0)
                .unwrap()
                .contains("may stay broken: ITL p99 of")
        );
        // 20 ms are more than that already
        assert!(said(low * 0.99).unwrap().contains("stays broken"));
        let later = prediction(&[(P::InterTokenLatencyP99, 0.02, 2.0)]);
        let p99 = Aggregation::Quantile(0.99);
        let told = later.promise(&slo(
            "inter_token_latency_seconds",
            p99,
            Side::AtMost,
            0.021,
        ));
        assert!(told.unwrap().contains("would be broken"));
    }

    #[test]
    fn what_is_not_predicted_is_said() {
        let all = prediction(&[(P::GenerationTokensPerSecond, 100.0, 2.0)]);
        let tokens = |target| {
            let quantity = "generation_tokens_per_second";
            all.promise(&slo(quantity, Aggregation::Value, Side::AtLeast, target))
        };
        assert_eq!(tokens(100.0), None);
        assert!(
            tokens(1_000.0).unwrap().contains("at least 1000"),
            "{:?}",
            tokens(1_000.0)
        );
        for (quantity, aggregation) in [
            ("time_to_first_token_seconds", Aggregation::Quantile(0.5)),
            ("inter_token_latency_seconds", Aggregation::Mean),
            ("request_failure_ratio", Aggregation::Value),
        ] {
            let said = all.promise(&slo(quantity, aggregation, Side::AtMost, 1.0));
            assert!(said.unwrap().contains("not predicted"));
        }
    }
}
