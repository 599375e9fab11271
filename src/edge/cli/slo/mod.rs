//! `perfagent slo`

pub(super) mod page;

use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::collect::{Bar, agent_here, failure_of};
use super::connect::ConnectArgs;
use super::terminal::{colour_on_stdout, print};
use super::{ConfigSource, Failure, Outcome, json};
use crate::agent::{Caller, Target, WindowRequest};
use crate::analysis::Slo;
use crate::edge::grpc::pb::analysis_service_client::AnalysisServiceClient;
use crate::edge::grpc::{convert, convert_slo, pb, status_of};

/// Flags of `perfagent slo`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["instance", "urls"])
)]
pub(super) struct SloArgs {
    /// Instance that an agent watches; it is asked about the last window that it measured, and its error budgets
    #[arg(value_name = "INSTANCE")]
    instance: Option<String>,
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the config file, or auto
    #[arg(long, default_value = "auto", value_name = "ENGINE")]
    engine: String,
    /// How long to measure, up to 5m [default: 20s; of an instance, the last window]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Option<Duration>,
    /// Id to show in the answer
    #[arg(long, default_value = "target", value_name = "ID")]
    id: String,
    /// Promise to hold it against instead of those in force, as in the examples; may be repeated
    #[arg(long = "slo", value_parser = Slo::from_str, value_name = "SLO")]
    slos: Vec<Slo>,
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
  perfagent slo vllm-1 --server 127.0.0.1:8002
  perfagent slo --engine vllm --url http://127.0.0.1:8000/metrics --window 60s
  perfagent slo --url http://a:8000/metrics --slo 'ttft: p99 time_to_first_token_seconds <= 2'
  perfagent slo vllm-1 --slo 'rate: generation_tokens_per_second >= 500 while requests wait'

An SLO is NAME: [mean|pN] QUANTITY <= TARGET, or >= for at least; quantities are named as in what
`perfagent collect` prints. SLOs are set for good with `perfagent instances register` and
`update`, or in [[slos]] of the config file.

Exit codes: 0 met, or nothing happened that they are about; 10 violated; 11 none is violated, and
one cannot be told; 1 failed; 2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A page for people
    #[default]
    Text,
    /// JSON with the same content and more
    Json,
}

/// As of `perfagent diagnose`.
const DEFAULT_WINDOW: Duration = Duration::from_secs(20);

pub(super) async fn run(args: SloArgs) -> Outcome {
    evaluate(&args)
        .await
        .unwrap_or_else(|failure| failure.told())
}

async fn evaluate(args: &SloArgs) -> Result<Outcome, Failure> {
    let answer = match (&args.connect.server, &args.instance) {
        (None, None) => here(args).await?,
        _ => remotely(args).await?,
    };
    match args.output {
        Output::Text => print(&page::render(&answer, colour_on_stdout())),
        Output::Json => {
            let value = json::to_json("perfagent.v1.EvaluateSlosResponse", &answer);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::text_of(&value));
        }
    }
    Ok(match answer.status() {
        pb::SloStatus::Met | pb::SloStatus::NotApplicable => Outcome::Done,
        pb::SloStatus::Violated => Outcome::Findings,
        // one of a later version is none that can be acted on here
        pb::SloStatus::Unknown | pb::SloStatus::Unspecified => Outcome::CannotTell,
    })
}

/// In this process, without a server.
async fn here(args: &SloArgs) -> Result<pb::EvaluateSlosResponse, Failure> {
    let agent = agent_here(&args.source)?;
    let failed = |error| failure_of(&status_of(&error));
    // before the window passes
    agent.check_slos(&args.slos).map_err(failed)?;
    let window = args.window.unwrap_or(DEFAULT_WINDOW);
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
    let found = measured.and_then(|one| agent.evaluate_measured(&one, args.slos.clone()));
    Ok(convert_slo::evaluated(&found.map_err(failed)?))
}

/// By an agent, over gRPC.
async fn remotely(args: &SloArgs) -> Result<pb::EvaluateSlosResponse, Failure> {
    let agent = args.connect.connect().await?;
    let window = match args.urls.is_empty() {
        true => args.window,
        false => Some(args.window.unwrap_or(DEFAULT_WINDOW)),
    };
    let mut request = tonic::Request::new(pb::EvaluateSlosRequest {
        instance_id: args.instance.as_ref().unwrap_or(&args.id).clone(),
        instance_type: args.engine.clone(),
        metrics_url: String::new(),
        metrics_urls: args.urls.clone(),
        window: window.and_then(convert::duration),
        measurement: None,
        slos: args.slos.iter().map(convert_slo::slo).collect(),
    });
    request.set_timeout(window.unwrap_or_default() + Duration::from_secs(30));
    let answer = AnalysisServiceClient::new(agent.channel())
        .evaluate_slos(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}
