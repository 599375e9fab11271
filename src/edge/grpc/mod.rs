//! The gRPC edge. Protobuf types live here and nowhere else.

mod access;
mod agent;
mod auth;
pub(crate) mod codec;
pub mod compare;
mod connection;
mod context;
pub mod convert;
mod convert_instance;
mod deadline;
pub(crate) mod encoded;
mod fields;
mod forwarded;
mod health;
mod instances;
mod lifetime;
mod limits;
mod listen;
mod metrics;
mod observe;
pub mod receive;
mod reply;
mod request_body;
mod revoke;
mod server;
mod spans;
mod status;
pub(in crate::edge) mod tls;

pub use server::{ServeError, Server, ServerHandle};
pub use spans::Spans;
pub use status::{DOMAIN, failure_of, status_of};

/// Generated messages and clients of `perfagent.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod pb {
    tonic::include_proto!("perfagent.v1");
}

/// Generated messages and client of `grpc.health.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod health_pb {
    tonic::include_proto!("grpc.health.v1");
}

/// Generated servers.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
mod servers {
    include!(concat!(env!("OUT_DIR"), "/servers/perfagent.v1.rs"));

    pub(super) mod health {
        include!(concat!(env!("OUT_DIR"), "/servers/grpc.health.v1.rs"));
    }
}

/// All of them described, comments included: for reflection and for JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
