//! What to change, for somebody who has to sign it: the list with what each change is expected to do, then of each why,
//! what may go wrong, what to watch and how to go back; then what was left out.

use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::optimize::effect::in_short;
use crate::edge::cli::optimize::sheet::{Header, Page, change};
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// The answer as text.
pub(super) fn render(of: &pb::RecommendOptimizationsResponse, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.header(&Header::from(of));
    page.advice(of);
    page.table(&of.optimizations);
    for (at, one) in of.optimizations.iter().enumerate() {
        page.optimization(at + 1, one);
    }
    page.left_out(&of.left_out);
    page.remarks(&of.remarks, &of.notes);
    page.text
}

/// The advice as people read it, and its colour.
fn word_of(advice: pb::OptimizationAdvice) -> (&'static str, &'static str) {
    use pb::OptimizationAdvice as Advice;
    match advice {
        Advice::Change => ("CHANGE", "31"),
        Advice::NothingToDo => ("NOTHING TO DO", "32"),
        Advice::AddCapacity => ("ADD CAPACITY", "31"),
        Advice::Repair => ("REPAIR", "31"),
        Advice::CannotTell => ("CANNOT TELL", "33"),
        Advice::Unspecified => ("UNKNOWN ADVICE", "33"),
    }
}

impl Page {
    fn advice(&mut self, of: &pb::RecommendOptimizationsResponse) {
        let (word, ink) = word_of(of.advice());
        let word = self.inked(word, &format!("1;{ink}"));
        self.text.push('\n');
        self.line(0, &format!("{word}: {}", clean(&of.headline)));
    }

    fn table(&mut self, all: &[pb::Optimization]) {
        if all.is_empty() {
            return;
        }
        let head = ["", "PRIORITY", "CHANGE", "PREDICTED (90 % INTERVAL)"].map(str::to_owned);
        let rows = all.iter().enumerate().map(|(at, one)| {
            [
                format!("{}", at + 1),
                priority_of(one).0.to_owned(),
                changes_in_short(one),
                in_short(one),
            ]
        });
        let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
        self.text.push('\n');
        self.text += &aligned(&rows);
    }

    fn optimization(&mut self, place: usize, of: &pb::Optimization) {
        let (word, ink) = priority_of(of);
        let kind = of.r#type().as_str_name();
        let kind = kind.trim_start_matches("OPTIMIZATION_TYPE_");
        let title = self.inked(&format!("{place}. {}", clean(&of.title)), "1");
        let priority = self.inked(word, ink);
        self.text.push('\n');
        self.line(0, &format!("{title}  {priority}  {kind}"));
        self.said("why", &of.reason);
        self.effect(of.prediction.as_ref(), &of.not_predictable_reason);
        if let Some(trade_off) = &of.trade_off {
            self.said("trade-off", trade_off);
        }
        self.listed("before", &of.prerequisites);
        self.listed("risks", &of.risks);
        self.listed("watch", &of.watch);
        if !of.undo.is_empty() {
            self.said("undo", &of.undo);
        }
        let mut marks = Vec::new();
        if of.changes_answers {
            marks.push("answers may become others");
        }
        if of.needs_restart {
            marks.push("takes a restart");
        }
        if !marks.is_empty() {
            self.line(1, &marks.join("; "));
        }
    }

    fn left_out(&mut self, all: &[pb::LeftOutOptimization]) {
        if all.is_empty() {
            return;
        }
        self.heading("Left out");
        for one in all {
            let line = format!("{}: {}", clean(&one.title), clean(&one.reason));
            self.line(1, &line);
        }
    }
}

fn priority_of(of: &pb::Optimization) -> (&'static str, &'static str) {
    use pb::OptimizationPriority as Priority;
    match of.priority() {
        Priority::Critical => ("CRITICAL", "1;31"),
        Priority::High => ("HIGH", "31"),
        Priority::Medium => ("MEDIUM", "33"),
        Priority::Low => ("LOW", "36"),
        Priority::Unspecified => ("-", "0"),
    }
}

/// `--max-num-seqs 4 → 32`, of all that changes.
fn changes_in_short(of: &pb::Optimization) -> String {
    let replicas = of.replicas.as_ref();
    let replicas = replicas.map(|of| format!("replicas {} → {}", of.from_count, of.to_count));
    let changes: Vec<String> = of.changes.iter().map(change).chain(replicas).collect();
    match changes.is_empty() {
        true => clean(&of.title),
        false => changes.join(", "),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::edge::cli::optimize::example::answer;

    #[test]
    fn the_page_has_all_that_somebody_signs() {
        let page = render(&answer(), false);
        for part in [
            "CHANGE: Raise --max-num-seqs from 4 to 32",
            "--max-num-seqs 4 → 32",
            "TTFT 4.7 s → 0.32 s",
            "1. Raise --max-num-seqs from 4 to 32  HIGH  BATCHING",
            "why: 22 requests wait",
            "trade-off: ",
            "risks: ",
            "watch:\n    - ",
            "undo: ",
            "takes a restart",
            "rests on: 3 windows, 120 requests measured, 4000 simulated",
            "Left out\n  Store the KV cache as fp8: it may change answers",
            "Notes\n  no setting `max_batch`",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }

    #[test]
    fn what_is_not_predicted_says_why() {
        let mut answer = answer();
        let one = answer.optimizations.first_mut().unwrap();
        one.prediction = None;
        one.not_predictable_reason = "nothing was measured".to_owned();
        let page = render(&answer, false);
        assert!(
            page.contains("not predictable: nothing was measured"),
            "{page}"
        );
    }

    #[test]
    fn nothing_from_outside_controls_the_terminal() {
        let mut answer = answer();
        let bad = "x\u{1b}]0;y\u{7}".to_owned();
        answer.headline = bad.clone();
        answer.instance_id = bad.clone();
        answer.remarks = vec![bad.clone()];
        let one = answer.optimizations.first_mut().unwrap();
        one.title = bad.clone();
        one.watch = vec![bad.clone(), bad.clone()];
        one.changes.first_mut().unwrap().to_value = Some(bad.clone());
        answer.left_out.first_mut().unwrap().reason = bad;
        let page = render(&answer, false);
        assert!(!page.contains(|char: char| char.is_control() && char != '\n'));
    }
}
