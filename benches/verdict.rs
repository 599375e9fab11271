//! How right are the verdicts on canaries? Seeded pools whose change truly harms, helps or does nothing, what became of
//! each change, and the goal beside it.
//!
//! `cargo bench --bench verdict`; of one kind `-- --kind Late`, of each tenth `-- --every 10`; `-- --rows` prints what
//! became of each, `-- --case SEED --kind KIND` says all of one; `-- --choose` prints the set anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../tests/support/diagnosis.rs"]
mod diagnosis;
#[path = "../tests/support/trials.rs"]
mod trials;

use std::collections::BTreeMap;
use std::time::Instant;

use perfagent::workflow::VerdictWord;
use trials::rollout::{End, Ended, ended};
use trials::truth::effects;
use trials::{Chosen, Class, Kind, choose};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let has = |flag: &str| arguments.iter().any(|one| one == flag);
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    if has("--choose") {
        print!("{}", choose::text(&choose::chosen(after("--kind"))));
        return;
    }
    let every: usize = after("--every").map_or(1, |text| text.parse().expect("a number"));
    let seed: Option<u64> = after("--case").map(|text| text.parse().expect("a seed"));
    let wanted: Vec<Chosen> = trials::all()
        .into_iter()
        .filter(|one| after("--kind").is_none_or(|kind| kind == format!("{:?}", one.kind)))
        .filter(|one| seed.is_none_or(|seed| seed == one.seed))
        .step_by(every)
        .collect();
    let start = Instant::now();
    let outcomes = diagnosis::on_two_threads(&wanted, outcome);
    if has("--rows") || seed.is_some() {
        for (chosen, outcome) in wanted.iter().zip(&outcomes) {
            print_row(chosen, outcome);
        }
    }
    if seed.is_some() {
        for (chosen, outcome) in wanted.iter().zip(&outcomes) {
            explain(chosen, outcome);
        }
        return;
    }
    print_figures(&wanted, &outcomes);
    println!(
        "{} trials in {:.0} s",
        wanted.len(),
        start.elapsed().as_secs_f64()
    );
}

fn outcome(chosen: &Chosen) -> Ended {
    let trial = chosen.trial();
    let truth = (chosen.kind == Kind::Traded).then(|| effects(&trial).expect("it runs"));
    ended(&trial, truth.as_ref()).expect("it runs")
}

fn print_row(chosen: &Chosen, outcome: &Ended) {
    let reason = outcome
        .verdicts
        .last()
        .map_or("", |verdict| verdict.reason.as_str());
    println!(
        "{:?} {:?} {}: {:?} after {:.0} s, {:.0} against {:.0} requests: {reason}",
        chosen.kind,
        chosen.class,
        chosen.seed,
        outcome.word,
        outcome.observed_seconds,
        outcome.requests[0],
        outcome.requests[1]
    );
}

fn explain(chosen: &Chosen, outcome: &Ended) {
    println!("{:#?}", chosen.trial());
    println!("{:#?}", effects(&chosen.trial()));
    println!("{:#?}", outcome.verdicts);
}

/// What became of those of one kind and class.
#[derive(Default)]
struct Row {
    ends: BTreeMap<End, usize>,
    seconds: Vec<f64>,
    canary_requests: Vec<f64>,
}

fn print_figures(wanted: &[Chosen], outcomes: &[Ended]) {
    let mut rows: BTreeMap<(Kind, Class), Row> = BTreeMap::new();
    for (chosen, outcome) in wanted.iter().zip(outcomes) {
        let row = rows.entry((chosen.kind, chosen.class)).or_default();
        *row.ends.entry(outcome.word).or_default() += 1;
        row.seconds.push(outcome.observed_seconds);
        row.canary_requests.push(outcome.requests[0]);
    }
    println!(
        "{:<11} {:<6} {:>6} {:>9} {:>7} {:>13} {:>14}  {:>22}  {:>22}",
        "change",
        "class",
        "trials",
        "promoted",
        "undone",
        "inconclusive",
        "not comparable",
        "observed, minutes",
        "requests of the canary"
    );
    for ((kind, class), row) in &rows {
        let of = |end| row.ends.get(&end).copied().unwrap_or(0);
        println!(
            "{:<11} {:<6} {:>6} {:>9} {:>7} {:>13} {:>14}  {:>22}  {:>22}",
            format!("{kind:?}"),
            format!("{class:?}"),
            row.seconds.len(),
            of(End::Promoted),
            of(End::Failed),
            of(End::Inconclusive),
            of(End::NotComparable),
            spread(&row.seconds, 60.0),
            spread(&row.canary_requests, 1.0)
        );
    }
    let count = |is: &dyn Fn(&Chosen, &Ended) -> bool| {
        let all = wanted.iter().zip(outcomes);
        all.filter(|(chosen, outcome)| is(chosen, outcome)).count()
    };
    let harmful = count(&|one, _| one.kind.is_harm());
    let promoted = count(&|one, end| one.kind.is_harm() && end.word == End::Promoted);
    println!("harmful, promoted: {promoted} of {harmful} (goal: none)");
    let helpful = count(&|one, _| one.kind.is_help());
    let held = count(&|one, end| one.kind.is_help() && end.word != End::Promoted);
    println!("helpful, not promoted: {held} of {helpful} (goal: at most 5 %)");
    let same = count(&|one, _| one.kind == Kind::Same);
    let failed = count(&|one, end| {
        let fails = end.verdicts.iter().any(|one| one.word == VerdictWord::Fail);
        one.kind == Kind::Same && (fails || end.word == End::Failed)
    });
    println!("no change, undone: {failed} of {same} (goal: at most 5 %)");
}

/// Least, median and most.
fn spread(of: &[f64], unit: f64) -> String {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize] / unit;
    format!("{:.0} / {:.0} / {:.0}", at(0.0), at(0.5), at(1.0))
}
