//! `perfagent actuator`

use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::collect::Output;
use super::connect::ConnectArgs;
use super::instances::spec_of;
use super::terminal::{clean, note, print};
use super::{ConfigSource, Failure, Outcome};
use crate::actuator::check::{self, Checked, Finding, check};
use crate::actuator::{
    ActuatedInstance, Actuator, ActuatorEntry, ActuatorKind, CommandActuator, NONE,
};
use crate::config::{CHECKED_ACTUATORS, Config};
use crate::store::{OpenError, StateDir, default_state_dir};

/// What can be done with actuators.
#[derive(Debug, Subcommand)]
pub(super) enum ActuatorCommand {
    /// See whether an actuator keeps what it promises, on a real instance, whose engine is restarted twice
    Check(Box<CheckArgs>),
}

/// Flags of `perfagent actuator check`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct CheckArgs {
    /// Its name in [[actuators]] of the config file
    name: String,
    /// Instance to check it on: of the config file, else one that the agent knows
    #[arg(long, value_name = "ID")]
    instance: String,
    /// Target of it [default: the first]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Flag that may have this value for the time of the check [default: the cap on sequences, one lower]
    #[arg(long, value_parser = flag_and_value, value_name = "FLAG=VALUE")]
    set: Option<(String, String)>,
    /// How long the engine may take until it serves
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30m", value_name = "TIME")]
    ready_timeout: Duration,
    /// Do not ask before the engine is restarted
    #[arg(long, short)]
    yes: bool,
    /// State directory of the agent, which keeps what came of it [default: as for `perfagent serve`]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    source: ConfigSource,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const ABOUT: &str = "The settings of one target are read, changed, and restored: its engine is restarted TWICE and does \
not serve meanwhile. Ctrl-C restores at once.

It shows that a repeat changes nothing, that a stale revision and a stale epoch are refused, that what was there is \
restored byte for byte, and that a call that hangs is ended. A program that passes is driven by the agent until it, its \
arguments or its configuration change; modules that it imports are not looked at.

Exit codes: 0 it keeps what it promises; 1 it does not, or could not be checked; 2 wrong usage or configuration.";

pub(super) async fn run(command: ActuatorCommand) -> Outcome {
    let ActuatorCommand::Check(args) = command;
    match checked(*args).await {
        Ok(outcome) => outcome,
        Err(failure) => failure.told(),
    }
}

fn flag_and_value(text: &str) -> Result<(String, String), String> {
    let split = text
        .rsplit_once('=')
        .filter(|(flag, _)| flag.starts_with('-'));
    let (flag, value) = split.ok_or("give a flag with its value, such as --max-num-seqs=63")?;
    Ok((flag.to_owned(), value.to_owned()))
}

