//! How SLOs were kept, for people.

use crate::edge::cli::table::number;
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// The answer as text.
pub(super) fn render(of: &pb::EvaluateSlosResponse, colour: bool) -> String {
    let mut words = vec![clean(&of.instance_id), clean(&of.instance_type)];
    words.extend(of.simulated.then(|| "SIMULATED".to_owned()));
    words.push(word(of.status(), 0, colour));
    let mut text = words.join("  ") + "\n";
    if let Some(window) = &of.window {
        text += &window_line(window);
    }
    if of.stale {
        text += "STALE: it has not been measured since; this is how it was\n";
    }
    if let Some(failure) = &of.last_failure {
        text += &format!("last scrape failed: {}\n", clean(&failure.message));
    }
    text.push('\n');
    for line in slo_lines(&of.slos, colour) {
        text += &format!("{line}\n");
    }
    if !of.error_budgets.is_empty() {
        text += "\nError budgets (burn rate; minutes of the window that are known)\n";
        for budget in &of.error_budgets {
            text += &budget_line(budget, colour);
        }
    }
    for note in &of.notes {
        text += &format!("\n{}  {}\n", clean(&note.code), clean(&note.message));
    }
    text
}

/// When it was, and how much of it counts.
pub(in crate::edge::cli) fn window_line(of: &pb::Window) -> String {
    let end = of.end_time.map(|at| at.to_string()).unwrap_or_default();
    let seconds = of.observed_seconds.unwrap_or_default();
    format!("{seconds:.1} s up to {end}, {} samples\n", of.samples)
}

/// Room for the longest status.
const WORD: usize = 14;
/// Room for a name; no SLO has a longer one.
const MAX_NAME: usize = 63;

/// A line for each SLO, and one for what would tell it.
pub(in crate::edge::cli) fn slo_lines(slos: &[pb::SloCompliance], colour: bool) -> Vec<String> {
    let name = |one: &pb::SloCompliance| {
        one.slo
            .as_ref()
            .map_or_else(String::new, |slo| clean(&slo.name))
    };
    let longest = slos.iter().map(|one| name(one).len()).max();
    let width = longest.unwrap_or(0).min(MAX_NAME);
    let mut lines = Vec::new();
    for one in slos {
        let status = word(one.status(), WORD, colour);
        let margin = margin(one);
        lines.push(format!(
            "  {:<width$}  {status}  {}{margin}",
            name(one),
            clean(&one.reason)
        ));
        if let Some(hint) = &one.hint {
            lines.push(format!("  {:<width$}  to tell it: {}", "", clean(hint)));
        }
    }
    lines
}

/// The score and what it is made of, in one line.
pub(in crate::edge::cli) fn health_line(health: &pb::HealthScore) -> String {
    use pb::health_deduction::Source;
    let deductions = health.deductions.iter().map(|one| {
        let source = match &one.source {
            Some(Source::Cause(cause)) => clean(cause),
            Some(Source::Slo(name)) => format!("SLO {}", clean(name)),
            None => clean(&one.reason),
        };
        format!("-{} {source}", one.points)
    });
    let deductions: Vec<String> = deductions.collect();
    match deductions.is_empty() {
        true => format!("health {} of 100", health.score),
        false => format!("health {} of 100: {}", health.score, deductions.join(", ")),
    }
}

fn word(status: pb::SloStatus, width: usize, colour: bool) -> String {
    let (word, ink) = match status {
        pb::SloStatus::Met => ("MET", "32"),
        pb::SloStatus::Violated => ("VIOLATED", "31"),
        pb::SloStatus::NotApplicable => ("NOT APPLICABLE", "36"),
        pb::SloStatus::Unknown | pb::SloStatus::Unspecified => ("UNKNOWN", "33"),
    };
    inked(&format!("{word:<width$}"), ink, colour)
}

fn inked(text: &str, ink: &str, colour: bool) -> String {
    match colour {
        true => format!("\u{1b}[{ink}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}

fn margin(of: &pb::SloCompliance) -> String {
    use pb::slo_compliance::Margin;
    let percent = |ratio: &f64| number(ratio * 100.0);
    match &of.margin {
        None => String::new(),
        Some(Margin::MarginRatio(ratio)) => format!(" (margin {} %)", percent(ratio)),
        Some(Margin::MarginAtMostRatio(ratio)) => format!(" (margin ≤ {} %)", percent(ratio)),
        Some(Margin::MarginAtLeastRatio(ratio)) => format!(" (margin ≥ {} %)", percent(ratio)),
    }
}

fn budget_line(of: &pb::ErrorBudget, colour: bool) -> String {
    let pairs = [of.fast.as_ref(), of.slow.as_ref()];
    let burns = pairs.into_iter().flatten().flat_map(|pair| {
        [pair.short.as_ref(), pair.long.as_ref()]
            .into_iter()
            .flatten()
            .map(|burn| {
                let window = match burn.window_minutes {
                    minutes if minutes % 60 == 0 => format!("{}h", minutes / 60),
                    minutes => format!("{minutes}m"),
                };
                let rate = burn.rate.map_or_else(|| "-".to_owned(), number);
                format!(
                    "{window} {rate} ({}/{})",
                    burn.covered_minutes, burn.window_minutes
                )
            })
    });
    let burns: Vec<String> = burns.collect();
    let left = of.left_ratio.map_or_else(
        || "-".to_owned(),
        |left| format!("{} %", number(left * 100.0)),
    );
    let firing = pairs
        .into_iter()
        .flatten()
        .any(|pair| pair.firing == Some(true));
    let firing = match firing {
        true => inked("  BURNING TOO FAST", "31", colour),
        false => String::new(),
    };
    format!(
        "  {}: {left} of 6h left; {}{firing}\n",
        clean(&of.slo),
        burns.join(", ")
    )
}
