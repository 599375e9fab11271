//! A change that goes to a part of the targets first, and to the rest once that part has stood against it.

use serde::{Deserialize, Serialize};

use super::quality::QualityPolicy;
use super::verdict::Bounds;

/// How a change goes out part by part.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Canary {
    /// Which share of the targets has the change after each step, rising. After the last step all have.
    pub shares: Vec<f64>,
    /// What is measured so long after a part is ready does not count: caches are cold, kernels compile.
    pub warm_up_seconds: f64,
    /// How long a part is observed; where that does not tell, once more as long.
    pub observe_seconds: f64,
    /// How long somebody has to decide where the observation does not tell; then the change is undone.
    pub decision_seconds: f64,
    /// How long a target has to finish its requests before it is restarted; 0 for not at all.
    pub drain_seconds: f64,
    /// A target is written only while at least so many others are ready.
    pub least_ready: u32,
    /// How much worse a quantity may be and still pass: 0.05 for 5 %.
    pub tolerance_ratio: f64,
    /// Somebody has to agree between the first part and the rest.
    pub gate_before_rollout: bool,
    /// And after each part that follows.
    pub gate_each_step: bool,
    /// Of a change that can make answers others, how much they have to agree; none where nothing compares them, and
    /// somebody has to agree instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<QualityPolicy>,
    /// How many targets have the change after each step. Empty until it is planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u32>,
    /// Of each target in the plan's order the URL of its metrics, without what may be secret. Empty until it is planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<String>,
    /// Latencies beyond which requests are counted. Empty until it is planned.
    #[serde(default)]
    pub bounds: Bounds,
}

/// 7 % of 100 targets are 7, whatever the last bit of the product says.
const ROUNDING: f64 = 1e-9;

/// Why a change cannot go out part by part, a sentence each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCanary {
    /// Nothing is left to compare with.
    #[error("one target only: there is none to compare it with at the same time")]
    OneTarget,
    /// It is not known which metrics are whose.
    #[error(
        "the actuator does not say which replica each target is: `metrics_url` in its answer to `read`"
    )]
    UnknownReplicas,
    /// Two targets share a replica, or two replicas differ in what is not shown.
    #[error("two targets have the same replica")]
    SharedReplicas,
    /// The floor would hold it up for ever.
    #[error("as many targets have to be ready as there are: none could be restarted")]
    NoneToSpare,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            shares: vec![0.1, 0.5, 1.0],
            warm_up_seconds: 60.0,
            observe_seconds: 900.0,
            decision_seconds: 86_400.0,
            drain_seconds: 30.0,
            least_ready: 0,
            tolerance_ratio: 0.05,
            gate_before_rollout: false,
            gate_each_step: false,
            quality: None,
            steps: Vec::new(),
            replicas: Vec::new(),
            bounds: Bounds::default(),
        }
    }
}

impl Canary {
    /// The same for these targets, each with the URL of its metrics where that is known.
    ///
    /// # Errors
    /// See [`NoCanary`].
    pub fn planned(&self, replicas: &[Option<String>], bounds: Bounds) -> Result<Self, NoCanary> {
        let count = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
        if count < 2 {
            return Err(NoCanary::OneTarget);
        }
        let known: Option<Vec<String>> = replicas.iter().cloned().collect();
        let known = known.ok_or(NoCanary::UnknownReplicas)?;
        let mut unique = known.clone();
        unique.sort();
        unique.dedup();
        if unique.len() != known.len() {
            return Err(NoCanary::SharedReplicas);
        }
        if self.least_ready >= count {
            return Err(NoCanary::NoneToSpare);
        }
        let part =
            |share: &f64| ((share * f64::from(count) - ROUNDING).ceil() as u32).clamp(1, count);
        let mut steps: Vec<u32> = self.shares.iter().map(part).collect();
        // however large a share is asked for, some are left to compare the first part with
        if let Some(first) = steps.first_mut() {
            *first = (*first).min(count - 1);
        }
        steps.push(count);
        steps.sort_unstable();
        steps.dedup();
        Ok(Self {
            steps,
            replicas: known,
            bounds,
            ..self.clone()
        })
    }

    /// How many targets have the change after this step, counted from 0.
    pub fn changed_after(&self, step: u32) -> Option<u32> {
        let step = usize::try_from(step).ok()?;
        self.steps.get(step).copied()
    }

    /// All targets have the change after this step.
    pub fn is_last(&self, step: u32) -> bool {
        self.changed_after(step.saturating_add(1)).is_none()
    }

    /// The replicas that have the change after this step, and those that do not.
    pub fn sides(&self, step: u32) -> (&[String], &[String]) {
        let changed = self.changed_after(step).unwrap_or(0);
        let changed = usize::try_from(changed).unwrap_or(usize::MAX);
        self.replicas.split_at(changed.min(self.replicas.len()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replicas(count: usize) -> Vec<Option<String>> {
        (0..count).map(|at| Some(format!("http://r{at}"))).collect()
    }

    fn steps(shares: &[f64], count: usize) -> Vec<u32> {
        let canary = Canary {
            shares: shares.to_vec(),
            ..Canary::default()
        };
        let planned = canary.planned(&replicas(count), Bounds::default());
        planned.unwrap().steps
    }

    #[test]
    fn shares_become_targets() {
        assert_eq!(steps(&[0.1, 0.5, 1.0], 20), [2, 10, 20]);
        assert_eq!(steps(&[0.1, 0.5, 1.0], 2), [1, 2]);
        assert_eq!(steps(&[0.1, 0.5, 1.0], 3), [1, 2, 3]);
        assert_eq!(steps(&[0.25], 8), [2, 8]);
        assert_eq!(steps(&[1.0], 4), [3, 4]);
        assert_eq!(steps(&[], 4), [4]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_no_canary() {
        let planned = |replicas: &[Option<String>], least_ready| {
            let canary = Canary {
                least_ready,
                ..Canary::default()
            };
            canary
                .planned(replicas, Bounds::default())
                .map(|planned| planned.steps)
        };
        assert_eq!(planned(&replicas(1), 0), Err(NoCanary::OneTarget));
        let unknown = [Some("http://r0".to_owned()), None];
        assert_eq!(planned(&unknown, 0), Err(NoCanary::UnknownReplicas));
        let same = [Some("http://r0".to_owned()), Some("http://r0".to_owned())];
        assert_eq!(planned(&same, 0), Err(NoCanary::SharedReplicas));
        assert_eq!(planned(&replicas(2), 2), Err(NoCanary::NoneToSpare));
        assert_eq!(planned(&replicas(2), 1), Ok(vec![1, 2]));
    }

    proptest! {
        #[test]
        fn each_step_changes_more_and_all_but_the_last_leave_some(
            shares in prop::collection::vec(0.001_f64..=1.0, 1..5),
            count in 2_usize..300,
        ) {
            let steps = steps(&shares, count);
            prop_assert!(steps.is_sorted_by(|one, next| one < next));
            prop_assert_eq!(steps.last().copied(), u32::try_from(count).ok());
            prop_assert!(steps.len() >= 2);
        }
    }
}
