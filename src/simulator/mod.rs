//! A simulated engine as others see it: what the model does, counted and shown as vLLM, SGLang and TGI show it.
//!
//! ```text
//! deployment (flags, load, timing, faults) → replica: model → events → counters → page of metrics
//! ```
//!
//! Pure: time comes from outside, and so does the network. One family more than a real engine has,
//! `perfagent_simulated 1`, tells that it is none.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod cause_tests;
mod deployment;
mod flags;
mod histogram;
mod load;
mod memory;
mod page;
mod replica;
mod scenario;
mod settings;
mod sglang;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod tgi;
mod timing;
mod vllm;

pub use deployment::{Deployment, FaultChange, Incident, IncidentError, Restart};
pub use flags::{FLAGS, Flag, FlagError, FlagValues, engine_name, engine_of};
pub use load::{BurstPart, DriftPart, LoadPart, RequestPart};
pub use memory::MemoryPart;
pub use replica::Replica;
pub use scenario::{FaultPart, Scenario, ScenarioError};
pub use settings::{NewSettings, ReplicaSettings, SettingsRefusal, content_of};
pub use timing::TimingPart;
