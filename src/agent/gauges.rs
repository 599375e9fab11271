//! The last measurement of each instance as gauges, for Prometheus to keep.
//!
//! One series an instance and gauge, so their number is bounded by that of the instances. What was not measured or is
//! not of now has no series: it is missing there as it is here. A quantile that is only bounded shows as its bound.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use super::fleet::{Fleet, Health, InstanceState, Latest};
use crate::engine::Quantity;
use crate::measure::{Bounded, Figures, WindowKind};

/// Reads the fleet whenever it is asked.
#[derive(Debug)]
pub(super) struct FleetGauges(pub(super) Arc<Fleet>);

/// Where a gauge's value stands in a measurement.
enum Of {
    /// A single value.
    Value(&'static str),
    /// Mean of a gauge over the window.
    Level(Quantity),
    /// Mean of a distribution over the window.
    Mean(Quantity),
    /// Quantile of a distribution over the window.
    Quantile(Quantity, f64),
    /// What the quantile is not above, where it lies in the first bucket.
    AtMost(Quantity, f64),
    /// What the quantile is not below, where it lies in the last bucket.
    AtLeast(Quantity, f64),
}

struct GaugeFamily {
    name: &'static str,
    help: &'static str,
    of: Of,
}

const fn family(name: &'static str, help: &'static str, of: Of) -> GaugeFamily {
    GaugeFamily { name, help, of }
}

/// Gauges of measurements, by name.
const MEASURED: [GaugeFamily; 27] = [
    family(
        "instance_generation_tokens_per_second",
        "Generated tokens a second over the last window",
        Of::Value("generation_tokens_per_second"),
    ),
    family(
        "instance_prompt_tokens_per_second",
        "Prompt tokens a second over the last window, cached ones included",
        Of::Value("prompt_tokens_per_second"),
    ),
    family(
        "instance_requests_finished_per_second",
        "Finished requests a second over the last window, whatever their outcome",
        Of::Value("requests_finished_per_second"),
    ),
    family(
        "instance_request_failure_ratio",
        "Errors and rejections over all requests that ended or were rejected in the last window",
        Of::Value("request_failure_ratio"),
    ),
    family(
        "instance_preemptions_per_second",
        "Preemptions a second over the last window",
        Of::Value("preemptions_per_second"),
    ),
    family(
        "instance_prefix_cache_hit_ratio",
        "Share of looked-up prefix tokens that were found in the last window",
        Of::Value("prefix_cache_hit_ratio"),
    ),
    family(
        "instance_speculation_acceptance_ratio",
        "Share of drafted tokens that were accepted in the last window",
        Of::Value("speculation_acceptance_ratio"),
    ),
    family(
        "instance_requests_running",
        "Requests in the running batch, mean over the last window",
        Of::Level(Quantity::RequestsRunning),
    ),
    family(
        "instance_requests_waiting",
        "Requests waiting for a place in the batch, mean over the last window",
        Of::Level(Quantity::RequestsWaiting),
    ),
    family(
        "instance_kv_cache_usage_ratio",
        "Share of the KV cache held by live requests, mean over the last window",
        Of::Level(Quantity::KvCacheUsage),
    ),
    family(
        "instance_time_to_first_token_mean_seconds",
        "Time to first token, mean over the last window",
        Of::Mean(Quantity::TimeToFirstToken),
    ),
    family(
        "instance_time_to_first_token_p50_seconds",
        "Time to first token, median of the last window, interpolated within its bucket",
        Of::Quantile(Quantity::TimeToFirstToken, 0.5),
    ),
    family(
        "instance_time_to_first_token_p50_at_most_seconds",
        "Time to first token, what the median of the last window is not above, where it lies in the first bucket",
        Of::AtMost(Quantity::TimeToFirstToken, 0.5),
    ),
    family(
        "instance_time_to_first_token_p50_at_least_seconds",
        "Time to first token, what the median of the last window is not below, where it lies in the last bucket",
        Of::AtLeast(Quantity::TimeToFirstToken, 0.5),
    ),
    family(
        "instance_time_to_first_token_p99_seconds",
        "Time to first token, 99th percentile of the last window, interpolated within its bucket",
        Of::Quantile(Quantity::TimeToFirstToken, 0.99),
    ),
    family(
        "instance_time_to_first_token_p99_at_most_seconds",
        "Time to first token, what the 99th percentile of the last window is not above, where it lies in the first bucket",
        Of::AtMost(Quantity::TimeToFirstToken, 0.99),
    ),
    family(
        "instance_time_to_first_token_p99_at_least_seconds",
        "Time to first token, what the 99th percentile of the last window is not below, where it lies in the last bucket",
        Of::AtLeast(Quantity::TimeToFirstToken, 0.99),
    ),
    family(
        "instance_inter_token_latency_mean_seconds",
        "Time between output events, mean over the last window",
        Of::Mean(Quantity::InterTokenLatency),
    ),
    family(
        "instance_inter_token_latency_p99_seconds",
        "Time between output events, 99th percentile of the last window, interpolated within its bucket",
        Of::Quantile(Quantity::InterTokenLatency, 0.99),
    ),
    family(
        "instance_inter_token_latency_p99_at_most_seconds",
        "Time between output events, what the 99th percentile of the last window is not above, where it lies in the first bucket",
        Of::AtMost(Quantity::InterTokenLatency, 0.99),
    ),
    family(
        "instance_inter_token_latency_p99_at_least_seconds",
        "Time between output events, what the 99th percentile of the last window is not below, where it lies in the last bucket",
        Of::AtLeast(Quantity::InterTokenLatency, 0.99),
    ),
    family(
        "instance_time_per_output_token_mean_seconds",
        "Decode time per token after the first, mean over the last window",
        Of::Mean(Quantity::TimePerOutputToken),
    ),
    family(
        "instance_e2e_request_latency_mean_seconds",
        "Time from arrival to last token, mean over the last window",
        Of::Mean(Quantity::EndToEndLatency),
    ),
    family(
        "instance_e2e_request_latency_p99_seconds",
        "Time from arrival to last token, 99th percentile of the last window, interpolated within its bucket",
        Of::Quantile(Quantity::EndToEndLatency, 0.99),
    ),
    family(
        "instance_e2e_request_latency_p99_at_most_seconds",
        "Time from arrival to last token, what the 99th percentile of the last window is not above, where it lies in the first bucket",
        Of::AtMost(Quantity::EndToEndLatency, 0.99),
    ),
    family(
        "instance_e2e_request_latency_p99_at_least_seconds",
        "Time from arrival to last token, what the 99th percentile of the last window is not below, where it lies in the last bucket",
        Of::AtLeast(Quantity::EndToEndLatency, 0.99),
    ),
    family(
        "instance_queue_time_mean_seconds",
        "Time from arrival to the running batch, mean over the last window",
        Of::Mean(Quantity::QueueTime),
    ),
];

/// A gauge of what an instance is like, measured or not.
type StateFamily = (
    &'static str,
    &'static str,
    fn(&InstanceState) -> Option<f64>,
);

const STATES: [StateFamily; 5] = [
    (
        "instance_up",
        "1 where the last scrape of the instance read every replica, 0 where it did not",
        |state| match state.health {
            Health::Pending => None,
            health => Some(f64::from(u8::from(health == Health::Up))),
        },
    ),
    ("instance_replicas", "Replicas of the instance", |state| {
        Some(state.instance.spec.metrics_urls.len() as f64)
    }),
    (
        "instance_replicas_up",
        "Replicas that the last scrape read",
        |state| match state.health {
            Health::Pending => None,
            _ => Some(
                state
                    .replicas
                    .iter()
                    .filter(|replica| replica.up == Some(true))
                    .count() as f64,
            ),
        },
    ),
    (
        "instance_scrape_interval_seconds",
        "Time between scrapes of the instance, as it is set",
        |state| Some(state.instance.spec.scrape_interval.as_secs_f64()),
    ),
    (
        "instance_window_end_timestamp_seconds",
        "End of the last window that was measured",
        |state| Some(state.latest.as_ref()?.end_unix_seconds()),
    ),
];

/// Text from an engine is not longer than this in a label.
const LABEL_CHARS: usize = 128;

type Labels = Vec<(&'static str, String)>;

impl Collector for FleetGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Instant::now();
        let fleet = self.0.after("");
        // each of several agents tells of what it measures, so that who adds them up counts nothing twice
        let measured_here = |state: &&Arc<InstanceState>| {
            state.elsewhere.is_none() && self.0.is_ours(state.instance.id())
        };
        let labelled: Vec<(Labels, &InstanceState)> = fleet
            .iter()
            .filter(measured_here)
            .map(|state| (labels(state), &**state))
            .collect();
        let watchers = self.0.watchers();
        let serving =
            Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let tasks = serving + self.0.tasks();
        for (name, help, count) in [
            ("instances", "Instances that the agent knows", fleet.len()),
            (
                "instances_measured",
                "Instances that it falls to the agent to measure; of several agents on one store each measures a part",
                labelled.len(),
            ),
            ("watchers", "Streams that watch instances", watchers),
            ("tasks", "Tasks that the agent runs", tasks),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(count as f64).encode(family)?;
        }
        for (name, help, value) in STATES {
            let values = labelled
                .iter()
                .map(|(labels, state)| (labels, value(state)));
            gauge(&mut encoder, name, help, values)?;
        }
        let mut family = encoder.encode_descriptor(
            "instance_scrapes",
            "Scrapes of the instance since the agent began to watch it, those that failed included",
            None,
            MetricType::Counter,
        )?;
        for (labels, state) in &labelled {
            ConstCounter::new(state.sequence).encode(family.encode_family(labels)?)?;
        }
        let infos: Vec<Labels> = labelled
            .iter()
            .filter_map(|(labels, state)| info(labels, state))
            .collect();
        let values = infos.iter().map(|labels| (labels, Some(1.0)));
        gauge(
            &mut encoder,
            "instance_info",
            "1, with what the instance is as labels",
            values,
        )?;
        // one measurement at a time: those that nobody else asks for are not kept
        let measured: Vec<(&Labels, [Option<f64>; MEASURED.len()])> = labelled
            .iter()
            .filter_map(|(labels, state)| Some((labels, values_now(state, now)?)))
            .collect();
        for (at, family) in MEASURED.iter().enumerate() {
            let values = measured
                .iter()
                .map(|(labels, values)| (*labels, values.get(at).copied().flatten()));
            gauge(&mut encoder, family.name, family.help, values)?;
        }
        Ok(())
    }
}

