//! How the targets with a change stand against the others, for people.

use super::page::Told;
use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::optimize::sheet::Page;
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

impl Page {
    /// How the change goes out, where it does part by part.
    pub(super) fn canary(&mut self, plan: &pb::WorkflowPlan) {
        let Some(canary) = &plan.canary else {
            return;
        };
        let steps: Vec<String> = canary.steps.iter().map(u32::to_string).collect();
        let observed = canary.observe.map_or(0, |time| time.seconds);
        let gate = match (canary.gate_before_rollout, canary.gate_each_step) {
            (_, true) => "; an approval after each step",
            (true, false) => "; an approval after the first",
            (false, false) => "",
        };
        let text = format!(
            "{} of {} targets; each step is held against the rest for {observed} s{gate}",
            steps.join(", then "),
            plan.targets.len()
        );
        self.said("goes out to", &text);
    }

    /// What is said of each part that was observed.
    pub(super) fn verdicts(&mut self, told: &Told<'_>) {
        for verdict in &told.of.verdicts {
            self.heading(&format!(
                "Part {}: {} at look {} of {}",
                verdict.step.saturating_add(1),
                clean(&verdict.verdict),
                verdict.look,
                verdict.looks
            ));
            self.line(1, &clean(&verdict.reason));
            for line in quantities(verdict).lines() {
                self.line(1, line);
            }
        }
    }
}

/// With the change beside without it, a line a quantity.
fn quantities(of: &pb::WorkflowVerdict) -> String {
    if of.quantities.is_empty() {
        return String::new();
    }
    let head = ["", "WITH", "WITHOUT", "DIFFERENCE", "INTERVALS", ""];
    let rows: Vec<[String; 6]> = std::iter::once(head.map(str::to_owned))
        .chain(of.quantities.iter().map(row))
        .collect();
    aligned(&rows)
}

fn row(of: &pb::WorkflowQuantityVerdict) -> [String; 6] {
    let is_share = of.quantity.ends_with("_BEYOND") || of.quantity.ends_with("_SHARE");
    let is_rate = of.quantity.ends_with("_PER_SECOND");
    let value = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(share) if is_share => format!("{:.2} %", share * 100.0),
        Some(rate) if is_rate => format!("{rate:.1}/s"),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1_000.0),
        Some(seconds) => format!("{seconds:.2} s"),
    };
    let points = |part: f64| format!("{:+.2}", part * 100.0);
    let difference = match (is_share, of.difference, of.effect_ratio) {
        (true, Some(difference), _) => {
            let bounds = of.difference_low.zip(of.difference_high);
            let bounds =
                bounds.map(|(low, high)| format!(" ({} to {})", points(low), points(high)));
            format!(
                "{} points{}",
                points(difference),
                bounds.unwrap_or_default()
            )
        }
        (false, _, Some(ratio)) => {
            let bounds = of.effect_ratio_low.zip(of.effect_ratio_high);
            let bounds = bounds.map(|(low, high)| format!(" (×{low:.2} to {high:.2})"));
            format!("×{ratio:.2}{}", bounds.unwrap_or_default())
        }
        _ => "-".to_owned(),
    };
    let word = match of.enforced {
        true => clean(&of.verdict),
        false => format!("{} (only shown)", clean(&of.verdict)),
    };
    [
        clean(&of.quantity).to_lowercase().replace('_', " "),
        value(of.canary),
        value(of.control),
        difference,
        of.intervals.to_string(),
        word,
    ]
}
