//! A workflow for people, in parts: `get`, `start` and `approve` show all of them, the live view what fits.

use std::time::SystemTime;

use super::words::{
    age, instant, outcome_word, seconds_between, severity_word, span, stage_mark, stage_word,
    status_ink, status_word, target_word, type_word,
};
use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::optimize::effect::{in_short, interval, name_of, shown};
use crate::edge::cli::optimize::sheet::{Page, change, times};
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// A workflow, and what is needed to speak of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) of: &'a pb::Workflow,
    pub(super) now: SystemTime,
    /// What commands need behind them to reach the agent, such as ` --server HOST:PORT`.
    pub(super) server: &'a str,
}

/// All that is known of a workflow.
pub(super) fn render(told: &Told<'_>, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.workflow_title(told);
    page.stages(told);
    page.failure(told);
    page.effects(told);
    page.verdicts(told);
    page.findings(told);
    page.plan(told);
    page.alternatives(told);
    page.targets(told);
    page.approvals(told);
    page.origin(told);
    // last, where it is seen: what to do
    page.waiting(told, &commands(told));
    page.text
}

/// How it ended, and what decided that: for those who have seen it happen.
pub(in crate::edge::cli) fn decided(of: &pb::Workflow, colour: bool) -> String {
    let told = Told {
        of,
        now: SystemTime::now(),
        server: "",
    };
    let mut page = Page::new(colour);
    page.workflow_title(&told);
    page.verdicts(&told);
    page.targets(&told);
    page.text
}

/// What somebody reads before they agree to its plan.
pub(super) fn to_approve(told: &Told<'_>, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.workflow_title(told);
    page.findings(told);
    page.plan(told);
    page.alternatives(told);
    page.approvals(told);
    page.origin(told);
    page.text
}

/// What can be typed about what it waits for, what is expected first.
pub(super) fn commands(told: &Told<'_>) -> Vec<String> {
    let of = told.of;
    let etag = of.plan.as_ref().map(|plan| clean(&plan.etag));
    let etag = etag.map(|etag| format!(" --etag {etag}"));
    verbs_on(&clean(&of.workflow_id), &etag.unwrap_or_default(), told)
}

/// The same, short enough for a narrow terminal: by the instance, and the plan is then shown.
pub(super) fn short_commands(told: &Told<'_>) -> Vec<String> {
    verbs_on(&clean(&told.of.instance_id), "", told)
}

fn verbs_on(subject: &str, etag: &str, told: &Told<'_>) -> Vec<String> {
    let failed = told.of.status() == pb::WorkflowStatus::RollbackFailed;
    let verbs = told
        .of
        .waiting_for
        .iter()
        .flat_map(|waiting| &waiting.verbs);
    let typed = verbs.filter_map(|verb| {
        let (verb, rest) = match verb.as_str() {
            "APPROVE" => ("approve", etag),
            "CANCEL" if failed => ("cancel", " --acknowledge"),
            "REJECT" => ("reject", ""),
            "PAUSE" => ("pause", ""),
            "RESUME" => ("resume", ""),
            "CANCEL" => ("cancel", ""),
            "ROLLBACK" => ("rollback", ""),
            // of a later version
            _ => return None,
        };
        let server = told.server;
        Some(format!("perfagent workflow {verb} {subject}{rest}{server}"))
    });
    typed.collect()
}

impl Page {
    /// Which, of what, and how it is.
    pub(super) fn workflow_title(&mut self, told: &Told<'_>) {
        let of = told.of;
        let mut words = vec![clean(&of.workflow_id), clean(&of.instance_id)];
        words.push(type_word(of.workflow_type()).to_owned());
        words.extend(of.simulated.then(|| self.inked("SIMULATED", "35")));
        self.line(0, &words.join("  "));
        let status = self.inked(status_word(of.status()), status_ink(of.status()));
        let outcome = match of.outcome() {
            pb::WorkflowOutcome::Unspecified => String::new(),
            outcome => format!(" {}", outcome_word(outcome)),
        };
        self.line(0, &format!("{status}{outcome}: {}", clean(&of.headline)));
    }

    /// Its way, a line a stage, and how much of it is behind.
    pub(super) fn stages(&mut self, told: &Told<'_>) {
        self.text.push('\n');
        let widest = |all: &[pb::WorkflowStageRecord]| {
            let words = all.iter().map(|one| stage_word(one.stage()).len());
            words.max().unwrap_or(0)
        };
        let width = widest(&told.of.stages);
        for record in &told.of.stages {
            let (mark, ink, word) = stage_mark(record.status());
            let mark = self.inked(mark, ink);
            let stage = stage_word(record.stage());
            let took = record.start_time.map(|start| match record.end_time {
                Some(end) => span(seconds_between(start, end)),
                None => span(age(start, told.now)),
            });
            let line = format!(
                "{mark} {stage:<width$}  {word:<9} {}",
                took.unwrap_or_default()
            );
            self.line(1, line.trim_end());
        }
        let progress = told.of.progress.clamp(0.0, 1.0);
        let full = (progress * BAR as f64).round() as usize;
        let bar = "█".repeat(full) + &"░".repeat(BAR.saturating_sub(full));
        self.line(1, &format!("{bar} {:.0} %", progress * 100.0));
    }

