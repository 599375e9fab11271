//! What a simulated window shows, in the terms of a measurement.

use crate::engine::{Quantity as Q, latency_bounds};
use crate::measure::{Bounded, Buckets};
use crate::model::{
    Arrival, Event, FinishReason, Load, Policy, Settings, Simulation, Sink, StepTime, Summary,
    Tally,
};

/// How long a simulation runs, and what it may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Until it has settled, in seconds.
    pub(super) warm_seconds: f64,
    /// The window, in seconds.
    pub(super) seconds: f64,
    /// Scrapes in it.
    pub(super) samples: u32,
    /// Requests that wait when the window begins, where it has not settled and will not.
    pub(super) backlog: Option<f64>,
    /// Most tokens that are computed.
    pub(super) most_tokens: u64,
}

/// What a simulated window shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// When the window began, in seconds since the engine's start.
    pub(super) from: f64,
    pub(super) summary: Summary,
    pub(super) tokens_per_second: f64,
    pub(super) ttft_mean: Option<f64>,
    /// As the engine's histogram would have it.
    pub(super) ttft_p99: Option<Bounded>,
    pub(super) gap_mean: Option<f64>,
    /// As the engine's histogram would have it.
    pub(super) gap_p50: Option<Bounded>,
    /// As the engine's histogram would have it.
    pub(super) gap_p99: Option<Bounded>,
    pub(super) queue_mean: Option<f64>,
    /// From running to the first token; of TGI, of a prefill step.
    pub(super) prefill_mean: Option<f64>,
    pub(super) steps_per_second: f64,
    pub(super) kv_usage: f64,
    /// The same of no more instants than an agent scrapes at.
    pub(super) kv_usage_at_scrapes: f64,
    pub(super) running: [f64; 3],
    pub(super) waiting: [f64; 3],
    /// By how many requests the queue grew in a second.
    pub(super) growth_per_second: f64,
    pub(super) finished: u64,
    pub(super) preemptions_ratio: f64,
    /// Share of requests that were refused or failed.
    pub(super) failure_ratio: f64,
    /// Tokens that were computed in all, for those who count the cost.
    pub(super) work_tokens: u64,
}

/// So many times as often as an agent scrapes gauges are looked at.
const FINER: usize = 4;
/// A queue that has not grown to its length by then does not grow.
const MOST_SLICES: u32 = 64;

/// Lets an engine run for a while; none where it cannot be, or was too much to compute.
pub(super) fn run(
    settings: &Settings,
    step_time: StepTime,
    load: &Load,
    plan: &Plan,
) -> Option<Outcome> {
    let mut simulation = Simulation::new(settings.clone(), step_time, load.clone(), (0, 1)).ok()?;
    let mut work = Work::default();
    let mut from = plan.warm_seconds;
    // clients that wait for their answers come to their own level
    let open = !matches!(load.arrival, Arrival::Closed { .. });
    match plan.backlog.filter(|_| open) {
        None => {
            let slices = 16;
            for slice in 1..=slices {
                simulation.run_until(from * f64::from(slice) / f64::from(slices), &mut work);
                if work.tokens > plan.most_tokens {
                    return None;
                }
            }
        }
        // as long as it takes, within reason
        Some(backlog) => {
            let slice = (plan.warm_seconds / 16.0).max(plan.seconds / 16.0);
            let mut slices = 0;
            while slices < 4 || f64::from(simulation.gauges().waiting) < backlog {
                simulation.run_until(simulation.now() + slice, &mut work);
                slices += 1;
                if slices > MOST_SLICES || work.tokens > plan.most_tokens / 2 {
                    break;
                }
            }
            from = simulation.now();
        }
    }
    let mut seen = Seen::of(settings.policy, from);
    let (mut running, mut waiting, mut kv) = (Vec::new(), Vec::new(), Vec::new());
    // more than an agent scrapes, for the mean; at its scrapes, for the range
    let finer = FINER as u32;
    let slices = plan.samples.max(2).saturating_sub(1) * finer;
    let mut look = |simulation: &Simulation, slice: u32| {
        let gauges = simulation.gauges();
        kv.push(gauges.kv_usage_ratio);
        if slice.is_multiple_of(finer) {
            running.push(f64::from(gauges.running));
            waiting.push(f64::from(gauges.waiting + gauges.deferred));
        }
    };
    look(&simulation, 0);
    let mut until = from;
    for slice in 1..=slices {
        until = from + plan.seconds * f64::from(slice) / f64::from(slices);
        simulation.run_until(until, &mut (&mut seen, &mut work));
        look(&simulation, slice);
        if work.tokens > plan.most_tokens {
            break;
        }
    }
    // cut short: a quarter of a window still says something
    if until - from < plan.seconds / 4.0 {
        return None;
    }
    Some(seen.outcome(until, [&running, &waiting, &kv], work.tokens))
}

/// Tokens that were computed.
#[derive(Debug, Default)]
struct Work {
    tokens: u64,
}

