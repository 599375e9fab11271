//! SLOs as they are written in the config file and kept in the store.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::slo::{Aggregation, Side, Slo};

/// An SLO as it is written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SloText {
    /// What it is called.
    pub name: String,
    /// The quantity's name with its unit.
    pub quantity: String,
    /// `mean`, `value`, or a percentile such as `p99` or `p99.9`.
    #[serde(default = "value", skip_serializing_if = "is_value")]
    pub aggregation: String,
    /// The largest value that keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// The smallest value that keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It holds only while requests wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_while_requests_wait: bool,
}

fn value() -> String {
    Aggregation::Value.to_string()
}

fn is_value(text: &String) -> bool {
    *text == value()
}

/// An SLO that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SloTextError {
    /// No aggregation.
    #[error("`{0}` is no aggregation: mean, value, or a percentile such as p99")]
    Aggregation(String),
    /// No promise.
    #[error("`{0}` is no SLO: write it as `ttft: p99 time_to_first_token_seconds <= 0.5`")]
    Line(String),
    /// No target, or two.
    #[error("SLO `{0}`: give at_most or at_least, and one of them only")]
    Target(String),
}

impl TryFrom<SloText> for Slo {
    type Error = SloTextError;

    fn try_from(text: SloText) -> Result<Self, SloTextError> {
        let (comparison, target) = match (text.at_most, text.at_least) {
            (Some(target), None) => (Side::AtMost, target),
            (None, Some(target)) => (Side::AtLeast, target),
            _ => return Err(SloTextError::Target(text.name)),
        };
        Ok(Self {
            aggregation: text.aggregation.parse()?,
            name: text.name,
            quantity: text.quantity,
            comparison,
            target,
            only_while_requests_wait: text.only_while_requests_wait,
        })
    }
}

impl From<Slo> for SloText {
    fn from(slo: Slo) -> Self {
        let at = |side| (slo.comparison == side).then_some(slo.target);
        Self {
            aggregation: slo.aggregation.to_string(),
            at_most: at(Side::AtMost),
            at_least: at(Side::AtLeast),
            name: slo.name,
            quantity: slo.quantity,
            only_while_requests_wait: slo.only_while_requests_wait,
        }
    }
}

impl FromStr for Slo {
    type Err = SloTextError;

    /// `NAME: [AGGREGATION] QUANTITY <= TARGET [while requests wait]`; `>=` for at least.
    fn from_str(text: &str) -> Result<Self, SloTextError> {
        let unread = || SloTextError::Line(text.chars().take(120).collect());
        let (name, promise) = text.split_once(':').ok_or_else(unread)?;
        let mut words: Vec<&str> = promise.split_whitespace().collect();
        let only_while_requests_wait = words.ends_with(&["while", "requests", "wait"]);
        if only_while_requests_wait {
            words.truncate(words.len() - 3);
        }
        let (aggregation, quantity, side, target) = match words.as_slice() {
            [quantity, side, target] => ("value", quantity, side, target),
            [aggregation, quantity, side, target] => (*aggregation, quantity, side, target),
            _ => return Err(unread()),
        };
        Ok(Self {
            name: name.trim().to_owned(),
            quantity: (*quantity).to_owned(),
            aggregation: aggregation.parse()?,
            comparison: match *side {
                "<=" => Side::AtMost,
                ">=" => Side::AtLeast,
                _ => return Err(unread()),
            },
            target: target.parse().map_err(|_| unread())?,
            only_while_requests_wait,
        })
    }
}

impl FromStr for Aggregation {
    type Err = SloTextError;

    fn from_str(text: &str) -> Result<Self, SloTextError> {
        let percent = |text: &str| text.strip_prefix('p')?.parse::<f64>().ok();
        match text {
            "mean" => Ok(Self::Mean),
            "value" => Ok(Self::Value),
            _ => match percent(text) {
                Some(percent) => Ok(Self::Quantile((percent * 1e4).round() / 1e6)),
                None => Err(SloTextError::Aggregation(text.chars().take(80).collect())),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Slo, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_slo_is_written_as_it_is_said() {
        let slo = read(
            "name = \"ttft\"\nquantity = \"time_to_first_token_seconds\"\naggregation = \"p99.9\"\nat_most = 2",
        )
        .unwrap();
        assert_eq!(slo.aggregation, Aggregation::quantile(0.999));
        assert_eq!(
            slo.promise(),
            "p99.9 of time_to_first_token_seconds at most 2"
        );
        let rate = "name = \"r\"\nquantity = \"generation_tokens_per_second\"\n";
        let while_waiting = format!("{rate}at_least = 5.0\nonly_while_requests_wait = true");
        assert_eq!(
            read(&while_waiting).unwrap().promise(),
            "generation_tokens_per_second at least 5 while requests wait"
        );
        for (wrong, why) in [
            (String::new(), "at_most or at_least"),
            (
                "at_most = 1.0\nat_least = 1.0".to_owned(),
                "one of them only",
            ),
            (
                "at_most = 1.0\naggregation = \"p\"".to_owned(),
                "`p` is no aggregation",
            ),
            ("at_most = 1.0\nat_mst = 1".to_owned(), "unknown field"),
        ] {
            let message = read(&format!("{rate}{wrong}")).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn an_slo_is_one_line_on_the_command_line() {
        let read = |text: &str| text.parse::<Slo>();
        for slo in Slo::defaults() {
            let side = match slo.comparison {
                Side::AtMost => "<=",
                Side::AtLeast => ">=",
            };
            let only = match slo.only_while_requests_wait {
                true => " while requests wait",
                false => "",
            };
            let line = format!(
                "{}: {} {} {side} {}{only}",
                slo.name, slo.aggregation, slo.quantity, slo.target
            );
            assert_eq!(read(&line), Ok(slo));
        }
        let errors = read("e: request_failure_ratio <= 0.02").unwrap();
        assert_eq!(errors.aggregation, Aggregation::Value);
        for wrong in [
            "",
            "a",
            "a: b",
            "a: b < 1",
            "a: b <= x",
            "a: b c d e",
            "a: q b <= 1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_stored_slo_comes_back(
            quantile in prop::option::of(0.000_001f64..0.999_999),
            target in 1e-6f64..1e6,
            at_least: bool,
            only_while_requests_wait: bool,
        ) {
            let slo = Slo {
                name: "a".to_owned(),
                quantity: "time_to_first_token_seconds".to_owned(),
                aggregation: quantile.map_or(Aggregation::Mean, Aggregation::quantile),
                comparison: if at_least { Side::AtLeast } else { Side::AtMost },
                target,
                only_while_requests_wait,
            };
            let text = serde_json::to_string(&slo).unwrap();
            prop_assert_eq!(serde_json::from_str::<Slo>(&text).unwrap(), slo);
        }
    }
}
