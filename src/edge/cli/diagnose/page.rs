//! What was found, for somebody who was woken by it: the verdict, then each cause with what it rests on, what it costs
//! and what to do, its effects below it; then what could not be told.

use std::collections::HashSet;

use crate::edge::cli::slo::page::{health_line, slo_lines, window_line};
use crate::edge::cli::table::{duration, number};
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// The answer as text.
pub(super) fn render(of: &pb::DetectBottlenecksResponse, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    page.header(of);
    page.verdict(of);
    page.bottlenecks(&of.bottlenecks);
    page.slos(of);
    page.unclear(&of.unclear);
    page.notes(of);
    page.text
}

/// The verdict as people read it, and its colour.
pub(super) fn word_of(verdict: pb::DiagnosisVerdict) -> (&'static str, &'static str) {
    match verdict {
        pb::DiagnosisVerdict::Healthy => ("HEALTHY", "32"),
        pb::DiagnosisVerdict::Findings => ("FINDINGS", "31"),
        pb::DiagnosisVerdict::CannotTell => ("CANNOT TELL", "33"),
        pb::DiagnosisVerdict::Unspecified => ("UNKNOWN VERDICT", "33"),
    }
}

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, depth: usize, text: &str) {
        self.text += &"  ".repeat(depth);
        self.text += text;
        self.text.push('\n');
    }

    fn inked(&self, text: &str, ink: &str) -> String {
        match self.colour {
            true => format!("\u{1b}[{ink}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    fn heading(&mut self, text: &str) {
        let text = self.inked(text, "1");
        self.text.push('\n');
        self.line(0, &text);
    }

    fn header(&mut self, of: &pb::DetectBottlenecksResponse) {
        let mut words = vec![clean(&of.instance_id), clean(&of.instance_type)];
        words.extend(of.engine_version.as_deref().map(clean));
        words.extend(
            of.model_name
                .iter()
                .map(|name| format!("model {}", clean(name))),
        );
        words.extend(of.simulated.then(|| self.inked("SIMULATED", "35")));
        self.line(0, &words.join("  "));
        let Some(window) = &of.window else { return };
        self.text += &window_line(window);
        if of.stale {
            let stale = self.inked("STALE", "33");
            self.line(
                0,
                &format!("{stale}: it has not been measured since; this is how it was"),
            );
        }
        if let Some(failure) = &of.last_failure {
            self.line(
                0,
                &format!("last scrape failed: {}", clean(&failure.message)),
            );
        }
    }

    fn verdict(&mut self, of: &pb::DetectBottlenecksResponse) {
        let (word, ink) = word_of(of.verdict());
        let word = self.inked(word, &format!("1;{ink}"));
        self.text.push('\n');
        // the word says it
        let headline = clean(&of.headline);
        let headline = headline.strip_prefix("cannot tell: ").unwrap_or(&headline);
        self.line(0, &format!("{word}: {headline}"));
    }

    fn bottlenecks(&mut self, all: &[pb::Bottleneck]) {
        let is_there = |cause: &str| all.iter().any(|one| one.cause == cause);
        let mut shown = HashSet::new();
        // those that nothing here explains, and then whatever a circle of explanations has left
        for one in all {
            if !is_there(&one.explained_by) {
                self.with_effects(one, all, &mut shown, 0);
            }
        }
        for one in all {
            self.with_effects(one, all, &mut shown, 0);
        }
    }

    fn with_effects<'a>(
        &mut self,
        one: &'a pb::Bottleneck,
        all: &'a [pb::Bottleneck],
        shown: &mut HashSet<&'a str>,
        depth: usize,
    ) {
        if !shown.insert(&one.cause) {
            return;
        }
        self.bottleneck(one, depth);
        for effect in all.iter().filter(|other| other.explained_by == one.cause) {
            self.with_effects(effect, all, shown, depth + 1);
        }
    }

    fn bottleneck(&mut self, one: &pb::Bottleneck, depth: usize) {
        let (severity, ink) = match one.severity() {
            pb::Severity::Critical => ("CRITICAL", "1;31"),
            pb::Severity::High => ("HIGH", "31"),
            pb::Severity::Medium => ("MEDIUM", "33"),
            pb::Severity::Low => ("LOW", "36"),
            pb::Severity::Unspecified => ("-", "0"),
        };
        let kind = one
            .r#type()
            .as_str_name()
            .trim_start_matches("BOTTLENECK_TYPE_");
        let title = self.inked(&format!("{kind} / {}", clean(&one.cause)), "1");
        let severity = self.inked(severity, ink);
        let effect = match depth {
            0 if one.explained_by.is_empty() => String::new(),
            _ => format!("effect of {}: ", clean(&one.explained_by)),
        };
        self.text.push('\n');
        self.line(
            depth,
            &format!(
                "{effect}{title}  {severity}  confidence {:.2}",
                one.confidence
            ),
        );
        self.line(depth + 1, &clean(&one.description));
        if !one.evidence.is_empty() {
            self.line(depth + 1, "evidence:");
            for evidence in &one.evidence {
                self.line(depth + 2, &evidence_line(evidence));
            }
        }
        for cost in &one.costs {
            self.line(depth + 1, &format!("costs: {}", cost_text(cost)));
        }
        if !one.metrics_urls.is_empty() {
            let urls: Vec<String> = one.metrics_urls.iter().map(|url| clean(url)).collect();
            self.line(depth + 1, &format!("on: {}", urls.join(", ")));
        }
        let what = self.inked("what to do:", "1");
        self.line(depth + 1, &format!("{what} {}", clean(&one.recommendation)));
    }

    fn slos(&mut self, of: &pb::DetectBottlenecksResponse) {
        if let Some(health) = &of.health {
            self.text.push('\n');
            self.line(0, &health_line(health));
        }
        if of.slos.is_empty() {
            return;
        }
        self.heading("SLOs");
        for line in slo_lines(&of.slos, self.colour) {
            self.line(0, &line);
        }
    }

    fn unclear(&mut self, checks: &[pb::UnclearCheck]) {
        if checks.is_empty() {
            return;
        }
        self.heading("What could not be told");
        for check in checks {
            let (cause, missing) = (clean(&check.cause), clean(&check.missing));
            self.line(1, &format!("{cause}: {missing}: {}", clean(&check.reason)));
            if let Some(hint) = &check.hint {
                self.line(2, &format!("to tell it: {}", clean(hint)));
            }
        }
    }

    fn notes(&mut self, of: &pb::DetectBottlenecksResponse) {
        if of.notes.is_empty() {
            return;
        }
        self.heading("Notes");
        for note in &of.notes {
            let about = note.metrics_url.as_deref().map(clean);
            let about = about.map(|url| format!("{url}: ")).unwrap_or_default();
            let code = self.inked(&clean(&note.code), "33");
            self.line(1, &format!("{code}  {about}{}", clean(&note.message)));
        }
    }
}

