//! Saying how SLOs were kept: over the last window, over one measured now, by a measurement that is given.

use std::sync::Arc;

use super::{Agent, Answer, Caller, Error, Target, WindowRequest};
use crate::analysis::{Compliance, ComplianceStatus, ErrorBudget, Slo, error_budgets, evaluate};
use crate::instance::slo_violations;
use crate::measure::{Measurement, Note, Window};
use crate::scrape::ScrapeError;

/// How SLOs were kept, and what that is about.
#[derive(Debug, Clone, PartialEq)]
pub struct SloAnswer {
    /// Id of the instance.
    pub instance_id: String,
    /// Engine, as in `instance_type`.
    pub engine: String,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// When.
    pub window: Window,
    /// What a reader must know of the measurement.
    pub notes: Vec<Note>,
    /// Each SLO.
    pub compliances: Vec<Compliance>,
    /// How fast their budgets are spent, of an instance whose SLOs in force these are.
    pub budgets: Vec<ErrorBudget>,
    /// It is about a window that is older than two intervals, or from before a scrape that failed.
    pub stale: bool,
    /// Why the last scrape of a replica failed, if it did.
    pub failure: Option<ScrapeError>,
}

impl SloAnswer {
    fn of(measurement: &Measurement, slos: &[Slo]) -> Self {
        Self {
            instance_id: measurement.instance_id.clone(),
            engine: measurement.engine.clone(),
            simulated: measurement.simulated,
            window: measurement.window,
            notes: measurement.notes.clone(),
            compliances: evaluate(measurement, slos),
            budgets: Vec::new(),
            stale: false,
            failure: None,
        }
    }

    /// All of them in short: missed where one is, else unknown where one is, else kept.
    pub fn status(&self) -> ComplianceStatus {
        let any = |status| self.compliances.iter().any(|one| one.status == status);
        [ComplianceStatus::Violated, ComplianceStatus::Unknown]
            .into_iter()
            .find(|status| any(*status))
            .unwrap_or(ComplianceStatus::Met)
    }
}

impl Agent {
    /// Says how SLOs were kept by a target: an inline one is measured now; of an instance it is about the last window, or
    /// about one measured now where a window is asked for. Without SLOs those in force are meant.
    ///
    /// # Errors
    /// What [`Agent::measure`] gives, and SLOs that cannot be.
    pub async fn evaluate_slos(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
        slos: Vec<Slo>,
    ) -> Result<SloAnswer, Error> {
        let in_force = slos.is_empty();
        // before the window passes
        let slos = self.slos_or_in_force(&target.instance_id, slos)?;
        let mut answer = match self.measure(caller, target, window).await? {
            Answer::Now(measurement) => SloAnswer::of(&measurement, &slos),
            Answer::Latest(latest) => SloAnswer {
                stale: latest.stale,
                failure: latest.failure,
                ..latest.latest.look(|one| SloAnswer::of(one, &slos))
            },
        };
        if in_force && target.metrics_urls.is_empty() {
            let state = self.instance(&target.instance_id)?;
            answer.budgets = error_budgets(&state.minutes, &slos, self.fleet.minute());
        }
        Ok(answer)
    }

    /// Says how SLOs were kept by the instance that this was measured of.
    ///
    /// # Errors
    /// SLOs that cannot be.
    pub fn evaluate_measured(
        &self,
        measurement: &Measurement,
        slos: Vec<Slo>,
    ) -> Result<SloAnswer, Error> {
        let slos = self.slos_or_in_force(&measurement.instance_id, slos)?;
        Ok(SloAnswer::of(measurement, &slos))
    }

    /// Whether these can be held against.
    ///
    /// # Errors
    /// SLOs that cannot be.
    pub fn check_slos(&self, slos: &[Slo]) -> Result<(), Error> {
        match slo_violations("slos", slos) {
            wrong if wrong.is_empty() => Ok(()),
            wrong => Err(Error::Invalid(wrong)),
        }
    }

    fn slos_or_in_force(&self, instance_id: &str, slos: Vec<Slo>) -> Result<Arc<[Slo]>, Error> {
        if slos.is_empty() {
            return Ok(self.slos_of(instance_id));
        }
        self.check_slos(&slos)?;
        Ok(slos.into())
    }
}