async fn checked(args: CheckArgs) -> Result<Outcome, Failure> {
    let mut config = args.source.load().map_err(|error| usage(&error))?;
    config.check().map_err(|error| usage(&error))?;
    if args.state_dir.is_some() {
        config.store.state_dir.clone_from(&args.state_dir);
    }
    let (actuator, program) = actuator(&config, &args.name)?;
    let instance = instance(&config, &args).await?;
    if !args.yes {
        ask(&args)?;
    }
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let interrupted = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            note("note", "stopping; the settings are restored first");
            stopper.cancel();
        }
    });
    let of = Checked {
        actuator: actuator.as_ref(),
        program: program.as_deref(),
        instance: &instance,
        target: args.target.as_deref(),
        set: args
            .set
            .as_ref()
            .map(|(flag, value)| (flag.as_str(), value.as_str())),
        ready_timeout: args.ready_timeout,
    };
    let is_table = matches!(args.output, Output::Table);
    let found = check(of, &stop, |finding| {
        if is_table {
            print(&line(finding));
        }
    })
    .await;
    interrupted.abort();
    let passed = found
        .iter()
        .all(|finding| finding.outcome == check::Outcome::Passed);
    let record = match (&program, passed) {
        (Some(program), true) => Some(keep(program, &config)?),
        _ => None,
    };
    match args.output {
        Output::Table => print(&verdict(&args.name, passed, record.as_ref())),
        Output::Json => print(&json_of(&args, &found, passed, record.as_ref())),
    }
    Ok(match passed {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}

type Found = (Arc<dyn Actuator>, Option<Arc<CommandActuator>>);

fn actuator(config: &Config, name: &str) -> Result<Found, Failure> {
    let entry: Option<&ActuatorEntry> = config.actuators.iter().find(|entry| entry.name == name);
    if let Some(entry) = entry.filter(|entry| entry.kind == ActuatorKind::Command) {
        let program = Arc::new(CommandActuator::to_be_checked(entry));
        return Ok((program.clone(), Some(program)));
    }
    let actuators = config.actuators().map_err(|error| usage(&error))?;
    let found = actuators.get(name).filter(|_| name != NONE);
    found.map(|found| (found.clone(), None)).ok_or_else(|| {
        let violation = actuators.violation(name);
        let message = violation.map_or_else(
            || "the actuator `none` drives nothing: there is nothing to check".to_owned(),
            |violation| violation.description,
        );
        Failure::new(
            Outcome::Usage,
            message,
            Some("give the agent's config file with --config"),
        )
    })
}

async fn instance(config: &Config, args: &CheckArgs) -> Result<ActuatedInstance, Failure> {
    let configured = config
        .instances
        .iter()
        .find(|entry| entry.instance_id == args.instance);
    if let Some(entry) = configured {
        let spec = entry.spec();
        return Ok(ActuatedInstance {
            instance_id: spec.instance_id,
            engine: spec.instance_type,
            metrics_urls: spec.metrics_urls,
            labels: spec.labels,
        });
    }
    let known = spec_of(&args.connect, &args.instance).await?;
    let engine = Some(known.instance_type).filter(|engine| !engine.is_empty() && engine != "auto");
    Ok(ActuatedInstance {
        instance_id: known.instance_id,
        engine,
        metrics_urls: known.metrics_urls,
        labels: known.labels.into_iter().collect(),
    })
}

/// Whether the engine may be restarted.
fn ask(args: &CheckArgs) -> Result<(), Failure> {
    let no = |message: &str| {
        Failure::new(
            Outcome::Usage,
            message,
            Some("give --yes where the engine may be restarted twice"),
        )
    };
    if !std::io::stdin().is_terminal() {
        return Err(no("the check restarts the engine, and nobody can be asked"));
    }
    let mut out = std::io::stderr().lock();
    let _ = write!(
        out,
        "The engine of {} is restarted twice, and does not serve meanwhile. Go on? [y/N] ",
        clean(&args.instance)
    );
    let _ = out.flush();
    let mut answer = String::new();
    // an answer that cannot be read is none
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(no("nothing was done")),
    }
}

/// Keeps that a program passed, where the agent looks.
fn keep(program: &CommandActuator, config: &Config) -> Result<PathBuf, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("it passed, which could not be kept: {error}");
        Failure::new(
            Outcome::Failed,
            message,
            Some("give the agent's state directory with --state-dir"),
        )
    };
    let state_dir = match &config.store.state_dir {
        Some(path) => path.clone(),
        None => {
            default_state_dir(|name| std::env::var(name).ok()).map_err(|error| failed(&error))?
        }
    };
    // marked as ours, unless an agent that runs holds it
    match StateDir::take(&state_dir) {
        Ok(_) | Err(OpenError::InUse { .. }) => {}
        Err(error) => return Err(failed(&error)),
    }
    let directory = state_dir.join(CHECKED_ACTUATORS);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|error| failed(&error))?;
    program
        .record_passed(&directory)
        .map_err(|error| failed(&error))
}

fn word(outcome: check::Outcome) -> &'static str {
    match outcome {
        check::Outcome::Passed => "PASSED",
        check::Outcome::Failed => "FAILED",
        check::Outcome::Skipped => "SKIPPED",
    }
}

fn line(finding: &Finding) -> String {
    format!(
        "{:<8}{:<16}{}\n",
        word(finding.outcome),
        finding.step.as_str(),
        clean(&finding.detail)
    )
}

fn verdict(name: &str, passed: bool, record: Option<&PathBuf>) -> String {
    match (passed, record) {
        (false, _) => {
            format!("{name} does not keep what it promises: the agent will not drive it\n")
        }
        (true, None) => format!("{name} keeps what it promises\n"),
        (true, Some(record)) => format!(
            "{name} keeps what it promises; the agent drives it from now on ({})\n",
            record.display()
        ),
    }
}

fn json_of(args: &CheckArgs, found: &[Finding], passed: bool, record: Option<&PathBuf>) -> String {
    let steps: Vec<_> = found
        .iter()
        .map(|finding| {
            json!({
                "name": finding.step.as_str(),
                "outcome": word(finding.outcome),
                "detail": finding.detail,
            })
        })
        .collect();
    let mut answer = json!({
        "actuator": args.name,
        "instance_id": args.instance,
        "passed": passed,
        "steps": steps,
    });
    if let (Some(record), Some(answer)) = (record, answer.as_object_mut()) {
        answer.insert("record".to_owned(), record.display().to_string().into());
    }
    format!("{answer:#}\n")
}

fn usage(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Outcome::Usage, error.to_string(), None)
}
