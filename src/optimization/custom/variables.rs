//! What expressions can speak of: a measurement and settings as CEL values.

use std::collections::HashMap;

use cel::Value;

use crate::engine::{Quantity, QuantityKind};
use crate::measure::{Bounded, DERIVED, Distribution, Figures};
use crate::optimization::{InForce, SettingValue, Situation};

/// Names of the variables.
pub(super) const VARIABLES: [&str; 6] = [
    "metrics",
    "settings",
    "engine",
    "version",
    "bottlenecks",
    "replicas",
];

/// Longest text that is shown to an expression.
const MAX_TEXT_BYTES: usize = 256;
/// Most entries of each variable.
const MAX_ENTRIES: usize = 1_024;

/// The values of the variables.
#[derive(Debug, Clone)]
pub(super) struct Variables(Vec<(&'static str, Value)>);

impl Variables {
    pub(super) fn of(situation: &Situation<'_>) -> Self {
        let measured = situation.measurement;
        let figures = measured.map(|measurement| metrics_of(&measurement.figures));
        let told = measured.and_then(|measurement| measurement.engine_version.clone());
        let version = situation
            .in_force
            .version
            .map(|version| version.to_string())
            .or(told);
        let causes = situation.findings.iter().take(MAX_ENTRIES);
        let causes: Vec<Value> = causes.map(|one| one.cause.as_str().into()).collect();
        let mut all = vec![
            ("metrics", figures.unwrap_or_default().into()),
            ("settings", settings_of(situation.in_force).into()),
            ("engine", text(&situation.profile.name)),
            ("version", text(&version.unwrap_or_default())),
            ("bottlenecks", causes.into()),
        ];
        if let Some(measurement) = measured {
            let count = measurement.replicas.len().max(1);
            all.push(("replicas", Value::Float(count as f64)));
        }
        Self(all)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn example() -> Self {
        use crate::analysis::Cause;
        use crate::optimization::lever::example::Case;

        let case = Case::new("vllm", "0.33.0", &[Cause::SequenceCap])
            .set("max_num_seqs", "32")
            .measured()
            .gauge(Quantity::KvCacheUsage, 0.3, 0.4);
        Self::of(&case.situation())
    }
}

fn text(text: &str) -> Value {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

/// Numbers, switches and texts of the settings that are known.
fn settings_of(in_force: &InForce) -> HashMap<String, Value> {
    let known = in_force
        .settings
        .iter()
        .take(MAX_ENTRIES)
        .filter_map(|setting| {
            let SettingValue::Known(value) = &setting.value else {
                return None;
            };
            let number = value
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite());
            let value = match (value.as_str(), number) {
                ("true" | "True", _) => Value::Bool(true),
                ("false" | "False", _) => Value::Bool(false),
                (_, Some(number)) => Value::Float(number),
                (other, None) => text(other),
            };
            Some((setting.name.clone(), value))
        });
    known.collect()
}

/// Single values as numbers; gauges and distributions as maps of their statistics. What is only bounded is left out.
fn metrics_of(figures: &Figures) -> HashMap<String, Value> {
    let mut all: HashMap<String, Value> = HashMap::new();
    for one in figures.quantities.iter().take(MAX_ENTRIES) {
        if let Bounded::Value(value) = one.value {
            all.insert(one.name.to_string(), Value::Float(value));
        }
    }
    for one in figures.gauges.iter().take(MAX_ENTRIES) {
        let statistics = [
            ("mean", one.mean),
            ("min", one.min),
            ("max", one.max),
            ("last", one.last),
        ];
        all.insert(one.name.to_string(), map(statistics));
    }
    for one in figures.distributions.iter().take(MAX_ENTRIES) {
        all.insert(one.name.to_string(), map(statistics_of(one)));
    }
    all
}

fn map(statistics: impl IntoIterator<Item = (&'static str, f64)>) -> Value {
    let values = statistics
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::Float(value)));
    values.collect::<HashMap<String, Value>>().into()
}

fn statistics_of(one: &Distribution) -> Vec<(&'static str, f64)> {
    const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];
    let mut all = vec![("count", one.count)];
    all.extend(one.mean.map(|mean| ("mean", mean)));
    all.extend(QUANTILES.into_iter().filter_map(|(name, q)| {
        let found = one
            .quantiles
            .iter()
            .find(|quantile| (quantile.q - q).abs() < 1e-9)?;
        match found.value {
            Bounded::Value(value) => Some((name, value)),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }
    }));
    all
}

/// Names that `metrics` may have: the quantities, and of counters their totals, increases and rates.
pub(super) fn metrics() -> Vec<String> {
    let quantities = Quantity::ALL.iter().flat_map(|quantity| {
        let names = match quantity.kind() {
            QuantityKind::Counter => quantity.counter_names().to_vec(),
            QuantityKind::Gauge | QuantityKind::Distribution => vec![quantity.name()],
        };
        names.into_iter().map(str::to_owned)
    });
    let derived = DERIVED.iter().map(|(name, _)| (*name).to_owned());
    quantities.chain(derived).collect()
}

pub(super) fn is_metric(name: &str) -> bool {
    metrics().iter().any(|known| known == name)
}
