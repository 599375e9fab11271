//! OVERPROVISIONED: far more than was ever used.

use crate::analysis::check::{Answer, found, percent, unclear};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, Severity, Treatment};
use crate::analysis::queue::SEQUENCE_CAPS;
use crate::engine::Quantity as Q;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(peaks) = peaks(facts) else {
        return Vec::new();
    };
    let (Some(running), Some(waiting)) = (peaks.running, peaks.waiting) else {
        return vec![unclear(facts, Cause::Overprovisioned, Q::RequestsRunning)];
    };
    // what is not used at all may be kept for when it is
    if waiting > 0.0 || running <= 0.0 {
        return Vec::new();
    }
    let replicas = facts.measurement.replicas.len().max(1) as f64;
    if let Some((_, cap)) = facts.setting_number(SEQUENCE_CAPS)
        && running > (facts.thresholds.overprovisioned_cap_ratio * cap * replicas).max(1.0)
    {
        return Vec::new();
    }
    let Some(usage) = peaks.kv_usage_ratio else {
        return match running <= replicas {
            true => vec![unclear(facts, Cause::Overprovisioned, Q::KvCacheUsage)],
            false => Vec::new(),
        };
    };
    let threshold = facts.thresholds.overprovisioned_kv_ratio;
    if usage > threshold {
        return Vec::new();
    }
    let description = format!(
        "in {:.0} minutes at most {running:.0} requests ran at once, nobody waited, and the KV cache was at most {} full",
        peaks.seconds / 60.0,
        percent(usage),
    );
    let evidence = facts
        .evidence()
        .derived("peak_kv_cache_usage_ratio", usage, "kv_cache_usage_ratio")
        .against(Comparison::Below, threshold, "overprovisioned_kv_ratio")
        .derived("peak_requests_running", running, "requests_running")
        .derived("peak_requests_waiting", waiting, "requests_waiting")
        .derived(
            "observed_seconds",
            peaks.seconds,
            "windows and minutes kept",
        )
        .against(
            Comparison::AtLeast,
            facts.thresholds.overprovisioned_window_seconds,
            "overprovisioned_window_seconds",
        )
        .done();
    found(Cause::Overprovisioned, description, evidence)
        .severe(Severity::Low)
        .sure(0.7)
        .treat(
            "If that time holds the busiest hours, fewer replicas or a smaller accelerator would do.",
            &[Treatment::Scaling],
        )
        .answer()
}

/// The most that was used, and over how long.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Peaks {
    seconds: f64,
    running: Option<f64>,
    waiting: Option<f64>,
    kv_usage_ratio: Option<f64>,
}

/// Of the window, if it is long enough, or of the minutes that were kept with it.
fn peaks(facts: &Facts<'_>) -> Option<Peaks> {
    let needed = facts.thresholds.overprovisioned_window_seconds;
    let window = facts.window_seconds();
    let peak = |quantity| facts.gauge(quantity).map(|gauge| gauge.max);
    let now = Peaks {
        seconds: window,
        running: peak(Q::RequestsRunning),
        waiting: peak(Q::RequestsWaiting),
        kv_usage_ratio: peak(Q::KvCacheUsage),
    };
    if window >= needed {
        return Some(now);
    }
    let kept = facts.usage?;
    let seconds = f64::from(kept.covered_minutes) * 60.0;
    let most = |one: Option<f64>, other: Option<f64>| Some(one?.max(other?));
    (seconds >= needed).then_some(Peaks {
        seconds,
        running: most(now.running, kept.peak_running),
        waiting: most(now.waiting, kept.peak_waiting),
        kv_usage_ratio: most(now.kv_usage_ratio, kept.peak_kv_usage_ratio),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::example;
    use crate::analysis::{Targets, Thresholds, Usage, diagnose};
    use crate::measure::{Figures, Replica};

    #[test]
    fn minutes_that_were_kept_count_like_a_long_window() {
        let figures = Figures {
            gauges: vec![
                example::gauge("requests_running", &[0.0, 1.0]),
                example::gauge("requests_waiting", &[0.0, 0.0]),
                example::gauge("kv_cache_usage_ratio", &[0.0, 0.05]),
            ],
            ..Figures::default()
        };
        let mut measurement = example::measurement(figures.clone());
        measurement.replicas = vec![Replica {
            metrics_url: "http://127.0.0.1:1/metrics".to_owned(),
            outcome: Ok(figures),
            samples: 5,
            failed_scrapes: 0,
            dropped: Vec::new(),
        }];
        let told = |usage: Option<&Usage>| {
            let found = diagnose(
                &measurement,
                &Thresholds::default(),
                &Targets::default(),
                usage,
            );
            let cause = Cause::Overprovisioned;
            found.findings.iter().any(|one| one.cause == cause)
        };
        let quiet = Usage {
            covered_minutes: 45,
            span_minutes: 45,
            peak_running: Some(2.0),
            peak_waiting: Some(0.0),
            peak_kv_usage_ratio: Some(0.1),
        };
        assert!(told(Some(&quiet)));
        assert!(!told(None));
        for busy in [
            Usage {
                covered_minutes: 10,
                ..quiet
            },
            Usage {
                peak_kv_usage_ratio: Some(0.6),
                ..quiet
            },
            Usage {
                peak_waiting: Some(3.0),
                ..quiet
            },
        ] {
            assert!(!told(Some(&busy)), "{busy:?}");
        }
    }
}
