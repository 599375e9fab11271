//! Whether recorded watches of a log keep the six guarantees of a watch. Pure: recordings in, violations out.
//!
//! - *ordered*: events come in the order of the log;
//! - *unique*: none comes twice;
//! - *atomic*: each is whole, as the log has it;
//! - *reliable*: of what was asked for none is missing between two that came, or before a bookmark;
//! - *resumable*: who goes on after the last revision that they know gets the next event, and none again;
//! - *bookmarkable*: after a bookmark nothing comes that is not later than it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An event as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) revision: u64,
    /// Place among the events of its workflow, from 1.
    pub(crate) sequence: u64,
    pub(crate) workflow_id: String,
    pub(crate) instance_id: String,
    /// Of the whole event: see [`digest`].
    pub(crate) digest: u64,
}

/// What one watcher saw, over all of its connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) filter: Filter,
    pub(crate) connections: Vec<Connection>,
}

/// What a watcher asked for; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) workflow_id: Option<String>,
    pub(crate) instance_id: Option<String>,
}

/// What came over one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    /// After which revision it began; none for from now on, or from a snapshot.
    pub(crate) after_revision: Option<u64>,
    pub(crate) items: Vec<Item>,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// Of an event: its revision, and the digest of all of it.
    Event(u64, u64),
    /// Everything up to this revision has been told.
    Bookmark(u64),
    /// A workflow as it was at this revision; 0 where the bookmark that follows has it.
    Snapshot(u64),
    /// The end, because the log is gone up to this revision.
    Compacted(u64),
    /// The end, for another reason.
    Broken,
}

/// What a watch has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guarantee {
    Ordered,
    Unique,
    Atomic,
    Reliable,
    Resumable,
    Bookmarkable,
}

/// A guarantee that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) guarantee: Guarantee,
    /// Place of the connection among those of its watcher.
    pub(crate) connection: usize,
    pub(crate) what: String,
}

/// Of a whole event, so that a recording needs few bytes for each.
pub(crate) fn digest(event: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

/// The log, by revision.
pub(crate) struct Log<'l> {
    events: BTreeMap<u64, &'l Logged>,
}

impl<'l> Log<'l> {
    /// The whole log, as `ListWorkflowEvents` gave it before anything of it was compacted.
    ///
    /// # Errors
    /// What is wrong with it: revisions and the sequences of workflows have no gaps.
    pub(crate) fn new(log: &'l [Logged]) -> Result<Self, String> {
        let mut sequences: BTreeMap<&str, u64> = BTreeMap::new();
        for (at, event) in log.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| log[before].revision);
            if before.is_some_and(|before| before + 1 != event.revision) {
                return Err(format!("revision {} follows {before:?}", event.revision));
            }
            let sequence = sequences.entry(&event.workflow_id).or_default();
            if *sequence + 1 != event.sequence {
                let (id, now) = (&event.workflow_id, event.sequence);
                return Err(format!("of {id} sequence {now} follows {sequence}"));
            }
            *sequence = event.sequence;
        }
        let events = log.iter().map(|event| (event.revision, event));
        Ok(Self {
            events: events.collect(),
        })
    }

    /// Revisions of what matches, after one revision and up to another.
    fn matching<'s>(
        &'s self,
        filter: &'s Filter,
        after: u64,
        to: u64,
    ) -> impl Iterator<Item = u64> + use<'s, 'l> {
        let range = (after < to).then(|| self.events.range(after + 1..=to));
        let events = range.into_iter().flatten();
        events
            .filter(|(_, event)| filter.takes(event))
            .map(|(revision, _)| *revision)
    }

    fn last(&self) -> u64 {
        self.events.keys().next_back().copied().unwrap_or(0)
    }
}

impl Filter {
    fn takes(&self, event: &Logged) -> bool {
        let is = |asked: &Option<String>, found: &String| {
            asked.as_ref().is_none_or(|asked| asked == found)
        };
        is(&self.workflow_id, &event.workflow_id) && is(&self.instance_id, &event.instance_id)
    }
}

impl Item {
    /// Up to where a watcher knows the log after it, where that is told.
    fn known(self) -> Option<u64> {
        match self {
            Self::Event(revision, _) | Self::Bookmark(revision) => Some(revision),
            Self::Snapshot(revision) => (revision > 0).then_some(revision),
            Self::Compacted(_) | Self::Broken => None,
        }
    }
}

impl Connection {
    fn events(&self) -> impl Iterator<Item = (u64, u64)> {
        self.items.iter().filter_map(|item| match item {
            Item::Event(revision, digest) => Some((*revision, *digest)),
            _ => None,
        })
    }

    /// After which revision it has to tell everything; none where it told nothing.
    fn begins_after(&self) -> Option<u64> {
        self.after_revision.or_else(|| {
            let first = self.items.iter().find(|item| item.known().is_some())?;
            match first {
                Item::Event(revision, _) => revision.checked_sub(1),
                other => other.known(),
            }
        })
    }

    /// Up to where its watcher knows the log at its end.
    pub(crate) fn known(&self) -> Option<u64> {
        let items = self.items.iter().filter_map(|item| item.known());
        items.chain(self.after_revision).max()
    }

