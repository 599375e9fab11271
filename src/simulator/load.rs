//! What comes in, as a scenario says it.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Arrival, Drift, Lengths, Load, RequestClass, SharedPrefix};

use super::scenario::ScenarioError;

/// Clients where no load is given.
const CLIENTS: u32 = 8;

/// What comes in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadPart {
    /// Requests a second, independent of one another.
    pub rate: Option<f64>,
    /// Clients that each wait for their answer.
    pub clients: Option<u32>,
    /// Their mean pause, in seconds.
    pub think_seconds: Option<f64>,
    /// How much the rate jumps up.
    pub bursts: Option<BurstPart>,
    /// How it becomes another one.
    pub drift: Option<DriftPart>,
    /// How it is divided over the replicas: a weight for each of them; even where it is absent.
    pub split: Option<Vec<u32>>,
    /// The same seed gives the same requests.
    pub seed: Option<u64>,
    /// The kind of requests, where there is one.
    #[serde(flatten)]
    pub request: RequestPart,
    /// Kinds of requests, where there are several.
    pub classes: Vec<RequestPart>,
}

/// A rate that jumps up again and again.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurstPart {
    /// This many times as many.
    pub factor: f64,
    /// How long a burst is.
    pub seconds: f64,
    /// From one to the next.
    pub period_seconds: f64,
}

/// A load that becomes another one.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftPart {
    /// In the end there are this many times as many requests or clients.
    pub factor: f64,
    /// When it begins; at once where it is absent.
    #[serde(default)]
    pub from_seconds: f64,
    /// How long it takes; no time where it is absent.
    #[serde(default)]
    pub over_seconds: f64,
}

/// A kind of request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestPart {
    /// How many there are of it, against others.
    pub weight: Option<f64>,
    /// Tokens of prompts: `64`, `"48..96"`, `"lognormal 200 0.8 4000"` (median, sigma, most) or `"pareto 50 1.5 4000"`
    /// (least, exponent, most).
    pub prompt_tokens: Option<Value>,
    /// Tokens of outputs, written the same way.
    pub output_tokens: Option<Value>,
    /// How outputs go with prompts, from -1 (the longer the one, the shorter the other) to 1.
    pub length_correlation: Option<f64>,
    /// Tokens that prompts share at their beginning.
    pub shared_prefix_tokens: Option<u32>,
    /// How many different beginnings there are.
    pub shared_prefix_groups: Option<u32>,
    /// Share of clients that go before the end.
    pub abort_ratio: Option<f64>,
    /// Clients go if there is no first token by then.
    pub patience_seconds: Option<f64>,
    /// Share of outputs that end by a stop token.
    pub stop_ratio: Option<f64>,
    /// Seconds for which a request waits for its LoRA adapter, grammar or KV transfer.
    pub deferred_seconds: Option<f64>,
}

impl LoadPart {
    pub(super) fn load(&self) -> Result<Load, ScenarioError> {
        let arrival = match (self.rate, self.clients, self.bursts) {
            (Some(_), Some(_), _) => {
                return Err(ScenarioError::Number(
                    "a load is either a rate or clients, not both".to_owned(),
                ));
            }
            (Some(rate_per_second), None, None) => Arrival::Poisson { rate_per_second },
            (Some(rate_per_second), None, Some(bursts)) => Arrival::Bursty {
                rate_per_second,
                burst_factor: bursts.factor,
                burst_seconds: bursts.seconds,
                period_seconds: bursts.period_seconds,
            },
            (None, clients, None) => Arrival::Closed {
                clients: clients.unwrap_or(CLIENTS),
                think_seconds: self.think_seconds.unwrap_or(0.0),
            },
            (None, _, Some(_)) => {
                return Err(ScenarioError::Number(
                    "bursts are of a rate, and there is none".to_owned(),
                ));
            }
        };
        let classes = if self.classes.is_empty() {
            vec![self.request.class(&self.request)?]
        } else {
            self.classes
                .iter()
                .map(|class| class.class(&self.request))
                .collect::<Result<_, _>>()?
        };
        if self.split.as_ref().is_some_and(Vec::is_empty) {
            return Err(ScenarioError::Number(
                "split = []: a weight for each replica is meant".to_owned(),
            ));
        }
        let load = Load {
            arrival,
            classes,
            split: self.split.clone().unwrap_or_default(),
            drift: self.drift.map(|drift| Drift {
                factor: drift.factor,
                from_seconds: drift.from_seconds,
                over_seconds: drift.over_seconds,
            }),
            seed: self.seed.unwrap_or(1),
        };
        load.check()?;
        Ok(load)
    }
}

