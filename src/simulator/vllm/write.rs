//! The page.

use crate::model::Gauges;
use crate::simulator::page::{Labels, Page};

use super::answers::python_text;
use super::families::Families;
use super::{REASONS, Vllm};

impl Vllm {
    pub(in crate::simulator) fn write(&self, page: &mut Page, model: &str, gauges: &Gauges) {
        let created = self.created_unix_seconds;
        let python: Labels = &[
            ("implementation", "CPython"),
            ("major", "3"),
            ("minor", "12"),
            ("patchlevel", "11"),
            ("version", "3.12.11"),
        ];
        page.single(
            "python_info",
            "gauge",
            "Python platform information",
            python,
            1.0,
        );
        page.single(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            &[],
            (created * 100.0).round() / 100.0,
        );
        self.write_gauges(page, model, gauges);
        let mut out = Families {
            page,
            model,
            created,
        };
        if self.settings.speculation.is_some() {
            self.write_speculation(&mut out);
        }
        self.write_counters(&mut out);
        self.write_histograms(&mut out);
        self.write_cache_config(out.page);
        self.write_http(out.page);
    }

    fn write_gauges(&self, page: &mut Page, model: &str, gauges: &Gauges) {
        let own: Labels = &[("engine", "0"), ("model_name", model)];
        let gauge =
            |page: &mut Page, name, help, value| page.single(name, "gauge", help, own, value);
        let (running, waiting) = (f64::from(gauges.running), f64::from(gauges.waiting));
        let deferred = f64::from(gauges.deferred);
        gauge(
            page,
            "vllm:num_requests_running",
            "Number of requests in model execution batches.",
            running,
        );
        gauge(
            page,
            "vllm:num_requests_waiting",
            "Number of requests waiting to be processed.",
            waiting + deferred,
        );
        let by_reason = "vllm:num_requests_waiting_by_reason";
        page.family(by_reason, "gauge", WAITING_HELP);
        for (reason, value) in [("capacity", waiting), ("deferred", deferred)] {
            page.sample(
                by_reason,
                &[("engine", "0"), ("model_name", model), ("reason", reason)],
                value,
            );
        }
        let sleep = "vllm:engine_sleep_state";
        page.family(sleep, "gauge", SLEEP_HELP);
        for (state, value) in [
            ("awake", 1.0),
            ("weights_offloaded", 0.0),
            ("discard_all", 0.0),
        ] {
            page.sample(
                sleep,
                &[
                    ("engine", "0"),
                    ("model_name", model),
                    ("sleep_state", state),
                ],
                value,
            );
        }
        let usage = gauges.kv_usage_ratio;
        gauge(
            page,
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            usage,
        );
    }

    fn write_speculation(&self, out: &mut Families) {
        out.counter(
            "vllm:spec_decode_num_drafts",
            "Number of spec decoding drafts.",
            self.drafts,
        );
        out.counter(
            "vllm:spec_decode_num_draft_tokens",
            "Number of draft tokens.",
            self.draft_tokens,
        );
        let accepted: u64 = self.accepted_by_position.iter().sum();
        out.counter(
            "vllm:spec_decode_num_accepted_tokens",
            "Number of accepted tokens.",
            accepted,
        );
        let positions: Vec<String> = (0..self.accepted_by_position.len())
            .map(|at| at.to_string())
            .collect();
        let by_position: Vec<(&str, u64)> = positions
            .iter()
            .map(String::as_str)
            .zip(self.accepted_by_position.iter().copied())
            .collect();
        let help = "Accepted tokens per draft position.";
        out.counters(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            help,
            "position",
            &by_position,
        );
    }

