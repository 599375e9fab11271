//! One simulated replica: the model, and what its engine shows of it.

use serde_json::Value;

use crate::engine::SIMULATED_FAMILY;
use crate::model::{Event, Faults, Gauges, Policy, Settings, Simulation, Sink};

use super::deployment::{Deployment, FaultChange, Incident, IncidentError, Restart};
use super::flags::{FlagError, FlagValues};
use super::memory;
use super::page::{Page, Style};
use super::scenario::ScenarioError;
use super::sglang::Sglang;
use super::tgi::Tgi;
use super::vllm::Vllm;

/// One replica. Its time is given from outside, in seconds since it was started.
#[derive(Debug, Clone)]
pub struct Replica {
    simulation: Simulation,
    shown: Shown,
    deployment: Deployment,
    flags: FlagValues,
    /// What will happen, the next at the end.
    incidents: Vec<Incident>,
    start_unix_seconds: f64,
    /// How far it was asked to go.
    reached: f64,
    restarts: u32,
}

/// What an engine shows.
#[derive(Debug, Clone)]
enum Shown {
    Vllm(Box<Vllm>),
    Sglang(Box<Sglang>),
    Tgi(Box<Tgi>),
}

impl Sink for Shown {
    fn event(&mut self, now: f64, event: &Event) {
        match self {
            Self::Vllm(of) => of.count(event),
            Self::Sglang(of) => of.count(now, event),
            Self::Tgi(of) => of.count(event),
        }
    }
}

impl Shown {
    fn new(
        settings: &Settings,
        given: &FlagValues,
        of: &Deployment,
        started: f64,
        start_unix_seconds: f64,
    ) -> Self {
        let frontend_seconds = of.step_time.frontend_seconds;
        match settings.policy {
            Policy::Vllm => {
                let created = start_unix_seconds + started;
                Self::Vllm(Box::new(Vllm::new(
                    settings,
                    given,
                    frontend_seconds,
                    created,
                )))
            }
            Policy::Sglang => Self::Sglang(Box::new(Sglang::new(
                settings,
                &of.step_time,
                of.device_timer,
                memory::share(settings.policy, given),
                of.memory.is_none() || given.has("max-total-tokens"),
                started,
            ))),
            Policy::Tgi => Self::Tgi(Box::new(Tgi::new(settings, frontend_seconds))),
        }
    }
}

impl Replica {
    /// The replica of this number, counted from 0, started at this unix time.
    ///
    /// # Errors
    /// What cannot be simulated.
    pub fn new(
        of: &Deployment,
        number: u32,
        start_unix_seconds: f64,
    ) -> Result<Self, ScenarioError> {
        let settings = of.settings(&of.flags)?;
        let place = (number, of.replicas);
        let simulation = Simulation::new(settings.clone(), of.step_time, of.load.clone(), place)?;
        let mine = |incident: &&Incident| incident.replica.is_none_or(|replica| replica == number);
        Ok(Self {
            shown: Shown::new(&settings, &of.flags, of, 0.0, start_unix_seconds),
            simulation,
            flags: of.flags.clone(),
            incidents: of.incidents.iter().filter(mine).rev().cloned().collect(),
            deployment: of.clone(),
            start_unix_seconds,
            reached: 0.0,
            restarts: 0,
        })
    }

    /// Lets time pass until then, in seconds since the start; the step that is under way is finished.
    pub fn run_until(&mut self, seconds: f64) {
        self.run_until_with(seconds, &mut ());
    }

    /// The same, and tells somebody else too.
    pub fn run_until_with(&mut self, seconds: f64, other: &mut impl Sink) {
        while let Some(incident) = self
            .incidents
            .pop_if(|incident| incident.at_seconds <= seconds)
        {
            self.simulation
                .run_until(incident.at_seconds, &mut (&mut self.shown, &mut *other));
            // whether these are possible was found out before the start
            let _ = self.change_faults(incident.faults);
            if let Some(restart) = incident.restart {
                let _ = self.restart(&restart);
            }
        }
        self.simulation
            .run_until(seconds, &mut (&mut self.shown, other));
        self.reached = self.reached.max(seconds);
    }

