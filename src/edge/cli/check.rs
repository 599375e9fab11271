//! `perfagent config check`

use clap::Subcommand;

use super::terminal::{complain, print};
use super::{ConfigSource, Outcome};

/// What can be done with the config file.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the config file and the PERFAGENT_ variables, and say what they come to
    Check {
        #[command(flatten)]
        source: ConfigSource,
    },
}

pub(super) fn run(command: &ConfigCommand) -> Outcome {
    let ConfigCommand::Check { source } = command;
    let checked = source.load().and_then(|config| {
        config.check()?;
        let registry = config.registry()?;
        Ok((config, registry))
    });
    match checked {
        Ok((config, registry)) => {
            print(&format!(
                "configuration is valid\nlisten   {}\nengines  {}\n",
                config.server.listen,
                registry.names().join(", ")
            ));
            Outcome::Done
        }
        Err(error) => {
            complain(&error.to_string(), None);
            Outcome::Usage
        }
    }
}
