//! What a measurement tells the fit, of one replica: the mean one where there are several.

use crate::engine::Quantity as Q;
use crate::measure::{Bounded, Distribution, Gauge, Measurement, WindowKind};
use crate::model::Policy;

/// What a measurement tells the fit, of one replica.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observed {
    /// Whose scheduler it is.
    pub(super) policy: Policy,
    /// Replicas that were measured.
    pub(super) replicas: u32,
    /// Length of the window.
    pub(super) seconds: f64,
    /// Scrapes of a replica.
    pub(super) samples: u32,
    /// Requests that finished in it, by themselves.
    pub(super) finished: f64,
    /// Requests that had their first token, a second.
    pub(super) begun_per_second: f64,
    /// Requests that were refused, a second.
    pub(super) refused_per_second: f64,
    /// Share of requests whose client went away.
    pub(super) gone_ratio: f64,
    /// Generated tokens a second.
    pub(super) tokens_per_second: f64,
    /// Requests that run.
    pub(super) running: Level,
    /// Requests that wait.
    pub(super) waiting: Level,
    /// Of them, those that wait for an adapter, a grammar or a transfer; the mean.
    pub(super) deferred: f64,
    /// Mean time to first token, in seconds.
    pub(super) ttft_mean: Option<f64>,
    /// Its 99th percentile, as far as it is told.
    pub(super) ttft_p99: Option<Bounded>,
    /// Its median.
    pub(super) ttft_p50: Option<Bounded>,
    /// Mean gap between tokens, in seconds: of TGI, of a decode step.
    pub(super) gap_mean: Option<f64>,
    /// Median of the gap.
    pub(super) gap_p50: Option<Bounded>,
    /// 99th percentile of the gap.
    pub(super) gap_p99: Option<Bounded>,
    /// Mean wait before a request runs, in seconds.
    pub(super) queue_mean: Option<f64>,
    /// Mean time from running to the first token, in seconds: of TGI, of a prefill step.
    pub(super) prefill_mean: Option<f64>,
    /// Steps a second, where they are counted.
    pub(super) steps_per_second: Option<f64>,
    /// Mean share of the KV cache in use.
    pub(super) kv_usage: Option<f64>,
    /// Tokens of the KV cache.
    pub(super) kv_tokens: Option<f64>,
    /// Most tokens that were reserved at once (TGI).
    pub(super) reserved_tokens: Option<f64>,
    /// Preemptions for each request that finished.
    pub(super) preemptions_ratio: Option<f64>,
    /// Lengths of prompts.
    pub(super) prompt: Distribution,
    /// Lengths of outputs.
    pub(super) output: Distribution,
    /// Share of looked-up prompt tokens that were in the prefix cache.
    pub(super) hit_ratio: Option<f64>,
    /// Tokens that a draft round gave, its own included.
    pub(super) accepted_length: Option<f64>,
    /// Tokens that were drafted in a round.
    pub(super) drafted: Option<f64>,
}

/// A gauge over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) max: f64,
    pub(super) last: f64,
}

/// Fewer requests than this say nothing of lengths or times.
pub(super) const FEWEST_REQUESTS: f64 = 8.0;

