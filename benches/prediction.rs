//! How right are the predictions, and how good is what is recommended? Seeded scenarios whose truth is another engine than
//! any that can be fitted, and how each predictor does on them, beside its goal.
//!
//! `cargo bench --bench prediction`; of one half `-- --part development` or `held-back`, of one engine `-- --engine vllm`,
//! of one trouble `-- --kind QueueBound`, of each tenth `-- --every 10`; `-- --rows` prints each prediction beside what came of it; `-- --case SEED` says all of one scenario. `-- --choose` prints the seeds of the set
//! anew, `-- --grid` the set with the best settings of each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../tests/support/diagnosis.rs"]
mod diagnosis;
#[path = "../tests/support/prediction.rs"]
mod prediction;

use std::collections::BTreeMap;
use std::time::Instant;

use perfagent::optimization::PredictedQuantity;
use prediction::naive::Naive;
use prediction::ours::Ours;
use prediction::tally::{Checked, Figures, Outcome, Predictor, outcomes, quantity_name};
use prediction::{Chosen, Part, truth};

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
    if has("--choose") || has("--grid") {
        return choose(has("--choose"));
    }
    let every: usize = after("--every").map_or(1, |text| text.parse().expect("a number"));
    let all = prediction::all();
    if let Some(seed) = after("--case") {
        let seed: u64 = seed.parse().expect("a seed");
        let chosen = all.iter().find(|one| one.scenario.seed == seed);
        return explain(chosen.expect("a seed of the set"));
    }
    println!(
        "{} scenarios, digest {:016x}",
        all.len(),
        prediction::digest(&all)
    );
    let wanted: Vec<Chosen> = all
        .into_iter()
        .filter(|one| after("--part").is_none_or(|part| part == one.scenario.part().name()))
        .filter(|one| after("--engine").is_none_or(|engine| engine == truth::engine(&one.scenario)))
        .filter(|one| after("--kind").is_none_or(|kind| kind == format!("{:?}", one.scenario.kind)))
        .step_by(every)
        .collect();
    let start = Instant::now();
    let mut predictors = predictors();
    if has("--rows") {
        predictors.truncate(1);
    }
    let results = diagnosis::on_two_threads(&wanted, |chosen| outcomes(chosen, &predictors));
    if has("--rows") {
        results.iter().for_each(|of_each| rows(&of_each[0]));
        return;
    }
    for (at, predictor) in predictors.iter().enumerate() {
        let own: Vec<&Outcome> = results.iter().map(|of_each| &of_each[at]).collect();
        report(predictor.name(), &own);
    }
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
}

/// Each quantity that was predicted, as CSV.
fn rows(outcome: &Outcome) {
    let (seed, kind, engine) = (outcome.seed, outcome.kind, outcome.engine);
    for one in &outcome.checked {
        let said = &one.predicted;
        println!(
            "{seed},{kind:?},{engine},{},{},{},{},{},{},{},{}",
            one.lever,
            one.is_recommended,
            quantity_name(said.quantity),
            said.before,
            said.ratio,
            said.ratio_low,
            said.ratio_high,
            one.actual
        );
    }
    let top = &outcome.recommended;
    println!(
        "# {seed},{kind:?},{engine},{:?},{},gain {:.3}, of settings {:.3} of {:?},{:.2} s",
        top.advice,
        top.title,
        top.gain(),
        top.gain_by_settings(),
        top.most(),
        top.cpu_seconds
    );
}

/// Whoever predicts; the first is ours, the others are its peers.
fn predictors() -> Vec<&'static dyn Predictor> {
    vec![&Ours, &Naive]
}

/// Prints the set anew: the seeds, or for the seeds that there are the best of the grid.
fn choose(seeds_anew: bool) {
    let start = Instant::now();
    let seeds = if seeds_anew {
        let (seeds, refused) = prediction::choose::seeds();
        eprintln!("{} seeds; of others were refused {refused:?}", seeds.len());
        seeds
    } else {
        let all = prediction::all();
        all.iter().map(|one| one.scenario.seed).collect()
    };
    print!("{}", prediction::choose::set(&seeds, !seeds_anew));
    eprintln!("{:.0} s", start.elapsed().as_secs_f64());
}

