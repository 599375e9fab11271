//! The store, the targets and the agents of the model, and what an agent does next.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::super::example::{BEGIN_US, RUNNER, effects, failure, written};
use super::Left;
use crate::workflow::{
    Command, Event, Phase, RecordedEvent, Step, StepEffect, Workflow, decide, evolve, next_step,
};

pub(super) const TARGETS: usize = 2;
pub(super) const AGENTS: usize = 2;

/// A workflow as it was read or is.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) state: Arc<Workflow>,
    /// Digest of it.
    pub(super) digest: u64,
}

impl Read {
    pub(super) fn of(state: Workflow) -> Self {
        let mut hasher = rustc_hash::FxHasher::default();
        serde_json::to_string(&state).unwrap().hash(&mut hasher);
        Self {
            state: Arc::new(state),
            digest: hasher.finish(),
        }
    }
}

impl PartialEq for Read {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Read {}

impl Hash for Read {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) holder: usize,
    pub(super) epoch: u64,
    pub(super) live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Before,
    After,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) content: Content,
    pub(super) revision: u8,
    pub(super) operation_id: Option<String>,
    /// The highest that it has seen.
    pub(super) epoch: u64,
    /// How often each operation took effect.
    pub(super) applies: BTreeMap<String, u8>,
}

/// What an agent is at. It may stand still between any two of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Agent {
    /// Nothing, or dead and started again.
    Idle,
    Holds {
        epoch: u64,
    },
    /// It knows what is next.
    Knows {
        epoch: u64,
        read: Read,
    },
    /// It has read the target that it is to write, and is about to.
    Looked {
        epoch: u64,
        read: Read,
        revision: u8,
    },
    /// It has written, whatever was said of it.
    Wrote {
        epoch: u64,
        read: Read,
        failed: bool,
    },
    /// It is about to commit.
    Reports {
        epoch: u64,
        read: Read,
        report: Report,
    },
}

/// What is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Report {
    Intend,
    Written,
    Ready,
    Measured,
    AllRestored,
    PlanOutdated,
    Failed,
}

impl Report {
    pub(super) fn command(self, epoch: u64) -> Command {
        match self {
            Self::Intend => Command::Intend {
                epoch,
                baseline: None,
            },
            Self::Written => written(),
            Self::Ready => Command::Ready,
            Self::Measured => Command::Measured(Some(Box::new(effects()))),
            Self::AllRestored => Command::AllRestored,
            Self::PlanOutdated => Command::PlanOutdated {
                message: "Others changed settings.".to_owned(),
            },
            Self::Failed => Command::Fail(failure()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) workflow: Read,
    pub(super) lease: Option<Lease>,
    pub(super) targets: [Target; TARGETS],
    pub(super) agents: [Agent; AGENTS],
    pub(super) left: Left,
    /// How many leases there have been: each has a higher epoch.
    pub(super) leases: u64,
    /// A write that takes effect, or is refused, after it was said to have failed: whoever made it may be dead by then.
    pub(super) late: Option<Write>,
}

/// A write of a target's settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) target: u32,
    pub(super) epoch: u64,
    /// As it was read before.
    pub(super) revision: u8,
    pub(super) operation_id: Option<String>,
    pub(super) content: Content,
}

/// A write that says that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It took effect.
    ToldFailed,
    /// It did not.
    Fails,
    /// It will, if it is not refused.
    Late,
}

/// Why a target refuses a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    StaleEpoch,
    StaleRevision,
}

