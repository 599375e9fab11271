//! Canaries on engines that flap: whatever goes wrong, nothing that harms goes to all, each workflow ends in time where it
//! has to, and what is undone is as it was, byte for byte.

#[path = "flapping/replica.rs"]
mod replica;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use perfagent::config::Config;
use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use perfagent::edge::grpc::pb::{WorkflowPauseReason, WorkflowStatus};
use prost_types::value::Kind;
use tonic::Code;
use tonic::transport::Channel;

use crate::fake::TestAgent;
use crate::slowed::harms;
use replica::{BEFORE, Replica, Troubles};

/// Of each instance; one of them is the first part.
const REPLICAS: usize = 3;

/// How many workflows: many times as many where the full figures are wanted.
fn workflows() -> usize {
    let asked = std::env::var("PERFAGENT_TEST_FLAPPING_WORKFLOWS").ok();
    asked.map_or(16, |text| {
        text.parse()
            .expect("PERFAGENT_TEST_FLAPPING_WORKFLOWS is a number")
    })
}

/// Of one instance.
const ROUNDS: usize = 2;
const MOST_INSTANCES: usize = 25;

const OBSERVE: Duration = Duration::from_secs(8);
const DECISION: Duration = Duration::from_secs(2);
const PLAN: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(20);
const MEASURE: Duration = Duration::from_secs(3);
const ROLLBACK: Duration = Duration::from_secs(60);

