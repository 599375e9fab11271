//! Bounds of the histograms in which engines count what users see: a quantile read from one is not finer than these.

use super::quantity::Quantity;

/// Upper bounds of vLLM's time to first token, in seconds (`vllm/v1/metrics/buckets.py`); the same since 0.8.
pub(crate) const VLLM_FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2_560.0,
];
/// Upper bounds of vLLM's gap between tokens, in seconds.
pub(crate) const VLLM_INTER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// Upper bounds of SGLang's time to first token, in seconds (`srt/observability/metrics_collector.py`).
pub(crate) const SGLANG_FIRST_TOKEN: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0,
];
/// Upper bounds of SGLang's gap between tokens, in seconds.
pub(crate) const SGLANG_INTER_TOKEN: &[f64] = &[
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2,
    0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0,
];
/// Upper bounds of a built-in engine's histogram, in seconds; none where it exports none.
pub fn latency_bounds(engine: &str, quantity: Quantity) -> Option<&'static [f64]> {
    match (engine, quantity) {
        ("vllm", Quantity::TimeToFirstToken) => Some(VLLM_FIRST_TOKEN),
        ("vllm", Quantity::InterTokenLatency) => Some(VLLM_INTER_TOKEN),
        ("sglang", Quantity::TimeToFirstToken) => Some(SGLANG_FIRST_TOKEN),
        ("sglang", Quantity::InterTokenLatency) => Some(SGLANG_INTER_TOKEN),
        _ => None,
    }
}
