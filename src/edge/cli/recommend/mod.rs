//! `perfagent recommend`

mod launch;
mod page;

use clap::{ArgGroup, Args, ValueEnum};

use super::collect::{agent_here, failure_of};
use super::connect::ConnectArgs;
use super::optimize::asked::{Asked, ConstraintArgs, FileArgs, SubjectArgs};
use super::terminal::{colour_on_stdout, print};
use super::{ConfigSource, Failure, Outcome, json};
use crate::agent::Caller;
use crate::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;
use crate::edge::grpc::{convert_struct, optimize, pb, status_of};
use crate::optimization::split_line;

/// Flags of `perfagent recommend`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["instance", "urls", "file"])
)]
pub(super) struct RecommendArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    file: FileArgs,
    /// Launch line of the engine, or its arguments, quoted as one: settings that the engine does not tell
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    launch_args: Option<String>,
    #[command(flatten)]
    constraints: ConstraintArgs,
    /// Print the launch line with the first recommendation in it, and below it what has changed
    #[arg(long, conflicts_with = "output")]
    as_args: bool,
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
  perfagent recommend vllm-1 --server 127.0.0.1:8002
  perfagent recommend --engine vllm --url http://127.0.0.1:8000/metrics --window 60s
  perfagent recommend vllm-1 --no-restart --must-hold 'itl: p99 inter_token_latency_seconds <= 0.1'
  perfagent recommend vllm-1 --launch-args 'vllm serve my/model --max-num-seqs 4' --as-args
  perfagent collect vllm-1 -o json | perfagent recommend --file - -o json

Effects are predicted by a model that is fitted to what was measured; in brackets stands what is
likely nine times out of ten. Nothing is changed. What is predicted of an instance is kept, and held
against what is measured after the change: `perfagent predictions` shows it.

Exit codes: 0 nothing to do; 10 something to change, to repair or to add; 11 cannot tell; 1 failed;
2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A page for people
    #[default]
    Text,
    /// JSON with the same content and more
    Json,
}

pub(super) async fn run(args: RecommendArgs) -> Outcome {
    recommend(&args)
        .await
        .unwrap_or_else(|failure| failure.told())
}

async fn recommend(args: &RecommendArgs) -> Result<Outcome, Failure> {
    let words = split_line(args.launch_args.as_deref().unwrap_or_default());
    let words = words
        .map_err(|error| Failure::new(Outcome::Usage, format!("--launch-args: {error}"), None))?;
    let answer = answer(args, &words).await?;
    match (args.as_args, args.output) {
        (true, _) => print(&as_args(&answer, &words)),
        (false, Output::Text) => print(&page::render(&answer, colour_on_stdout())),
        (false, Output::Json) => {
            let value = json::to_json("perfagent.v1.RecommendOptimizationsResponse", &answer);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::text_of(&value));
        }
    }
    Ok(outcome_of(answer.advice()))
}

fn outcome_of(advice: pb::OptimizationAdvice) -> Outcome {
    use pb::OptimizationAdvice as Advice;
    match advice {
        Advice::NothingToDo => Outcome::Done,
        Advice::Change | Advice::AddCapacity | Advice::Repair => Outcome::Findings,
        // one of a later version is none that can be acted on here
        Advice::CannotTell | Advice::Unspecified => Outcome::CannotTell,
    }
}

