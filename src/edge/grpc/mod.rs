//! The gRPC edge. Protobuf types live here and nowhere else.

mod agent;
mod auth;
pub mod compare;
pub mod convert;
mod deadline;
mod fields;
mod health;
mod limits;
mod metrics;
mod observe;
pub mod receive;
mod reply;
mod server;
mod status;

pub use server::{ServeError, Server, ServerHandle};
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
