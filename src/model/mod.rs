//! A model of continuous batching: one engine, step by step as its scheduler does it, in virtual time.
//!
//! ```text
//! load → arrivals → engine: waiting → running → (tokens) → events → summary, or a simulated metrics endpoint
//!                      ↑ settings, step time, KV cache
//! ```
//!
//! It is pure and deterministic: the same load, settings and seed give the same events. Random numbers are drawn by the
//! number of the request, so that two runs with other settings serve the same requests, and a difference between them
//! is due to the settings.
//!
//! What it leaves out is named where it is left out; what it gets wrong on real engines is measured by `accuracy`.

mod arrivals;
mod cache;
mod curve;
mod drift;
mod engine;
mod event;
mod fit;
mod jitter;
#[cfg(test)]
mod laws;
mod lengths;
mod load;
mod load_range;
mod policy;
mod random;
mod request;
mod settings;
mod simulation;
mod step_time;
mod summary;

pub use arrivals::Arrivals;
pub use curve::Curve;
pub use drift::Drift;
pub use engine::{Engine, Gauges};
pub use event::{Event, FinishReason, Finished, Sink};
pub use fit::{Fit, FitError, StepWindow};
pub use jitter::Jitter;
pub use lengths::Lengths;
pub use load::{Arrival, Load, LoadError, RequestClass, SharedPrefix};
pub use load_range::{LoadRange, MAX_STEP_WINDOWS};
pub use request::{Prefix, RequestSpec};
pub use settings::{Policy, Settings, SettingsError, Speculation};
pub use simulation::{Faults, Simulation, SimulationError};
pub use step_time::{Batch, StepTime, StepTimeError};
pub use summary::{Quantiles, Summary, Tally};
