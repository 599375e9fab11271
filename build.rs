//! Generates the gRPC code from `proto/`, without protoc.

use std::path::Path;
use std::{env, error::Error, fs};

const SERVICES: [&str; 8] = [
    "perfagent/v1/analysis.proto",
    "perfagent/v1/instance.proto",
    "perfagent/v1/metrics.proto",
    "perfagent/v1/optimization.proto",
    "perfagent/v1/webhook.proto",
    "perfagent/v1/workflow.proto",
    "perfagent/v1/agent.proto",
    "grpc/health/v1/health.proto",
];

/// Not ours to serve, but what our errors carry: clients that know us by reflection alone can then read them.
const ERROR_DETAILS: &str = "google/rpc/error_details.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = env::var("OUT_DIR")?;
    // for reflection, the API reference and the JSON of the command line; encoded by protox itself, since messages of
    // prost_types would lose the google.api.http options
    let described = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(SERVICES.iter().chain([&ERROR_DETAILS]))?
        .encode_file_descriptor_set();
    fs::write(Path::new(&out).join("descriptors.bin"), described)?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
