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

use perfagent::model::{
    Arrival, Lengths, Load, Policy, RequestClass, Settings, SharedPrefix, StepTime,
};
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
    println!();
    before_and_after(fit.step_time);
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

/// What one change did to a client, on other days.
fn before_and_after(vllm: StepTime) {
    let small = Settings {
        max_num_seqs: 32,
        kv_blocks: 63,
        block_size: 32,
        max_model_len: 1_024,
        ..Settings::default()
    };
    let large = Settings {
        kv_blocks: 4_095,
        ..small.clone()
    };
    let load = closed(
        16,
        RequestClass::of(Lengths::Fixed(64), Lengths::Fixed(256)),
    );
    let what = "vLLM, KV cache of 2,048 tokens, then of 131,072: 407 tokens/s became 617 (+52 %)";
    change(what, vllm, [small, large], &load);

    // SGLang tells neither its steps nor, at an instant, what runs: its captures are too few to fit to. The same model
    // on the same cores has about the same times
    let sglang = vllm;
    let few = Settings {
        policy: Policy::Sglang,
        max_num_seqs: 4,
        kv_blocks: 32_768,
        block_size: 1,
        max_model_len: 4_096,
        ..Settings::default()
    };
    let many = Settings {
        max_num_seqs: 32,
        ..few.clone()
    };
    let lengths = |min, max| Lengths::Uniform { min, max };
    let load = closed(24, RequestClass::of(lengths(48, 96), lengths(32, 64)));
    let what = "SGLang, 4 running requests, then 32: 415 tokens/s became 1,007 (+143 %)";
    change(what, sglang, [few, many.clone()], &load);

    let off = Settings {
        prefix_caching: false,
        ..many.clone()
    };
    let mut class = RequestClass::of(Lengths::Fixed(32), Lengths::Fixed(16));
    class.prefix = Some(SharedPrefix {
        tokens: 1_024,
        groups: 1,
    });
    let what = "SGLang, radix cache off, then on: 85 tokens/s became 97 (+14 %)";
    change(what, sglang, [off, many], &closed(8, class));
    println!();
}

fn closed(clients: u32, class: RequestClass) -> Load {
    Load {
        arrival: Arrival::Closed {
            clients,
            think_seconds: 0.0,
        },
        classes: vec![class],
        split: Vec::new(),
        drift: None,
        seed: 1,
    }
}

fn change(what: &str, step_time: StepTime, settings: [Settings; 2], load: &Load) {
    let [before, after] =
        settings.map(|settings| runs::predict(settings, step_time, load.clone()).tokens_per_second);
    println!(
        "{what}; predicted {before:.0} become {after:.0} ({:+.0} %)",
        (after / before - 1.0) * 100.0
    );
}

/// A name, and the figure of that name.
type Named = (&'static str, fn(&Figures) -> f64);

fn quantities() -> [Named; 3] {
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
