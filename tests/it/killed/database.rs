//! The database restarts again and again under two agents, and of what they commit a part is told as failed.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use perfagent::edge::grpc::health_pb::HealthCheckRequest;
use perfagent::edge::grpc::health_pb::health_check_response::ServingStatus;
use perfagent::edge::grpc::health_pb::health_client::HealthClient;
use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::agents::name;
use super::calls::{Callers, How, Watcher, log};
use super::rig::{Random, Rig, until};
use super::{TARGETS, check, seed};
use crate::postgres::Postgres;

/// Of workflows, here.
const LEASE: Duration = Duration::from_secs(2);

/// How often the database restarts, and under how many workflows at once: many where the full figures are wanted.
fn asked(variable: &str, else_: usize) -> usize {
    let asked = std::env::var(variable).ok();
    asked.map_or(else_, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_survive_a_database_that_restarts() {
    let restarts = asked("PERFAGENT_TEST_DATABASE_RESTARTS", 6);
    let instances = asked("PERFAGENT_TEST_DATABASE_WORKFLOWS", 4);
    let postgres = Postgres::start();
    let rig = Rig::of_one_engine(instances, TARGETS).await;
    rig.shares(&postgres.database().await, LEASE);
    rig.tell_failed(0.05);
    let mut random = Random(seed());
    let mut agents = Vec::new();
    for agent in 0..2 {
        // what is told as failed while it starts ends it, and who looks after it starts it again
        let running = until("the agent serves", async || {
            rig.serve_as(&name(agent), "store::told_failed=5%return")
                .await
        });
        agents.push(running.await);
    }
    let (asked, watched) = (agents[0].client.clone(), agents[1].client.clone());
    // an agent that does not measure an instance yet answers once it does
    let at_once = instances.div_ceil(10);
    let begin = Instant::now();
    let mut callers = Callers::several(&rig.instances, How::InPlace, &mut random, at_once);
    let all = join_all(callers.iter_mut().map(|one| one.start_all(&asked)));
    let started = tokio::time::timeout(Duration::from_secs(900), all).await;
    started.expect("each instance has a workflow");
    let begun = begin.elapsed();
    let mut watcher = Watcher::default();
    let mut prober = Prober::default();
    let mut health = Health::of(agents[1].channel.clone()).await;
    let restarting = async {
        for restart in 0..restarts {
            // many workflows have their time
            let up = if instances > 100 {
                5_000 + random.below(35_000)
            } else {
                500 + random.below(2_500)
            };
            tokio::time::sleep(Duration::from_millis(up)).await;
            tokio::task::block_in_place(|| postgres.stop());
            // what is over within seconds is waited for; the first time it is longer
            let down = if restart == 0 {
                8_000
            } else {
                random.below(2_000)
            };
            tokio::time::sleep(Duration::from_millis(down)).await;
            tokio::task::block_in_place(|| postgres.start_again());
        }
    };
    let watching = async {
        loop {
            // a watch ends with its store, and is taken up where it was
            let once = watcher.watch(&watched, None);
            let _ = tokio::time::timeout(Duration::from_secs(2), once).await;
        }
    };
    tokio::select! {
        () = restarting => {}
        _ = join_all(callers.iter_mut().map(|one| one.ask_on(&asked))) => unreachable!("for ever"),
        never = prober.ask_on(&watched) => match never {},
        () = health.watch() => unreachable!("the agent lives"),
        () = watching => {}
    }
    let serves = health.until(ServingStatus::Serving);
    let serves = tokio::time::timeout(Duration::from_secs(60), serves).await;
    serves.expect("it serves again");
    let patience = Duration::from_secs(120 + instances as u64);
    let ended = async {
        let all = callers.iter_mut().map(async |one: &mut Callers| {
            while !one.finish(&asked).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        join_all(all).await;
    };
    let ended = tokio::time::timeout(patience, ended).await;
    ended.expect("all workflows have ended");
    let callers = Callers::together(callers);
    let ends = check(&rig, &callers, &asked).await;
    let log = log(&asked).await;
    let last = log.last().map(|event| event.revision);
    until("the watcher is told everything", async || {
        let once = watcher.watch(&watched, last);
        let told = tokio::time::timeout(Duration::from_secs(10), once).await;
        told.ok()
    })
    .await;
    assert!(watcher.knows(&log), "the watcher was not told everything");
    watcher.assert_kept(&log);
    println!(
        "{instances} workflows begun in {begun:.0?}, then {restarts} restarts of the database, all ended after {:.0?}; \
         {} workflows ended {ends:?}; {} events; failpoints that struck: {:?}; {} calls meanwhile UNAVAILABLE with RetryInfo, of {}; health {:?}; lost 0, applied twice 0, wrong ends 0",
        begin.elapsed(),
        callers.asked.len(),
        log.len(),
        rig.struck(),
        prober.unavailable,
        prober.calls,
        health.seen,
    );
    assert!(prober.unavailable > 0, "no call met the database away");
    let is_not_serving = |seen: &ServingStatus| *seen == ServingStatus::NotServing;
    assert!(health.seen.iter().any(is_not_serving), "{:?}", health.seen);
    if cfg!(feature = "failpoints") {
        let told_failed = rig.struck().contains_key("store::told_failed");
        assert!(told_failed, "no commit was told as failed");
    }
}

/// Reads from the store again and again. Whatever fails says that it is to be tried again, and when.
#[derive(Debug, Default)]
struct Prober {
    calls: u32,
    unavailable: u32,
}

impl Prober {
    async fn ask_on(&mut self, client: &WorkflowServiceClient<Channel>) -> Infallible {
        loop {
            let list = pb::ListWorkflowsRequest {
                page_size: 1,
                ..Default::default()
            };
            self.calls += 1;
            if let Err(status) = client.clone().list_workflows(list).await {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                let after = status.get_details_retry_info();
                assert!(
                    after.is_some_and(|info| info.retry_delay.is_some()),
                    "{status:?}"
                );
                self.unavailable += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the agent says of itself.
struct Health {
    statuses: tonic::Streaming<perfagent::edge::grpc::health_pb::HealthCheckResponse>,
    seen: Vec<ServingStatus>,
}

impl Health {
    async fn of(channel: Channel) -> Self {
        let whole = HealthCheckRequest {
            service: String::new(),
        };
        let statuses = HealthClient::new(channel).watch(whole).await.unwrap();
        Self {
            statuses: statuses.into_inner(),
            seen: Vec::new(),
        }
    }

    async fn watch(&mut self) {
        while let Ok(Some(status)) = self.statuses.message().await {
            self.seen.push(status.status());
        }
    }

    async fn until(&mut self, status: ServingStatus) {
        while self.seen.last() != Some(&status) {
            let next = self.statuses.message().await.unwrap().unwrap();
            self.seen.push(next.status());
        }
    }
}
