//! `perfagent settings`

use clap::{ArgGroup, Args, ValueEnum};

use super::collect::{agent_here, failure_of};
use super::connect::ConnectArgs;
use super::instances_page::aligned;
use super::optimize::asked::SubjectArgs;
use super::optimize::sheet::{Header, Page};
use super::terminal::{clean, colour_on_stdout, print};
use super::{ConfigSource, Failure, Outcome, json};
use crate::agent::Caller;
use crate::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;
use crate::edge::grpc::{optimize, pb, status_of};

/// Flags of `perfagent settings`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["instance", "urls"])
)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    subject: SubjectArgs,
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
  perfagent settings vllm-1 --server 127.0.0.1:8002
  perfagent settings --engine vllm --url http://127.0.0.1:8000/metrics
  perfagent settings vllm-1 -o json | jq .config

Who says so: metric, a label or gauge among its metrics; endpoint, an answer of the engine;
declared, launch arguments that the operator gave; inferred, from what was measured; default, of
this version. Some settings show only under load, so a longer --window may tell more.

Exit codes: 0 told; 1 failed; 2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A table for people
    #[default]
    Table,
    /// JSON with the same content and more
    Json,
}

pub(super) async fn run(args: SettingsArgs) -> Outcome {
    settings(&args)
        .await
        .unwrap_or_else(|failure| failure.told())
}

async fn settings(args: &SettingsArgs) -> Result<Outcome, Failure> {
    let answer = answer(args).await?;
    match args.output {
        Output::Table => print(&render(&answer, colour_on_stdout())),
        Output::Json => {
            let value = json::to_json("perfagent.v1.GetInstanceConfigResponse", &answer);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::text_of(&value));
        }
    }
    Ok(Outcome::Done)
}

async fn answer(args: &SettingsArgs) -> Result<pb::GetInstanceConfigResponse, Failure> {
    let asked = args.subject.remotely(None)?;
    let request = pb::GetInstanceConfigRequest {
        instance_id: asked.instance_id,
        instance_type: asked.instance_type,
        metrics_url: String::new(),
        metrics_urls: asked.metrics_urls,
        window: asked.window,
    };
    if args.subject.is_here(args.connect.server.as_deref()) {
        let agent = agent_here(&args.source)?;
        let answer = optimize::config(&agent, &Caller::anonymous(), request, None).await;
        return answer.map_err(|error| failure_of(&status_of(&error)));
    }
    let agent = args.connect.connect().await?;
    let mut request = tonic::Request::new(request);
    request.set_timeout(asked.patience);
    let answer = OptimizationServiceClient::new(agent.channel())
        .get_instance_config(request)
        .await;
    let failed = |status| {
        agent
            .explain(&status)
            .unwrap_or_else(|| failure_of(&status))
    };
    Ok(answer.map_err(failed)?.into_inner())
}

/// The answer as text.
fn render(of: &pb::GetInstanceConfigResponse, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.header(&Header::from(of));
    page.text.push('\n');
    let head = ["SETTING", "FLAG", "VALUE", "WHO SAYS SO"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head)
        .chain(of.settings.iter().map(row))
        .collect();
    page.text += &aligned(&rows);
    let hints = of.settings.iter().filter_map(|one| {
        let name = clean(&one.name);
        Some([name, clean(one.hint.as_deref()?)])
    });
    let hints: Vec<[String; 2]> = hints.collect();
    if !hints.is_empty() {
        page.heading("To know more");
        for line in aligned(&hints).lines() {
            page.line(1, line);
        }
    }
    page.remarks(&[], &of.notes);
    page.text
}

fn row(of: &pb::SettingInForce) -> [String; 4] {
    use pb::{SettingSource as Source, SettingState as State};
    let flag = match of.flag.as_str() {
        "" => "-".to_owned(),
        flag => clean(flag),
    };
    let value = match of.state() {
        State::Known => clean(of.value.as_deref().unwrap_or("-")),
        State::NotSet => "not set".to_owned(),
        State::Unknown | State::Unspecified => "unknown".to_owned(),
    };
    let source = match of.source() {
        Source::Metric => "metric",
        Source::Endpoint => "endpoint",
        Source::Declared => "declared",
        Source::Inferred => "inferred",
        Source::Default => "default",
        Source::Unknown | Source::Unspecified => "nobody",
    };
    let detail = match of.source_detail.as_str() {
        "" => String::new(),
        detail => format!(": {}", clean(detail)),
    };
    [clean(&of.name), flag, value, format!("{source}{detail}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_who_says_so_and_what_would_make_it_known() {
        let of = |flag: &str,
                  value: Option<&str>,
                  state: pb::SettingState,
                  source: pb::SettingSource| {
            pb::SettingInForce {
                name: flag.trim_start_matches('-').replace('-', "_"),
                flag: flag.to_owned(),
                state: state.into(),
                value: value.map(str::to_owned),
                source: source.into(),
                ..pb::SettingInForce::default()
            }
        };
        use pb::{SettingSource as Source, SettingState as State};
        let mut inferred = of("--max-num-seqs", Some("4"), State::Known, Source::Inferred);
        inferred.source_detail = "never more than 4 ran while others waited".to_owned();
        inferred.hint = Some("declare the launch arguments".to_owned());
        let bad = of("--x", Some("a\u{1b}[2Jb"), State::Known, Source::Metric);
        let answer = pb::GetInstanceConfigResponse {
            settings: vec![
                inferred,
                of("--seed", None, State::NotSet, Source::Declared),
                of("--block-size", None, State::Unknown, Source::Unknown),
                bad,
            ],
            ..pb::GetInstanceConfigResponse::default()
        };
        let page = render(&answer, false);
        let has = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            let mut lines = page.lines();
            lines.any(|line| line.split_whitespace().collect::<Vec<_>>() == words)
        };
        assert!(
            has(
                "max_num_seqs --max-num-seqs 4 inferred: never more than 4 ran while others waited"
            ),
            "{page}"
        );
        assert!(has("seed --seed not set declared"), "{page}");
        assert!(has("block_size --block-size unknown nobody"), "{page}");
        assert!(has("max_num_seqs declare the launch arguments"), "{page}");
        assert!(!page.contains('\u{1b}'));
    }
}
