//! The actuators that there are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Actuator;
use super::command::CommandActuator;
use super::entry::{ActuatorEntry, ActuatorEntryError, ActuatorKind, check};
use super::none::{NONE, NoActuator};
use super::simulator::SimulatorActuator;
use crate::instance::FieldViolation;
use crate::scrape::{FetchLimits, Fetcher, UrlPolicy};
use crate::units::nearest;

/// The actuators that there are, by name; `none` is always there.
#[derive(Debug, Clone)]
pub struct Actuators(BTreeMap<String, Arc<dyn Actuator>>);

impl Default for Actuators {
    fn default() -> Self {
        let none: Arc<dyn Actuator> = Arc::new(NoActuator);
        Self([(NONE.to_owned(), none)].into())
    }
}

impl Actuators {
    /// `none`, and those of the config file. Programs that passed their check are known by their records in this
    /// directory; simulators are asked under this policy and within these limits.
    ///
    /// # Errors
    /// The first entry that cannot be used.
    pub fn new(
        entries: &[ActuatorEntry],
        records: Option<&Path>,
        (policy, limits): (&UrlPolicy, FetchLimits),
    ) -> Result<Self, ActuatorEntryError> {
        check(entries)?;
        let mut actuators = Self::default();
        for entry in entries {
            let actuator: Arc<dyn Actuator> = match entry.kind {
                ActuatorKind::Command => Arc::new(CommandActuator::new(entry, records)),
                ActuatorKind::Simulator => {
                    let fetcher = Fetcher::new(policy.clone(), limits);
                    let fetcher = fetcher.map_err(|error| ActuatorEntryError {
                        name: entry.name.clone(),
                        problem: error.to_string(),
                    })?;
                    Arc::new(SimulatorActuator::new(&entry.name, entry.timeout, fetcher))
                }
            };
            actuators.0.insert(entry.name.clone(), actuator);
        }
        Ok(actuators)
    }

    /// Adds one, in place of one of the same name.
    pub fn add(&mut self, actuator: Arc<dyn Actuator>) {
        self.0.insert(actuator.name().to_owned(), actuator);
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Actuator>> {
        self.0.get(name)
    }

    /// Names with kinds, in the order of the names.
    pub fn names(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.0
            .iter()
            .map(|(name, actuator)| (name.as_str(), actuator.kind()))
    }

    /// What is wrong with an instance that names this actuator.
    pub fn violation(&self, name: &str) -> Option<FieldViolation> {
        if self.0.contains_key(name) {
            return None;
        }
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let meant = nearest(name, names.iter().copied()).unwrap_or(NONE);
        let shown = crate::instance::shortened(name);
        let description = format!(
            "no actuator `{shown}`; known are {}; the nearest is `{meant}`; actuators are defined in [[actuators]] of the agent's config file",
            names.join(", ")
        );
        Some(FieldViolation::new("actuator", description))
    }
}
