//! `perfagent predictions`

use clap::{Args, ValueEnum};

use super::collect::failure_of;
use super::connect::ConnectArgs;
use super::instances_page::aligned;
use super::optimize::effect::{interval, name_of, shown};
use super::optimize::sheet::{Page, change};
use super::table::number;
use super::terminal::{clean, colour_on_stdout, print};
use super::{Failure, Outcome, json};
use crate::edge::grpc::pb;
use crate::edge::grpc::pb::optimization_service_client::OptimizationServiceClient;

/// Flags of `perfagent predictions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PredictionsArgs {
    /// Only those of this instance
    #[arg(value_name = "INSTANCE")]
    instance: Option<String>,
    /// Only those of this lever, such as sequence_cap
    #[arg(long, value_name = "LEVER")]
    lever: Option<String>,
    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// How many at most, the newest first
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent predictions
  perfagent predictions vllm-1 --state closed
  perfagent predictions --lever sequence_cap -o json

A prediction closes when the settings in force are those that it is of and a full window follows,
whoever changed them; else it expires after 7 days. How often intervals held makes those of the
same lever wider or narrower from then on.

Exit codes: 0 listed; 1 failed; 2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// The change was not made yet, or no full window has followed
    Open,
    /// The change was made and measured
    Closed,
    /// It will not be known
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A table for people
    #[default]
    Table,
    /// JSON with the same content and more
    Json,
}

pub(super) async fn run(args: PredictionsArgs) -> Outcome {
    predictions(&args)
        .await
        .unwrap_or_else(|failure| failure.told())
}

async fn predictions(args: &PredictionsArgs) -> Result<Outcome, Failure> {
    let answer = listed(args).await?;
    match args.output {
        Output::Table => print(&render(&answer, colour_on_stdout())),
        Output::Json => {
            let value = json::to_json("perfagent.v1.ListPredictionsResponse", &answer);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::text_of(&value));
        }
    }
    Ok(Outcome::Done)
}

/// As many as are asked for, page by page.
async fn listed(args: &PredictionsArgs) -> Result<pb::ListPredictionsResponse, Failure> {
    let agent = args.connect.connect().await?;
    let mut client = OptimizationServiceClient::new(agent.channel());
    let mut all = pb::ListPredictionsResponse::default();
    loop {
        let left = args.limit.saturating_sub(all.predictions.len());
        let request = pb::ListPredictionsRequest {
            instance_id: args.instance.clone().unwrap_or_default(),
            lever: args.lever.clone().unwrap_or_default(),
            state: match args.state {
                None => pb::PredictionState::Unspecified,
                Some(State::Open) => pb::PredictionState::Open,
                Some(State::Closed) => pb::PredictionState::Closed,
                Some(State::Expired) => pb::PredictionState::Expired,
            }
            .into(),
            page_size: u32::try_from(left.max(1)).unwrap_or(u32::MAX),
            page_token: all.next_page_token.clone(),
        };
        let page = client.list_predictions(request).await.map_err(|status| {
            agent
                .explain(&status)
                .unwrap_or_else(|| failure_of(&status))
        })?;
        let page = page.into_inner();
        all.predictions.extend(page.predictions);
        all.predictions.truncate(args.limit);
        all.records = page.records;
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.predictions.len() >= args.limit {
            return Ok(all);
        }
    }
}

/// The predictions as text.
fn render(of: &pb::ListPredictionsResponse, colour: bool) -> String {
    let mut page = Page::new(colour);
    if of.predictions.is_empty() {
        page.line(
            0,
            "no predictions; `perfagent recommend INSTANCE` makes some",
        );
    }
    for one in &of.predictions {
        prediction(&mut page, one);
    }
    if !of.records.is_empty() {
        page.line(0, &page.inked("How far to trust each lever", "1"));
        let head = ["LEVER", "CLOSED", "IN THE INTERVAL", "NEXT INTERVAL"].map(str::to_owned);
        let rows = std::iter::once(head).chain(of.records.iter().map(record));
        let rows: Vec<[String; 4]> = rows.collect();
        for line in aligned(&rows).lines() {
            page.line(1, line);
        }
    }
    if !of.next_page_token.is_empty() {
        page.line(0, "there are more; raise --limit");
    }
    page.text
}

