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

/// Messages that the server writes by structs of its own, with the measurement as bytes.
const ENCODED: [&str; 3] = [
    "BatchCollectMetricsResponse",
    "CollectMetricsResponse",
    "WatchMetricsResponse",
];

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
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors.clone())?;
    // servers by themselves: they answer with measurements that are encoded once and sent many times
    let servers = Path::new(&out).join("servers");
    fs::create_dir_all(&servers)?;
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::edge::grpc::codec::RoomyCodec")
        .out_dir(servers)
        .extern_path(".grpc.health.v1", "crate::edge::grpc::health_pb")
        .extern_path(".perfagent.v1", "crate::edge::grpc::pb");
    for message in ENCODED {
        builder = builder.extern_path(
            format!(".perfagent.v1.{message}"),
            format!("crate::edge::grpc::encoded::{message}"),
        );
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
