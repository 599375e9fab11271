//! A prediction in the words that users know: by which share things get better.

use super::prediction::{PredictedQuantity, Prediction};

impl Prediction {
    /// By how much each quantity gets better, as a share of what it was, in the order of the quantities: of throughput the
    /// ratio less 1, of all others 1 less the ratio. Negative where it gets worse.
    pub fn improvements(&self) -> Vec<(&'static str, f64)> {
        let quantities = self.quantities.iter();
        quantities
            .map(|one| {
                let share = match one.quantity {
                    PredictedQuantity::GenerationTokensPerSecond => one.ratio - 1.0,
                    _ => 1.0 - one.ratio,
                };
                (one.quantity.short_name(), share)
            })
            .collect()
    }
}

impl PredictedQuantity {
    /// What users call it.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::GenerationTokensPerSecond => "throughput",
            Self::TimeToFirstTokenMean => "ttft",
            Self::TimeToFirstTokenP99 => "ttft_p99",
            Self::InterTokenLatencyMean => "itl",
            Self::InterTokenLatencyP99 => "itl_p99",
            Self::KvCacheUsage => "kv_cache_usage",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::example::prediction;
    use super::*;

    #[test]
    fn better_is_above_zero_and_follows_from_the_ratio() {
        let of = |quantity, ratio| {
            let told = prediction(&[(quantity, 10.0, ratio)]).improvements();
            (told[0].0, (told[0].1 * 1e6).round() / 1e6)
        };
        use PredictedQuantity as Of;
        assert_eq!(of(Of::GenerationTokensPerSecond, 1.9), ("throughput", 0.9));
        assert_eq!(of(Of::GenerationTokensPerSecond, 0.8), ("throughput", -0.2));
        assert_eq!(of(Of::TimeToFirstTokenMean, 0.1), ("ttft", 0.9));
        assert_eq!(of(Of::InterTokenLatencyP99, 1.5), ("itl_p99", -0.5));
        assert!(prediction(&[]).improvements().is_empty());
    }
}
