//! `perfagent workflow watch`

use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use tokio::signal::unix::{SignalKind, signal};

use super::draw::{Canvas, View};
use super::follow::{Asked, News, Subject, follow};
use super::page::{Told, event_line, render};
use super::reach::{Purpose, Reached};
use super::words::{outcome_of, status_word};
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::terminal::{clean, colour_on_stdout, note, print};
use crate::edge::cli::{Failure, Outcome, json};
use crate::edge::grpc::pb;
use pb::watch_workflow_response::Told as Message;

/// Flags of `perfagent workflow watch`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("subject").required(true).args(["workflow", "instance", "all"])
)]
pub(in crate::edge::cli) struct WatchArgs {
    /// Id of a workflow; or of an instance, for the one that runs on it or ran last; or `latest`
    #[arg(value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// All workflows of this instance, also those that are started later
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// All workflows, also those that are started later
    #[arg(long)]
    all: bool,
    /// Go on after this revision of the log, as JSON lines have it
    #[arg(long, value_name = "REVISION")]
    after_revision: Option<u64>,
    /// End with an error when the agent is out of reach for so long; else it is tried again for ever
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    give_up_after: Option<Duration>,
    /// What to print: on a terminal a live view and else a line an event; or JSON, one object a line
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "Examples:
  perfagent workflow watch latest
  perfagent workflow watch vllm-1
  perfagent workflow watch --all --output json
  perfagent workflow watch 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10 && echo applied

It ends when the workflow ends. Where the agent is stopped, killed or out of reach, it is tried again and the watch goes on
after the last event, without gap or duplicate. Looking changes nothing: Ctrl-C ends the view, not the workflow.

Exit codes: 0 COMPLETED, or Ctrl-C; 1 FAILED, or the watch failed; 4 REJECTED or CANCELLED; 5 ROLLED_BACK; 6
ROLLBACK_FAILED; 2 wrong usage or configuration.";

/// A live view is drawn at most this often.
const REDRAW: Duration = Duration::from_millis(200);
const PLAIN_HEIGHT_AND_WIDTH: (usize, usize) = (24, 80);

pub(super) async fn run(args: &WatchArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let subject = match (&args.workflow, &args.instance) {
        (Some(reference), _) => Subject::One(reached.id_of(reference, Purpose::Look).await?),
        (None, Some(instance)) => Subject::All(instance.clone()),
        (None, None) => Subject::All(String::new()),
    };
    look(&reached, args.asked(subject), args.output).await
}

impl WatchArgs {
    fn asked(&self, subject: Subject) -> Asked {
        Asked {
            subject,
            after_revision: self.after_revision,
            with_state: false,
            give_up_after: self.give_up_after,
        }
    }
}

/// Shows one workflow from its first event to its end.
pub(super) async fn to_its_end(
    reached: &Reached,
    id: &str,
    output: Output,
) -> Result<Outcome, Failure> {
    let asked = Asked {
        subject: Subject::One(id.to_owned()),
        after_revision: None,
        with_state: false,
        give_up_after: None,
    };
    look(reached, asked, output).await
}

async fn look(reached: &Reached, mut asked: Asked, output: Output) -> Result<Outcome, Failure> {
    let no_signal = |error| Failure::new(Outcome::Failed, format!("{error}"), None);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut show = Show::new(output, &reached.server);
    asked.with_state = show.live;
    let mut heard = follow(reached.agent.channel(), asked);
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(Outcome::Done),
            _ = terminate.recv() => return Ok(Outcome::Done),
            _ = redraw.tick() => show.draw(),
            news = heard.next() => match news {
                None => return Ok(Outcome::Done),
                Some(News::Failed(status)) => {
                    drop(show);
                    return Err(reached.failed(&status));
                }
                Some(News::Ended(workflow)) => return Ok(show.ended(&workflow)),
                Some(other) => show.take(other)?,
            },
        }
    }
}

/// Waits until the plan is there or the workflow has ended, at most so long; how it is then.
pub(super) async fn until_planned(
    reached: &Reached,
    of: pb::Workflow,
    most: Duration,
) -> Result<pb::Workflow, Failure> {
    if most.is_zero() || is_settled(&of) {
        return Ok(of);
    }
    let mut last = of;
    let mut heard = follow(
        reached.agent.channel(),
        Asked {
            subject: Subject::One(last.workflow_id.clone()),
            after_revision: None,
            with_state: true,
            give_up_after: Some(most),
        },
    );
    let end = tokio::time::sleep(most);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return Ok(last),
            news = heard.next() => match settling(news) {
                Settling::Is(workflow) => last = *workflow,
                Settling::Failed(status) => return Err(reached.failed(&status)),
                Settling::Over => return Ok(last),
                Settling::Nothing => {}
            },
        }
        if is_settled(&last) {
            return Ok(last);
        }
    }
}

