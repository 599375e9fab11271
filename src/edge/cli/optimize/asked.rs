//! What is asked about, measured here or by an agent; and under which constraints.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::agent::{Agent, Caller, Target, WindowRequest};
use crate::analysis::Slo;
use crate::edge::cli::collect::{Bar, failure_of};
use crate::edge::cli::compare::{measurement_from, measurement_in};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::{convert, convert_slo, pb, status_of};

/// As of `perfagent diagnose`.
const DEFAULT_WINDOW: Duration = Duration::from_secs(20);
/// What scrapes at both ends and the search may take beside the window.
const BESIDE_WINDOW: Duration = Duration::from_secs(35);

/// Flags that say what is asked about.
#[derive(Debug, Args)]
pub(in crate::edge::cli) struct SubjectArgs {
    /// Instance that an agent watches; it is asked about the last window that it measured
    #[arg(value_name = "INSTANCE")]
    pub(in crate::edge::cli) instance: Option<String>,
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", value_name = "URL")]
    pub(in crate::edge::cli) urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the config file, or auto
    #[arg(long, default_value = "auto", value_name = "ENGINE")]
    pub(in crate::edge::cli) engine: String,
    /// How long to measure, up to 5m [default: 20s; of an instance, the last window]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(in crate::edge::cli) window: Option<Duration>,
    /// Id to show in the answer
    #[arg(long, default_value = "target", value_name = "ID")]
    pub(in crate::edge::cli) id: String,
}

/// A measurement instead.
#[derive(Debug, Args)]
pub(in crate::edge::cli) struct FileArgs {
    /// Measurement that `perfagent collect --output json` wrote; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["window", "engine", "id"])]
    pub(in crate::edge::cli) file: Option<PathBuf>,
}

/// Flags that say what must not be done.
#[derive(Debug, Args)]
pub(in crate::edge::cli) struct ConstraintArgs {
    /// No change that takes a restart of the engine
    #[arg(long)]
    no_restart: bool,
    /// No change that may change answers
    #[arg(long)]
    no_answer_change: bool,
    /// As many GPUs as now
    #[arg(long)]
    fixed_gpus: bool,
    /// Promise that must hold after the change, as `perfagent slo --slo` takes it; may be repeated
    #[arg(long = "must-hold", value_parser = Slo::from_str, value_name = "SLO")]
    must_hold: Vec<Slo>,
}

impl ConstraintArgs {
    /// The constraints; none where there are none.
    pub(in crate::edge::cli) fn on_the_wire(&self) -> Option<pb::OptimizationConstraints> {
        let constraints = pb::OptimizationConstraints {
            no_restart: self.no_restart,
            no_answer_change: self.no_answer_change,
            fixed_gpu_count: self.fixed_gpus,
            must_hold: self.must_hold.iter().map(convert_slo::slo).collect(),
        };
        Some(constraints).filter(|some| *some != pb::OptimizationConstraints::default())
    }
}

/// What a request is about, in its fields.
#[derive(Debug, Default)]
pub(in crate::edge::cli) struct Asked {
    pub(in crate::edge::cli) instance_id: String,
    pub(in crate::edge::cli) instance_type: String,
    pub(in crate::edge::cli) metrics_urls: Vec<String>,
    pub(in crate::edge::cli) window: Option<prost_types::Duration>,
    pub(in crate::edge::cli) measurement: Option<pb::Measurement>,
    /// How long the answer may take.
    pub(in crate::edge::cli) patience: Duration,
}

impl SubjectArgs {
    /// Whether it is asked in this process, without a server.
    pub(in crate::edge::cli) fn is_here(&self, server: Option<&str>) -> bool {
        server.is_none() && self.instance.is_none()
    }

    /// For an agent.
    pub(in crate::edge::cli) fn remotely(&self, file: Option<&Path>) -> Result<Asked, Failure> {
        if let Some(path) = file {
            return Ok(Asked {
                measurement: Some(measurement(path)?),
                patience: BESIDE_WINDOW,
                ..Asked::default()
            });
        }
        let window = match self.urls.is_empty() {
            true => self.window,
            false => Some(self.window.unwrap_or(DEFAULT_WINDOW)),
        };
        Ok(Asked {
            instance_id: self.instance.as_ref().unwrap_or(&self.id).clone(),
            instance_type: self.engine.clone(),
            metrics_urls: self.urls.clone(),
            window: window.and_then(convert::duration),
            measurement: None,
            patience: window.unwrap_or_default() + BESIDE_WINDOW,
        })
    }

    /// Measured in this process, or read from a file.
    pub(in crate::edge::cli) async fn measured(
        &self,
        agent: &Agent,
        file: Option<&Path>,
    ) -> Result<Asked, Failure> {
        let measurement = match file {
            Some(path) => measurement(path)?,
            None => self.measure(agent).await?,
        };
        Ok(Asked {
            measurement: Some(measurement),
            ..Asked::default()
        })
    }

    async fn measure(&self, agent: &Agent) -> Result<pb::Measurement, Failure> {
        let window = self.window.unwrap_or(DEFAULT_WINDOW);
        let target = Target {
            instance_id: self.id.clone(),
            engine: Some(self.engine.clone()).filter(|name| name != "auto"),
            metrics_urls: self.urls.clone(),
        };
        let request = WindowRequest {
            length: Some(window),
            deadline_in: None,
        };
        let progress = Bar::new(window, self.urls.len());
        let measured = agent
            .collect(&Caller::anonymous(), &target, request, &|done| {
                progress.show(done);
            })
            .await;
        progress.clear();
        let measured = measured.map_err(|error| failure_of(&status_of(&error)))?;
        Ok(convert::measurement(&measured))
    }
}

fn measurement(path: &Path) -> Result<pb::Measurement, Failure> {
    let read = match path.to_str() {
        Some("-") => measurement_from(std::io::stdin().lock(), Path::new("standard input")),
        _ => measurement_in(path),
    };
    let hint = Some("give what `perfagent collect --output json` wrote");
    read.map_err(|message| Failure::new(Outcome::Usage, message, hint))
}
