//! Each rule by an example.

use super::VerdictWord::{Fail, Inconclusive, NotComparable, Pass};
use super::*;
use crate::optimization::{PredictedQuantity, Prediction, PredictionBasis, QuantityPrediction};

fn said(world: World, looks: u32) -> Verdict {
    verdict(&world.observations(looks), &VerdictPolicy::default())
}

#[test]
fn a_canary_that_changes_nothing_passes_when_enough_is_known_and_not_before() {
    let same = World::default();
    for (looks, expected) in [
        (0, Inconclusive),
        (1, Inconclusive),
        (2, Inconclusive),
        (3, Pass),
    ] {
        let said = said(same, looks);
        assert_eq!(said.word, expected, "{looks}: {}", said.reason);
        assert_eq!(said.look, looks);
    }
    let early = said(same, 2);
    assert!(
        early.reason.contains("nothing passes before look 3"),
        "{}",
        early.reason
    );
}

#[test]
fn harm_is_called_at_the_first_look_that_proves_it_and_stays_called() {
    let harmful = World {
        ratio: 1.3,
        ..World::default()
    };
    let first = said(harmful, 1);
    assert_eq!((first.word, first.look), (Fail, 1), "{}", first.reason);
    assert!(
        first.reason.contains("The canary does harm"),
        "{}",
        first.reason
    );
    let mut observations = harmful.observations(1);
    observations.extend(World::default().observations(3));
    let later = verdict(&observations, &VerdictPolicy::default());
    assert_eq!((later.word, later.look), (Fail, 1));
}

#[test]
fn harm_that_begins_late_is_seen_in_the_newest_part() {
    let mut observations = World::default().observations(2);
    observations.push(
        World {
            ratio: 1.15,
            ..World::default()
        }
        .observation(2),
    );
    let late = verdict(&observations, &VerdictPolicy::default());
    assert_eq!(late.word, Fail, "{}", late.reason);
    // a little less is no proof of harm over all, and passes neither
    observations[2] = World {
        ratio: 1.07,
        ..World::default()
    }
    .observation(2);
    let late = verdict(&observations, &VerdictPolicy::default());
    assert_ne!(late.word, Pass, "{}", late.reason);
}

#[test]
fn failures_alone_fail_a_canary_and_none_of_many_is_enough() {
    let fails = World {
        failing: [0.02, 0.0],
        ..World::default()
    };
    let found = said(fails, 1);
    assert_eq!(found.word, Fail);
    assert!(found.reason.contains("failed requests"), "{}", found.reason);
    let few = World {
        requests: 6.0,
        ..World::default()
    };
    let failures = |world| of(&said(world, 3), J::FailureShare).clone();
    assert_eq!(failures(few).word, Inconclusive, "0 of 700 may be 1 in 200");
    assert_eq!(failures(World::default()).word, Pass);
}

#[test]
fn what_was_predicted_and_approved_may_become_worse_and_no_more() {
    let slower = World {
        ratio: 1.12,
        ..World::default()
    };
    let means = [
        J::TimeToFirstTokenMean,
        J::InterTokenLatencyMean,
        J::EndToEndLatencyMean,
    ];
    let tails = [
        J::TimeToFirstTokenBeyond,
        J::InterTokenLatencyBeyond,
        J::EndToEndLatencyBeyond,
    ];
    let mut policy = VerdictPolicy::default();
    // bounds of the tails would have moved with it
    policy.modes.extend(tails.map(|tail| (tail, Mode::Observe)));
    assert_eq!(verdict(&slower.observations(3), &policy).word, Fail);
    policy.accepted_ratio.extend(means.map(|mean| (mean, 1.2)));
    let accepted = verdict(&slower.observations(3), &policy);
    assert_eq!(accepted.word, Pass, "{}", accepted.reason);
    let more = World {
        ratio: 1.3,
        ..slower
    };
    assert_eq!(verdict(&more.observations(3), &policy).word, Fail);
}

