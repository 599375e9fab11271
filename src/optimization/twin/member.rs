//! One way in which an instance may be.

use crate::model::{Load, Settings, StepTime};

use super::outcome::{Outcome, Plan, run};

/// One way in which a replica of the instance may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) settings: Settings,
    pub(super) step_time: StepTime,
    pub(super) load: Load,
    /// Its clients wait for their answers.
    pub(super) closed: bool,
    /// How far it may be drawn when the KV cache changes by a ratio that is not known, 0 to 1.
    pub(super) kv_draw: f64,
    /// How well it gives what was measured, against the others.
    pub(super) weight: f64,
    /// What it gives as it is.
    pub(super) before: Outcome,
    /// The same with other requests: what chance does.
    pub(super) again: Option<Outcome>,
}

impl Member {
    /// What it gives with other settings and another load, as long after its start as before.
    pub(super) fn after(&self, settings: &Settings, load: &Load, plan: &Plan) -> Option<Outcome> {
        let plan = Plan {
            warm_seconds: self.before.from,
            backlog: None,
            ..*plan
        };
        run(settings, self.step_time, load, &plan)
    }

    /// What it gives as it is with other requests.
    pub(super) fn with_other_requests(&self, seed: u64, plan: &Plan) -> Option<Outcome> {
        let mut load = self.load.clone();
        load.seed = seed;
        run(&self.settings, self.step_time, &load, plan)
    }
}
