//! How well an instance serves: what the search compares.

use crate::analysis::{Aggregation, Slo, Targets};

/// What users get of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Service {
    /// Median time to first token, in seconds.
    pub ttft_p50_seconds: f64,
    /// Its 99th percentile.
    pub ttft_p99_seconds: f64,
    /// 99th percentile of the gap between tokens, in seconds.
    pub itl_p99_seconds: f64,
    /// Mean gap between tokens, in seconds.
    pub itl_mean_seconds: f64,
    /// Generated tokens a second, of all replicas.
    pub tokens_per_second: f64,
    /// Share of requests that are refused or fail.
    pub failure_ratio: f64,
}

impl Service {
    /// By how much targets are missed: the sum of the logarithms of value over target, of those that are missed. 0 where
    /// all are met; 0.7 where one is missed by a factor of two.
    pub fn violation(&self, targets: &Targets) -> f64 {
        let pairs = [
            (self.ttft_p50_seconds, targets.ttft_p50_seconds),
            (self.ttft_p99_seconds, targets.ttft_p99_seconds),
            (self.itl_p99_seconds, targets.itl_p99_seconds),
            (self.failure_ratio, targets.error_ratio),
        ];
        pairs
            .iter()
            .map(|(value, target)| (value / target).max(1.0).ln())
            .sum()
    }

    /// Whether this is better than another: fewer misses, and where they are about the same more tokens a second.
    pub fn gain_over(&self, other: &Self, targets: &Targets) -> f64 {
        let less_missed = other.violation(targets) - self.violation(targets);
        let tokens = (self.tokens_per_second.max(1e-9) / other.tokens_per_second.max(1e-9)).ln();
        less_missed + TOKENS_WEIGHT * tokens
    }
}

/// Twice as many tokens are worth as much as a target that is missed by a quarter less.
const TOKENS_WEIGHT: f64 = 0.4;

impl Service {
    /// Whether it breaks an SLO; none where it says nothing of its quantity.
    pub(super) fn is_broken(&self, slo: &Slo) -> Option<bool> {
        let value = match (slo.quantity.as_str(), slo.aggregation) {
            ("time_to_first_token_seconds", Aggregation::Quantile(q)) if near(q, 0.5) => {
                self.ttft_p50_seconds
            }
            ("time_to_first_token_seconds", Aggregation::Quantile(q)) if near(q, 0.99) => {
                self.ttft_p99_seconds
            }
            ("inter_token_latency_seconds", Aggregation::Quantile(q)) if near(q, 0.99) => {
                self.itl_p99_seconds
            }
            ("inter_token_latency_seconds", Aggregation::Mean) => self.itl_mean_seconds,
            ("generation_tokens_per_second", Aggregation::Value) => self.tokens_per_second,
            ("request_failure_ratio", Aggregation::Value) => self.failure_ratio,
            _ => return None,
        };
        Some(slo.is_missed_by(value))
    }
}

fn near(q: f64, other: f64) -> bool {
    (q - other).abs() < 1e-9
}