impl Sink for Work {
    fn event(&mut self, _: f64, event: &Event) {
        if let Event::Step { batch, .. } = event {
            // prompts are computed in one piece, decodes one by one; and a step costs something too
            self.tokens +=
                u64::from(batch.decode_sequences) + u64::from(batch.prefill_tokens) / 64 + 8;
        }
    }
}

/// What is counted beside the tally.
#[derive(Debug)]
struct Seen {
    policy: Policy,
    from: f64,
    tally: Tally,
    first: Option<Counted>,
    gaps: Option<Counted>,
    prefill: (f64, u64),
    prefill_steps: (f64, u64),
    decode_steps: (f64, u64),
}

/// Observations in the buckets of an engine.
#[derive(Debug)]
struct Counted(Buckets);

impl Counted {
    fn of(policy: Policy, quantity: Q) -> Option<Self> {
        let engine = match policy {
            Policy::Vllm => "vllm",
            Policy::Sglang => "sglang",
            Policy::Tgi => "tgi",
        };
        let mut bounds = latency_bounds(engine, quantity)?.to_vec();
        bounds.push(f64::INFINITY);
        let counts = vec![0.0; bounds.len()];
        Some(Self(Buckets { bounds, counts }))
    }

    fn add(&mut self, value: f64) {
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get_mut(at) {
            *count += 1.0;
        }
    }
}

impl Seen {
    fn of(policy: Policy, from: f64) -> Self {
        Self {
            policy,
            from,
            tally: Tally::from(from),
            first: Counted::of(policy, Q::TimeToFirstToken),
            gaps: Counted::of(policy, Q::InterTokenLatency),
            prefill: (0.0, 0),
            prefill_steps: (0.0, 0),
            decode_steps: (0.0, 0),
        }
    }

    fn outcome(self, until: f64, [running, waiting, kv]: [&[f64]; 3], work_tokens: u64) -> Outcome {
        let summary = self.tally.summary(until);
        let mean = |(sum, count): (f64, u64)| (count > 0).then(|| sum / count as f64);
        let finished: u64 = [FinishReason::Stop, FinishReason::Length]
            .iter()
            .filter_map(|reason| summary.finished.get(reason))
            .sum();
        let errors = summary
            .finished
            .get(&FinishReason::Error)
            .copied()
            .unwrap_or(0);
        let failed = summary.rejected + errors;
        let level = |all: &[f64]| {
            let sum: f64 = all.iter().sum();
            [
                all.iter().copied().fold(f64::INFINITY, f64::min),
                sum / all.len().max(1) as f64,
                all.iter().copied().fold(0.0, f64::max),
            ]
        };
        let seconds = (until - self.from).max(f64::MIN_POSITIVE);
        let queue = (waiting.first(), waiting.last());
        let growth = queue
            .0
            .zip(queue.1)
            .map_or(0.0, |(first, last)| last - first);
        let gaps = summary.inter_token_seconds.map(|gaps| gaps.mean);
        let tgi = self.policy == Policy::Tgi;
        Outcome {
            from: self.from,
            tokens_per_second: summary.tokens_per_second(),
            ttft_mean: summary.time_to_first_token_seconds.map(|first| first.mean),
            ttft_p99: self.first.and_then(|one| one.0.quantile(0.99)),
            gap_mean: if tgi { mean(self.decode_steps) } else { gaps },
            gap_p50: self.gaps.as_ref().and_then(|one| one.0.quantile(0.5)),
            gap_p99: self.gaps.as_ref().and_then(|one| one.0.quantile(0.99)),
            queue_mean: summary.mean_queue_seconds,
            prefill_mean: mean(if tgi {
                self.prefill_steps
            } else {
                self.prefill
            }),
            steps_per_second: summary.steps as f64 / seconds,
            kv_usage: level(kv)[1],
            kv_usage_at_scrapes: level(&kv.iter().copied().step_by(FINER).collect::<Vec<_>>())[1],
            running: level(running),
            waiting: level(waiting),
            growth_per_second: growth / seconds,
            finished,
            preemptions_ratio: summary.preemptions as f64 / finished.max(1) as f64,
            failure_ratio: failed as f64 / (finished + failed).max(1) as f64,
            work_tokens,
            summary,
        }
    }
}

impl Sink for Seen {
    fn event(&mut self, now: f64, event: &Event) {
        self.tally.event(now, event);
        if now <= self.from {
            return;
        }
        match *event {
            Event::FirstToken { seconds, .. } => {
                if let Some(first) = &mut self.first {
                    first.add(seconds);
                }
            }
            Event::Tokens { gap_seconds, .. } => {
                if let Some(gaps) = &mut self.gaps {
                    gaps.add(gap_seconds);
                }
            }
            Event::Step { batch, seconds, .. } => {
                let steps = match batch.prefill_tokens {
                    0 => &mut self.decode_steps,
                    _ => &mut self.prefill_steps,
                };
                steps.0 += seconds;
                steps.1 += 1;
            }
            Event::Finished(finished) => {
                if let Some((begun, first)) = finished.first_scheduled.zip(finished.first_token) {
                    self.prefill.0 += first - begun;
                    self.prefill.1 += 1;
                }
            }
            _ => {}
        }
    }
}