fn prediction(page: &mut Page, of: &pb::KeptPrediction) {
    use pb::PredictionState as State;
    let (state, ink) = match of.state() {
        State::Open => ("OPEN", "33"),
        State::Closed => ("CLOSED", "32"),
        State::Expired => ("EXPIRED", "36"),
        State::Unspecified => ("-", "0"),
    };
    let mut words = vec![clean(&of.instance_id), clean(&of.lever)];
    words.push(page.inked(state, ink));
    words.extend(of.predict_time.map(|at| at.to_string()));
    words.extend(of.simulated.then(|| page.inked("SIMULATED", "35")));
    page.line(0, &words.join("  "));
    let replicas = of.replicas.as_ref();
    let replicas = replicas.map(|of| format!("replicas {} → {}", of.from_count, of.to_count));
    let changes: Vec<String> = of.changes.iter().map(change).chain(replicas).collect();
    page.line(1, &changes.join(", "));
    if !of.reason.is_empty() {
        page.line(1, &clean(&of.reason));
    }
    let rows: Vec<[String; 4]> = of.quantities.iter().filter_map(row).collect();
    for line in aligned(&rows).lines() {
        page.line(2, line);
    }
    page.text.push('\n');
}

/// A quantity: before, predicted with its interval, and what was measured.
fn row(of: &pb::PredictedAndActual) -> Option<[String; 4]> {
    let predicted = of.predicted.as_ref()?;
    let shown = |value: f64| shown(&predicted.quantity, value);
    let covered = match of.covered {
        Some(true) => "in the interval",
        Some(false) => "OUTSIDE the interval",
        None => "",
    };
    Some([
        name_of(&predicted.quantity, &predicted.statistic),
        format!(
            "{} → {} ({})",
            shown(predicted.before),
            shown(predicted.after),
            interval(predicted)
        ),
        of.actual
            .map_or_else(String::new, |actual| format!("measured {}", shown(actual))),
        covered.to_owned(),
    ])
}

fn record(of: &pb::LeverRecord) -> [String; 4] {
    let simulated = if of.simulated { " (simulated)" } else { "" };
    let covered = of.covered_ratio;
    [
        format!("{}{simulated}", clean(&of.lever)),
        of.closed.to_string(),
        covered.map_or_else(
            || "-".to_owned(),
            |ratio| format!("{} %", number(ratio * 100.0)),
        ),
        format!("{} times as wide", number(of.interval_factor)),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::optimize::example;
    use super::*;

    #[test]
    fn what_was_predicted_stands_beside_what_was_measured() {
        let example = example::answer().optimizations.remove(0);
        let predicted = example.prediction.unwrap().quantities.remove(0);
        let kept = |actual: Option<f64>, covered, state: pb::PredictionState| pb::KeptPrediction {
            instance_id: "vllm-1\u{1b}".to_owned(),
            lever: "sequence_cap".to_owned(),
            state: state.into(),
            changes: example.changes.clone(),
            quantities: vec![pb::PredictedAndActual {
                predicted: Some(predicted.clone()),
                actual,
                covered,
                ..pb::PredictedAndActual::default()
            }],
            ..pb::KeptPrediction::default()
        };
        let answer = pb::ListPredictionsResponse {
            predictions: vec![
                kept(None, None, pb::PredictionState::Open),
                kept(Some(0.4), Some(true), pb::PredictionState::Closed),
                kept(Some(1.4), Some(false), pb::PredictionState::Closed),
            ],
            records: vec![pb::LeverRecord {
                lever: "sequence_cap".to_owned(),
                closed: 2,
                covered_ratio: Some(0.5),
                interval_factor: 1.25,
                ..pb::LeverRecord::default()
            }],
            next_page_token: String::new(),
        };
        let page = render(&answer, false);
        for part in [
            "sequence_cap  OPEN",
            "--max-num-seqs 4 → 32",
            "TTFT  4.7 s → 0.32 s (0.19–0.6)\n",
            "measured 0.4 s  in the interval",
            "measured 1.4 s  OUTSIDE the interval",
            "sequence_cap  2       50 %             1.25 times as wide",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains('\u{1b}'));
        let none = render(&pb::ListPredictionsResponse::default(), false);
        assert!(none.contains("no predictions"));
    }
}
