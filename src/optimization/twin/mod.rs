//! The twin: the model fitted to one instance, not once but many times over.
//!
//! ```text
//! measurement → observed (one replica's numbers) → draws: what nothing tells, drawn from what is possible
//!                                                     ↓ each calibrated to the measured means
//!               member: settings, load, step time, and a weight by how well it gives what was measured
//! change → every member with and without it, same requests → ratios → interval
//! ```
//!
//! One window does not tell what a step costs at another batch, whether clients wait for their answers, or how lengths
//! are spread within a bucket. A member is one way in which it may be; what members agree on is known, and where they
//! do not the interval is wide. That is approximate Bayesian computation (Beaumont, Zhang, Balding 2002) with the model
//! of continuous batching in the place of a likelihood.

mod apply;
mod calibrate;
mod draws;
mod glance;
mod incoming;
mod interval;
mod lengths;
mod member;
mod observed;
mod outcome;
mod settings;
mod trust;

use crate::measure::{Bounded, Measurement};
use crate::model::{Arrival, Load, Policy, StepWindow};

use super::in_force::InForce;
use super::prediction::{
    Effect, PredictedQuantity as P, Prediction, PredictionBasis, QuantityPrediction, Unpredicted,
};
use super::proposal::ModelChange;

use calibrate::Ensemble;
use draws::Draws;
use interval::{Say, interval};
use member::Member;
use observed::Observed;
use outcome::Outcome;

/// The model fitted to one instance.
#[derive(Debug, Clone)]
pub(crate) struct Twin {
    observed: Observed,
    ensemble: Ensemble,
}

/// Requests that finish in all simulations of a prediction, at least.
const SIMULATED_REQUESTS: u64 = 1_000;
/// Windows of one member in a prediction, at most.
const REPEATS: u64 = 24;
/// Tokens that all of them may cost, beyond which no further windows are simulated.
const EFFECT_TOKENS: u64 = 12_000_000;
/// A queue that grows by this share of what comes in is not served.
const UNSETTLED_RATIO: f64 = 0.08;

impl Twin {
    /// Of what was measured, with settings in force; `windows` are of other load, where there were any.
    ///
    /// # Errors
    /// Why there is none, as a sentence.
    pub(crate) fn fit(
        measurement: &Measurement,
        in_force: &InForce,
        windows: &[StepWindow],
    ) -> Result<Self, String> {
        let observed = Observed::of(measurement)?;
        let ensemble = calibrate::fit(&observed, in_force, windows)?;
        Ok(Self { observed, ensemble })
    }

    /// What is predicted of a change. Deviations from the middle are multiplied by `widening`, which `track_record`
    /// predictions told.
    pub(crate) fn effect(
        &self,
        changes: &[ModelChange],
        (widening, track_record): (f64, u32),
    ) -> Effect {
        let plan = self.ensemble.plan;
        let members = &self.ensemble.members;
        let replicas_ratio = apply::replicas_ratio(self.observed.replicas, changes);
        let mut runs: Vec<Run<'_>> = Vec::new();
        let (mut tried, mut finished, mut tokens) = (0, 0, 0);
        for repeat in 0..REPEATS {
            if finished >= SIMULATED_REQUESTS || tokens >= EFFECT_TOKENS || runs.len() * 2 < tried {
                break;
            }
            for member in members {
                let (settings, mut load) =
                    match apply::apply(member, self.observed.replicas, changes) {
                        Ok(applied) => applied,
                        Err(reason) => return Effect::NotPredictable(reason),
                    };
                load.seed += repeat * 7_919;
                drift(&mut load, repeat);
                let before = match repeat {
                    0 => Some(member.before.clone()),
                    _ => member.with_other_requests(load.seed, &self.ensemble.plan),
                };
                let after = member.after(&settings, &load, &plan);
                tried += 1;
                if let Some((before, after)) = before.zip(after) {
                    finished += before.finished + after.finished;
                    tokens += before.work_tokens + after.work_tokens;
                    let offered = match load.arrival {
                        Arrival::Poisson { rate_per_second } => Some(rate_per_second),
                        _ => None,
                    };
                    runs.push(Run {
                        member,
                        before,
                        after,
                        offered,
                        replicas_ratio,
                    });
                }
            }
        }
        if runs.len() * 2 < tried {
            return Effect::NotPredictable(
                "what would come of it is too much to simulate: requests would pile up".to_owned(),
            );
        }
        let (mut quantities, mut unpredicted) = (Vec::new(), Vec::new());
        for quantity in P::ALL {
            match self.quantity(quantity, &runs, widening) {
                Ok(found) => quantities.push(found),
                Err(reason) => unpredicted.push(Unpredicted { quantity, reason }),
            }
        }
        let mut assumptions = self.ensemble.assumptions.clone();
        if finished < SIMULATED_REQUESTS {
            assumptions.push(format!(
                "few requests say what comes of it: {finished} finished in all that could be simulated"
            ));
        }
        Effect::Predicted(Prediction {
            quantities,
            unpredicted,
            basis: PredictionBasis {
                windows: self.ensemble.windows,
                observed_requests: self.observed.finished * f64::from(self.observed.replicas),
                simulated_requests: finished,
                simulations: u32::try_from(2 * runs.len()).unwrap_or(u32::MAX),
                mismatch_ratio: self.ensemble.mismatch_ratio - 1.0,
                assumptions,
                track_record,
            },
        })
    }

