//! Today's rules over recorded scrapes, and what they say else than the findings that were recorded with them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ANSWER, DiagnoseArgs, Output, as_json, outcome_of, page};
use crate::agent::{Agent, RecordedScrape, Recording};
use crate::edge::cli::collect::{agent_here, failure_of};
use crate::edge::cli::json::text_of;
use crate::edge::cli::json_read::from_json;
use crate::edge::cli::replay;
use crate::edge::cli::terminal::{clean, colour_on_stdout, note, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::{convert_analysis, pb, status_of};

/// As an agent measures where nothing is said.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

const FILE: &str = "findings.json";

/// Findings that were recorded.
#[derive(Debug)]
struct Recorded {
    window_seconds: f64,
    windows: Vec<pb::DetectBottlenecksResponse>,
}

/// What changed in one window.
#[derive(Debug, PartialEq)]
struct Change {
    end_time: String,
    /// `NEW`, `GONE` or `CHANGED`.
    what: &'static str,
    /// A cause, or `verdict`.
    about: String,
    /// What it was.
    was: Option<String>,
    /// What it is.
    is: Option<String>,
}

pub(super) fn diagnose(args: &DiagnoseArgs, directory: &Path) -> Result<Outcome, Failure> {
    let usage = |message: String| Failure::new(Outcome::Usage, message, None);
    let recording = replay::Recording::read(directory, 1.0).map_err(|message| {
        let hint = "a recording is a directory as `perfagent replay` takes it";
        Failure::new(Outcome::Usage, message, Some(hint))
    })?;
    // what is written anew is not held against, whatever it is
    let recorded = match args.save_findings {
        true => Recorded::read(directory).ok().flatten(),
        false => Recorded::read(directory).map_err(usage)?,
    };
    let of_recorded = recorded.as_ref().map(|recorded| recorded.window_seconds);
    let asked = args.window.map(|window| window.as_secs_f64());
    let seconds = asked
        .or(of_recorded)
        .unwrap_or(DEFAULT_WINDOW.as_secs_f64());
    let windows = windows(args, recording, seconds)?;
    let changes = match recorded.as_ref().map(|recorded| recorded.changes(&windows)) {
        Some(Err(_)) if args.save_findings => None,
        Some(changes) => Some(changes.map_err(usage)?),
        None => None,
    };
    show(args, &windows, changes.as_deref())?;
    if args.save_findings {
        let path = directory.join(FILE);
        let text = text_of(&file_of(seconds, &windows)?);
        std::fs::write(&path, text).map_err(|error| {
            let text = format!("cannot write {}: {error}", path.display());
            Failure::new(Outcome::Failed, text, None)
        })?;
        note("saved", &path.display().to_string());
    }
    let outcomes: Vec<Outcome> = windows.iter().map(outcome_of).collect();
    let worst = [Outcome::Findings, Outcome::CannotTell];
    let found = worst.into_iter().find(|one| outcomes.contains(one));
    Ok(found.unwrap_or(Outcome::Done))
}

fn windows(
    args: &DiagnoseArgs,
    recording: replay::Recording,
    seconds: f64,
) -> Result<Vec<pb::DetectBottlenecksResponse>, Failure> {
    let failed = |error| failure_of(&status_of(&error));
    let agent: Agent = agent_here(&args.source)?;
    let endpoint = |path: &str| {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let text = recording.endpoint(path, query)?;
        serde_json::from_str(&text).ok()
    };
    let scrapes = recording.scrapes.iter().map(|scrape| RecordedScrape {
        unix_seconds: scrape.unix_seconds,
        body: scrape.body.clone(),
    });
    let recorded = Recording {
        instance_id: args.id.clone(),
        engine: Some(args.engine.clone()).filter(|name| name != "auto"),
        scrapes: scrapes.collect(),
    };
    let measured = agent.measure_recorded(&recorded, seconds, endpoint);
    let thresholds = args.thresholds();
    let found = measured.map_err(failed)?.into_iter().map(|measurement| {
        let found = agent.diagnose(&measurement, &thresholds).map_err(failed)?;
        Ok(convert_analysis::diagnosis(&found))
    });
    found.collect()
}

fn show(
    args: &DiagnoseArgs,
    windows: &[pb::DetectBottlenecksResponse],
    changes: Option<&[Change]>,
) -> Result<(), Failure> {
    if args.output == Output::Json {
        let shown: Result<Vec<Value>, Failure> = windows.iter().map(as_json).collect();
        let mut whole = json!({ "windows": shown? });
        if let (Some(changes), Some(object)) = (changes, whole.as_object_mut()) {
            let changes = changes.iter().map(Change::as_json).collect();
            object.insert("changes".to_owned(), changes);
        }
        print(&text_of(&whole));
        return Ok(());
    }
    let colour = colour_on_stdout();
    let pages: Vec<String> = windows
        .iter()
        .map(|one| page::render(one, colour))
        .collect();
    print(&pages.join("\n"));
    let lines = match changes {
        None => return Ok(()),
        Some([]) => vec![format!("\nNothing has changed against {FILE}.\n")],
        Some(changes) => {
            let heading = format!("\nWhat has changed against {FILE}\n");
            let lines = changes.iter().map(Change::line);
            std::iter::once(heading).chain(lines).collect()
        }
    };
    print(&lines.concat());
    Ok(())
}

fn file_of(seconds: f64, windows: &[pb::DetectBottlenecksResponse]) -> Result<Value, Failure> {
    let windows: Result<Vec<Value>, Failure> = windows.iter().map(as_json).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "window_seconds": seconds,
        "windows": windows?,
    }))
}

