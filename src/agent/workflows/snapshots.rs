//! Snapshots of the settings of instances: taken, listed, read.

use std::sync::Arc;

use super::site::{Site, actuated};
use super::start::note_violation;
use super::verbs::MAX_PAGE;
use crate::agent::{Agent, Caller, Error};
use crate::store::Snapshot;

/// A part of the list of snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotsPage {
    /// Snapshots, the newest first.
    pub snapshots: Vec<Snapshot>,
    /// There are more.
    pub more: bool,
}

impl Agent {
    /// Keeps the settings of an instance as they are.
    ///
    /// # Errors
    /// An instance that there is not or that has no actuator, an actuator that fails, the store.
    pub async fn create_snapshot(
        self: &Arc<Self>,
        caller: &Caller,
        instance_id: &str,
        note: &str,
    ) -> Result<Snapshot, Error> {
        if let Some(wrong) = note_violation(note) {
            return Err(Error::Invalid(vec![wrong]));
        }
        let (_, store) = self.workflows_and_store()?;
        let known = self.instance(instance_id)?;
        let spec = &known.instance.spec;
        let none = || Error::NoActuator(instance_id.to_owned());
        let actuator = spec.actuator.as_deref().ok_or_else(none)?;
        let actuator = self
            .actuators
            .get(actuator)
            .filter(|actuator| actuator.drives());
        let engine = known
            .latest
            .as_ref()
            .map(|latest| latest.engine().to_owned());
        let site = Site {
            target: spec.target(),
            instance: actuated(spec, spec.instance_type.clone().or(engine)),
            actuator: actuator.ok_or_else(none)?.clone(),
        };
        let settings = site.actuator.read(&site.instance).await?;
        if let Some(first) = settings.first() {
            self.heard(&site, &first.launch_args);
        }
        let snapshot = self.snapshot_of(&site, &settings, &caller.principal, note);
        store.put_snapshot(&snapshot).await?;
        Ok(snapshot)
    }

    /// Snapshots, the newest first, from before this id on, without their content.
    ///
    /// # Errors
    /// The store.
    pub async fn snapshots(
        &self,
        instance_id: Option<&str>,
        before: Option<&str>,
        size: u32,
    ) -> Result<SnapshotsPage, Error> {
        let (_, store) = self.workflows_and_store()?;
        let size = size.clamp(1, MAX_PAGE);
        let mut snapshots = store.snapshots(instance_id, before, size + 1).await?;
        let more = snapshots.len() > size as usize;
        snapshots.truncate(size as usize);
        Ok(SnapshotsPage { snapshots, more })
    }

    /// A snapshot with its content.
    pub(super) async fn stored_snapshot(&self, id: &str) -> Result<Snapshot, Error> {
        let (_, store) = self.workflows_and_store()?;
        let found = store.snapshot(id).await?;
        found.ok_or_else(|| Error::NoSnapshot(id.to_owned()))
    }
}
