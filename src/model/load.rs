//! What comes in.

use std::sync::Arc;

use statrs::distribution::{ContinuousCDF, Normal};

use super::drift::Drift;
use super::lengths::Lengths;
use super::random::{Random, Use};
use super::request::{Prefix, RequestSpec};

/// The load on an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// When requests arrive.
    pub arrival: Arrival,
    /// Kinds of requests, with how many of them there are.
    pub classes: Vec<RequestClass>,
    /// How it is divided over the replicas: a weight for each of them; even where there is none.
    pub split: Vec<u32>,
    /// How it changes; none where it stays. A trace has it in its times.
    pub drift: Option<Drift>,
    /// The same seed gives the same requests.
    pub seed: u64,
}

/// When requests arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// Independent of one another, and of the engine.
    Poisson {
        /// Requests a second.
        rate_per_second: f64,
    },
    /// The same with a rate that jumps up for a while, again and again.
    Bursty {
        /// Requests a second, over all.
        rate_per_second: f64,
        /// In a burst there are this many times as many.
        burst_factor: f64,
        /// How long a burst is.
        burst_seconds: f64,
        /// From one burst to the next.
        period_seconds: f64,
    },
    /// At these times, in seconds.
    Trace(Arc<[f64]>),
    /// So many clients, each of which sends a request when its last one has ended.
    Closed {
        /// How many.
        clients: u32,
        /// Mean pause of a client, exponentially distributed.
        think_seconds: f64,
    },
}

/// A kind of request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestClass {
    /// How many there are of it, against the other classes.
    pub weight: f64,
    /// Tokens of the prompt, without the shared beginning.
    pub prompt: Lengths,
    /// Tokens of the output.
    pub output: Lengths,
    /// How outputs go with prompts, from -1 (the longer the one, the shorter the other) to 1: the correlation of normal
    /// numbers that both are drawn by.
    pub length_correlation: f64,
    /// The beginning that prompts share.
    pub prefix: Option<SharedPrefix>,
    /// Share of clients that go before the output is whole.
    pub abort_ratio: f64,
    /// Clients go if there is no first token by then.
    pub patience_seconds: Option<f64>,
    /// Share of requests that end by a stop token.
    pub stop_ratio: f64,
    /// The scheduler may not take a request before so many seconds after its arrival: LoRA adapter, grammar, KV transfer.
    pub deferred_seconds: f64,
}

/// Beginnings that prompts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPrefix {
    /// Tokens of each.
    pub tokens: u32,
    /// How many different ones there are.
    pub groups: u32,
}

/// Largest weight of a replica. A replica looks for its next request one by one.
const MOST_WEIGHT: u32 = 1_000;

/// A load that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

impl RequestClass {
    /// Requests of these lengths and nothing else to them.
    pub fn of(prompt: Lengths, output: Lengths) -> Self {
        Self {
            weight: 1.0,
            prompt,
            output,
            length_correlation: 0.0,
            prefix: None,
            abort_ratio: 0.0,
            patience_seconds: None,
            stop_ratio: 0.0,
            deferred_seconds: 0.0,
        }
    }
}

impl RequestClass {
    /// Tokens of a prompt and its output, by two numbers that are uniform in (0, 1).
    fn lengths(&self, (of_prompt, of_output): (f64, f64)) -> (u32, u32) {
        let correlation = self.length_correlation;
        let of_output = if correlation == 0.0 {
            of_output
        } else {
            let normal = Normal::standard();
            let [one, other] = [of_prompt, of_output].map(|unit| normal.inverse_cdf(unit));
            let joined = correlation * one + (1.0 - correlation * correlation).sqrt() * other;
            // still within, where it is as near as an end
            normal.cdf(joined).clamp(1e-12, 1.0 - 1e-12)
        };
        (self.prompt.at(of_prompt), self.output.at(of_output))
    }
}

