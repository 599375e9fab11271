//! `perfagent compare`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::collect::Output;
use super::json_read::from_json;
use super::table::{duration, number};
use super::terminal::{clean, colour_on_stdout, complain, print};
use super::{Outcome, json};
use crate::agent::Error;
use crate::edge::grpc::{compare, pb};

/// Flags of `perfagent compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArgs {
    /// Measurement to compare with, as `perfagent collect --output json` wrote it
    #[arg(value_name = "BEFORE.json")]
    baseline: PathBuf,
    /// Measurement to judge
    #[arg(value_name = "AFTER.json")]
    candidate: PathBuf,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

const EXAMPLES: &str = "Examples:
  perfagent collect --url http://127.0.0.1:8000/metrics --window 60s -o json > before.json
  # change a setting, warm the engine up, put the same load on it
  perfagent collect --url http://127.0.0.1:8000/metrics --window 60s -o json > after.json
  perfagent compare before.json after.json

A verdict needs at least 5 intervals of a second a side in which requests were served; with 60 a difference of some 10 %
is mostly found. Verdicts hold for all quantities together: comparing the same thing twice finds a difference at most one
time in twenty. Throughput is judged only where requests were waiting throughout on both sides.

Exit codes: 0 compared, whatever the verdicts; 1 failed; 2 a file that cannot be read or is no measurement.";

/// No measurement is as large.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(super) fn run(args: &CompareArgs) -> Outcome {
    let read = measurement_in(&args.baseline)
        .and_then(|baseline| Ok((baseline, measurement_in(&args.candidate)?)));
    let (baseline, candidate) = match read {
        Ok(read) => read,
        Err(message) => {
            complain(
                &message,
                Some("give two files that `perfagent collect --output json` wrote"),
            );
            return Outcome::Usage;
        }
    };
    let sides = [&baseline, &candidate].map(headline);
    let request = pb::CompareMetricsRequest {
        baseline: Some(baseline),
        candidate: Some(candidate),
    };
    let answer = match compare::answer(request) {
        Ok(answer) => answer,
        Err(error) => {
            complain(&told(&error, args), None);
            return Outcome::Usage;
        }
    };
    match args.output {
        Output::Table => print(&table(&sides, &answer, colour_on_stdout())),
        Output::Json => match json::to_json("perfagent.v1.CompareMetricsResponse", &answer) {
            Ok(value) => print(&json::text_of(&value)),
            Err(error) => {
                complain(&error, None);
                return Outcome::Failed;
            }
        },
    }
    Outcome::Done
}

/// The measurement in a file: by itself, or as the answer in which it came.
pub(super) fn measurement_in(path: &Path) -> Result<pb::Measurement, String> {
    let named = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    measurement_from(named, path)
}

