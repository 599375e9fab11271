//! `perfagent watch`

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Status, Streaming};

use super::collect::{Output, failure_of};
use super::connect::{ConnectArgs, ConnectedAgent};
use super::instances::label;
use super::instances_page::{aligned, state_word};
use super::terminal::{clean, note, print};
use super::{Failure, Outcome, json};
use crate::edge::grpc::pb;
use crate::edge::grpc::pb::metrics_service_client::MetricsServiceClient;

/// Flags of `perfagent watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Instances to watch; none for all, those that are registered later included
    #[arg(value_name = "INSTANCE")]
    ids: Vec<String>,
    /// Only those with this label; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// Print how things are now, and end
    #[arg(long)]
    once: bool,
    /// What to print: a table, which is live on a terminal and else a line for each change; or JSON, one object a line
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent watch
  perfagent watch vllm-1 vllm-2
  perfagent watch --label team=chat --output json

A watch that breaks off is begun again by itself. Numbers are means over each instance's window.";

/// Between two tries to reach an agent that is gone.
const RETRY: Duration = Duration::from_secs(1);
/// A live table is drawn at most this often.
const REDRAW: Duration = Duration::from_millis(200);
/// With `--once`: the first states come at once, so what has not come by then does not come.
const ONCE: Duration = Duration::from_millis(500);

pub(super) async fn run(args: WatchArgs) -> Outcome {
    match watch(&args).await {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.told(),
    }
}

async fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let agent = args.connect.connect().await?;
    let mut stream = open(&agent, args)
        .await
        .map_err(|status| failed(&agent, &status))?;
    if args.once {
        return once(args, &agent, &mut stream).await;
    }
    let mut show = Show::new(args.output);
    let no_signal = |error| Failure::new(Outcome::Failed, format!("{error}"), None);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = redraw.tick() => show.draw(),
            message = stream.message() => match message {
                Ok(Some(message)) => show.take(message)?,
                // all that were named are gone
                Ok(None) => return Ok(()),
                Err(status) if passes(&status) => {
                    show.gone(&status);
                    tokio::select! {
                        _ = interrupt.recv() => return Ok(()),
                        _ = terminate.recv() => return Ok(()),
                        again = reopen(&agent, args, &mut show) => stream = again?,
                    }
                }
                Err(status) => return Err(failed(&agent, &status)),
            },
        }
    }
}

async fn open(
    agent: &ConnectedAgent,
    args: &WatchArgs,
) -> Result<Streaming<pb::WatchMetricsResponse>, Status> {
    let request = pb::WatchMetricsRequest {
        instance_ids: args.ids.clone(),
        labels: args.labels.iter().cloned().collect(),
        view: match args.output {
            Output::Table => pb::MeasurementView::Basic,
            Output::Json => pb::MeasurementView::Full,
        }
        .into(),
    };
    let mut client = MetricsServiceClient::new(agent.channel());
    Ok(client.watch_metrics(request).await?.into_inner())
}

/// Until the agent, or another at its address, answers again.
async fn reopen(
    agent: &ConnectedAgent,
    args: &WatchArgs,
    show: &mut Show,
) -> Result<Streaming<pb::WatchMetricsResponse>, Failure> {
    loop {
        match open(agent, args).await {
            Ok(stream) => {
                show.back();
                return Ok(stream);
            }
            Err(status) if passes(&status) => {
                let wait = tokio::time::sleep(RETRY);
                tokio::pin!(wait);
                loop {
                    tokio::select! {
                        () = &mut wait => break,
                        () = tokio::time::sleep(REDRAW) => show.draw(),
                    }
                }
            }
            Err(status) => return Err(failed(agent, &status)),
        }
    }
}

/// Whether the same call may succeed later.
fn passes(status: &Status) -> bool {
    // what breaks on the way has no status of its own
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
    )
}

fn failed(agent: &ConnectedAgent, status: &Status) -> Failure {
    agent.explain(status).unwrap_or_else(|| failure_of(status))
}

/// The first state of each instance.
async fn once(
    args: &WatchArgs,
    agent: &ConnectedAgent,
    stream: &mut Streaming<pb::WatchMetricsResponse>,
) -> Result<(), Failure> {
    let mut rows = Rows::default();
    while let Ok(message) = tokio::time::timeout(ONCE, stream.message()).await {
        let Some(message) = message.map_err(|status| failed(agent, &status))? else {
            break;
        };
        let known = rows.0.contains_key(&message.instance_id);
        if known || message.event() == pb::WatchEvent::Heartbeat {
            break;
        }
        if args.output == Output::Json {
            print(&line_of(&message)?);
        }
        rows.take(message);
        if !args.ids.is_empty() && rows.0.len() == args.ids.len() {
            break;
        }
    }
    if args.output == Output::Table {
        print(&rows.table(usize::MAX, true));
    }
    Ok(())
}

