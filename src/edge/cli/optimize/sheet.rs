//! A page about settings and predictions: its head, what is predicted, its notes.

use super::effect::{interval, name_of, shown};
use crate::edge::cli::instances_page::aligned;
use crate::edge::cli::slo::page::window_line;
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;

/// What stands above every answer about an instance.
pub(in crate::edge::cli) struct Header<'a> {
    pub(in crate::edge::cli) instance_id: &'a str,
    pub(in crate::edge::cli) instance_type: &'a str,
    pub(in crate::edge::cli) engine_version: Option<&'a str>,
    pub(in crate::edge::cli) simulated: bool,
    pub(in crate::edge::cli) window: Option<&'a pb::Window>,
    pub(in crate::edge::cli) stale: bool,
    pub(in crate::edge::cli) last_failure: Option<&'a pb::CollectFailure>,
}

macro_rules! header_of {
    ($($answer:ident)+) => {$(
        impl<'a> From<&'a pb::$answer> for Header<'a> {
            fn from(of: &'a pb::$answer) -> Self {
                Self {
                    instance_id: &of.instance_id,
                    instance_type: &of.instance_type,
                    engine_version: of.engine_version.as_deref(),
                    simulated: of.simulated,
                    window: of.window.as_ref(),
                    stale: of.stale,
                    last_failure: of.last_failure.as_ref(),
                }
            }
        }
    )+};
}

header_of!(RecommendOptimizationsResponse PredictPerformanceResponse GetInstanceConfigResponse);

/// A page that grows line by line.
pub(in crate::edge::cli) struct Page {
    pub(in crate::edge::cli) text: String,
    pub(in crate::edge::cli) colour: bool,
}

impl Page {
    pub(in crate::edge::cli) fn new(colour: bool) -> Self {
        Self {
            text: String::new(),
            colour,
        }
    }

    pub(in crate::edge::cli) fn line(&mut self, depth: usize, text: &str) {
        self.text += &"  ".repeat(depth);
        self.text += text;
        self.text.push('\n');
    }

    pub(in crate::edge::cli) fn inked(&self, text: &str, ink: &str) -> String {
        match self.colour {
            true => format!("\u{1b}[{ink}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub(in crate::edge::cli) fn heading(&mut self, text: &str) {
        let text = self.inked(text, "1");
        self.text.push('\n');
        self.line(0, &text);
    }

    /// A word and what it says.
    pub(in crate::edge::cli) fn said(&mut self, word: &str, text: &str) {
        let word = self.inked(&format!("{word}:"), "1");
        self.line(1, &format!("{word} {}", clean(text)));
    }

    /// A word and what it says, each on a line of its own where there are several.
    pub(in crate::edge::cli) fn listed(&mut self, word: &str, texts: &[String]) {
        match texts {
            [] => {}
            [only] => self.said(word, only),
            several => {
                let word = self.inked(&format!("{word}:"), "1");
                self.line(1, &word);
                for text in several {
                    self.line(2, &format!("- {}", clean(text)));
                }
            }
        }
    }

    pub(in crate::edge::cli) fn header(&mut self, of: &Header<'_>) {
        let mut words = vec![clean(of.instance_id), clean(of.instance_type)];
        words.extend(of.engine_version.map(clean));
        words.extend(of.simulated.then(|| self.inked("SIMULATED", "35")));
        self.line(0, &words.join("  "));
        if let Some(window) = of.window {
            self.text += &window_line(window);
        }
        if of.stale {
            let stale = self.inked("STALE", "33");
            let line = format!("{stale}: it has not been measured since; this is how it was");
            self.line(0, &line);
        }
        if let Some(failure) = of.last_failure {
            let line = format!("last scrape failed: {}", clean(&failure.message));
            self.line(0, &line);
        }
    }

    /// What is predicted, a line a quantity, and what that rests on.
    pub(in crate::edge::cli) fn effect(&mut self, of: Option<&pb::Prediction>, reason: &str) {
        let Some(of) = of else {
            return self.said("not predictable", reason);
        };
        let word = self.inked("predicted (90 % interval):", "1");
        self.line(1, &word);
        let rows: Vec<[String; 4]> = of.quantities.iter().map(row).collect();
        for line in aligned(&rows).lines() {
            self.line(2, line);
        }
        for one in &of.unpredicted {
            let name = name_of(&one.quantity, &one.statistic);
            self.line(2, &format!("{name}: not predicted: {}", clean(&one.reason)));
        }
        if let Some(basis) = &of.basis {
            self.basis(basis);
        }
    }

    fn basis(&mut self, of: &pb::PredictionBasis) {
        let mut told = vec![
            counted(f64::from(of.windows), "window"),
            format!("{} measured", counted(of.observed_requests, "request")),
            format!("{} simulated", of.simulated_requests),
            format!(
                "the model misses what was measured by {:.0} %",
                of.mismatch_ratio * 100.0
            ),
        ];
        told.push(match of.track_record {
            0 => "no prediction of this lever has been held against a change yet".to_owned(),
            kept => format!(
                "{} of this lever so far",
                counted(f64::from(kept), "prediction")
            ),
        });
        self.said("rests on", &told.join(", "));
        self.listed("assumed", &of.assumptions);
    }

    /// What a reader must know.
    pub(in crate::edge::cli) fn remarks(&mut self, remarks: &[String], notes: &[pb::Note]) {
        if remarks.is_empty() && notes.is_empty() {
            return;
        }
        self.heading("Notes");
        for remark in remarks {
            self.line(1, &clean(remark));
        }
        for note in notes {
            let about = note.metrics_url.as_deref().map(clean);
            let about = about.map(|url| format!("{url}: ")).unwrap_or_default();
            let code = self.inked(&clean(&note.code), "33");
            self.line(1, &format!("{code}  {about}{}", clean(&note.message)));
        }
    }
}

fn row(of: &pb::QuantityPrediction) -> [String; 4] {
    let change = format!(
        "{} → {}",
        shown(&of.quantity, of.before),
        shown(&of.quantity, of.after)
    );
    [
        name_of(&of.quantity, &of.statistic),
        change,
        format!("({})", interval(of)),
        times(of.ratio),
    ]
}

/// After over before: `1.9 times`, and where hardly anything is left `1/520`.
pub(in crate::edge::cli) fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio > 0.0 && ratio < 0.095 => format!("1/{:.0}", 1.0 / ratio),
        ratio => format!("{ratio:.2} times"),
    }
}

fn counted(number: f64, one: &str) -> String {
    match number {
        1.0 => format!("1 {one}"),
        _ => format!("{number:.0} {one}s"),
    }
}

/// A change of one setting.
pub(in crate::edge::cli) fn change(of: &pb::KnobChange) -> String {
    let from = of.from_value.as_deref().map_or("not set".to_owned(), clean);
    let to = of.to_value.as_deref().map_or("not set".to_owned(), clean);
    let name = match of.flag.is_empty() {
        true => clean(&of.name),
        false => clean(&of.flag),
    };
    format!("{name} {from} → {to}")
}
