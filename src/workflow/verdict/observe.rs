//! Samples of both sides → the observation of a window.

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::{Bounds, tells_gaps};
use super::intervals::{Counted, Counting, Interval, intervals_of};
use super::observation::{Evidence, Observation, Pair, Side, Traffic};
use super::quantity::JudgedQuantity;
use crate::engine::EngineProfile;
use crate::measure::{Knowledge, ReplicaSamples, View};

/// Most intervals of an observation: neighbours are added up, so that its event stays below 16 kB. As many as a canary is
/// to have are left (20), and enough to see how they resemble each other.
const MOST_INTERVALS: usize = 56;

/// Reasons for dropped intervals that are kept.
const MOST_REASONS: usize = 8;

/// A window that gives no observation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotObserved {
    /// There is no canary.
    #[error("no canary replica was given: name the replicas that got the change")]
    NoCanary,
    /// There is no control.
    #[error(
        "no control replica was given: name replicas without the change, or their samples from before it"
    )]
    NoControl,
    /// Nothing to compare.
    #[error(
        "no interval of this window counts on both sides{}: wait for more scrapes",
        because(dropped)
    )]
    NoInterval {
        /// Why intervals do not count.
        dropped: Vec<String>,
    },
}

fn because(dropped: &[String]) -> String {
    match dropped.first() {
        Some(first) => format!(" ({first})"),
        None => String::new(),
    }
}

/// What canary and control did after this time, interval by interval.
///
/// Control samples that all lie before it are of the time before the change: intervals are then paired by their order, and
/// the evidence is the weaker [`Evidence::BeforeAfter`]. Else only intervals count that both sides have; one in which a
/// replica restarted, or whose clock stood still, counts on neither.
///
/// # Errors
/// Sides that are missing, and windows of which no interval counts.
pub fn observe(
    canary: &[&ReplicaSamples],
    control: &[&ReplicaSamples],
    profile: &EngineProfile,
    bounds: &Bounds,
    after_unix_seconds: f64,
) -> Result<Observation, NotObserved> {
    if canary.is_empty() {
        return Err(NotObserved::NoCanary);
    }
    if control.is_empty() {
        return Err(NotObserved::NoControl);
    }
    let evidence = match last_scrape(control).is_some_and(|last| last <= after_unix_seconds) {
        true => Evidence::BeforeAfter,
        false => Evidence::SameTime,
    };
    let mut dropped: Vec<String> = Vec::new();
    let control = match evidence {
        Evidence::SameTime => &steady(control, after_unix_seconds, &mut dropped)[..],
        Evidence::BeforeAfter => control,
    };
    let all = canary.iter().chain(control);
    let has_gaps = all
        .clone()
        .all(|replica| tells_gaps(&view(profile, replica)));
    let counting = |bounds| Counting {
        profile,
        bounds,
        has_gaps,
    };
    let of_canary = intervals_of(canary, after_unix_seconds, &counting(bounds.of_canary()));
    let control_after = match evidence {
        Evidence::SameTime => after_unix_seconds,
        Evidence::BeforeAfter => f64::NEG_INFINITY,
    };
    let of_control = intervals_of(control, control_after, &counting(*bounds));
    let pairs = match evidence {
        Evidence::SameTime => at_the_same_time(of_canary, of_control, &mut dropped),
        Evidence::BeforeAfter => by_order(of_canary, of_control, &mut dropped),
    };
    let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else {
        return Err(NotObserved::NoInterval { dropped });
    };
    let simulated = |side: &[&ReplicaSamples]| {
        let mut samples = side.iter().flat_map(|replica| &replica.samples);
        samples.any(|sample| sample.simulated)
    };
    let (series, one_sided) = series(&pairs);
    Ok(Observation {
        start_unix_seconds: first.canary.start_unix_seconds,
        end_unix_seconds: last.canary.end_unix_seconds,
        first_tick: first.canary.start_tick,
        last_tick: last.canary.end_tick,
        evidence,
        control_start_unix_seconds: first.control.start_unix_seconds,
        control_end_unix_seconds: last.control.end_unix_seconds,
        engine: profile.name.to_string(),
        canary_replicas: u32::try_from(canary.len()).unwrap_or(u32::MAX),
        control_replicas: u32::try_from(control.len()).unwrap_or(u32::MAX),
        simulated: simulated(canary),
        control_simulated: simulated(control),
        bounds: *bounds,
        saturated: pairs
            .iter()
            .all(|pair| pair.sides[0].saturated && pair.sides[1].saturated),
        traffic: traffic(&pairs),
        dropped,
        pairs: series,
        one_sided,
    })
}

/// An interval on both sides.
struct Both {
    canary: Interval,
    control: Interval,
    /// What canary and control did.
    sides: [Counted; 2],
}

fn view(profile: &EngineProfile, replica: &ReplicaSamples) -> View {
    let knowledge = Knowledge {
        version: replica.probed.version,
        proven: replica.probed.proves_engine,
    };
    View::over(profile, &replica.samples, knowledge)
}