/// After it a workflow has ended: the sum of all its deadlines, and what a busy machine takes.
fn deadline() -> Duration {
    let each_target = READY * REPLICAS as u32;
    PLAN + each_target + OBSERVE * 2 + DECISION + MEASURE + ROLLBACK + Duration::from_secs(30)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_harms_goes_to_all_of_an_engine_that_flaps() {
    let instances = workflows().div_ceil(ROUNDS).min(MOST_INSTANCES);
    let mut pools = Vec::new();
    for place in 0..instances {
        let number = |at: usize| (place * REPLICAS + at) as u64;
        pools.push(join_all((0..REPLICAS).map(|at| Replica::start(number(at)))).await);
    }
    let agent = TestAgent::with(|config| configure(config, &pools)).await;
    let client = agent.workflows().await;
    let begin = Instant::now();
    let rounds = workflows() / instances;
    let all = join_all(pools.iter().enumerate().map(async |(place, pool)| {
        let mut ends = Vec::new();
        for round in 0..rounds {
            ends.push(one(&client, &format!("i{place}"), pool, place + round).await);
        }
        ends
    }))
    .await;
    let ends = all.into_iter().flatten();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for end in ends {
        *counts.entry(end).or_default() += 1;
    }
    let troubles = pools.iter().flatten().map(Replica::troubles);
    let troubles = troubles.fold(Troubles::default(), |sum, of| Troubles {
        errors: sum.errors + of.errors,
        hangs: sum.hangs + of.hangs,
        nonsense: sum.nonsense + of.nonsense,
        resets: sum.resets + of.resets,
        deaths: sum.deaths + of.deaths,
        control: sum.control + of.control,
    });
    println!(
        "{} workflows on {instances} instances in {:.0?}: {counts:?}; {troubles:?}",
        instances * rounds,
        begin.elapsed()
    );
    let least = instances as u32;
    for (what, times) in [
        ("errors", troubles.errors),
        ("resets", troubles.resets),
        ("nonsense", troubles.nonsense),
        ("deaths", troubles.deaths),
        ("control", troubles.control),
    ] {
        assert!(times >= least, "too few {what}: {troubles:?}");
    }
}

fn configure(config: &mut Config, pools: &[Vec<Replica>]) {
    let mut text = "[workflows]\nauto_approve = true\n\
                    [[actuators]]\nname = \"sim\"\ntype = \"simulator\"\ntimeout = \"2s\"\n"
        .to_owned();
    for (place, pool) in pools.iter().enumerate() {
        let urls: Vec<String> = pool.iter().map(|replica| replica.engine.url()).collect();
        text += &format!(
            "[[instances]]\ninstance_id = \"i{place}\"\ninstance_type = \"vllm\"\nmetrics_urls = {urls:?}\n\
             scrape_interval = \"200ms\"\nwindow = \"600ms\"\nactuator = \"sim\"\n"
        );
    }
    let read: Config = toml::from_str(&text).unwrap();
    config.workflows = read.workflows;
    config.actuators = read.actuators;
    config.instances = read.instances;
}

/// One workflow from its start to its end, and all that has to be so then. How it ended.
async fn one(
    client: &WorkflowServiceClient<Channel>,
    instance_id: &str,
    pool: &[Replica],
    number: usize,
) -> String {
    let before: Vec<String> = pool.iter().map(Replica::content).collect();
    let harm = number.is_multiple_of(2);
    // another one than there is
    let cap = 1_000 + 2 * number as u32 + u32::from(harm);
    assert_eq!(harms(cap), harm);
    let begin = Instant::now();
    let id = start(client, instance_id, cap).await;
    let state = loop {
        let state = got(client, &id).await;
        if state.done {
            break state;
        }
        assert!(
            begin.elapsed() < deadline(),
            "not ended in time: {state:#?}"
        );
        // nobody lets it go on: what is not proven is undone at its deadline
        if state.status() == WorkflowStatus::Paused {
            assert_ne!(
                state.pause_reason(),
                WorkflowPauseReason::Unspecified,
                "{state:#?}"
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let reason = state.failure.as_ref().map_or("", |of| of.reason.as_str());
    let status = state.status();
    let contents: Vec<String> = pool.iter().map(Replica::content).collect();
    match status {
        WorkflowStatus::Completed => {
            assert!(!harm, "what harms went to all: {state:#?}");
            for content in &contents {
                assert!(content.contains(&cap.to_string()), "{content}: {state:#?}");
            }
        }
        WorkflowStatus::RolledBack => {
            assert_eq!(contents, before, "not as before: {state:#?}");
            assert!(!reason.is_empty(), "{state:#?}");
        }
        // before anything was touched
        WorkflowStatus::Failed => {
            assert_eq!(contents, before, "{state:#?}");
            assert!(pool.iter().all(|replica| replica.applies(&id) == 0));
        }
        _ => panic!("a wrong end: {state:#?}"),
    }
    if harm && status == WorkflowStatus::RolledBack {
        let touched = pool.iter().filter(|replica| replica.applies(&id) > 0);
        assert!(touched.count() <= 1, "others were touched: {state:#?}");
    }
    if number == 0 {
        assert_eq!(before, [BEFORE; REPLICAS]);
    }
    format!(
        "{} {} {reason}",
        if harm { "harmful" } else { "harmless" },
        status.as_str_name()
    )
}

async fn start(client: &WorkflowServiceClient<Channel>, instance_id: &str, cap: u32) -> String {
    let seconds = |of: Duration| of.try_into().ok();
    let request = pb::StartWorkflowRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        instance_id: instance_id.to_owned(),
        workflow_type: "config_change".to_owned(),
        changes: Some(prost_types::Struct {
            fields: [(
                "max_num_seqs".to_owned(),
                prost_types::Value {
                    kind: Some(Kind::NumberValue(cap.into())),
                },
            )]
            .into(),
        }),
        auto_approve: true,
        canary: Some(pb::WorkflowCanary {
            shares: vec![0.3],
            warm_up: seconds(Duration::from_millis(200)),
            observe: seconds(OBSERVE),
            decision: seconds(DECISION),
            drain: seconds(Duration::from_millis(200)),
            ..Default::default()
        }),
        plan_timeout: seconds(PLAN),
        ready_timeout: seconds(READY),
        observe_timeout: seconds(MEASURE),
        rollback_timeout: seconds(ROLLBACK),
        ..Default::default()
    };
    let started = again(async || client.clone().start_workflow(request.clone()).await).await;
    started.workflow.unwrap().workflow_id
}

/// Asks until the store has a connection to spare, as the answer says.
async fn again<T>(mut ask: impl AsyncFnMut() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(status) => panic!("{status:?}"),
        }
    }
}

async fn got(client: &WorkflowServiceClient<Channel>, id: &str) -> pb::Workflow {
    let request = pb::GetWorkflowRequest {
        workflow_id: id.to_owned(),
    };
    let got = again(async || client.clone().get_workflow(request.clone()).await).await;
    got.workflow.unwrap()
}
