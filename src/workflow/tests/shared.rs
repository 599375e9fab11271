//! Leases and writes of one workflow, explored exhaustively: two agents, either of which may die twice in all, stand still for
//! as long as it likes at every point, and think that it still holds a lease that is long another's.
//!
//! What is decided is decided by the machine itself. The store and the targets are models of what theirs promise: a commit
//! is refused where the workflow has moved on or the lease is another's or over; a write is refused where the epoch is lower
//! than one that the target has seen, or the settings are others than were read.

mod world;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use stateright::{Checker, Model, Property, Representative};

use super::example::Run;
use crate::workflow::{Command, Phase, Status};

use world::{Agent, Content, Fault, Lease, Read, Report, TARGETS, Target, World, target_of};

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    crashes: u8,
    /// Leases that run out though their holder is there.
    expiries: u8,
    /// Times that a holder goes on though it was told that it holds the lease no more.
    unnoticed: u8,
    /// Writes that say that they failed, and take effect, do not, or do so later.
    faults: u8,
    /// Callers that roll back or cancel.
    asks: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Acquire(usize),
    Expire,
    /// The agent does what comes next.
    Go(usize),
    /// A write says that it failed.
    Fault(usize, Fault),
    /// One that was said to have failed reaches its target.
    Land,
    /// A refused commit is not noticed to mean that the lease is gone.
    GoesOnAllTheSame(usize),
    Crash(usize),
    Rollback,
    Cancel,
}

struct Protocol(Left);

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
            leases: 0,
            late: None,
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
                    let faults = [Fault::ToldFailed, Fault::Fails, Fault::Late];
                    acts.extend(faults.map(|fault| Act::Fault(who, fault)));
                }
                Agent::Reports { epoch, .. }
                    if !world.holds(*epoch) && world.left.unnoticed > 0 =>
                {
                    acts.push(Act::GoesOnAllTheSame(who));
                }
                _ => {}
            }
        }
        if world.late.is_some() {
            acts.push(Act::Land);
        }
        if world.left.asks > 0 && !world.has_ended() {
            acts.extend([Act::Rollback, Act::Cancel]);
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        match act {
            Act::Acquire(who) => {
                world.leases += 1;
                let epoch = world.leases;
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
            Act::Fault(who, fault) => {
                world.left.faults -= 1;
                world.go(who, Some(fault))?;
            }
            Act::Land => {
                let write = world.late.take()?;
                world.takes(&write);
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

const DIE: Left = Left {
    crashes: 2,
    expiries: 1,
    unnoticed: 0,
    faults: 1,
    asks: 1,
};

const STAND_STILL: Left = Left {
    crashes: 0,
    expiries: 2,
    unnoticed: 1,
    faults: 1,
    asks: 1,
};

#[test]
fn two_agents_that_die_act_as_one() {
    explore(Left { faults: 0, ..DIE });
    explore(Left { crashes: 1, ..DIE });
}

#[test]
fn two_agents_that_stand_still_act_as_one() {
    explore(Left {
        expiries: 1,
        ..STAND_STILL
    });
}

#[test]
#[ignore = "takes minutes"]
fn two_agents_act_as_one_whatever_happens() {
    explore(DIE);
    explore(STAND_STILL);
}
