//! How the set was chosen: seeds, one after another, whose change truly is what it says it is, as many of each kind and
//! class as there should be. `cargo bench --bench verdict -- --choose` prints the set anew. Nothing here judges.

use std::collections::BTreeMap;

use super::super::diagnosis::on_two_threads;
use super::truth::effects;
use super::{Chosen, Class, Kind, trial};

/// How many of each kind in each class.
fn quota(kind: Kind, class: Class) -> usize {
    match (kind, class) {
        (Kind::Same, Class::None) => 400,
        (Kind::Faster | Kind::Better, Class::None) => 80,
        (Kind::Traded, Class::None) => 40,
        (_, Class::None) => 0,
        (Kind::Slower | Kind::Worse, _) => 20,
        (Kind::TailOnly | Kind::ErrorsOnly | Kind::Late, _) => 10,
        _ => 0,
    }
}

const CLASSES: [Class; 3] = [Class::Mild, Class::Clear, Class::Gross];
/// Seeds that are tried at once.
const BATCH: u64 = 32;
/// Of one kind.
const MOST_SEEDS: u64 = 6_000;

/// The set, or what of it is of one kind.
pub(crate) fn chosen(only: Option<&str>) -> Vec<Chosen> {
    let mut set = Vec::new();
    let kinds = [
        Kind::Same,
        Kind::Faster,
        Kind::Better,
        Kind::Traded,
        Kind::Slower,
        Kind::Worse,
        Kind::TailOnly,
        Kind::ErrorsOnly,
        Kind::Late,
    ];
    let is_wanted = |kind: &Kind| only.is_none_or(|only| only == format!("{kind:?}"));
    for kind in kinds.into_iter().filter(is_wanted) {
        let classes: &[Class] = match kind.is_harm() {
            true => &CLASSES,
            false => &[Class::None],
        };
        let mut left: BTreeMap<Class, usize> = classes
            .iter()
            .map(|class| (*class, quota(kind, *class)))
            .collect();
        let mut why: BTreeMap<String, usize> = BTreeMap::new();
        let mut first = 1;
        while left.values().any(|left| *left > 0) && first < MOST_SEEDS {
            let seeds: Vec<u64> = (first..first + BATCH).collect();
            first += BATCH;
            let classes = on_two_threads(&seeds, |seed| match kind {
                Kind::Same => Ok(Class::None),
                kind => effects(&trial(*seed, kind))?.class(kind),
            });
            for (seed, class) in seeds.into_iter().zip(classes) {
                match class {
                    Ok(class) => {
                        let left = left.entry(class).or_default();
                        if *left > 0 {
                            *left -= 1;
                            set.push(Chosen { kind, class, seed });
                        }
                    }
                    Err(reason) => *why.entry(reason).or_default() += 1,
                }
            }
        }
        let mut why: Vec<(usize, String)> =
            why.into_iter().map(|(why, count)| (count, why)).collect();
        why.sort_by(|one, other| other.cmp(one));
        why.truncate(3);
        eprintln!("{kind:?}: {first} seeds tried, {left:?} left; not taken most for {why:?}");
    }
    set
}

/// The set as its file has it.
pub(crate) fn text(set: &[Chosen]) -> String {
    let lines: Vec<String> = set
        .iter()
        .map(|one| {
            format!(
                "{{\"kind\": \"{:?}\", \"class\": \"{:?}\", \"seed\": {}}}",
                one.kind, one.class, one.seed
            )
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}
