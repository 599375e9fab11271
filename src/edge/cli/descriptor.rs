//! `perfagent descriptor`

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome};
use crate::edge::grpc::DESCRIPTORS;

/// Flags of `perfagent descriptor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DescriptorArgs {
    /// File to write, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  perfagent descriptor --output perfagent.binpb

  # grpcurl, also where reflection asks for a credential or is not let through
  grpcurl -protoset perfagent.binpb describe perfagent.v1.MetricsService
  grpcurl -protoset perfagent.binpb -plaintext -d '{\"instance_id\": \"vllm-1\"}' \\
    127.0.0.1:8002 perfagent.v1.MetricsService/CollectMetrics

  # Envoy, which then answers POST /api/v1/metrics/collect and the other HTTP paths with JSON:
  # the typed_config of envoy.filters.http.grpc_json_transcoder
  proto_descriptor: /etc/envoy/perfagent.binpb
  services:
  - perfagent.v1.InstanceService
  - perfagent.v1.MetricsService
  - perfagent.v1.AnalysisService
  - perfagent.v1.OptimizationService
  - perfagent.v1.AgentService
  print_options: {preserve_proto_field_names: true}

A google.protobuf.FileDescriptorSet with all imports, HTTP paths and comments; no agent need run.
An agent serves the same to people at /docs.";

pub(super) fn run(args: &DescriptorArgs) -> Outcome {
    match write(args) {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.told(),
    }
}

fn write(args: &DescriptorArgs) -> Result<(), Failure> {
    if let Some(path) = &args.output {
        return fs::write(path, DESCRIPTORS).map_err(|error| {
            let message = format!("cannot write {}: {error}", path.display());
            Failure::new(Outcome::Failed, message, None)
        });
    }
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Failure::new(
            Outcome::Usage,
            "a descriptor set is binary and no text for a terminal",
            Some("give --output FILE, or send it on: perfagent descriptor > perfagent.binpb"),
        ));
    }
    match out.write_all(DESCRIPTORS).and_then(|()| out.flush()) {
        // a reader that has seen enough is no error
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(Failure::new(Outcome::Failed, message, None))
        }
        _ => Ok(()),
    }
}
