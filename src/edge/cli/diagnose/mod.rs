//! `perfagent diagnose`

mod page;
mod replayed;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::Value;

use super::collect::{Bar, agent_here, failure_of};
use super::compare::{measurement_from, measurement_in};
use super::connect::ConnectArgs;
use super::terminal::{colour_on_stdout, print};
use super::{ConfigSource, Failure, Outcome, json};
use crate::agent::{Caller, Target, WindowRequest};
use crate::edge::grpc::pb::analysis_service_client::AnalysisServiceClient;
use crate::edge::grpc::{convert, convert_analysis, detect, pb, status_of};

/// Flags of `perfagent diagnose`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["instance", "urls", "file", "replay"])
)]
pub(super) struct DiagnoseArgs {
    /// Instance that an agent watches; it is asked about the last window that it measured
    #[arg(value_name = "INSTANCE")]
    instance: Option<String>,
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Measurement that `perfagent collect --output json` wrote; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["window", "engine", "id"])]
    file: Option<PathBuf>,
    /// Directory with recorded scrapes: today's rules over each window of them; where it has a findings.json, what has
    /// changed since is told
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    replay: Option<PathBuf>,
    /// Write what is found to findings.json in the directory of --replay
    #[arg(long, conflicts_with_all = ["instance", "urls", "file"])]
    save_findings: bool,
    /// vllm, sglang, tgi, an engine of the config file, or auto
    #[arg(long, default_value = "auto", value_name = "ENGINE")]
    engine: String,
    /// How long to measure, up to 5m [default: 20s; of an instance, the last window; of a recording, windows of 1m or as
    /// its findings.json has them]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Option<Duration>,
    /// Id to show in the answer
    #[arg(long, default_value = "target", value_name = "ID")]
    id: String,
    /// Threshold to use instead of the one in force; can be given several times
    #[arg(long = "threshold", value_parser = threshold, value_name = "NAME=VALUE")]
    thresholds: Vec<(String, f64)>,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    source: ConfigSource,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent diagnose --engine vllm --url http://127.0.0.1:8000/metrics
  perfagent diagnose --url http://a:8000/metrics --url http://b:8000/metrics --window 60s -o json
  perfagent diagnose vllm-1 --server 127.0.0.1:8002
  perfagent collect vllm-1 -o json | perfagent diagnose --file -
  perfagent diagnose --replay recordings/monday --threshold stall_seconds=30

Root causes come first, with their effects below them. Thresholds and their reasons are listed by
GetCapabilities; they are set for good in the section [thresholds] of the config file.

Exit codes: 0 nothing to do; 10 findings; 11 cannot tell; 1 failed; 2 wrong usage or configuration.
Of several recorded windows the one counts that is worst.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A page for people
    #[default]
    Text,
    /// JSON with the same content and more
    Json,
}

/// Longer than what a stall takes to be told from a long step.
const DEFAULT_WINDOW: Duration = Duration::from_secs(20);

/// Name of the answer on the wire.
const ANSWER: &str = "perfagent.v1.DetectBottlenecksResponse";

fn threshold(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("`{value}` is no number"))?;
    Ok((name.trim().to_owned(), value))
}

pub(super) async fn run(args: DiagnoseArgs) -> Outcome {
    let told = match &args.replay {
        Some(directory) => replayed::diagnose(&args, directory),
        None => diagnose(&args).await,
    };
    told.unwrap_or_else(|failure| failure.told())
}

async fn diagnose(args: &DiagnoseArgs) -> Result<Outcome, Failure> {
    let answer = match (&args.connect.server, &args.instance, &args.file) {
        (Some(_), _, _) | (_, Some(_), _) => remotely(args).await?,
        (None, None, Some(path)) => of_file(args, path).await?,
        (None, None, None) => here(args).await?,
    };
    match args.output {
        Output::Text => print(&page::render(&answer, colour_on_stdout())),
        Output::Json => print(&json::text_of(&as_json(&answer)?)),
    }
    Ok(outcome_of(&answer))
}

/// As the agent has it, but with a list of bottlenecks even where there is none.
fn as_json(answer: &pb::DetectBottlenecksResponse) -> Result<Value, Failure> {
    let mut value = json::to_json(ANSWER, answer)
        .map_err(|error| Failure::new(Outcome::Failed, error, None))?;
    if let Some(object) = value.as_object_mut() {
        let none = Value::Array(Vec::new());
        object.entry("bottlenecks").or_insert(none);
    }
    Ok(value)
}