#[test]
fn what_is_tolerated_of_a_large_share_is_no_harm() {
    let policy = VerdictPolicy {
        tolerance_ratio: 0.2,
        harm_ratio: 0.2,
        ..VerdictPolicy::default()
    };
    for share in [0.0, 0.05, 0.225, 0.9] {
        let (tail, failures) = (J::InterTokenLatencyBeyond, J::FailureShare);
        let harm = policy.harm_from_difference(tail, share);
        assert!(harm <= policy.most_difference(tail, share));
        assert!((harm - f64::max(0.002, 0.2 * share)).abs() < 1e-12);
        assert_eq!(policy.harm_from_difference(failures, share), 0.002);
    }
}

#[test]
fn a_prediction_is_accepted_to_the_worse_end_of_its_interval() {
    let one = |quantity, ratio, ratio_low, ratio_high| QuantityPrediction {
        quantity,
        before: 1.0,
        ratio,
        ratio_low,
        ratio_high,
    };
    let mut policy = VerdictPolicy::default();
    policy.accept(&Prediction {
        quantities: vec![
            one(PredictedQuantity::TimeToFirstTokenMean, 0.5, 0.4, 0.7),
            one(PredictedQuantity::InterTokenLatencyMean, 1.1, 1.0, 1.2),
            one(PredictedQuantity::InterTokenLatencyP99, 1.3, 1.1, 1.5),
            one(PredictedQuantity::TimeToFirstTokenP99, 0.8, 0.6, 1.1),
            one(PredictedQuantity::GenerationTokensPerSecond, 0.9, 0.8, 1.0),
        ],
        unpredicted: Vec::new(),
        basis: PredictionBasis {
            windows: 1,
            observed_requests: 100.0,
            simulated_requests: 100,
            simulations: 1,
            mismatch_ratio: 0.0,
            assumptions: Vec::new(),
            track_record: 0,
        },
    });
    assert_eq!(
        policy.accepted_ratio,
        BTreeMap::from([
            (J::InterTokenLatencyMean, 1.2),
            (J::EndToEndLatencyMean, 1.2),
            // where tails are said to move by more than means, their bounds do
            (J::InterTokenLatencyBeyond, 1.5),
            (J::EndToEndLatencyBeyond, 1.5),
            (J::GenerationTokensPerSecond, 1.25),
        ])
    );
    assert_eq!(policy.check(), Ok(()));
}

#[test]
fn what_cannot_be_compared_is_not() {
    let same = World::default().observations(3);
    let changed = |of: fn(&mut Observation)| {
        let mut other = same.clone();
        other.iter_mut().for_each(of);
        verdict(&other, &VerdictPolicy::default())
    };
    for (what, of) in [
        (
            "simulated",
            (|one| one.simulated = true) as fn(&mut Observation),
        ),
        ("only one side tells it", |one| {
            one.pairs.remove(&J::FailureShare);
            one.one_sided = vec![J::FailureShare];
        }),
        ("nothing to judge by", |one| {
            one.pairs.retain(|quantity, _| *quantity == J::FailureShare)
        }),
        ("mean prompt", |one| {
            one.traffic.prompt_tokens = Some([60.0, 100.0])
        }),
        ("load of each replica", |one| one.traffic.requests[0] *= 0.5),
    ] {
        let found = changed(of);
        assert_eq!(found.word, NotComparable, "{what}: {}", found.reason);
        assert!(found.reason.contains(what), "{what}: {}", found.reason);
    }
    // harder requests prove no harm, and take nothing from a pass
    assert_eq!(
        changed(|one| one.traffic.prompt_tokens = Some([200.0, 100.0])).word,
        Pass
    );
    let mut mixed = same.clone();
    mixed[1].engine = "sglang".to_owned();
    assert_eq!(word(&mixed), NotComparable);
    mixed[1] = same[1].clone();
    mixed[1].bounds.end_to_end_latency_seconds = Some(1.0);
    assert_eq!(word(&mixed), NotComparable);
    let mut harmed = World {
        ratio: 1.5,
        ..World::default()
    }
    .observations(1);
    harmed[0].traffic.requests[0] *= 2.0;
    assert_eq!(word(&harmed), NotComparable);
    // a balancer that spares a slow canary hides nothing
    harmed[0].traffic.requests[0] *= 0.25;
    assert_eq!(word(&harmed), Fail);
}

