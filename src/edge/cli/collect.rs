//! `perfagent collect`

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tonic_types::StatusExt;

use super::connect::ConnectArgs;
use super::terminal::{clean, colour_on_stdout, complain, print};
use super::{ConfigSource, Failure, Outcome, json, table};
use crate::agent::{Agent, Caller, Progress, Target, WindowRequest};
use crate::config::ServerConfig;
use crate::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use crate::edge::grpc::{convert, pb, status_of};

/// Flags of `perfagent collect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CollectArgs {
    /// Instance that an agent watches; it is asked for the last window that it measured
    #[arg(
        value_name = "INSTANCE",
        required_unless_present = "urls",
        conflicts_with = "urls"
    )]
    instance: Option<String>,
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the config file, or auto
    #[arg(long, default_value = "auto", value_name = "ENGINE")]
    engine: String,
    /// How long to measure, up to 5m [default: 5s; of an instance, the last window]; 0s shows totals since the engine's
    /// start, without rates
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Option<Duration>,
    /// Id to show in the answer
    #[arg(long, default_value = "target", value_name = "ID")]
    id: String,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    source: ConfigSource,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const DEFAULT_WINDOW: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "Examples:
  perfagent collect --url http://127.0.0.1:8000/metrics
  perfagent collect --engine sglang --url http://127.0.0.1:30000/metrics --window 30s
  perfagent collect --url http://a:8000/metrics --url http://b:8000/metrics --output json
  perfagent collect vllm-1 --server 127.0.0.1:8002

Exit codes: 0 measured; 1 failed; 2 wrong usage or configuration; 3 measured, but not every replica.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// A table for people
    #[default]
    Table,
    /// JSON with the same content and more
    Json,
}

pub(super) async fn run(args: CollectArgs) -> Outcome {
    let window = args.window.unwrap_or(DEFAULT_WINDOW);
    let progress = Bar::new(window, args.urls.len());
    let measured = match (&args.connect.server, &args.instance) {
        (None, None) => here(&args, window, &progress).await,
        _ => remotely(&args).await,
    };
    progress.clear();
    let answer = match measured {
        Ok(answer) => answer,
        Err(failure) => return failure.told(),
    };
    let Some(measurement) = &answer.measurement else {
        complain("the server answered without a measurement", None);
        return Outcome::Failed;
    };
    match args.output {
        Output::Table => {
            let mut text = table::render(measurement, colour_on_stdout());
            text += &staleness(&answer);
            print(&text);
        }
        Output::Json => match json::to_json("perfagent.v1.CollectMetricsResponse", &answer) {
            Ok(value) => print(&json::text_of(&value)),
            Err(error) => {
                complain(&error, None);
                return Outcome::Failed;
            }
        },
    }
    let complete = measurement
        .replicas
        .iter()
        .all(|replica| replica.failure.is_none());
    if complete {
        Outcome::Done
    } else {
        Outcome::Partial
    }
}

/// What makes an agent's last measurement of an instance one of the past.
fn staleness(answer: &pb::CollectMetricsResponse) -> String {
    let mut text = String::new();
    if answer.stale {
        text += "\nSTALE: the instance has not been measured since; this is how it was\n";
    }
    if let Some(failure) = &answer.last_failure {
        text += &format!("\nlast scrape failed: {}\n", clean(&failure.message));
    }
    text
}

/// In this process, without a server.
async fn here(
    args: &CollectArgs,
    window: Duration,
    progress: &Bar,
) -> Result<pb::CollectMetricsResponse, Failure> {
    let agent = agent_here(&args.source)?;
    let target = Target {
        instance_id: args.id.clone(),
        engine: Some(args.engine.clone()).filter(|name| name != "auto"),
        metrics_urls: args.urls.clone(),
    };
    let window = WindowRequest {
        length: Some(window),
        deadline_in: None,
    };
    let measured = agent
        .collect(&Caller::anonymous(), &target, window, &|done| {
            progress.show(done);
        })
        .await;
    match measured {
        Ok(measurement) => Ok(pb::CollectMetricsResponse {
            measurement: Some(convert::measurement(&measurement)),
            ..pb::CollectMetricsResponse::default()
        }),
        Err(error) => Err(failure_of(&status_of(&error))),
    }
}

