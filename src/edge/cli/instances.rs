//! `perfagent instances`

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::collect::{Output, failure_of};
use super::connect::{AgentChannel, ConnectArgs, ConnectedAgent};
use super::instances_page::{details, hidden_line, table};
use super::terminal::{clean, print};
use super::{Failure, Outcome, json};
use crate::analysis::Slo;
use crate::edge::grpc::convert::duration;
use crate::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use crate::edge::grpc::{convert_slo, pb};

/// What can be done with instances.
#[derive(Debug, Subcommand)]
pub(super) enum InstancesCommand {
    /// Register an instance, which the agent then watches
    Register(RegisterArgs),
    /// Show an instance and how it is
    Get(GetArgs),
    /// List instances and how they are
    List(ListArgs),
    /// Change an instance; what is not given stays
    Update(UpdateArgs),
    /// Forget an instance; the engine itself is not touched
    Delete(DeleteArgs),
}

/// Flags of `perfagent instances register`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent instances register vllm-1 --url http://127.0.0.1:8000/metrics --label team=chat"
)]
pub(super) struct RegisterArgs {
    /// Its id: lower-case letters, digits, `-` and `.`
    id: String,
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the agent's config file, or auto
    #[arg(long, default_value = "auto", value_name = "ENGINE")]
    engine: String,
    #[command(flatten)]
    timing: TimingArgs,
    /// A label, such as team=chat; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// A promise, such as "ttft: p99 time_to_first_token_seconds <= 0.5"; may be repeated
    #[arg(long = "slo", value_parser = Slo::from_str, value_name = "SLO")]
    slos: Vec<Slo>,
    /// Actuator of the agent's config file that reads and writes its settings
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    actuator: String,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Launch arguments that the engine runs with, after `--`; what may be secret in them is not kept
    #[arg(last = true, value_name = "LAUNCH_ARGS")]
    launch_args: Vec<String>,
}

/// When an instance is scraped, and what its measurements cover.
#[derive(Debug, Args)]
struct TimingArgs {
    /// Time between scrapes, 200ms to 5m [default: 15s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    interval: Option<Duration>,
    /// How far back measurements reach, up to 5m and 60 intervals [default: 1m, or what the interval asks for]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Option<Duration>,
}

/// What every one of these commands takes.
#[derive(Debug, Args)]
struct AnswerArgs {
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Flags of `perfagent instances get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Its id
    id: String,
    #[command(flatten)]
    answer: AnswerArgs,
}

/// Flags of `perfagent instances list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those with this label; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    answer: AnswerArgs,
}

/// Flags of `perfagent instances update`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: perfagent instances update vllm-1 --interval 5s --label team=chat"
)]
pub(super) struct UpdateArgs {
    /// Its id
    id: String,
    /// Metrics URLs of all replicas
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the agent's config file, or auto
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    #[command(flatten)]
    timing: TimingArgs,
    /// All labels that it is to have; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE", conflicts_with = "no_labels")]
    labels: Vec<(String, String)>,
    /// Take all labels away
    #[arg(long)]
    no_labels: bool,
    /// All promises that it is to have; may be repeated
    #[arg(long = "slo", value_parser = Slo::from_str, value_name = "SLO", conflicts_with = "no_slos")]
    slos: Vec<Slo>,
    /// Take all promises away: those of the agent's config file hold, or the defaults
    #[arg(long)]
    no_slos: bool,
    /// Actuator of the agent's config file that reads and writes its settings
    #[arg(long, value_name = "NAME", conflicts_with = "no_actuator")]
    actuator: Option<String>,
    /// Take the actuator away: plans of workflows are then made, and not applied
    #[arg(long)]
    no_actuator: bool,
    /// Take the declared launch arguments away
    #[arg(long, conflicts_with = "launch_args")]
    no_launch_args: bool,
    /// Only if this is still its etag, as `get --output json` shows it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "ETAG"
    )]
    etag: String,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Launch arguments that the engine runs with now, all of them, after `--`
    #[arg(last = true, value_name = "LAUNCH_ARGS")]
    launch_args: Vec<String>,
}

/// Flags of `perfagent instances delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Its id
    id: String,
    /// Only if this is still its etag, as `get --output json` shows it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "ETAG"
    )]
    etag: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn run(command: InstancesCommand) -> Outcome {
    let done = match command {
        InstancesCommand::Register(args) => register(args).await,
        InstancesCommand::Get(args) => get(args).await,
        InstancesCommand::List(args) => list(args).await,
        InstancesCommand::Update(args) => update(args).await,
        InstancesCommand::Delete(args) => delete(args).await,
    };
    match done {
        Ok(text) => {
            print(&text);
            Outcome::Done
        }
        Err(failure) => failure.told(),
    }
}

async fn register(args: RegisterArgs) -> Result<String, Failure> {
    let (agent, mut client) = client(&args.answer.connect).await?;
    let request = request(pb::RegisterInstanceRequest {
        request_id: Uuid::new_v4().to_string(),
        instance_id: args.id,
        instance_type: args.engine,
        metrics_url: String::new(),
        metrics_urls: args.urls,
        scrape_interval: args.timing.interval.and_then(duration),
        window: args.timing.window.and_then(duration),
        labels: args.labels.into_iter().collect(),
        slos: args.slos.iter().map(convert_slo::slo).collect(),
        launch_args: args.launch_args,
        actuator: args.actuator,
    });
    let answer = client.register_instance(request).await;
    let answer = answer
        .map_err(|status| failed(&agent, &status))?
        .into_inner();
    match args.answer.output {
        Output::Json => json_of("perfagent.v1.RegisterInstanceResponse", &answer),
        Output::Table => Ok(format!(
            "registered {}\n{}",
            answer.instance.unwrap_or_default().instance_id,
            hidden_line(&answer.hidden_launch_args)
        )),
    }
}

