//! `[workflows]`: what workflows need before they change anything, and how long they may take.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::workflow::OnTimeout;

/// `[workflows]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkflowsConfig {
    /// How many different principals have to approve a plan.
    pub approvals: u32,
    /// Who starts a workflow may not approve it.
    pub separate_requester: bool,
    /// How long a plan waits for approval.
    #[serde(with = "humantime_serde")]
    pub approval_timeout: Duration,
    /// What then: `reject` or `hold`.
    pub on_timeout: TimeoutPolicy,
    /// Workflows may go on without an approval where whoever starts them asks for it.
    pub auto_approve: bool,
    /// Prompts that are asked with a change and without where it can make answers others: a JSON object a line.
    pub quality_prompts: Option<PathBuf>,
    /// Share of the answers that has to be the same.
    pub quality_agreement_ratio: f64,
    /// How long analysis and recommendation may take together.
    #[serde(with = "humantime_serde")]
    pub plan_timeout: Duration,
    /// How long a target may take to be ready with new settings.
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    /// How long measuring what came of a change may take.
    #[serde(with = "humantime_serde")]
    pub observe_timeout: Duration,
    /// How long restoring all targets may take.
    #[serde(with = "humantime_serde")]
    pub rollback_timeout: Duration,
    /// How long the log of events is kept of workflows that have ended.
    #[serde(with = "humantime_serde")]
    pub events_kept: Duration,
}

/// What becomes of a plan that nobody approves in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeoutPolicy {
    /// It is rejected.
    Reject,
    /// The workflow is paused.
    Hold,
}

const DAY: Duration = Duration::from_secs(86_400);
/// Shortest and longest time that a step of a workflow may be given.
pub const STEP_TIMES: (Duration, Duration) = (Duration::from_secs(1), DAY);
/// Shortest and longest time that an approval may be waited for.
pub const APPROVAL_TIMES: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30 * 86_400));
/// Most principals that may have to approve.
pub const MAX_APPROVALS: u32 = 10;

impl Default for WorkflowsConfig {
    fn default() -> Self {
        Self {
            approvals: 1,
            separate_requester: false,
            // over a weekend
            approval_timeout: 7 * DAY,
            on_timeout: TimeoutPolicy::Reject,
            auto_approve: false,
            quality_prompts: None,
            quality_agreement_ratio: 0.95,
            plan_timeout: Duration::from_secs(600),
            // a large model takes 5 to 15 minutes from cold
            ready_timeout: Duration::from_secs(1_800),
            observe_timeout: Duration::from_secs(900),
            rollback_timeout: Duration::from_secs(3_600),
            events_kept: 90 * DAY,
        }
    }
}

impl WorkflowsConfig {
    /// What types alone cannot hold. Without authentication everybody is the same principal.
    pub(super) fn check(&self, authenticates: bool) -> Result<(), ConfigError> {
        if !(1..=MAX_APPROVALS).contains(&self.approvals) {
            return Err(ConfigError::Approvals);
        }
        if !(0.0..=1.0).contains(&self.quality_agreement_ratio) {
            return Err(ConfigError::AgreementRatio);
        }
        if !authenticates && (self.approvals > 1 || self.separate_requester) {
            return Err(ConfigError::ApprovalWithoutAuth);
        }
        for (name, time, (least, most)) in [
            (
                "workflows.approval_timeout",
                self.approval_timeout,
                APPROVAL_TIMES,
            ),
            ("workflows.plan_timeout", self.plan_timeout, STEP_TIMES),
            ("workflows.ready_timeout", self.ready_timeout, STEP_TIMES),
            (
                "workflows.observe_timeout",
                self.observe_timeout,
                STEP_TIMES,
            ),
            (
                "workflows.rollback_timeout",
                self.rollback_timeout,
                STEP_TIMES,
            ),
        ] {
            if !(least..=most).contains(&time) {
                return Err(ConfigError::Time { name, least, most });
            }
        }
        match self.events_kept.is_zero() {
            true => Err(ConfigError::ZeroTime("workflows.events_kept")),
            false => Ok(()),
        }
    }
}

impl From<TimeoutPolicy> for OnTimeout {
    fn from(policy: TimeoutPolicy) -> Self {
        match policy {
            TimeoutPolicy::Reject => Self::Reject,
            TimeoutPolicy::Hold => Self::Hold,
        }
    }
}
