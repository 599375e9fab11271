//! What is said of a change from what was measured after it.

use super::example::{Run, SECOND_US, analysis};
use crate::analysis::{Cause, Finding, Severity};
use crate::measure::{Window, WindowKind};
use crate::optimization::PredictedQuantity;
use crate::workflow::{Judgement, MeasuredValue, Seen, Windows, Workflow, judge};

const WINDOWS: Windows = Windows {
    full_seconds: 60.0,
    interval_seconds: 15.0,
};

fn measuring() -> Workflow {
    Run::measuring(1).state().clone()
}

/// A window that ends so long after the workflow began to measure, of so many seconds.
fn seen(state: &Workflow, end_seconds: i64, length_seconds: f64) -> Seen {
    let taken_us = state.phase_since_us + end_seconds * SECOND_US;
    let end = taken_us as f64 / 1e6;
    Seen {
        window: Window {
            start_unix_seconds: end - length_seconds,
            end_unix_seconds: end,
            kind: WindowKind::Interval,
            observed_seconds: length_seconds,
            samples: 5,
        },
        least_samples: 5,
        taken_us,
        stale: false,
        simulated: false,
        headline: "Nothing to do.".to_owned(),
        findings: Vec::new(),
        values: vec![MeasuredValue {
            quantity: PredictedQuantity::TimeToFirstTokenMean,
            value: 1.0,
        }],
        finished: Some(100.0),
    }
}

fn judged(state: &Workflow, seen: Option<&Seen>, after_seconds: i64) -> Judgement {
    let now_us = state.phase_since_us + after_seconds * SECOND_US;
    judge(state, seen, WINDOWS, now_us)
}

fn is_not_yet(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::NotYet(_))
}

/// A replica that was restarted is back in the windows later than it serves: rates would lack its share.
#[test]
fn a_window_without_a_replica_is_waited_for_and_not_for_ever() {
    let state = measuring();
    let lacks = |samples: u32, end_seconds: i64| Seen {
        least_samples: samples,
        ..seen(&state, end_seconds, 60.0)
    };
    for samples in [0, 3] {
        let judgement = judged(&state, Some(&lacks(samples, 61)), 61);
        assert!(is_not_yet(&judgement), "{samples}: {judgement:?}");
    }
    // one scrape may come late
    let judgement = judged(&state, Some(&lacks(4, 61)), 61);
    assert!(matches!(judgement, Judgement::Effects(_)), "{judgement:?}");
    // one that is gone for good
    let judgement = judged(&state, Some(&lacks(0, 301)), 301);
    assert!(matches!(judgement, Judgement::Effects(_)), "{judgement:?}");
}

#[test]
fn a_full_window_after_the_change_tells_what_came_of_it() {
    let state = measuring();
    // it reaches back before the change; it is short; it is full
    assert!(is_not_yet(&judged(
        &state,
        Some(&seen(&state, 50, 60.0)),
        50
    )));
    assert!(is_not_yet(&judged(
        &state,
        Some(&seen(&state, 31, 30.0)),
        31
    )));
    let Judgement::Effects(effects) = judged(&state, Some(&seen(&state, 61, 60.0)), 61) else {
        panic!("it is full");
    };
    let [effect] = effects.quantities.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(effect.before, analysis().before[0].value);
    assert!((effect.ratio - 3.0).abs() < 1e-9, "{effect:?}");
    assert_eq!(
        effects.before_start_unix_seconds,
        analysis().start_unix_seconds
    );
}

#[test]
fn a_window_by_another_clock_is_held_against_when_it_was_taken() {
    let state = measuring();
    // an engine ten times as fast as the clock: by its own times all of this is long after the change
    let mut ahead = seen(&state, 20, 60.0);
    ahead.window.start_unix_seconds += 3_600.0;
    ahead.window.end_unix_seconds += 3_600.0;
    assert!(is_not_yet(&judged(&state, Some(&ahead), 20)));
    ahead.taken_us = state.phase_since_us + 61 * SECOND_US;
    assert!(matches!(
        judged(&state, Some(&ahead), 61),
        Judgement::Effects(_)
    ));
}

#[test]
fn few_requests_count_after_some_windows_and_none_never() {
    let state = measuring();
    let with = |finished, after_seconds| {
        let mut seen = seen(&state, after_seconds, 60.0);
        seen.finished = finished;
        judged(&state, Some(&seen), after_seconds)
    };
    assert!(is_not_yet(&with(Some(3.0), 70)));
    assert!(matches!(with(Some(3.0), 310), Judgement::Effects(_)));
    for nothing in [None, Some(0.0)] {
        assert!(is_not_yet(&with(nothing, 310)));
        let over = state.spec.timeouts.observe_seconds as i64;
        assert_eq!(with(nothing, over), Judgement::Unmeasured);
    }
}

#[test]
fn without_a_before_there_is_no_effect() {
    let mut state = measuring();
    state.analysis = None;
    state.baseline = None;
    assert!(is_not_yet(&judged(
        &state,
        Some(&seen(&state, 61, 60.0)),
        61
    )));
    let over = state.spec.timeouts.observe_seconds as i64;
    assert_eq!(
        judged(&state, Some(&seen(&state, over, 60.0)), over),
        Judgement::Unmeasured
    );
}

#[test]
fn an_engine_that_stalls_or_cannot_be_measured_any_more_was_harmed() {
    let mut state = measuring();
    let mut stalled = seen(&state, 61, 60.0);
    stalled.findings.push(Finding {
        cause: Cause::Stall,
        severity: Severity::Critical,
        confidence: 1.0,
        description: "Nothing moves.".to_owned(),
        evidence: Vec::new(),
        costs: Vec::new(),
        recommendation: String::new(),
        treatments: Vec::new(),
        explained_by: None,
        replicas: Vec::new(),
    });
    let Judgement::Harmed(failure) = judged(&state, Some(&stalled), 61) else {
        panic!("it stalls");
    };
    assert_eq!(failure.reason, "HARMED");
    // it did before, too: that is none of the change's doing
    let analysis = state.analysis.as_mut().unwrap();
    analysis.findings[0].cause = Cause::Stall.as_str().to_owned();
    assert!(matches!(
        judged(&state, Some(&stalled), 61),
        Judgement::Effects(_)
    ));

    let over = state.spec.timeouts.observe_seconds as i64;
    let mut stale = seen(&state, 61, 60.0);
    stale.stale = true;
    for unseen in [None, Some(&stale)] {
        assert!(is_not_yet(&judged(&state, unseen, 61)));
        let Judgement::Harmed(failure) = judged(&state, unseen, over) else {
            panic!("it was measured before");
        };
        assert_eq!(failure.reason, "NOT_MEASURED");
    }
}