async fn get(args: GetArgs) -> Result<String, Failure> {
    let (agent, mut client) = client(&args.answer.connect).await?;
    let request = request(pb::GetInstanceRequest {
        instance_id: args.id,
    });
    let answer = client.get_instance(request).await;
    let answer = answer
        .map_err(|status| failed(&agent, &status))?
        .into_inner();
    match args.answer.output {
        Output::Json => json_of("perfagent.v1.GetInstanceResponse", &answer),
        Output::Table => Ok(details(&answer.instance.unwrap_or_default())),
    }
}

/// An instance that an agent knows.
pub(super) async fn spec_of(connect: &ConnectArgs, id: &str) -> Result<pb::Instance, Failure> {
    let (agent, mut client) = client(connect).await?;
    let request = request(pb::GetInstanceRequest {
        instance_id: id.to_owned(),
    });
    let answer = client.get_instance(request).await;
    let answer = answer.map_err(|status| failed(&agent, &status))?;
    Ok(answer.into_inner().instance.unwrap_or_default())
}

async fn list(args: ListArgs) -> Result<String, Failure> {
    let (agent, mut client) = client(&args.answer.connect).await?;
    let mut all = pb::ListInstancesResponse::default();
    let mut token = String::new();
    loop {
        let request = request(pb::ListInstancesRequest {
            page_size: 0,
            page_token: token,
            labels: args.labels.iter().cloned().collect(),
        });
        let page = client.list_instances(request).await;
        let page = page.map_err(|status| failed(&agent, &status))?.into_inner();
        all.instances.extend(page.instances);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    match args.answer.output {
        Output::Json => json_of("perfagent.v1.ListInstancesResponse", &all),
        Output::Table => Ok(table(&all.instances, SystemTime::now())),
    }
}

async fn update(args: UpdateArgs) -> Result<String, Failure> {
    let given = [
        ("instance_type", args.engine.is_some()),
        ("metrics_urls", !args.urls.is_empty()),
        ("scrape_interval", args.timing.interval.is_some()),
        ("window", args.timing.window.is_some()),
        ("labels", args.no_labels || !args.labels.is_empty()),
        ("slos", args.no_slos || !args.slos.is_empty()),
        (
            "launch_args",
            args.no_launch_args || !args.launch_args.is_empty(),
        ),
        ("actuator", args.no_actuator || args.actuator.is_some()),
    ];
    let paths: Vec<String> = given
        .iter()
        .filter(|(_, given)| *given)
        .map(|(path, _)| (*path).to_owned())
        .collect();
    if paths.is_empty() {
        let hint = "give at least one of --url, --engine, --interval, --window, --label, --no-labels, --slo, --no-slos, --actuator, --no-actuator, --no-launch-args, or launch arguments after --";
        return Err(Failure::new(
            Outcome::Usage,
            "nothing to change",
            Some(hint),
        ));
    }
    let (agent, mut client) = client(&args.answer.connect).await?;
    let request = request(pb::UpdateInstanceRequest {
        request_id: Uuid::new_v4().to_string(),
        instance: Some(pb::Instance {
            instance_id: args.id,
            instance_type: args.engine.unwrap_or_default(),
            metrics_urls: args.urls,
            scrape_interval: args.timing.interval.and_then(duration),
            window: args.timing.window.and_then(duration),
            labels: args.labels.into_iter().collect(),
            etag: args.etag,
            slos: args.slos.iter().map(convert_slo::slo).collect(),
            launch_args: args.launch_args,
            actuator: args.actuator.unwrap_or_default(),
            ..pb::Instance::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths }),
    });
    let answer = client.update_instance(request).await;
    let answer = answer
        .map_err(|status| failed(&agent, &status))?
        .into_inner();
    match args.answer.output {
        Output::Json => json_of("perfagent.v1.UpdateInstanceResponse", &answer),
        Output::Table => Ok(format!(
            "{}{}",
            details(&answer.instance.unwrap_or_default()),
            hidden_line(&answer.hidden_launch_args)
        )),
    }
}

async fn delete(args: DeleteArgs) -> Result<String, Failure> {
    let (agent, mut client) = client(&args.connect).await?;
    let text = format!("deleted {}\n", clean(&args.id));
    let request = request(pb::DeleteInstanceRequest {
        request_id: Uuid::new_v4().to_string(),
        instance_id: args.id,
        etag: args.etag,
    });
    let answer = client.delete_instance(request).await;
    answer.map_err(|status| failed(&agent, &status))?;
    Ok(text)
}

async fn client(
    connect: &ConnectArgs,
) -> Result<(ConnectedAgent, InstanceServiceClient<AgentChannel>), Failure> {
    let agent = connect.connect().await?;
    let client = InstanceServiceClient::new(agent.channel());
    Ok((agent, client))
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn failed(agent: &ConnectedAgent, status: &tonic::Status) -> Failure {
    agent.explain(status).unwrap_or_else(|| {
        let mut failure = failure_of(status);
        // here the id stands by itself
        failure.message = failure.message.replace("--id: ", "ID: ");
        failure
    })
}

fn json_of(name: &str, message: &impl prost::Message) -> Result<String, Failure> {
    let value = json::to_json(name, message);
    let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
    Ok(json::text_of(&value))
}

/// `NAME=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give it as NAME=VALUE".to_owned()),
    }
}
