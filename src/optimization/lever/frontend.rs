//! Processes that read requests and write answers.

use crate::analysis::{Cause, Finding, Treatment};
use crate::optimization::Situation;

use super::draft::{Answer, change, family};
use super::knob::knob;

pub(super) const NAME: &str = "frontend";

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::Frontend]);
    match found.is_empty() {
        true => Vec::new(),
        false => vec![more_processes(situation, &found)],
    }
}

fn more_processes(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Read requests in more processes";
    let (name, default) = match situation.engine() {
        "sglang" => ("tokenizer_worker_num", 1.0),
        "tgi" => ("validation_workers", 2.0),
        _ => ("api_server_count", 1.0),
    };
    let knob = knob(situation, TITLE, name)?;
    let now = knob.number().unwrap_or(default);
    let values = [2, 4, 8, 16].into_iter().filter(|to| f64::from(*to) > now);
    let alternatives = values.take(3).map(|to: u32| {
        let one = change(Treatment::Parallelism, found, vec![knob.to(to)])
            .not_predictable("Time outside the scheduler is not in the model.")
            .needs(format!(
                "{to} cores that are free: without them it is slower than before."
            ))
            .watch("TTFT less queue and prefill, and the load of the machine's cores.");
        match situation.engine() {
            "vllm" => {
                one.risk("Metrics of several processes are merged, and some of them go away.")
            }
            _ => one.risk("Each process takes memory of the machine."),
        }
    });
    family(NAME, TITLE, alternatives.collect(), 0)
}
