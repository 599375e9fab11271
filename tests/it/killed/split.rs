//! Split brain: agents that act on what was true before they stood still, or were cut off from the database, or that have
//! another time than it. Nothing of what they do too late counts, and others take over in time.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::agents::{name, signal};
use super::calls::{Callers, How, Watcher};
use super::cut::Way;
use super::rig::{Random, Rig, Running};
use super::witness::{Witness, takeovers};
use super::{Survival, TARGETS, check, seed};
use crate::postgres::Postgres;

const AGENTS: usize = 4;
/// Of workflows, here: shorter than an agent would have it, so that many times fit into a test.
fn lease() -> Duration {
    let asked = std::env::var("PERFAGENT_TEST_SPLIT_LEASE_SECONDS").ok();
    let seconds = asked.map_or(1, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_SPLIT_LEASE_SECONDS is a number")
    });
    Duration::from_secs(seconds)
}

/// What is wrong with an agent for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    StandsStill,
    CutOff,
    /// Its clock is an hour ahead, or behind.
    OtherTime(&'static str),
}

/// Two agents at once each time, in turn.
const APART: [[Apart; 2]; 2] = [
    [Apart::StandsStill, Apart::OtherTime("+1h")],
    [Apart::CutOff, Apart::OtherTime("-1h")],
];

/// How often an agent is apart: many times where the full figures are wanted.
fn rounds() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_SPLIT_ROUNDS").ok();
    asked.map_or(50, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_SPLIT_ROUNDS is a number")
    })
}

/// An agent, its way to the database, and who it is there.
struct Member {
    way: Way,
    url: String,
    running: Running,
    holder: String,
}

impl Member {
    async fn start(rig: &Rig, number: usize, database: &str, witness: &mut Witness) -> Self {
        let (server, rest) = database
            .trim_start_matches("postgres://perfagent@")
            .split_once('/')
            .unwrap();
        let way = Way::to(server.to_owned()).await;
        let url = format!("postgres://perfagent@{}/{rest}", way.address);
        let (running, holder) = serve(rig, number, &url, &[], witness).await;
        Self {
            way,
            url,
            running,
            holder,
        }
    }

    /// It is stopped, and started anew with these variables.
    async fn anew(
        &mut self,
        rig: &Rig,
        number: usize,
        variables: &[(&str, &str)],
        witness: &mut Witness,
    ) {
        signal(&self.running, Signal::TERM);
        self.running.child.wait().await.unwrap();
        (self.running, self.holder) = serve(rig, number, &self.url, variables, witness).await;
    }
}

async fn serve(
    rig: &Rig,
    number: usize,
    url: &str,
    variables: &[(&str, &str)],
    witness: &mut Witness,
) -> (Running, String) {
    let before = witness.agents().await;
    let arguments = ["--store-url", url];
    let agent = name(number);
    let running = rig.serve_with(&agent, "", variables, &arguments);
    let running = running.await.expect("it serves");
    let holders = witness.agents().await.into_iter();
    // one with another time is not among them
    let holder = holders.into_iter().find(|agent| !before.contains(agent));
    (running, holder.unwrap_or_default())
}

/// What has a process have another time.
fn other_time() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");
    let python = Command::new(script).output().unwrap();
    let python = String::from_utf8(python.stdout).unwrap();
    let of = "import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec('libfaketime').origin).parent)";
    let package = Command::new(python.trim())
        .args(["-c", of])
        .output()
        .unwrap();
    let package = String::from_utf8(package.stdout).unwrap();
    format!("{}/vendor/libfaketime/src/libfaketime.so.1", package.trim())
}

fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

