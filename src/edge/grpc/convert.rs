//! Domain ↔ protobuf: the only place where one becomes the other.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::{convert_analysis, pb};
use crate::actuator::Actuators;
use crate::agent::{AgentInfo, FieldViolation, Target, WindowRequest};
use crate::analysis::Thresholds;
use crate::engine::{EngineProfile, Quantity, QuantityKind, Setting};
use crate::measure::{
    Absence, Basis, Bounded, Bucket, DERIVED, Distribution, DropCause, DroppedInterval, Figures,
    Gauge, Measurement, Note, Quantile, QuantityValue, Replica, Series, Window, WindowKind,
};
use crate::optimization::{CustomOptimizer, levers};

/// The target of a request; an engine left open or called `auto` is recognised.
pub fn target_of(
    request: pb::CollectMetricsRequest,
) -> (Target, Result<WindowRequest, FieldViolation>) {
    let window = window_of(request.window);
    let engine = Some(request.instance_type).filter(|name| !name.is_empty() && name != "auto");
    let first = Some(request.metrics_url).filter(|url| !url.is_empty());
    let target = Target {
        instance_id: request.instance_id,
        engine,
        metrics_urls: first.into_iter().chain(request.metrics_urls).collect(),
    };
    (target, window)
}

fn window_of(window: Option<prost_types::Duration>) -> Result<WindowRequest, FieldViolation> {
    let length = window
        .map(Duration::try_from)
        .transpose()
        .map_err(|_| FieldViolation::new("window", "must not be negative"))?;
    Ok(WindowRequest {
        length,
        deadline_in: None,
    })
}

/// A measurement on the wire.
pub fn measurement(of: &Measurement) -> pb::Measurement {
    let figures = &of.figures;
    let mean = |quantity| figures.distribution(quantity).and_then(|found| found.mean);
    let level = |quantity| figures.gauge(quantity).map(|found| found.mean);
    pb::Measurement {
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        model_name: of.model_name.clone(),
        window: Some(window(&of.window)),
        request_metrics: Some(pb::RequestMetrics {
            success_total: figures.value("requests_succeeded_total"),
            failure_total: figures.failed_requests(),
            time_to_first_token_seconds: mean(Quantity::TimeToFirstToken),
            time_per_output_token_seconds: mean(Quantity::TimePerOutputToken),
            e2e_request_latency_seconds: mean(Quantity::EndToEndLatency),
        }),
        gpu_metrics: Some(pb::GpuMetrics {
            cache_usage_perc: level(Quantity::KvCacheUsage).map(|ratio| ratio * 100.0),
            num_requests_running: level(Quantity::RequestsRunning),
            num_requests_waiting: level(Quantity::RequestsWaiting),
        }),
        throughput_metrics: Some(pb::ThroughputMetrics {
            tokens_per_second: figures.value("generation_tokens_per_second"),
            requests_per_second: figures.value("requests_finished_per_second"),
            generation_tokens_total: figures.value("generation_tokens_total"),
            prompt_tokens_total: figures.value("prompt_tokens_total"),
        }),
        figures: Some(figures_of(figures)),
        replicas: replicas(&of.replicas),
        settings: of.settings.iter().map(setting).collect(),
        notes: of.notes.iter().map(note).collect(),
        simulated: of.simulated,
    }
}

/// The same without its parts: figures, settings, and the figures of each replica.
pub fn basic_measurement(of: &Measurement) -> pb::Measurement {
    let whole = measurement(of);
    let without_figures = |replica: pb::ReplicaMeasurement| pb::ReplicaMeasurement {
        figures: None,
        ..replica
    };
    pb::Measurement {
        figures: None,
        settings: Vec::new(),
        replicas: whole.replicas.into_iter().map(without_figures).collect(),
        ..whole
    }
}

pub(super) fn window(of: &Window) -> pb::Window {
    pb::Window {
        start_time: timestamp(of.start_unix_seconds),
        end_time: timestamp(of.end_unix_seconds),
        kind: match of.kind {
            WindowKind::Interval => pb::WindowKind::Interval,
            WindowKind::SinceStart => pb::WindowKind::SinceStart,
        }
        .into(),
        observed_seconds: Some(of.observed_seconds),
        samples: of.samples,
    }
}

/// An instant; none where there is none.
pub(super) fn timestamp(unix_seconds: f64) -> Option<Timestamp> {
    if !unix_seconds.is_finite() {
        return None;
    }
    let whole = unix_seconds.floor();
    // to the microsecond: an f64 of unix seconds holds no more
    let micros = ((unix_seconds - whole) * 1e6).round();
    let mut timestamp = Timestamp {
        seconds: whole as i64,
        nanos: (micros * 1e3) as i32,
    };
    timestamp.normalize();
    Some(timestamp)
}