/// Where messages are shown.
struct Show {
    output: Output,
    /// The table is drawn again in place.
    live: bool,
    rows: Rows,
    changed: bool,
    drawn: Instant,
    trouble: Option<String>,
}

impl Show {
    fn new(output: Output) -> Self {
        let live = output == Output::Table && std::io::stdout().is_terminal();
        if live {
            // a screen of its own, so that what was on this one is there again afterwards
            raw("\u{1b}[?1049h\u{1b}[?25l");
        }
        Self {
            output,
            live,
            rows: Rows::default(),
            changed: true,
            drawn: Instant::now(),
            trouble: None,
        }
    }

    fn take(&mut self, message: pb::WatchMetricsResponse) -> Result<(), Failure> {
        match (self.output, self.live) {
            (Output::Json, _) => print(&line_of(&message)?),
            (Output::Table, false) if message.event() != pb::WatchEvent::Heartbeat => {
                print(&change_line(&message));
            }
            (Output::Table, _) => {}
        }
        self.rows.take(message);
        self.changed = true;
        Ok(())
    }

    fn draw(&mut self) {
        let ages = self.drawn.elapsed() >= Duration::from_secs(1);
        if !self.live || !(self.changed || ages) {
            return;
        }
        let (height, width) = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|size| size.ws_row > 0 && size.ws_col > 0)
            .map_or((24, 80), |size| {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            });
        let width = width.max(1);
        // reasons are read to their end, however narrow the terminal is
        let reasons: Vec<String> = self.rows.reasons(height / 4, width);
        let room = height.saturating_sub(4 + reasons.len());
        let table = self.rows.table(room.max(1), false);
        let mut lines: Vec<String> = table
            .lines()
            .map(|line| line.chars().take(width).collect())
            .collect();
        lines.extend(reasons);
        let last = self.trouble.as_deref().unwrap_or("Ctrl-C ends");
        lines.push(last.chars().take(width).collect());
        raw(&format!("\u{1b}[H\u{1b}[J{}", lines.join("\r\n")));
        self.changed = false;
        self.drawn = Instant::now();
    }

    fn gone(&mut self, status: &Status) {
        let text = format!(
            "the agent is gone, trying again: {}",
            clean(status.message())
        );
        if !self.live {
            note("warning", &text);
        }
        self.trouble = Some(text);
        self.changed = true;
    }

    fn back(&mut self) {
        // the first messages tell all that there is
        self.rows = Rows::default();
        self.trouble = None;
        self.changed = true;
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if self.live {
            raw("\u{1b}[?25h\u{1b}[?1049l");
        }
    }
}

fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    // a reader that went away is no error
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// What is known of each instance, and since when.
#[derive(Default)]
struct Rows(BTreeMap<String, (pb::WatchMetricsResponse, Instant)>);

impl Rows {
    fn take(&mut self, message: pb::WatchMetricsResponse) {
        match message.event() {
            pb::WatchEvent::Window | pb::WatchEvent::Missing => {
                self.0
                    .insert(message.instance_id.clone(), (message, Instant::now()));
            }
            pb::WatchEvent::Removed => {
                self.0.remove(&message.instance_id);
            }
            pb::WatchEvent::Heartbeat | pb::WatchEvent::Unspecified => {}
        }
    }

    /// Why instances could not be read: at most so many lines, none longer than the width.
    fn reasons(&self, most: usize, width: usize) -> Vec<String> {
        let reasons = self.0.values().filter_map(|(message, _)| {
            let failure = message.failure.as_ref()?;
            let (id, reason) = (clean(&message.instance_id), clean(&failure.message));
            Some(format!("{id}: {reason}").chars().collect::<Vec<char>>())
        });
        let lines = reasons.flat_map(|reason| {
            let lines = reason.chunks(width).map(|line| line.iter().collect());
            lines.collect::<Vec<String>>()
        });
        lines.take(most).collect()
    }

