//! Edges over the core: gRPC, plain HTTP, the command line. They translate; no rule lives here.

pub mod cli;
mod files;
pub mod grpc;
mod http;

pub use files::FileError;
