//! Three agents share one PostgreSQL. One after the other is killed, stands still for longer than its leases last, or dies at
//! a point where something is committed or written; the others carry on.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::calls::{Callers, How, Watcher};
use super::rig::{Random, Rig, Running};
use super::{Fault, Survival, TARGETS, check, next_fault, seed};
use crate::postgres::Postgres;

const AGENTS: usize = 3;
/// Of workflows, here.
const LEASE: Duration = Duration::from_secs(2);

/// As many of each.
const FAULTS: [Fault; 8] = [
    Fault::Instant,
    Fault::StandsStill,
    Fault::Point("store::before_commit"),
    Fault::Point("actuator::after_write"),
    Fault::ToldFailed,
    Fault::StandsStill,
    Fault::Point("store::after_commit"),
    Fault::Point("actuator::before_write"),
];

/// How often one of them is: many times where the full figures are wanted.
fn rounds() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_AGENT_KILLS").ok();
    asked.map_or(16, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_AGENT_KILLS is a number")
    })
}

#[tokio::test]
async fn workflows_survive_agents_that_share_a_store() {
    let postgres = Postgres::start();
    let rig = Rig::of_one_engine(4, TARGETS).await;
    rig.shares(&postgres.database().await, LEASE);
    let survival = survival(&rig, rounds()).await;
    let ends = check(&rig, &survival.callers, &survival.client).await;
    survival.tell(&rig, &ends);
    survival.assert_enough(&rig, &FAULTS, rounds() / 16);
}

pub(super) fn name(agent: usize) -> String {
    format!("agent-{agent}")
}

async fn survival(rig: &Rig, rounds: usize) -> Survival {
    let seed = seed();
    let mut random = Random(seed);
    let begin = Instant::now();
    rig.tell_failed(0.15);
    let mut callers = Callers::new(&rig.instances, How::InPlace, random.below(1 << 40));
    let mut watcher = Watcher::default();
    let mut killed_at_any_instant = 0;
    let mut agents: Vec<Option<Running>> = Vec::new();
    for agent in 0..AGENTS {
        agents.push(rig.serve_as(&name(agent), "").await);
    }
    let mut round = 0;
    while let Some(fault) = next_fault(rig, &FAULTS, (round, rounds), rounds / 16) {
        round += 1;
        let victim = random.below(AGENTS as u64) as usize;
        // those that were killed before are back
        for (agent, running) in agents.iter_mut().enumerate() {
            if agent != victim && running.is_none() {
                *running = rig.serve_as(&name(agent), "").await;
            }
        }
        let failpoints = fault.failpoints(&mut random, AGENTS as u64);
        if !failpoints.is_empty() || agents[victim].is_none() {
            // one that is asked to stop gives up what it holds
            if let Some(mut running) = agents[victim].take() {
                signal(&running, Signal::TERM);
                running.child.wait().await.unwrap();
            }
            agents[victim] = rig.serve_as(&name(victim), &failpoints).await;
        }
        let client = |agent: usize| {
            let running = agents[agent % AGENTS].as_ref().expect("it serves");
            running.client.clone()
        };
        let (asked, watched) = (client(victim + 1), client(victim + 2));
        let Some(mut running) = agents[victim].take() else {
            continue;
        };
        let after = Duration::from_millis(500 + random.below(1_500));
        let lives = {
            let strikes = async {
                match fault {
                    Fault::StandsStill => {
                        tokio::time::sleep(after).await;
                        signal(&running, Signal::STOP);
                        tokio::time::sleep(2 * LEASE).await;
                        signal(&running, Signal::CONT);
                        // what it was about to do is refused
                        tokio::time::sleep(LEASE).await;
                        true
                    }
                    _ => {
                        fault.strikes(&mut running, after).await;
                        // another takes over
                        tokio::time::sleep(LEASE).await;
                        false
                    }
                }
            };
            tokio::select! {
                lives = strikes => lives,
                never = callers.ask_on(&asked) => match never {},
                () = watcher.watch(&watched, None) => unreachable!("for ever"),
            }
        };
        killed_at_any_instant += u32::from(!matches!(fault, Fault::Point(_)));
        if lives {
            agents[victim] = Some(running);
        }
    }
    let took = begin.elapsed();

    rig.tell_failed(0.0);
    // the last of them carries everything to its end
    let agent = agents.iter().position(Option::is_some).expect("one lives");
    let running = agents[agent].take().expect("it lives");
    for mut other in agents.into_iter().flatten() {
        other.child.start_kill().unwrap();
        other.child.wait().await.unwrap();
    }
    let said = (round, killed_at_any_instant, took);
    Survival::at_the_end(rig, (callers, watcher), running, said).await
}

pub(super) fn signal(running: &Running, signal: Signal) {
    let pid = running.child.id().expect("it was not waited for");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
