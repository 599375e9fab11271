//! Leases and writes of one workflow, explored exhaustively: two agents, either of which may die twice in all, stand still for
//! as long as it likes at every point, and think that it still holds a lease that is long another's.
//!
//! What is decided is decided by the machine itself. The store and the targets are models of what theirs promise: a commit
//! is refused where the workflow has moved on or the lease is another's or over; a write is refused where the epoch is lower
//! than one that the target has seen, or the settings are others than were read.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Checker, Model, Property, Representative};

use super::example::{BEGIN_US, RUNNER, Run, effects, failure, written};
use crate::workflow::{
    Command, Phase, RecordedEvent, Status, Step, StepEffect, Workflow, decide, evolve, next_step,
};

const TARGETS: usize = 2;
const AGENTS: usize = 2;

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    crashes: u8,
    /// Leases that run out though their holder is there.
    expiries: u8,
    /// Times that a holder goes on though it was told that it holds the lease no more.
    unnoticed: u8,
    /// Writes that say that they failed, and take effect or not.
    faults: u8,
    /// Callers that roll back or cancel.
    asks: u8,
}

/// A workflow as it was read or is.
#[derive(Debug, Clone)]
struct Read {
    state: Arc<Workflow>,
    /// Digest of it.
    digest: u64,
}

