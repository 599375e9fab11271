//! `perfagent demo`: the product in one command, on engines that are simulated.

mod canaries;
mod listener;
mod rollout;
mod webhook;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::instances_page::aligned;
use super::optimize::effect::in_short;
use super::table::{duration, number};
use super::terminal::{clean, print};
use super::{Failure, Outcome};
use crate::actuator::ActuatorEntry;
use crate::agent::Agent;
use crate::config::{Config, InstanceEntry};
use crate::edge::audit::AuditLog;
use crate::edge::grpc::pb::analysis_service_client::AnalysisServiceClient;
use crate::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use crate::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;
use crate::edge::grpc::{Server, pb};
use crate::edge::simulate::Simulated;
use crate::simulator::Scenario;
use crate::store::SqliteStore;
use crate::telemetry::{LogFormat, LogLevel, init_logging};

/// Flags of `perfagent demo`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct DemoArgs {
    /// Where the agent listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8002", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Post what happens to a receiver of webhooks, also to one on this machine; signed with the secret in WEBHOOK_SECRET, or
    /// with one that is printed
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// End after the walk, and do not stay up to be tried
    #[arg(long)]
    once: bool,
}

const ABOUT: &str = "Simulated engines with different troubles, an agent that watches them, what it finds and changes, and two \
canaries: a change that helps goes to all replicas, one that harms is undone. It takes about two minutes. Nothing is left \
behind: the state is in a temporary directory, and Ctrl-C ends everything.

Exit codes: 0 ended; 1 failed.";

/// A simulated deployment, and what was built into it.
struct Trouble {
    id: &'static str,
    built_in: &'static str,
    scenario: &'static str,
    /// What an operator says of how it was started, where its engine does not tell.
    launch_args: &'static [&'static str],
}

const TROUBLES: [Trouble; 3] = [
    Trouble {
        id: "demo-vllm",
        built_in: "may run 4 requests at once while 32 clients ask: the queue is the trouble",
        scenario: include_str!("demo/vllm.toml"),
        launch_args: &[],
    },
    Trouble {
        id: "demo-sglang",
        built_in: "takes 0.71 of its memory, which leaves a KV cache for a few requests: they are retracted and computed again",
        scenario: include_str!("demo/sglang.toml"),
        launch_args: &[],
    },
    Trouble {
        id: "demo-tgi",
        built_in: "may run 6 requests at once while 32 clients ask",
        scenario: include_str!("demo/tgi.toml"),
        launch_args: &["--max-batch-size", "6", "--max-batch-total-tokens", "60000"],
    },
];

/// What settings are changed by, and whose first.
const ACTUATOR: &str = "simulator";
const CHANGED: &str = "demo-vllm";

/// Between two scrapes, and what a measurement covers: short, so that nobody waits.
const INTERVAL: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(15);
/// The first window is whole by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// An engine loads at once.
const LOAD_TIME: Duration = Duration::from_millis(500);

pub(super) async fn run(args: DemoArgs) -> Outcome {
    init_logging(LogFormat::Text, LogLevel::Error);
    match demo(&args).await {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.told(),
    }
}

async fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let stop = CancellationToken::new();
    let ended = tokio::select! {
        ended = walk(args, &stop) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    stop.cancel();
    ended
}

async fn walk(args: &DemoArgs, stop: &CancellationToken) -> Result<(), Failure> {
    print(
        "perfagent demo. The engines are SIMULATED, and so is every number below; all else is real.\n\n",
    );
    let (agent, _state) = start(args, stop).await?;
    let channel = Channel::from_shared(format!("http://{agent}"))
        .map_err(|error| failed(&error))?
        .connect_lazy();
    if let Some(url) = &args.webhook {
        webhook::create(&channel, url).await?;
    }
    fill(&channel).await?;
    print("collect: what the agent measured over the last 15 s, from the engines' own metrics\n\n");
    for trouble in &TROUBLES {
        print(&shown(trouble, &collect(&channel, trouble.id).await?));
    }
    print("diagnose and recommend: what holds each of them back, and what to change\n\n");
    for trouble in &TROUBLES {
        let found = diagnose(&channel, trouble.id).await?;
        print(&named(trouble, &found));
        print(&advised(&recommend(&channel, trouble.id).await?));
    }
    rollout::roll_out(&channel, CHANGED).await?;
    canaries::run(&channel).await?;
    if args.webhook.is_some() {
        webhook::settle(&channel).await?;
    }
    if args.once {
        return Ok(());
    }
    print(&to_try(agent));
    std::future::pending().await
}

