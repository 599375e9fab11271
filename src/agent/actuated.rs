//! Launch arguments as actuators told them last: what an instance runs with, fresher than what its operator declared.
//!
//! A cache: it is filled when a workflow reads an actuator, and may be lost.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::engine::Registry;
use crate::instance::{Instance, LaunchArgs};

/// Launch arguments by instance. Values are kept of those that set something the agent knows.
#[derive(Debug, Default)]
pub(super) struct Actuated(RwLock<HashMap<String, Vec<String>>>);

impl Actuated {
    /// Keeps what an actuator told.
    pub(super) fn told(
        &self,
        instance_id: &str,
        engine: Option<&str>,
        launch_args: &[String],
        registry: &Registry,
    ) {
        let kept = LaunchArgs::of(launch_args, engine, registry).kept;
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(instance_id.to_owned(), kept);
    }

    /// What the instance runs with, by its actuator or else by its operator.
    pub(super) fn launch_args(&self, instance: &Instance) -> Vec<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match (&instance.spec.actuator, all.get(instance.id())) {
            (Some(_), Some(told)) => told.clone(),
            _ => instance.spec.launch_args.clone(),
        }
    }

    /// Forgets an instance.
    pub(super) fn forget(&self, instance_id: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(instance_id);
    }
}