    fn compacted(&self) -> Option<u64> {
        self.items.iter().rev().find_map(|item| match item {
            Item::Compacted(up_to) => Some(*up_to),
            _ => None,
        })
    }
}

/// All that a watcher saw against the log.
pub(crate) fn check(log: &Log<'_>, watched: &Watched) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, connection) in watched.connections.iter().enumerate() {
        let mut say = |guarantee, what| {
            found.push(Violation {
                guarantee,
                connection: at,
                what,
            });
        };
        ordered(connection, &mut say);
        unique(connection, &mut say);
        atomic(log, connection, &mut say);
        reliable(log, &watched.filter, connection, &mut say);
        bookmarkable(connection, &mut say);
        let before = at.checked_sub(1).and_then(|at| watched.connections.get(at));
        resumable(log, &watched.filter, before, connection, &mut say);
    }
    found
}

/// Matching events that a watcher has not been told at its end; empty where it has caught up.
pub(crate) fn behind(log: &Log<'_>, watched: &Watched) -> Vec<u64> {
    let known = watched.connections.iter().filter_map(Connection::known);
    let known = known.max().unwrap_or(0);
    log.matching(&watched.filter, known, log.last()).collect()
}

type Say<'s> = dyn FnMut(Guarantee, String) + 's;

fn ordered(connection: &Connection, say: &mut Say<'_>) {
    let mut last = 0;
    for (revision, _) in connection.events() {
        if revision < last {
            say(Guarantee::Ordered, format!("{revision} came after {last}"));
        }
        last = revision.max(last);
    }
}

fn unique(connection: &Connection, say: &mut Say<'_>) {
    let mut seen = std::collections::HashSet::new();
    for (revision, _) in connection.events() {
        if !seen.insert(revision) {
            say(Guarantee::Unique, format!("{revision} came twice"));
        }
    }
}

fn atomic(log: &Log<'_>, connection: &Connection, say: &mut Say<'_>) {
    for (revision, digest) in connection.events() {
        match log.events.get(&revision) {
            None => say(Guarantee::Atomic, format!("{revision} is not in the log")),
            Some(event) if event.digest != digest => {
                let what = format!("{revision} is not as the log has it");
                say(Guarantee::Atomic, what);
            }
            Some(_) => {}
        }
    }
}

fn reliable(log: &Log<'_>, filter: &Filter, connection: &Connection, say: &mut Say<'_>) {
    for (revision, _) in connection.events() {
        let event = log.events.get(&revision);
        if event.is_some_and(|event| !filter.takes(event)) {
            let what = format!("{revision} was not asked for");
            say(Guarantee::Reliable, what);
        }
    }
    let Some((begin, end)) = connection.begins_after().zip(connection.known()) else {
        return;
    };
    let came: std::collections::HashSet<u64> =
        connection.events().map(|(revision, _)| revision).collect();
    for revision in log.matching(filter, begin, end) {
        if !came.contains(&revision) {
            let what = format!("{revision} is missing between {begin} and {end}");
            say(Guarantee::Reliable, what);
        }
    }
}

fn bookmarkable(connection: &Connection, say: &mut Say<'_>) {
    let mut told = 0;
    for item in &connection.items {
        match item {
            Item::Event(revision, _) if *revision <= told => {
                let what = format!("{revision} came after everything to {told} was told");
                say(Guarantee::Bookmarkable, what);
            }
            Item::Bookmark(revision) | Item::Snapshot(revision) => {
                if *revision > 0 && *revision < told {
                    let what = format!("a bookmark of {revision} came after one of {told}");
                    say(Guarantee::Bookmarkable, what);
                }
                told = told.max(*revision);
            }
            _ => {}
        }
    }
}

fn resumable(
    log: &Log<'_>,
    filter: &Filter,
    before: Option<&Connection>,
    connection: &Connection,
    say: &mut Say<'_>,
) {
    let first = connection.events().next().map(|(revision, _)| revision);
    if let Some(after) = connection.after_revision {
        let again = connection.events().find(|(revision, _)| *revision <= after);
        if let Some((revision, _)) = again {
            let what = format!("{revision} came to who resumed after {after}");
            say(Guarantee::Resumable, what);
        }
        let skipped = first.and_then(|first| {
            let next = log.matching(filter, after, first).next();
            next.filter(|next| *next < first)
        });
        if let Some(next) = skipped {
            let what = format!("{first:?} came first after {after}, and {next} is next");
            say(Guarantee::Resumable, what);
        }
    }
    let Some(before) = before else { return };
    let (known, begin) = (before.known(), connection.begins_after());
    let Some((known, begin)) = known.zip(begin) else {
        return;
    };
    // what is gone can be told to nobody
    let lost = before.compacted().map_or(known, |gone| gone.max(known));
    match connection.after_revision {
        Some(after) if after > lost => say(
            Guarantee::Resumable,
            format!("the watcher went on after {after}, and knew {known}"),
        ),
        None if before.compacted().is_none() => {
            let missed = log.matching(filter, known, begin).next();
            if let Some(missed) = missed {
                let what = format!("{missed} was told to nobody between two connections");
                say(Guarantee::Resumable, what);
            }
        }
        _ => {}
    }
}