async fn answer(
    args: &RecommendArgs,
    words: &[String],
) -> Result<pb::RecommendOptimizationsResponse, Failure> {
    let file = args.file.file.as_deref();
    if args.subject.is_here(args.connect.server.as_deref()) {
        let agent = agent_here(&args.source)?;
        let asked = args.subject.measured(&agent, file).await?;
        let request = args.request(asked, words);
        let answer = optimize::recommended(&agent, &Caller::anonymous(), request, None).await;
        return answer.map_err(|error| failure_of(&status_of(&error)));
    }
    let asked = args.subject.remotely(file)?;
    let patience = asked.patience;
    let agent = args.connect.connect().await?;
    let mut request = tonic::Request::new(args.request(asked, words));
    request.set_timeout(patience);
    let answer = OptimizationServiceClient::new(agent.channel())
        .recommend_optimizations(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}

impl RecommendArgs {
    fn request(&self, asked: Asked, words: &[String]) -> pb::RecommendOptimizationsRequest {
        pb::RecommendOptimizationsRequest {
            instance_id: asked.instance_id,
            instance_type: asked.instance_type,
            metrics_url: String::new(),
            metrics_urls: asked.metrics_urls,
            window: asked.window,
            measurement: asked.measurement,
            bottlenecks: Vec::new(),
            current_config: given(words, &self.subject.engine),
            constraints: self.constraints.on_the_wire(),
        }
    }
}

/// The settings that launch arguments make; of the other flags, such as a port, nothing is said.
fn given(words: &[String], engine: &str) -> Option<prost_types::Struct> {
    let settings = launch::settings_in(words, engine);
    let told = settings.iter();
    (!settings.is_empty()).then(|| {
        convert_struct::struct_of(told.map(|(name, value)| (name.as_str(), value.as_deref())))
    })
}

/// The launch line with the first recommendation in it: of the arguments that were given, else of those that were declared.
fn as_args(of: &pb::RecommendOptimizationsResponse, words: &[String]) -> String {
    let changes = of.optimizations.first().map(|one| one.changes.as_slice());
    let changes = changes.unwrap_or_default();
    let mut text = launch::changed(words, &of.settings, changes, &of.instance_type);
    if changes.is_empty() {
        text += &format!(
            "# nothing changes: {}\n",
            super::terminal::clean(&of.headline)
        );
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::optimize::example;
    use super::*;

    #[test]
    fn the_launch_line_is_that_which_was_given_or_declared() {
        let mut answer = example::answer();
        let given = split_line("vllm serve m --max-num-seqs 4").unwrap();
        assert_eq!(
            as_args(&answer, &given),
            "vllm serve m --max-num-seqs 32\n# --max-num-seqs 4 → 32\n"
        );
        let setting =
            |name: &str, flag: &str, value: &str, source: pb::SettingSource| pb::SettingInForce {
                name: name.to_owned(),
                flag: flag.to_owned(),
                state: pb::SettingState::Known.into(),
                value: Some(value.to_owned()),
                source: source.into(),
                ..pb::SettingInForce::default()
            };
        use pb::SettingSource as Source;
        answer.settings = vec![
            setting("max_num_seqs", "--max-num-seqs", "4", Source::Declared),
            setting("enforce_eager", "--enforce-eager", "true", Source::Declared),
            setting("block_size", "--block-size", "16", Source::Metric),
        ];
        assert_eq!(
            as_args(&answer, &[]),
            "--max-num-seqs 32 --enforce-eager\n# --max-num-seqs 4 → 32\n"
        );
        answer.optimizations.clear();
        answer.headline = "it serves as it should".to_owned();
        assert!(as_args(&answer, &[]).ends_with("# nothing changes: it serves as it should\n"));
    }

    #[test]
    fn only_settings_of_an_engine_are_given_to_it() {
        let words = split_line("vllm serve m --port 1 --block-size 16 --api-key secret");
        let given = given(&words.unwrap(), "auto").unwrap();
        let names: Vec<&String> = given.fields.keys().collect();
        assert_eq!(names, ["block_size"]);
        assert_eq!(super::given(&[], "auto"), None);
    }

    #[test]
    fn how_it_ends_says_whether_there_is_something_to_do() {
        use pb::OptimizationAdvice as Advice;
        assert_eq!(outcome_of(Advice::NothingToDo), Outcome::Done);
        assert_eq!(outcome_of(Advice::Change), Outcome::Findings);
        assert_eq!(outcome_of(Advice::Repair), Outcome::Findings);
        assert_eq!(outcome_of(Advice::CannotTell), Outcome::CannotTell);
    }
}
