//! The samples that a measurement is made from, when somebody asks for it.

use std::sync::Arc;

use crate::engine::EngineProfile;
use crate::measure::{InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind};

/// The samples of a window. They are shared with the history and with the windows before and after.
#[derive(Debug)]
pub(super) struct WindowSamples {
    instance_id: String,
    profile: Arc<EngineProfile>,
    kind: WindowKind,
    replicas: Vec<ReplicaSamples>,
}

impl WindowSamples {
    pub(super) fn new(
        instance_id: String,
        profile: Arc<EngineProfile>,
        replicas: Vec<ReplicaSamples>,
    ) -> Self {
        let any_interval = replicas.iter().any(|replica| replica.samples.len() > 1);
        Self {
            instance_id,
            profile,
            kind: match any_interval {
                true => WindowKind::Interval,
                false => WindowKind::SinceStart,
            },
            replicas,
        }
    }

    /// The part of it that began no earlier than this scrape.
    pub(super) fn since(&self, tick: u32) -> Self {
        let replicas = self.replicas.iter().map(|replica| {
            let recent = replica.samples.iter().filter(|sample| sample.tick >= tick);
            ReplicaSamples {
                samples: recent.cloned().collect(),
                ..replica.clone()
            }
        });
        let (id, profile) = (self.instance_id.clone(), self.profile.clone());
        Self::new(id, profile, replicas.collect())
    }

    /// The measurement.
    pub(super) fn measure(&self) -> Measurement {
        let instance = InstanceSamples {
            instance_id: self.instance_id.clone(),
            profile: &self.profile,
            kind: self.kind,
            replicas: self.replicas.clone(),
        };
        instance.measure()
    }

    pub(super) fn replicas(&self) -> &[ReplicaSamples] {
        &self.replicas
    }

    pub(super) fn profile(&self) -> &EngineProfile {
        &self.profile
    }

    pub(super) fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The newest sample of each replica that is part of it.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Sample> {
        let replicas = self.replicas.iter();
        replicas.filter_map(|replica| replica.samples.last().map(AsRef::as_ref))
    }

    pub(super) fn version(&self) -> Option<&str> {
        let replicas = self.replicas.iter();
        replicas
            .filter_map(|replica| replica.probed.version_text.as_deref())
            .next()
    }
}
