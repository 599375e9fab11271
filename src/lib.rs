//! perfagent looks after LLM inference engines: it measures vLLM, SGLang and TGI from their own metrics endpoints
//! and serves what it finds over gRPC.
//!
//! # The way of the data
//!
//! ```text
//! replica /metrics → scrape → exposition → engine profile → sample
//!                                                             ↓  (two or more)
//!                                                        measurement → analysis → bottlenecks, SLOs
//!                                                             ↓               ↓
//!                                   optimization → workflow → actuator
//!              instances, store → agent: one method a verb → edges: gRPC, HTTP, command line
//! ```
//!
//! # Invariants
//!
//! Held by `tests/architecture.rs`.
//!
//! - Modules are declared here in reading order; each uses only those above it.
//! - [`exposition`], [`engine`], [`measure`], [`analysis`], [`model`], [`optimization`], [`simulator`], [`workflow`] and
//!   [`webhook`] are pure: no clock, no network, no tonic. Times and bodies come in.
//! - Protobuf types live under [`edge`] only; [`agent`] and all below speak plain Rust.
//! - What an engine does not export is absent, with the reason. It is never shown as zero.

// what tests share with benches calls the crate by its name
#[cfg(test)]
extern crate self as perfagent;

#[macro_use]
mod failpoint;

pub mod units;

pub mod exposition;

pub mod engine;

pub mod measure;

pub mod analysis;

pub mod model;

pub mod optimization;

pub mod simulator;

pub mod workflow;

pub mod scrape;

pub mod instance;

pub mod webhook;

pub mod auth;

pub mod actuator;

pub mod config;

pub mod telemetry;

pub mod store;

pub mod agent;

pub mod edge;
