//! Counters and histograms, each with the gauge that says since when it counts.

use crate::simulator::histogram::Histogram;
use crate::simulator::page::Page;

pub(super) struct Families<'a> {
    pub(super) page: &'a mut Page,
    pub(super) model: &'a str,
    pub(super) created: f64,
}

const ENGINE: (&str, &str) = ("engine", "0");

impl Families<'_> {
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let labels = [ENGINE, ("model_name", self.model)];
        let (total, created) = (format!("{name}_total"), format!("{name}_created"));
        self.page
            .single(&total, "counter", help, &labels, value as f64);
        self.page
            .single(&created, "gauge", help, &labels, self.created);
    }

    /// One series for each value of a label.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.series(name, help, &[ENGINE], label, values);
    }

    pub(super) fn series(
        &mut self,
        name: &str,
        help: &str,
        engine: &[(&str, &str)],
        label: &str,
        values: &[(&str, u64)],
    ) {
        let labels = |value| [engine, &[("model_name", self.model), (label, value)]].concat();
        let (total, created) = (format!("{name}_total"), format!("{name}_created"));
        self.page.family(&total, "counter", help);
        for (value, count) in values {
            self.page.sample(&total, &labels(value), *count as f64);
        }
        self.page.family(&created, "gauge", help);
        for (value, _) in values {
            self.page.sample(&created, &labels(value), self.created);
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, of: &Histogram) {
        let labels = [ENGINE, ("model_name", self.model)];
        self.page.family(name, "histogram", help);
        self.page.histogram(name, &labels, of);
        self.page.single(
            &format!("{name}_created"),
            "gauge",
            help,
            &labels,
            self.created,
        );
    }
}
