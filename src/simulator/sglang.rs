//! What SGLang 0.5.23 shows of itself (`srt/observability/metrics_collector.py`): names, types, texts, labels and bounds
//! as recorded from a running one. What requests are counted by is absent until there was one.
//!
//! Left out, as nothing is measured by them: memory and start-up times, other pools than the full one, stages of the
//! scheduler, and families of features that are not simulated. Gauges are those of the instant, where a real one writes
//! them at each report.

use serde_json::{Value, json};

use crate::model::{Event, FinishReason, Finished, Gauges, Settings};

use super::histogram::Histogram;
use super::page::{Labels, Page};

/// The version that it says it is.
const VERSION: &str = "0.5.23";
/// `--decode-log-interval`: decode steps between reports.
const REPORT_STEPS: u64 = 40;

/// Counts what happens as SGLang does.
#[derive(Debug, Clone)]
pub(super) struct Sglang {
    settings: Settings,
    frontend_seconds: f64,
    started: f64,
    busy_seconds: f64,
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
    prefill_steps: u64,
    reported_at: f64,
    throughput: f64,
    last_hit_ratio: f64,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    time_per_output_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill_forward: Histogram,
    prompt_length: Histogram,
    uncached_length: Histogram,
    generation_length: Histogram,
}

const HTTP_CODES: [&str; 3] = ["200", "500", "503"];
const FIRST_TOKEN: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0,
];
const INTER_TOKEN: &[f64] = &[
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2,
    0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0,
];
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
    pub(super) fn new(settings: &Settings, frontend_seconds: f64, started: f64) -> Self {
        // 30 bounds, each 1.62 times the one before
        let stage: Vec<f64> = (0..30).map(|power| 0.001 * 1.62_f64.powi(power)).collect();
        let length = Histogram::new(LENGTH);
        Self {
            settings: settings.clone(),
            frontend_seconds,
            started,
            busy_seconds: 0.0,
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
            prefill_steps: 0,
            reported_at: started,
            throughput: 0.0,
            last_hit_ratio: 0.0,
            time_to_first_token: Histogram::new(FIRST_TOKEN),
            inter_token: Histogram::new(INTER_TOKEN),
            time_per_output_token: Histogram::new(INTER_TOKEN),
            end_to_end: Histogram::new(END_TO_END),
            queue: Histogram::new(QUEUE),
            prefill_forward: Histogram::new(&stage),
            prompt_length: length.clone(),
            uncached_length: length.clone(),
            generation_length: length,
        }
    }

    pub(super) fn count(&mut self, now: f64, event: &Event) {
        match *event {
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
            Event::Step { batch, seconds, .. } => {
                self.busy_seconds += seconds;
                if batch.prefill_tokens > 0 {
                    self.prefill_compute += u64::from(batch.prefill_tokens);
                    self.prefill_steps += 1;
                }
                if batch.decode_sequences > 0 {
                    self.decode_steps += 1;
                    if self.decode_steps.is_multiple_of(REPORT_STEPS) {
                        self.report(now);
                    }
                }
            }
            Event::Finished(finished) => self.count_finished(&finished),
        }
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

    pub(super) fn write(&self, page: &mut Page, model: &str, gauges: &Gauges, now: f64) {
        let scheduler = scheduler_labels(model);
        self.write_gauges(page, &scheduler, gauges);
        self.write_requests(page, model);
        self.write_scheduler(page, &scheduler, now);
    }

    fn write_gauges(&self, page: &mut Page, labels: Labels, gauges: &Gauges) {
        let settings = &self.settings;
        let capacity = settings.kv_tokens() as f64;
        let used = (gauges.kv_usage_ratio * capacity).round();
        let usage = gauges.kv_usage_ratio;
        let [guessed, right] = self.accepted.unwrap_or_default();
        let accepted = if guessed > 0 {
            right as f64 / guessed as f64
        } else {
            0.0
        };
        let drafts = settings
            .speculation
            .map_or(0, |speculation| speculation.tokens);
        let length = if guessed > 0 {
            1.0 + accepted * f64::from(drafts)
        } else {
            0.0
        };
        for (name, help, value) in [
            (
                "max_total_num_tokens",
                "Maximum total number of tokens in the KV cache pool.",
                capacity,
            ),
            (
                "page_size",
                "KV cache page size in tokens.",
                settings.block_size.into(),
            ),
            (
                "num_pages",
                "Number of KV cache pages.",
                settings.kv_blocks.into(),
            ),
            (
                "context_len",
                "Maximum context length.",
                settings.max_model_len.into(),
            ),
            (
                "num_running_reqs",
                "The number of running requests.",
                gauges.running.into(),
            ),
            (
                "num_queue_reqs",
                "The number of requests in the waiting queue.",
                gauges.waiting.into(),
            ),
            (
                "num_grammar_queue_reqs",
                "The number of requests in the grammar waiting queue.",
                0.0,
            ),
            (
                "gen_throughput",
                "The generation throughput (token/s).",
                self.throughput,
            ),
            (
                "cache_hit_rate",
                "The prefix cache hit rate.",
                self.last_hit_ratio,
            ),
            (
                "token_usage",
                "The token usage.",
                (usage * 100.0).round() / 100.0,
            ),
            (
                "full_token_usage",
                "The token usage for full attention layers.",
                usage,
            ),
            ("swa_token_usage", "The token usage for SWA layers.", 0.0),
            ("mamba_usage", "The token usage for Mamba layers.", 0.0),
            ("num_used_tokens", "The number of used tokens.", used),
            (
                "kv_used_tokens",
                "Number of actively used token slots in the KV cache pool.",
                used,
            ),
            (
                "spec_accept_length",
                "Mean acceptance length of speculative decoding (accepted drafts + bonus token per forward).",
                length,
            ),
            (
                "spec_accept_rate",
                "Speculative acceptance rate (`accepted drafts / proposed drafts` in batch).",
                accepted,
            ),
            (
                "num_prefill_bootstrap_queue_reqs",
                "The number of requests in the prefill bootstrap queue.",
                0.0,
            ),
            (
                "num_decode_prealloc_queue_reqs",
                "The number of requests in the decode prealloc queue.",
                0.0,
            ),
            (
                "num_decode_transfer_queue_reqs",
                "The number of requests in the decode transfer queue.",
                0.0,
            ),
            (
                "new_token_ratio",
                "The new token ratio.",
                gauges.new_token_ratio,
            ),
        ] {
            page.single(&format!("sglang:{name}"), "gauge", help, labels, value);
        }
    }

    fn write_requests(&self, page: &mut Page, model: &str) {
        let http: Vec<(&str, u64)> = HTTP_CODES
            .into_iter()
            .zip(self.http)
            .filter(|(_, count)| *count > 0)
            .collect();
        if !http.is_empty() {
            let endpoint = [("endpoint", "/v1/completions"), ("method", "POST")];
            let all: u64 = http.iter().map(|(_, count)| count).sum();
            page.single(
                "sglang:http_requests_total",
                "counter",
                "Total number of HTTP requests by endpoint and method",
                &endpoint,
                all as f64,
            );
            let name = "sglang:http_responses_total";
            page.family(
                name,
                "counter",
                "Total number of HTTP responses by endpoint and status code",
            );
            for (code, count) in http {
                let labels = [endpoint.as_slice(), &[("status_code", code)]].concat();
                page.sample(name, &labels, count as f64);
            }
        }
        let engine = [("engine_type", "unified"), ("model_name", model)];
        let streaming = [engine.as_slice(), &[("is_streaming", "true")]].concat();
        let cached = [engine.as_slice(), &[("cache_source", "device")]].concat();
        for (name, help, labels, count) in [
            (
                "prompt_tokens",
                "Number of prefill tokens processed.",
                &streaming,
                self.prompt_tokens,
            ),
            (
                "generation_tokens",
                "Number of generation tokens processed.",
                &streaming,
                self.generation_tokens,
            ),
            (
                "num_requests",
                "Number of requests processed.",
                &streaming,
                self.requests,
            ),
            (
                "cached_tokens",
                "Number of cached prompt tokens by source (device/host/storage).",
                &cached,
                self.cached_tokens,
            ),
            (
                "num_aborted_requests",
                "Number of requests aborted.",
                &engine.to_vec(),
                self.aborted,
            ),
        ] {
            if count > 0 {
                page.single(
                    &format!("sglang:{name}_total"),
                    "counter",
                    help,
                    labels,
                    count as f64,
                );
            }
        }
        for (name, help, labels, histogram) in [
            (
                "time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                &streaming,
                &self.time_to_first_token,
            ),
            (
                "inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                &engine.to_vec(),
                &self.inter_token,
            ),
            (
                "e2e_request_latency_seconds",
                "Histogram of End-to-end request latency in seconds",
                &streaming,
                &self.end_to_end,
            ),
            (
                "request_time_per_output_token_seconds",
                "Per-request TPOT in seconds: (finished_time - first_token_time) / (completion_tokens - 1).",
                &streaming,
                &self.time_per_output_token,
            ),
            (
                "prompt_tokens_histogram",
                "Histogram of prompt token length.",
                &engine.to_vec(),
                &self.prompt_length,
            ),
            (
                "uncached_prompt_tokens_histogram",
                "Histogram of uncached (compute) prompt token length.",
                &engine.to_vec(),
                &self.uncached_length,
            ),
            (
                "generation_tokens_histogram",
                "Histogram of generation token length.",
                &engine.to_vec(),
                &self.generation_length,
            ),
        ] {
            write_histogram(page, &format!("sglang:{name}"), help, labels, histogram);
        }
    }

    fn write_scheduler(&self, page: &mut Page, labels: Labels, now: f64) {
        let staged = [labels, &[("stage", "prefill_forward")]].concat();
        let name = "sglang:per_stage_req_latency_seconds";
        write_histogram(
            page,
            name,
            "The latency of each stage of requests.",
            &staged,
            &self.prefill_forward,
        );
        let help = "Histogram of queueing time in seconds.";
        write_histogram(page, "sglang:queue_time_seconds", help, labels, &self.queue);
        let modes = |page: &mut Page, name: &str, help: &str, modes: &[(&str, u64)]| {
            page.family(name, "counter", help);
            for (mode, count) in modes {
                page.sample(name, &[labels, &[("mode", mode)]].concat(), *count as f64);
            }
        };
        if self.queue.count() > 0 {
            modes(
                page,
                "sglang:prefill_effective_tokens_total",
                "Effective prefill tokens with retracted-request re-counts excluded, updated on each log interval. mode: device_hit, host_hit, storage_hit, input.",
                &[
                    ("input", self.effective_input),
                    ("device_hit", self.effective_hits),
                    ("host_hit", 0),
                    ("storage_hit", 0),
                ],
            );
        }
        if self.retracted > 0 {
            page.single(
                "sglang:num_retracted_requests_total",
                "counter",
                "Total number of retracted requests.",
                labels,
                self.retracted as f64,
            );
        }
        page.single(
            "sglang:scheduler_idle_seconds_total",
            "counter",
            "Total wall time while the scheduler has no runnable or queued work.",
            labels,
            (now - self.started - self.busy_seconds).max(0.0),
        );
        if self.prefill_steps + self.decode_steps > 0 {
            modes(
                page,
                "sglang:cuda_graph_passes_total",
                "Total number of forward passes categorized by CUDA graph.",
                &[
                    ("prefill_none", self.prefill_steps),
                    ("decode_cuda_graph", self.decode_steps),
                ],
            );
            modes(
                page,
                "sglang:realtime_tokens_total",
                "Total number of tokens processed (updated on each log interval). mode: prefill_compute, prefill_cache, decode.",
                &[
                    ("prefill_compute", self.prefill_compute),
                    ("decode", self.decoded),
                    ("prefill_cache", self.effective_hits),
                ],
            );
        }
    }

    /// What the paths of SGLang's server answer; none for those that it does not have.
    pub(super) fn answer(&self, path: &str, model: &str, gauges: &Gauges) -> Option<Value> {
        let settings = &self.settings;
        match path {
            "/server_info" | "/get_server_info" => Some(json!({
                "version": VERSION,
                "model_path": model,
                "served_model_name": model,
                "max_running_requests": settings.max_num_seqs,
                "max_total_tokens": settings.kv_tokens(),
                "max_queued_requests": settings.max_num_queued_reqs,
                "page_size": settings.block_size,
                "context_length": settings.max_model_len,
                "chunked_prefill_size": settings.max_num_batched_tokens,
                "schedule_policy": "fcfs",
                "schedule_conservativeness": settings.schedule_conservativeness,
                "disable_radix_cache": !settings.prefix_caching,
                "kv_cache_dtype": "auto",
                "tp_size": 1,
                "pp_size": 1,
                "dp_size": 1,
                "disable_cuda_graph": false,
                "decode_log_interval": REPORT_STEPS,
            })),
            "/v1/loads" => Some(json!({
                "version": VERSION,
                "dp_rank_count": 1,
                "loads": [{
                    "dp_rank": 0,
                    "num_running_reqs": gauges.running,
                    "num_waiting_reqs": gauges.waiting,
                    "token_usage": gauges.kv_usage_ratio,
                    "max_total_num_tokens": settings.kv_tokens(),
                    "max_running_requests": settings.max_num_seqs,
                }],
            })),
            "/model_info" => Some(json!({ "model_path": model, "is_generation": true })),
            "/v1/models" => Some(json!({
                "object": "list",
                "data": [{ "id": model, "object": "model", "owned_by": "sglang", "max_model_len": settings.max_model_len }],
            })),
            _ => None,
        }
    }
}

fn scheduler_labels(model: &str) -> [(&str, &str); 5] {
    [
        ("engine_type", "unified"),
        ("model_name", model),
        ("moe_ep_rank", "0"),
        ("pp_rank", "0"),
        ("tp_rank", "0"),
    ]
}

fn write_histogram(page: &mut Page, name: &str, help: &str, labels: Labels, of: &Histogram) {
    if of.count() > 0 {
        page.family(name, "histogram", help);
        page.histogram(name, labels, of);
    }
}
