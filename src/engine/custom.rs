//! Engines that nobody wrote a file for: metric names → quantities, from the config file.
//!
//! ```toml
//! [[engines]]
//! name = "lmdeploy"
//! prefixes = ["lmdeploy:"]
//!
//! [engines.quantities]
//! requests_running = "lmdeploy:num_requests_running"
//! generation_tokens = "lmdeploy:generation_tokens_total"
//! time_to_first_token_seconds = "lmdeploy:time_to_first_token_seconds"
//! kv_cache_usage_ratio = { metric = "lmdeploy:gpu_cache_usage_perc" }
//! requests_aborted = { metric = "lmdeploy:request_success_total", labels = { finished_reason = ["abort"] } }
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::alias::{Alias, LabelFilter, Part, Term};
use super::profile::{EngineProfile, ProfileBuilder};
use super::quantity::{Quantity, QuantityKind};

/// `[[engines]]` of the config file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomEngine {
    /// Name, as in `instance_type`.
    pub name: String,
    /// First letters of its metric names, by which it is recognised.
    pub prefixes: Vec<String>,
    /// Quantity → metric.
    pub quantities: BTreeMap<String, CustomMetric>,
}

/// A metric name, or a name with conditions.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a metric name, or { metric = \"name\", labels = { label = [\"value\"] }, scale = 1.0 }"
)]
pub enum CustomMetric {
    /// The metric is the quantity.
    Name(String),
    /// The metric, with conditions.
    Full(MetricWithConditions),
}

/// A metric of which only some series count, or in another unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricWithConditions {
    /// Name as it stands in the exposition.
    pub metric: String,
    /// Only series with one of these values.
    #[serde(default)]
    pub labels: BTreeMap<String, Vec<String>>,
    /// Factor into our unit: 0.01 for a percentage, 0.001 for milliseconds. Not for distributions.
    #[serde(default = "one")]
    pub scale: f64,
}

fn one() -> f64 {
    1.0
}

/// An `[[engines]]` entry that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CustomEngineError {
    /// The name is not one that `instance_type` takes.
    #[error(
        "engine name `{0}` must be lower-case letters, digits, `-` and `.`, at most 63 of them"
    )]
    BadName(String),
    /// `auto` means that the engine is recognised.
    #[error("engine name `auto` is taken: it means that the engine is recognised")]
    Reserved,
    /// Nothing to recognise it by.
    #[error("engine `{0}` has no `prefixes` to recognise its metrics by")]
    NoPrefix(String),
    /// A quantity that there is not.
    #[error(
        "engine `{engine}`: unknown quantity `{quantity}`; the nearest known one is `{nearest}`"
    )]
    UnknownQuantity {
        /// The engine.
        engine: String,
        /// What was written.
        quantity: String,
        /// What may have been meant.
        nearest: String,
    },
    /// A scale that makes no sense.
    #[error(
        "engine `{engine}`: `scale` of `{quantity}` must be a positive number, and distributions take none"
    )]
    BadScale {
        /// The engine.
        engine: String,
        /// The quantity.
        quantity: String,
    },
}

impl CustomEngine {
    /// The profile.
    ///
    /// # Errors
    /// See [`CustomEngineError`].
    pub fn profile(&self) -> Result<EngineProfile, CustomEngineError> {
        if self.name == "auto" {
            return Err(CustomEngineError::Reserved);
        }
        if !crate::units::is_id(&self.name) {
            return Err(CustomEngineError::BadName(self.name.clone()));
        }
        if self.prefixes.iter().all(String::is_empty) {
            return Err(CustomEngineError::NoPrefix(self.name.clone()));
        }
        let aliases = self
            .quantities
            .iter()
            .map(|(name, metric)| self.alias(name, metric))
            .collect::<Result<_, _>>()?;
        Ok(ProfileBuilder {
            name: self.name.clone().into(),
            title: self.name.clone().into(),
            versions: "as the config file maps it".into(),
            prefixes: self
                .prefixes
                .iter()
                .filter(|prefix| !prefix.is_empty())
                .map(|prefix| prefix.clone().into())
                .collect(),
            aliases,
            no_metrics_hint: "check `prefixes` and metric names of this engine in the config file"
                .into(),
        }
        .build())
    }

