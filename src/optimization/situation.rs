//! All that a recommendation goes by.

use crate::analysis::{Finding, Slo, Targets, Thresholds};
use crate::engine::EngineProfile;
use crate::measure::Measurement;

use super::in_force::InForce;

/// All that a recommendation goes by.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'s> {
    /// The engine's knobs.
    pub profile: &'s EngineProfile,
    /// What was measured; none where only bottlenecks and settings were given.
    pub measurement: Option<&'s Measurement>,
    /// What holds it back, root cause first.
    pub findings: &'s [Finding],
    /// The settings that it runs with.
    pub in_force: &'s InForce,
    /// Thresholds of the findings.
    pub thresholds: &'s Thresholds,
    /// What users were promised, in the terms of the checks.
    pub targets: &'s Targets,
    /// What must not be done.
    pub limits: &'s Limits,
}

/// What must not be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// No change that takes a restart.
    pub no_restart: bool,
    /// No change that may change answers.
    pub no_answer_change: bool,
    /// As many GPUs as now: no replicas more, no other parallelism.
    pub fixed_gpu_count: bool,
    /// SLOs that a change must not break, and that it must restore where a change is predicted to.
    pub must_hold: Vec<Slo>,
}
