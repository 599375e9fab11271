//! Gates: who has to agree before a workflow goes on.

use serde::{Deserialize, Serialize};

/// Where a workflow waits for somebody to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GateKind {
    /// Before anything is changed.
    BeforeCanary,
    /// Before more targets get the change than those that have it.
    BeforeRollout,
}

/// What an approval takes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct GatePolicy {
    /// How many different principals have to agree.
    pub approvals: u32,
    /// Principals who may; empty for everybody whose role allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    /// Who started the workflow may not be among them.
    #[serde(default)]
    pub separate_requester: bool,
    /// How long it waits, in seconds.
    pub timeout_seconds: f64,
    /// What then.
    pub on_timeout: OnTimeout,
}

/// What becomes of a workflow that nobody approves in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OnTimeout {
    /// It is rejected.
    Reject,
    /// It is paused; resumed, it waits as long again.
    Hold,
}

/// A gate at which a workflow stands or stood.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct GateState {
    /// Where.
    pub kind: GateKind,
    /// Since when, unix time in microseconds.
    pub since_us: i64,
    /// Who agreed so far. Empty again with each new plan.
    pub approvals: Vec<Approval>,
}

/// Somebody agreed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Approval {
    /// Who.
    pub principal: String,
    /// When, unix time in microseconds.
    pub at_us: i64,
    /// In what words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Default for GatePolicy {
    fn default() -> Self {
        Self {
            approvals: 1,
            approvers: Vec::new(),
            separate_requester: false,
            // over a weekend
            timeout_seconds: 7.0 * 86_400.0,
            on_timeout: OnTimeout::Reject,
        }
    }
}