    fn write_counters(&self, out: &mut Families) {
        out.counter(
            "vllm:prefix_cache_queries",
            "Prefix cache queries, in terms of number of queried tokens.",
            self.prefix_queries,
        );
        out.counter(
            "vllm:prefix_cache_hits",
            "Prefix cache hits, in terms of number of cached tokens.",
            self.prefix_hits,
        );
        for (name, what) in [("queries", "queried"), ("hits", "cached")] {
            let help = format!(
                "External prefix cache {name} from KV connector cross-instance cache sharing, in terms of number of {what} tokens."
            );
            out.counter(&format!("vllm:external_prefix_cache_{name}"), &help, 0);
        }
        for (name, what) in [("queries", "queried"), ("hits", "cached")] {
            let help = format!("Multi-modal cache {name}, in terms of number of {what} items.");
            out.counter(&format!("vllm:mm_cache_{name}"), &help, 0);
        }
        out.counter(
            "vllm:num_preemptions",
            "Cumulative number of preemption from the engine.",
            self.preemptions,
        );
        out.counter(
            "vllm:prompt_tokens",
            "Number of prefill tokens processed.",
            self.prompt_tokens,
        );
        let cached = self.prompt_tokens_cached;
        let sources = [
            ("local_compute", self.prompt_tokens - cached),
            ("local_cache_hit", cached),
            ("external_kv_transfer", 0),
        ];
        out.counters(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            "source",
            &sources,
        );
        out.counter(
            "vllm:prompt_tokens_cached",
            "Number of cached prompt tokens (local + external).",
            cached,
        );
        let tiers = [
            ("device", self.admitted_cached),
            ("host", 0),
            ("p2p", 0),
            ("disk", 0),
            ("external_unspecified", 0),
        ];
        out.counters(
            "vllm:prompt_tokens_cached_by_source",
            TIERS_HELP,
            "source",
            &tiers,
        );
        out.counter(
            "vllm:generation_tokens",
            "Number of generation tokens processed.",
            self.generation_tokens,
        );
        let finished: Vec<(&str, u64)> = REASONS.into_iter().zip(self.finished).collect();
        let help = "Count of successfully processed requests.";
        out.counters("vllm:request_success", help, "finished_reason", &finished);
        let rejections = [
            ("max_num_queued_reqs", self.rejected),
            ("max_num_queued_tokens", 0),
        ];
        let help = "Number of admission attempts rejected by a queue limit, by reason.";
        // this one family has no label `engine`
        out.series(
            "vllm:admission_rejections",
            help,
            &[],
            "reason",
            &rejections,
        );
    }

    fn write_histograms(&self, out: &mut Families) {
        for (name, help, histogram) in [
            (
                "request_prompt_tokens",
                "Number of prefill tokens processed.",
                &self.prompt_length,
            ),
            (
                "request_generation_tokens",
                "Number of generation tokens processed.",
                &self.generation_length,
            ),
            (
                "iteration_tokens_total",
                "Histogram of number of tokens per engine_step.",
                &self.iteration_tokens,
            ),
            (
                "request_max_num_generation_tokens",
                "Histogram of maximum number of requested generation tokens.",
                &self.generation_length,
            ),
            (
                "request_params_n",
                "Histogram of the n request parameter.",
                &self.asked_choices,
            ),
            (
                "request_params_max_tokens",
                "Histogram of the max_tokens request parameter.",
                &self.asked,
            ),
            (
                "time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                &self.time_to_first_token,
            ),
            (
                "inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                &self.inter_token,
            ),
            (
                "request_time_per_output_token_seconds",
                "Histogram of time_per_output_token_seconds per request.",
                &self.time_per_output_token,
            ),
            (
                "e2e_request_latency_seconds",
                "Histogram of e2e request latency in seconds.",
                &self.end_to_end,
            ),
            (
                "request_queue_time_seconds",
                "Histogram of time spent in WAITING phase for request.",
                &self.queue,
            ),
            (
                "request_inference_time_seconds",
                "Histogram of time spent in RUNNING phase for request.",
                &self.inference,
            ),
            (
                "request_prefill_time_seconds",
                "Histogram of time spent in PREFILL phase for request.",
                &self.prefill,
            ),
            (
                "request_decode_time_seconds",
                "Histogram of time spent in DECODE phase for request.",
                &self.decode,
            ),
            (
                "request_num_preemptions",
                "Histogram of the number of times a request was preempted.",
                &self.request_preemptions,
            ),
            (
                "request_prefill_kv_computed_tokens",
                "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
                &self.prompt_computed,
            ),
        ] {
            out.histogram(&format!("vllm:{name}"), help, histogram);
        }
    }

    fn write_cache_config(&self, page: &mut Page) {
        let name = "vllm:cache_config_info";
        page.family(name, "gauge", "Information of the LLMEngine CacheConfig");
        let config = self.cache_config();
        let mut labels: Vec<(&str, String)> = vec![("engine", "0".to_owned())];
        if let Some(config) = config.as_object() {
            labels.extend(
                config
                    .iter()
                    .map(|(key, value)| (key.as_str(), python_text(value))),
            );
        }
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        page.sample(name, &labels, 1.0);
    }

    fn write_http(&self, page: &mut Page) {
        let name = "http_requests_total";
        let statuses = [("2xx", self.http_ok), ("5xx", self.http_failed)];
        if statuses.iter().all(|(_, count)| *count == 0) {
            return;
        }
        page.family(
            name,
            "counter",
            "Total number of requests by method, status and handler.",
        );
        for (status, count) in statuses.into_iter().filter(|(_, count)| *count > 0) {
            let labels: Labels = &[
                ("handler", "/v1/completions"),
                ("method", "POST"),
                ("status", status),
            ];
            page.sample(name, labels, count as f64);
        }
    }
}

const WAITING_HELP: &str = "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.";
const SLEEP_HELP: &str = "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.";
const TIERS_HELP: &str = "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.";
