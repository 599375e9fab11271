//! Batches for which CUDA graphs are captured.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, Situation};

use super::draft::{Answer, Declined, change, family};
use super::grid::{above, nearest_of};
use super::knob::{Knob, knob};
use super::sequence_cap::cap_name;

pub(super) const NAME: &str = "graph_range";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::GraphCeiling]);
    let host = situation.treated(&[Cause::GraphCeiling, Cause::HostBound]);
    let eager = situation.in_force.switch(&["enforce_eager"]) == Some(true);
    if situation.engine() == "vllm" && eager && !host.is_empty() {
        return vec![captured(situation, &host)];
    }
    match (situation.engine(), found.is_empty()) {
        (_, true) => Vec::new(),
        ("tgi", _) => vec![listed(situation, &found)],
        _ => vec![raised(situation, &found), capped(situation, &found)],
    }
}

/// The largest batch with a graph, in the newest spelling that the version has.
pub(super) fn range(situation: &Situation<'_>) -> Option<Knob> {
    let names: &[&'static str] = match situation.engine() {
        "sglang" => &["cuda_graph_max_bs_decode", "cuda_graph_max_bs"],
        _ => &["max_cudagraph_capture_size"],
    };
    names.iter().find_map(|name| knob(situation, "", name).ok())
}

fn raised(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Capture graphs for larger batches";
    let Some(knob) = range(situation) else {
        return Err(Declined::new(TITLE, "this version has no setting for it"));
    };
    let running = situation.peak(Q::RequestsRunning);
    let from = match knob.number().or(running) {
        Some(from) => from,
        None => knob.told(TITLE)?,
    };
    let wanted = running.unwrap_or(from).max(from);
    let values = above(from, (wanted * 4.0).min(1_024.0));
    let guide = nearest_of(&values, wanted * 1.25);
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Memory, found, vec![knob.to(to)])
            .not_predictable(
                "How much faster a captured pass is was not measured apart from others.",
            )
            .needs(graph_memory(situation, to))
            .risk("The start takes longer, and the KV cache may get smaller.")
            .watch("The share of decode passes without a graph, and ITL p99.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn graph_memory(situation: &Situation<'_>, to: u32) -> String {
    match situation.engine() {
        // SGLang's own rule: 2 MiB for each request of the largest batch
        "sglang" => format!(
            "About {:.1} GiB of memory for graphs: lower --mem-fraction-static where it is short.",
            f64::from(to) * 2.0 / 1_024.0
        ),
        _ => "Memory for the graphs, which the KV cache gives.".to_owned(),
    }
}

/// No batch beyond what is captured.
fn capped(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Keep batches within the captured graphs";
    let cap = knob(situation, TITLE, cap_name(situation.engine()))?;
    let range = range(situation);
    let range = range
        .and_then(|range| range.number())
        .filter(|range| *range >= 1.0);
    let Some(range) = range else {
        let reason =
            "for which batches graphs are captured is not known; declare the launch arguments";
        return Err(Declined::new(TITLE, reason));
    };
    if cap.number().is_some_and(|cap| cap <= range) {
        return Err(Declined::new(TITLE, "batches are within them already"));
    }
    let to = range as u32;
    let one = change(Treatment::Batching, found, vec![cap.to(to)])
        .modelled([ModelChange::MaxNumSeqs(to)])
        .risk("Requests may wait longer for a place, and the first token with them.")
        .watch("Requests waiting, TTFT p99 and ITL p99.");
    family(NAME, TITLE, vec![one], 0)
}

fn listed(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Capture graphs for larger batches";
    let knob = knob(situation, TITLE, "cuda_graphs")?;
    let largest = |text: &str| {
        text.split(',')
            .filter_map(|one| one.trim().parse::<u32>().ok())
            .max()
    };
    // what TGI captures by itself
    let now = knob.text().unwrap_or("1,2,4,8,16,32");
    let from = largest(now).unwrap_or(0);
    if from == 0 {
        return Err(Declined::new(
            TITLE,
            "graphs are switched off (--cuda-graphs 0), as some models need",
        ));
    }
    let mut list = now.to_owned();
    let mut at = from;
    let mut alternatives = Vec::new();
    for _ in 0..3 {
        at = at.saturating_mul(2);
        list = format!("{list},{at}");
        alternatives.push(
            change(Treatment::Memory, found, vec![knob.to(&list)])
                .not_predictable(
                    "How much faster a captured pass is was not measured apart from others.",
                )
                .needs("Memory for the graphs, which the KV cache gives.")
                .risk("The start takes longer, and the KV cache may get smaller.")
                .watch("Time of decode steps, at the same batch."),
        );
    }
    let running = situation
        .peak(Q::RequestsRunning)
        .unwrap_or(f64::from(from));
    let sizes: Vec<u32> = (1..=3)
        .map(|times| from.saturating_mul(1 << times))
        .collect();
    let guide = sizes
        .iter()
        .position(|size| f64::from(*size) >= running)
        .unwrap_or(2);
    family(NAME, TITLE, alternatives, guide)
}

fn captured(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Capture graphs";
    let knob = knob(situation, TITLE, "enforce_eager")?;
    let one = change(Treatment::Memory, found, vec![knob.away()])
        .not_predictable("How much faster a captured pass is was never measured here.")
        .needs("Memory for the graphs, and minutes at the first start to compile.")
        .risk("The KV cache gets smaller by what the graphs take.")
        .watch("ITL p50 and p99, and the size of the KV cache at the start.");
    family(NAME, TITLE, vec![one], 0)
}
