//! `perfagent predict`

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, ValueEnum};

use super::collect::{agent_here, failure_of};
use super::connect::ConnectArgs;
use super::optimize::asked::{Asked, ConstraintArgs, FileArgs, SubjectArgs};
use super::optimize::sheet::{Header, Page, change};
use super::terminal::{colour_on_stdout, print};
use super::{ConfigSource, Failure, Outcome, json};
use crate::agent::Caller;
use crate::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;
use crate::edge::grpc::{convert_struct, optimize, pb, status_of};

/// Flags of `perfagent predict`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["instance", "urls", "file"]),
    group = ArgGroup::new("changes").required(true).multiple(true).args(["set", "unset"])
)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    file: FileArgs,
    /// Setting that changes, by name or launch flag; may be repeated
    #[arg(long, value_parser = assignment, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    set: Vec<(String, String)>,
    /// Launch flag to take away, so that the engine's default holds; may be repeated
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    unset: Vec<String>,
    /// Setting that it runs with and does not tell; may be repeated
    #[arg(long = "runs-with", value_parser = assignment, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    runs_with: Vec<(String, String)>,
    #[command(flatten)]
    constraints: ConstraintArgs,
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
  perfagent predict vllm-1 --set max-num-seqs=64
  perfagent predict --engine vllm --url http://127.0.0.1:8000/metrics --set max_num_seqs=64
  perfagent predict vllm-1 --set max-num-batched-tokens=4096 --unset long-prefill-token-threshold
  perfagent collect vllm-1 -o json | perfagent predict --file - --set max-num-seqs=64 -o json

In brackets stands what is likely nine times out of ten. Nothing is changed. What is predicted of
an instance is kept, and held against what is measured if somebody makes the change: `perfagent
predictions` shows it.

Exit codes: 0 predicted; 11 nothing can be predicted; 1 failed; 2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A page for people
    #[default]
    Text,
    /// JSON with the same content and more
    Json,
}

/// `NAME=VALUE`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(args: PredictArgs) -> Outcome {
    predict(&args)
        .await
        .unwrap_or_else(|failure| failure.told())
}

async fn predict(args: &PredictArgs) -> Result<Outcome, Failure> {
    let answer = answer(args).await?;
    match args.output {
        Output::Text => print(&render(&answer, colour_on_stdout())),
        Output::Json => {
            let value = json::to_json("perfagent.v1.PredictPerformanceResponse", &answer);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::text_of(&value));
        }
    }
    Ok(match answer.prediction {
        Some(_) => Outcome::Done,
        None => Outcome::CannotTell,
    })
}

async fn answer(args: &PredictArgs) -> Result<pb::PredictPerformanceResponse, Failure> {
    let file = args.file.file.as_deref();
    if args.subject.is_here(args.connect.server.as_deref()) {
        let agent = agent_here(&args.source)?;
        let asked = args.subject.measured(&agent, file).await?;
        let request = args.request(asked);
        let answer = optimize::predicted(&agent, &Caller::anonymous(), request, None).await;
        return answer.map_err(|error| failure_of(&status_of(&error)));
    }
    let asked = args.subject.remotely(file)?;
    let patience = asked.patience;
    let agent = args.connect.connect().await?;
    let mut request = tonic::Request::new(args.request(asked));
    request.set_timeout(patience);
    let answer = OptimizationServiceClient::new(agent.channel())
        .predict_performance(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}

impl PredictArgs {
    fn request(&self, asked: Asked) -> pb::PredictPerformanceRequest {
        let set = self.set.iter();
        let set = set.map(|(name, value)| (name.as_str(), Some(value.as_str())));
        let unset = self.unset.iter().map(|name| (name.as_str(), None));
        let changes: BTreeMap<&str, Option<&str>> = set.chain(unset).collect();
        let runs_with = self.runs_with.iter();
        let runs_with = runs_with.map(|(name, value)| (name.as_str(), Some(value.as_str())));
        pb::PredictPerformanceRequest {
            instance_id: asked.instance_id,
            instance_type: asked.instance_type,
            metrics_url: String::new(),
            metrics_urls: asked.metrics_urls,
            window: asked.window,
            measurement: asked.measurement,
            changes: Some(convert_struct::struct_of(changes)),
            current_config: Some(convert_struct::struct_of(runs_with))
                .filter(|config| !config.fields.is_empty()),
            constraints: self.constraints.on_the_wire(),
        }
    }
}

/// The answer as text.
fn render(of: &pb::PredictPerformanceResponse, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.header(&Header::from(of));
    page.heading("What if");
    for one in &of.changes {
        page.line(1, &change(one));
    }
    page.text.push('\n');
    page.effect(of.prediction.as_ref(), &of.not_predictable_reason);
    page.remarks(&of.remarks, &of.notes);
    page.text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::optimize::example;
    use super::*;

    #[test]
    fn the_page_says_what_would_change_and_what_that_would_do() {
        let example = example::answer().optimizations.remove(0);
        let mut answer = pb::PredictPerformanceResponse {
            changes: example.changes,
            prediction: example.prediction,
            remarks: vec!["x\u{1b}[2J".to_owned()],
            ..pb::PredictPerformanceResponse::default()
        };
        let page = render(&answer, false);
        for part in [
            "What if\n  --max-num-seqs 4 → 32\n",
            "TTFT  4.7 s → 0.32 s  (0.19–0.6)",
            "KV cache in use: not predicted: its capacity is not told",
            "Notes",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains('\u{1b}'));
        answer.prediction = None;
        answer.not_predictable_reason = "no model knows the speed of fp8".to_owned();
        let page = render(&answer, false);
        assert!(page.contains("not predictable: no model knows"), "{page}");
    }

    #[test]
    fn changes_are_named_values() {
        assert_eq!(
            assignment("--max-num-seqs=64"),
            Ok(("--max-num-seqs".to_owned(), "64".to_owned()))
        );
        assert!(assignment("max-num-seqs").is_err());
        assert!(assignment("=64").is_err());
    }
}
