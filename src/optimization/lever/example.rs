//! Situations that tests are made of.

use std::sync::Arc;

use crate::analysis::{Cause, Finding, Severity, Targets, Thresholds};
use crate::engine::{EngineProfile, Quantity as Q, Registry};
use crate::measure::{
    Basis, Bounded, Distribution, Figures, Gauge, Measurement, Note, NoteCode, QuantityValue,
    Window, WindowKind,
};
use crate::optimization::{
    Family, InForce, LeftOut, Limits, SettingInForce, SettingSource, SettingValue, Situation,
};

/// All that a situation borrows.
pub(in crate::optimization) struct Case {
    pub(in crate::optimization) profile: Arc<EngineProfile>,
    pub(in crate::optimization) measurement: Option<Measurement>,
    pub(in crate::optimization) findings: Vec<Finding>,
    pub(in crate::optimization) in_force: InForce,
    pub(in crate::optimization) thresholds: Thresholds,
    pub(in crate::optimization) targets: Targets,
    pub(in crate::optimization) limits: Limits,
}

impl Case {
    /// An engine of a version with these findings; nothing measured, nothing in force.
    pub(in crate::optimization) fn new(engine: &str, version: &str, causes: &[Cause]) -> Self {
        Self {
            profile: Registry::builtin().get(engine).unwrap().clone(),
            measurement: None,
            findings: causes.iter().map(|cause| finding(*cause)).collect(),
            in_force: InForce {
                engine: engine.to_owned(),
                version: version.parse().ok(),
                settings: Vec::new(),
            },
            thresholds: Thresholds::default(),
            targets: Targets::default(),
            limits: Limits::default(),
        }
    }

    pub(in crate::optimization) fn set(mut self, name: &str, value: &str) -> Self {
        self.in_force.settings.push(SettingInForce {
            name: name.to_owned(),
            flag: String::new(),
            value: match value {
                "" => SettingValue::NotSet,
                value => SettingValue::Known(value.to_owned()),
            },
            source: SettingSource::Declared,
            hint: None,
        });
        self
    }

    pub(in crate::optimization) fn measured(mut self) -> Self {
        self.measurement = Some(Measurement {
            instance_id: "a".to_owned(),
            engine: self.in_force.engine.clone(),
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
            figures: Figures::default(),
            replicas: Vec::new(),
            settings: Vec::new(),
            notes: Vec::new(),
        });
        self
    }

    fn figures(&mut self) -> &mut Figures {
        &mut self.measurement.as_mut().unwrap().figures
    }

    pub(in crate::optimization) fn gauge(mut self, quantity: Q, mean: f64, max: f64) -> Self {
        self.figures().gauges.push(Gauge {
            name: quantity.name().into(),
            min: mean,
            mean,
            max,
            last: mean,
            samples: 5,
            basis: Basis::Exact,
            source: "m".into(),
        });
        self
    }

    pub(in crate::optimization) fn value(mut self, name: &'static str, value: f64) -> Self {
        self.figures().quantities.push(QuantityValue {
            name: name.into(),
            value: Bounded::Value(value),
            basis: Basis::Exact,
            source: "m".into(),
        });
        self
    }

    pub(in crate::optimization) fn mean(mut self, quantity: Q, mean: f64) -> Self {
        self.figures().distributions.push(Distribution {
            name: quantity.name().into(),
            count: 100.0,
            mean: Some(mean),
            quantiles: Vec::new(),
            buckets: Vec::new(),
            basis: Basis::Exact,
            source: "m".into(),
        });
        self
    }

    pub(in crate::optimization) fn noted(mut self, code: NoteCode) -> Self {
        self.measurement.as_mut().unwrap().notes.push(Note {
            code,
            metrics_url: None,
            message: String::new(),
        });
        self
    }

    pub(in crate::optimization) fn limited(mut self, limit: fn(&mut Limits)) -> Self {
        limit(&mut self.limits);
        self
    }

    pub(in crate::optimization) fn situation(&self) -> Situation<'_> {
        Situation {
            profile: &self.profile,
            measurement: self.measurement.as_ref(),
            findings: &self.findings,
            in_force: &self.in_force,
            thresholds: &self.thresholds,
            targets: &self.targets,
            limits: &self.limits,
        }
    }

    pub(in crate::optimization) fn families(&self) -> (Vec<Family>, Vec<LeftOut>) {
        super::families(&self.situation())
    }

    /// The families of one lever.
    pub(in crate::optimization) fn of(&self, lever: &str) -> Vec<Family> {
        let (families, _) = self.families();
        families
            .into_iter()
            .filter(|one| one.lever == lever)
            .collect()
    }

    /// Why a lever proposes nothing.
    pub(in crate::optimization) fn why_not(&self, lever: &str) -> String {
        let (families, left_out) = self.families();
        assert!(
            families.iter().all(|one| one.lever != lever),
            "{families:?}"
        );
        let reasons = left_out.into_iter().filter(|one| one.lever == lever);
        reasons.map(|one| one.reason).collect::<Vec<_>>().join("; ")
    }
}

pub(in crate::optimization) fn finding(cause: Cause) -> Finding {
    Finding {
        cause,
        severity: Severity::High,
        confidence: 0.9,
        description: String::new(),
        evidence: Vec::new(),
        costs: Vec::new(),
        recommendation: String::new(),
        treatments: Vec::new(),
        explained_by: None,
        replicas: Vec::new(),
    }
}
