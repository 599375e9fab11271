//! The `perfagent` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    perfagent::edge::cli::run()
}