/// Control replicas without those that missed most scrapes: only intervals count that all have.
fn steady<'r>(
    control: &[&'r ReplicaSamples],
    after_unix_seconds: f64,
    dropped: &mut Vec<String>,
) -> Vec<&'r ReplicaSamples> {
    let later = |replica: &ReplicaSamples| {
        let all = replica.samples.iter();
        all.filter(|sample| sample.at_unix_seconds >= after_unix_seconds)
            .count()
    };
    let most = control.iter().map(|replica| later(replica)).max();
    let kept = control.iter().filter(|replica| {
        let is_steady = 2 * later(replica) >= most.unwrap_or(0);
        if !is_steady {
            note(
                dropped,
                format!(
                    "{} missed most scrapes and is left out",
                    replica.metrics_url
                ),
            );
        }
        is_steady
    });
    kept.copied().collect()
}

fn last_scrape(side: &[&ReplicaSamples]) -> Option<f64> {
    let samples = side.iter().flat_map(|replica| &replica.samples);
    samples
        .map(|sample| sample.at_unix_seconds)
        .reduce(f64::max)
}

/// Intervals between the same scrapes. Where one side missed a scrape, the other's neighbours are not added up: a gap counts
/// on neither side.
fn at_the_same_time(
    canary: Vec<Interval>,
    control: Vec<Interval>,
    dropped: &mut Vec<String>,
) -> Vec<Both> {
    let mut others: BTreeMap<(u32, u32), Interval> = control
        .into_iter()
        .map(|one| ((one.start_tick, one.end_tick), one))
        .collect();
    let mut missed = 0;
    let mut pairs = Vec::new();
    for one in canary {
        match others.remove(&(one.start_tick, one.end_tick)) {
            Some(other) => pairs.extend(both(one, other, dropped)),
            None => missed += 1,
        }
    }
    missed += others.len();
    if missed > 0 {
        note(
            dropped,
            format!("{missed} intervals are of one side only: scrapes failed"),
        );
    }
    pairs
}

fn by_order(canary: Vec<Interval>, control: Vec<Interval>, dropped: &mut Vec<String>) -> Vec<Both> {
    let mut kept = |of: Vec<Interval>| -> Vec<Interval> {
        let counts = of.into_iter().filter(|one| match &one.dropped {
            Some(why) => {
                note(dropped, why.clone());
                false
            }
            None => one.counted.is_some(),
        });
        counts.collect()
    };
    let (canary, control) = (kept(canary), kept(control));
    let pairs = canary.into_iter().zip(control);
    pairs
        .filter_map(|(one, other)| both(one, other, &mut Vec::new()))
        .collect()
}

fn both(mut canary: Interval, mut control: Interval, dropped: &mut Vec<String>) -> Option<Both> {
    let reasons = [canary.dropped.take(), control.dropped.take()];
    for why in reasons.into_iter().flatten() {
        note(dropped, why);
    }
    let sides = [canary.counted.take()?, control.counted.take()?];
    Some(Both {
        canary,
        control,
        sides,
    })
}

fn note(dropped: &mut Vec<String>, why: String) {
    if dropped.len() < MOST_REASONS && !dropped.contains(&why) {
        dropped.push(why);
    }
}

/// Each quantity over the intervals, as few of them as an event has room for; and what only one side has.
fn series(pairs: &[Both]) -> (BTreeMap<JudgedQuantity, Vec<Pair>>, Vec<JudgedQuantity>) {
    let told = |side: usize| -> BTreeSet<JudgedQuantity> {
        let counted = pairs.iter().filter_map(|pair| pair.sides.get(side));
        counted.flat_map(|one| one.sides.keys().copied()).collect()
    };
    let (canary, control) = (told(0), told(1));
    let one_sided = canary.symmetric_difference(&control).copied().collect();
    let size = pairs.len().div_ceil(MOST_INTERVALS).max(1);
    let of = |quantity: JudgedQuantity| -> Vec<Pair> {
        let told: Vec<Pair> = pairs
            .iter()
            .filter_map(|pair| {
                let [canary, control] = &pair.sides;
                Some(Pair {
                    canary: *canary.sides.get(&quantity)?,
                    control: *control.sides.get(&quantity)?,
                })
            })
            .collect();
        let added = told
            .chunks(size)
            .filter_map(|some| some.iter().copied().reduce(Pair::plus));
        added.map(Pair::rounded).collect()
    };
    let series = canary
        .intersection(&control)
        .map(|quantity| (*quantity, of(*quantity)))
        .filter(|(_, pairs)| !pairs.is_empty())
        .collect();
    (series, one_sided)
}

fn traffic(pairs: &[Both]) -> Traffic {
    let side = |at: usize| {
        let counted = pairs.iter().filter_map(|pair| pair.sides.get(at));
        counted.cloned().reduce(Counted::plus).unwrap_or_default()
    };
    let (canary, control) = (side(0), side(1));
    let mean = |side: Option<Side>| {
        side.filter(|one| one.denominator > 0.0)
            .map(|one| one.numerator / one.denominator)
    };
    let means = |one, other| Some([mean(one)?, mean(other)?]);
    Traffic {
        replica_seconds: [canary.replica_seconds, control.replica_seconds],
        requests: [canary.requests, control.requests],
        prompt_tokens: means(canary.prompts, control.prompts),
        output_tokens: means(canary.outputs, control.outputs),
    }
}
