//! A measurement for people: what matters first, with units, and what the numbers are worth.

use std::fmt::Write;

use super::terminal::clean;
use crate::edge::grpc::pb;
use crate::engine::Quantity;

/// The measurement as text.
pub(super) fn render(measurement: &pb::Measurement, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    page.header(measurement);
    page.load(measurement);
    let empty = pb::Figures::default();
    let figures = measurement.figures.as_ref().unwrap_or(&empty);
    page.latencies(figures);
    page.more(figures);
    page.replicas(measurement);
    page.settings(measurement);
    page.notes(measurement);
    page.legend();
    page.text
}

struct Page {
    text: String,
    colour: bool,
}

/// Shown in their own place, or repeated by others.
const SHOWN_ABOVE: [&str; 3] = [
    "generation_tokens_per_second",
    "prompt_tokens_per_second",
    "requests_finished_per_second",
];

impl Page {
    fn line(&mut self, text: &str) {
        self.text += text;
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        if self.colour {
            self.line(&format!("\u{1b}[1m{text}\u{1b}[0m"));
        } else {
            self.line(text);
        }
    }

    fn row(&mut self, name: &str, value: &str) {
        self.line(&format!("  {name:<28} {value}"));
    }

    fn header(&mut self, of: &pb::Measurement) {
        let version = of.engine_version.as_deref().map(clean);
        let mut first = format!("{}  {}", clean(&of.instance_id), clean(&of.instance_type));
        if let Some(version) = version {
            let _ = write!(first, " {version}");
        }
        if let Some(model) = &of.model_name {
            let _ = write!(first, "  model {}", clean(model));
        }
        if of.simulated {
            first += "  SIMULATED";
        }
        self.line(&first);
        let Some(window) = &of.window else { return };
        let time =
            |at: &Option<prost_types::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        if window.kind == pb::WindowKind::SinceStart as i32 {
            self.line(&format!(
                "totals since the engine's start, at {}; no rates",
                time(&window.end_time)
            ));
        } else {
            let observed = window.observed_seconds.unwrap_or(0.0);
            let length = seconds_between(window.start_time, window.end_time);
            let counted = match length {
                _ if observed <= 0.0 => "no interval counts, see the notes".to_owned(),
                Some(length) if observed < 0.99 * length => {
                    format!("{observed:.1} s of {length:.1} s count, see the notes")
                }
                _ => format!("{observed:.1} s"),
            };
            self.line(&format!(
                "{} to {}: {counted}, {} samples",
                time(&window.start_time),
                time(&window.end_time),
                window.samples
            ));
        }
    }

    fn load(&mut self, of: &pb::Measurement) {
        self.heading("Load");
        let throughput = of.throughput_metrics.unwrap_or_default();
        let gpu = of.gpu_metrics.unwrap_or_default();
        let requests = of.request_metrics.unwrap_or_default();
        let figures = of.figures.as_ref();
        let value = |name: &str| exact_value(figures?, name);
        // why a value is not there, by the quantity that it is of
        let why = |quantity: Quantity| {
            let found = figures?
                .absent
                .iter()
                .find(|one| one.name == quantity.name())?;
            Some(format!("- ({})", clean(&found.reason)))
        };
        let shown = |value: Option<f64>, unit: &str, of: Quantity| match value {
            Some(value) => format!("{} {unit}", number(value)),
            None => why(of).unwrap_or_else(|| "-".to_owned()),
        };
        let rates =
            throughput.tokens_per_second.is_some() || throughput.requests_per_second.is_some();
        if rates {
            self.row(
                "generated",
                &shown(
                    throughput.tokens_per_second,
                    "tokens/s",
                    Quantity::GenerationTokens,
                ),
            );
            self.row(
                "prompts",
                &shown(
                    value("prompt_tokens_per_second"),
                    "tokens/s",
                    Quantity::PromptTokens,
                ),
            );
            self.row(
                "finished",
                &shown(
                    throughput.requests_per_second,
                    "requests/s",
                    Quantity::RequestsFinished,
                ),
            );
        }
        self.row(
            "running",
            &shown(
                gpu.num_requests_running,
                "requests",
                Quantity::RequestsRunning,
            ),
        );
        self.row(
            "waiting",
            &shown(
                gpu.num_requests_waiting,
                "requests",
                Quantity::RequestsWaiting,
            ),
        );
        self.row(
            "KV cache in use",
            &shown(gpu.cache_usage_perc, "%", Quantity::KvCacheUsage),
        );
        self.row(
            "succeeded since start",
            &shown(
                requests.success_total,
                "requests",
                Quantity::RequestsSucceeded,
            ),
        );
        self.row(
            "failed since start",
            &shown(
                requests.failure_total,
                "requests",
                Quantity::RequestsErrored,
            ),
        );
        self.row(
            "generated since start",
            &shown(
                throughput.generation_tokens_total,
                "tokens",
                Quantity::GenerationTokens,
            ),
        );
    }

