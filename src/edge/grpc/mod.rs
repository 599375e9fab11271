//! The gRPC edge. Protobuf types live here and nowhere else.

mod access;
mod agent;
mod analysis;
mod auth;
pub mod compare;
mod connection;
mod context;
pub mod convert;
pub mod convert_analysis;
mod convert_canary;
mod convert_instance;
pub mod convert_ledger;
pub mod convert_optimization;
pub mod convert_slo;
pub mod convert_struct;
mod convert_webhook;
mod convert_workflow;
mod convert_workflow_event;
mod cork;
mod deadline;
pub(in crate::edge) mod detect;
mod encoded;
mod fields;
mod forwarded;
mod health;
mod instances;
mod lifetime;
mod limits;
mod listen;
mod metrics;
mod observe;
mod optimization;
pub(in crate::edge) mod optimize;
mod ready;
pub mod receive;
pub mod receive_findings;
mod reply;
mod request_body;
mod revoke;
mod server;
mod spans;
mod status;
pub(in crate::edge) mod tls;
mod webhook;
mod workflow;
mod workflow_request;
mod workflow_watch;

pub(in crate::edge) use access::{Who, rule_of};
pub use server::{ServeError, Server, ServerHandle};
pub use spans::Spans;
pub use status::{DOMAIN, failure_of, status_of};

/// Generated messages, clients and servers of `perfagent.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod pb {
    tonic::include_proto!("perfagent.v1");
}

/// Generated messages, client and server of `grpc.health.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod health_pb {
    tonic::include_proto!("grpc.health.v1");
}

/// All of them described, comments included: for reflection and for JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
