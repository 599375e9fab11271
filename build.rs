//! Generates the gRPC code from `proto/`, without protoc.

use std::path::Path;
use std::{env, error::Error, fs};

use prost::Message;

const SERVICES: [&str; 4] = [
    "perfagent/v1/instance.proto",
    "perfagent/v1/metrics.proto",
    "perfagent/v1/agent.proto",
    "grpc/health/v1/health.proto",
];

/// Not ours to serve, but what our errors carry: clients that know us by reflection alone can then read them.
const ERROR_DETAILS: &str = "google/rpc/error_details.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let described = protox::compile(SERVICES.iter().chain([&ERROR_DETAILS]), ["proto"])?;
    let out = env::var("OUT_DIR")?;
    // for reflection and for the JSON of the command line
    fs::write(
        Path::new(&out).join("descriptors.bin"),
        described.encode_to_vec(),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
