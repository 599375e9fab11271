//! Instances: what an operator says of one, and what is wrong with it. Pure.

mod launch_args;
mod slos;
mod spec;
mod target;
mod violation;

use std::time::SystemTime;

pub use launch_args::{LaunchArgs, MAX_LAUNCH_ARGS, launch_args_violations};
pub use slos::{SloTable, slo_violations};
pub use spec::{
    DEFAULT_INTERVAL, DEFAULT_WINDOW, INTERVALS, InstanceSpec, MAX_INTERVALS, MAX_LABELS,
    MAX_WINDOW, default_window, label_violations,
};
pub use target::{MAX_REPLICAS, Target, shortened};
pub use violation::{FieldViolation, told, violations_text};

/// An instance that the agent knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// What the operator said.
    pub spec: InstanceSpec,
    /// Where it is from.
    pub source: Source,
    /// Rises with each change of it; none of a row of the config file.
    pub revision: Option<u64>,
    /// When it was registered; none of a row of the config file.
    pub created_at: Option<SystemTime>,
    /// When it was last changed; none of a row of the config file.
    pub updated_at: Option<SystemTime>,
}

/// Where an instance is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The config file: read-only.
    ConfigFile,
    /// A registration.
    Registered,
}

impl Instance {
    /// A read-only row of the config file.
    pub fn configured(spec: InstanceSpec) -> Self {
        Self {
            spec,
            source: Source::ConfigFile,
            revision: None,
            created_at: None,
            updated_at: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.spec.instance_id
    }

    /// What a change must name to be sure of what it changes; empty of what cannot be changed.
    pub fn etag(&self) -> String {
        self.revision
            .map(|revision| format!("r{revision}"))
            .unwrap_or_default()
    }
}
