//! Metrics text → borrowed samples.
//!
//! Reads Prometheus text 0.0.4 and 1.0.0 and OpenMetrics 1.0, told apart by the body itself (`# EOF`), never by a
//! header: engines and proxies send the wrong ones. Samples borrow from the body and are handed to a [`Sink`] one
//! by one; nothing is allocated per sample.
//!
//! A family's TYPE decides what a sample is. Suffixes alone do not: `vllm:iteration_tokens_total` is a histogram,
//! TGI's counters lack `_total`, and SGLang has gauges with an `le` label.
//!
//! ```
//! use perfagent::exposition::{Family, Options, Sample, Sink, parse};
//!
//! struct Print;
//! impl<'a> Sink<'a> for Print {
//!     fn family(&mut self, family: &Family<'a>) {
//!         println!("{} is a {:?}", family.name.get(), family.kind);
//!     }
//!     fn sample(&mut self, _: &Family<'a>, sample: &Sample<'_, 'a>) {
//!         println!("{:?} = {}", sample.role, sample.value);
//!     }
//! }
//! let body = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} 3\n";
//! let report = parse(body.as_bytes(), &Options::default(), &mut Print)?;
//! assert_eq!(report.samples, 1);
//! # Ok::<(), perfagent::exposition::ParseError>(())
//! ```
#![deny(clippy::indexing_slicing)]

mod error;
mod labels;
mod line;
mod number;
mod parser;
#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod properties;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests;

use std::borrow::Cow;

pub use error::{ParseError, Reason};
pub use parser::parse;

/// Receives what a body contains, in its order.
pub trait Sink<'a> {
    /// The samples that follow belong to this family. Called again when a body returns to an earlier family.
    fn family(&mut self, family: &Family<'a>);

    /// One sample of that family.
    fn sample(&mut self, family: &Family<'a>, sample: &Sample<'_, 'a>);

    /// HELP or UNIT of a metric. Most callers need neither.
    fn describe(&mut self, _name: Text<'a>, _description: Description<'a>) {}
}

/// Text for people about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Description<'a> {
    /// The HELP line.
    Help(Text<'a>),
    /// The UNIT line.
    Unit(&'a str),
}

/// A metric family: what one TYPE line covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family<'a> {
    /// Name as the TYPE line has it: of a counter with `_total` in the Prometheus format, without in OpenMetrics.
    pub name: Text<'a>,
    /// Type; [`Kind::Unknown`] where no TYPE line covers the sample.
    pub kind: Kind,
}

impl<'a> Family<'a> {
    /// The name by which both formats agree: a counter without `_total`, all others as they stand.
    pub fn base_name(&self) -> &'a str {
        match self.kind {
            Kind::Counter => self
                .name
                .raw
                .strip_suffix("_total")
                .unwrap_or(self.name.raw),
            _ => self.name.raw,
        }
    }
}

/// Type of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only rises, but for restarts.
    Counter,
    /// An instant.
    Gauge,
    /// Cumulative buckets.
    Histogram,
    /// Cumulative buckets that may fall.
    GaugeHistogram,
    /// Quantiles over a rolling window.
    Summary,
    /// Labels are the message, the value is 1.
    Info,
    /// One series a state.
    StateSet,
    /// `untyped`, `unknown`, or no TYPE line.
    Unknown,
}

impl Kind {
    /// The word of the TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }
}

/// What one sample is within its family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// The value of a counter, gauge, info, state or untyped series.
    Value,
    /// Observations up to and including the bound.
    Bucket {
        /// Upper bound, in the family's unit.
        le: f64,
    },
    /// A quantile that the engine computed.
    Quantile {
        /// Between 0 and 1.
        q: f64,
    },
    /// Sum of all observations.
    Sum,
    /// Number of observations.
    Count,
    /// Unix time in seconds at which the series was created.
    Created,
}

/// One sample.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'s, 'a> {
    /// Name as it stands on the line.
    pub name: Text<'a>,
    /// What it is within its family.
    pub role: Role,
    /// Labels in the body's order, `le` and `quantile` included.
    pub labels: &'s [Label<'a>],
    /// Labels are those of the sample before, but for `le` or `quantile`: what was derived from them still holds.
    pub same_labels: bool,
    /// The value.
    pub value: f64,
    /// Unix time in seconds, where the body gives one.
    pub timestamp_seconds: Option<f64>,
    /// The exemplar, where OpenMetrics gives one.
    pub exemplar: Option<Exemplar<'s, 'a>>,
}

impl<'a> Sample<'_, 'a> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<Text<'a>> {
        self.labels
            .iter()
            .find(|label| label.name.is(name))
            .map(|label| label.value)
    }
}

/// An exemplar: one observation with the labels that lead to its trace.
#[derive(Debug, Clone, Copy)]
pub struct Exemplar<'s, 'a> {
    /// Labels, such as `trace_id`.
    pub labels: &'s [Label<'a>],
    /// The observed value.
    pub value: f64,
    /// Unix time in seconds.
    pub timestamp_seconds: Option<f64>,
}

/// One label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// Name.
    pub name: Text<'a>,
    /// Value.
    pub value: Text<'a>,
}

/// Text as it stands in the body, with the escapes still in it.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    fn plain(raw: &'a str) -> Self {
        Self {
            raw,
            escaped: false,
        }
    }

    /// The text with its escapes resolved; allocates only where there are any.
    pub fn get(self) -> Cow<'a, str> {
        if self.escaped && self.raw.contains('\\') {
            Cow::Owned(unescape(self.raw))
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// Whether the text is this one.
    pub fn is(self, other: &str) -> bool {
        if self.escaped {
            unescape(self.raw) == other
        } else {
            self.raw == other
        }
    }

    /// The text, if it needs no unescaping. Numbers, ranks and reasons never do.
    pub fn as_plain(self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.escaped, other.escaped) {
            (false, false) => self.raw == other.raw,
            _ => self.get() == other.get(),
        }
    }
}

impl Eq for Text<'_> {}

fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other @ ('\\' | '"')) => out.push(other),
                // HELP of the Prometheus format knows no `\"`: the backslash stands for itself
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

/// How to read a body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What a bad line does.
    pub mode: Mode,
    /// Bounds.
    pub limits: Limits,
}

/// What a bad line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It ends the parse with an error.
    #[default]
    Strict,
    /// It is counted, reported and passed over.
    Lenient,
}

/// Bounds, each with its own [`Reason`]. Those on the body end the parse in either mode.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Lines of a body.
    pub lines: u64,
    /// Bytes of a line.
    pub line_bytes: usize,
    /// Labels of a sample.
    pub labels: usize,
    /// Bytes of a metric or label name.
    pub name_bytes: usize,
    /// Bytes of a label value.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            lines: 1_000_000,
            line_bytes: 1 << 20,
            labels: 64,
            name_bytes: 1 << 10,
            value_bytes: 4 << 10,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Format, as the body showed it.
    pub format: Format,
    /// Lines, blank ones and comments included.
    pub lines: u64,
    /// Samples handed to the sink.
    pub samples: u64,
    /// Lines that were passed over ([`Mode::Lenient`]).
    pub bad_lines: u64,
    /// The first of them, at most [`Report::ERRORS_KEPT`].
    pub errors: Vec<ParseError>,
}

impl Report {
    /// How many errors a report keeps in full.
    pub const ERRORS_KEPT: usize = 8;
}

/// Text format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus text: timestamps in milliseconds.
    #[default]
    Prometheus,
    /// OpenMetrics: ends with `# EOF`, timestamps in seconds.
    OpenMetrics,
}
