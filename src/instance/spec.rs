//! What an operator says of an instance, checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::launch_args::{LaunchArgs, launch_args_violations};
use super::slos::slo_violations;
use super::target::{Target, shortened};
use super::violation::FieldViolation;
use crate::analysis::Slo;
use crate::engine::Registry;

/// What an operator says of an instance.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSpec {
    /// Its id.
    pub instance_id: String,
    /// Engine; none means that it is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// One URL a replica.
    pub metrics_urls: Vec<String>,
    /// Time between scrapes.
    #[serde(with = "humantime_serde")]
    pub scrape_interval: Duration,
    /// How far back a measurement reaches.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// What the operator tells instances apart by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What its users were promised; empty for what the agent's operator set, or the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<Slo>,
    /// Launch arguments that the operator says the engine runs with. Values are kept of those that set knobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launch_args: Vec<String>,
    /// Name of the actuator that reads and writes its settings; none where plans are not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actuator: Option<String>,
}

/// Time between scrapes where none is given.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);
/// How far back a measurement reaches where nothing is given.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// Shortest and longest time between scrapes.
pub const INTERVALS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));
/// Longest window.
pub const MAX_WINDOW: Duration = Duration::from_secs(300);
/// Most intervals of a window: bounds the samples that are kept.
pub const MAX_INTERVALS: u32 = 60;
/// Most labels.
pub const MAX_LABELS: usize = 32;
const MAX_LABEL_NAME: usize = 63;
const MAX_LABEL_VALUE_BYTES: usize = 255;

/// The window where none is given: a minute, or as much more or less as the interval asks for.
pub fn default_window(interval: Duration) -> Duration {
    let least = interval.saturating_mul(4).min(MAX_WINDOW).max(interval);
    let most = interval.saturating_mul(MAX_INTERVALS);
    DEFAULT_WINDOW.max(least).min(most)
}

impl InstanceSpec {
    /// The target that it is measured as.
    pub fn target(&self) -> Target {
        Target {
            instance_id: self.instance_id.clone(),
            engine: self.instance_type.clone(),
            metrics_urls: self.metrics_urls.clone(),
        }
    }

    /// Whether another names the same engine at the same places, whatever else they say.
    pub fn is_target_of(&self, other: &Self) -> bool {
        let engine = other.instance_type.is_none() || self.instance_type == other.instance_type;
        engine && self.metrics_urls == other.metrics_urls
    }

    /// Everything that is wrong with it.
    pub fn violations(&self, registry: &Registry) -> Vec<FieldViolation> {
        let mut found = self.target().violations(registry);
        let (shortest, longest) = INTERVALS;
        let interval = self.scrape_interval;
        if !(shortest..=longest).contains(&interval) {
            let description = format!(
                "{} is not from {} to {}",
                show(interval),
                show(shortest),
                show(longest)
            );
            found.push(FieldViolation::new("scrape_interval", description));
        } else if self.window < interval {
            let description = format!(
                "{} is shorter than scrape_interval, {}: no two samples would fall into it",
                show(self.window),
                show(interval)
            );
            found.push(FieldViolation::new("window", description));
        } else if self.window > MAX_WINDOW || self.window > interval * MAX_INTERVALS {
            let description = format!(
                "{} is longer than {} or than {MAX_INTERVALS} times scrape_interval",
                show(self.window),
                show(MAX_WINDOW)
            );
            found.push(FieldViolation::new("window", description));
        }
        found.extend(label_violations(&self.labels));
        found.extend(slo_violations("slos", &self.slos));
        found.extend(launch_args_violations(&self.launch_args));
        found
    }

    /// Takes values out of the declared launch arguments that set no knob: they may be secret.
    pub fn hide_launch_args(&mut self, registry: &Registry) {
        let engine = self.instance_type.as_deref();
        self.launch_args = LaunchArgs::of(&self.launch_args, engine, registry).kept;
    }
}

