//! Edges over the core: gRPC, plain HTTP, the command line. They translate; no rule lives here.

pub mod cli;
pub mod grpc;
mod http;
