//! How fast the model simulates: output tokens a second on one core.
//!
//! `cargo bench --bench model`, or `benches/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::time::Instant;

use common::print_load;
use perfagent::model::{
    Arrival, Lengths, Load, Policy, RequestClass, Settings, SharedPrefix, Simulation, StepTime,
    Tally,
};

fn main() {
    for (name, policy, clients, kv_blocks, shared) in [
        ("vLLM, 64 clients", Policy::Vllm, 64, 16_384, false),
        ("vLLM, 256 clients", Policy::Vllm, 256, 16_384, false),
        (
            "vLLM, 256 clients, KV cache too small, shared beginnings",
            Policy::Vllm,
            256,
            2_000,
            true,
        ),
        ("SGLang, 256 clients", Policy::Sglang, 256, 16_384, false),
        ("TGI, 256 clients", Policy::Tgi, 256, 16_384, false),
    ] {
        let mut class = RequestClass::of(
            Lengths::LogNormal {
                median: 200.0,
                sigma: 0.8,
                max: 4_000,
            },
            Lengths::LogNormal {
                median: 150.0,
                sigma: 0.8,
                max: 2_000,
            },
        );
        class.prefix = shared.then_some(SharedPrefix {
            tokens: 500,
            groups: 8,
        });
        let load = Load {
            arrival: Arrival::Closed {
                clients,
                think_seconds: 0.0,
            },
            classes: vec![class],
            split: Vec::new(),
            drift: None,
            seed: 1,
        };
        let settings = Settings {
            policy,
            kv_blocks,
            ..Settings::default()
        };
        let mut simulation = Simulation::new(settings, StepTime::default(), load, (0, 1)).unwrap();
        let mut tally = Tally::from(0.0);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 2.0 {
            simulation.run_until(simulation.now() + 50.0, &mut tally);
        }
        let seconds = start.elapsed().as_secs_f64();
        let summary = tally.summary(simulation.now());
        println!(
            "{name}: {:.1} million output tokens a second (goal: 2), {:.0} times as fast as time, {} preemptions",
            summary.generated_tokens as f64 / seconds / 1e6,
            summary.seconds / seconds,
            summary.preemptions,
        );
    }
    print_load();
}