    /// Who or what it waits for, until when, and what can be typed.
    pub(super) fn waiting(&mut self, told: &Told<'_>, commands: &[String]) {
        let Some(waiting) = &told.of.waiting_for else {
            return;
        };
        self.text.push('\n');
        self.said("waits for", &waiting.what);
        let mut when = Vec::new();
        when.extend(
            waiting
                .since_time
                .map(|since| format!("for {}", span(age(since, told.now)))),
        );
        when.extend(waiting.until_time.map(|until| {
            let left = seconds_between(prost_types::Timestamp::from(told.now), until);
            let then = clean(&waiting.then);
            format!("until {} (in {}); then: {then}", instant(until), span(left))
        }));
        if !when.is_empty() {
            self.line(1, when.join(", ").trim_end());
        }
        for command in commands {
            let command = self.inked(command, "1");
            self.line(2, &command);
        }
    }

    /// What went wrong.
    pub(super) fn failure(&mut self, told: &Told<'_>) {
        let Some(failure) = &told.of.failure else {
            return;
        };
        self.text.push('\n');
        let reason = self.inked(&clean(&failure.reason), "31");
        self.line(1, &format!("{reason}: {}", clean(&failure.message)));
        if !failure.hint.is_empty() {
            self.said("what to do", &failure.hint);
        }
    }

    /// What came of the change: predicted beside measured.
    pub(super) fn effects(&mut self, told: &Told<'_>) {
        let Some(effects) = &told.of.effects else {
            return;
        };
        self.heading("What came of it: before, after, and what was predicted");
        for line in effects_table(effects).lines() {
            self.line(1, line);
        }
        if !effects.headline.is_empty() {
            self.said("now", &effects.headline);
        }
        self.line(
            1,
            "measured one after the other, so other load would show as an effect",
        );
    }

    /// What holds the instance back.
    fn findings(&mut self, told: &Told<'_>) {
        if told.of.findings.is_empty() {
            return;
        }
        self.heading("What holds it back");
        for one in &told.of.findings {
            let severity = severity_word(one.severity());
            let line = format!(
                "{severity} {}: {}",
                clean(&one.cause),
                clean(&one.description)
            );
            self.line(1, &line);
        }
    }

    /// What is to be changed, what that is predicted to do, and where.
    pub(super) fn plan(&mut self, told: &Told<'_>) {
        let Some(plan) = &told.of.plan else {
            return;
        };
        self.heading("Plan");
        self.changes(plan);
        self.effect(plan.prediction.as_ref(), &plan.not_predictable_reason);
        self.canary(plan);
        for one in &plan.targets {
            let arguments: Vec<String> = one.launch_args.iter().map(|word| clean(word)).collect();
            self.said(&clean(&one.name), &arguments.join(" "));
        }
        let mut marks = Vec::new();
        if plan.needs_restart {
            marks.push("takes a restart");
        }
        if plan.changes_answers {
            marks.push("answers may become others");
        }
        if !marks.is_empty() {
            self.line(1, &marks.join("; "));
        }
        self.listed("to know", &plan.remarks);
        if !plan.snapshot_id.is_empty() {
            self.said("settings before", &format!("snapshot {}", plan.snapshot_id));
        }
        self.said("etag", &plan.etag);
    }

    /// The settings that change, a line each.
    pub(super) fn changes(&mut self, plan: &pb::WorkflowPlan) {
        for one in &plan.changes {
            let one = self.inked(&change(one), "1");
            self.line(1, &one);
        }
    }

    /// What is recommended beside what is planned.
    fn alternatives(&mut self, told: &Told<'_>) {
        let planned = told
            .of
            .plan
            .as_ref()
            .map(|plan| plan.optimization_id.as_str());
        let others = told.of.optimizations.iter();
        let others: Vec<&pb::Optimization> = others
            .filter(|one| Some(one.optimization_id.as_str()) != planned)
            .collect();
        if others.is_empty() {
            return;
        }
        self.heading("Recommended too; `start --optimization ID` carries another one out");
        for one in others {
            let (id, title) = (clean(&one.optimization_id), clean(&one.title));
            self.line(1, &format!("{id}  {title}; {}", in_short(one)));
        }
    }

