//! What TGI 3.3.7 shows of itself (`router/src/server.rs`, `backends/v3/src/backend.rs`): names, types, texts, labels
//! and bounds as recorded from a running router. Every family is absent until it was used.
//!
//! Left out, as nothing is measured by them: times of filtering, concatenation and decoding.

use serde_json::{Value, json};

use crate::model::{Event, FinishReason, Finished, Gauges, Settings};

use super::histogram::Histogram;
use super::page::Page;

/// Counts what happens as TGI does.
#[derive(Debug, Clone)]
pub(super) struct Tgi {
    settings: Settings,
    frontend_seconds: f64,
    used: bool,
    received: u64,
    succeeded: u64,
    dropped: u64,
    failed: u64,
    overloaded: u64,
    /// Requests that began in the step that is under way.
    begun: u64,
    outputs: u64,
    speculated: u64,
    steps: [u64; METHODS.len()],
    /// Whole steps.
    step: [Histogram; METHODS.len()],
    /// Their time on the accelerator.
    forward: [Histogram; METHODS.len()],
    batch_size: Histogram,
    duration: Histogram,
    validation: Histogram,
    queue: Histogram,
    inference: Histogram,
    per_token: Histogram,
    input_length: Histogram,
    generated: Histogram,
    asked: Histogram,
}

const METHODS: [&str; 2] = ["prefill", "decode"];

impl Tgi {
    pub(super) fn new(settings: &Settings, frontend_seconds: f64) -> Self {
        let durations: Vec<f64> = (0..35)
            .map(|power| 0.000_15 * 1.5_f64.powi(power))
            .collect();
        let duration = Histogram::new(&durations);
        let longest = f64::from(settings.max_model_len);
        let linear =
            |most: f64| -> Vec<f64> { (1..=100).map(|at| most / 100.0 * f64::from(at)).collect() };
        let length = Histogram::new(&linear(longest));
        let sizes: Vec<f64> = (1..=1_024).map(f64::from).collect();
        Self {
            settings: settings.clone(),
            frontend_seconds,
            used: false,
            received: 0,
            succeeded: 0,
            dropped: 0,
            failed: 0,
            overloaded: 0,
            begun: 0,
            outputs: 0,
            speculated: 0,
            steps: [0; METHODS.len()],
            step: [duration.clone(), duration.clone()],
            forward: [duration.clone(), duration.clone()],
            batch_size: Histogram::new(&sizes),
            duration: duration.clone(),
            validation: duration.clone(),
            queue: duration.clone(),
            inference: duration.clone(),
            per_token: duration,
            input_length: Histogram::new(&linear(longest - 1.0)),
            generated: length.clone(),
            asked: length,
        }
    }

    pub(super) fn count(&mut self, event: &Event) {
        self.used = true;
        match *event {
            Event::Arrived(request) => {
                self.received += 1;
                self.input_length.observe(request.prompt_tokens.into());
                self.asked.observe(request.output_tokens.into());
                self.validation.observe(self.frontend_seconds);
            }
            Event::Rejected => {
                self.received += 1;
                self.overloaded += 1;
            }
            Event::Scheduled { .. } => self.begun += 1,
            Event::Preempted => {}
            Event::FirstToken { .. } => self.outputs += 1,
            Event::Tokens { count, .. } => {
                self.outputs += 1;
                self.speculated += u64::from(count.saturating_sub(1));
            }
            Event::Speculated { .. } => {}
            Event::Step {
                batch,
                seconds,
                device_seconds,
                ..
            } => {
                // with chunking, a step that takes prompts in is booked as one of prefill
                let method = usize::from(batch.prefill_tokens == 0);
                if let (Some(steps), Some(step), Some(forward)) = (
                    self.steps.get_mut(method),
                    self.step.get_mut(method),
                    self.forward.get_mut(method),
                ) {
                    *steps += 1;
                    step.observe(seconds);
                    forward.observe(device_seconds);
                }
                if self.begun > 0 {
                    self.batch_size.observe(self.begun as f64);
                }
                self.begun = 0;
            }
            Event::Finished(finished) => self.count_finished(&finished),
        }
    }

    fn count_finished(&mut self, of: &Finished) {
        match of.reason {
            FinishReason::Abort => self.dropped += 1,
            FinishReason::Error => self.failed += 1,
            FinishReason::Stop | FinishReason::Length => {
                self.succeeded += 1;
                self.generated.observe(of.output_tokens.into());
                self.duration
                    .observe(of.ended - of.arrived + self.frontend_seconds);
                let Some(scheduled) = of.first_scheduled else {
                    return;
                };
                self.queue.observe(scheduled - of.arrived);
                self.inference.observe(of.ended - scheduled);
                self.per_token
                    .observe((of.ended - scheduled) / f64::from(of.output_tokens.max(1)));
            }
        }
    }

