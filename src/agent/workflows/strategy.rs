//! How a change is asked to go out, checked and filled in.

use std::time::Duration;

use crate::agent::FieldViolation;
use crate::config::{APPROVAL_TIMES, STEP_TIMES};
use crate::workflow::{Canary, QualityPolicy, Strategy};

/// How a change is to go out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub enum StrategyAsked {
    /// To one target after the other.
    InPlace,
    /// To a part of the targets first, where there are several that can be told apart.
    Canary(CanaryAsked),
}

/// How a change goes out part by part; what is none is the default.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct CanaryAsked {
    /// Which share of the targets has the change after each step. Empty for the default.
    pub shares: Vec<f64>,
    /// What is measured so long after a part is ready does not count.
    pub warm_up: Option<Duration>,
    /// How long a part is observed.
    pub observe: Option<Duration>,
    /// How long somebody has to decide where that does not tell.
    pub decision: Option<Duration>,
    /// How long a target has to finish its requests.
    pub drain: Option<Duration>,
    /// How many others have to be ready.
    pub least_ready: u32,
    /// How much worse a quantity may be and still pass.
    pub tolerance_ratio: Option<f64>,
    /// Somebody has to agree between the first part and the rest.
    pub gate_before_rollout: bool,
    /// And after each part that follows.
    pub gate_each_step: bool,
}

const MAX_SHARES: usize = 16;

impl StrategyAsked {
    /// The strategy, and what is wrong with what was asked.
    pub(super) fn spec(
        &self,
        quality: Option<QualityPolicy>,
        wrong: &mut Vec<FieldViolation>,
    ) -> Strategy {
        match self {
            Self::InPlace => Strategy::InPlace,
            Self::Canary(asked) => Strategy::Canary(Box::new(Canary {
                quality,
                ..asked.spec(wrong)
            })),
        }
    }
}

impl CanaryAsked {
    fn spec(&self, wrong: &mut Vec<FieldViolation>) -> Canary {
        let default = Canary::default();
        let is_share = |share: &f64| *share > 0.0 && *share <= 1.0;
        let rising = self.shares.is_sorted_by(|one, next| one < next);
        if self.shares.len() > MAX_SHARES || !rising || !self.shares.iter().all(is_share) {
            let why = format!(
                "must be at most {MAX_SHARES} numbers above 0 and at most 1, each larger than the one before, such as 0.1, 0.5, 1"
            );
            wrong.push(FieldViolation::new("canary.shares", why));
        }
        let tolerance_ratio = self.tolerance_ratio.unwrap_or(default.tolerance_ratio);
        if !(0.0..=1.0).contains(&tolerance_ratio) {
            let why = "must be from 0 to 1, such as 0.05".to_owned();
            wrong.push(FieldViolation::new("canary.tolerance_ratio", why));
        }
        let none_too = (Duration::ZERO, STEP_TIMES.1);
        let mut seconds = |field: &str, asked: Option<Duration>, default: f64, (least, most)| {
            let Some(time) = asked else { return default };
            if !(least..=most).contains(&time) {
                let why = format!(
                    "must be from {} to {}",
                    humantime::format_duration(least),
                    humantime::format_duration(most)
                );
                wrong.push(FieldViolation::new(field, why));
            }
            time.as_secs_f64()
        };
        Canary {
            warm_up_seconds: seconds(
                "canary.warm_up",
                self.warm_up,
                default.warm_up_seconds,
                none_too,
            ),
            observe_seconds: seconds(
                "canary.observe",
                self.observe,
                default.observe_seconds,
                STEP_TIMES,
            ),
            decision_seconds: seconds(
                "canary.decision",
                self.decision,
                default.decision_seconds,
                APPROVAL_TIMES,
            ),
            drain_seconds: seconds("canary.drain", self.drain, default.drain_seconds, none_too),
            least_ready: self.least_ready,
            tolerance_ratio,
            gate_before_rollout: self.gate_before_rollout,
            gate_each_step: self.gate_each_step,
            shares: match self.shares.is_empty() {
                true => default.shares.clone(),
                false => self.shares.clone(),
            },
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_of(asked: CanaryAsked) -> Vec<String> {
        let mut wrong = Vec::new();
        StrategyAsked::Canary(asked).spec(None, &mut wrong);
        wrong.into_iter().map(|one| one.field).collect()
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        assert!(wrong_of(CanaryAsked::default()).is_empty());
        for shares in [
            vec![0.5, 0.1],
            vec![0.0],
            vec![1.1],
            vec![f64::NAN],
            vec![0.2, 0.2],
        ] {
            let asked = CanaryAsked {
                shares,
                ..CanaryAsked::default()
            };
            assert_eq!(wrong_of(asked), ["canary.shares"]);
        }
        let asked = CanaryAsked {
            tolerance_ratio: Some(f64::NAN),
            observe: Some(Duration::ZERO),
            drain: Some(Duration::ZERO),
            ..CanaryAsked::default()
        };
        assert_eq!(
            wrong_of(asked),
            ["canary.tolerance_ratio", "canary.observe"]
        );
    }
}
