//! One replica under its part of a load, and what goes wrong with it.

use super::arrivals::Arrivals;
use super::engine::{Engine, Gauges};
use super::event::Sink;
use super::load::{Load, LoadError};
use super::settings::{Settings, SettingsError};
use super::step_time::{StepTime, StepTimeError};

/// An engine with what arrives at it.
#[derive(Debug, Clone)]
pub struct Simulation {
    engine: Engine,
    arrivals: Arrivals,
    step_time: StepTime,
    seed: u64,
    faults: Faults,
    /// Until then the engine loads, and refuses connections.
    down_until: f64,
}

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Requests are taken, and nothing is computed.
    pub stalled: bool,
    /// Steps take this many times as long.
    pub slowness: f64,
    /// Share of requests that fail.
    pub failure_ratio: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            stalled: false,
            slowness: 1.0,
            failure_ratio: 0.0,
        }
    }
}

/// A simulation that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulationError {
    /// Settings that no engine can have.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A load that cannot be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Times of a step that are none.
    #[error(transparent)]
    StepTime(#[from] StepTimeError),
}

impl Simulation {
    /// A replica of so many, which has just started.
    ///
    /// # Errors
    /// What cannot be simulated.
    pub fn new(
        settings: Settings,
        step_time: StepTime,
        load: Load,
        (replica, replicas): (u32, u32),
    ) -> Result<Self, SimulationError> {
        load.check()?;
        load.check_split(replicas)?;
        step_time.check()?;
        let seed = load.seed;
        let max_model_len = settings.max_model_len;
        Ok(Self {
            engine: Engine::new(settings, step_time, seed)?,
            arrivals: Arrivals::new(load, max_model_len, (replica, replicas)),
            step_time,
            seed,
            faults: Faults::default(),
            down_until: 0.0,
        })
    }

    /// Lets time pass until this second of the simulation; the step that is under way then is finished.
    pub fn run_until(&mut self, time: f64, sink: &mut impl Sink) {
        while self.engine.now() < time {
            let now = self.engine.now();
            while let Some((at, request)) = self.arrivals.pop(now) {
                if at < self.down_until {
                    self.arrivals.ended(at, request.index, true);
                } else {
                    self.engine.submit(request, at, sink);
                }
            }
            let works = !self.faults.stalled && now >= self.down_until && self.engine.step(sink);
            for ended in self.engine.take_ended() {
                self.arrivals.ended(ended.at, ended.index, ended.refused);
            }
            if !works {
                let next = [self.arrivals.next_at(), self.engine.next_ready()];
                let next = next.into_iter().flatten().filter(|at| *at > now);
                self.engine.wait_until(next.fold(time, f64::min));
            }
        }
    }

    /// Seconds of the simulation.
    pub fn now(&self) -> f64 {
        self.engine.now()
    }

    /// How the engine is now.
    pub fn gauges(&self) -> Gauges {
        self.engine.gauges()
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        self.engine.settings()
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.engine.now() >= self.down_until
    }

    /// What is wrong with it.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Has other things be wrong with it.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.engine.slowness = faults.slowness;
        self.engine.failure_ratio = faults.failure_ratio;
    }

    /// Whether new requests come to it.
    pub fn takes_requests(&self) -> bool {
        self.arrivals.is_sent_here()
    }

    /// From now on new requests come to it, or none; those that it has it finishes.
    pub fn take_requests(&mut self, takes: bool) {
        self.arrivals.send(takes, self.engine.now());
    }

    /// Starts the engine anew with these settings: what it works on fails, its cache is empty, and it takes
    /// `load_seconds` until it answers.
    ///
    /// # Errors
    /// Settings that no engine can have; it goes on as it was.
    pub fn restart(
        &mut self,
        settings: Settings,
        load_seconds: f64,
        sink: &mut impl Sink,
    ) -> Result<(), SettingsError> {
        let now = self.engine.now();
        let fresh = Engine::new(settings, self.step_time, self.seed)?;
        self.engine.fail_all(sink);
        for ended in self.engine.take_ended() {
            self.arrivals.ended(ended.at, ended.index, true);
        }
        self.engine = fresh;
        self.engine.wait_until(now);
        self.set_faults(Faults {
            stalled: false,
            ..self.faults
        });
        self.down_until = now + load_seconds;
        Ok(())
    }
}
