//! `perfagent completions`

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::terminal::print;
use super::{Cli, Outcome};

/// Flags of `perfagent completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent completions bash > ~/.local/share/bash-completion/completions/perfagent"
)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "perfagent", &mut text);
    print(&String::from_utf8_lossy(&text));
    Outcome::Done
}
