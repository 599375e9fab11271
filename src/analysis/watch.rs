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
mod tests;
