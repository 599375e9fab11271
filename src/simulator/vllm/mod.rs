//! What vLLM 0.33 shows of itself (`vllm/v1/metrics/loggers.py`, `stats.py`): names, types, texts, labels and bounds as
//! recorded from a running one.
//!
//! Left out, as nothing is measured by them: `python_*` but one, request sizes and durations of the HTTP layer, and
//! families of features that are not simulated.

mod answers;
mod families;
mod write;

use crate::engine::{VLLM_FIRST_TOKEN, VLLM_INTER_TOKEN};
use crate::model::{Event, FinishReason, Finished, Settings};

use super::flags::FlagValues;
use super::histogram::{Histogram, one_two_five};

/// The version that it says it is.
pub(super) const VERSION: &str = "0.33.0";

/// Counts what happens as vLLM does.
#[derive(Debug, Clone)]
pub(super) struct Vllm {
    settings: Settings,
    /// Flags that are given, and not left to the engine.
    given: FlagValues,
    created_unix_seconds: f64,
    /// From the engine to the client and back, seconds; part of what the front end measures.
    frontend_seconds: f64,
    preemptions: u64,
    prefix_queries: u64,
    prefix_hits: u64,
    prompt_tokens: u64,
    prompt_tokens_cached: u64,
    admitted_cached: u64,
    generation_tokens: u64,
    /// Of the step whose end has not been told yet.
    step_tokens: u64,
    finished: [u64; REASONS.len()],
    rejected: u64,
    http_ok: u64,
    http_failed: u64,
    drafts: u64,
    draft_tokens: u64,
    accepted_by_position: Vec<u64>,
    iteration_tokens: Histogram,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    time_per_output_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    prompt_length: Histogram,
    prompt_computed: Histogram,
    generation_length: Histogram,
    asked: Histogram,
    asked_choices: Histogram,
    request_preemptions: Histogram,
}

const REASONS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

// `vllm/v1/metrics/buckets.py`
const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1_920.0, 7_680.0,
];
const ITERATION: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0, 16_384.0,
];
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

impl Vllm {
    pub(super) fn new(
        settings: &Settings,
        given: &FlagValues,
        frontend_seconds: f64,
        created_unix_seconds: f64,
    ) -> Self {
        let length = Histogram::new(&one_two_five(settings.max_model_len.into()));
        let latency = Histogram::new(LATENCY);
        let positions = settings
            .speculation
            .map_or(0, |speculation| speculation.tokens);
        Self {
            settings: settings.clone(),
            given: given.clone(),
            created_unix_seconds,
            frontend_seconds,
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            admitted_cached: 0,
            generation_tokens: 0,
            step_tokens: 0,
            finished: [0; REASONS.len()],
            rejected: 0,
            http_ok: 0,
            http_failed: 0,
            drafts: 0,
            draft_tokens: 0,
            accepted_by_position: vec![0; positions as usize],
            iteration_tokens: Histogram::new(ITERATION),
            time_to_first_token: Histogram::new(VLLM_FIRST_TOKEN),
            inter_token: Histogram::new(VLLM_INTER_TOKEN),
            time_per_output_token: Histogram::new(VLLM_INTER_TOKEN),
            end_to_end: latency.clone(),
            queue: latency.clone(),
            prefill: latency.clone(),
            decode: latency.clone(),
            inference: latency,
            prompt_length: length.clone(),
            prompt_computed: length.clone(),
            generation_length: length.clone(),
            asked: length,
            asked_choices: Histogram::new(CHOICES),
            request_preemptions: Histogram::new(PREEMPTIONS),
        }
    }

    pub(super) fn count(&mut self, event: &Event) {
        match *event {
            Event::Arrived(_) => {}
            Event::Rejected => {
                self.rejected += 1;
                self.http_failed += 1;
            }
            Event::Scheduled {
                prompt_tokens,
                cached_tokens,
                ..
            } => {
                if self.settings.prefix_caching {
                    self.prefix_queries += u64::from(prompt_tokens);
                    self.prefix_hits += u64::from(cached_tokens);
                }
                self.admitted_cached += u64::from(cached_tokens);
            }
            Event::Preempted => self.preemptions += 1,
            Event::FirstToken {
                seconds,
                prompt_tokens,
                cached_tokens,
            } => {
                self.time_to_first_token.observe(seconds);
                self.prompt_tokens += u64::from(prompt_tokens);
                self.prompt_tokens_cached += u64::from(cached_tokens);
                self.generation_tokens += 1;
                self.step_tokens += u64::from(prompt_tokens - cached_tokens) + 1;
            }
            Event::Tokens { count, gap_seconds } => {
                self.inter_token.observe(gap_seconds);
                self.generation_tokens += u64::from(count);
                self.step_tokens += u64::from(count);
            }
            // a step that nothing came out of is told to nobody
            Event::Step { outputs, .. } => {
                if outputs > 0 {
                    self.iteration_tokens.observe(self.step_tokens as f64);
                }
                self.step_tokens = 0;
            }
            Event::Speculated { guessed, accepted } => {
                self.drafts += 1;
                self.draft_tokens += u64::from(guessed);
                for count in self.accepted_by_position.iter_mut().take(accepted as usize) {
                    *count += 1;
                }
            }
            Event::Finished(finished) => self.count_finished(&finished),
        }
    }

    fn count_finished(&mut self, of: &Finished) {
        let reason = match of.reason {
            FinishReason::Stop => 0,
            FinishReason::Length => 1,
            FinishReason::Error => 3,
            // a client that went leaves no trace but this
            FinishReason::Abort => {
                self.http_ok += 1;
                return;
            }
        };
        if let Some(count) = self.finished.get_mut(reason) {
            *count += 1;
        }
        if of.reason == FinishReason::Error {
            self.http_failed += 1;
        } else {
            self.http_ok += 1;
        }
        self.end_to_end
            .observe(of.ended - of.arrived + self.frontend_seconds);
        let request = &of.request;
        self.prompt_length.observe(request.prompt_tokens.into());
        self.prompt_computed
            .observe((request.prompt_tokens - of.cached_tokens).into());
        self.generation_length.observe(of.output_tokens.into());
        self.asked.observe(request.output_tokens.into());
        self.asked_choices.observe(1.0);
        self.request_preemptions.observe(of.preemptions.into());
        let (Some(scheduled), Some(first)) = (of.first_scheduled, of.first_token) else {
            return;
        };
        self.queue.observe(scheduled - of.arrived);
        self.prefill.observe(first - scheduled);
        self.decode.observe(of.ended - first);
        self.inference.observe(of.ended - scheduled);
        let per_token = match of.output_tokens {
            0 | 1 => 0.0,
            tokens => (of.ended - first) / f64::from(tokens - 1),
        };
        self.time_per_output_token.observe(per_token);
    }
}
