//! The actuator that drives nothing.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    ActuatedInstance, Actuator, ActuatorError, PlannedSettings, SettingsWrite, TargetSettings,
};

/// Name and kind of the actuator that drives nothing.
pub const NONE: &str = "none";

/// Drives nothing: plans are recorded as not applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoActuator;

#[async_trait]
impl Actuator for NoActuator {
    fn name(&self) -> &str {
        NONE
    }

    fn kind(&self) -> &'static str {
        NONE
    }

    fn drives(&self) -> bool {
        false
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    async fn read(&self, _: &ActuatedInstance) -> Result<Vec<TargetSettings>, ActuatorError> {
        Err(ActuatorError::DrivesNothing)
    }

    async fn plan(
        &self,
        _: &ActuatedInstance,
        _: &TargetSettings,
        _: &[String],
    ) -> Result<PlannedSettings, ActuatorError> {
        Err(ActuatorError::DrivesNothing)
    }

    async fn write(
        &self,
        _: &ActuatedInstance,
        _: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        Err(ActuatorError::DrivesNothing)
    }
}
