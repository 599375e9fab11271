//! Measurements that tests are made of.

use crate::measure::{
    Basis, Bounded, Bucket, Distribution, Figures, Gauge, Measurement, QuantityValue, Window,
    WindowKind,
};

pub(super) fn measurement(figures: Figures) -> Measurement {
    Measurement {
        instance_id: "a".to_owned(),
        engine: "vllm".to_owned(),
        engine_version: None,
        model_name: None,
        simulated: false,
        window: Window {
            start_unix_seconds: 0.0,
            end_unix_seconds: 60.0,
            kind: WindowKind::Interval,
            observed_seconds: 60.0,
            samples: 5,
        },
        figures,
        replicas: Vec::new(),
        settings: Vec::new(),
        notes: Vec::new(),
    }
}

pub(super) fn quantity(name: &'static str, value: f64) -> QuantityValue {
    QuantityValue {
        name: name.into(),
        value: Bounded::Value(value),
        basis: Basis::Exact,
        source: "m".into(),
    }
}

pub(super) fn gauge(name: &'static str, values: &[f64]) -> Gauge {
    let sum: f64 = values.iter().sum();
    Gauge {
        name: name.into(),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        mean: sum / values.len() as f64,
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        last: values.last().copied().unwrap_or(f64::NAN),
        samples: values.len() as u32,
        basis: Basis::Exact,
        source: "m".into(),
    }
}

/// With counts between these bounds.
pub(super) fn distribution(name: &'static str, bounds: &[f64], counts: &[f64]) -> Distribution {
    let above = std::iter::once(None).chain(bounds.iter().copied().map(Some));
    let buckets = bounds.iter().zip(counts).zip(above);
    Distribution {
        name: name.into(),
        count: counts.iter().sum(),
        mean: None,
        quantiles: Vec::new(),
        buckets: buckets
            .filter(|((_, count), _)| **count > 0.0)
            .map(|((at_most, count), above)| Bucket {
                above,
                at_most: *at_most,
                count: *count,
            })
            .collect(),
        basis: Basis::Exact,
        source: "m".into(),
    }
}
