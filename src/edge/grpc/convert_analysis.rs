//! Domain → protobuf of what was found.

use super::convert::{note, timestamp, window};
use super::status::scrape_failure;
use super::{convert_slo, pb};
use crate::agent::{Diagnosed, DiagnosisAnswer};
use crate::analysis::{
    BottleneckType, Cause, Comparison, Cost, Evidence, Finding, Open, Severity, Thresholds,
    Treatment, Unclear, Verdict,
};
use crate::measure::Bounded;

/// The answer to DetectBottlenecks, for every edge.
pub fn diagnosis(of: &DiagnosisAnswer) -> pb::DetectBottlenecksResponse {
    pb::DetectBottlenecksResponse {
        stale: of.stale,
        last_failure: of.failure.as_ref().map(scrape_failure),
        ..diagnosed(&of.diagnosed)
    }
}

fn diagnosed(of: &Diagnosed) -> pb::DetectBottlenecksResponse {
    let found = &of.diagnosis;
    let end = of.window.end_unix_seconds;
    pb::DetectBottlenecksResponse {
        verdict: verdict(found.verdict).into(),
        headline: found.headline.clone(),
        bottlenecks: found
            .findings
            .iter()
            .map(|one| bottleneck(one, end))
            .collect(),
        unclear: found.unclear.iter().map(unclear).collect(),
        window: Some(window(&of.window)),
        instance_id: of.instance_id.clone(),
        instance_type: of.engine.clone(),
        engine_version: of.engine_version.clone(),
        model_name: of.model_name.clone(),
        simulated: of.simulated,
        notes: of.notes.iter().map(note).collect(),
        slos: of.compliances.iter().map(convert_slo::compliance).collect(),
        health: of.health.as_ref().map(convert_slo::health),
        ..pb::DetectBottlenecksResponse::default()
    }
}

/// A bottleneck that is open.
pub(super) fn open(of: &Open) -> pb::OpenBottleneck {
    pb::OpenBottleneck {
        bottleneck: Some(bottleneck(&of.finding, of.found_unix_seconds)),
        open_time: timestamp(of.opened_unix_seconds),
    }
}

/// A bottleneck, as it was found at the end of a window.
pub(super) fn bottleneck(of: &Finding, end_unix_seconds: f64) -> pb::Bottleneck {
    let deciding = of.evidence.first();
    pb::Bottleneck {
        r#type: bottleneck_type(of.kind()).into(),
        cause: of.cause.as_str().to_owned(),
        severity: severity(of.severity).into(),
        confidence: of.confidence,
        description: of.description.clone(),
        metric_name: deciding.map_or_else(String::new, |one| one.quantity.clone()),
        current_value: deciding.and_then(|one| match one.value {
            Bounded::Value(value) => Some(value),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }),
        threshold: deciding.and_then(|one| one.threshold),
        recommendation: of.recommendation.clone(),
        time: timestamp(end_unix_seconds),
        evidence: of.evidence.iter().map(evidence).collect(),
        costs: of.costs.iter().map(cost).collect(),
        treatments: of
            .treatments
            .iter()
            .map(|one| treatment(*one).into())
            .collect(),
        explained_by: of.explained_by.map_or("", Cause::as_str).to_owned(),
        metrics_urls: of.replicas.clone(),
    }
}

fn evidence(of: &Evidence) -> pb::Evidence {
    use pb::evidence::Bound;
    pb::Evidence {
        quantity: of.quantity.clone(),
        statistic: of.statistic.to_owned(),
        bound: Some(match of.value {
            Bounded::Value(value) => Bound::Value(value),
            Bounded::AtMost(value) => Bound::AtMost(value),
            Bounded::AtLeast(value) => Bound::AtLeast(value),
        }),
        comparison: match of.comparison {
            Comparison::AtLeast => pb::EvidenceComparison::AtLeast,
            Comparison::Below => pb::EvidenceComparison::Below,
            Comparison::None => pb::EvidenceComparison::Unspecified,
        }
        .into(),
        threshold: of.threshold,
        threshold_name: of.threshold_name.clone(),
        source_metric: of.source_metric.to_string(),
    }
}

fn cost(of: &Cost) -> pb::BottleneckCost {
    pb::BottleneckCost {
        name: of.kind.as_str().to_owned(),
        value: of.value,
    }
}

