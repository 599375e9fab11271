//! What opens, changes and is resolved, window by window.

use super::*;
use crate::analysis::Unclear;
use proptest::prelude::*;

const CAUSE: Cause = Cause::SequenceCap;

fn finding(cause: Cause, severity: Severity) -> Finding {
    Finding {
        cause,
        severity,
        confidence: 0.9,
        description: String::new(),
        evidence: Vec::new(),
        costs: Vec::new(),
        recommendation: String::new(),
        treatments: Vec::new(),
        explained_by: None,
        replicas: Vec::new(),
    }
}

fn diagnosis(findings: Vec<Finding>) -> Diagnosis {
    Diagnosis {
        verdict: match findings.is_empty() {
            true => Verdict::Healthy,
            false => Verdict::Findings,
        },
        headline: String::new(),
        findings,
        unclear: Vec::new(),
    }
}

fn unclear() -> Diagnosis {
    let check = Unclear {
        cause: CAUSE,
        missing: "requests_waiting".to_owned(),
        reason: "not exported".to_owned(),
        hint: None,
    };
    Diagnosis {
        unclear: vec![check],
        ..diagnosis(Vec::new())
    }
}

/// One window of a cause.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Found(Severity),
    Absent,
    Unclear,
}
use Seen::{Absent, Found};
use Severity::{Critical, High, Low, Medium};

fn window(seen: Seen) -> Diagnosis {
    match seen {
        Found(severity) => diagnosis(vec![finding(CAUSE, severity)]),
        Absent => diagnosis(Vec::new()),
        Seen::Unclear => unclear(),
    }
}

/// What is told: window and kind.
fn told(windows: &[Seen]) -> Vec<(usize, ChangeKind, Severity)> {
    let mut tracker = Tracker::default();
    let mut told = Vec::new();
    for (at, seen) in windows.iter().enumerate() {
        let before = tracker.clone();
        tracker.observe(&window(*seen), at as f64);
        for change in tracker.changes_since(&before) {
            told.push((at, change.kind, change.bottleneck.finding.severity));
        }
    }
    told
}

#[test]
fn it_opens_in_the_second_window_and_is_resolved_in_the_third_without_it() {
    let windows = [
        Found(Medium),
        Found(Medium),
        Found(Medium),
        Absent,
        Absent,
        Found(Medium),
        Absent,
        Absent,
        Absent,
        Absent,
    ];
    assert_eq!(
        told(&windows),
        [
            (1, ChangeKind::Opened, Medium),
            (8, ChangeKind::Resolved, Medium)
        ]
    );
}

#[test]
fn what_is_critical_opens_at_once() {
    assert_eq!(
        told(&[Found(Critical)]),
        [(0, ChangeKind::Opened, Critical)]
    );
    assert_eq!(
        told(&[Absent, Found(Low), Found(Critical)]),
        [(2, ChangeKind::Opened, Critical)]
    );
}

#[test]
fn a_severity_holds_until_two_windows_say_otherwise() {
    let open = [Found(Medium), Found(Medium)];
    let then = |more: &[Seen]| told(&[&open[..], more].concat())[1..].to_vec();
    assert_eq!(then(&[Found(High), Found(Medium), Found(High)]), []);
    assert_eq!(
        then(&[Found(High), Found(High), Found(High)]),
        [(3, ChangeKind::Changed, High)]
    );
    // both are worse, and agree on this much
    assert_eq!(
        then(&[Found(Critical), Found(High)]),
        [(3, ChangeKind::Changed, High)]
    );
    assert_eq!(then(&[Found(High), Found(Low)]), []);
    assert_eq!(
        then(&[Found(Low), Found(Low)]),
        [(3, ChangeKind::Changed, Low)]
    );
    // the window between is one without it
    assert_eq!(then(&[Found(High), Absent, Found(High)]), []);
}

#[test]
fn what_explains_it_is_told_when_it_stays() {
    let effect = |by| Finding {
        explained_by: by,
        ..finding(CAUSE, Medium)
    };
    let mut tracker = Tracker::default();
    let mut kinds = Vec::new();
    for by in [
        None,
        None,
        Some(Cause::KvCapacity),
        None,
        Some(Cause::KvCapacity),
        Some(Cause::KvCapacity),
    ] {
        let before = tracker.clone();
        tracker.observe(&diagnosis(vec![effect(by)]), 0.0);
        kinds.extend(tracker.changes_since(&before).iter().map(|one| one.kind));
    }
    assert_eq!(kinds, [ChangeKind::Opened, ChangeKind::Changed]);
    assert_eq!(
        tracker.open()[0].finding.explained_by,
        Some(Cause::KvCapacity)
    );
}

