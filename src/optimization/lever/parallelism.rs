//! Several accelerators for one replica.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::Situation;

use super::draft::{Answer, Declined, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "parallelism";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::DecodeBound, Cause::KvCapacity]);
    match found.is_empty() {
        true => Vec::new(),
        false => vec![tensor_parallel(situation, &found)],
    }
}

fn tensor_parallel(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Spread each replica over more accelerators";
    /// Accelerators that one machine links together.
    const MOST: f64 = 8.0;
    let name = match situation.engine() {
        "sglang" => "tp_size",
        "tgi" => "num_shard",
        _ => "tensor_parallel_size",
    };
    let knob = knob(situation, TITLE, name)?;
    let now = knob.told(TITLE)?;
    let to = now * 2.0;
    if !(1.0..=MOST).contains(&now) || to > MOST {
        return Err(Declined::new(
            TITLE,
            format!("{} is at {now} already", knob.flag),
        ));
    }
    let one = change(Treatment::Parallelism, found, vec![knob.to(format!("{to:.0}"))])
        .because("Each accelerator then reads half of the weights, and what that frees holds KV cache.")
        .not_predictable("How fast the accelerators talk to each other is not in the model.")
        .needs(format!("{to:.0} accelerators for each replica, linked directly: over PCIe it is mostly slower than now."))
        .needs(format!("A model whose attention heads divide by {to:.0}."))
        .risk("Throughput for each accelerator falls: more replicas give more of it.")
        .watch("ITL p50, and generated tokens a second for each accelerator.");
    family(NAME, TITLE, vec![one], 0)
}
