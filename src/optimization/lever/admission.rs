//! How many requests may wait before others are refused.

use crate::analysis::{Cause, Finding, Treatment};
use crate::engine::Quantity as Q;
use crate::optimization::{ModelChange, SettingValue, Situation};

use super::draft::{Answer, Declined, change, family};
use super::facts::{percent, seconds};
use super::grid::{above, nearest_of, thin};
use super::knob::{Knob, knob};

pub(super) const NAME: &str = "admission";

/// A queue beyond this is a backlog.
const LARGEST_QUEUE: f64 = 512.0;
/// A bound that is not told is taken for no larger.
const USUAL: f64 = 32.0;
/// Times what Little's law says.
const AROUND: [f64; 7] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

pub(super) fn propose(situation: &Situation<'_>) -> Vec<Answer> {
    let mut bounded = situation.treated(&[Cause::Aborts, Cause::Capacity]);
    // clients that leave for another reason come back when that is mended
    let own = |one: &Finding| matches!(one.explained_by, None | Some(Cause::Capacity));
    bounded.retain(|one| one.cause != Cause::Aborts || own(one));
    let refused = situation.treated(&[Cause::AdmissionLimit]);
    let mut answers = Vec::new();
    if !refused.is_empty() {
        answers.push(raised(situation, &refused));
    } else if !bounded.is_empty() {
        answers.push(bound(situation, &bounded));
    }
    answers
}

fn knob_of(situation: &Situation<'_>, title: &str) -> Result<Knob, Declined> {
    let name = match situation.engine() {
        "sglang" => "max_queued_requests",
        "tgi" => "max_concurrent_requests",
        _ => "max_num_queued_reqs",
    };
    knob(situation, title, name)
}

/// A queue that is no longer than what is served within the promised time: its length is rate times time (Little).
fn bound(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Refuse requests that would wait too long";
    let knob = knob_of(situation, TITLE)?;
    let Some(served) = situation.served_per_second().filter(|served| *served > 0.0) else {
        return Err(Declined::new(
            TITLE,
            "how many requests finish a second is not known",
        ));
    };
    let target = situation.targets.ttft_p99_seconds;
    let queue = (served * target).max(1.0);
    // TGI counts those that run as well
    let inside = match situation.engine() {
        "tgi" => situation.busiest(Q::RequestsRunning).unwrap_or(0.0),
        _ => 0.0,
    };
    let now = knob.number();
    let mut values: Vec<u32> = AROUND
        .iter()
        .map(|times| (inside + queue * times).ceil() as u32)
        .filter(|to| *to > 0 && now.is_none_or(|now| f64::from(*to) < now))
        .collect();
    values.dedup();
    let values = thin(values);
    if values.is_empty() {
        let reason = format!("at most {} may wait already", now.unwrap_or(0.0));
        return Err(Declined::new(TITLE, reason));
    }
    let guide = nearest_of(&values, inside + queue);
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .because(&format!(
                "{served:.1} requests finish a second at each replica: {queue:.0} that wait are served within {}.",
                seconds(target)
            ))
            .modelled([ModelChange::QueueBound(Some(to))])
            .risk("Requests beyond it are refused with 503 or 429: clients must try again elsewhere or later.")
            .watch("Refused requests and the error ratio, beside TTFT p99 of those that are served.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

fn raised(situation: &Situation<'_>, found: &[&Finding]) -> Answer {
    const TITLE: &str = "Let more requests wait";
    let knob = knob_of(situation, TITLE)?;
    // what is refused at a bound has one, whether it is told or not
    let seen = situation.peak(Q::RequestsWaiting).unwrap_or(0.0);
    let from = match (knob.number(), situation.engine()) {
        (Some(from), _) => from,
        _ if situation.measurement.is_none() || knob.value == SettingValue::NotSet => {
            knob.told(TITLE)?
        }
        (None, "tgi") => (situation.peak(Q::RequestsRunning).unwrap_or(0.0) + seen).max(USUAL),
        (None, _) => seen.max(USUAL),
    };
    if let Some(full) = no_room(situation) {
        let reason = format!("{full}: they would only wait longer; more replicas serve them");
        return Err(Declined::new(TITLE, reason));
    }
    let room = match situation.peak(Q::KvCacheUsage) {
        Some(usage) => format!("The KV cache is at most {} full.", percent(usage)),
        None => "Nothing tells how full the KV cache is.".to_owned(),
    };
    let untold = match knob.number() {
        Some(_) => "",
        None => "How many may wait now is told nowhere: look at the launch arguments first.",
    };
    // waiting takes no memory: what bounds it is how long clients wait
    let values = above(from, (from * 8.0).max(LARGEST_QUEUE));
    let guide = nearest_of(&values, from * 2.0);
    let alternatives = values.into_iter().map(|to| {
        change(Treatment::Scheduling, found, vec![knob.to(to)])
            .because(&room)
            .because(untold)
            .modelled([ModelChange::QueueBound(Some(to))])
            .risk("Requests that were refused at once may wait instead.")
            .watch("TTFT p99, and clients that go away.")
    });
    family(NAME, TITLE, alternatives.collect(), guide)
}

/// Why more requests inside would not be served.
fn no_room(situation: &Situation<'_>) -> Option<String> {
    let usage = situation.peak(Q::KvCacheUsage);
    if usage.is_some_and(|usage| usage >= situation.thresholds.kv_room_ratio)
        || situation.kv_full().is_some()
    {
        return Some("the KV cache has no room for more".to_owned());
    }
    None
}
