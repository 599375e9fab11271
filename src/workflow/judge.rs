//! What came of a change, judged from the last window: whether it tells yet, whether it tells of harm, and what changed.

use super::command::Failure;
use super::plan::{Baseline, MeasuredEffect, MeasuredEffects, MeasuredValue};
use super::state::Workflow;
use crate::analysis::{Cause, Finding, Severity};
use crate::measure::{Window, WindowKind};
use crate::optimization::Effect;

/// What was measured of an instance last.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The window, by the clock of the engine where that gives times of its own.
    pub window: Window,
    /// Scrapes of it that there are of the replica with the fewest; 0 where one could not be measured.
    pub least_samples: u32,
    /// When the agent took the last scrape of it, unix time in microseconds.
    pub taken_us: i64,
    /// It does not tell how things are now.
    pub stale: bool,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// The diagnosis in one line.
    pub headline: String,
    /// What holds the instance back.
    pub findings: Vec<Finding>,
    /// What was measured of what can be predicted.
    pub values: Vec<MeasuredValue>,
    /// Requests that finished in the window; none where the engine does not tell.
    pub finished: Option<f64>,
}

/// How long windows of an instance are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Windows {
    /// A full one, in seconds.
    pub full_seconds: f64,
    /// Between two scrapes, in seconds.
    pub interval_seconds: f64,
}

/// What a window says of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Nothing yet, and why.
    NotYet(&'static str),
    /// What came of it.
    Effects(Box<MeasuredEffects>),
    /// The time is over, and nothing can be told.
    Unmeasured,
    /// It did harm, or nothing can be measured any more.
    Harmed(Failure),
}

/// Fewest finished requests that a window after a change must have: of fewer, means and tails are chance.
const LEAST_REQUESTS: f64 = 20.0;
/// After so many windows fewer do.
const PATIENCE_WINDOWS: f64 = 5.0;
/// Scrapes of a window that may be missing at its ends.
const JITTER_INTERVALS: f64 = 1.5;
/// A window whose end is farther from when it was taken has another clock: scrapes take 10 seconds at most.
const SAME_CLOCK_SECONDS: f64 = 30.0;

/// What the last window says of the change of a workflow that measures; none where there is no window.
pub fn judge(state: &Workflow, seen: Option<&Seen>, windows: Windows, now_us: i64) -> Judgement {
    let is_over = state.deadline_us.is_some_and(|deadline| now_us >= deadline);
    let Some(seen) = seen.filter(|seen| !seen.stale) else {
        // it was measured before the change
        return match is_over {
            true => Judgement::Harmed(Failure {
                reason: "NOT_MEASURED".to_owned(),
                message: "The instance could not be measured since the change.".to_owned(),
                hint: "See the engine's log: does it serve?".to_owned(),
            }),
            false => Judgement::NotYet("nothing has been measured since the change"),
        };
    };
    if !is_after(state, seen, windows) {
        return match is_over {
            true => Judgement::Unmeasured,
            false => Judgement::NotYet("no full window has been measured since the change"),
        };
    }
    if let Some(harm) = harm(state, &seen.findings) {
        return Judgement::Harmed(harm);
    }
    let full = (windows.full_seconds - JITTER_INTERVALS * windows.interval_seconds).max(0.0);
    let is_full = seen.window.end_unix_seconds - seen.window.start_unix_seconds >= full;
    // where little comes in, what there is after some windows counts
    let waited_seconds = now_us.saturating_sub(state.phase_since_us) as f64 / 1e6;
    let is_late = is_over || waited_seconds >= PATIENCE_WINDOWS * windows.full_seconds;
    let enough = seen.finished.is_some_and(|finished| match is_late {
        true => finished > 0.0,
        false => finished >= LEAST_REQUESTS,
    });
    // one that was restarted is back in the windows later than it serves, and rates would lack its share
    let is_whole =
        f64::from(seen.window.samples) <= f64::from(seen.least_samples) + JITTER_INTERVALS;
    let tells = enough && (is_full || is_over) && (is_whole || is_late);
    match effects(state, seen).filter(|_| tells) {
        Some(effects) => Judgement::Effects(Box::new(effects)),
        None if is_over => Judgement::Unmeasured,
        None => Judgement::NotYet(
            "the window since the change is not full yet, lacks a replica, or has too few requests",
        ),
    }
}

/// What is wrong now that was not before the change, and is no matter of degree.
pub fn harm(state: &Workflow, findings: &[Finding]) -> Option<Failure> {
    let before = state
        .analysis
        .as_ref()
        .map_or(&[][..], |analysis| &analysis.findings);
    let found = findings.iter().find(|finding| {
        let is_new = || {
            let cause = finding.cause.as_str();
            before.iter().all(|known| known.cause != cause)
        };
        let harms = matches!(finding.cause, Cause::Stall | Cause::Errors);
        harms && finding.severity >= Severity::High && is_new()
    })?;
    Some(Failure {
        reason: "HARMED".to_owned(),
        message: format!("Since the change: {}", found.description),
        hint: "See the engine's log.".to_owned(),
    })
}

/// Whether all of a window lies after the last target was ready.
fn is_after(state: &Workflow, seen: &Seen, windows: Windows) -> bool {
    let window = seen.window;
    let since = state.phase_since_us as f64 / 1e6;
    let taken = seen.taken_us as f64 / 1e6;
    let is_our_clock = (taken - window.end_unix_seconds).abs() <= SAME_CLOCK_SECONDS;
    let begins = match is_our_clock {
        true => window.start_unix_seconds,
        // at the earliest, since the engine's own times cannot be compared with ours
        false => taken - windows.full_seconds,
    };
    window.kind == WindowKind::Interval && begins >= since
}

/// What was measured before and after; none where nothing was measured before.
fn effects(state: &Workflow, seen: &Seen) -> Option<MeasuredEffects> {
    let analysed = || {
        let analysis = state.analysis.as_ref()?;
        Some(Baseline {
            start_unix_seconds: analysis.start_unix_seconds,
            end_unix_seconds: analysis.end_unix_seconds,
            values: analysis.before.clone(),
        })
    };
    let before = state.baseline.clone().or_else(analysed)?;
    let predicted = state.plan.as_ref().map(|plan| &plan.draft.effect);
    let of = |after: &MeasuredValue| {
        let same = |one: &&MeasuredValue| one.quantity == after.quantity;
        let known = before.values.iter().find(same)?;
        let ratio = after.value / known.value;
        let predicted = match predicted {
            Some(Effect::Predicted(prediction)) => prediction.of(after.quantity),
            _ => None,
        };
        ratio.is_finite().then(|| MeasuredEffect {
            quantity: after.quantity,
            before: known.value,
            after: after.value,
            ratio,
            predicted: predicted.map(|one| [one.ratio, one.ratio_low, one.ratio_high]),
        })
    };
    Some(MeasuredEffects {
        before_start_unix_seconds: before.start_unix_seconds,
        before_end_unix_seconds: before.end_unix_seconds,
        after_start_unix_seconds: seen.window.start_unix_seconds,
        after_end_unix_seconds: seen.window.end_unix_seconds,
        quantities: seen.values.iter().filter_map(of).collect(),
        headline: seen.headline.clone(),
    })
}
