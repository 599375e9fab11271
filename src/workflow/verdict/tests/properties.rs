//! What holds of any observations.

use super::VerdictWord::{Fail, Pass};
use super::*;
use proptest::prelude::*;

fn worlds() -> impl Strategy<Value = World> {
    (
        any::<u64>(),
        0.7f64..1.4,
        prop::sample::select(vec![0.0, 0.002, 0.03]),
        5.0f64..150.0,
        5u32..50,
    )
        .prop_map(|(seed, ratio, failing, requests, intervals)| World {
            seed,
            ratio,
            failing: [failing, 0.002],
            requests,
            intervals,
        })
}

/// Numbers that no engine has, among others.
fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(-1.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        0.0f64..1e6,
    ]
}

fn swapped(of: &Observation) -> Observation {
    let mut other = of.clone();
    for pair in other.pairs.values_mut().flatten() {
        std::mem::swap(&mut pair.canary, &mut pair.control);
    }
    other.traffic.requests.swap(0, 1);
    other.traffic.replica_seconds.swap(0, 1);
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_only_observed_decides_nothing(
        world in worlds(),
        looks in 1u32..5,
        observed in prop::collection::btree_set(prop::sample::select(J::ALL.to_vec()), 1..7),
        times in prop_oneof![Just(0.01), Just(1.0), Just(50.0)],
    ) {
        let mut policy = VerdictPolicy::default();
        policy.modes.extend(observed.iter().map(|one| (*one, Mode::Observe)));
        let observations = world.observations(looks);
        let mut other = observations.clone();
        for one in &mut other {
            for (quantity, pairs) in &mut one.pairs {
                if observed.contains(quantity) {
                    pairs.iter_mut().for_each(|pair| pair.canary.numerator *= times);
                }
            }
        }
        let (one, other) = (verdict(&observations, &policy), verdict(&other, &policy));
        prop_assert_eq!((one.word, one.look), (other.word, other.look));
        prop_assert_eq!(one.quantities.len(), 7);
    }

    #[test]
    fn harm_that_was_proven_is_not_undone(
        world in worlds(),
        clean in any::<u64>(),
        order in Just([0usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let harmful = World { ratio: 1.6, requests: world.requests.max(20.0), intervals: 40, ..world };
        let clean = World { seed: clean, ratio: 0.9, failing: [0.0, 0.0], requests: 100.0, intervals: 40 };
        let all = [harmful.observation(0), harmful.observation(1), clean.observation(2), clean.observation(3)];
        let mixed: Vec<Observation> = order.iter().map(|at| all[*at].clone()).collect();
        let mut failed = false;
        for count in 1..=mixed.len() {
            let found = word(&mixed[..count]);
            failed |= found == Fail;
            prop_assert!(!failed || found == Fail);
            prop_assert_ne!(found, Pass);
        }
        prop_assert!(failed);
    }

    #[test]
    fn too_few_never_pass(world in worlds(), looks in 1u32..5, few_intervals in any::<bool>()) {
        let few = match few_intervals {
            true => World { intervals: 19 / looks, ..world },
            false => World { requests: 1.0, intervals: 40, ..world },
        };
        prop_assert_ne!(word(&few.observations(looks)), Pass);
    }

    #[test]
    fn units_change_nothing(world in worlds(), looks in 1u32..5, times in 1e-6f64..1e6) {
        let observations = world.observations(looks);
        let mut other = observations.clone();
        for one in &mut other {
            for mean in [J::TimeToFirstTokenMean, J::InterTokenLatencyMean, J::EndToEndLatencyMean] {
                for pair in one.pairs.get_mut(&mean).unwrap() {
                    pair.canary.numerator *= times;
                    pair.control.numerator *= times;
                }
            }
        }
        let policy = VerdictPolicy::default();
        let (one, other) = (verdict(&observations, &policy), verdict(&other, &policy));
        prop_assert_eq!(one.word, other.word);
        for (one, other) in one.quantities.iter().zip(&other.quantities) {
            prop_assert_eq!(one.word, other.word);
            if let (Some(one), Some(other)) = (one.interval, other.interval) {
                prop_assert!((one.0 / other.0 - 1.0).abs() < 1e-6 && (one.1 / other.1 - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn swapped_sides_mirror(world in worlds(), looks in 1u32..5) {
        let observations = world.observations(looks);
        let mirrored: Vec<Observation> = observations.iter().map(swapped).collect();
        // at one look of one prefix: harm of one side ends the looks of that side only
        let policy = VerdictPolicy { harm_ratio: 1.0, harm_share: 1.0, ..VerdictPolicy::default() };
        let (one, other) = (verdict(&observations, &policy), verdict(&mirrored, &policy));
        for (one, other) in one.quantities.iter().zip(&other.quantities) {
            prop_assert_eq!(one.canary, other.control);
            prop_assert_eq!(one.intervals, other.intervals);
            if let (Some(one), Some(other)) = (one.interval, other.interval) {
                prop_assert!((one.0 * other.1 - 1.0).abs() < 1e-6 && (one.1 * other.0 - 1.0).abs() < 1e-6);
            }
            if let (Some(one), Some(other)) = (one.difference_interval, other.difference_interval) {
                prop_assert!((one.0 + other.1).abs() < 1e-9 && (one.1 + other.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn nothing_panics_and_nothing_that_cannot_be_passes(
        cells in prop::collection::vec(prop::array::uniform4(numbers()), 0..60),
        traffic in prop::array::uniform4(numbers()),
        looks in 1u32..5,
        evidence in prop::sample::select(vec![Evidence::SameTime, Evidence::BeforeAfter]),
    ) {
        let mut observations = World::default().observations(looks);
        for one in &mut observations {
            one.evidence = evidence;
            one.traffic.requests = [traffic[0], traffic[1]];
            one.traffic.prompt_tokens = Some([traffic[2], traffic[3]]);
            for (at, pairs) in one.pairs.values_mut().enumerate() {
                *pairs = cells.iter().cycle().skip(at).take(cells.len()).map(|cell| Pair::from(*cell)).collect();
            }
        }
        let found = verdict(&observations, &VerdictPolicy::default());
        let sound = cells.iter().filter(|cell| Pair::from(**cell).is_sound()).count();
        if sound * (looks as usize) < 20 {
            prop_assert_ne!(found.word, Pass);
        }
        // whatever is said can be written down and read again
        let text = serde_json::to_string(&found).unwrap();
        let read: Verdict = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read, found);
    }

    #[test]
    fn events_come_back_as_they_were_and_are_small(world in worlds(), number in 0u32..9) {
        let one = World { intervals: 56, ..world }.observation(number);
        let rounded = Observation {
            pairs: one.pairs.iter().map(|(quantity, pairs)| (*quantity, pairs.iter().map(|pair| pair.rounded()).collect())).collect(),
            ..one
        };
        let text = serde_json::to_string(&rounded).unwrap();
        prop_assert!(text.len() < 16_000, "{}", text.len());
        prop_assert_eq!(serde_json::from_str::<Observation>(&text).unwrap(), rounded);
        let policy = VerdictPolicy::default();
        let said = verdict(&[world.observation(number)], &policy);
        let text = serde_json::to_string(&said).unwrap();
        prop_assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), said);
        let text = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(serde_json::from_str::<VerdictPolicy>(&text).unwrap(), policy);
    }
}