impl Load {
    /// Whether it can be.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self) -> Result<(), LoadError> {
        let refuse = |text: String| Err(LoadError(text));
        let positive = |value: f64| value.is_finite() && value > 0.0;
        match &self.arrival {
            Arrival::Poisson { rate_per_second } if !positive(*rate_per_second) => {
                return refuse(format!(
                    "{rate_per_second} requests a second; more than 0 is meant"
                ));
            }
            Arrival::Bursty {
                rate_per_second,
                burst_factor,
                burst_seconds,
                period_seconds,
            } => {
                let sound = [
                    *rate_per_second,
                    *burst_factor,
                    *burst_seconds,
                    *period_seconds,
                ];
                if !sound.into_iter().all(positive) || burst_seconds >= period_seconds {
                    return refuse("bursts need a rate, a factor and a length above 0, and a period longer than a burst".to_owned());
                }
                if burst_factor * burst_seconds > *period_seconds {
                    let most = period_seconds / burst_seconds;
                    return refuse(format!(
                        "bursts with {burst_factor} times the rate would be more than all requests; at most {most:.2} times"
                    ));
                }
            }
            Arrival::Trace(times) => {
                let sorted = times
                    .windows(2)
                    .all(|pair| matches!(pair, [a, b] if a <= b));
                if !sorted || !times.iter().all(|time| time.is_finite() && *time >= 0.0) {
                    return refuse(
                        "times of a trace are 0 or more, and none is before the last one"
                            .to_owned(),
                    );
                }
            }
            Arrival::Closed {
                clients,
                think_seconds,
            } => {
                if *clients == 0 || !think_seconds.is_finite() || *think_seconds < 0.0 {
                    return refuse(format!(
                        "{clients} clients that pause {think_seconds} s; at least 1, and 0 s or more"
                    ));
                }
            }
            Arrival::Poisson { .. } => {}
        }
        if let Some(drift) = &self.drift {
            drift.check()?;
            if matches!(self.arrival, Arrival::Trace(_)) {
                return refuse("a trace does not drift: its times say when".to_owned());
            }
        }
        if !positive(self.classes.iter().map(|class| class.weight).sum()) {
            return refuse("there is no kind of request with a weight above 0".to_owned());
        }
        for class in &self.classes {
            if let Some(fault) = class.prompt.fault().or_else(|| class.output.fault()) {
                return refuse(fault);
            }
            let ratios = [class.abort_ratio, class.stop_ratio];
            if class.weight < 0.0 || ratios.iter().any(|ratio| !(0.0..=1.0).contains(ratio)) {
                return refuse("weights are 0 or more, and shares between 0 and 1".to_owned());
            }
            let correlation = class.length_correlation;
            if !(-1.0..=1.0).contains(&correlation) {
                return refuse(format!(
                    "length_correlation = {correlation}: it is between -1 and 1"
                ));
            }
            let deferred = class.deferred_seconds;
            if !(deferred.is_finite() && deferred >= 0.0) {
                return refuse(format!(
                    "deferred_seconds = {deferred}: seconds are 0 or more"
                ));
            }
            if class.prefix.is_some_and(|prefix| prefix.groups == 0) {
                return refuse("a shared beginning of no group".to_owned());
            }
        }
        Ok(())
    }

    /// Whether it can be divided over so many replicas.
    ///
    /// # Errors
    /// Weights that do not fit them, or that are too large or all 0.
    pub fn check_split(&self, replicas: u32) -> Result<(), LoadError> {
        let split = &self.split;
        if split.is_empty() {
            return Ok(());
        }
        if split.len() != replicas as usize {
            return Err(LoadError(format!(
                "split = {split:?}: there are {replicas} replicas; as many weights are meant"
            )));
        }
        if split.iter().any(|weight| *weight > MOST_WEIGHT) || split.iter().all(|one| *one == 0) {
            return Err(LoadError(format!(
                "split = {split:?}: weights are 0 to {MOST_WEIGHT}, and not all of them 0"
            )));
        }
        Ok(())
    }

    /// The request of this number; no longer than `max_model_len` tokens in all.
    pub(super) fn request(&self, random: Random, index: u64, max_model_len: u32) -> RequestSpec {
        let unit = |what| random.unit(what, index);
        let class = self.class(unit(Use::Class));
        let shared = class.and_then(|class| class.prefix);
        let units = (unit(Use::PromptLength), unit(Use::OutputLength));
        let (own, wanted) = class.map_or((1, 1), |class| class.lengths(units));
        let shared_tokens = shared.map_or(0, |prefix| prefix.tokens);
        // one token of output has room
        let prompt_tokens = own
            .saturating_add(shared_tokens)
            .min(max_model_len.saturating_sub(1))
            .max(1);
        let output_tokens = wanted
            .min(max_model_len.saturating_sub(prompt_tokens))
            .max(1);
        let abort_ratio = class.map_or(0.0, |class| class.abort_ratio);
        let aborts = unit(Use::Abort) < abort_ratio;
        RequestSpec {
            index,
            prompt_tokens,
            output_tokens,
            prefix: shared.map(|prefix| Prefix {
                group: (unit(Use::PrefixGroup) * f64::from(prefix.groups)) as u32,
                tokens: prefix.tokens.min(prompt_tokens),
            }),
            abort_after: aborts.then(|| (unit(Use::AbortAfter) * f64::from(output_tokens)) as u32),
            patience_seconds: class.and_then(|class| class.patience_seconds),
            deferred_seconds: class.map_or(0.0, |class| class.deferred_seconds),
            ends_by_length: unit(Use::Failure) >= class.map_or(0.0, |class| class.stop_ratio),
        }
    }

    fn class(&self, unit: f64) -> Option<&RequestClass> {
        let all: f64 = self.classes.iter().map(|class| class.weight).sum();
        let mut left = unit * all;
        self.classes.iter().find(|class| {
            left -= class.weight;
            left < 0.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_go_with_prompts_and_keep_their_lengths() {
        let lengths = Lengths::Uniform { min: 1, max: 1_000 };
        let correlation = |of: f64| {
            let class = RequestClass {
                length_correlation: of,
                ..RequestClass::of(lengths.clone(), lengths.clone())
            };
            let random = Random::new(3);
            let pairs: Vec<(f64, f64)> = (0..20_000)
                .map(|index| {
                    let units = (
                        random.unit(Use::PromptLength, index),
                        random.unit(Use::OutputLength, index),
                    );
                    let (prompt, output) = class.lengths(units);
                    (f64::from(prompt), f64::from(output))
                })
                .collect();
            let count = pairs.len() as f64;
            let (sums, squares) = pairs.iter().fold(((0.0, 0.0), 0.0), |((a, b), c), (x, y)| {
                ((a + x, b + y), c + x * y)
            });
            let (x, y) = (sums.0 / count, sums.1 / count);
            assert!((y - 500.5).abs() < 10.0, "{y}");
            (squares / count - x * y) / (1_000.0 * 1_000.0 / 12.0)
        };
        assert!(correlation(0.0).abs() < 0.03);
        // of uniform numbers it is a little less than of normal ones
        assert!((correlation(0.6) - 0.58).abs() < 0.03);
        assert!((correlation(-1.0) + 1.0).abs() < 0.03);
    }
}
