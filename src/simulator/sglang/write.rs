//! The page.

use crate::model::Gauges;
use crate::simulator::histogram::Histogram;
use crate::simulator::page::{Labels, Page};

use super::{FORWARD_CATEGORIES, HTTP_CODES, Sglang};

const FORWARD_HELP: &str = "Total time that GPU is busy executing model forward passes. Refer to ForwardMode for category labels.";

impl Sglang {
    pub(in crate::simulator) fn write(
        &self,
        page: &mut Page,
        model: &str,
        gauges: &Gauges,
        now: f64,
    ) {
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
                gauges.deferred.into(),
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
        let stages = [
            ("request_process", &self.request_process),
            ("prefill_forward", &self.prefill_forward),
        ];
        let name = "sglang:per_stage_req_latency_seconds";
        if stages.iter().any(|(_, times)| times.count() > 0) {
            page.family(name, "histogram", "The latency of each stage of requests.");
        }
        for (stage, times) in stages {
            if times.count() > 0 {
                let staged = [labels, &[("stage", stage)]].concat();
                page.histogram(name, &staged, times);
            }
        }
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
            self.idle_seconds_until(now),
        );
        if self.prefill_steps + self.decode_steps > 0 {
            let eager = self.eager_decode_steps;
            let mut passes = vec![
                ("prefill_none", self.prefill_steps),
                ("decode_cuda_graph", self.decode_steps - eager),
            ];
            if eager > 0 {
                passes.push(("decode_none", eager));
            }
            modes(
                page,
                "sglang:cuda_graph_passes_total",
                "Total number of forward passes categorized by CUDA graph.",
                &passes,
            );
            if let Some(seconds) = self.forward_seconds {
                let name = "sglang:forward_execution_seconds_total";
                page.family(name, "counter", FORWARD_HELP);
                let categories = FORWARD_CATEGORIES.into_iter().zip(seconds);
                for (category, seconds) in categories.filter(|(_, seconds)| *seconds > 0.0) {
                    let labels = [labels, &[("category", category)]].concat();
                    page.sample(name, &labels, seconds);
                }
            }
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