#[test]
fn throughput_counts_only_where_requests_wait() {
    let rate = |canary: f64| {
        let mut all = World::default().observations(3);
        let mut random = Random(9);
        for one in &mut all {
            let pairs = (0..40).map(|_| Pair {
                canary: Side {
                    numerator: random.about(canary, 0.1),
                    denominator: 15.0,
                },
                control: Side {
                    numerator: random.about(3_000.0, 0.1),
                    denominator: 15.0,
                },
            });
            one.pairs
                .insert(J::GenerationTokensPerSecond, pairs.collect());
        }
        all
    };
    let mut slow = rate(2_400.0);
    assert_eq!(word(&slow), Pass, "clients asked for less");
    slow.iter_mut().for_each(|one| one.saturated = true);
    assert_eq!(word(&slow), Fail);
    let mut fast = rate(3_600.0);
    fast.iter_mut().for_each(|one| one.saturated = true);
    let found = verdict(&fast, &VerdictPolicy::default());
    assert_eq!(found.word, Pass, "{}", found.reason);
}

#[test]
fn a_window_from_before_counts_once_and_is_said_to_be_weaker() {
    let mut all = World::default().observations(3);
    let first = all[0].clone();
    for one in &mut all {
        one.evidence = Evidence::BeforeAfter;
        one.control_start_unix_seconds = -600.0;
        one.control_end_unix_seconds = 0.0;
        for (quantity, pairs) in &mut one.pairs {
            for (pair, known) in pairs.iter_mut().zip(&first.pairs[quantity]) {
                pair.control = known.control;
            }
        }
    }
    let found = verdict(&all, &VerdictPolicy::default());
    assert!(found.reason.contains("weaker evidence"), "{}", found.reason);
    let ttft = of(&found, J::TimeToFirstTokenMean);
    let once: f64 = first.pairs[&J::TimeToFirstTokenMean]
        .iter()
        .map(|pair| pair.control.denominator)
        .sum();
    assert_eq!(ttft.control_count, once);
    assert!(ttft.canary_count > 2.0 * once);
}

#[test]
fn more_observations_than_planned_are_not_judged() {
    let open = World {
        requests: 5.0,
        ..World::default()
    };
    let found = said(open, 6);
    assert_eq!(found.look, 4);
    assert!(
        found.reason.contains("Of 6 observations the 4"),
        "{}",
        found.reason
    );
}

#[test]
fn a_policy_that_means_nothing_is_refused_with_what_is_meant() {
    for (field, of) in [
        (
            "tolerance_ratio",
            (|policy| policy.tolerance_ratio = -0.1) as fn(&mut VerdictPolicy),
        ),
        ("harm_share", |policy| policy.harm_share = f64::NAN),
        ("confidence", |policy| policy.confidence = 1.0),
        ("looks", |policy| policy.looks = 0),
        ("pass_from_look", |policy| policy.pass_from_look = 9),
        ("most_traffic_ratio", |policy| {
            policy.most_traffic_ratio = 1.0
        }),
        ("accepted_ratio", |policy| {
            policy.accepted_ratio.insert(J::FailureShare, 0.5);
        }),
    ] {
        let mut policy = VerdictPolicy::default();
        of(&mut policy);
        assert_eq!(policy.check().unwrap_err().field, field);
    }
    assert_eq!(VerdictPolicy::default().check(), Ok(()));
}
