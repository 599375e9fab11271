//! Windows of a canary, gathered into looks: each look costs a little of what can be told, so that there are few of them.

use super::canary::Canary;
use super::state::Workflow;
use super::verdict::{Observation, Traffic, VerdictPolicy};
use crate::optimization::Effect;

/// Looks in the time that a part is observed; where that does not tell, there are as many again.
const LOOKS: u32 = 4;
/// The first look that may pass: harm may begin late.
const PASS_FROM_LOOK: u32 = 3;
/// Windows end a little before their time: a scrape or two are missing at their ends.
const NEARLY: f64 = 0.8;

/// What the targets that have the change have to show; none where it goes to all in one go.
pub fn verdict_policy(state: &Workflow) -> Option<VerdictPolicy> {
    let draft = &state.plan.as_ref()?.draft;
    let recommended = draft.chosen.is_some().then_some(&draft.effect);
    Some(policy_of(draft.strategy.canary()?, recommended))
}

/// The same of a plan. What a recommendation trades for its gain is approved with it, and accepted; what a caller's own
/// settings make worse is not.
pub fn policy_of(canary: &Canary, recommended: Option<&Effect>) -> VerdictPolicy {
    let mut policy = VerdictPolicy {
        tolerance_ratio: canary.tolerance_ratio,
        // what is tolerated is no harm
        harm_ratio: canary.tolerance_ratio,
        looks: 2 * LOOKS,
        pass_from_look: PASS_FROM_LOOK,
        ..VerdictPolicy::default()
    };
    if let Some(Effect::Predicted(prediction)) = recommended {
        policy.accept(prediction);
    }
    policy
}

/// Windows in order of time, gathered into looks. The last may be on its way still.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Looks {
    /// Those that are complete.
    pub(super) complete: Vec<Observation>,
    /// The last window completed one.
    pub(super) is_due: bool,
}

/// Gathers windows. However many follow, those before stay gathered as they are.
pub(super) fn looks(windows: &[Observation], canary: &Canary) -> Looks {
    let due_seconds = NEARLY * canary.observe_seconds / f64::from(LOOKS);
    let mut complete = Vec::new();
    let mut open: Option<Observation> = None;
    for window in windows {
        let gathered = match open.take() {
            Some(before) if is_alike(&before, window) => merged(before, window),
            Some(before) => {
                complete.push(before);
                window.clone()
            }
            None => window.clone(),
        };
        match gathered.end_unix_seconds - gathered.start_unix_seconds >= due_seconds {
            true => complete.push(gathered),
            false => open = Some(gathered),
        }
    }
    Looks {
        is_due: open.is_none() && !complete.is_empty(),
        complete,
    }
}

/// Whether two windows can be taken for one.
fn is_alike(one: &Observation, next: &Observation) -> bool {
    one.engine == next.engine
        && one.bounds == next.bounds
        && one.evidence == next.evidence
        && (one.simulated, one.control_simulated) == (next.simulated, next.control_simulated)
}

fn merged(mut of: Observation, next: &Observation) -> Observation {
    of.end_unix_seconds = next.end_unix_seconds;
    of.last_tick = next.last_tick;
    of.control_end_unix_seconds = next.control_end_unix_seconds;
    of.saturated &= next.saturated;
    of.traffic = traffic(&of.traffic, &next.traffic);
    for (quantity, pairs) in &next.pairs {
        of.pairs.entry(*quantity).or_default().extend(pairs);
    }
    for quantity in &next.one_sided {
        if !of.one_sided.contains(quantity) {
            of.one_sided.push(*quantity);
        }
    }
    of.dropped.extend(next.dropped.iter().cloned());
    of
}

fn traffic(one: &Traffic, next: &Traffic) -> Traffic {
    let sum = |one: [f64; 2], next: [f64; 2]| [one[0] + next[0], one[1] + next[1]];
    let mean = |one_mean: Option<[f64; 2]>, next_mean: Option<[f64; 2]>| {
        let (Some(one_mean), Some(next_mean)) = (one_mean, next_mean) else {
            return one_mean.or(next_mean);
        };
        let side = |at: usize| -> Option<f64> {
            let (ones, nexts) = (*one.requests.get(at)?, *next.requests.get(at)?);
            let all = ones + nexts;
            let total = one_mean.get(at)? * ones + next_mean.get(at)? * nexts;
            (all > 0.0).then(|| total / all)
        };
        Some([side(0)?, side(1)?])
    };
    Traffic {
        replica_seconds: sum(one.replica_seconds, next.replica_seconds),
        requests: sum(one.requests, next.requests),
        prompt_tokens: mean(one.prompt_tokens, next.prompt_tokens),
        output_tokens: mean(one.output_tokens, next.output_tokens),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workflow::JudgedQuantity;

    /// Windows of a minute, each with a pair.
    fn windows(count: u32) -> Vec<Observation> {
        let json = |at: u32| {
            let start = 1_000.0 + 60.0 * f64::from(at);
            serde_json::json!({
                "start_unix_seconds": start, "end_unix_seconds": start + 58.0,
                "first_tick": at * 12, "last_tick": at * 12 + 12, "evidence": "SAME_TIME",
                "control_start_unix_seconds": start, "control_end_unix_seconds": start + 58.0,
                "engine": "vllm", "canary_replicas": 1, "control_replicas": 1,
                "simulated": false, "control_simulated": false, "bounds": {}, "saturated": at != 1,
                "traffic": {"replica_seconds": [58.0, 58.0], "requests": [10.0, 30.0 * f64::from(at)],
                            "prompt_tokens": [100.0, 100.0 + f64::from(at)]},
                "pairs": {"TIME_TO_FIRST_TOKEN_MEAN": [[1.0, 2.0, f64::from(at), 4.0]]},
            })
        };
        let read = |at| serde_json::from_value(json(at)).unwrap();
        (0..count).map(read).collect()
    }

    fn canary(observe_seconds: f64) -> Canary {
        Canary {
            observe_seconds,
            ..Canary::default()
        }
    }

    #[test]
    fn windows_become_looks() {
        // four looks of two windows each
        let canary = canary(480.0);
        let of = |count| looks(&windows(count), &canary);
        assert_eq!((of(0).complete.len(), of(0).is_due), (0, false));
        assert_eq!((of(1).complete.len(), of(1).is_due), (0, false));
        assert_eq!((of(2).complete.len(), of(2).is_due), (1, true));
        assert_eq!((of(3).complete.len(), of(3).is_due), (1, false));
        let look = &of(2).complete[0];
        assert!(!look.saturated);
        assert_eq!(look.traffic.requests, [20.0, 30.0]);
        // the mean of what came in, not of the windows
        assert_eq!(look.traffic.prompt_tokens, Some([100.0, 101.0]));
        assert_eq!(look.pairs[&JudgedQuantity::TimeToFirstTokenMean].len(), 2);
    }

    #[test]
    fn what_cannot_be_added_up_is_a_look_of_its_own() {
        let mut windows = windows(2);
        windows[1].engine = "sglang".to_owned();
        let looks = looks(&windows, &canary(480.0));
        assert_eq!((looks.complete.len(), looks.is_due), (1, false));
    }

    proptest! {
        #[test]
        fn what_is_gathered_stays(count in 0_u32..30, observe_seconds in 1.0_f64..2_000.0) {
            let canary = canary(observe_seconds);
            let mut before = 0;
            for known in 0..=count {
                let looks = looks(&windows(known), &canary);
                prop_assert!(looks.complete.len() >= before);
                prop_assert!(!looks.is_due || looks.complete.len() == before + 1);
                before = looks.complete.len();
            }
        }
    }
}
