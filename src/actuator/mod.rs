//! Actuators: what reads and writes the settings of an instance's targets.
//!
//! Settings are content: bytes that the actuator understands and perfagent does not, so that they are restored byte for
//! byte. A write is of a desired state: it names the revision that it replaces, and an epoch that rises with each holder of
//! a workflow, and is refused where either is stale. Repeating one changes nothing.

pub mod check;
mod command;
mod entry;
mod none;
mod registry;
mod simulator;
mod slot;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

pub use command::CommandActuator;
pub use entry::{ACTUATOR_KEYS, ActuatorEntry, ActuatorEntryError, ActuatorKind};
pub use none::{NONE, NoActuator};
pub use registry::Actuators;
pub use simulator::SimulatorActuator;
pub use slot::Slot;

/// Most bytes of the settings of one target.
pub const MAX_CONTENT_BYTES: usize = 256 << 10;

/// The instance whose settings are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActuatedInstance {
    /// Its id.
    pub instance_id: String,
    /// Engine, as in `instance_type`; none where it is not known.
    pub engine: Option<String>,
    /// One URL a replica.
    pub metrics_urls: Vec<String>,
    /// What the operator tells instances apart by.
    pub labels: BTreeMap<String, String>,
}

/// The settings of one target: a replica, or what several share.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetSettings {
    /// Its name, unique within the instance.
    pub name: String,
    /// Changes with each change of the content.
    pub revision: String,
    /// The settings, as the actuator keeps them. May hold secrets.
    pub content: Vec<u8>,
    /// Launch arguments that they come to, each word its own. May hold secrets.
    pub launch_args: Vec<String>,
    /// Whether it runs with these settings, and serves.
    pub ready: bool,
    /// The operation that wrote them last, where a workflow did.
    pub operation_id: Option<String>,
    /// The highest epoch that wrote here.
    pub epoch: Option<u64>,
    /// Of a target that is one replica, the URL of its metrics, as the instance says it.
    pub metrics_url: Option<String>,
    /// Whether it takes new requests; none where the actuator does not route any.
    pub takes_requests: Option<bool>,
}

/// What becomes of settings when launch arguments change.
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedSettings {
    /// The settings, as the actuator would keep them. May hold secrets.
    pub content: Vec<u8>,
    /// The engine has to be restarted.
    pub needs_restart: bool,
}

/// Why settings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A planned change.
    Apply,
    /// What was there before.
    Restore,
}

impl Purpose {
    /// What actuators are asked with it.
    pub fn op(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Restore => "restore",
        }
    }
}

impl TargetSettings {
    /// The field in which these settings are not what a write, that is said to be done, was to make of them.
    pub fn is_not(&self, write: &SettingsWrite) -> Option<&'static str> {
        let operation_id = self.operation_id.as_ref();
        let claims = [
            ("name", self.name == write.target),
            ("content_base64", self.content == write.content),
            ("operation_id", operation_id == Some(&write.operation_id)),
            ("epoch", self.epoch == Some(write.epoch)),
        ];
        let wrong = claims.iter().find(|(_, holds)| !holds);
        wrong.map(|(field, _)| *field)
    }
}

/// A write of settings.
#[derive(Clone, PartialEq, Eq)]
pub struct SettingsWrite {
    /// Of which target.
    pub target: String,
    /// Why.
    pub purpose: Purpose,
    /// Id of the operation, the same for each repeat of it.
    pub operation_id: String,
    /// Epoch of the holder of the workflow.
    pub epoch: u64,
    /// Revision that it replaces.
    pub expect_revision: String,
    /// What the settings become.
    pub content: Vec<u8>,
}

/// Has a target take new requests, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// Which target.
    pub target: String,
    /// Whether it is to take new requests. Those that it has it finishes.
    pub takes_requests: bool,
    /// Epoch of the holder of the workflow.
    pub epoch: u64,
}

/// Reads and writes the settings of the targets of instances.
#[async_trait]
pub trait Actuator: Debug + Send + Sync {
    /// Its name, as instances say it.
    fn name(&self) -> &str;

    /// `none`, `command` or `simulator`.
    fn kind(&self) -> &'static str;

    /// Whether it can change anything.
    fn drives(&self) -> bool {
        true
    }

    /// How long one call may take; calls end by themselves.
    fn timeout(&self) -> Duration;

    /// Waits until there is room for a workflow that is about to make calls, and keeps that room for it. Calls do not wait
    /// for it themselves.
    async fn slot(&self) -> Slot {
        Slot::free()
    }

    /// Why each write would be refused now, where that is known before: plans can be made, and would fail.
    async fn refuses(&self) -> Option<ActuatorError> {
        None
    }

    /// The settings of all targets of an instance, in the order in which they are to be changed.
    ///
    /// # Errors
    /// See [`ActuatorError`].
    async fn read(&self, instance: &ActuatedInstance)
    -> Result<Vec<TargetSettings>, ActuatorError>;