impl Read {
    fn of(state: Workflow) -> Self {
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
struct Lease {
    holder: usize,
    epoch: u64,
    live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Content {
    Before,
    After,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Target {
    content: Content,
    revision: u8,
    operation_id: Option<String>,
    /// The highest that it has seen.
    epoch: u64,
    /// How often each operation took effect.
    applies: BTreeMap<String, u8>,
}

/// What an agent is at. It may stand still between any two of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Agent {
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
enum Report {
    Intend,
    Written,
    Ready,
    Measured,
    AllRestored,
    PlanOutdated,
    Failed,
}

impl Report {
    fn command(self, epoch: u64) -> Command {
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
struct World {
    workflow: Read,
    lease: Option<Lease>,
    targets: [Target; TARGETS],
    agents: [Agent; AGENTS],
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Acquire(usize),
    Expire,
    /// The agent does what comes next.
    Go(usize),
    /// A write says that it failed, and it took effect or not.
    Fault(usize, bool),
    /// A refused commit is not noticed to mean that the lease is gone.
    GoesOnAllTheSame(usize),
    Crash(usize),
    Rollback,
    Cancel,
}

struct Protocol(Left);

impl World {
    fn has_ended(&self) -> bool {
        matches!(self.workflow.state.phase, Phase::Ended { .. })
    }

    fn holds(&self, epoch: u64) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.epoch == epoch && lease.live)
    }

    /// The next thing that this agent does; none where there is none.
    fn go(&mut self, who: usize, fault: Option<bool>) -> Option<()> {
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

    fn knows(&mut self, epoch: u64, read: Read) -> Agent {
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

    fn write(&mut self, (epoch, read): (u64, Read), revision: u8, fault: Option<bool>) -> Agent {
        let number = target_of(&read.state);
        let wanted = wanted(&read.state);
        let operation_id = read.state.target(number).unwrap().operation_id.clone();
        let target = &mut self.targets[number as usize];
        if epoch < target.epoch {
            return Agent::Idle;
        }
        if revision != target.revision {
            return Agent::Holds { epoch };
        }
        if fault != Some(false) {
            target.epoch = epoch;
            target.revision += 1;
            target.content = wanted;
            *target
                .applies
                .entry(operation_id.clone().unwrap())
                .or_default() += 1;
            target.operation_id = operation_id;
        }
        Agent::Wrote {
            epoch,
            read,
            failed: fault.is_some(),
        }
    }

    fn reads_back(&mut self, (epoch, read): (u64, Read), failed: bool) -> Agent {
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

    fn commit(&mut self, epoch: u64, read: &Read, report: Report) -> Agent {
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

    fn take(&mut self, event: crate::workflow::Event, actor: &str) {
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

    fn ask(&mut self, command: &Command) -> Option<()> {
        let state = Some(&*self.workflow.state);
        let event = decide(state, command, "bob", BEGIN_US).ok()?;
        self.take(event, "bob");
        self.left.asks -= 1;
        Some(())
    }
}

/// The target that is written or restored.
fn target_of(state: &Workflow) -> u32 {
    match next_step(state) {
        Step::Do(StepEffect::Write { target } | StepEffect::Restore { target }) => target,
        other => panic!("{other:?}"),
    }
}

fn wanted(state: &Workflow) -> Content {
    match state.phase.is_rollback() {
        true => Content::Before,
        false => Content::After,
    }
}

fn is_done(at: &Target, state: &Workflow, target: u32) -> bool {
    let operation_id = &state.target(target).unwrap().operation_id;
    at.content == wanted(state) && at.operation_id == *operation_id
}

impl Model for Protocol {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let target = Target {
            content: Content::Before,
            revision: 0,
            operation_id: None,
            epoch: 0,
            applies: BTreeMap::new(),
        };
        vec![World {
            workflow: Read::of(Run::approved(TARGETS).state().clone()),
            lease: None,
            targets: std::array::from_fn(|_| target.clone()),
            agents: std::array::from_fn(|_| Agent::Idle),
            left: self.0,
        }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let is_free = world.lease.as_ref().is_none_or(|lease| !lease.live);
        if let Some(lease) = world.lease.as_ref().filter(|lease| lease.live) {
            // of one that is gone it always runs out
            if world.left.expiries > 0 || world.agents[lease.holder] == Agent::Idle {
                acts.push(Act::Expire);
            }
        }
        for (who, agent) in world.agents.iter().enumerate() {
            if *agent == Agent::Idle {
                if is_free && !world.has_ended() {
                    acts.push(Act::Acquire(who));
                }
                continue;
            }
            acts.push(Act::Go(who));
            if world.left.crashes > 0 {
                acts.push(Act::Crash(who));
            }
            match agent {
                Agent::Looked { .. } if world.left.faults > 0 => {
                    acts.extend([Act::Fault(who, true), Act::Fault(who, false)]);
                }
                Agent::Reports { epoch, .. }
                    if !world.holds(*epoch) && world.left.unnoticed > 0 =>
                {
                    acts.push(Act::GoesOnAllTheSame(who));
                }
                _ => {}
            }
        }
        if world.left.asks > 0 && !world.has_ended() {
            acts.extend([Act::Rollback, Act::Cancel]);
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        match act {
            Act::Acquire(who) => {
                let epoch = world.lease.as_ref().map_or(0, |lease| lease.epoch);
                // one that was given up leaves its epoch at the targets, and those of the store only rise
                let seen = world.targets.iter().map(|target| target.epoch).max();
                let epoch = epoch.max(seen.unwrap_or(0)).max(world.highest_held()) + 1;
                world.lease = Some(Lease {
                    holder: who,
                    epoch,
                    live: true,
                });
                world.agents[who] = Agent::Holds { epoch };
            }
            Act::Expire => {
                let lease = world.lease.as_mut()?;
                lease.live = false;
                if world.agents[lease.holder] != Agent::Idle {
                    world.left.expiries -= 1;
                }
            }
            Act::Go(who) => world.go(who, None)?,
            Act::Fault(who, takes_effect) => {
                world.left.faults -= 1;
                world.go(who, Some(takes_effect))?;
            }
            Act::GoesOnAllTheSame(who) => {
                let Agent::Reports { epoch, .. } = world.agents[who] else {
                    return None;
                };
                world.left.unnoticed -= 1;
                world.agents[who] = Agent::Holds { epoch };
            }
            Act::Crash(who) => {
                world.left.crashes -= 1;
                world.agents[who] = Agent::Idle;
            }
            Act::Rollback => world.ask(&Command::Rollback {
                note: String::new(),
            })?,
            Act::Cancel => world.ask(&Command::Cancel {
                acknowledge: false,
                note: String::new(),
            })?,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("no operation takes effect twice", |_, world| {
                let mut applies = world.targets.iter().flat_map(|one| one.applies.values());
                applies.all(|times| *times == 1)
            }),
            Property::<Self>::always("what has ended stays as it ended", |_, world| {
                let is = |content| world.targets.iter().all(|one| one.content == content);
                match world.workflow.state.phase {
                    Phase::Ended {
                        status: Status::Completed,
                    } => is(Content::After),
                    Phase::Ended { .. } => is(Content::Before),
                    _ => true,
                }
            }),
            Property::<Self>::eventually("it ends", |_, world| world.has_ended()),
            Property::<Self>::sometimes("it is completed", |_, world| {
                ends(world, Status::Completed)
            }),
            Property::<Self>::sometimes("it is rolled back", |_, world| {
                ends(world, Status::RolledBack)
            }),
            Property::<Self>::sometimes("it is cancelled", |_, world| {
                ends(world, Status::Cancelled)
            }),
            Property::<Self>::sometimes("a write comes too late", |_, world| {
                world.agents.iter().any(|agent| match agent {
                    Agent::Looked { epoch, read, .. } => {
                        *epoch < world.targets[target_of(&read.state) as usize].epoch
                    }
                    _ => false,
                })
            }),
            Property::<Self>::sometimes("a commit comes too late", |_, world| {
                world.agents.iter().any(|agent| match agent {
                    Agent::Reports { epoch, .. } => !world.holds(*epoch),
                    _ => false,
                })
            }),
            Property::<Self>::sometimes("what another wrote is found", |_, world| {
                world.agents.iter().any(|agent| match agent {
                    Agent::Reports {
                        epoch,
                        read,
                        report: Report::Written,
                    } => world.targets[target_of(&read.state) as usize].epoch < *epoch,
                    _ => false,
                })
            }),
        ]
    }
}

/// The agents are alike.
impl Representative for World {
    fn representative(&self) -> Self {
        let mut world = self.clone();
        let rank = |agent: &Agent| {
            let mut hasher = rustc_hash::FxHasher::default();
            agent.hash(&mut hasher);
            hasher.finish()
        };
        if rank(&world.agents[0]) > rank(&world.agents[1]) {
            world.agents.swap(0, 1);
            if let Some(lease) = &mut world.lease {
                lease.holder = 1 - lease.holder;
            }
        }
        world
    }
}

impl World {
    fn highest_held(&self) -> u64 {
        let held = self.agents.iter().map(|agent| match agent {
            Agent::Idle => 0,
            Agent::Holds { epoch }
            | Agent::Knows { epoch, .. }
            | Agent::Looked { epoch, .. }
            | Agent::Wrote { epoch, .. }
            | Agent::Reports { epoch, .. } => *epoch,
        });
        held.max().unwrap_or(0)
    }
}

fn ends(world: &World, status: Status) -> bool {
    world.workflow.state.phase == Phase::Ended { status }
}

fn explore(left: Left) {
    let checker = Protocol(left).checker().threads(2).symmetry();
    let checker = checker.spawn_dfs().join();
    println!(
        "{left:?}: {} states, {} of them apart",
        checker.state_count(),
        checker.unique_state_count()
    );
    checker.assert_properties();
}

#[test]
fn two_agents_that_die_act_as_one() {
    explore(Left {
        crashes: 2,
        expiries: 1,
        unnoticed: 0,
        faults: 1,
        asks: 1,
    });
}

#[test]
fn two_agents_that_stand_still_act_as_one() {
    explore(Left {
        crashes: 0,
        expiries: 2,
        unnoticed: 1,
        faults: 1,
        asks: 1,
    });
}