    /// At most this many instances, with the reasons of those that could not be read if they are wanted beside them.
    fn table(&self, most: usize, with_reasons: bool) -> String {
        if self.0.is_empty() {
            return "no instances yet; register one with `perfagent instances register`\n"
                .to_owned();
        }
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        let shown = self.0.values().take(most);
        rows.extend(shown.map(|(message, at)| row(message, at.elapsed(), with_reasons)));
        let mut text = aligned(&rows);
        if let Some(more) = self.0.len().checked_sub(most).filter(|more| *more > 0) {
            text += &format!("… and {more} more; name some, or --label\n");
        }
        text
    }
}

const HEADINGS: [&str; 11] = [
    "INSTANCE", "STATE", "ENGINE", "TOKENS/S", "REQ/S", "TTFT", "E2E", "KV", "RUNNING", "WAITING",
    "AGE",
];

fn row(message: &pb::WatchMetricsResponse, age: Duration, with_reason: bool) -> [String; 11] {
    let measured = message.measurement.as_ref();
    // what was since the engine's start is not what is now
    let is_window = |measured: &&pb::Measurement| {
        let window = measured.window.as_ref();
        window.is_some_and(|window| window.kind() == pb::WindowKind::Interval)
    };
    let over_window = measured.filter(is_window);
    let requests = over_window
        .and_then(|measured| measured.request_metrics)
        .unwrap_or_default();
    let gpu = measured
        .and_then(|measured| measured.gpu_metrics)
        .unwrap_or_default();
    let throughput = over_window
        .and_then(|measured| measured.throughput_metrics)
        .unwrap_or_default();
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let seconds = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value < 1.0 => format!("{:.0} ms", value * 1e3),
        Some(value) => format!("{value:.2} s"),
    };
    let engine = match measured {
        Some(measured) if measured.simulated => clean(&measured.instance_type) + " SIMULATED",
        Some(measured) => clean(&measured.instance_type),
        None => "-".to_owned(),
    };
    let mut last = format!("{} s", age.as_secs());
    if let Some(failure) = message.failure.as_ref().filter(|_| with_reason) {
        last = format!("{last}  {}", clean(&failure.message));
    }
    [
        clean(&message.instance_id),
        state_word(message.state()).to_owned(),
        engine,
        number(throughput.tokens_per_second, 1),
        number(throughput.requests_per_second, 2),
        seconds(requests.time_to_first_token_seconds),
        seconds(requests.e2e_request_latency_seconds),
        gpu.cache_usage_perc
            .map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0} %")),
        number(gpu.num_requests_running, 1),
        number(gpu.num_requests_waiting, 1),
        last,
    ]
}

/// One change as a line for those who read no live table.
fn change_line(message: &pb::WatchMetricsResponse) -> String {
    if message.event() == pb::WatchEvent::Removed {
        return format!("{}  removed\n", clean(&message.instance_id));
    }
    let [
        id,
        state,
        engine,
        tokens,
        requests,
        ttft,
        e2e,
        kv,
        running,
        waiting,
        _,
    ] = row(message, Duration::ZERO, false);
    let mut line = format!(
        "{id}  {state}  {engine}  {tokens} tokens/s  {requests} requests/s  TTFT {ttft}  e2e {e2e}  KV {kv}  \
         running {running}  waiting {waiting}"
    );
    if let Some(failure) = &message.failure {
        line += &format!("  {}", clean(&failure.message));
    }
    if message.missed_windows > 0 {
        line += &format!("  ({} windows missed)", message.missed_windows);
    }
    line + "\n"
}

fn line_of(message: &pb::WatchMetricsResponse) -> Result<String, Failure> {
    let value = json::to_json("perfagent.v1.WatchMetricsResponse", message);
    let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
    Ok(json::line_of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_to_their_end() {
        let mut rows = Rows::default();
        rows.take(pb::WatchMetricsResponse {
            event: pb::WatchEvent::Missing.into(),
            instance_id: "a".to_owned(),
            failure: Some(pb::CollectFailure {
                message: "0123456789".repeat(3),
                ..pb::CollectFailure::default()
            }),
            ..pb::WatchMetricsResponse::default()
        });
        let lines = rows.reasons(9, 12);
        assert_eq!(lines.concat(), format!("a: {}", "0123456789".repeat(3)));
        assert!(lines.iter().all(|line| line.len() <= 12));
        assert_eq!(rows.reasons(2, 12).len(), 2);
        assert!(!rows.table(9, false).contains("0123456789"));
        assert!(rows.table(9, true).contains("0123456789"));
    }
}