fn evidence_line(of: &pb::Evidence) -> String {
    use pb::evidence::Bound;
    let shown = |value: f64| in_unit(&of.quantity, value);
    let value = match of.bound {
        Some(Bound::Value(value)) => shown(value),
        Some(Bound::AtMost(value)) => format!("≤ {}", shown(value)),
        Some(Bound::AtLeast(value)) => format!("≥ {}", shown(value)),
        None => "-".to_owned(),
    };
    let name = [clean(&of.quantity), clean(&of.statistic)].join(" ");
    let held = of.threshold.map(|threshold| {
        let name = match of.threshold_name.as_str() {
            "" => String::new(),
            name => format!("{} ", clean(name)),
        };
        let relation = match of.comparison() {
            pb::EvidenceComparison::AtLeast => "at or above ",
            pb::EvidenceComparison::Below => "below ",
            pb::EvidenceComparison::Unspecified => "beside ",
        };
        format!("{relation}{name}{}", shown(threshold))
    });
    let line = format!(
        "{:<40} {value:>12}  {}",
        name.trim_end(),
        held.unwrap_or_default()
    );
    line.trim_end().to_owned()
}

/// A value in the unit that its name says, as people read it.
fn in_unit(name: &str, value: f64) -> String {
    if name.ends_with("_per_second") {
        return format!("{}/s", number(value));
    }
    match name.rsplit_once('_') {
        Some((_, "seconds")) => duration(value),
        // of more than one, how many times reads better
        Some((_, "ratio")) if value > 1.0 => format!("{} times", number(value)),
        Some((_, "ratio")) => format!("{} %", number(value * 100.0)),
        _ => number(value),
    }
}