    fn latencies(&mut self, figures: &pb::Figures) {
        self.heading("Distributions");
        self.line(&format!(
            "  {:<28} {:>8} {:>11} {:>11} {:>11} {:>11}",
            "", "count", "mean", "p50", "p90", "p99"
        ));
        let mut shown: Vec<&pb::Distribution> = figures.distributions.iter().collect();
        // in the order of the quantities
        shown.sort_by_key(|one| Quantity::from_name(&one.name));
        for one in shown {
            let seconds = one.name.ends_with("_seconds");
            let format = |value: f64| {
                if seconds {
                    duration(value)
                } else {
                    number(value)
                }
            };
            let at = |q: f64| {
                let found = one.quantiles.iter().find(|known| known.quantile == q);
                found.and_then(|found| found.bound).map_or_else(
                    || "-".to_owned(),
                    |bound| match bound {
                        pb::quantile::Bound::Value(value) => format(value),
                        pb::quantile::Bound::AtMost(value) => format!("≤ {}", format(value)),
                        pb::quantile::Bound::AtLeast(value) => format!("≥ {}", format(value)),
                    },
                )
            };
            let mean = one.mean.map_or_else(|| "-".to_owned(), format);
            let mark = if one.basis == pb::Basis::Approximate as i32 {
                "~"
            } else {
                ""
            };
            self.line(&format!(
                "  {:<28} {:>8} {:>11} {:>11} {:>11} {:>11}",
                format!("{mark}{}", one.name.trim_end_matches("_seconds")),
                one.count.map_or_else(|| "-".to_owned(), number),
                mean,
                at(0.5),
                at(0.9),
                at(0.99)
            ));
        }
    }

