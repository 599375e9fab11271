//! Flags of `perfagent workflow start` that say how a change goes out.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::convert::duration;
use crate::edge::grpc::pb;

/// How a change goes out.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes out")]
pub(super) struct CanaryArgs {
    /// To a part of the replicas first, which is judged against the rest, or to one after the other [default: canary,
    /// where there are several replicas that the actuator tells apart]
    #[arg(long, value_enum, value_name = "HOW")]
    strategy: Option<Strategy>,
    /// Share of the replicas that has the change after a step, such as 10%; may be repeated, rising [default: 10% 50% 100%]
    #[arg(long = "canary", value_parser = share, value_name = "SHARE")]
    shares: Vec<f64>,
    /// How long a part is held against the rest; where that does not tell, once more as long [default: 15m]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    observe: Option<Duration>,
    /// What is measured so long after a part is ready does not count [default: 1m]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    warm_up: Option<Duration>,
    /// How long a replica has to finish its requests before it is restarted [default: 30s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    drain: Option<Duration>,
    /// How long somebody has to decide where the observation does not tell; then it is undone [default: 1d]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    decision: Option<Duration>,
    /// Replicas that have to be ready beside the one that is written
    #[arg(long, value_name = "NUMBER")]
    least_ready: Option<u32>,
    /// How much worse a quantity may be and still pass [default: 5%]
    #[arg(long, value_parser = share, value_name = "SHARE")]
    tolerance: Option<f64>,
    /// Somebody has to agree between the first part and the rest
    #[arg(long)]
    gate_before_rollout: bool,
    /// Somebody has to agree after each part
    #[arg(long)]
    gate_each_step: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// A part first
    Canary,
    /// One after the other
    InPlace,
}

/// `10%` or `0.1`.
fn share(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map(|number| number / of);
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "give a share such as 10% or 0.1".to_owned())
}

impl CanaryArgs {
    pub(super) fn strategy(&self) -> pb::WorkflowStrategy {
        match self.strategy {
            None => pb::WorkflowStrategy::Unspecified,
            Some(Strategy::Canary) => pb::WorkflowStrategy::Canary,
            Some(Strategy::InPlace) => pb::WorkflowStrategy::InPlace,
        }
    }

    /// None where nothing is asked for.
    pub(super) fn on_the_wire(&self) -> Result<Option<pb::WorkflowCanary>, Failure> {
        let canary = pb::WorkflowCanary {
            shares: self.shares.clone(),
            warm_up: self.warm_up.and_then(duration),
            observe: self.observe.and_then(duration),
            decision: self.decision.and_then(duration),
            drain: self.drain.and_then(duration),
            least_ready: self.least_ready.unwrap_or(0),
            tolerance_ratio: self.tolerance,
            gate_before_rollout: self.gate_before_rollout,
            gate_each_step: self.gate_each_step,
            ..pb::WorkflowCanary::default()
        };
        let asked = Some(canary).filter(|canary| *canary != pb::WorkflowCanary::default());
        match (asked, self.strategy) {
            (Some(_), Some(Strategy::InPlace)) => {
                let text = "these flags are for --strategy canary";
                let hint =
                    "leave --strategy in-place out, or the flags that say how a canary goes out";
                Err(Failure::new(Outcome::Usage, text, Some(hint)))
            }
            (asked, _) => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parts_or_percent() {
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(share("0.5"), Ok(0.5));
        assert_eq!(share("100 %"), Ok(1.0));
        for wrong in ["", "%", "150%", "-1", "NaN", "ten"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