/// Values of the last window, in the order of the families; none where it is not of now.
fn values_now(state: &InstanceState, now: Instant) -> Option<[Option<f64>; MEASURED.len()]> {
    let is_now = !state.is_missing() && !state.is_stale(now);
    // the first scrape knows only what was since the engine's start
    let is_window = |latest: &&Arc<Latest>| is_now && latest.kind() == WindowKind::Interval;
    let latest = state.latest.as_ref().filter(is_window)?;
    Some(latest.look(|measured| {
        MEASURED
            .each_ref()
            .map(|family| family.of.value(&measured.figures))
    }))
}

impl Of {
    fn value(&self, figures: &Figures) -> Option<f64> {
        match self {
            Self::Value(name) => figures.value(name),
            Self::Level(quantity) => figures.gauge(*quantity).map(|gauge| gauge.mean),
            Self::Mean(quantity) => figures.distribution(*quantity)?.mean,
            Self::Quantile(quantity, q) => match quantile(figures, *quantity, *q)? {
                Bounded::Value(value) => Some(value),
                Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
            },
            Self::AtMost(quantity, q) => match quantile(figures, *quantity, *q)? {
                Bounded::AtMost(bound) => Some(bound),
                Bounded::Value(_) | Bounded::AtLeast(_) => None,
            },
            Self::AtLeast(quantity, q) => match quantile(figures, *quantity, *q)? {
                Bounded::AtLeast(bound) => Some(bound),
                Bounded::Value(_) | Bounded::AtMost(_) => None,
            },
        }
    }
}