    fn alias(&self, name: &str, metric: &CustomMetric) -> Result<Alias, CustomEngineError> {
        let Some(quantity) = Quantity::from_name(name) else {
            let names = Quantity::ALL.iter().map(|quantity| quantity.name());
            return Err(CustomEngineError::UnknownQuantity {
                engine: self.name.clone(),
                quantity: name.to_owned(),
                nearest: crate::units::nearest(name, names)
                    .unwrap_or_default()
                    .to_owned(),
            });
        };
        let kind = quantity.kind();
        let part = match kind {
            QuantityKind::Distribution => Part::Distribution,
            QuantityKind::Counter | QuantityKind::Gauge => Part::Value,
        };
        let (metric, labels, scale) = match metric {
            CustomMetric::Name(metric) => (metric, None, 1.0),
            CustomMetric::Full(full) => (&full.metric, Some(&full.labels), full.scale),
        };
        let scaled_distribution = kind == QuantityKind::Distribution && scale != 1.0;
        if !scale.is_finite() || scale <= 0.0 || scaled_distribution {
            return Err(CustomEngineError::BadScale {
                engine: self.name.clone(),
                quantity: name.to_owned(),
            });
        }
        // counter families are known by the name without `_total`
        let family = match kind {
            QuantityKind::Counter => metric.strip_suffix("_total").unwrap_or(metric),
            QuantityKind::Gauge | QuantityKind::Distribution => metric,
        };
        let mut term = Term::part(family.to_owned(), part).weight(scale);
        term.shown_with_total = family != metric;
        for (label, values) in labels.into_iter().flatten() {
            term.only.push(LabelFilter {
                label: label.clone().into(),
                values: values.iter().map(|value| value.clone().into()).collect(),
            });
        }
        Ok(Alias::new(quantity, vec![term]))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn engine(toml: &str) -> Result<EngineProfile, CustomEngineError> {
        let engine: CustomEngine = toml::from_str(toml).expect("valid TOML");
        engine.profile()
    }

    #[test]
    fn maps_names_labels_and_scales() {
        let profile = engine(
            r#"
            name = "lmdeploy"
            prefixes = ["lmdeploy:"]
            [quantities]
            generation_tokens = "lmdeploy:generation_tokens_total"
            kv_cache_usage_ratio = { metric = "lmdeploy:cache_percent", scale = 0.01 }
            requests_aborted = { metric = "lmdeploy:done_total", labels = { reason = ["abort", "gone"] } }
            "#,
        )
        .expect("valid engine");
        assert!(profile.owns("lmdeploy:anything"));
        assert_eq!(profile.terms_of("lmdeploy:generation_tokens").len(), 1);
        let described: Vec<_> = profile.aliases.iter().map(Alias::describe).collect();
        assert!(described.contains(&"lmdeploy:done_total{reason=\"abort|gone\"}".to_owned()));
    }

    #[test]
    fn names_what_was_meant() {
        let error =
            engine("name = \"x\"\nprefixes = [\"x_\"]\n[quantities]\nrequest_running = \"x_r\"")
                .map(|_| ())
                .expect_err("unknown quantity");
        assert_eq!(
            error.to_string(),
            "engine `x`: unknown quantity `request_running`; the nearest known one is `requests_running`"
        );
        let refused = |toml| engine(toml).map(|_| ()).expect_err("refused");
        assert_eq!(
            refused("name = \"auto\"\nprefixes = [\"x\"]\n[quantities]"),
            CustomEngineError::Reserved
        );
        assert_eq!(
            refused("name = \"x\"\nprefixes = [\"\"]\n[quantities]"),
            CustomEngineError::NoPrefix("x".to_owned())
        );
        assert!(matches!(
            refused("name = \"X y\"\nprefixes = [\"x\"]\n[quantities]"),
            CustomEngineError::BadName(_)
        ));
        assert!(matches!(
            refused(
                "name = \"x\"\nprefixes = [\"x\"]\n[quantities]\nqueue_time_seconds = { metric = \"q\", scale = 2.0 }"
            ),
            CustomEngineError::BadScale { .. }
        ));
    }
}