fn report(name: &str, outcomes: &[&Outcome]) {
    println!("\n## {name}\n");
    println!("| figure | goal | development | held back |");
    println!("|---|---|---|---|");
    let of = |part: Part| {
        let own: Vec<&Outcome> = outcomes
            .iter()
            .copied()
            .filter(|one| Part::of(one.seed) == part)
            .collect();
        Figures::of(&own)
    };
    let [ours, held] = [Part::Development, Part::HeldBack].map(of);
    let row = |figure: &str, goal: &str, text: &dyn Fn(&Figures) -> String| {
        println!("| {figure} | {goal} | {} | {} |", text(&ours), text(&held));
    };
    let of = |part: usize, whole: usize| {
        format!(
            "{part} of {whole} ({:.1} %)",
            100.0 * part as f64 / whole as f64
        )
    };
    row("scenarios", "", &|of| of.scenarios.to_string());
    row("within the 90 % interval", "86 to 94 %", &|one| {
        of(one.within, one.checked)
    });
    row("median relative width", "at most 40 %", &|of| {
        format!("{:.1} %", 100.0 * of.width)
    });
    row("not predicted", "", &|one| {
        of(one.unpredicted, one.unpredicted + one.checked + one.bounded)
    });
    row("only a bound was measured", "", &|of| {
        of.bounded.to_string()
    });
    row("top recommendation improves", "at least 95 %", &|one| {
        of(one.improved, one.troubled)
    });
    row("first change of settings improves", "", &|one| {
        of(one.cured, one.curable)
    });
    row(
        "its share of the grid's gain: sums, median",
        "at least 90 %",
        &|of| {
            format!(
                "{:.0} %, {:.0} %",
                100.0 * of.gain_of_sums,
                100.0 * of.gain_median
            )
        },
    );
    row("healthy ones left alone", "all", &|one| {
        of(one.left_alone, one.healthy)
    });
    row("more of the same once it is taken", "few", &|one| {
        of(one.again, one.scenarios)
    });
    row(
        "CPU of a recommendation: median, most",
        "at most 5 s",
        &|of| format!("{:.2} s, {:.2} s", of.cpu_median, of.cpu_most),
    );
    // what is held back is not looked into, unless it is asked for alone
    let development: Vec<&Outcome> = outcomes
        .iter()
        .copied()
        .filter(|one| Part::of(one.seed) == Part::Development)
        .collect();
    let (outcomes, half) = match development.is_empty() {
        true => (outcomes, Part::HeldBack),
        false => (&development[..], Part::Development),
    };
    println!("\nIn detail, {}:", half.name());
    let all: Vec<(&Outcome, &Checked)> = outcomes
        .iter()
        .flat_map(|one| one.checked.iter().map(move |checked| (*one, checked)))
        .collect();
    groups("quantity", &all, |_, one| {
        quantity_name(one.predicted.quantity)
    });
    groups("knob", &all, |_, one| one.lever.clone());
    groups("engine", &all, |of, _| of.engine.to_owned());
    groups("what is wrong", &all, |of, _| format!("{:?}", of.kind));
    groups("change", &all, |_, one| match one.is_recommended {
        true => "recommended".to_owned(),
        false => "what if".to_owned(),
    });
    recommendations(outcomes);
    for one in outcomes {
        if let Some(again) = &one.recommended.again {
            println!("more of the same, {} of {:?}: {again}", one.seed, one.kind);
        }
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in outcomes.iter().flat_map(|one| &one.unpredicted) {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (reason, count) in reasons.into_iter().take(12) {
        println!("not predicted, {count} times: {reason}");
    }
}

/// Coverage and width by something.
fn groups(of: &str, all: &[(&Outcome, &Checked)], key: impl Fn(&Outcome, &Checked) -> String) {
    let mut groups: BTreeMap<String, Vec<&Checked>> = BTreeMap::new();
    for (outcome, checked) in all {
        groups
            .entry(key(outcome, checked))
            .or_default()
            .push(checked);
    }
    println!("\n| {of} | predictions | within | too low | too high | width |");
    println!("|---|---|---|---|---|---|");
    for (name, own) in groups {
        let share = |of: &dyn Fn(&&&Checked) -> bool| {
            100.0 * own.iter().filter(of).count() as f64 / own.len() as f64
        };
        println!(
            "| {name} | {} | {:.0} % | {:.0} % | {:.0} % | {:.0} % |",
            own.len(),
            share(&|one| one.is_within()),
            share(&|one| one.actual > one.predicted.ratio_high),
            share(&|one| one.actual < one.predicted.ratio_low),
            100.0 * prediction::tally::median(own.iter().map(|one| one.width()).collect()),
        );
    }
}

/// How recommendations do on each kind of trouble.
fn recommendations(outcomes: &[&Outcome]) {
    let mut kinds: BTreeMap<_, Vec<&Outcome>> = BTreeMap::new();
    for one in outcomes {
        kinds.entry(one.kind).or_default().push(one);
    }
    println!(
        "\n| what is wrong | scenarios | improved | share of the grid's gain | advice | not started |"
    );
    println!("|---|---|---|---|---|---|");
    for (kind, own) in kinds {
        let owned: Vec<&Outcome> = own.clone();
        let figures = Figures::of(&owned);
        let mut advice: BTreeMap<&str, usize> = BTreeMap::new();
        for one in &own {
            *advice.entry(one.recommended.advice.as_str()).or_default() += 1;
        }
        let refused = own
            .iter()
            .filter(|one| !one.recommended.title.is_empty() && one.recommended.changed.is_err());
        println!(
            "| {kind:?} | {} | {} | {:.0} % | {advice:?} | {} |",
            own.len(),
            figures.improved,
            100.0 * figures.gain_of_sums,
            refused.count(),
        );
    }
}

fn explain(chosen: &Chosen) {
    let scenario = &chosen.scenario;
    println!("{scenario:#?}");
    let truth = truth::Truth::of(scenario);
    let seen = truth.seen();
    for quantity in PredictedQuantity::ALL {
        let value = prediction::seen::measured(&seen.measurement, quantity);
        println!("measured {:40} {value:?}", quantity_name(quantity));
    }
    println!("{} windows: {:#?}", seen.windows.len(), seen.windows);
    for setting in &seen.measurement.settings {
        println!("setting {} {:?}", setting.name, setting.value);
    }
    println!("best of the grid: {:?}", chosen.best);
    for (predictor, outcome) in predictors().iter().zip(outcomes(chosen, &predictors())) {
        println!("\n## {}", predictor.name());
        for one in &outcome.checked {
            let said = &one.predicted;
            println!(
                "{} {} {:40} {:.3} in {:.3}..{:.3}, truly {:.3}{}",
                if one.is_recommended {
                    "recommended"
                } else {
                    "what if"
                },
                one.lever,
                quantity_name(said.quantity),
                said.ratio,
                said.ratio_low,
                said.ratio_high,
                one.actual,
                if one.is_within() { "" } else { "  <- outside" },
            );
        }
        println!("not predicted {:?}", outcome.unpredicted);
        println!("{:#?}", outcome.recommended);
    }
}
