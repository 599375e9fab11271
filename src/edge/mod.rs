//! Edges over the core: gRPC, plain HTTP, the command line. They translate; no rule lives here.

pub mod audit;
pub mod cli;
mod docs;
mod files;
pub mod grpc;
mod http;
pub mod simulate;
mod webhook;

pub use files::FileError;