impl RequestPart {
    /// With what another says where this says nothing.
    fn class(&self, other: &Self) -> Result<RequestClass, ScenarioError> {
        let lengths = |own: &Option<Value>, other: &Option<Value>, default| match own
            .as_ref()
            .or(other.as_ref())
        {
            Some(value) => lengths(value),
            None => Ok(default),
        };
        let shared = self
            .shared_prefix_tokens
            .or(other.shared_prefix_tokens)
            .filter(|tokens| *tokens > 0);
        Ok(RequestClass {
            weight: self.weight.unwrap_or(1.0),
            prompt: lengths(
                &self.prompt_tokens,
                &other.prompt_tokens,
                Lengths::Uniform { min: 64, max: 512 },
            )?,
            output: lengths(
                &self.output_tokens,
                &other.output_tokens,
                Lengths::Uniform { min: 32, max: 256 },
            )?,
            length_correlation: self
                .length_correlation
                .or(other.length_correlation)
                .unwrap_or(0.0),
            prefix: shared.map(|tokens| SharedPrefix {
                tokens,
                groups: self
                    .shared_prefix_groups
                    .or(other.shared_prefix_groups)
                    .unwrap_or(1),
            }),
            abort_ratio: self.abort_ratio.or(other.abort_ratio).unwrap_or(0.0),
            patience_seconds: self.patience_seconds.or(other.patience_seconds),
            stop_ratio: self.stop_ratio.or(other.stop_ratio).unwrap_or(0.5),
            deferred_seconds: self
                .deferred_seconds
                .or(other.deferred_seconds)
                .unwrap_or(0.0),
        })
    }
}

fn lengths(value: &Value) -> Result<Lengths, ScenarioError> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let found = match text.split_once("..") {
        Some((min, max)) => min
            .parse()
            .ok()
            .zip(max.parse().ok())
            .map(|(min, max)| Lengths::Uniform { min, max }),
        None => match text.split_whitespace().collect::<Vec<_>>()[..] {
            [fixed] => fixed.parse().ok().map(Lengths::Fixed),
            ["lognormal", median, sigma, max] => median
                .parse()
                .ok()
                .zip(sigma.parse().ok())
                .zip(max.parse().ok())
                .map(|((median, sigma), max)| Lengths::LogNormal { median, sigma, max }),
            ["pareto", least, exponent, max] => least
                .parse()
                .ok()
                .zip(exponent.parse().ok())
                .zip(max.parse().ok())
                .map(|((least, exponent), max)| Lengths::Pareto {
                    least,
                    exponent,
                    max,
                }),
            _ => None,
        },
    };
    found.ok_or(ScenarioError::Lengths(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_how_a_load_drifts_and_how_long_its_tails_are() {
        let part: LoadPart = toml::from_str(
            r#"
            rate = 3
            drift = { factor = 2, over_seconds = 60 }
            prompt_tokens = "pareto 50 1.5 4000"
            output_tokens = "lognormal 80 1.4 2000"
            length_correlation = 0.5
            "#,
        )
        .unwrap();
        let load = part.load().unwrap();
        assert_eq!(
            load.drift,
            Some(Drift {
                factor: 2.0,
                from_seconds: 0.0,
                over_seconds: 60.0
            })
        );
        let [class] = &load.classes[..] else {
            unreachable!()
        };
        assert_eq!(
            class.prompt,
            Lengths::Pareto {
                least: 50.0,
                exponent: 1.5,
                max: 4_000
            }
        );
        assert_eq!(class.length_correlation, 0.5);
        assert_eq!(LoadPart::default().load().unwrap().drift, None);
    }
}