impl Recorded {
    fn read(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(FILE);
        let wrong = |what: String| {
            format!(
                "{}: {what}; write it anew with --save-findings",
                path.display()
            )
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let json: Value =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        let window_seconds = json.get("window_seconds").and_then(Value::as_f64);
        let window_seconds = window_seconds
            .filter(|seconds| *seconds > 0.0)
            .ok_or_else(|| wrong("window_seconds: expected a number above 0".to_owned()))?;
        let windows = json.get("windows").and_then(Value::as_array);
        let windows = windows.ok_or_else(|| wrong("windows: expected a list".to_owned()))?;
        let read = windows.iter().enumerate().map(|(at, one)| {
            from_json(ANSWER, one).map_err(|error| wrong(format!("windows[{at}].{error}")))
        });
        Ok(Some(Self {
            window_seconds,
            windows: read.collect::<Result<_, _>>()?,
        }))
    }

    /// What is found now that was not, and what was found and is not, window by window.
    fn changes(&self, now: &[pb::DetectBottlenecksResponse]) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        for one in now {
            let same = |other: &&pb::DetectBottlenecksResponse| times(other) == times(one);
            let before = self.windows.iter().find(same).ok_or_else(|| {
                format!(
                    "{FILE} has other windows, of {} s; leave --window out, or write it anew with --save-findings",
                    self.window_seconds
                )
            })?;
            changes.extend(between(before, one));
        }
        Ok(changes)
    }
}

type Time = Option<prost_types::Timestamp>;

fn times(of: &pb::DetectBottlenecksResponse) -> (Time, Time) {
    let window = of.window.unwrap_or_default();
    (window.start_time, window.end_time)
}