#[test]
fn what_cannot_be_told_neither_opens_nor_resolves() {
    let unclear = Seen::Unclear;
    assert_eq!(told(&[unclear; 9]), []);
    assert_eq!(
        told(&[
            Found(Low),
            unclear,
            Found(Low),
            unclear,
            unclear,
            unclear,
            Absent
        ]),
        [(2, ChangeKind::Opened, Low)]
    );
    let mut tracker = Tracker::default();
    tracker.observe(&window(Found(Critical)), 0.0);
    let nothing = Diagnosis {
        verdict: Verdict::CannotTell,
        ..diagnosis(Vec::new())
    };
    for _ in 0..9 {
        tracker.observe(&nothing, 1.0);
    }
    assert_eq!(tracker.open().len(), 1);
}

#[test]
fn roots_come_first_and_the_worse_before_the_others() {
    let effect = Finding {
        explained_by: Some(Cause::KvCapacity),
        ..finding(Cause::Aborts, Critical)
    };
    let mut tracker = Tracker::default();
    for _ in 0..2 {
        tracker.observe(
            &diagnosis(vec![
                finding(Cause::SequenceCap, Low),
                effect.clone(),
                finding(Cause::KvCapacity, High),
            ]),
            7.0,
        );
    }
    let causes: Vec<Cause> = tracker.open().iter().map(|one| one.finding.cause).collect();
    assert_eq!(
        causes,
        [Cause::KvCapacity, Cause::SequenceCap, Cause::Aborts]
    );
    assert_eq!(tracker.open()[0].opened_unix_seconds, 7.0);
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        3 => prop::sample::select(Severity::ALL).prop_map(Found),
        3 => Just(Absent),
        1 => Just(Seen::Unclear),
    ]
}

proptest! {
    #[test]
    fn it_opens_and_is_resolved_in_turn_and_only_with_enough_windows(
        windows in prop::collection::vec(seen(), 0..60)
    ) {
        let told = told(&windows);
        let mut is_open = false;
        for (at, kind, _) in &told {
            // windows that say something, the last first
            let clear: Vec<Seen> = windows[..=*at].iter().rev().copied()
                .filter(|seen| *seen != Seen::Unclear).collect();
            match kind {
                ChangeKind::Opened => {
                    prop_assert!(!is_open);
                    let twice = clear.iter().take(2).filter(|seen| **seen != Absent).count() == 2;
                    prop_assert!(twice || clear[0] == Found(Critical));
                }
                ChangeKind::Changed => {
                    prop_assert!(is_open);
                    prop_assert!(clear.iter().take(2).all(|seen| *seen != Absent));
                }
                ChangeKind::Resolved => {
                    prop_assert!(is_open);
                    prop_assert!(clear.iter().take(3).all(|seen| *seen == Absent));
                }
            }
            is_open = *kind != ChangeKind::Resolved;
        }
    }

    #[test]
    fn a_value_on_the_edge_does_not_flap(
        run in prop::collection::vec((1_usize..=1, 1_usize..=2, 0_usize..3), 1..20)
    ) {
        // never found twice in a row, never absent three times in a row
        let windows: Vec<Seen> = run.iter().flat_map(|(found, absent, severity)| {
            let found = vec![Found(Severity::ALL[*severity]); *found];
            [found, vec![Absent; *absent]].concat()
        }).collect();
        prop_assert_eq!(told(&windows), []);
        let opened = [&[Found(Low), Found(Low)][..], &windows].concat();
        let resolved = told(&opened).iter().any(|(_, kind, _)| *kind == ChangeKind::Resolved);
        prop_assert!(!resolved);
    }

    #[test]
    fn windows_that_say_nothing_change_nothing(
        windows in prop::collection::vec(seen(), 0..30),
    ) {
        let clear: Vec<Seen> = windows.iter().copied().filter(|seen| *seen != Seen::Unclear).collect();
        let kinds = |windows: &[Seen]| -> Vec<(ChangeKind, Severity)> {
            told(windows).into_iter().map(|(_, kind, severity)| (kind, severity)).collect()
        };
        prop_assert_eq!(kinds(&windows), kinds(&clear));
    }
}
