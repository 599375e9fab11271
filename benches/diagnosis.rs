//! How right is the diagnosis? Labelled cases, and each that it gets wrong.
//!
//! `cargo bench --bench diagnosis`, of one part `-- held-back`; `-- --case NAME` says all of one case; `-- --pages DIR`
//! writes the last page of each vLLM case for other tools, with its label.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../tests/support/diagnosis.rs"]
mod diagnosis;
#[path = "../tests/support/score.rs"]
mod score;

use std::fs;
use std::path::Path;
use std::time::Instant;

use diagnosis::{Case, Part, cases};
use perfagent::analysis::{Targets, Thresholds, diagnose};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)
    };
    if let Some(name) = after("--case") {
        return explain(name);
    }
    if let Some(dir) = after("--pages") {
        return pages(Path::new(dir));
    }
    let parts: Vec<Part> = Part::ALL
        .into_iter()
        .filter(|part| arguments.is_empty() || arguments.iter().any(|one| one == part.name()))
        .collect();
    let mut table = Vec::new();
    for part in parts {
        let outcomes = score::outcomes(&cases(part));
        table.push(score::score(&outcomes).row(part.name()));
        for one in outcomes.iter().filter(|one| !one.right) {
            println!(
                "{} {} [{}] {}\n    expected {:?}{}, said {:?}, unclear {:?}\n    {}",
                part.name(),
                one.name,
                one.engine,
                one.why,
                one.expect,
                if one.cannot_tell {
                    " cannot be told"
                } else {
                    ""
                },
                one.said.causes,
                one.said.unclear,
                one.said.headline
            );
        }
    }
    println!(
        "\n| part | root cause first | named at all | several causes, all named | macro F1 | false alarms on healthy | abstained |"
    );
    println!("|---|---|---|---|---|---|---|");
    table.iter().for_each(|row| println!("{row}"));
    timing();
}

fn find(name: &str) -> Case {
    diagnosis::all()
        .into_iter()
        .find(|case| case.name == name)
        .expect("a case of this name")
}

fn explain(name: &str) {
    let case = find(name);
    let measurement = case.measurement();
    println!("{} {:?} {}", case.name, case.expect, case.why);
    let figures = &measurement.figures;
    println!("window {:?}", measurement.window);
    for gauge in &figures.gauges {
        println!(
            "  {:40} min {:.3} mean {:.3} max {:.3} last {:.3} of {}",
            gauge.name, gauge.min, gauge.mean, gauge.max, gauge.last, gauge.samples
        );
    }
    for one in &figures.distributions {
        println!(
            "  {:40} count {} mean {:?} {:?}",
            one.name,
            one.count,
            one.mean,
            one.quantiles.iter().map(|q| q.value).collect::<Vec<_>>()
        );
    }
    for one in &figures.quantities {
        if !one.name.ends_with("_total") {
            println!("  {:40} {:?}", one.name, one.value);
        }
    }
    for replica in &measurement.replicas {
        if let Ok(figures) = &replica.outcome
            && measurement.replicas.len() > 1
        {
            println!("  {}", replica.metrics_url);
            for gauge in &figures.gauges {
                println!(
                    "    {:38} mean {:.3} max {:.3}",
                    gauge.name, gauge.mean, gauge.max
                );
            }
            for one in &figures.distributions {
                println!(
                    "    {:38} count {} mean {:?}",
                    one.name, one.count, one.mean
                );
            }
        }
    }
    for setting in &measurement.settings {
        println!("  setting {} {:?}", setting.name, setting.value);
    }
    println!(
        "{:#?}",
        diagnose(
            &measurement,
            &Thresholds::default(),
            &Targets::default(),
            None
        )
    );
}

/// CPU time of a diagnosis.
fn timing() {
    let all: Vec<_> = cases(Part::Captures)
        .iter()
        .map(Case::measurement)
        .collect();
    let (thresholds, targets) = (Thresholds::default(), Targets::default());
    let rounds = 200;
    let start = Instant::now();
    for _ in 0..rounds {
        for measurement in &all {
            std::hint::black_box(diagnose(measurement, &thresholds, &targets, None));
        }
    }
    let each = start.elapsed().as_secs_f64() / f64::from(rounds) / all.len().max(1) as f64;
    println!(
        "\na diagnosis of a recorded engine takes {:.1} µs; 1,000 of them each 15 s are {:.3} % of a core",
        each * 1e6,
        each * 1_000.0 / 15.0 * 100.0
    );
}

/// The last page of each vLLM case with its label, for tools that read one.
fn pages(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let mut labels = Vec::new();
    for case in diagnosis::all()
        .iter()
        .filter(|case| case.engine() == "vllm")
    {
        let recording = case.recording();
        // tools of one endpoint see one replica, the worst: the last
        let page = &recording
            .replicas
            .last()
            .unwrap()
            .pages
            .last()
            .unwrap()
            .text;
        fs::write(dir.join(format!("{}.prom", case.name)), page).unwrap();
        let said = score::outcomes(std::slice::from_ref(case));
        labels.push(serde_json::json!({
            "perfagent_right": said[0].right,
            "perfagent_alarm": !said[0].false_alarms.is_empty(),
            "name": case.name, "part": case.part.name(), "expect": case.expect, "allowed": case.allowed,
            "cannot_tell": case.cannot_tell,
            "types": case.expect.iter().map(|cause| type_of(cause)).collect::<Vec<_>>(),
        }));
    }
    fs::write(
        dir.join("labels.json"),
        serde_json::to_string_pretty(&labels).unwrap(),
    )
    .unwrap();
    println!("{} pages in {}", labels.len(), dir.display());
}

fn type_of(cause: &str) -> &'static str {
    perfagent::analysis::Cause::ALL
        .iter()
        .find(|one| one.as_str() == cause)
        .map_or("", |one| one.kind().as_str())
}
