//! Settings that nobody tells, and that what was measured leaves no doubt about.

use crate::engine::Quantity as Q;
use crate::measure::{Figures, Measurement, WindowKind};

use super::facts::Facts;
use super::queue::{Limit, holds_still, limit, queue, seen_chunk};
use super::thresholds::{Targets, Thresholds};

/// A setting that follows from a measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpliedSetting {
    /// Which.
    pub kind: ImpliedKind,
    /// Requests, or tokens.
    pub value: u32,
    /// Why, as a sentence.
    pub why: String,
}

/// What can follow from a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImpliedKind {
    /// As many requests run at once, and no more.
    SequenceCap,
    /// A step computes at most so many tokens of a prompt. It may be fewer, and the token budget or a bound on long
    /// prompts that sets it.
    PromptTokensOfAStepAtMost,
}

/// What an instance's settings must be by what was measured of it. Where replicas differ nothing is said, nor where the
/// engine tells it itself.
pub fn implied_settings(measurement: &Measurement, thresholds: &Thresholds) -> Vec<ImpliedSetting> {
    if measurement.window.kind == WindowKind::SinceStart {
        return Vec::new();
    }
    // a cap is that of one engine: what several in one process run together is none
    let several = &["data_parallel_size", "dp_size", "attn_dp_size"];
    let targets = Targets::default();
    let facts_of = |figures| Facts {
        figures,
        measurement,
        thresholds,
        targets: &targets,
        usage: None,
    };
    if several.iter().any(|name| {
        facts_of(&measurement.figures)
            .setting_number(&[name])
            .is_some_and(|(_, engines)| engines > 1.0)
    }) {
        return Vec::new();
    }
    let replicas: Vec<&Figures> = measurement
        .replicas
        .iter()
        .filter_map(|replica| replica.outcome.as_ref().ok())
        .collect();
    [sequence_cap, prompt_tokens]
        .into_iter()
        .filter_map(|of| {
            let mut seen = replicas.iter().filter_map(|figures| of(&facts_of(figures)));
            let first = seen.next()?;
            seen.all(|other| other.value == first.value)
                .then_some(first)
        })
        .collect()
}

/// The batch that stays at one size while requests wait and what they hold varies.
fn sequence_cap(facts: &Facts<'_>) -> Option<ImpliedSetting> {
    let queue = queue(facts)?;
    let Limit::SequenceCap { cap, told: false } = limit(facts, &queue) else {
        return None;
    };
    let running = facts.gauge(Q::RequestsRunning)?;
    // the analysis also finds a cap by leaving out the rest; that says what to do, but not its number
    if !holds_still(facts, running, &queue) {
        return None;
    }
    Some(ImpliedSetting {
        kind: ImpliedKind::SequenceCap,
        value: whole(cap)?,
        why: format!(
            "{cap} requests run at every scrape while at least {} wait, and the KV cache has room",
            queue.waiting.min
        ),
    })
}

/// Prefills that take many times the longest gap between tokens.
fn prompt_tokens(facts: &Facts<'_>) -> Option<ImpliedSetting> {
    let tokens = seen_chunk(facts).ok()??;
    if tokens >= facts.thresholds.small_token_budget * 0.5 {
        return None;
    }
    let value = whole(tokens.ceil())?;
    Some(ImpliedSetting {
        kind: ImpliedKind::PromptTokensOfAStepAtMost,
        value,
        why: format!(
            "prefills take so many times the longest gap between tokens that a step computes at most {value} tokens \
             of a prompt"
        ),
    })
}

fn whole(number: f64) -> Option<u32> {
    let fits = number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number);
    fits.then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use super::super::example::{distribution, gauge, measurement};
    use super::*;
    use crate::measure::Replica;

    /// As many run as given at each scrape; so much of the KV cache is in use.
    fn seen(running: &[f64], waiting: &[f64], usage: &[f64]) -> Measurement {
        let figures = Figures {
            gauges: vec![
                gauge("requests_running", running),
                gauge("requests_waiting", waiting),
                gauge("kv_cache_usage_ratio", usage),
            ],
            ..Figures::default()
        };
        let mut measurement = measurement(figures.clone());
        measurement.replicas = vec![Replica {
            metrics_url: "http://a/metrics".to_owned(),
            outcome: Ok(figures),
            samples: 5,
            failed_scrapes: 0,
            dropped: Vec::new(),
        }];
        measurement
    }

    fn implied(measurement: &Measurement) -> Vec<(ImpliedKind, u32)> {
        implied_settings(measurement, &Thresholds::default())
            .into_iter()
            .map(|one| (one.kind, one.value))
            .collect()
    }

    const USAGE: &[f64] = &[0.1, 0.3, 0.2, 0.15, 0.25];

    #[test]
    fn a_batch_that_never_grows_while_requests_wait_is_at_its_cap() {
        let capped = seen(&[4.0; 5], &[9.0, 8.0, 7.0, 9.0, 6.0], USAGE);
        assert_eq!(implied(&capped), [(ImpliedKind::SequenceCap, 4)]);
        let why = &implied_settings(&capped, &Thresholds::default());
        assert!(why.iter().all(|one| one.why.contains("4 requests")));
    }

    #[test]
    fn what_may_be_something_else_implies_nothing() {
        let varies = seen(&[4.0, 3.0, 2.0, 4.0, 3.0], &[9.0; 5], USAGE);
        let no_queue = seen(&[4.0; 5], &[0.0; 5], USAGE);
        let emptied = seen(&[4.0; 5], &[9.0, 0.0, 3.0, 9.0, 9.0], USAGE);
        let full = seen(&[4.0; 5], &[9.0; 5], &[0.95; 5]);
        for one in [varies, no_queue, emptied, full] {
            assert_eq!(implied(&one), [], "{:?}", one.figures.gauges);
        }
        let mut several = seen(&[4.0; 5], &[9.0; 5], USAGE);
        several.settings = vec![crate::engine::Setting {
            name: "data_parallel_size".to_owned(),
            flag: "--data-parallel-size".to_owned(),
            value: Some("2".to_owned()),
            source: "/server_info".to_owned(),
        }];
        assert_eq!(implied(&several), []);
    }

    #[test]
    fn replicas_that_differ_imply_nothing() {
        let mut fleet = seen(&[4.0; 5], &[9.0; 5], USAGE);
        fleet
            .replicas
            .extend(seen(&[8.0; 5], &[9.0; 5], USAGE).replicas);
        assert_eq!(implied(&fleet), []);
    }

    #[test]
    fn a_long_prefill_over_short_gaps_bounds_what_a_step_computes() {
        let mut cut = seen(&[4.0; 5], &[0.0; 5], USAGE);
        for replica in &mut cut.replicas {
            let Ok(figures) = &mut replica.outcome else {
                continue;
            };
            let mut prefill = distribution("prefill_time_seconds", &[5.0], &[10.0]);
            prefill.mean = Some(2.0);
            let mut prompt = distribution("request_prompt_tokens", &[4000.0], &[10.0]);
            prompt.mean = Some(2000.0);
            figures.distributions = vec![
                distribution("inter_token_latency_seconds", &[0.1], &[500.0]),
                prefill,
                prompt,
            ];
        }
        assert_eq!(
            implied(&cut),
            [(ImpliedKind::PromptTokensOfAStepAtMost, 100)]
        );
    }
}
