//! Saying what holds an instance back: of its last window, of a target measured now, of a measurement that is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Agent, Answer, Caller, Error, FieldViolation, LatestAnswer, Target, WindowRequest};
use crate::analysis::{
    Compliance, Diagnosis, HealthScore, Slo, Targets, Thresholds, Usage, diagnose, evaluate,
    health_score,
};
use crate::instance::shortened;
use crate::measure::{Measurement, Note, Window};
use crate::scrape::ScrapeError;

/// What checks go by.
#[derive(Debug, Clone, Copy)]
pub struct Diagnosing<'t> {
    /// Thresholds in force.
    pub thresholds: &'t Thresholds,
    /// What users were promised.
    pub slos: &'t Arc<[Slo]>,
    /// What was used in the minutes before; none where they were not kept.
    pub usage: Option<Usage>,
}

/// What was found, and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosed {
    /// Id of the instance.
    pub instance_id: String,
    /// Engine, as in `instance_type`.
    pub engine: String,
    /// Version as the engine writes it.
    pub engine_version: Option<String>,
    /// Served model, as the engine labels its series.
    pub model_name: Option<String>,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// When.
    pub window: Window,
    /// What a reader must know of the measurement.
    pub notes: Vec<Note>,
    /// What was found.
    pub diagnosis: Diagnosis,
    /// What users were promised.
    pub slos: Arc<[Slo]>,
    /// How that was kept.
    pub compliances: Vec<Compliance>,
    /// How healthy it is; none where nothing could be told.
    pub health: Option<HealthScore>,
}

/// What was found, and whether it still tells how things are.
#[derive(Debug, Clone)]
pub struct DiagnosisAnswer {
    /// What was found.
    pub diagnosed: Arc<Diagnosed>,
    /// It is about a window that is older than two intervals, or from before a scrape that failed.
    pub stale: bool,
    /// Why the last scrape of a replica failed, if it did.
    pub failure: Option<ScrapeError>,
}

impl Diagnosing<'_> {
    /// What holds the instance back that this was measured of.
    pub fn diagnosed(self, measurement: &Measurement) -> Diagnosed {
        let targets = Targets::of(self.slos);
        let diagnosis = diagnose(measurement, self.thresholds, &targets, self.usage.as_ref());
        let compliances = evaluate(measurement, self.slos);
        Diagnosed {
            instance_id: measurement.instance_id.clone(),
            engine: measurement.engine.clone(),
            engine_version: measurement.engine_version.clone(),
            model_name: measurement.model_name.clone(),
            simulated: measurement.simulated,
            window: measurement.window,
            notes: measurement.notes.clone(),
            health: health_score(&diagnosis, &compliances),
            diagnosis,
            slos: self.slos.clone(),
            compliances,
        }
    }
}

impl Agent {
    /// The thresholds in force.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Says what holds a target back: an inline one is measured now; of an instance it is about the last window, or
    /// about one measured now where a window is asked for.
    ///
    /// # Errors
    /// What [`Agent::measure`] gives, and a threshold that cannot be.
    pub async fn detect(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
        thresholds: &BTreeMap<String, f64>,
    ) -> Result<DiagnosisAnswer, Error> {
        // before the window passes
        let changed = self.with_changed(thresholds)?;
        let answer = self.measure(caller, target, window).await?;
        let slos = self.slos_of(&target.instance_id);
        let by = Diagnosing {
            thresholds: &changed,
            slos: &slos,
            usage: self.usage_of(&target.instance_id),
        };
        Ok(match answer {
            Answer::Now(measurement) => DiagnosisAnswer::now(by.diagnosed(&measurement)),
            Answer::Latest(LatestAnswer {
                latest,
                stale,
                failure,
            }) => DiagnosisAnswer {
                // SLOs may have changed since
                diagnosed: match thresholds.is_empty() && latest.diagnosed().slos == slos {
                    true => latest.diagnosed().clone(),
                    false => latest.look(|measurement| Arc::new(by.diagnosed(measurement))),
                },
                stale,
                failure,
            },
        })
    }

    /// Says what holds the instance back that this was measured of.
    ///
    /// # Errors
    /// A threshold that cannot be.
    pub fn diagnose(
        &self,
        measurement: &Measurement,
        thresholds: &BTreeMap<String, f64>,
    ) -> Result<DiagnosisAnswer, Error> {
        let by = Diagnosing {
            thresholds: &self.with_changed(thresholds)?,
            slos: &self.slos_of(&measurement.instance_id),
            usage: self.usage_of(&measurement.instance_id),
        };
        Ok(DiagnosisAnswer::now(by.diagnosed(measurement)))
    }

    /// What the users of an instance were promised; of one that is not registered, by its id only.
    pub(super) fn slos_of(&self, instance_id: &str) -> Arc<[Slo]> {
        match self.fleet.get(instance_id) {
            Some(known) => known.slos.clone(),
            None => self.slos.of_id(instance_id),
        }
    }

    /// What was used of an instance in the minutes that are kept.
    fn usage_of(&self, instance_id: &str) -> Option<Usage> {
        let known = self.fleet.get(instance_id)?;
        Some(known.minutes.usage(self.fleet.minute()))
    }

    /// Whether thresholds can be changed so.
    ///
    /// # Errors
    /// One that there is not, or a value that makes no sense.
    pub fn check_thresholds(&self, changes: &BTreeMap<String, f64>) -> Result<(), Error> {
        self.with_changed(changes).map(drop)
    }

    fn with_changed(&self, changes: &BTreeMap<String, f64>) -> Result<Thresholds, Error> {
        let there_are = Thresholds::TABLE.len();
        if changes.len() > there_are {
            let many = format!(
                "{} thresholds; there are {there_are}, and GetCapabilities lists them",
                changes.len()
            );
            return Err(Error::Invalid(vec![FieldViolation::new(
                "thresholds",
                many,
            )]));
        }
        let mut thresholds = self.thresholds().clone();
        let mut violations = Vec::new();
        for (name, value) in changes {
            if let Err(error) = thresholds.set(name, *value) {
                let field = format!("thresholds[\"{}\"]", shortened(name));
                violations.push(FieldViolation::new(field, error.to_string()));
            }
        }
        match violations.is_empty() {
            true => Ok(thresholds),
            false => Err(Error::Invalid(violations)),
        }
    }
}

impl DiagnosisAnswer {
    fn now(diagnosed: Diagnosed) -> Self {
        Self {
            diagnosed: Arc::new(diagnosed),
            stale: false,
            failure: None,
        }
    }
}