impl Observed {
    /// Of a measurement.
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub(super) fn of(measurement: &Measurement) -> Result<Self, String> {
        let figures = &measurement.figures;
        let policy = match measurement.engine.as_str() {
            "vllm" => Policy::Vllm,
            "sglang" => Policy::Sglang,
            "tgi" => Policy::Tgi,
            other => return Err(format!("there is no model of the scheduler of `{other}`")),
        };
        let seconds = measurement.window.observed_seconds;
        if measurement.window.kind == WindowKind::SinceStart || seconds <= 0.0 {
            return Err("totals since the engine's start say nothing of now".to_owned());
        }
        let measured = measurement
            .replicas
            .iter()
            .filter(|replica| replica.outcome.is_ok())
            .count();
        let replicas = u32::try_from(measured.max(1)).unwrap_or(u32::MAX);
        let each = f64::from(replicas);
        let increase = |quantity: Q| figures.value(quantity.counter_names()[1]);
        let told = |quantity: Q| {
            let found = figures.distribution(quantity);
            found.filter(|one| one.count > 0.0)
        };
        let mean = |quantity| told(quantity).and_then(|one| one.mean);
        let level = |quantity| figures.gauge(quantity).map(|gauge| Level::of(gauge, each));
        let needed = |found: Option<f64>, name: &str| {
            found.ok_or_else(|| format!("{name} is not told, and nothing can be fitted without it"))
        };
        let finished = needed(
            increase(Q::RequestsSucceeded).or_else(|| increase(Q::RequestsFinished)),
            "the number of finished requests",
        )?;
        if finished < FEWEST_REQUESTS {
            return Err(format!(
                "{finished:.0} requests finished in {seconds:.0} s; at least {FEWEST_REQUESTS:.0} are needed to fit a model: \
                 measure under load, or over a longer window"
            ));
        }
        let tokens = needed(
            increase(Q::GenerationTokens),
            "the number of generated tokens",
        )?;
        let running = level(Q::RequestsRunning).ok_or(
            "the number of running requests is not told, and nothing can be fitted without it",
        )?;
        let first = told(Q::TimeToFirstToken);
        // TGI's is put together from means, and counts as many as were queued
        let begun = first.map_or(finished, |one| one.count.max(1.0));
        let gone = figures
            .value("requests_disconnected_increase")
            .or_else(|| increase(Q::RequestsAborted))
            .unwrap_or(0.0);
        let length = |quantity, name: &str| {
            told(quantity)
                .filter(|one| one.mean.is_some_and(|mean| mean >= 1.0))
                .cloned()
                .ok_or_else(|| {
                    format!(
                        "the length of {name} is not told, and nothing can be fitted without it"
                    )
                })
        };
        let quantile = |quantity, q: f64| {
            let all = &told(quantity)?.quantiles;
            all.iter()
                .find(|one| (one.q - q).abs() < 1e-9)
                .map(|one| one.value)
        };
        let drafts = increase(Q::SpeculationDrafts).filter(|drafts| *drafts > 0.0);
        let steps = told(Q::StepTokens).map(|steps| steps.count / each / seconds);
        Ok(Self {
            policy,
            replicas,
            seconds,
            samples: figures
                .gauge(Q::RequestsRunning)
                .map_or(2, |gauge| gauge.samples)
                .max(2),
            finished: finished / each,
            begun_per_second: begun / each / seconds,
            refused_per_second: increase(Q::RequestsRejected).unwrap_or(0.0) / each / seconds,
            gone_ratio: (gone / (finished + gone)).clamp(0.0, 1.0),
            tokens_per_second: tokens / each / seconds,
            running,
            waiting: level(Q::RequestsWaiting).unwrap_or_default(),
            deferred: level(Q::RequestsWaitingDeferred).map_or(0.0, |level| level.mean),
            ttft_mean: mean(Q::TimeToFirstToken),
            ttft_p99: quantile(Q::TimeToFirstToken, 0.99),
            ttft_p50: quantile(Q::TimeToFirstToken, 0.5),
            gap_mean: [
                Q::InterTokenLatency,
                Q::DecodeStepTotalTime,
                Q::DecodeStepTime,
            ]
            .into_iter()
            .find_map(mean),
            gap_p50: quantile(Q::InterTokenLatency, 0.5),
            gap_p99: quantile(Q::InterTokenLatency, 0.99),
            queue_mean: mean(Q::QueueTime),
            prefill_mean: match policy {
                Policy::Tgi => mean(Q::PrefillStepTime),
                _ => mean(Q::PrefillTime),
            },
            steps_per_second: steps.filter(|_| policy == Policy::Vllm),
            kv_usage: figures.gauge(Q::KvCacheUsage).map(|gauge| gauge.mean),
            kv_tokens: figures
                .gauge(Q::KvCapacityTokens)
                .map(|gauge| gauge.last / each)
                .filter(|tokens| *tokens > 0.0),
            reserved_tokens: figures
                .gauge(Q::KvReservedTokens)
                .map(|gauge| gauge.max / each),
            preemptions_ratio: increase(Q::Preemptions).map(|count| count / finished),
            prompt: length(Q::PromptLength, "prompts")?,
            output: length(Q::GenerationLength, "outputs")?,
            hit_ratio: figures.value("prefix_cache_hit_ratio"),
            accepted_length: figures.value("speculation_accepted_length_tokens"),
            drafted: increase(Q::SpeculationDraftTokens)
                .zip(drafts)
                .map(|(tokens, drafts)| tokens / drafts),
        })
    }

    /// Requests that are inside, on average.
    pub(super) fn inside(&self) -> f64 {
        self.running.mean + self.waiting.mean
    }

    /// Whether requests are refused, more than by accident.
    pub(super) fn refuses(&self) -> bool {
        self.refused_per_second > 0.01 * self.begun_per_second
    }

    /// Share of requests that are refused.
    pub(super) fn refused_ratio(&self) -> f64 {
        let all = self.refused_per_second + self.begun_per_second;
        self.refused_per_second / all.max(1e-9)
    }

    /// Mean time that a request is inside, in seconds, by Little's law.
    pub(super) fn residence_seconds(&self) -> f64 {
        self.inside() / self.begun_per_second.max(1e-9)
    }

    /// By how many requests the queue grows in a second, and how far that may be off: where it grows evenly its last value
    /// is above its mean by half of its growth.
    pub(super) fn growth_per_second(&self) -> (f64, f64) {
        let waiting = &self.waiting;
        let growth = 2.0 * (waiting.last - waiting.mean) / self.seconds;
        (growth, 0.2 * (waiting.max - waiting.min) / self.seconds)
    }

    /// Requests that wait at the beginning of so many seconds around the middle of the window, where some wait all the
    /// time.
    pub(super) fn backlog(&self, seconds: f64) -> Option<f64> {
        let waiting = &self.waiting;
        let (growth, _) = self.growth_per_second();
        let first = (waiting.mean - growth * seconds / 2.0).clamp(waiting.min, waiting.max);
        (waiting.min >= 2.0).then_some(first)
    }

    /// By how much the queue would vary over so many seconds.
    pub(super) fn spread(&self, seconds: f64) -> f64 {
        let (growth, _) = self.growth_per_second();
        let grown = growth.abs() * self.seconds;
        let rest = (self.waiting.max - self.waiting.min - grown).max(0.0);
        rest + growth.abs() * seconds
    }
}

impl Level {
    fn of(gauge: &Gauge, replicas: f64) -> Self {
        Self {
            min: gauge.min / replicas,
            mean: gauge.mean / replicas,
            max: gauge.max / replicas,
            last: gauge.last / replicas,
        }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self {
            min: 0.0,
            mean: 0.0,
            max: 0.0,
            last: 0.0,
        }
    }
}