/// The engines, and the agent that watches them; where it listens, and what it is kept in until the end.
async fn start(
    args: &DemoArgs,
    stop: &CancellationToken,
) -> Result<(SocketAddr, tempfile::TempDir), Failure> {
    let state = tempfile::Builder::new()
        .prefix("perfagent-demo-")
        .tempdir()
        .map_err(|error| failed(&error))?;
    let mut config = Config::default();
    config.server.listen = args.listen;
    // asked for by whoever runs a demo where others can reach it
    config.server.insecure_listen = !args.listen.ip().is_loopback();
    // whoever tries it is alone with it
    config.workflows.auto_approve = true;
    config.actuators.push(actuator()?);
    if let Some(url) = &args.webhook {
        webhook::allow(url, &mut config.webhook);
    }
    let mut engines = Vec::new();
    let troubles = TROUBLES.iter().map(|trouble| (trouble, INTERVAL, WINDOW));
    let pool = (&canaries::POOL, canaries::INTERVAL, canaries::WINDOW);
    for (trouble, interval, window) in troubles.chain([pool]) {
        let simulated = simulated(trouble).await?;
        config.instances.push(InstanceEntry {
            slos: Vec::new(),
            launch_args: trouble
                .launch_args
                .iter()
                .copied()
                .map(str::to_owned)
                .collect(),
            actuator: Some(ACTUATOR.to_owned()),
            instance_id: trouble.id.to_owned(),
            instance_type: None,
            metrics_url: None,
            metrics_urls: simulated.urls(),
            scrape_interval: Some(interval),
            window: Some(window),
            labels: [("simulated".to_owned(), "true".to_owned())].into(),
        });
        print(&format!("  {} {}\n", trouble.id, trouble.built_in));
        engines.push(simulated);
    }
    config.check().map_err(|error| failed(&error))?;
    let store = SqliteStore::open(state.path())
        .await
        .map_err(|error| failed(&error))?;
    let agent = Agent::start(&config, Arc::new(store))
        .await
        .map_err(|error| failed(&error))?;
    let server = match Server::bind(agent, config.server, &config.auth).await {
        Ok(server) => server,
        Err(error) => {
            let by = listener::of(args.listen)
                .map_or(String::new(), |who| format!("; {who} listens there"));
            let hint = "stop it, or give another --listen, such as 127.0.0.1:0 for a free port";
            return Err(Failure::new(
                Outcome::Failed,
                format!("{error}{by}"),
                Some(hint),
            ));
        }
    };
    let audit = AuditLog::open(state.path()).map_err(|error| failed(&error))?;
    let server = server.with_audit_log(audit);
    let (address, handle) = (server.address(), server.handle());
    for simulated in engines {
        tokio::spawn(simulated.serve(stop.clone()));
    }
    tokio::spawn(server.serve());
    let stopped = stop.clone();
    tokio::spawn(async move {
        stopped.cancelled().await;
        handle.stop();
    });
    print(&format!(
        "  an agent watches them, and serves gRPC at {address}\n\n"
    ));
    Ok((address, state))
}

/// What drives the simulated engines.
fn actuator() -> Result<ActuatorEntry, Failure> {
    let entry = format!("name = \"{ACTUATOR}\"\ntype = \"simulator\"");
    toml::from_str(&entry).map_err(|error| failed(&error))
}

async fn simulated(trouble: &Trouble) -> Result<Simulated, Failure> {
    let scenario: Scenario = toml::from_str(trouble.scenario).map_err(|error| failed(&error))?;
    let deployment = scenario.deployment().map_err(|error| failed(&error))?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let simulated = Simulated::bind(deployment, loopback, 0)
        .await
        .map_err(|error| failed(&error))?;
    simulated.load_for(LOAD_TIME);
    Ok(simulated)
}

