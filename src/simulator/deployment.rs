//! What is simulated: some replicas of an engine, their load, and what happens to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Faults, Load, Policy, Settings, StepTime};

use super::flags::{FlagError, FlagValues};
use super::memory::{self, MemoryPart};

/// Replicas of an engine under one load that is divided over them.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Which engine.
    pub engine: Policy,
    /// Flags that it is started with.
    pub flags: FlagValues,
    /// Share of guessed tokens that are right, where the flags have the engine guess.
    pub acceptance_ratio: f64,
    /// The load on all replicas together.
    pub load: Load,
    /// How long steps take.
    pub step_time: StepTime,
    /// Whether SGLang times its forward passes on the accelerator and shows that.
    pub device_timer: bool,
    /// The memory of a replica's device, which the KV cache is counted from where the flags do not say it.
    pub memory: Option<MemoryPart>,
    /// How many replicas.
    pub replicas: u32,
    /// Seconds of the simulation in one of the clock.
    pub speed: f64,
    /// Model that is said to be served.
    pub model_name: String,
    /// What happens to replicas, in the order of time.
    pub incidents: Vec<Incident>,
    /// What is wrong, for those who check a diagnosis. It is not in the metrics.
    pub cause: Option<String>,
}

/// Something that happens to replicas.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// When, in seconds of the simulation.
    pub at_seconds: f64,
    /// To which, counted from 0; none for all.
    pub replica: Option<u32>,
    /// Faults that begin or end.
    pub faults: FaultChange,
    /// A restart.
    pub restart: Option<Restart>,
}

/// Faults that begin or end; what is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultChange {
    /// Requests are taken, and nothing is computed.
    pub stalled: Option<bool>,
    /// Steps take this many times as long.
    pub slowness: Option<f64>,
    /// Share of requests that fail.
    pub failure_ratio: Option<f64>,
}

/// A restart, with other flags if any are given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Flags that change; null goes back to the default.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// How long the engine loads.
    #[serde(default)]
    pub load_seconds: f64,
}

/// Something that cannot happen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IncidentError {
    /// A number that is none of its kind.
    #[error("{name} = {value}: {reason}")]
    Number {
        /// Which.
        name: &'static str,
        /// What it is.
        value: f64,
        /// What is meant.
        reason: &'static str,
    },
    /// Flags that cannot be.
    #[error(transparent)]
    Flag(#[from] FlagError),
}

impl Deployment {
    /// The settings of an engine with these flags.
    ///
    /// # Errors
    /// Flags that cannot be.
    pub fn settings(&self, flags: &FlagValues) -> Result<Settings, FlagError> {
        let mut settings = flags.settings(self.engine)?;
        if let Some(speculation) = &mut settings.speculation {
            speculation.acceptance_ratio = self.acceptance_ratio;
        }
        memory::apply(self.memory.as_ref(), flags, &mut settings)?;
        settings.check()?;
        Ok(settings)
    }
}

impl FaultChange {
    /// The faults after it.
    ///
    /// # Errors
    /// A slowness or a share that is none.
    pub fn applied(self, to: Faults) -> Result<Faults, IncidentError> {
        let refuse = |name, value, reason| {
            Err(IncidentError::Number {
                name,
                value,
                reason,
            })
        };
        if let Some(value) = self
            .slowness
            .filter(|value| !(value.is_finite() && *value > 0.0))
        {
            return refuse(
                "slowness",
                value,
                "steps take this many times as long: a number above 0",
            );
        }
        if let Some(value) = self
            .failure_ratio
            .filter(|value| !(0.0..=1.0).contains(value))
        {
            return refuse(
                "failure_ratio",
                value,
                "a share of requests is between 0 and 1",
            );
        }
        Ok(Faults {
            stalled: self.stalled.unwrap_or(to.stalled),
            slowness: self.slowness.unwrap_or(to.slowness),
            failure_ratio: self.failure_ratio.unwrap_or(to.failure_ratio),
        })
    }
}

impl Restart {
    /// Whether its load time is one.
    ///
    /// # Errors
    /// A time that is none.
    pub fn check(&self) -> Result<(), IncidentError> {
        let value = self.load_seconds;
        if value.is_finite() && value >= 0.0 {
            return Ok(());
        }
        Err(IncidentError::Number {
            name: "load_seconds",
            value,
            reason: "seconds are 0 or more",
        })
    }
}
