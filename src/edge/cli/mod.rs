//! The command line.

mod actuator;
mod check;
mod collect;
mod compare;
mod completions;
mod connect;
mod demo;
mod descriptor;
mod diagnose;
mod instances;
mod instances_page;
mod json;
mod json_read;
mod optimize;
mod predict;
mod predictions;
mod recommend;
mod replay;
mod serve;
mod settings;
mod simulate;
mod slo;
mod store;
mod table;
mod terminal;
mod token;
mod transport;
mod watch;
mod webhook;
mod workflow;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// Measures LLM inference engines (vLLM, SGLang, TGI) from their own metrics.
#[derive(Debug, Parser)]
#[command(
    name = "perfagent",
    version,
    about = "Measures LLM inference engines (vLLM, SGLang, TGI) from their own metrics, and serves it over gRPC",
    long_about = None,
    after_help = EXIT_CODES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 measured, but not every replica;
10 findings, a missed SLO, or something to change; 11 it cannot be told. Of a workflow that ended: 4 rejected or
cancelled, 5 rolled back, 6 rollback failed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// See it at work: simulated engines, an agent that watches them, and what it finds
    Demo(demo::DemoArgs),
    /// Run the agent: gRPC, /metrics and /healthz on one port
    Serve(Box<serve::ServeArgs>),
    /// Measure an engine now, without a server; or ask an agent about an instance that it watches
    Collect(collect::CollectArgs),
    /// Say what holds an engine back, why, and what to do
    Diagnose(Box<diagnose::DiagnoseArgs>),
    /// Say how service level objectives are kept, and how fast error budgets are spent
    Slo(slo::SloArgs),
    /// Say what to change, and what each change is predicted to do
    Recommend(Box<recommend::RecommendArgs>),
    /// Predict what changes of settings would do: what if
    Predict(Box<predict::PredictArgs>),
    /// Say which settings an engine runs with, and who says so
    Settings(settings::SettingsArgs),
    /// Show what was predicted beside what came of it
    Predictions(predictions::PredictionsArgs),
    /// Watch the instances of an agent live
    Watch(watch::WatchArgs),
    /// Change settings safely: plan, approve, apply, measure, and roll back
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// Be told of what happens: receivers, and what came of each delivery
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Register, show, change and delete the instances of an agent
    #[command(subcommand)]
    Instances(instances::InstancesCommand),
    /// Say what differs between two measurements that `collect --output json` wrote
    Compare(compare::CompareArgs),
    /// Check actuators: what reads and writes the settings of instances
    #[command(subcommand)]
    Actuator(actuator::ActuatorCommand),
    /// Work with the config file
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Work with what an agent keeps: upgrade it, check it, move it to PostgreSQL
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Make, list and revoke the credentials that callers of an agent need
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Write the contract as a descriptor set: for grpcurl without reflection, Envoy and other tools
    Descriptor(descriptor::DescriptorArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(completions::CompletionsArgs),
    /// Serve the recorded scrapes of an engine, as if it ran now
    Replay(replay::ReplayArgs),
    /// Simulate an engine under load, with the metrics endpoint of a real one
    Simulate(Box<simulate::SimulateArgs>),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigSource {
    /// Config file (TOML); variables PERFAGENT_SECTION__KEY win over it, flags over both
    #[arg(long, env = "PERFAGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigSource {
    fn load(&self) -> Result<Config, ConfigError> {
        // variables that are not UTF-8 cannot be ours
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(self.config.as_deref(), variables)
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Measured, but not every replica.
    Partial,
    /// Diagnosed: something holds it back, an SLO is missed, or something is to be changed.
    Findings,
    /// Diagnosed: the engine does not say enough to tell.
    CannotTell,
    /// The workflow ended, rejected or cancelled, before it changed anything; or somebody took over.
    NotDone,
    /// The workflow ended, and settings are what they were before it.
    RolledBack,
    /// The workflow ended, and settings could not be restored.
    RollbackFailed,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    outcome: Outcome,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(outcome: Outcome, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            outcome,
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    /// Tells the user; how the command ended.
    fn told(&self) -> Outcome {
        terminal::complain(&self.message, self.hint.as_deref());
        self.outcome
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Usage => 2,
            Outcome::Partial => 3,
            Outcome::NotDone => 4,
            Outcome::RolledBack => 5,
            Outcome::RollbackFailed => 6,
            Outcome::Findings => 10,
            Outcome::CannotTell => 11,
        })
    }
}

/// Carries out what the command line asks for.
pub fn run() -> ExitCode {
    #[cfg(feature = "failpoints")]
    crate::failpoint::from_environment();
    let command = Cli::parse().command;
    // how many threads work is configured, so that comes before them
    let (serving, command) = match command {
        Command::Serve(args) => match serve::configured(*args) {
            Ok(config) => (Some(config), None),
            Err(error) => {
                return Failure::new(Outcome::Usage, error.to_string(), None)
                    .told()
                    .into();
            }
        },
        other => (None, Some(other)),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = serving.as_ref().and_then(|config| config.server.workers) {
        builder.worker_threads(workers);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::complain(&format!("cannot start: {error}"), None);
            return Outcome::Failed.into();
        }
    };
    let outcome = runtime.block_on(async {
        match (serving, command) {
            (Some(config), _) => serve::run(config).await,
            (None, Some(command)) => carry_out(command).await,
            (None, None) => Outcome::Done,
        }
    });
    // what is still open, such as a stream that outlived its drain time, is cut
    runtime.shutdown_background();
    outcome.into()
}

async fn carry_out(command: Command) -> Outcome {
    match command {
        // carried out by itself
        Command::Serve(_) => Outcome::Done,
        Command::Demo(args) => demo::run(args).await,
        Command::Collect(args) => collect::run(args).await,
        Command::Diagnose(args) => diagnose::run(*args).await,
        Command::Slo(args) => slo::run(args).await,
        Command::Recommend(args) => recommend::run(*args).await,
        Command::Predict(args) => predict::run(*args).await,
        Command::Settings(args) => settings::run(args).await,
        Command::Predictions(args) => predictions::run(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Workflow(command) => workflow::run(command).await,
        Command::Webhook(command) => webhook::run(command).await,
        Command::Instances(command) => instances::run(command).await,
        Command::Compare(args) => compare::run(&args),
        Command::Actuator(command) => actuator::run(command).await,
        Command::Config(command) => check::run(&command),
        Command::Store(command) => store::run(command).await,
        Command::Token(command) => token::run(&command),
        Command::Descriptor(args) => descriptor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Replay(args) => replay::run(args).await,
        Command::Simulate(args) => simulate::run(*args).await,
    }
}
