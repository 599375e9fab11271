//! The live view: from what is known to the lines of a terminal, and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use super::page::{Told, short_commands, table};
use super::words::age;
use crate::edge::cli::optimize::effect::line as quantity_line;
use crate::edge::cli::optimize::sheet::Page;
use crate::edge::cli::terminal::clean;
use crate::edge::cli::workflow::words::span;
use crate::edge::grpc::pb;

/// As many as a tall terminal has room for.
const KEPT: usize = 50;

/// What is known of what is watched.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Workflows as they are, by their id.
    pub(super) workflows: BTreeMap<String, pb::Workflow>,
    /// What happened last, in order.
    pub(super) events: VecDeque<pb::WorkflowEvent>,
    /// Why nothing is heard of the agent.
    pub(super) trouble: Option<String>,
}

/// Where it is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) colour: bool,
    pub(super) now: SystemTime,
    /// As in [`Told`].
    pub(super) server: &'a str,
}

impl View {
    pub(super) fn took(&mut self, event: pb::WorkflowEvent) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn is(&mut self, workflow: pb::Workflow) {
        self.workflows
            .insert(workflow.workflow_id.clone(), workflow);
    }

    /// The lines: never more than there is room for, none wider.
    pub(super) fn lines(&self, on: &Canvas<'_>) -> Vec<String> {
        let mut page = Page::new(on.colour);
        let mut all = self.workflows.values();
        match (all.next(), all.next()) {
            (None, _) => page.line(0, "no workflow has anything to do"),
            (Some(of), None) => one(
                &mut page,
                &Told {
                    of,
                    now: on.now,
                    server: on.server,
                },
            ),
            _ => {
                let newest: Vec<pb::Workflow> = self.workflows.values().rev().cloned().collect();
                page.text += &table(&newest, on.now);
            }
        }
        let last = self.foot(&page);
        // the foot is always there; what happened takes the room that is left
        let room = on.height.saturating_sub(1);
        let mut lines: Vec<String> = page.text.lines().map(str::to_owned).collect();
        let left = room.saturating_sub(lines.len() + 2);
        if left > 0 && !self.events.is_empty() {
            lines.extend([String::new(), page.inked("Events", "1")]);
            let first = self.events.len().saturating_sub(left);
            lines.extend(
                self.events
                    .iter()
                    .skip(first)
                    .map(|event| short(event, on.now)),
            );
        }
        lines.truncate(room);
        lines.push(last);
        lines.iter().map(|line| fitted(line, on.width)).collect()
    }

    fn foot(&self, page: &Page) -> String {
        match &self.trouble {
            Some(trouble) => {
                let words = format!("agent not reachable, retrying: {}", clean(trouble));
                page.inked(&words, "1;31")
            }
            None => "Ctrl-C ends this view; workflows go on".to_owned(),
        }
    }
}

/// One workflow: what it waits for and what came of it before what can be read elsewhere.
fn one(page: &mut Page, told: &Told<'_>) {
    page.workflow_title(told);
    page.stages(told);
    page.waiting(told, &short_commands(told));
    page.failure(told);
    page.effects(told);
    if let Some(plan) = &told.of.plan {
        page.heading("Plan");
        page.changes(plan);
        let predicted = plan.prediction.iter().flat_map(|of| &of.quantities);
        if told.of.effects.is_none() {
            for quantity in predicted {
                page.line(1, &format!("predicted {}", quantity_line(quantity)));
            }
        }
    }
    page.targets(told);
}

/// What happened, as short as can be.
fn short(of: &pb::WorkflowEvent, now: SystemTime) -> String {
    let ago = of
        .event_time
        .map_or_else(String::new, |at| span(age(at, now)));
    format!(
        "  {ago:>12} ago  {:<16}  {}",
        clean(&of.r#type),
        clean(&of.message)
    )
}

/// A line cut to a width. Colours take no room, and end with it.
fn fitted(line: &str, width: usize) -> String {
    let mut cut = String::new();
    let (mut wide, mut escaped) = (0, false);
    for char in line.chars() {
        match (char, escaped) {
            ('\u{1b}', _) => escaped = true,
            ('m', true) => escaped = false,
            (_, true) => {}
            (_, false) if wide == width => continue,
            (_, false) => wide += 1,
        }
        cut.push(char);
    }
    cut
}
