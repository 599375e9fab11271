//! Changes that go out part by part, and what is said of them → protobuf, and asked for ← protobuf.

use std::time::Duration;

use super::convert::{duration, timestamp};
use super::pb;
use crate::workflow::{Bounds, Evidence, Observation, QuantityVerdict, Verdict};
use crate::workflow::{Canary, QualityReport};

/// How a change goes out part by part.
pub(super) fn canary(of: &Canary) -> pb::WorkflowCanary {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().and_then(duration);
    pb::WorkflowCanary {
        shares: of.shares.clone(),
        warm_up: seconds(of.warm_up_seconds),
        observe: seconds(of.observe_seconds),
        decision: seconds(of.decision_seconds),
        drain: seconds(of.drain_seconds),
        least_ready: of.least_ready,
        tolerance_ratio: Some(of.tolerance_ratio),
        gate_before_rollout: of.gate_before_rollout,
        gate_each_step: of.gate_each_step,
        steps: of.steps.clone(),
        bounds: Some(bounds(&of.bounds)),
        compares_answers: of.quality.is_some(),
    }
}

fn bounds(of: &Bounds) -> pb::WorkflowBounds {
    pb::WorkflowBounds {
        time_to_first_token_seconds: of.time_to_first_token_seconds,
        inter_token_latency_seconds: of.inter_token_latency_seconds,
        end_to_end_latency_seconds: of.end_to_end_latency_seconds,
    }
}

/// What is said of the targets that have a change.
pub(super) fn verdict(step: u32, of: &Verdict) -> pb::WorkflowVerdict {
    pb::WorkflowVerdict {
        step,
        verdict: of.word.as_str().to_owned(),
        reason: of.reason.clone(),
        look: of.look,
        looks: of.looks,
        evidence: match of.evidence {
            Some(Evidence::SameTime) => "SAME_TIME",
            Some(Evidence::BeforeAfter) => "BEFORE_AFTER",
            None => "",
        }
        .to_owned(),
        quantities: of.quantities.iter().map(quantity).collect(),
    }
}

fn quantity(of: &QuantityVerdict) -> pb::WorkflowQuantityVerdict {
    let (low, high) = of.interval.unzip();
    let (difference_low, difference_high) = of.difference_interval.unzip();
    pb::WorkflowQuantityVerdict {
        quantity: of.quantity.as_str().to_owned(),
        verdict: of.word.as_str().to_owned(),
        enforced: of.enforced,
        canary: of.canary,
        control: of.control,
        effect_ratio: of.effect_ratio,
        effect_ratio_low: low,
        effect_ratio_high: high,
        difference: of.difference,
        difference_low,
        difference_high,
        confidence: of.interval_confidence,
        intervals: of.intervals,
        canary_count: of.canary_count,
        control_count: of.control_count,
        smallest_detectable_ratio: of.smallest_detectable_ratio,
        reason: of.reason.clone(),
    }
}

/// What came of comparing answers.
pub(super) fn quality(of: &QualityReport) -> pb::WorkflowQuality {
    pb::WorkflowQuality {
        prompts: of.prompts,
        agreed: of.agreed,
        agreed_without: of.agreed_without,
        common_ratio: of.common_ratio,
        common_without_ratio: of.common_without_ratio,
        needed_ratio: of.needed_ratio,
        passed: of.passed,
    }
}

/// One window.
pub(super) fn observation(of: &Observation) -> pb::WorkflowObservation {
    let [canary_requests, control_requests] = of.traffic.requests;
    pb::WorkflowObservation {
        start_time: timestamp(of.start_unix_seconds),
        end_time: timestamp(of.end_unix_seconds),
        canary_replicas: of.canary_replicas,
        control_replicas: of.control_replicas,
        canary_requests,
        control_requests,
    }
}
