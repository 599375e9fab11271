//! What advice rests on, gathered before any work that takes long.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::{About, Subject};
use super::calls::settings_in_force;
use crate::agent::{Agent, Answer, Caller, Error, FieldViolation};
use crate::analysis::{Finding, Slo, Targets, Thresholds, Usage, diagnose};
use crate::engine::EngineProfile;
use crate::instance::shortened;
use crate::measure::Measurement;
use crate::model::StepWindow;
use crate::optimization::{InForce, Limits, Situation};

/// What advice rests on.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) about: About,
    pub(super) profile: Arc<EngineProfile>,
    pub(super) measurement: Option<Box<Measurement>>,
    /// It is a registered instance's, by our own measurement.
    pub(super) is_ours: bool,
    /// Findings that were given; none where the measurement tells.
    found: Option<Vec<Finding>>,
    known: Known,
    thresholds: Arc<Thresholds>,
}

/// What is known of an instance beside the measurement.
#[derive(Debug)]
struct Known {
    slos: Arc<[Slo]>,
    usage: Option<Usage>,
    windows: Vec<StepWindow>,
    launch_args: Vec<String>,
}

impl Agent {
    /// Looks at what advice is about; measures it where that is asked for.
    pub(super) async fn look_at(&self, caller: &Caller, subject: Subject) -> Result<Looked, Error> {
        match subject {
            Subject::Target(target, window) => {
                let is_ours = target.metrics_urls.is_empty();
                let (measurement, stale, failure) =
                    match self.measure(caller, &target, window).await? {
                        Answer::Now(measurement) => (measurement, false, None),
                        Answer::Latest(latest) => (
                            Box::new(latest.latest.look(Measurement::clone)),
                            latest.stale,
                            latest.failure,
                        ),
                    };
                let mut looked = self.looked_at(measurement, is_ours)?;
                looked.about.stale = stale;
                looked.about.failure = failure;
                looked.is_ours = is_ours;
                Ok(looked)
            }
            // sent back: what the instance itself would be told
            Subject::Measurement(measurement) => self.looked_at(measurement, true),
            Subject::Findings {
                instance_id,
                engine,
                findings,
            } => Ok(Looked {
                profile: self.profile(&engine)?,
                measurement: None,
                is_ours: false,
                found: Some(findings),
                known: self.known_of(&instance_id, true),
                thresholds: self.thresholds.clone(),
                about: About {
                    instance_id,
                    engine,
                    ..About::default()
                },
            }),
        }
    }

    fn looked_at(&self, measurement: Box<Measurement>, is_instance: bool) -> Result<Looked, Error> {
        Ok(Looked {
            about: About {
                instance_id: measurement.instance_id.clone(),
                engine: measurement.engine.clone(),
                engine_version: measurement.engine_version.clone(),
                simulated: measurement.simulated,
                window: Some(measurement.window),
                notes: measurement.notes.clone(),
                ..About::default()
            },
            profile: self.profile(&measurement.engine)?,
            is_ours: false,
            found: None,
            known: self.known_of(&measurement.instance_id, is_instance),
            thresholds: self.thresholds.clone(),
            measurement: Some(measurement),
        })
    }

    /// What is known of this id; of an inline target only what holds for every one of its id.
    fn known_of(&self, instance_id: &str, is_instance: bool) -> Known {
        let state = self.fleet.get(instance_id).filter(|_| is_instance);
        Known {
            slos: self.slos_of(instance_id),
            usage: state
                .as_ref()
                .map(|state| state.minutes.usage(self.fleet.minute())),
            windows: state
                .as_ref()
                .map(|state| state.load_range.windows())
                .unwrap_or_default(),
            launch_args: state
                .map(|state| self.actuated.launch_args(&state.instance))
                .unwrap_or_default(),
        }
    }

    fn profile(&self, engine: &str) -> Result<Arc<EngineProfile>, Error> {
        self.registry.get(engine).cloned().ok_or_else(|| {
            let engine = shortened(engine);
            let description = format!("no engine `{engine}` is known here");
            Error::Invalid(vec![FieldViolation::new("instance_type", description)])
        })
    }
}

impl Looked {
    /// The settings in force, and what could not be used of those that are given.
    pub(super) fn in_force(
        &self,
        given: &BTreeMap<String, Option<String>>,
    ) -> (InForce, Vec<String>) {
        let measurement = self.measurement.as_deref();
        let measured = measurement.map(|measurement| (measurement, &*self.thresholds));
        settings_in_force(&self.profile, measured, &self.known.launch_args, given)
    }

    /// Does this with all that a recommendation goes by, and the windows at other load.
    pub(super) fn with<T>(
        &self,
        in_force: &InForce,
        limits: &Limits,
        work: impl FnOnce(&Situation<'_>, &[StepWindow]) -> T,
    ) -> T {
        let targets = Targets::of(&self.known.slos);
        let measurement = self.measurement.as_deref();
        let found = measurement
            .filter(|_| self.found.is_none())
            .map(|measurement| {
                let usage = self.known.usage.as_ref();
                diagnose(measurement, &self.thresholds, &targets, usage).findings
            });
        let situation = Situation {
            profile: &self.profile,
            measurement,
            findings: self
                .found
                .as_ref()
                .or(found.as_ref())
                .map_or(&[], Vec::as_slice),
            in_force,
            thresholds: &self.thresholds,
            targets: &targets,
            limits,
        };
        work(&situation, &self.known.windows)
    }
}