enum Settling {
    Is(Box<pb::Workflow>),
    Failed(Box<tonic::Status>),
    Nothing,
    Over,
}

fn settling(news: Option<News>) -> Settling {
    match news {
        Some(News::State(workflow) | News::Ended(workflow)) => Settling::Is(workflow),
        Some(News::Failed(status)) => Settling::Failed(status),
        Some(News::Lost(why)) => {
            lost_note(&why);
            Settling::Nothing
        }
        Some(_) => Settling::Nothing,
        None => Settling::Over,
    }
}

/// Its plan is there, or none will be.
fn is_settled(of: &pb::Workflow) -> bool {
    use pb::WorkflowStage as Stage;
    let plans = matches!(of.current_stage(), Stage::Analysis | Stage::Recommendation);
    of.done || of.status() != pb::WorkflowStatus::InProgress || !plans
}

/// Where news are shown.
struct Show<'a> {
    output: Output,
    /// It is drawn again in place.
    live: bool,
    view: View,
    changed: bool,
    drawn: SystemTime,
    server: &'a str,
}

impl<'a> Show<'a> {
    fn new(output: Output, server: &'a str) -> Self {
        let live = output == Output::Table && std::io::stdout().is_terminal();
        if live {
            // a screen of its own, so that what was on this one is there again afterwards
            raw("\u{1b}[?1049h\u{1b}[?25l");
        }
        Self {
            output,
            live,
            view: View::default(),
            changed: true,
            drawn: SystemTime::UNIX_EPOCH,
            server,
        }
    }

    fn take(&mut self, news: News) -> Result<(), Failure> {
        self.changed = true;
        match news {
            News::Told(message) => return self.told(*message),
            News::State(workflow) => self.view.is(*workflow),
            News::Lost(why) => {
                if !self.live {
                    lost_note(&why);
                }
                self.view.trouble = Some(why);
            }
            News::Back => {
                if !self.live {
                    note("note", "the agent answers again");
                }
                self.view.trouble = None;
            }
            News::Skipped => {
                let text = "older events are not kept any more; this is how things are now";
                if !self.live {
                    note("warning", text);
                }
            }
            News::Ended(_) | News::Failed(_) => {}
        }
        Ok(())
    }

    fn told(&mut self, message: pb::WatchWorkflowResponse) -> Result<(), Failure> {
        if self.output == Output::Json {
            let value = json::to_json("perfagent.v1.WatchWorkflowResponse", &message);
            let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
            print(&json::line_of(&value));
            return Ok(());
        }
        match (message.told, self.live) {
            (Some(Message::Snapshot(workflow)), true) => self.view.is(workflow),
            (Some(Message::Event(event)), true) => self.view.took(event),
            (Some(Message::Snapshot(workflow)), false) => print(&snapshot_line(&workflow)),
            (Some(Message::Event(event)), false) => print(&event_line(&event)),
            (Some(Message::Bookmark(_)) | None, _) => {}
        }
        Ok(())
    }

    fn draw(&mut self) {
        let now = SystemTime::now();
        let aged = now
            .duration_since(self.drawn)
            .is_ok_and(|age| age >= Duration::from_secs(1));
        if !self.live || !(self.changed || aged) {
            return;
        }
        let (height, width) = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|size| size.ws_row > 0 && size.ws_col > 0)
            .map_or(PLAIN_HEIGHT_AND_WIDTH, |size| {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            });
        let lines = self.view.lines(&Canvas {
            height,
            width,
            colour: colour_on_stdout(),
            now,
            server: self.server,
        });
        raw(&format!("\u{1b}[H\u{1b}[J{}", lines.join("\r\n")));
        self.changed = false;
        self.drawn = now;
    }

    /// The workflow has ended: the live view goes, and how it ended stays.
    fn ended(self, of: &pb::Workflow) -> Outcome {
        let (output, live) = (self.output, self.live);
        let told = Told {
            of,
            now: SystemTime::now(),
            server: self.server,
        };
        drop(self);
        if output == Output::Table {
            let text = match live {
                true => render(&told, colour_on_stdout()),
                false => snapshot_line(of),
            };
            print(&text);
        }
        outcome_of(of).unwrap_or(Outcome::Done)
    }
}

impl Drop for Show<'_> {
    fn drop(&mut self) {
        if self.live {
            raw("\u{1b}[?25h\u{1b}[?1049l");
        }
    }
}

/// A workflow as it is, on a line.
fn snapshot_line(of: &pb::Workflow) -> String {
    format!(
        "{}  {}  {}  {}\n",
        clean(&of.workflow_id),
        clean(&of.instance_id),
        status_word(of.status()),
        clean(&of.headline)
    )
}

fn lost_note(why: &str) {
    note("warning", &format!("agent not reachable, retrying: {why}"));
}

fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    // a reader that went away is no error
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