fn unclear(of: &Unclear) -> pb::UnclearCheck {
    pb::UnclearCheck {
        cause: of.cause.as_str().to_owned(),
        r#type: bottleneck_type(of.cause.kind()).into(),
        missing: of.missing.clone(),
        reason: of.reason.clone(),
        hint: of.hint.clone(),
    }
}

fn verdict(of: Verdict) -> pb::DiagnosisVerdict {
    match of {
        Verdict::Healthy => pb::DiagnosisVerdict::Healthy,
        Verdict::Findings => pb::DiagnosisVerdict::Findings,
        Verdict::CannotTell => pb::DiagnosisVerdict::CannotTell,
    }
}

fn severity(of: Severity) -> pb::Severity {
    match of {
        Severity::Low => pb::Severity::Low,
        Severity::Medium => pb::Severity::Medium,
        Severity::High => pb::Severity::High,
        Severity::Critical => pb::Severity::Critical,
    }
}

fn bottleneck_type(of: BottleneckType) -> pb::BottleneckType {
    match of {
        BottleneckType::EngineStalled => pb::BottleneckType::EngineStalled,
        BottleneckType::RequestFailures => pb::BottleneckType::RequestFailures,
        BottleneckType::MemoryPressure => pb::BottleneckType::MemoryPressure,
        BottleneckType::QueueBuildup => pb::BottleneckType::QueueBuildup,
        BottleneckType::HighLatency => pb::BottleneckType::HighLatency,
        BottleneckType::BatchSizeSuboptimal => pb::BottleneckType::BatchSizeSuboptimal,
        BottleneckType::LowThroughput => pb::BottleneckType::LowThroughput,
        BottleneckType::CacheInefficiency => pb::BottleneckType::CacheInefficiency,
        BottleneckType::ReplicaSkew => pb::BottleneckType::ReplicaSkew,
        BottleneckType::Overprovisioned => pb::BottleneckType::Overprovisioned,
    }
}

/// A kind of change.
pub(super) fn treatment(of: Treatment) -> pb::OptimizationType {
    match of {
        Treatment::KvCache => pb::OptimizationType::KvCache,
        Treatment::Quantization => pb::OptimizationType::Quantization,
        Treatment::Batching => pb::OptimizationType::Batching,
        Treatment::Memory => pb::OptimizationType::Memory,
        Treatment::Parallelism => pb::OptimizationType::Parallelism,
        Treatment::SpeculativeDecoding => pb::OptimizationType::SpeculativeDecoding,
        Treatment::Scheduling => pb::OptimizationType::Scheduling,
        Treatment::Scaling => pb::OptimizationType::Scaling,
    }
}

/// What can hold an engine back.
pub(super) fn causes() -> Vec<pb::CauseDescription> {
    let described = |cause: &Cause| pb::CauseDescription {
        name: cause.as_str().to_owned(),
        r#type: bottleneck_type(cause.kind()).into(),
        description: cause.description().to_owned(),
    };
    Cause::ALL.iter().map(described).collect()
}

/// The thresholds in force.
pub(super) fn thresholds(in_force: &Thresholds) -> Vec<pb::ThresholdDescription> {
    let table = Thresholds::TABLE.iter();
    table
        .map(|one| pb::ThresholdDescription {
            name: one.name.to_owned(),
            default_value: one.default,
            value: in_force.get(one.name).unwrap_or(one.default),
            min: one.min,
            max: one.max,
            reason: one.reason.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_protos() {
        for one in BottleneckType::ALL {
            let word = bottleneck_type(*one).as_str_name();
            assert_eq!(word, format!("BOTTLENECK_TYPE_{}", one.as_str()));
        }
        for one in Severity::ALL {
            let word = severity(*one).as_str_name();
            assert_eq!(word, format!("SEVERITY_{}", one.as_str()));
        }
        for one in Treatment::ALL {
            let word = treatment(*one).as_str_name();
            assert_eq!(word, format!("OPTIMIZATION_TYPE_{}", one.as_str()));
        }
        for one in [Verdict::Healthy, Verdict::Findings, Verdict::CannotTell] {
            let word = verdict(one).as_str_name();
            assert_eq!(word, format!("DIAGNOSIS_VERDICT_{}", one.as_str()));
        }
    }
}