fn between(
    before: &pb::DetectBottlenecksResponse,
    now: &pb::DetectBottlenecksResponse,
) -> Vec<Change> {
    let end_time = times(now).1.map(|at| at.to_string()).unwrap_or_default();
    let change = |what, about: &str, was, is| Change {
        end_time: end_time.clone(),
        what,
        about: about.to_owned(),
        was,
        is,
    };
    let mut changes = Vec::new();
    if before.verdict != now.verdict {
        let word =
            |of: &pb::DetectBottlenecksResponse| Some(page::word_of(of.verdict()).0.to_owned());
        changes.push(change("CHANGED", "verdict", word(before), word(now)));
    }
    for one in &now.bottlenecks {
        let known = before
            .bottlenecks
            .iter()
            .find(|other| other.cause == one.cause);
        let (was, is) = (known.map(in_short), Some(in_short(one)));
        match known {
            None => changes.push(change("NEW", &one.cause, was, is)),
            Some(_) if was != is => changes.push(change("CHANGED", &one.cause, was, is)),
            Some(_) => {}
        }
    }
    for one in &before.bottlenecks {
        if !now.bottlenecks.iter().any(|other| other.cause == one.cause) {
            changes.push(change("GONE", &one.cause, Some(in_short(one)), None));
        }
    }
    changes
}

/// What of a bottleneck is compared: numbers in sentences may differ in their last digits.
fn in_short(of: &pb::Bottleneck) -> String {
    let severity = of.severity().as_str_name().trim_start_matches("SEVERITY_");
    match of.explained_by.as_str() {
        "" => severity.to_owned(),
        cause => format!("{severity}, effect of {cause}"),
    }
}

impl Change {
    fn as_json(&self) -> Value {
        let mut json = json!({
            "window_end_time": self.end_time,
            "change": self.what,
            "about": self.about,
        });
        if let Some(object) = json.as_object_mut() {
            for (name, text) in [("was", &self.was), ("is", &self.is)] {
                if let Some(text) = text {
                    object.insert(name.to_owned(), text.clone().into());
                }
            }
        }
        json
    }

    fn line(&self) -> String {
        let (about, was, is) = (
            clean(&self.about),
            self.was.as_deref().map(clean),
            self.is.as_deref().map(clean),
        );
        let how = match (was, is) {
            (Some(was), Some(is)) => format!("was {was}, is {is}"),
            (Some(was), None) => format!("was {was}"),
            (None, Some(is)) => is,
            (None, None) => String::new(),
        };
        format!("  {}  {:<7}  {about}  {how}\n", self.end_time, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(causes: &[(&str, pb::Severity, &str)]) -> pb::DetectBottlenecksResponse {
        let bottleneck = |(cause, severity, by): &(&str, pb::Severity, &str)| pb::Bottleneck {
            cause: (*cause).to_owned(),
            severity: (*severity).into(),
            explained_by: (*by).to_owned(),
            ..pb::Bottleneck::default()
        };
        pb::DetectBottlenecksResponse {
            verdict: match causes.is_empty() {
                true => pb::DiagnosisVerdict::Healthy,
                false => pb::DiagnosisVerdict::Findings,
            }
            .into(),
            bottlenecks: causes.iter().map(bottleneck).collect(),
            ..pb::DetectBottlenecksResponse::default()
        }
    }

    #[test]
    fn new_gone_and_changed_findings_are_told() {
        use pb::Severity::{High, Low};
        let before = found(&[("A", Low, ""), ("B", High, ""), ("C", Low, "")]);
        let now = found(&[("A", High, ""), ("C", Low, "A"), ("D", Low, "")]);
        let told: Vec<String> = between(&before, &now).iter().map(Change::line).collect();
        assert_eq!(
            told,
            [
                "    CHANGED  A  was LOW, is HIGH\n",
                "    CHANGED  C  was LOW, is LOW, effect of A\n",
                "    NEW      D  LOW\n",
                "    GONE     B  was HIGH\n",
            ]
        );
        assert_eq!(between(&now, &now), []);
        let healed = between(&before, &found(&[]));
        assert_eq!(healed.len(), 4);
        assert_eq!(
            healed.first().map(Change::line).unwrap_or_default(),
            "    CHANGED  verdict  was FINDINGS, is HEALTHY\n"
        );
    }
}