impl World {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.workflow.state.phase, Phase::Ended { .. })
    }

    pub(super) fn holds(&self, epoch: u64) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.epoch == epoch && lease.live)
    }

    /// The next thing that this agent does; none where there is none.
    pub(super) fn go(&mut self, who: usize, fault: Option<Fault>) -> Option<()> {
        self.agents[who] = match self.agents[who].clone() {
            Agent::Idle => return None,
            Agent::Holds { epoch } => match next_step(&self.workflow.state) {
                Step::Do(_) => Agent::Knows {
                    epoch,
                    read: self.workflow.clone(),
                },
                _ => {
                    if self.holds(epoch) {
                        self.lease = None;
                    }
                    Agent::Idle
                }
            },
            Agent::Knows { epoch, read } => self.knows(epoch, read),
            Agent::Looked {
                epoch,
                read,
                revision,
            } => self.write((epoch, read), revision, fault),
            Agent::Wrote {
                epoch,
                read,
                failed,
            } => self.reads_back((epoch, read), failed),
            Agent::Reports {
                epoch,
                read,
                report,
            } => self.commit(epoch, &read, report),
        };
        Some(())
    }

    pub(super) fn knows(&mut self, epoch: u64, read: Read) -> Agent {
        let Step::Do(effect) = next_step(&read.state) else {
            return Agent::Holds { epoch };
        };
        let is_back = read.state.phase.is_rollback();
        let content = |target: u32| self.targets[target as usize].content;
        let report = match effect {
            StepEffect::BeginWrite => {
                let next = read.state.next_target().unwrap();
                let untouched =
                    (next as usize..TARGETS).all(|at| self.targets[at].content == Content::Before);
                match untouched {
                    true => Report::Intend,
                    false if !read.state.has_touched() => Report::PlanOutdated,
                    false => Report::Failed,
                }
            }
            StepEffect::Write { target } | StepEffect::Restore { target } => {
                let at = &self.targets[target as usize];
                if !is_done(at, &read.state, target) {
                    let revision = at.revision;
                    return Agent::Looked {
                        epoch,
                        read,
                        revision,
                    };
                }
                Report::Written
            }
            StepEffect::AwaitReady { target } | StepEffect::AwaitRestored { target } => {
                match (content(target), is_back) {
                    (Content::After, false) | (Content::Before, true) => Report::Ready,
                    _ => Report::Failed,
                }
            }
            StepEffect::Measure => Report::Measured,
            StepEffect::BeginRestore => match read.state.next_to_restore() {
                Some(_) => Report::Intend,
                None => Report::AllRestored,
            },
            other => panic!("{other:?}"),
        };
        Agent::Reports {
            epoch,
            read,
            report,
        }
    }

    pub(super) fn write(
        &mut self,
        (epoch, read): (u64, Read),
        revision: u8,
        fault: Option<Fault>,
    ) -> Agent {
        let number = target_of(&read.state);
        let write = Write {
            target: number,
            epoch,
            revision,
            operation_id: read.state.target(number).unwrap().operation_id.clone(),
            content: wanted(&read.state),
        };
        match fault {
            None | Some(Fault::ToldFailed) => match self.takes(&write) {
                Some(Refused::StaleEpoch) => return Agent::Idle,
                Some(Refused::StaleRevision) => return Agent::Holds { epoch },
                None => {}
            },
            Some(Fault::Fails) => {}
            Some(Fault::Late) => self.late = Some(write),
        }
        Agent::Wrote {
            epoch,
            read,
            failed: fault.is_some(),
        }
    }

    /// A target takes a write, or refuses it.
    pub(super) fn takes(&mut self, write: &Write) -> Option<Refused> {
        let target = &mut self.targets[write.target as usize];
        if write.epoch < target.epoch {
            return Some(Refused::StaleEpoch);
        }
        if write.revision != target.revision {
            return Some(Refused::StaleRevision);
        }
        target.epoch = write.epoch;
        target.revision += 1;
        target.content = write.content;
        target.operation_id.clone_from(&write.operation_id);
        let operation_id = write.operation_id.clone().unwrap();
        *target.applies.entry(operation_id).or_default() += 1;
        None
    }

    pub(super) fn reads_back(&mut self, (epoch, read): (u64, Read), failed: bool) -> Agent {
        let number = target_of(&read.state);
        let target = &self.targets[number as usize];
        // of a write that failed it counts that it was this one: else one that comes late would be let in
        let is_there = match failed {
            true => is_done(target, &read.state, number),
            false => target.content == wanted(&read.state),
        };
        let report = match is_there {
            true => Report::Written,
            // on the way back it is tried again
            false if failed && read.state.phase.is_rollback() => return Agent::Holds { epoch },
            false => Report::Failed,
        };
        Agent::Reports {
            epoch,
            read,
            report,
        }
    }

    pub(super) fn commit(&mut self, epoch: u64, read: &Read, report: Report) -> Agent {
        let has_moved = self.workflow.state.sequence != read.state.sequence;
        if !self.holds(epoch) {
            return Agent::Idle;
        }
        if !has_moved {
            let command = report.command(epoch);
            let event = decide(Some(&read.state), &command, RUNNER, BEGIN_US);
            // it has to be taken: it is about the workflow as it is
            self.take(event.unwrap(), RUNNER);
        }
        Agent::Holds { epoch }
    }

    pub(super) fn take(&mut self, event: Event, actor: &str) {
        let before = &self.workflow.state;
        let recorded = RecordedEvent {
            workflow_id: before.workflow_id.clone(),
            instance_id: before.spec.instance_id.clone(),
            revision: before.revision + 1,
            sequence: before.sequence + 1,
            at_us: BEGIN_US,
            actor: actor.to_owned(),
            event,
        };
        let after = evolve(Some(Workflow::clone(before)), &recorded).unwrap();
        self.workflow = Read::of(after);
    }

    pub(super) fn ask(&mut self, command: &Command) -> Option<()> {
        let state = Some(&*self.workflow.state);
        let event = decide(state, command, "bob", BEGIN_US).ok()?;
        self.take(event, "bob");
        self.left.asks -= 1;
        Some(())
    }
}

/// The target that is written or restored.
pub(super) fn target_of(state: &Workflow) -> u32 {
    match next_step(state) {
        Step::Do(StepEffect::Write { target } | StepEffect::Restore { target }) => target,
        other => panic!("{other:?}"),
    }
}

pub(super) fn wanted(state: &Workflow) -> Content {
    match state.phase.is_rollback() {
        true => Content::Before,
        false => Content::After,
    }
}

pub(super) fn is_done(at: &Target, state: &Workflow, target: u32) -> bool {
    let operation_id = &state.target(target).unwrap().operation_id;
    at.content == wanted(state) && at.operation_id == *operation_id
}