    /// Rates and ratios that are not zero; everything is in the JSON.
    fn more(&mut self, figures: &pb::Figures) {
        let rows: Vec<(String, String)> = figures
            .quantities
            .iter()
            .filter(|one| one.name.ends_with("_per_second") || one.name.ends_with("_ratio"))
            .filter(|one| !SHOWN_ABOVE.contains(&one.name.as_str()))
            .filter_map(|one| {
                let Some(pb::quantity::Bound::Value(value)) = one.bound else {
                    return None;
                };
                let mark = if one.basis == pb::Basis::Approximate as i32 {
                    "~"
                } else {
                    ""
                };
                (value != 0.0).then(|| {
                    let (name, unit) = match one.name.strip_suffix("_per_second") {
                        Some(name) => (name, "/s"),
                        None => (one.name.as_str(), ""),
                    };
                    (format!("{mark}{name}"), format!("{}{unit}", number(value)))
                })
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        self.heading("Rates and ratios that are not zero");
        for (name, value) in rows {
            self.row(&name, &value);
        }
    }

    fn replicas(&mut self, of: &pb::Measurement) {
        if of.replicas.len() < 2 {
            return;
        }
        self.heading("Replicas");
        self.line(&format!(
            "  {:<40} {:>10} {:>9} {:>9} {:>8}",
            "", "tokens/s", "running", "waiting", "KV %"
        ));
        for replica in &of.replicas {
            let url = clean(&replica.metrics_url);
            if let Some(failure) = &replica.failure {
                self.line(&format!("  {url:<40} {}, see the notes", failure.reason));
                continue;
            }
            let figures = replica.figures.as_ref();
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
            let level = |name: &str| {
                let gauge = figures?.gauges.iter().find(|gauge| gauge.name == name)?;
                gauge.mean
            };
            self.line(&format!(
                "  {url:<40} {:>10} {:>9} {:>9} {:>8}",
                cell(
                    figures
                        .and_then(|figures| exact_value(figures, "generation_tokens_per_second"))
                ),
                cell(level("requests_running")),
                cell(level("requests_waiting")),
                cell(level("kv_cache_usage_ratio").map(|ratio| ratio * 100.0))
            ));
        }
    }

    fn settings(&mut self, of: &pb::Measurement) {
        if of.settings.iter().all(|setting| setting.value.is_none()) {
            return;
        }
        self.heading("Settings in force");
        for setting in &of.settings {
            if let Some(value) = &setting.value {
                self.row(
                    &clean(&setting.name),
                    &format!("{:<16} from {}", clean(value), clean(&setting.source)),
                );
            }
        }
    }

    fn notes(&mut self, of: &pb::Measurement) {
        if of.notes.is_empty() {
            return;
        }
        self.heading("Notes");
        for note in &of.notes {
            let about = note
                .metrics_url
                .as_deref()
                .filter(|_| of.replicas.len() > 1)
                .map(|url| format!("{}: ", clean(url)))
                .unwrap_or_default();
            let code = if self.colour {
                format!("\u{1b}[33m{}\u{1b}[0m", note.code)
            } else {
                note.code.clone()
            };
            self.line(&format!("  {code}  {about}{}", clean(&note.message)));
        }
    }
}

impl Page {
    /// What the marks mean, where there are any.
    fn legend(&mut self) {
        let marks = [
            ("~", "~ stands in for the quantity, or is a little off"),
            (
                "≤",
                "≤ the value lies in the first bucket: only its bound is known",
            ),
            ("≥", "≥ the value lies beyond the last bound"),
        ];
        let shown: Vec<&str> = marks
            .iter()
            .filter(|(mark, _)| self.text.contains(mark))
            .map(|(_, meaning)| *meaning)
            .collect();
        let quantiles = "p50, p90 and p99 are interpolated within the engine's buckets";
        let text = [&[quantiles][..], &shown].concat().join("; ");
        self.line(&format!("\n{text}"));
    }
}

fn seconds_between(
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Option<f64> {
    let seconds = |at: prost_types::Timestamp| at.seconds as f64 + f64::from(at.nanos) / 1e9;
    Some(seconds(end?) - seconds(start?))
}

fn exact_value(figures: &pb::Figures, name: &str) -> Option<f64> {
    let found = figures.quantities.iter().find(|one| one.name == name)?;
    match found.bound? {
        pb::quantity::Bound::Value(value) => Some(value),
        _ => None,
    }
}

/// Three figures that count, without an exponent.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == value.trunc() || size >= 1_000.0 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// Seconds in the unit that reads best.
pub(super) fn duration(seconds: f64) -> String {
    let size = seconds.abs();
    if size == 0.0 {
        "0 s".to_owned()
    } else if size < 0.001 {
        format!("{:.1} µs", seconds * 1e6)
    } else if size < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_well() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(447.871), "447.9");
        assert_eq!(number(12_345.6), "12346");
        assert_eq!(number(0.01234), "0.0123");
        assert_eq!(duration(0.0095), "9.5 ms");
        assert_eq!(duration(3.7842), "3.78 s");
        assert_eq!(duration(0.00045), "450.0 µs");
        assert_eq!(duration(0.0), "0 s");
    }
}
