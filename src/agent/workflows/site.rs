//! Where a workflow works: the instance as it is measured, and the actuator that has its settings.

use std::sync::Arc;

use super::log::ChangedSettings;
use crate::actuator::{ActuatedInstance, Actuator};
use crate::agent::{Agent, Caller, Error, Target};
use crate::auth::Role;
use crate::instance::InstanceSpec;
use crate::workflow::{Failure, Workflow};

/// Who acts for workflows.
pub(super) const ACTOR: &str = "perfagent";

/// Where a workflow works.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// How it is measured: without URLs in the background.
    pub(super) target: Target,
    /// What the actuator is told of it.
    pub(super) instance: ActuatedInstance,
    /// What reads and writes its settings.
    pub(super) actuator: Arc<dyn Actuator>,
}

impl Agent {
    /// Where a workflow of a registered instance works.
    ///
    /// # Errors
    /// An instance or an actuator that there is not any more.
    pub(super) fn site_of(&self, state: &Workflow) -> Result<Site, Failure> {
        let id = &state.spec.instance_id;
        let known = self
            .instance(id)
            .map_err(|error| failure("INTERNAL", &error))?;
        let spec = &known.instance.spec;
        let latest = known.latest.as_ref();
        let engine = spec
            .instance_type
            .clone()
            .or_else(|| latest.map(|latest| latest.engine().to_owned()));
        let actuator = self
            .actuators
            .get(&state.spec.actuator)
            .cloned()
            .ok_or_else(|| Failure {
                reason: "ACTUATOR_FAILED".to_owned(),
                message: format!("There is no actuator {} any more.", state.spec.actuator),
                hint: "Define it in [[actuators]] of the config file again.".to_owned(),
            })?;
        Ok(Site {
            target: Target {
                metrics_urls: Vec::new(),
                ..spec.target()
            },
            instance: actuated(spec, engine),
            actuator,
        })
    }

    /// Where a workflow of an instance works that is given, and measured by its URLs.
    pub(super) fn site_of_given(&self, spec: &InstanceSpec) -> Option<Site> {
        Some(Site {
            target: spec.target(),
            instance: actuated(spec, spec.instance_type.clone()),
            actuator: self.actuators.get("none")?.clone(),
        })
    }

    /// Takes note of what another agent made of the settings of an instance.
    pub(in crate::agent) async fn changed_elsewhere(&self, changed: &ChangedSettings) {
        let id = &changed.instance_id;
        let planned = match &self.store {
            Some(store) if changed.are_planned => store.workflow(&changed.workflow_id).await,
            _ => Ok(None),
        };
        let plan = planned.ok().flatten().and_then(|state| state.plan);
        let args = plan.and_then(|plan| plan.draft.targets.into_iter().next());
        match (args, self.fleet.get(id)) {
            (Some(target), Some(known)) if !target.launch_args.is_empty() => {
                let engine = known.engine();
                self.actuated
                    .told(id, engine, &target.launch_args, &self.registry);
            }
            // what its operator declared
            _ => self.actuated.forget(id),
        }
    }

    /// Keeps what an actuator told of the launch arguments of an instance.
    pub(super) fn heard(&self, site: &Site, launch_args: &[String]) {
        let engine = site.instance.engine.as_deref();
        let id = &site.instance.instance_id;
        self.actuated.told(id, engine, launch_args, &self.registry);
    }
}

/// What an actuator is told of an instance.
pub(super) fn actuated(spec: &InstanceSpec, engine: Option<String>) -> ActuatedInstance {
    ActuatedInstance {
        instance_id: spec.instance_id.clone(),
        engine,
        metrics_urls: spec.metrics_urls.clone(),
        labels: spec.labels.clone(),
    }
}

/// Workflows measure on nobody's behalf.
pub(super) fn caller() -> Caller {
    Caller {
        principal: ACTOR.to_owned(),
        role: Role::Admin,
        ..Caller::anonymous()
    }
}

/// Why a runner cannot go on.
pub(super) fn failure(reason: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure {
        reason: reason.to_owned(),
        message: format!("{error}."),
        hint: String::new(),
    }
}

/// The failure of a verb of the agent.
pub(super) fn failed(error: &Error) -> Failure {
    let reason = match error {
        Error::Actuator(_) => "ACTUATOR_FAILED",
        Error::Invalid(_) => "INVALID",
        _ => "INTERNAL",
    };
    failure(reason, error)
}