    /// One quantity after a change.
    fn quantity(
        &self,
        quantity: P,
        runs: &[Run<'_>],
        widening: f64,
    ) -> Result<QuantityPrediction, String> {
        let before = self.measured(quantity)?;
        if matches!(quantity, P::TimeToFirstTokenMean | P::TimeToFirstTokenP99) {
            let all: f64 = runs.iter().map(|run| run.member.weight).sum();
            let grow = runs.iter().filter(|run| run.piles_up());
            let growing: f64 = grow.map(|run| run.member.weight).sum();
            if growing > 0.3 * all {
                return Err(
                    "more would come in than is served, and the wait would grow for as long as that lasts".to_owned(),
                );
            }
        }
        let (mut says, off): (Vec<Say>, Vec<f64>) = runs
            .iter()
            .filter_map(|run| {
                let after = value(quantity, &run.after)? * grown(quantity, run.replicas_ratio);
                let against = value(quantity, &run.before)?;
                let said = || Say {
                    log_ratio: (after / against).ln(),
                    weight: run.member.weight,
                };
                (after > 0.0 && against > 0.0).then(|| (said(), (against / before).ln()))
            })
            .unzip();
        if says.len() * 2 < runs.len() {
            return Err(
                "it would be too small, or too large, to be told from the engine's metrics"
                    .to_owned(),
            );
        }
        let told = |says: &[Say], sigma: f64| {
            interval(says, sigma).ok_or("the simulations gave nothing that can be told")
        };
        let trust = trust::trust(quantity);
        let gone = 1.0 - trust.still_off(told(&says, 1e-3)?[0]);
        for (say, off) in says.iter_mut().zip(off) {
            say.log_ratio += gone * off;
        }
        let middle = told(&says, 1e-3)?[0];
        let sigma = trust.sigma(middle, self.chance(quantity), self.ensemble.mismatch_ratio);
        let apart: Vec<Say> = says
            .iter()
            .map(|say| Say {
                log_ratio: middle + trust.members * (say.log_ratio - middle),
                ..*say
            })
            .collect();
        let [middle, low, high] = told(&apart, sigma)?;
        let widening = widening * trust::stretch(high - low);
        Ok(QuantityPrediction {
            quantity,
            before,
            ratio: middle.exp(),
            ratio_low: (middle + (low - middle) * widening).exp(),
            ratio_high: (middle + (high - middle) * widening).exp(),
        })
    }

    /// Standard deviation, in logarithms, of what two windows of the same engine under the same load differ by: by the
    /// members, each with other requests.
    fn chance(&self, quantity: P) -> f64 {
        let (mut squares, mut weights) = (0.0, 0.0);
        for member in &self.ensemble.members {
            let seen = |outcome: &Outcome| match quantity {
                // of a gauge no more is seen than there are scrapes
                P::KvCacheUsage => Some(outcome.kv_usage_at_scrapes),
                _ => value(quantity, outcome),
            };
            let again = member.again.as_ref();
            let pair = again.and_then(|again| seen(&member.before).zip(seen(again)));
            if let Some((one, other)) = pair.filter(|(one, other)| *one > 0.0 && *other > 0.0) {
                squares += member.weight * (other / one).ln().powi(2);
                weights += member.weight;
            }
        }
        if weights <= 0.0 {
            return 1.0 / self.observed.finished.max(1.0).sqrt();
        }
        // what was simulated was shorter, and of one replica
        let longer = match quantity {
            P::KvCacheUsage => 1.0,
            _ => self.ensemble.plan.seconds / self.observed.seconds,
        };
        (squares / weights * longer / f64::from(self.observed.replicas)).sqrt()
    }

    /// The value before, of all replicas.
    fn measured(&self, quantity: P) -> Result<f64, String> {
        let observed = &self.observed;
        let number = |value: Option<Bounded>, what: &str| match value {
            Some(Bounded::Value(value)) => Ok(value),
            Some(Bounded::AtMost(bound)) => Err(format!(
                "{what} is only known to be at most {bound} s: the engine's histogram is no finer"
            )),
            Some(Bounded::AtLeast(bound)) => Err(format!(
                "{what} is only known to be at least {bound} s: the engine's histogram ends there"
            )),
            None => Err(format!("{what} is not told by the engine")),
        };
        let mean = |value: Option<f64>, what: &str| {
            value.ok_or_else(|| format!("{what} is not told by the engine"))
        };
        let found = match quantity {
            P::GenerationTokensPerSecond => {
                Ok(observed.tokens_per_second * f64::from(observed.replicas))
            }
            P::TimeToFirstTokenMean => mean(observed.ttft_mean, "the mean time to first token"),
            P::TimeToFirstTokenP99 => number(
                observed.ttft_p99,
                "the 99th percentile of the time to first token",
            ),
            P::InterTokenLatencyMean => match observed.policy {
                Policy::Tgi => Err("TGI exports no inter-token latency".to_owned()),
                _ => mean(observed.gap_mean, "the mean gap between tokens"),
            },
            P::InterTokenLatencyP99 => number(
                observed.gap_p99,
                "the 99th percentile of the gap between tokens",
            ),
            P::KvCacheUsage => mean(observed.kv_usage, "the use of the KV cache"),
        }?;
        match found > 0.0 {
            true => Ok(found),
            false => Err("it was 0 in the window".to_owned()),
        }
    }
}

/// By how much, in logarithms, load differs from one window to one that is measured after a change, give or take.
const DRIFT: f64 = 0.04;

/// Load does not stay as it is.
fn drift(load: &mut Load, repeat: u64) {
    let number = (load.seed ^ repeat) & 0xffff_ffff;
    let factor = Draws::of(number as u32).factor(DRIFT);
    match &mut load.arrival {
        Arrival::Poisson { rate_per_second }
        | Arrival::Bursty {
            rate_per_second, ..
        } => {
            *rate_per_second *= factor;
        }
        Arrival::Closed { clients, .. } => {
            *clients = (f64::from(*clients) * factor).round().max(1.0) as u32;
        }
        Arrival::Trace(_) => {}
    }
}

/// A member before and after.
struct Run<'m> {
    member: &'m Member,
    before: Outcome,
    after: Outcome,
    /// Replicas after over before.
    replicas_ratio: f64,
    /// Requests that come in, a second, whatever becomes of the ones before; none of clients that wait.
    offered: Option<f64>,
}

impl Run<'_> {
    /// More comes in after the change than is served.
    fn piles_up(&self) -> bool {
        self.offered
            .is_some_and(|offered| self.after.growth_per_second > UNSETTLED_RATIO * offered)
            && self.after.waiting[2] >= 4.0
    }
}

/// What a quantity of one replica is multiplied by where there are more of them.
fn grown(quantity: P, replicas_ratio: f64) -> f64 {
    match quantity {
        P::GenerationTokensPerSecond => replicas_ratio,
        _ => 1.0,
    }
}

/// A quantity of a simulated window, as the engine's metrics would tell it.
fn value(quantity: P, outcome: &Outcome) -> Option<f64> {
    match quantity {
        P::GenerationTokensPerSecond => Some(outcome.tokens_per_second),
        P::TimeToFirstTokenMean => outcome.ttft_mean,
        P::TimeToFirstTokenP99 => outcome.ttft_p99.map(Bounded::number),
        P::InterTokenLatencyMean => outcome.gap_mean,
        P::InterTokenLatencyP99 => outcome.gap_p99.map(Bounded::number),
        P::KvCacheUsage => Some(outcome.kv_usage),
    }
}