    /// What the settings of a target become with other launch arguments. Changes nothing.
    ///
    /// # Errors
    /// See [`ActuatorError`].
    async fn plan(
        &self,
        instance: &ActuatedInstance,
        target: &TargetSettings,
        launch_args: &[String],
    ) -> Result<PlannedSettings, ActuatorError>;

    /// Writes settings and begins to bring them into force, and answers with what is there afterwards. A repeat of an
    /// operation whose content is there already changes nothing, restarts nothing, and answers as before.
    ///
    /// # Errors
    /// [`ActuatorError::StaleRevision`] and [`ActuatorError::StaleEpoch`] where nothing was changed; after any other it is
    /// not known what was.
    async fn write(
        &self,
        instance: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError>;

    /// Has a target take new requests, or none, and answers with what is there afterwards. A repeat changes nothing. Asked
    /// only of targets that say whether they take requests.
    ///
    /// # Errors
    /// [`ActuatorError::StaleEpoch`] where nothing was changed; after any other it is not known what was.
    async fn route(
        &self,
        instance: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        let _ = (instance, routing);
        Err(ActuatorError::Failed {
            actuator: self.name().to_owned(),
            op: ROUTE,
            message: "it does not route requests".to_owned(),
        })
    }
}

/// What actuators are asked for [`Actuator::route`].
pub const ROUTE: &str = "route";

/// Why an actuator did not do what it was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ActuatorError {
    /// The settings are others than the write was to replace; nothing was changed.
    #[error("the settings of {target} are at revision {current}, not at {expected}")]
    StaleRevision {
        /// Of which target.
        target: String,
        /// What the write named.
        expected: String,
        /// What there is.
        current: String,
    },
    /// A later holder has written there; nothing was changed.
    #[error("{target} was written with epoch {current}, after {epoch}")]
    StaleEpoch {
        /// Of which target.
        target: String,
        /// Of the write.
        epoch: u64,
        /// Of what is there.
        current: u64,
    },
    /// It took too long, and was ended.
    #[error("{actuator} did not answer `{op}` within {seconds} s, and was ended")]
    TimedOut {
        /// Name of the actuator.
        actuator: String,
        /// What it was asked.
        op: &'static str,
        /// How long it had.
        seconds: f64,
    },
    /// It failed.
    #[error("{actuator} failed at `{op}`: {message}")]
    Failed {
        /// Name of the actuator.
        actuator: String,
        /// What it was asked.
        op: &'static str,
        /// What it said, shortened, without control characters.
        message: String,
    },
    /// What it answered is no answer.
    #[error("{actuator} answered `{op}` with what is no answer: {message}")]
    Protocol {
        /// Name of the actuator.
        actuator: String,
        /// What it was asked.
        op: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// There is no such target.
    #[error("{actuator} has no target {target} for {instance_id}")]
    NoTarget {
        /// Name of the actuator.
        actuator: String,
        /// Id of the instance.
        instance_id: String,
        /// What was asked for.
        target: String,
    },
    /// A program that has not shown what it does with settings.
    #[error(
        "{actuator} writes no settings: {reason}; run `perfagent actuator check {actuator}`, or set `unsafe = true`"
    )]
    Unchecked {
        /// Name of the actuator.
        actuator: String,
        /// Why it counts as not checked.
        reason: String,
    },
    /// It drives nothing.
    #[error("the actuator `none` drives nothing: give the instance an actuator of the config file")]
    DrivesNothing,
}

impl ActuatorError {
    /// Nothing was changed, for certain.
    pub fn changed_nothing(&self) -> bool {
        matches!(
            self,
            Self::StaleRevision { .. }
                | Self::StaleEpoch { .. }
                | Self::Unchecked { .. }
                | Self::DrivesNothing
        )
    }
}

/// SHA-256 of settings, in hexadecimal: what events and answers show of them.
pub fn content_digest(content: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, content);
    crate::units::hex(digest.as_ref())
}

// settings can hold secrets: no log shows them

impl Debug for TargetSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TargetSettings")
            .field("name", &self.name)
            .field("revision", &self.revision)
            .field("digest", &content_digest(&self.content))
            .field("ready", &self.ready)
            .field("operation_id", &self.operation_id)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Debug for PlannedSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PlannedSettings")
            .field("digest", &content_digest(&self.content))
            .field("needs_restart", &self.needs_restart)
            .finish_non_exhaustive()
    }
}

impl Debug for SettingsWrite {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SettingsWrite")
            .field("target", &self.target)
            .field("purpose", &self.purpose)
            .field("operation_id", &self.operation_id)
            .field("epoch", &self.epoch)
            .field("expect_revision", &self.expect_revision)
            .field("digest", &content_digest(&self.content))
            .finish_non_exhaustive()
    }
}
