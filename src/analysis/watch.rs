//! Diagnosis after diagnosis → what is open: a value on the edge does not flap.

use std::collections::BTreeMap;

use super::diagnosis::{Diagnosis, Verdict};
use super::finding::{Cause, Finding, Severity};

/// Found in so many windows that follow each other, it opens.
const OPENS_AFTER: u32 = 2;
/// Absent from so many, it is resolved.
const RESOLVES_AFTER: u32 = 3;

/// What is open on one instance, and what may come to be.
///
/// Windows that could not be measured are not observed, and a check that could not be made says nothing of its cause:
/// both are left out of the count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tracker {
    causes: BTreeMap<Cause, Tracked>,
    /// Rises with each change of what is open.
    revision: u64,
}

/// A bottleneck that was found often enough to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// As it was last found, with the severity and explanation that hold.
    pub finding: Finding,
    /// End of the window in which it opened, unix time in seconds.
    pub opened_unix_seconds: f64,
    /// End of the window in which it was last found, unix time in seconds.
    pub found_unix_seconds: f64,
    /// Which change it was last told with.
    revision: u64,
}

/// How a bottleneck changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not open before.
    Opened,
    /// Its severity is another one, or what explains it.
    Changed,
    /// It is open no more.
    Resolved,
}

/// A bottleneck that opened, changed or is resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// As it is after the change; of a resolved one, as it was last found.
    pub bottleneck: Open,
}

#[derive(Debug, Clone, PartialEq)]
enum Tracked {
    /// Found in so many windows.
    Candidate(u32),
    /// Open.
    Open {
        open: Box<Open>,
        /// Windows without it.
        absent: u32,
        /// What the last window said of it, where that is not what holds.
        differs: Option<Picture>,
    },
}

/// What of a finding is worth telling again when it changes.
type Picture = (Severity, Option<Cause>);

impl Tracker {
    /// What follows from one more window, which ended at this time.
    pub fn observe(&mut self, diagnosis: &Diagnosis, end_unix_seconds: f64) {
        // nothing could be told, and not even of what
        if diagnosis.verdict == Verdict::CannotTell
            && diagnosis.unclear.is_empty()
            && diagnosis.findings.is_empty()
        {
            return;
        }
        for finding in &diagnosis.findings {
            self.found(finding, end_unix_seconds);
        }
        let known_absent = |cause: Cause| {
            let mut found = diagnosis.findings.iter();
            let mut unclear = diagnosis.unclear.iter();
            !found.any(|one| one.cause == cause) && !unclear.any(|one| one.cause == cause)
        };
        let revision = &mut self.revision;
        self.causes.retain(|cause, tracked| {
            if !known_absent(*cause) {
                return true;
            }
            let stays = match tracked {
                Tracked::Candidate(_) => return false,
                Tracked::Open {
                    absent, differs, ..
                } => {
                    *absent += 1;
                    *differs = None;
                    *absent < RESOLVES_AFTER
                }
            };
            if !stays {
                *revision += 1;
            }
            stays
        });
    }

    fn found(&mut self, finding: &Finding, at: f64) {
        let tracked = self
            .causes
            .entry(finding.cause)
            .or_insert(Tracked::Candidate(0));
        match tracked {
            Tracked::Candidate(windows) => {
                *windows += 1;
                if *windows < OPENS_AFTER && finding.severity < Severity::Critical {
                    return;
                }
                self.revision += 1;
                *tracked = Tracked::Open {
                    open: Box::new(Open {
                        finding: finding.clone(),
                        opened_unix_seconds: at,
                        found_unix_seconds: at,
                        revision: self.revision,
                    }),
                    absent: 0,
                    differs: None,
                };
            }
            Tracked::Open {
                open,
                absent,
                differs,
            } => {
                *absent = 0;
                let holds: Picture = (open.finding.severity, open.finding.explained_by);
                let shown: Picture = (finding.severity, finding.explained_by);
                let agreed = differs.map_or(holds, |before| agreed(holds, before, shown));
                *differs = (shown != agreed).then_some(shown);
                if agreed != holds {
                    self.revision += 1;
                    open.revision = self.revision;
                }
                open.found_unix_seconds = at;
                open.finding = Finding {
                    severity: agreed.0,
                    explained_by: agreed.1,
                    ..finding.clone()
                };
            }
        }
    }

    /// What is open, root causes first, the worse before the others.
    pub fn open(&self) -> Vec<&Open> {
        let mut open: Vec<&Open> = self.causes.values().filter_map(Tracked::open).collect();
        open.sort_by_key(|one| {
            let finding = &one.finding;
            (
                finding.explained_by.is_some(),
                std::cmp::Reverse(finding.severity),
                finding.cause,
            )
        });
        open
    }

    /// What has changed since it was as it was before.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for open in self.open() {
            let kind = match before.of(open.finding.cause) {
                None => ChangeKind::Opened,
                Some(known) if known.revision != open.revision => ChangeKind::Changed,
                Some(_) => continue,
            };
            let bottleneck = open.clone();
            changes.push(Change { kind, bottleneck });
        }
        for open in before.open() {
            if self.of(open.finding.cause).is_none() {
                changes.push(Change {
                    kind: ChangeKind::Resolved,
                    bottleneck: open.clone(),
                });
            }
        }
        changes
    }

    fn of(&self, cause: Cause) -> Option<&Open> {
        self.causes.get(&cause).and_then(Tracked::open)
    }
}

/// What holds after two windows that both differ from what held: of two severities on one side of it the nearer one.
fn agreed(holds: Picture, before: Picture, now: Picture) -> Picture {
    let (low, high) = (before.0.min(now.0), before.0.max(now.0));
    let severity = match holds.0 {
        held if low > held => low,
        held if high < held => high,
        held => held,
    };
    let explained_by = if before.1 == now.1 { now.1 } else { holds.1 };
    (severity, explained_by)
}

impl Tracked {
    fn open(&self) -> Option<&Open> {
        match self {
            Self::Candidate(_) => None,
            Self::Open { open, .. } => Some(open),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
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
}
