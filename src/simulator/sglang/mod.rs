//! What SGLang 0.5.23 shows of itself (`srt/observability/metrics_collector.py`): names, types, texts, labels and bounds
//! as recorded from a running one. What requests are counted by is absent until there was one.
//!
//! Left out, as nothing is measured by them: memory and start-up times, other pools than the full one, and families of features that are not simulated. Gauges are those of the instant, where a real one writes
//! them at each report.

mod answers;
mod write;

use crate::engine::{SGLANG_FIRST_TOKEN, SGLANG_INTER_TOKEN};
use crate::model::{Event, FinishReason, Finished, Settings, StepTime};

use super::histogram::Histogram;

/// The version that it says it is.
const VERSION: &str = "0.5.23";
/// `--decode-log-interval`: decode steps between reports.
const REPORT_STEPS: u64 = 40;
/// What the scheduler takes to receive a request, as recorded: 34 to 53 µs.
const REQUEST_PROCESS_SECONDS: f64 = 45e-6;

/// Counts what happens as SGLang does.
#[derive(Debug, Clone)]
pub(super) struct Sglang {
    settings: Settings,
    frontend_seconds: f64,
    /// Share of the memory that it takes.
    memory_share: f64,
    /// The cache is as large as somebody said, not what the share of the memory leaves.
    tokens_are_set: bool,
    /// Most sequences of a decode step that captured graphs hold.
    graph_max_sequences: Option<u32>,
    /// Time of the accelerator by [`FORWARD_CATEGORIES`], where a timer is on.
    forward_seconds: Option<[f64; FORWARD_CATEGORIES.len()]>,
    /// Requests that wait or run.
    inside: u64,
    /// Time in which there were none, without that since the last one left.
    idle_seconds: f64,
    /// When the last one left.
    empty_since: f64,
    accepted: Option<[u64; 2]>,
    requests: u64,
    aborted: u64,
    retracted: u64,
    http: [u64; HTTP_CODES.len()],
    prompt_tokens: u64,
    generation_tokens: u64,
    cached_tokens: u64,
    effective_input: u64,
    effective_hits: u64,
    prefill_compute: u64,
    decoded: u64,
    /// Decoded since the last report.
    unreported: u64,
    decode_steps: u64,
    /// Of them, those without a captured graph.
    eager_decode_steps: u64,
    prefill_steps: u64,
    reported_at: f64,
    throughput: f64,
    last_hit_ratio: f64,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    time_per_output_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    request_process: Histogram,
    prefill_forward: Histogram,
    prompt_length: Histogram,
    uncached_length: Histogram,
    generation_length: Histogram,
}

const HTTP_CODES: [&str; 3] = ["200", "500", "503"];
/// `ForwardMode`, in lower case.
const FORWARD_CATEGORIES: [&str; 2] = ["extend", "decode"];
const END_TO_END: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0, 600.0, 1_200.0, 1_800.0, 2_400.0,
];
const QUEUE: &[f64] = &[
    0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0,
    40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0,
    900.0, 1_000.0, 1_200.0, 1_400.0, 1_600.0, 1_800.0, 2_000.0, 2_500.0, 3_000.0,
];
const LENGTH: &[f64] = &[
    100.0,
    300.0,
    500.0,
    700.0,
    1_000.0,
    1_500.0,
    2_000.0,
    3_000.0,
    4_000.0,
    5_000.0,
    6_000.0,
    7_000.0,
    8_000.0,
    9_000.0,
    10_000.0,
    12_500.0,
    15_000.0,
    17_500.0,
    20_000.0,
    22_500.0,
    25_000.0,
    27_500.0,
    30_000.0,
    35_000.0,
    40_000.0,
    60_000.0,
    80_000.0,
    100_000.0,
    200_000.0,
    300_000.0,
    400_000.0,
    600_000.0,
    800_000.0,
    1_000_000.0,
    1_100_000.0,
];

impl Sglang {
    pub(super) fn new(
        settings: &Settings,
        step_time: &StepTime,
        device_timer: bool,
        memory_share: f64,
        tokens_are_set: bool,
        started: f64,
    ) -> Self {
        // 30 bounds, each 1.62 times the one before
        let stage: Vec<f64> = (0..30).map(|power| 0.001 * 1.62_f64.powi(power)).collect();
        let length = Histogram::new(LENGTH);
        Self {
            settings: settings.clone(),
            frontend_seconds: step_time.frontend_seconds,
            memory_share,
            tokens_are_set,
            graph_max_sequences: step_time.graph_max_sequences,
            forward_seconds: device_timer.then_some([0.0; FORWARD_CATEGORIES.len()]),
            inside: 0,
            idle_seconds: 0.0,
            empty_since: started,
            accepted: settings.speculation.map(|_| [0, 0]),
            requests: 0,
            aborted: 0,
            retracted: 0,
            http: [0; HTTP_CODES.len()],
            prompt_tokens: 0,
            generation_tokens: 0,
            cached_tokens: 0,
            effective_input: 0,
            effective_hits: 0,
            prefill_compute: 0,
            decoded: 0,
            unreported: 0,
            decode_steps: 0,
            eager_decode_steps: 0,
            prefill_steps: 0,
            reported_at: started,
            throughput: 0.0,
            last_hit_ratio: 0.0,
            time_to_first_token: Histogram::new(SGLANG_FIRST_TOKEN),
            inter_token: Histogram::new(SGLANG_INTER_TOKEN),
            time_per_output_token: Histogram::new(SGLANG_INTER_TOKEN),
            end_to_end: Histogram::new(END_TO_END),
            queue: Histogram::new(QUEUE),
            request_process: Histogram::new(&stage),
            prefill_forward: Histogram::new(&stage),
            prompt_length: length.clone(),
            uncached_length: length.clone(),
            generation_length: length,
        }
    }

