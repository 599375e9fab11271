//! The `perfagent` command.

use std::process::ExitCode;

/// glibc's allocator goes over all its free chunks at each large request, and a fleet's scrapes mix large bodies with
/// many small readings: it took a sixth more CPU, and more memory (`benches/fleet.rs`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    perfagent::edge::cli::run()
}