fn quantile(figures: &Figures, quantity: Quantity, q: f64) -> Option<Bounded> {
    let quantiles = &figures.distribution(quantity)?.quantiles;
    let found = quantiles.iter().find(|quantile| quantile.q == q)?;
    Some(found.value)
}

fn gauge<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'l Labels, Option<f64>)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        if let Some(value) = value {
            ConstGauge::new(value).encode(family.encode_family(labels)?)?;
        }
    }
    Ok(())
}

/// What tells the series of one instance from those of others.
fn labels(state: &InstanceState) -> Labels {
    let mut labels = vec![("instance_id", state.instance.id().to_owned())];
    // nobody takes the numbers of an engine that is not there for real ones
    if state
        .latest
        .as_ref()
        .is_some_and(|latest| latest.simulated())
    {
        labels.push(("simulated", "true".to_owned()));
    }
    labels
}

fn info(labels: &Labels, state: &InstanceState) -> Option<Labels> {
    let latest = state.latest.as_ref()?;
    let text = |text: Option<&str>| -> String {
        let chars = text.unwrap_or_default().chars();
        chars
            .filter(|char| !char.is_control())
            .take(LABEL_CHARS)
            .collect()
    };
    let mut labels = labels.clone();
    labels.push(("engine", latest.engine().to_owned()));
    labels.push(("engine_version", text(latest.engine_version())));
    labels.push(("model_name", text(latest.model_name())));
    Some(labels)
}