/// Waits until the first window is whole, and shows how far it is.
async fn fill(channel: &Channel) -> Result<(), Failure> {
    let bar = ProgressBar::with_draw_target(Some(WINDOW.as_secs()), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("the first window fills {bar:30} {pos}/{len} s")
    {
        bar.set_style(style);
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut least = f64::INFINITY;
        for trouble in &TROUBLES {
            // there is none until there are two scrapes
            let seconds = match collect(channel, trouble.id).await {
                Ok(measurement) => seconds_of(&measurement),
                Err(_) if tokio::time::Instant::now() < end => 0.0,
                Err(failure) => return Err(failure),
            };
            least = least.min(seconds);
        }
        bar.set_position(least as u64);
        // the last interval of a window may be a little short
        if least + INTERVAL.as_secs_f64() >= WINDOW.as_secs_f64()
            || tokio::time::Instant::now() >= end
        {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(INTERVAL / 4).await;
    }
}

async fn collect(channel: &Channel, id: &str) -> Result<pb::Measurement, Failure> {
    let request = pb::CollectMetricsRequest {
        instance_id: id.to_owned(),
        ..pb::CollectMetricsRequest::default()
    };
    let mut client = MetricsServiceClient::new(channel.clone());
    let answer = client.collect_metrics(request).await;
    let answer = answer
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    answer
        .measurement
        .ok_or_else(|| failed(&"an answer without a measurement"))
}

async fn diagnose(channel: &Channel, id: &str) -> Result<pb::DetectBottlenecksResponse, Failure> {
    let request = pb::DetectBottlenecksRequest {
        instance_id: id.to_owned(),
        ..pb::DetectBottlenecksRequest::default()
    };
    let mut client = AnalysisServiceClient::new(channel.clone());
    let answer = client.detect_bottlenecks(request).await;
    Ok(answer
        .map_err(|status| failed(&status.message()))?
        .into_inner())
}

/// What was found of one instance, in a few lines.
fn named(trouble: &Trouble, found: &pb::DetectBottlenecksResponse) -> String {
    let simulated = if found.simulated { ", simulated" } else { "" };
    let mut text = format!("{}{simulated}: {}\n", trouble.id, clean(&found.headline));
    if let Some(first) = found.bottlenecks.first() {
        text.push_str(&format!("  what to do: {}\n", clean(&first.recommendation)));
    }
    text
}

async fn recommend(
    channel: &Channel,
    id: &str,
) -> Result<pb::RecommendOptimizationsResponse, Failure> {
    let request = pb::RecommendOptimizationsRequest {
        instance_id: id.to_owned(),
        ..pb::RecommendOptimizationsRequest::default()
    };
    let mut client = OptimizationServiceClient::new(channel.clone());
    let answer = client.recommend_optimizations(request).await;
    Ok(answer
        .map_err(|status| failed(&status.message()))?
        .into_inner())
}

/// The first recommendation with its numbers, or why there is none.
fn advised(of: &pb::RecommendOptimizationsResponse) -> String {
    let told = match of.optimizations.first() {
        Some(first) => format!("{}; {}", clean(&first.title), in_short(first)),
        None => clean(&of.headline),
    };
    format!("  recommended: {told}\n\n")
}

/// What the window covers.
fn seconds_of(measurement: &pb::Measurement) -> f64 {
    measurement
        .window
        .as_ref()
        .and_then(|window| window.observed_seconds)
        .unwrap_or(0.0)
}

/// One instance, in a few lines.
fn shown(trouble: &Trouble, measurement: &pb::Measurement) -> String {
    let simulated = if measurement.simulated {
        "simulated"
    } else {
        "NOT simulated"
    };
    let engine = clean(&measurement.instance_type);
    let mut text = format!("{}  {engine}, {simulated}\n", trouble.id);
    let requests = measurement.request_metrics.unwrap_or_default();
    let gpu = measurement.gpu_metrics.unwrap_or_default();
    let throughput = measurement.throughput_metrics.unwrap_or_default();
    let rows = [
        (
            "throughput",
            throughput
                .tokens_per_second
                .map(|value| format!("{} tokens/s", number(value))),
        ),
        (
            "time to first token",
            requests.time_to_first_token_seconds.map(duration),
        ),
        (
            "time per output token",
            requests.time_per_output_token_seconds.map(duration),
        ),
        (
            "running, waiting",
            gpu.num_requests_running
                .zip(gpu.num_requests_waiting)
                .map(|(running, waiting)| format!("{}, {}", number(running), number(waiting))),
        ),
        (
            "KV cache in use",
            gpu.cache_usage_perc
                .map(|value| format!("{} %", number(value))),
        ),
    ];
    let rows: Vec<[String; 2]> = rows
        .into_iter()
        .map(|(name, value)| {
            let value = value.unwrap_or_else(|| "not exported".to_owned());
            [format!("  {name}"), value]
        })
        .collect();
    text.push_str(&aligned(&rows));
    if measurement.replicas.len() > 1 {
        let each: Vec<String> = measurement.replicas.iter().map(token_time).collect();
        text.push_str(&format!("  of its replicas        {}\n", each.join(", ")));
    }
    text.push('\n');
    text
}

/// Mean time of an output token of one replica.
fn token_time(replica: &pb::ReplicaMeasurement) -> String {
    let figures = replica.figures.as_ref();
    let found = figures.and_then(|figures| {
        let names = [
            "time_per_output_token_seconds",
            "inter_token_latency_seconds",
        ];
        let named = |one: &&pb::Distribution| names.contains(&one.name.as_str());
        figures.distributions.iter().find(named)?.mean
    });
    found.map_or_else(|| "not exported".to_owned(), duration)
}

fn to_try(agent: SocketAddr) -> String {
    format!(
        "\nThe agent stays up; Ctrl-C ends it. Try, from another terminal:
  perfagent watch --server {agent}
  perfagent diagnose demo-vllm --server {agent}
  perfagent recommend demo-sglang --server {agent}
  perfagent workflow start demo-sglang --server {agent}
  perfagent workflow rollback demo-vllm --watch --server {agent}
  perfagent workflow get demo-pool --server {agent}
  grpcurl -plaintext -d '{{\"instance_id\": \"demo-sglang\"}}' {agent} perfagent.v1.MetricsService/CollectMetrics
  python3 -c 'import perfagent; print(perfagent.Client(\"{agent}\").collect_metrics(\"demo-tgi\"))'
  curl http://{agent}/metrics
  open http://{agent}/docs\n"
    )
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Outcome::Failed, error.to_string(), None)
}