/// The same of anything that can be read, under the name of a path.
pub(super) fn measurement_from(input: impl Read, path: &Path) -> Result<pb::Measurement, String> {
    let at = |error: String| format!("{}: {error}", path.display());
    let mut text = String::new();
    input
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| at(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(at(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let json: Value =
        serde_json::from_str(&text).map_err(|error| at(format!("is no JSON: {error}")))?;
    let inner = json.get("measurement").unwrap_or(&json);
    from_json("perfagent.v1.Measurement", inner).map_err(at)
}

/// What is wrong, by the file instead of the field of the request.
fn told(error: &Error, args: &CompareArgs) -> String {
    let Error::Invalid(violations) = error else {
        return error.to_string();
    };
    let lines: Vec<String> = violations
        .iter()
        .map(|violation| {
            let (side, field) = violation.field.split_once('.').unwrap_or_default();
            let file = match side {
                "baseline" => &args.baseline,
                _ => &args.candidate,
            };
            format!("{}: {field}: {}", file.display(), violation.description)
        })
        .collect();
    lines.join("\n")
}

fn headline(of: &pb::Measurement) -> String {
    let window = of.window.unwrap_or_default();
    let time = window.start_time.map(|at| at.to_string());
    let mut words = vec![clean(&of.instance_id), clean(&of.instance_type)];
    words.extend(of.engine_version.as_deref().map(clean));
    words.extend(of.model_name.as_deref().map(clean));
    words.extend(of.simulated.then(|| "SIMULATED".to_owned()));
    words.extend(time.map(|time| format!("at {time}")));
    words.extend(
        window
            .observed_seconds
            .map(|seconds| format!("for {seconds:.1} s")),
    );
    words.join("  ")
}

fn table(sides: &[String; 2], answer: &pb::CompareMetricsResponse, colour: bool) -> String {
    let [baseline, candidate] = sides;
    let mut lines = vec![
        format!("baseline   {baseline}"),
        format!("candidate  {candidate}"),
        String::new(),
        format!(
            "  {:<22} {:>12} {:>12} {:>7}  {:<16} {:>7}  {}",
            "", "baseline", "candidate", "ratio", "95 % interval", "finds", "verdict"
        ),
    ];
    lines.extend(answer.comparisons.iter().map(|one| row(one, colour)));
    let mut reasons: Vec<(&str, &str)> = answer
        .comparisons
        .iter()
        .filter_map(|one| Some((one.reason.as_deref()?, one.explanation.as_str())))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    let cautions = answer.cautions.iter();
    let cautions: Vec<(&str, &str)> = cautions
        .map(|one| (one.code.as_str(), one.message.as_str()))
        .collect();
    for (heading, entries) in [
        ("What cannot be judged", reasons),
        ("What else differs, and may be the cause", cautions),
    ] {
        if entries.is_empty() {
            continue;
        }
        lines.extend([String::new(), heading.to_owned()]);
        lines.extend(
            entries
                .iter()
                .map(|(word, sentence)| format!("  {word}  {}", clean(sentence))),
        );
    }
    lines.push(String::new());
    lines.push(
        "ratio is candidate / baseline; finds is the smallest rise that would mostly be found; verdicts hold for all \
         quantities together at a level of 5 %, intervals each for itself; everything is in the JSON"
            .to_owned(),
    );
    lines.join("\n") + "\n"
}

fn row(one: &pb::Comparison, colour: bool) -> String {
    let (name, unit) = match one.name.strip_suffix("_per_second") {
        Some(name) => (name, "/s"),
        None => (one.name.trim_end_matches("_seconds"), ""),
    };
    let seconds = one.name.ends_with("_seconds");
    let cell = |value: Option<f64>| match value {
        Some(value) if seconds => duration(value),
        Some(value) => format!("{}{unit}", number(value)),
        None => "-".to_owned(),
    };
    let ratio = one
        .ratio
        .map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    let interval = one.ratio_interval.map_or("-".to_owned(), |interval| {
        format!("{:.3} to {:.3}", interval.low, interval.high)
    });
    let finds = one
        .smallest_detectable_change_ratio
        .map_or("-".to_owned(), |change| format!("{:.0} %", change * 100.0));
    let (word, ink) = match one.verdict() {
        pb::ComparisonVerdict::Improved => ("IMPROVED", "32"),
        pb::ComparisonVerdict::Regressed => ("REGRESSED", "31"),
        pb::ComparisonVerdict::NoDifferenceShown => ("NO_DIFFERENCE_SHOWN", ""),
        pb::ComparisonVerdict::Inconclusive => ("INCONCLUSIVE", "33"),
        pb::ComparisonVerdict::NotComparable => ("NOT_COMPARABLE", ""),
        pb::ComparisonVerdict::Unspecified => ("-", ""),
    };
    let why = match (&one.reason, one.verdict()) {
        (Some(reason), _) => format!(" ({reason})"),
        (None, pb::ComparisonVerdict::Inconclusive) => format!(
            " ({} and {} intervals)",
            one.baseline_intervals, one.candidate_intervals
        ),
        _ => String::new(),
    };
    let verdict = if colour && !ink.is_empty() {
        format!("\u{1b}[{ink}m{word}\u{1b}[0m{why}")
    } else {
        format!("{word}{why}")
    };
    format!(
        "  {name:<22} {:>12} {:>12} {ratio:>7}  {interval:<16} {finds:>7}  {verdict}",
        cell(one.baseline),
        cell(one.candidate)
    )
}
