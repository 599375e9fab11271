//! A page of metrics in the Prometheus text format, written as Python's client writes it.

use std::fmt::Write;

use super::histogram::Histogram;

/// Labels of a series, by name.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    /// Behind every value: the time at which it was true, in milliseconds of unix time.
    stamp: Option<i64>,
    style: Style,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `1.0`, as Python does.
    Python,
    /// `1`, as Rust does.
    Rust,
}

impl Page {
    pub(super) fn new(style: Style, stamp_unix_seconds: Option<f64>) -> Self {
        Self {
            text: String::with_capacity(64 << 10),
            // `as` saturates
            stamp: stamp_unix_seconds.map(|seconds| (seconds * 1e3).round() as i64),
            style,
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// What a family is. Writing to a string does not fail.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        if !help.is_empty() {
            let _ = writeln!(self.text, "# HELP {name} {help}");
        }
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: Labels, value: f64) {
        self.series(name, labels, None, value);
    }

    /// A family of one series.
    pub(super) fn single(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        labels: Labels,
        value: f64,
    ) {
        self.family(name, kind, help);
        self.sample(name, labels, value);
    }

    /// Buckets, count and sum of one series, in the order of the Python client.
    pub(super) fn histogram(&mut self, name: &str, labels: Labels, of: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, cumulative) in of.cumulative() {
            let bound = self.number(bound);
            self.series(&bucket, labels, Some(("le", &bound)), cumulative as f64);
        }
        self.sample(&format!("{name}_count"), labels, of.count() as f64);
        self.sample(&format!("{name}_sum"), labels, of.sum());
    }

    fn series(&mut self, name: &str, labels: Labels, extra: Option<(&str, &str)>, value: f64) {
        self.text += name;
        let mut all: Vec<(&str, &str)> = labels.iter().copied().chain(extra).collect();
        all.sort_unstable();
        for (at, (label, value)) in all.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for char in value.chars() {
                match char {
                    '\\' => self.text += "\\\\",
                    '"' => self.text += "\\\"",
                    '\n' => self.text += "\\n",
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !all.is_empty() {
            self.text.push('}');
        }
        let value = self.number(value);
        let _ = write!(self.text, " {value}");
        if let Some(stamp) = self.stamp {
            let _ = write!(self.text, " {stamp}");
        }
        self.text.push('\n');
    }

    fn number(&self, value: f64) -> String {
        if value == f64::INFINITY {
            return "+Inf".to_owned();
        }
        match self.style {
            Style::Rust => format!("{value}"),
            Style::Python => python(value),
        }
    }
}

/// `floatToGoString` of Python's client: the shortest digits, with an exponent from 1e6 on.
fn python(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-4 {
        let text = format!("{value:e}");
        return match text.split_once("e-") {
            Some((digits, exponent)) if exponent.len() == 1 => format!("{digits}e-0{exponent}"),
            _ => text,
        };
    }
    let text = format!("{value:?}");
    match text.split_once('.') {
        Some((whole, rest)) if value > 0.0 && whole.len() > 6 => {
            let (first, more) = whole.split_at(1);
            let mantissa = format!("{first}.{more}{rest}");
            let mantissa = mantissa.trim_end_matches(['0', '.']);
            format!("{mantissa}e+0{}", whole.len() - 1)
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_a_capture() {
        for (value, text) in [
            (0.0, "0.0"),
            (28.0, "28.0"),
            (1_163.0, "1163.0"),
            (9.472079301000122, "9.472079301000122"),
            (1_795_500_242.818_020_6, "1.7955002428180206e+09"),
            (4_821_118_976.0, "4.821118976e+09"),
            (0.000_622_446_000_193_122, "0.000622446000193122"),
            (0.000_05, "5e-05"),
        ] {
            assert_eq!(python(value), text);
        }
    }

    #[test]
    fn samples_say_their_time_where_they_have_one() {
        let mut page = Page::new(Style::Python, Some(1.5));
        page.single(
            "a",
            "gauge",
            "Of \"it\".",
            &[("z", "1"), ("b", "q\"\n")],
            2.0,
        );
        assert_eq!(
            page.finish(),
            "# HELP a Of \"it\".\n# TYPE a gauge\na{b=\"q\\\"\\n\",z=\"1\"} 2.0 1500\n"
        );
        let mut page = Page::new(Style::Rust, None);
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        histogram.observe(2.0);
        page.histogram("h", &[], &histogram);
        assert_eq!(
            page.finish(),
            "h_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 2\n"
        );
    }
}