    pub(super) fn write(&self, page: &mut Page, gauges: &Gauges) {
        // a server that nobody asked anything shows nothing
        if !self.used {
            return;
        }
        for (name, help, value) in [
            (
                "tgi_queue_size",
                "Current queue size",
                f64::from(gauges.waiting),
            ),
            (
                "tgi_batch_current_size",
                "Current batch size",
                f64::from(gauges.running),
            ),
            (
                "tgi_batch_current_max_tokens",
                "Maximum tokens for the current batch",
                gauges.reserved_tokens as f64,
            ),
        ] {
            page.single(name, "gauge", help, &[], value);
        }
        for (name, help, count) in [
            (
                "tgi_request_count",
                "Total number of requests",
                self.received,
            ),
            (
                "tgi_request_success",
                "Number of successful requests",
                self.succeeded,
            ),
        ] {
            if count > 0 {
                page.single(name, "counter", help, &[], count as f64);
            }
        }
        let failures = [
            ("dropped", self.dropped),
            ("generation", self.failed),
            ("overloaded", self.overloaded),
        ];
        if failures.iter().any(|(_, count)| *count > 0) {
            page.family(
                "tgi_request_failure",
                "counter",
                "Number of failed requests",
            );
            for (error, count) in failures.into_iter().filter(|(_, count)| *count > 0) {
                page.sample("tgi_request_failure", &[("err", error)], count as f64);
            }
        }
        self.write_steps(page);
        for (name, help, histogram) in [
            ("tgi_request_duration", "Request duration", &self.duration),
            (
                "tgi_request_validation_duration",
                "Request validation duration",
                &self.validation,
            ),
            (
                "tgi_request_queue_duration",
                "Request queue duration",
                &self.queue,
            ),
            (
                "tgi_request_inference_duration",
                "Request inference duration",
                &self.inference,
            ),
            (
                "tgi_request_mean_time_per_token_duration",
                "Mean time per token per request",
                &self.per_token,
            ),
            (
                "tgi_request_input_length",
                "Input token length per request",
                &self.input_length,
            ),
            (
                "tgi_request_generated_tokens",
                "Generated tokens per request",
                &self.generated,
            ),
            (
                "tgi_request_max_new_tokens",
                "Maximum new tokens per request",
                &self.asked,
            ),
            (
                "tgi_batch_next_size",
                "Batch size of the next batch",
                &self.batch_size,
            ),
        ] {
            if histogram.count() > 0 {
                page.family(name, "histogram", help);
                page.histogram(name, &[], histogram);
            }
        }
        if self.outputs > 0 {
            let name = "tgi_request_skipped_tokens";
            page.family(name, "summary", "Speculated tokens per request");
            for quantile in ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "1"] {
                page.sample(name, &[("quantile", quantile)], 0.0);
            }
            page.sample(
                "tgi_request_skipped_tokens_sum",
                &[],
                self.speculated as f64,
            );
            page.sample("tgi_request_skipped_tokens_count", &[], self.outputs as f64);
        }
    }

    fn write_steps(&self, page: &mut Page) {
        if self.steps.iter().all(|count| *count == 0) {
            return;
        }
        for (name, help) in [
            (
                "tgi_batch_inference_count",
                "Inference calls per method (prefill or decode)",
            ),
            (
                "tgi_batch_inference_success",
                "Number of successful inference calls per method (prefill or decode)",
            ),
        ] {
            page.family(name, "counter", help);
            for (method, count) in METHODS
                .into_iter()
                .zip(self.steps)
                .filter(|(_, count)| *count > 0)
            {
                page.sample(name, &[("method", method)], count as f64);
            }
        }
        for (name, help, histograms) in [
            (
                "tgi_batch_inference_duration",
                "Batch inference duration",
                &self.step,
            ),
            (
                "tgi_batch_forward_duration",
                "Batch forward duration per method (prefill or decode)",
                &self.forward,
            ),
        ] {
            page.family(name, "histogram", help);
            for (method, histogram) in METHODS.into_iter().zip(histograms) {
                if histogram.count() > 0 {
                    page.histogram(name, &[("method", method)], histogram);
                }
            }
        }
    }

    /// What the paths of TGI's server answer; none for those that it does not have.
    pub(super) fn answer(&self, path: &str, model: &str) -> Option<Value> {
        let settings = &self.settings;
        (path == "/info").then(|| {
            json!({
                "model_id": model,
                "model_sha": null,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": settings.max_num_queued_reqs,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": settings.max_model_len.saturating_sub(1),
                "max_total_tokens": settings.max_model_len,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": "3.3.7",
                "sha": null,
                "docker_label": null,
            })
        })
    }
}
