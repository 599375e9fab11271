//! Whether what came in on both sides is alike enough for a verdict.

use super::observation::{Observation, Traffic};
use super::outcome::VerdictWord as W;
use super::policy::VerdictPolicy;

/// Why a verdict would be due to what came in: a canary that got easier requests proves nothing by being good, and one that
/// got harder ones nothing by being bad. The other way round a verdict stands: a slow canary that a balancer spares
/// is worse all the same.
pub(super) fn explained(
    word: W,
    observations: &[Observation],
    policy: &VerdictPolicy,
) -> Option<String> {
    let traffics: Vec<Traffic> = observations.iter().map(|one| one.traffic).collect();
    let requests = [0, 1].map(|side| total(&traffics, |one| one.requests, side));
    if requests
        .iter()
        .any(|count| *count < f64::from(policy.least_requests))
    {
        return None;
    }
    let load = |one: &Traffic| {
        let [canary, control] = one.replica_seconds;
        let [of_canary, of_control] = one.requests;
        (canary > 0.0 && control > 0.0).then(|| [of_canary / canary, of_control / control])
    };
    for (what, of) in [
        ("load of each replica", &load as &dyn Fn(&Traffic) -> _),
        ("mean prompt", &|one: &Traffic| one.prompt_tokens),
        ("mean output", &|one: &Traffic| one.output_tokens),
    ] {
        let Some(ratio) = ratio(&traffics, of) else {
            continue;
        };
        let (easier, harder) = (
            ratio < 1.0 / policy.most_traffic_ratio,
            ratio > policy.most_traffic_ratio,
        );
        if (word == W::Pass && easier) || (word == W::Fail && harder) {
            return Some(format!(
                "the {what} of the canary was {ratio:.2} times that of the control, which alone can explain what was seen"
            ));
        }
    }
    None
}

fn total(of: &[Traffic], part: impl Fn(&Traffic) -> [f64; 2], side: usize) -> f64 {
    let sides = of.iter().map(part);
    sides
        .filter_map(|both| both.get(side).copied())
        .filter(|one| one.is_finite())
        .sum()
}

/// Canary over control, of the means over the windows by their requests.
fn ratio(of: &[Traffic], value: &dyn Fn(&Traffic) -> Option<[f64; 2]>) -> Option<f64> {
    let mut sums = [[0.0, 0.0]; 2];
    for one in of {
        let Some(both) = value(one) else { continue };
        for ((sum, value), weight) in sums.iter_mut().zip(both).zip(one.requests) {
            sum[0] += value * weight;
            sum[1] += weight;
        }
    }
    let [canary, control] = sums.map(|[sum, weight]| sum / weight);
    let ratio = canary / control;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}