#[tokio::test]
async fn who_was_apart_does_nothing_that_counts() {
    let postgres = Postgres::start();
    let database = postgres.database().await;
    let rig = Rig::of_one_engine(8, TARGETS).await;
    rig.shares(&database, lease());
    let (library, lease) = (other_time(), lease());
    let mut random = Random(seed());
    // the first sets the database up
    let mut first = rig.serve("").await.expect("it serves");
    let mut witness = Witness::of(&database).await;
    signal(&first, Signal::TERM);
    first.child.wait().await.unwrap();
    let mut members = Vec::new();
    for number in 0..AGENTS {
        members.push(Member::start(&rig, number, &database, &mut witness).await);
    }
    let mut callers = Callers::new(&rig.instances, How::InPlace, random.below(1 << 40));
    let mut watcher = Watcher::default();
    let begin = Instant::now();
    let mut times = Vec::new();
    let mut been_apart = 0;
    for turn in APART.iter().cycle() {
        if been_apart >= rounds() {
            break;
        }
        let first = random.below(AGENTS as u64) as usize;
        let second = (first + 1 + random.below(AGENTS as u64 - 1) as usize) % AGENTS;
        let apart = [(first, turn[0]), (second, turn[1])];
        let mut others = (0..AGENTS).filter(|number| ![first, second].contains(number));
        let mut client = || members[others.next().unwrap()].running.client.clone();
        let (asked, watched) = (client(), client());
        let round = async {
            tokio::time::sleep(Duration::from_millis(300 + random.below(700))).await;
            let mut held = Vec::new();
            for (number, how) in apart {
                let member = &mut members[number];
                if how != Apart::StandsStill && how != Apart::CutOff {
                    continue;
                }
                let workflows = witness.held_by(&member.holder).await;
                held.push((member.holder.clone(), workflows, unix_seconds()));
                match how {
                    Apart::StandsStill => signal(&member.running, Signal::STOP),
                    _ => member.way.cut(),
                }
            }
            for (number, how) in apart {
                if let Apart::OtherTime(time) = how {
                    let variables = [
                        ("LD_PRELOAD", library.as_str()),
                        ("FAKETIME", time),
                        ("DONT_FAKE_MONOTONIC", "1"),
                    ];
                    members[number]
                        .anew(&rig, number, &variables, &mut witness)
                        .await;
                }
            }
            tokio::time::sleep(2 * lease).await;
            for (number, how) in apart {
                match how {
                    Apart::StandsStill => signal(&members[number].running, Signal::CONT),
                    Apart::CutOff => members[number].way.mend(),
                    Apart::OtherTime(_) => {}
                }
            }
            // what they were about to do is refused
            tokio::time::sleep(lease).await;
            for (number, how) in apart {
                if let Apart::OtherTime(_) = how {
                    members[number].anew(&rig, number, &[], &mut witness).await;
                }
            }
            held
        };
        let held = tokio::select! {
            held = round => held,
            never = callers.ask_on(&asked) => match never {},
            () = watcher.watch(&watched, None) => unreachable!("for ever"),
        };
        let given = witness.given().await;
        for (holder, workflows, since) in held {
            for (after, workflow_id) in takeovers(&given, &workflows, (&holder, since)) {
                if after > lease + Duration::from_secs(5) {
                    let story = witness.story(&workflow_id, since).await;
                    println!(
                        "{holder} lost {workflow_id}, and nobody had it for {after:.1?}: {story:.2?}"
                    );
                }
                times.push(after);
            }
        }
        been_apart += apart.len();
    }
    let took = begin.elapsed();
    let seen = {
        let mut running = members.into_iter().map(|member| member.running);
        let last = running.next().unwrap();
        for mut other in running {
            signal(&other, Signal::TERM);
            other.child.wait().await.unwrap();
        }
        let said = (been_apart, 0, took);
        let survival = Survival::at_the_end(&rig, (callers, watcher), last, said).await;
        let ends = check(&rig, &survival.callers, &survival.client).await;
        survival.tell(&rig, &ends);
        witness.seen(&rig).await
    };
    times.sort();
    let at =
        |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    println!(
        "{been_apart} times apart; {} intents and {} writes, of which late {} and {}; with a lease of {lease:?} {} workflows \
         were taken over after {:.1?} (median), {:.1?} (99 %)",
        seen.intents,
        seen.writes,
        seen.stale_intents,
        seen.stale_writes.len(),
        times.len(),
        at(50),
        at(99),
    );
    assert_eq!(seen.stale_intents, 0);
    assert_eq!(seen.stale_writes, Vec::<String>::new());
    assert!(
        seen.intents > been_apart && seen.writes > been_apart,
        "{seen:?}"
    );
}