    /// How each target is.
    pub(super) fn targets(&mut self, told: &Told<'_>) {
        if told.of.targets.is_empty() {
            return;
        }
        self.heading("Targets");
        let row = |one: &pb::WorkflowTarget| {
            let revision = match one.revision.as_str() {
                "" => String::new(),
                revision => format!("revision {}", abridged(&clean(revision))),
            };
            [
                clean(&one.name),
                target_word(one.state()).to_owned(),
                revision,
            ]
        };
        let rows: Vec<[String; 3]> = told.of.targets.iter().map(row).collect();
        for line in aligned(&rows).lines() {
            self.line(1, line);
        }
    }

    /// Who has approved it.
    fn approvals(&mut self, told: &Told<'_>) {
        if told.of.approvals.is_empty() {
            return;
        }
        self.heading("Approved by");
        for one in &told.of.approvals {
            let at = one.approve_time.map(instant).unwrap_or_default();
            let line = format!("{}  {at}  {}", clean(&one.principal), clean(&one.note));
            self.line(1, line.trim_end());
        }
    }

    /// Who started it, when and why.
    fn origin(&mut self, told: &Told<'_>) {
        let of = told.of;
        self.text.push('\n');
        let at = of.create_time.map(instant).unwrap_or_default();
        let note = match of.note.as_str() {
            "" => String::new(),
            note => format!(": {}", clean(note)),
        };
        let by = format!("{} {at}{note}", clean(&of.started_by));
        self.said("started by", by.trim());
        self.said("actuator", &of.actuator);
    }
}

/// As much of a revision as people compare; digests are long.
fn abridged(revision: &str) -> String {
    const SHOWN: usize = 12;
    match revision.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", revision.get(..end).unwrap_or_default()),
        None => revision.to_owned(),
    }
}

/// Characters of a full bar.
const BAR: usize = 30;

/// What was measured before and after, a line a quantity, and what was predicted.
pub(in crate::edge::cli) fn effects_table(of: &pb::WorkflowEffects) -> String {
    let rows: Vec<[String; 4]> = of.quantities.iter().map(effect).collect();
    aligned(&rows)
}

/// A quantity: before, after, and what was predicted.
fn effect(of: &pb::WorkflowEffect) -> [String; 4] {
    let ratios = (
        of.predicted_ratio,
        of.predicted_ratio_low,
        of.predicted_ratio_high,
    );
    let predicted = match ratios {
        (Some(ratio), Some(low), Some(high)) => {
            let held = match (low..=high).contains(&of.ratio) {
                true => "in the interval",
                false => "OUTSIDE the interval",
            };
            let predicted = pb::QuantityPrediction {
                quantity: of.quantity.clone(),
                after: of.before * ratio,
                after_low: of.before * low,
                after_high: of.before * high,
                ..pb::QuantityPrediction::default()
            };
            let middle = shown(&of.quantity, predicted.after);
            format!("predicted {middle} ({}), {held}", interval(&predicted))
        }
        _ => "not predicted".to_owned(),
    };
    let [before, after] = [of.before, of.after].map(|value| shown(&of.quantity, value));
    [
        name_of(&of.quantity, &of.statistic),
        format!("{before} → {after}"),
        times(of.ratio),
        predicted,
    ]
}

/// Workflows, one a line.
pub(super) fn table(all: &[pb::Workflow], now: SystemTime) -> String {
    if all.is_empty() {
        return "no workflows; start one with `perfagent workflow start INSTANCE`\n".to_owned();
    }
    let head = [
        "WORKFLOW", "INSTANCE", "TYPE", "STATUS", "STAGE", "DONE", "AGE", "",
    ];
    let row = |of: &pb::Workflow| {
        [
            clean(&of.workflow_id),
            clean(&of.instance_id),
            type_word(of.workflow_type()).to_owned(),
            status_word(of.status()).to_owned(),
            stage_word(of.current_stage()).to_owned(),
            format!("{:.0} %", of.progress * 100.0),
            of.create_time
                .map_or_else(String::new, |at| span(age(at, now))),
            clean(&of.headline),
        ]
    };
    let rows: Vec<[String; 8]> = std::iter::once(head.map(str::to_owned))
        .chain(all.iter().map(row))
        .collect();
    aligned(&rows)
}

/// What happened, on a line.
pub(super) fn event_line(of: &pb::WorkflowEvent) -> String {
    let at = of.event_time.map(instant).unwrap_or_default();
    let mut line = format!(
        "{at}  {}  {}  {:<16}  {}",
        clean(&of.workflow_id),
        clean(&of.instance_id),
        clean(&of.r#type),
        clean(&of.message)
    );
    if let Some(failure) = &of.failure {
        line += &format!(" ({}: {})", clean(&failure.reason), clean(&failure.message));
    }
    let is_told = of.message.contains(&of.actor) || of.actor == "perfagent";
    if !is_told {
        line += &format!(" [{}]", clean(&of.actor));
    }
    line.trim_end().to_owned() + "\n"
}