/// What is wrong with labels, of an instance or of a selection.
pub fn label_violations(labels: &BTreeMap<String, String>) -> Vec<FieldViolation> {
    if labels.len() > MAX_LABELS {
        let description = format!("{} labels; at most {MAX_LABELS}", labels.len());
        return vec![FieldViolation::new("labels", description)];
    }
    let wrong = |(name, value): (&String, &String)| {
        let of_name = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
        let description = if name.is_empty()
            || name.len() > MAX_LABEL_NAME
            || !name.chars().all(of_name)
        {
            format!("names have 1 to {MAX_LABEL_NAME} letters, digits, `_`, `-`, `.` and `/`")
        } else if value.len() > MAX_LABEL_VALUE_BYTES || value.chars().any(char::is_control) {
            format!("values have at most {MAX_LABEL_VALUE_BYTES} bytes and no control characters")
        } else {
            return None;
        };
        Some(FieldViolation::new(
            format!("labels[\"{}\"]", shortened(name)),
            description,
        ))
    };
    labels.iter().filter_map(wrong).collect()
}

fn show(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec() -> InstanceSpec {
        InstanceSpec {
            instance_id: "vllm-1".to_owned(),
            instance_type: None,
            metrics_urls: vec!["http://127.0.0.1:8000/metrics".to_owned()],
            scrape_interval: DEFAULT_INTERVAL,
            window: DEFAULT_WINDOW,
            labels: BTreeMap::new(),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        }
    }

    fn fields(change: impl FnOnce(&mut InstanceSpec)) -> Vec<String> {
        let mut spec = spec();
        change(&mut spec);
        let found = spec.violations(&Registry::builtin());
        found.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn every_wrong_field_is_named() {
        let seconds = Duration::from_secs;
        assert_eq!(fields(|_| {}), Vec::<String>::new());
        assert_eq!(fields(|spec| spec.instance_id.clear()), ["instance_id"]);
        assert_eq!(fields(|spec| spec.metrics_urls.clear()), ["metrics_url"]);
        assert_eq!(
            fields(|spec| spec.scrape_interval = seconds(0)),
            ["scrape_interval"]
        );
        assert_eq!(
            fields(|spec| spec.scrape_interval = seconds(301)),
            ["scrape_interval"]
        );
        assert_eq!(fields(|spec| spec.window = seconds(14)), ["window"]);
        assert_eq!(fields(|spec| spec.window = seconds(301)), ["window"]);
        assert_eq!(
            fields(|spec| spec.scrape_interval = Duration::from_millis(500)),
            ["window"],
            "120 intervals"
        );
    }

    #[test]
    fn labels_are_bounded() {
        let label = |name: &str, value: &str| {
            let labels = [(name.to_owned(), value.to_owned())];
            fields(|spec| spec.labels = labels.into())
        };
        assert_eq!(
            label("app.kubernetes.io/name", "große Vllm"),
            Vec::<String>::new()
        );
        assert_eq!(label("", "x"), ["labels[\"\"]"]);
        assert_eq!(label("a b", "x"), ["labels[\"a b\"]"]);
        assert_eq!(label("a", "\u{1b}[31m"), ["labels[\"a\"]"]);
        assert_eq!(label("a", &"x".repeat(256)), ["labels[\"a\"]"]);
        let many = |count: usize| {
            fields(|spec| {
                spec.labels = (0..count)
                    .map(|at| (format!("l{at}"), String::new()))
                    .collect();
            })
        };
        assert_eq!(many(32), Vec::<String>::new());
        assert_eq!(many(33), ["labels"]);
    }

    #[test]
    fn a_stored_spec_comes_back() {
        let mut spec = spec();
        spec.labels.insert("team".to_owned(), "a".to_owned());
        spec.slos = Slo::defaults();
        spec.launch_args = vec!["--max-num-seqs".to_owned(), "64".to_owned()];
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<InstanceSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn a_spec_without_slos_and_launch_arguments_is_stored_as_before() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert!(
            !text.contains("slos") && !text.contains("launch_args"),
            "{text}"
        );
    }

    #[test]
    fn the_default_window_fits_the_interval() {
        for millis in [200, 1_000, 15_000, 60_000, 90_000, 300_000] {
            let interval = Duration::from_millis(millis);
            let fits = fields(|spec| {
                spec.scrape_interval = interval;
                spec.window = default_window(interval);
            });
            assert_eq!(fits, Vec::<String>::new(), "{millis}");
        }
        assert_eq!(default_window(DEFAULT_INTERVAL), DEFAULT_WINDOW);
    }
}