fn outcome_of(answer: &pb::DetectBottlenecksResponse) -> Outcome {
    match answer.verdict() {
        pb::DiagnosisVerdict::Healthy => Outcome::Done,
        pb::DiagnosisVerdict::Findings => Outcome::Findings,
        // one of a later version is none that can be acted on here
        pb::DiagnosisVerdict::CannotTell | pb::DiagnosisVerdict::Unspecified => Outcome::CannotTell,
    }
}

/// An engine, in this process and without a server.
async fn here(args: &DiagnoseArgs) -> Result<pb::DetectBottlenecksResponse, Failure> {
    let agent = agent_here(&args.source)?;
    let window = args.window.unwrap_or(DEFAULT_WINDOW);
    let thresholds = args.thresholds();
    let failed = |error| failure_of(&status_of(&error));
    // before the window passes
    agent.check_thresholds(&thresholds).map_err(failed)?;
    let target = Target {
        instance_id: args.id.clone(),
        engine: Some(args.engine.clone()).filter(|name| name != "auto"),
        metrics_urls: args.urls.clone(),
    };
    let request = WindowRequest {
        length: Some(window),
        deadline_in: None,
    };
    let progress = Bar::new(window, args.urls.len());
    let measured = agent
        .collect(&Caller::anonymous(), &target, request, &|done| {
            progress.show(done);
        })
        .await;
    progress.clear();
    let found = measured.and_then(|measured| agent.diagnose(&measured, &thresholds));
    Ok(convert_analysis::diagnosis(&found.map_err(failed)?))
}

/// A measurement, in this process and without a server.
async fn of_file(
    args: &DiagnoseArgs,
    path: &Path,
) -> Result<pb::DetectBottlenecksResponse, Failure> {
    let agent = agent_here(&args.source)?;
    let request = pb::DetectBottlenecksRequest {
        measurement: Some(measurement(path)?),
        thresholds: args.thresholds().into_iter().collect(),
        ..pb::DetectBottlenecksRequest::default()
    };
    let found = detect::answer(&agent, &Caller::anonymous(), request, None).await;
    found.map_err(|error| failure_of(&status_of(&error)))
}

fn measurement(path: &Path) -> Result<pb::Measurement, Failure> {
    let read = match path.to_str() {
        Some("-") => measurement_from(std::io::stdin().lock(), Path::new("standard input")),
        _ => measurement_in(path),
    };
    let hint = Some("give what `perfagent collect --output json` wrote");
    read.map_err(|message| Failure::new(Outcome::Usage, message, hint))
}

/// By an agent, over gRPC.
async fn remotely(args: &DiagnoseArgs) -> Result<pb::DetectBottlenecksResponse, Failure> {
    let given = args.file.as_deref().map(measurement).transpose()?;
    let agent = args.connect.connect().await?;
    let window = match args.urls.is_empty() {
        true => args.window,
        false => Some(args.window.unwrap_or(DEFAULT_WINDOW)),
    };
    let of_file = given.is_some();
    let mut request = tonic::Request::new(pb::DetectBottlenecksRequest {
        instance_id: match (&args.instance, of_file) {
            (Some(id), _) => id.clone(),
            (None, true) => String::new(),
            (None, false) => args.id.clone(),
        },
        instance_type: args.engine.clone(),
        metrics_url: String::new(),
        metrics_urls: args.urls.clone(),
        window: window.and_then(convert::duration),
        measurement: given,
        thresholds: HashMap::from_iter(args.thresholds.clone()),
    });
    request.set_timeout(window.unwrap_or_default() + Duration::from_secs(30));
    let answer = AnalysisServiceClient::new(agent.channel())
        .detect_bottlenecks(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}

impl DiagnoseArgs {
    fn thresholds(&self) -> BTreeMap<String, f64> {
        self.thresholds.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::threshold;

    #[test]
    fn thresholds_are_named_numbers() {
        assert_eq!(
            threshold("stall_seconds=2.5"),
            Ok(("stall_seconds".to_owned(), 2.5))
        );
        assert!(threshold("stall_seconds").is_err());
        assert!(threshold("stall_seconds=long").is_err());
    }
}
