//! What a workflow was asked to do, as it was accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gate::GatePolicy;
use super::plan::Strategy;
use super::words::WorkflowKind;

/// What a workflow was asked to do; what the request left out is filled in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct WorkflowSpec {
    /// Id of the instance.
    pub instance_id: String,
    /// What is to be done.
    pub kind: WorkflowKind,
    /// Name of the actuator of the instance; `none` where it has none.
    pub actuator: String,
    /// Of a config change what settings become, by name or flag; none within takes the flag away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, Option<String>>,
    /// Of a restore, what is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Of an optimization, the one of those recommended that is to be carried out; none for the first that changes settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimization_id: Option<String>,
    /// No change that needs a restart.
    #[serde(default)]
    pub no_restart: bool,
    /// No change that can make answers others.
    #[serde(default)]
    pub no_answer_change: bool,
    /// It goes on without an approval. Set only where the agent's policy allows it.
    #[serde(default)]
    pub auto_approve: bool,
    /// What an approval takes.
    pub gate: GatePolicy,
    /// How the change goes out.
    pub strategy: Strategy,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Why it was started, in the words of who started it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How long things may take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct Timeouts {
    /// Analysis and recommendation together, until the plan is ready.
    pub plan_seconds: f64,
    /// A target, from the write of its settings until it is ready: engines load models for minutes.
    pub ready_seconds: f64,
    /// Until enough is measured after the change.
    pub observe_seconds: f64,
    /// The whole way back.
    pub rollback_seconds: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            plan_seconds: 600.0,
            // a large model takes 5 to 15 minutes from cold
            ready_seconds: 1_800.0,
            observe_seconds: 900.0,
            rollback_seconds: 3_600.0,
        }
    }
}
