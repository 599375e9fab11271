//! `perfagent config check`

use clap::Subcommand;

use super::terminal::{complain, note, print};
use super::{ConfigSource, Outcome};
use crate::agent::read_prompts;
use crate::config::Config;
use crate::edge::files::{FileError, is_open_to_all, read_credentials};
use crate::edge::grpc::tls::TlsFiles;

/// What can be done with the config file.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the config file, the PERFAGENT_ variables and the files they name, and say what they come to
    Check {
        #[command(flatten)]
        source: ConfigSource,
    },
}

pub(super) fn run(command: &ConfigCommand) -> Outcome {
    let ConfigCommand::Check { source } = command;
    match source
        .load()
        .map_err(|error| error.to_string())
        .and_then(report)
    {
        Ok((report, warnings)) => {
            print(&report);
            for warning in warnings {
                note("warning", &warning);
            }
            Outcome::Done
        }
        Err(error) => {
            complain(&error, None);
            Outcome::Usage
        }
    }
}

fn report(config: Config) -> Result<(String, Vec<String>), String> {
    let told = |error: FileError| error.to_string();
    config.check().map_err(|error| error.to_string())?;
    let registry = config.registry().map_err(|error| error.to_string())?;
    let mut warnings = warnings(&config);
    let tls = match TlsFiles::of(&config.server) {
        None => "off",
        Some(files) => {
            files.load().map_err(told)?;
            match config.server.tls_client_ca {
                None => "on",
                Some(_) => "on, client certificates required",
            }
        }
    };
    let auth = match &config.auth.credentials_file {
        None => "off".to_owned(),
        Some(path) => {
            let count = read_credentials(path).map_err(told)?.entries().len();
            if count == 0 {
                let path = path.display();
                warnings.push(format!(
                    "{path} has no credential, so nobody may call; make one with `perfagent token create`"
                ));
            }
            format!("on, credentials of {count} in {}", path.display())
        }
    };
    let ids: Vec<&str> = config
        .instances
        .iter()
        .map(|row| row.instance_id.as_str())
        .collect();
    let instances = match ids.as_slice() {
        [] => "none".to_owned(),
        ids => ids.join(", "),
    };
    if let Some(path) = &config.workflows.quality_prompts {
        read_prompts(path).map_err(|error| error.to_string())?;
    }
    let actuators = config.actuators().map_err(|error| error.to_string())?;
    let actuators: Vec<String> = actuators
        .names()
        .map(|(name, kind)| match name == kind {
            true => name.to_owned(),
            false => format!("{name} ({kind})"),
        })
        .collect();
    let store = match config.store.postgres() {
        None => "of its own, in the state directory".to_owned(),
        Some(postgres) => format!("shared, {}", postgres.place()),
    };
    let report = format!(
        "configuration is valid\nlisten     {}\ntls        {tls}\nauth       {auth}\nstore      {store}\nengines    {}\ninstances  {instances}\nactuators  {}\nthresholds {}\n",
        config.server.listen,
        registry.names().join(", "),
        actuators.join(", "),
        thresholds(&config)
    );
    Ok((report, warnings))
}

/// Thresholds that are not at their defaults.
fn thresholds(config: &Config) -> String {
    let changed: Vec<String> = config
        .thresholds
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    match changed.is_empty() {
        true => "as they come".to_owned(),
        false => changed.join(", "),
    }
}

/// What is allowed and yet unsafe.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let tls = TlsFiles::of(&config.server);
    let listen = config.server.listen;
    if !listen.ip().is_loopback() {
        if tls.is_none() {
            found.push(format!(
                "{listen} is reachable from other machines, and calls to it, with their tokens, are not encrypted"
            ));
        }
        if config.auth.credentials_file.is_none() && config.server.tls_client_ca.is_none() {
            found.push(format!(
                "everybody who reaches {listen} may do everything; set auth.credentials_file"
            ));
        }
    }
    for actuator in config.actuators.iter().filter(|one| one.is_unsafe) {
        found.push(format!(
            "actuator {} is unsafe: its program changes engines without having passed its check",
            actuator.name
        ));
    }
    let key = tls.as_ref().map(TlsFiles::key);
    let secrets = [config.auth.credentials_file.as_deref(), key];
    for path in secrets.into_iter().flatten() {
        if is_open_to_all(path) {
            found.push(format!(
                "every user of this machine can read or change {}; run chmod 600",
                path.display()
            ));
        }
    }
    found
}
