//! Does the model tell the truth? It is fitted to one run of a real vLLM and predicts runs with other settings and
//! other load: throughput, mean time to first token, mean inter-token latency, beside what was measured.
//!
//! `cargo bench --bench accuracy`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "common/runs.rs"]
mod runs;

use runs::{Figures, Row};

fn main() {
    let fit = runs::fitted();
    println!(
        "fitted to {} windows of one run, {:.0} to {:.0} requests decoding at once, residual {:.1} %:\n  {:?}\n",
        fit.windows,
        fit.decode_sequences_range.0,
        fit.decode_sequences_range.1,
        fit.residual_ratio * 100.0,
        fit.step_time
    );
    println!(
        "| run | tokens/s | predicted | off | spread | TTFT ms | predicted | off | spread | ITL ms | predicted | off |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let rows = runs::rows(fit.step_time);
    rows.iter().for_each(print);
    let captures = runs::captures(fit.step_time);
    captures.iter().for_each(print);
    for (name, of) in quantities() {
        let median = |rows: &[Row]| {
            let mut errors: Vec<f64> = rows.iter().map(|row| row.error_ratio(of).abs()).collect();
            errors.sort_by(f64::total_cmp);
            errors[errors.len() / 2] * 100.0
        };
        println!(
            "median error of {name}: {:.1} %, of the captures {:.1} %",
            median(&rows),
            median(&captures)
        );
    }
}

fn quantities() -> [(&'static str, fn(&Figures) -> f64); 3] {
    [
        ("throughput", |one| one.tokens_per_second),
        ("TTFT", |one| one.ttft_seconds),
        ("ITL", |one| one.itl_seconds),
    ]
}

fn print(row: &Row) {
    let [throughput, ttft, itl] = quantities().map(|(_, of)| of);
    let observed = row.observed();
    println!(
        "| {} | {:.0} | {:.0} | {:+.0} % | {:.0} % | {:.0} | {:.0} | {:+.0} % | {:.0} % | {:.1} | {:.1} | {:+.0} % |",
        row.name,
        observed.tokens_per_second,
        row.predicted.tokens_per_second,
        row.error_ratio(throughput) * 100.0,
        row.spread_ratio(throughput) * 100.0,
        observed.ttft_seconds * 1e3,
        row.predicted.ttft_seconds * 1e3,
        row.error_ratio(ttft) * 100.0,
        row.spread_ratio(ttft) * 100.0,
        observed.itl_seconds * 1e3,
        row.predicted.itl_seconds * 1e3,
        row.error_ratio(itl) * 100.0,
    );
}
