//! Verdicts on seeded canaries: a part of what `cargo bench --bench verdict` measures.

use std::collections::BTreeMap;

use super::canary_trials::rollout::{End, ended};
use super::canary_trials::truth::effects;
use super::canary_trials::{Chosen, Class, Kind, all};
use super::diagnosis::on_two_threads;

#[test]
fn the_set_is_as_large_and_as_mixed_as_it_is_said_to_be() {
    let mut counts: BTreeMap<(Kind, Class), usize> = BTreeMap::new();
    for one in all() {
        *counts.entry((one.kind, one.class)).or_default() += 1;
    }
    let of = |is: &dyn Fn(Kind) -> bool, class: Class| -> usize {
        let those = counts
            .iter()
            .filter(|((kind, of), _)| is(*kind) && *of == class);
        those.map(|(_, count)| count).sum()
    };
    for class in [Class::Mild, Class::Clear, Class::Gross] {
        assert_eq!(of(&Kind::is_harm, class), 70, "{class:?}");
    }
    assert_eq!(of(&Kind::is_help, Class::None), 200);
    assert_eq!(counts[&(Kind::Same, Class::None)], 400);
    let mut seeds: Vec<(Kind, u64)> = all().iter().map(|one| (one.kind, one.seed)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), all().len(), "one is there twice");
}

/// The first of each kind that is quickly run; of those that harm, of the mildest.
fn some() -> Vec<Chosen> {
    let mut some: BTreeMap<Kind, Chosen> = BTreeMap::new();
    let is_wanted = |one: &Chosen| {
        let mild = one.kind.is_harm() && one.class == Class::Mild;
        mild || one.kind == Kind::Faster
    };
    for one in all().into_iter().filter(is_wanted) {
        if one.trial().before.replicas == Some(2) {
            some.entry(one.kind).or_insert(one);
        }
    }
    some.into_values().collect()
}

#[test]
fn what_truly_harms_some_pools_is_not_promoted_and_what_does_not_is_not_undone() {
    let some = some();
    assert_eq!(some.len(), 6);
    let ends = on_two_threads(&some, |one| {
        let trial = one.trial();
        let truth = effects(&trial).unwrap();
        assert_eq!(truth.class(one.kind), Ok(one.class), "{one:?}");
        ended(&trial, None).unwrap().word
    });
    for (one, end) in some.iter().zip(ends) {
        match one.kind.is_harm() {
            true => assert_ne!(end, End::Promoted, "{one:?}"),
            false => assert_ne!(end, End::Failed, "{one:?}"),
        }
        if one.kind == Kind::Faster {
            assert_eq!(end, End::Promoted, "{one:?}");
        }
    }
}