fn cost_text(of: &pb::BottleneckCost) -> String {
    let value = in_unit(&of.name, of.value);
    match of.name.as_str() {
        "ttft_seconds" => format!("{value} of the mean time to first token"),
        "itl_seconds" => format!("{value} between two tokens"),
        "tokens_per_second" => format!("{} generated tokens a second", number(of.value)),
        "failed_requests" => format!("{value} failed requests in the window"),
        other => format!("{value} {}", clean(other)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bottleneck(cause: &str, explained_by: &str) -> pb::Bottleneck {
        pb::Bottleneck {
            r#type: pb::BottleneckType::QueueBuildup.into(),
            cause: cause.to_owned(),
            severity: pb::Severity::High.into(),
            confidence: 0.9,
            description: "28 requests wait.".to_owned(),
            recommendation: "Raise --max-num-seqs.".to_owned(),
            explained_by: explained_by.to_owned(),
            ..pb::Bottleneck::default()
        }
    }

    fn rendered(bottlenecks: Vec<pb::Bottleneck>) -> String {
        let answer = pb::DetectBottlenecksResponse {
            verdict: pb::DiagnosisVerdict::Findings.into(),
            bottlenecks,
            ..pb::DetectBottlenecksResponse::default()
        };
        render(&answer, false)
    }

    #[test]
    fn effects_stand_below_their_cause_and_nothing_is_left_out() {
        let page = rendered(vec![
            bottleneck("A", ""),
            bottleneck("B", ""),
            bottleneck("C", "A"),
            bottleneck("D", "C"),
            bottleneck("E", "GONE"),
        ]);
        let titles: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("QUEUE_BUILDUP"))
            .map(|line| line.split("  HIGH").next().unwrap())
            .collect();
        assert_eq!(
            titles,
            [
                "QUEUE_BUILDUP / A",
                "  effect of A: QUEUE_BUILDUP / C",
                "    effect of C: QUEUE_BUILDUP / D",
                "QUEUE_BUILDUP / B",
                "effect of GONE: QUEUE_BUILDUP / E",
            ]
        );
        // whoever explains each other is shown once each
        let circle = rendered(vec![bottleneck("A", "B"), bottleneck("B", "A")]);
        assert_eq!(circle.matches("QUEUE_BUILDUP").count(), 2);
    }

    #[test]
    fn evidence_says_its_unit_and_what_it_was_held_against() {
        let evidence = |quantity: &str, bound, threshold: Option<f64>| {
            evidence_line(&pb::Evidence {
                quantity: quantity.to_owned(),
                statistic: "mean".to_owned(),
                bound: Some(bound),
                comparison: pb::EvidenceComparison::AtLeast.into(),
                threshold,
                threshold_name: "kv_full_ratio".to_owned(),
                ..pb::Evidence::default()
            })
        };
        use pb::evidence::Bound;
        let line = evidence("kv_cache_usage_ratio", Bound::Value(0.984), Some(0.9));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "kv_cache_usage_ratio mean 98.40 % at or above kv_full_ratio 90 %"
        );
        let line = evidence("time_to_first_token_seconds", Bound::AtLeast(2.5), None);
        assert!(line.ends_with("≥ 2.50 s"), "{line}");
    }

    #[test]
    fn nothing_from_outside_controls_the_terminal() {
        let mut one = bottleneck("A\u{1b}[2J", "B\u{9b}");
        one.description = "x\u{1b}]0;y\u{7}".to_owned();
        one.metrics_urls = vec!["http://a\u{1b}/".to_owned()];
        let page = rendered(vec![one]);
        assert!(!page.contains(|char: char| char.is_control() && char != '\n'));
    }
}