    pub(super) fn count(&mut self, now: f64, event: &Event) {
        match *event {
            Event::Arrived(_) => {
                if self.inside == 0 {
                    // during the last step, it may be
                    self.idle_seconds += (now - self.empty_since).max(0.0);
                }
                self.inside += 1;
                self.request_process.observe(REQUEST_PROCESS_SECONDS);
            }
            Event::Rejected => self.responded(2),
            Event::Scheduled {
                queue_seconds,
                prompt_tokens,
                cached_tokens,
            } => {
                self.queue.observe(queue_seconds);
                self.effective_input += u64::from(prompt_tokens - cached_tokens);
                self.effective_hits += u64::from(cached_tokens);
                self.last_hit_ratio = f64::from(cached_tokens) / f64::from(prompt_tokens.max(1));
            }
            Event::Preempted => self.retracted += 1,
            Event::FirstToken { seconds, .. } => self.time_to_first_token.observe(seconds),
            Event::Tokens { count, gap_seconds } => {
                self.inter_token
                    .observe_times(gap_seconds / f64::from(count.max(1)), count.into());
                self.unreported += u64::from(count);
            }
            Event::Speculated { guessed, accepted } => {
                if let Some([all, right]) = &mut self.accepted {
                    *all += u64::from(guessed);
                    *right += u64::from(accepted);
                }
            }
            Event::Step {
                batch,
                device_seconds,
                eager,
                ..
            } => {
                if let Some([extend, decode]) = &mut self.forward_seconds {
                    let forward = if batch.prefill_tokens > 0 {
                        extend
                    } else {
                        decode
                    };
                    *forward += device_seconds;
                }
                if batch.prefill_tokens > 0 {
                    self.prefill_compute += u64::from(batch.prefill_tokens);
                    self.prefill_steps += 1;
                }
                if batch.decode_sequences > 0 {
                    self.decode_steps += 1;
                    self.eager_decode_steps += u64::from(eager);
                    if self.decode_steps.is_multiple_of(REPORT_STEPS) {
                        self.report(now);
                    }
                }
            }
            Event::Finished(finished) => {
                // those that came before a restart were not counted
                self.inside = self.inside.saturating_sub(1);
                self.empty_since = now;
                self.count_finished(&finished);
            }
        }
    }

    fn idle_seconds_until(&self, now: f64) -> f64 {
        let since = if self.inside == 0 {
            now - self.empty_since
        } else {
            0.0
        };
        self.idle_seconds + since.max(0.0)
    }

    fn report(&mut self, now: f64) {
        let seconds = now - self.reported_at;
        if seconds > 0.0 {
            self.throughput = self.unreported as f64 / seconds;
        }
        self.decoded += self.unreported;
        self.unreported = 0;
        self.reported_at = now;
    }

    fn responded(&mut self, code: usize) {
        if let Some(count) = self.http.get_mut(code) {
            *count += 1;
        }
    }

    /// Aborted requests are counted with the finished ones.
    fn count_finished(&mut self, of: &Finished) {
        self.responded(usize::from(of.reason == FinishReason::Error));
        self.requests += 1;
        self.aborted += u64::from(of.reason == FinishReason::Abort);
        let (prompt, output) = (of.request.prompt_tokens, of.output_tokens);
        self.prompt_tokens += u64::from(prompt);
        self.generation_tokens += u64::from(output);
        self.cached_tokens += u64::from(of.cached_tokens);
        self.prompt_length.observe(prompt.into());
        self.uncached_length
            .observe((prompt - of.cached_tokens).into());
        self.generation_length.observe(output.into());
        self.end_to_end
            .observe(of.ended - of.arrived + self.frontend_seconds);
        let (Some(scheduled), Some(first)) = (of.first_scheduled, of.first_token) else {
            return;
        };
        self.prefill_forward.observe(first - scheduled);
        if output > 1 {
            self.time_per_output_token
                .observe((of.ended - first) / f64::from(output - 1));
        }
    }
}