/// An agent in this process, which knows no instances.
pub(super) fn agent_here(source: &ConfigSource) -> Result<Agent, Failure> {
    let usage = |message: String| Failure::new(Outcome::Usage, message, None);
    let mut config = source.load().map_err(|error| usage(error.to_string()))?;
    // whoever runs a command here reaches what this machine reaches
    config.server = ServerConfig::default();
    Agent::new(&config).map_err(|error| usage(error.to_string()))
}

/// By an agent, over gRPC.
async fn remotely(args: &CollectArgs) -> Result<pb::CollectMetricsResponse, Failure> {
    let agent = args.connect.connect().await?;
    let mut request = tonic::Request::new(pb::CollectMetricsRequest {
        instance_id: args.instance.as_ref().unwrap_or(&args.id).clone(),
        instance_type: args.engine.clone(),
        metrics_url: String::new(),
        metrics_urls: args.urls.clone(),
        window: match (args.window, &args.instance) {
            (None, Some(_)) => None,
            (window, _) => convert::duration(window.unwrap_or(DEFAULT_WINDOW)),
        },
        view: pb::MeasurementView::Full.into(),
    });
    request.set_timeout(args.window.unwrap_or(DEFAULT_WINDOW) + Duration::from_secs(30));
    let answer = MetricsServiceClient::new(agent.channel())
        .collect_metrics(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}

pub(super) fn failure_of(status: &tonic::Status) -> Failure {
    let info = status.get_details_error_info();
    let hint = info.and_then(|info| info.metadata.get("hint").cloned());
    let message = match &hint {
        // the hint is shown on a line of its own
        Some(hint) => status.message().replace(&format!(" ({hint})"), ""),
        None => status.message().to_owned(),
    };
    // fields of the request by the flags that set them
    let violations = status
        .get_details_bad_request()
        .map(|details| details.field_violations);
    let message = match violations {
        Some(violations) if !violations.is_empty() => {
            let named: Vec<String> = violations
                .iter()
                .map(|one| format!("{}: {}", flag_of(&one.field), one.description))
                .collect();
            named.join("\n")
        }
        _ => message,
    };
    let hint = hint.map(|hint| {
        hint.replace("instance_type", "--engine")
            .replace("metrics_url", "--url")
    });
    Failure {
        outcome: if status.code() == tonic::Code::InvalidArgument {
            Outcome::Usage
        } else {
            Outcome::Failed
        },
        message,
        hint,
    }
}

fn flag_of(field: &str) -> String {
    if let Some(place) = field.strip_prefix("measurement.") {
        return format!("--file: {place}");
    }
    let flag = match field {
        "instance_id" => "--id",
        "instance_type" => "--engine",
        "metrics_url" | "metrics_urls" => "--url",
        "window" => "--window",
        "scrape_interval" => "--interval",
        "labels" => "--label",
        "recording" => "--replay",
        threshold if threshold.starts_with("thresholds[") => "--threshold",
        slo if slo.starts_with("constraints.must_hold") => "--must-hold",
        change if change == "changes" || change.starts_with("changes.") => "--set",
        other => other,
    };
    flag.to_owned()
}

/// Progress on a terminal while the window passes; nothing elsewhere.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(super) fn new(window: Duration, replicas: usize) -> Self {
        if !std::io::stderr().is_terminal() || window.is_zero() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} scrapes")
        {
            bar.set_style(style);
        }
        bar.set_message(format!(
            "measuring {replicas} replica{} for {}",
            if replicas == 1 { "" } else { "s" },
            humantime::format_duration(window)
        ));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }

    pub(super) fn show(&self, progress: Progress) {
        if let Some(bar) = &self.0 {
            bar.set_length(progress.of as u64);
            bar.set_position(progress.done as u64);
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