    /// How far it has come, in seconds since the start.
    pub fn reached(&self) -> f64 {
        self.reached
    }

    /// Unix time of the simulation.
    pub fn now_unix_seconds(&self) -> f64 {
        self.start_unix_seconds + self.reached
    }

    /// Whether it answers; not while it loads.
    pub fn is_up(&self) -> bool {
        self.simulation.is_up()
    }

    /// The page of metrics, every value with its time where that is wanted.
    pub fn metrics(&self, stamped: bool) -> String {
        let style = match self.shown {
            Shown::Tgi(_) => Style::Rust,
            _ => Style::Python,
        };
        let mut page = Page::new(style, stamped.then(|| self.now_unix_seconds()));
        page.single(
            SIMULATED_FAMILY,
            "gauge",
            "These numbers are of a simulation.",
            &[],
            1.0,
        );
        let gauges = self.simulation.gauges();
        match &self.shown {
            Shown::Vllm(of) => of.write(&mut page, &self.deployment.model_name, &gauges),
            Shown::Sglang(of) => of.write(
                &mut page,
                &self.deployment.model_name,
                &gauges,
                self.reached,
            ),
            Shown::Tgi(of) => of.write(&mut page, &gauges),
        }
        page.finish()
    }

    /// Media type of the page.
    pub fn content_type(&self) -> &'static str {
        match self.shown {
            Shown::Vllm(_) => "text/plain; version=1.0.0; charset=utf-8",
            Shown::Sglang(_) => "text/plain; version=0.0.4; charset=utf-8",
            Shown::Tgi(_) => "text/plain; charset=utf-8",
        }
    }

    /// What a path beside `/metrics` and `/health` answers, as JSON; none where the engine has no such path.
    pub fn answer(&self, path: &str, query: Option<&str>) -> Option<Value> {
        match &self.shown {
            Shown::Vllm(of) => of.answer(path, query, &self.deployment.model_name),
            Shown::Sglang(of) => {
                of.answer(path, &self.deployment.model_name, &self.simulation.gauges())
            }
            Shown::Tgi(of) => of.answer(path, &self.deployment.model_name),
        }
    }

    /// How it is now.
    pub fn gauges(&self) -> Gauges {
        self.simulation.gauges()
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        self.simulation.settings()
    }

    /// What is wrong with it.
    pub fn faults(&self) -> Faults {
        self.simulation.faults()
    }

    /// Has other things be wrong with it.
    ///
    /// # Errors
    /// Numbers that are none of their kind; nothing changes.
    pub fn change_faults(&mut self, change: FaultChange) -> Result<(), IncidentError> {
        let faults = change.applied(self.simulation.faults())?;
        self.simulation.set_faults(faults);
        Ok(())
    }

    /// Whether new requests come to it.
    pub fn takes_requests(&self) -> bool {
        self.simulation.takes_requests()
    }

    /// From now on new requests come to it, or none; those that it has it finishes.
    pub fn take_requests(&mut self, takes: bool) {
        self.simulation.take_requests(takes);
    }

    /// How often it was restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Flags that it was started with last.
    pub fn flags(&self) -> &FlagValues {
        &self.flags
    }

    /// Starts the engine anew: its requests fail, its cache and its counters are empty, and it loads for so long.
    ///
    /// # Errors
    /// Flags that cannot be; it goes on as it was.
    pub fn restart(&mut self, how: &Restart) -> Result<(), IncidentError> {
        how.check()?;
        let mut flags = self.flags.clone();
        flags.change(&how.settings);
        let settings = self.deployment.settings(&flags)?;
        self.simulation
            .restart(settings.clone(), how.load_seconds, &mut ())
            .map_err(FlagError::from)?;
        // what is counted is created when the engine is up
        let started = self.simulation.now() + how.load_seconds;
        self.shown = Shown::new(
            &settings,
            &flags,
            &self.deployment,
            started,
            self.start_unix_seconds,
        );
        self.flags = flags;
        self.restarts += 1;
        Ok(())
    }
}