fn figures_of(of: &Figures) -> pb::Figures {
    pb::Figures {
        quantities: of.quantities.iter().map(quantity).collect(),
        distributions: of.distributions.iter().map(distribution).collect(),
        gauges: of.gauges.iter().map(gauge).collect(),
        absent: of.absent.iter().map(absence).collect(),
        series: of.series.iter().map(series).collect(),
    }
}

fn series(of: &Series) -> pb::Series {
    let intervals = || of.intervals.iter();
    pb::Series {
        name: of.name.clone(),
        start_ticks: intervals().map(|one| one.start_tick).collect(),
        end_ticks: intervals().map(|one| one.end_tick).collect(),
        numerators: intervals().map(|one| one.numerator).collect(),
        denominators: intervals().map(|one| one.denominator).collect(),
    }
}

fn quantity(of: &QuantityValue) -> pb::Quantity {
    use pb::quantity::Bound;
    pb::Quantity {
        name: of.name.to_string(),
        bound: Some(match of.value {
            Bounded::Value(value) => Bound::Value(value),
            Bounded::AtMost(value) => Bound::AtMost(value),
            Bounded::AtLeast(value) => Bound::AtLeast(value),
        }),
        basis: basis(of.basis),
        source_metric: of.source.to_string(),
    }
}

pub(super) fn basis(of: Basis) -> i32 {
    match of {
        Basis::Exact => pb::Basis::Exact,
        Basis::Interpolated => pb::Basis::Interpolated,
        Basis::Approximate => pb::Basis::Approximate,
        Basis::ImpliedZero => pb::Basis::ImpliedZero,
    }
    .into()
}

fn distribution(of: &Distribution) -> pb::Distribution {
    pb::Distribution {
        name: of.name.to_string(),
        count: Some(of.count),
        mean: of.mean,
        quantiles: of.quantiles.iter().map(quantile).collect(),
        buckets: of.buckets.iter().map(bucket).collect(),
        basis: basis(of.basis),
        source_metric: of.source.to_string(),
    }
}

fn quantile(of: &Quantile) -> pb::Quantile {
    use pb::quantile::Bound;
    pb::Quantile {
        quantile: of.q,
        bound: Some(match of.value {
            Bounded::Value(value) => Bound::Value(value),
            Bounded::AtMost(value) => Bound::AtMost(value),
            Bounded::AtLeast(value) => Bound::AtLeast(value),
        }),
        basis: basis(match of.value {
            Bounded::Value(_) => Basis::Interpolated,
            Bounded::AtMost(_) | Bounded::AtLeast(_) => Basis::Exact,
        }),
    }
}

fn bucket(of: &Bucket) -> pb::Bucket {
    pb::Bucket {
        above: of.above,
        at_most: of.at_most,
        count: of.count,
    }
}

fn gauge(of: &Gauge) -> pb::Gauge {
    pb::Gauge {
        name: of.name.to_string(),
        min: Some(of.min),
        mean: Some(of.mean),
        max: Some(of.max),
        last: Some(of.last),
        samples: of.samples,
        basis: basis(of.basis),
        source_metric: of.source.to_string(),
    }
}

fn absence(of: &Absence) -> pb::Absence {
    pb::Absence {
        name: of.quantity.name().to_owned(),
        reason: of.reason.to_string(),
        hint: of.hint.as_deref().map(str::to_owned),
    }
}

fn replicas(of: &[Replica]) -> Vec<pb::ReplicaMeasurement> {
    // of a single one they stand in the measurement, and would be as much again
    let with_figures = of.len() > 1;
    of.iter().map(|one| replica(one, with_figures)).collect()
}

fn replica(of: &Replica, with_figures: bool) -> pb::ReplicaMeasurement {
    let (figures, failure) = match &of.outcome {
        Ok(figures) => (with_figures.then(|| figures_of(figures)), None),
        Err(failure) => (
            None,
            Some(pb::ReplicaFailure {
                reason: failure.reason.clone(),
                message: failure.message.clone(),
            }),
        ),
    };
    pb::ReplicaMeasurement {
        metrics_url: of.metrics_url.clone(),
        figures,
        failure,
        samples: of.samples,
        failed_scrapes: of.failed_scrapes,
        dropped_intervals: of.dropped.iter().map(dropped).collect(),
    }
}

