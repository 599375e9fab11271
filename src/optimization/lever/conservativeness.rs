//! How much of the outputs to come SGLang sets room aside for.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::percent;
use super::grid::{nearest, thin};
use super::knob::knob;

pub(super) const NAME: &str = "conservativeness";

const VALUES: [f64; 10] = [0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.1, 1.3, 1.5, 2.0];
/// What SGLang's guide says where requests wait beside room, and where they are thrown out.
const GUIDE_LOW: f64 = 0.3;
const GUIDE_HIGH: f64 = 1.3;
/// Share of the KV cache below which the guide takes it to be held back.
const HELD_BACK: f64 = 0.9;

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let found = situation.treated(&[Cause::KvCapacity]);
    match (situation.engine(), found.is_empty()) {
        ("sglang", false) if situation.preempts() => vec![raised(situation, &found)],
        ("sglang", false) => vec![lowered(situation, &found)],
        _ => Vec::new(),
    }
}

fn raised(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Set more room aside for outputs";
    let knob = knob(situation, TITLE, "schedule_conservativeness")?;
    let from = knob.told(TITLE)?;
    let values = thin(VALUES.into_iter().filter(|to| *to > from).collect());
    let guide = nearest(&values, GUIDE_HIGH.max(from));
    let count = situation.value("preemptions_increase").unwrap_or(0.0);
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .because(&format!(
                "{count:.0} requests were thrown out of the batch in the window."
            ))
            .modelled([ModelChange::Conservativeness(to)])
            .risk("Requests begin later, and less of the KV cache is used.")
            .watch(
                "Retractions, token usage and requests that wait; one retraction a minute is fine.",
            )
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn lowered(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Set less room aside for outputs";
    let knob = knob(situation, TITLE, "schedule_conservativeness")?;
    let from = knob.told(TITLE)?;
    let Some(usage) = situation.peak(Q::KvCacheUsage) else {
        return Err(Declined::new(
            TITLE,
            "how full the KV cache is is not known",
        ));
    };
    if usage >= HELD_BACK {
        let reason = format!(
            "the KV cache is up to {} full: there is no room to give",
            percent(usage)
        );
        return Err(Declined::new(TITLE, reason));
    }
    if situation
        .gauge(Q::RequestsWaiting)
        .is_none_or(|waiting| waiting.mean <= 0.0)
    {
        return Err(Declined::new(TITLE, "nobody waits"));
    }
    let values = thin(VALUES.into_iter().filter(|to| *to < from).collect());
    let guide = nearest(&values, GUIDE_LOW.min(from));
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .because(&format!("Requests wait while at most {} of the KV cache is used.", percent(usage)))
            .modelled([ModelChange::Conservativeness(to)])
            .risk("Where outputs are longer than expected, requests are thrown out and computed anew.")
            .watch("Retractions: more than one a minute is too many.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}
