//! How the instance would serve, at a glance: for comparing many changes.

use crate::measure::Bounded;
use crate::optimization::proposal::ModelChange;
use crate::optimization::score::Service;

use super::member::Member;
use super::outcome::Outcome;
use super::{Twin, apply};

/// What is expected of a change at a glance, for comparing many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Glance {
    /// How the instance would serve.
    pub(crate) service: Service,
    /// Tokens that it cost to compute.
    pub(crate) work_tokens: u64,
}

/// A share of failures that is as good as none.
const FEW: f64 = 0.002;
/// Members that a glance asks.
const GLANCE_MEMBERS: usize = 4;

impl Twin {
    /// How the instance serves as it is: what was measured, and what the members say where that is only bounded.
    pub(crate) fn now(&self) -> Service {
        let members = self.ensemble.members.iter().take(GLANCE_MEMBERS);
        self.service(members.map(|member| (member, &member.before)))
            .unwrap_or_default()
    }

    /// What is expected of a change, by the members that weigh most.
    ///
    /// # Errors
    /// Why an engine cannot be so, as a sentence.
    pub(crate) fn glance(&self, changes: &[ModelChange]) -> Result<Glance, String> {
        let plan = self.ensemble.plan;
        let mut after: Vec<(&Member, Outcome)> = Vec::new();
        for member in self.ensemble.members.iter().take(GLANCE_MEMBERS) {
            let (settings, load) = apply::apply(member, self.observed.replicas, changes)?;
            if let Some(outcome) = member.after(&settings, &load, &plan) {
                after.push((member, outcome));
            }
        }
        let work_tokens = after.iter().map(|(_, outcome)| outcome.work_tokens).sum();
        let all = after.iter().map(|(member, outcome)| (*member, outcome));
        let mut service = self
            .service(all)
            .ok_or("what would come of it is too much to simulate")?;
        service.tokens_per_second *= apply::replicas_ratio(self.observed.replicas, changes);
        Ok(Glance {
            service,
            work_tokens,
        })
    }

    /// How it serves, by the mean of what members say, set right by what was measured.
    fn service<'m>(&self, all: impl Iterator<Item = (&'m Member, &'m Outcome)>) -> Option<Service> {
        let observed = &self.observed;
        let grows = self.ensemble.plan.backlog.is_some();
        let (mut service, mut weights) = (Service::default(), 0.0);
        for (member, outcome) in all {
            let weight = member.weight;
            let number = |value: Option<Bounded>| match value {
                Some(Bounded::Value(value)) => Some(value),
                _ => None,
            };
            // the member's word, times what it was off by before
            let right = |after: f64, before: Option<f64>, measured: Option<f64>| {
                let off = before.zip(measured).filter(|(before, _)| *before > 0.0);
                match off {
                    Some((before, measured)) if !grows => {
                        after * (measured / before).clamp(0.5, 2.0)
                    }
                    _ => after,
                }
            };
            let ttft = outcome.summary.time_to_first_token_seconds?;
            let before_ttft = member.before.summary.time_to_first_token_seconds;
            let p50 = right(
                ttft.p50,
                before_ttft.map(|one| one.p50),
                number(observed.ttft_p50),
            );
            let p99 = right(
                ttft.p99,
                before_ttft.map(|one| one.p99),
                number(observed.ttft_p99),
            );
            let gap = outcome.summary.inter_token_seconds?;
            let before_gap = member.before.summary.inter_token_seconds;
            let gap_p99 = right(
                gap.p99,
                before_gap.map(|one| one.p99),
                number(observed.gap_p99),
            );
            let gap_mean = right(gap.mean, before_gap.map(|one| one.mean), observed.gap_mean);
            let tokens = right(
                outcome.tokens_per_second,
                Some(member.before.tokens_per_second),
                Some(observed.tokens_per_second),
            );
            service.ttft_p50_seconds += weight * p50.max(1e-9).ln();
            service.ttft_p99_seconds += weight * p99.max(1e-9).ln();
            service.itl_p99_seconds += weight * gap_p99.max(1e-9).ln();
            service.itl_mean_seconds += weight * gap_mean.max(1e-9).ln();
            service.tokens_per_second += weight * tokens.max(1e-9).ln();
            // what was counted, by as much as the member has it fall or rise
            let [after, before] = [outcome, &member.before].map(|one| FEW + one.failure_ratio);
            service.failure_ratio += weight * observed.refused_ratio() * after / before;
            weights += weight;
        }
        if weights <= 0.0 {
            return None;
        }
        let middle = |sum: f64| (sum / weights).exp();
        Some(Service {
            ttft_p50_seconds: middle(service.ttft_p50_seconds),
            ttft_p99_seconds: middle(service.ttft_p99_seconds),
            itl_p99_seconds: middle(service.itl_p99_seconds),
            itl_mean_seconds: middle(service.itl_mean_seconds),
            tokens_per_second: middle(service.tokens_per_second) * f64::from(observed.replicas),
            failure_ratio: service.failure_ratio / weights,
        })
    }
}