fn dropped(of: &DroppedInterval) -> pb::DroppedInterval {
    let (cause, evidence) = match &of.cause {
        DropCause::Restart { evidence } => ("RESTARTED", evidence.as_str()),
        DropCause::NotAdvanced => ("NOT_ADVANCED", "the timestamps in the exposition"),
    };
    pb::DroppedInterval {
        start_time: timestamp(of.start_unix_seconds),
        end_time: timestamp(of.end_unix_seconds),
        cause: cause.to_owned(),
        evidence: evidence.to_owned(),
    }
}

fn setting(of: &Setting) -> pb::Setting {
    pb::Setting {
        name: of.name.clone(),
        flag: of.flag.clone(),
        value: of.value.clone(),
        source: of.source.clone(),
    }
}

pub(super) fn note(of: &Note) -> pb::Note {
    pb::Note {
        code: of.code.as_str().to_owned(),
        metrics_url: of.metrics_url.clone(),
        message: of.message.clone(),
    }
}

/// What the agent is.
pub fn agent_info(of: &AgentInfo) -> pb::GetAgentInfoResponse {
    let limits = &of.limits;
    let (agent_id, agent_ids) = of.sharing.clone().unwrap_or_default();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    pb::GetAgentInfoResponse {
        version: of.version.to_owned(),
        start_time: Some(system_time(of.started_at)),
        uptime: duration(of.uptime),
        limits: Some(pb::Limits {
            max_window: duration(limits.window),
            default_window: duration(limits.default_window),
            max_replicas: count(limits.replicas),
            max_batch: count(limits.batch),
            max_outbound_connections_per_peer: count(limits.outbound_connections_per_peer),
            max_streams_per_peer: count(limits.streams_per_peer),
            max_request_bytes: count(limits.request_bytes),
            max_response_bytes: count(limits.response_bytes),
            max_instances: count(limits.instances),
            max_watched_replicas: count(limits.watched_replicas),
            max_labels: count(limits.labels),
        }),
        agent_id,
        agent_ids: agent_ids.to_vec(),
    }
}

/// An instant of the system's clock.
pub(super) fn system_time(at: SystemTime) -> Timestamp {
    at.into()
}

/// A length of time on the wire.
pub fn duration(of: Duration) -> Option<prost_types::Duration> {
    of.try_into().ok()
}

/// What the agent can do.
pub fn capabilities<'p>(
    engines: impl Iterator<Item = &'p EngineProfile>,
    thresholds: &Thresholds,
    custom: &[CustomOptimizer],
    actuators: &Actuators,
) -> pb::GetCapabilitiesResponse {
    pb::GetCapabilitiesResponse {
        engines: engines.map(engine).collect(),
        quantities: Quantity::ALL
            .iter()
            .map(|quantity| pb::QuantityDescription {
                name: quantity.name().to_owned(),
                kind: match quantity.kind() {
                    QuantityKind::Counter => pb::QuantityKind::Counter,
                    QuantityKind::Gauge => pb::QuantityKind::Gauge,
                    QuantityKind::Distribution => pb::QuantityKind::Distribution,
                }
                .into(),
                description: quantity.description().to_owned(),
            })
            .chain(DERIVED.map(|(name, description)| pb::QuantityDescription {
                name: name.to_owned(),
                kind: pb::QuantityKind::Derived.into(),
                description: description.to_owned(),
            }))
            .collect(),
        causes: convert_analysis::causes(),
        thresholds: convert_analysis::thresholds(thresholds),
        optimizers: levers()
            .map(|(name, description)| (name, description, false))
            .chain(custom.iter().map(|one| (one.name(), one.title(), true)))
            .map(|(name, description, custom)| pb::OptimizerDescription {
                name: name.to_owned(),
                description: description.to_owned(),
                custom,
            })
            .collect(),
        actuators: actuators
            .names()
            .map(|(name, kind)| pb::ActuatorDescription {
                name: name.to_owned(),
                kind: kind.to_owned(),
            })
            .collect(),
    }
}

fn engine(of: &EngineProfile) -> pb::EngineCapability {
    let exported = |quantity: &Quantity| {
        of.aliases_of(*quantity)
            .any(|(_, alias)| alias.unsupported.is_none())
    };
    pb::EngineCapability {
        name: of.name.to_string(),
        title: of.title.to_string(),
        versions: of.versions.to_string(),
        quantities: of
            .quantities()
            .filter(exported)
            .map(|quantity| quantity.name().to_owned())
            .collect(),
        settings: of.knobs.iter().map(|knob| knob.name.to_string()).collect(),
    }
}
