//! Several agents on one database measure each instance once, whoever of them goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use perfagent::edge::grpc::pb;
use perfagent::edge::grpc::pb::agent_service_client::AgentServiceClient;
use perfagent::edge::grpc::pb::instance_service_client::InstanceServiceClient;
use perfagent::edge::grpc::pb::metrics_service_client::MetricsServiceClient;
use perfagent::edge::grpc::pb::workflow_service_client::WorkflowServiceClient;
use tonic::transport::Channel;

use crate::cli::{Served, serve};
use crate::fake::{Answer, FakeEngine, vllm_body};
use crate::http::get_at;
use crate::postgres::Postgres;
use sqlx::{Connection, PgConnection};

const INSTANCES: usize = 30;

/// Engines, and when each was scraped.
struct Engines {
    engine: FakeEngine,
    scrapes: Arc<Mutex<BTreeMap<String, Vec<Instant>>>>,
}

impl Engines {
    async fn start() -> Self {
        let scrapes = Arc::new(Mutex::new(BTreeMap::<String, Vec<Instant>>::new()));
        let seen = scrapes.clone();
        let engine = FakeEngine::start(move |path, count| {
            let Some(id) = path.strip_suffix("/metrics") else {
                return Answer::Plain(404, Vec::new());
            };
            let mut seen = seen.lock().unwrap();
            let of_one = seen.entry(id.trim_start_matches('/').to_owned());
            of_one.or_default().push(Instant::now());
            Answer::ok(vllm_body(100 * count as u64))
        });
        Self {
            engine: engine.await,
            scrapes,
        }
    }

    fn url(&self, id: &str) -> String {
        format!("http://{}/{id}/metrics", self.engine.address)
    }

    /// How many scrapes there were since then.
    fn since(&self, begin: Instant) -> usize {
        let scrapes = self.scrapes.lock().unwrap();
        let later = scrapes.values().flatten().filter(|at| **at >= begin);
        later.count()
    }

    /// How long after that each of these was first scraped.
    fn first_after(&self, begin: Instant, ids: &[String]) -> Vec<Duration> {
        let scrapes = self.scrapes.lock().unwrap();
        let first = |id: &String| scrapes[id].iter().find(|at| **at > begin).copied();
        ids.iter()
            .map(|id| first(id).map_or(Duration::MAX, |at| at - begin))
            .collect()
    }
}

struct OneAgent {
    served: Served,
    info: AgentServiceClient<Channel>,
    instances: InstanceServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
}

impl OneAgent {
    async fn start(config: &std::path::Path) -> Self {
        let served = serve(&["--config", config.to_str().unwrap()]).await;
        let url = format!("http://{}", served.address);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self {
            served,
            info: AgentServiceClient::new(channel.clone()),
            instances: InstanceServiceClient::new(channel.clone()),
            metrics: MetricsServiceClient::new(channel),
        }
    }

    async fn list(&self) -> BTreeMap<String, pb::InstanceStatus> {
        let request = pb::ListInstancesRequest {
            page_size: 100,
            ..Default::default()
        };
        let listed = self.instances.clone().list_instances(request).await;
        let listed = listed.unwrap().into_inner().instances;
        let of = |one: pb::Instance| (one.instance_id, one.status.unwrap());
        listed.into_iter().map(of).collect()
    }

    /// What it measures itself.
    async fn measures(&self) -> Vec<String> {
        let own = self.list().await.into_iter();
        let own = own.filter(|(_, status)| status.measured_by.is_empty());
        own.map(|(id, _)| id).collect()
    }

    async fn gauge(&self, name: &str) -> f64 {
        let text = get_at(&*self.served.address, "/metrics", "localhost").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }
}

fn is_window(measurement: Option<&pb::Measurement>) -> bool {
    let window = measurement.and_then(|one| one.window.as_ref());
    window.is_some_and(|window| window.kind() == pb::WindowKind::Interval)
}

/// Each knows itself and all others, and each says of another's instance which of them measures it.
async fn is_known(agents: &[OneAgent]) -> bool {
    let mut own = Vec::new();
    for agent in agents {
        let mut client = agent.info.clone();
        let info = client.get_agent_info(pb::GetAgentInfoRequest {});
        let info = info.await.unwrap().into_inner();
        assert_eq!(info.agent_ids.len(), agents.len());
        assert!(info.agent_ids.contains(&info.agent_id));
        own.push((info.agent_id, agent.measures().await));
    }
    for agent in agents {
        for (id, status) in agent.list().await {
            let measures = own.iter().find(|(agent, _)| *agent == status.measured_by);
            let is_right = match measures {
                Some((_, measures)) => measures.contains(&id),
                None => status.measured_by.is_empty(),
            };
            if !is_right {
                return false;
            }
        }
    }
    true
}

/// Waits until each instance is up at all agents, and measured by one of them, but for one that somebody wants of all.
async fn until_shared(agents: &[OneAgent], instances: usize, but_for: &str) {
    let shared = async {
        loop {
            let mut measured = BTreeMap::<String, usize>::new();
            let mut up = 0;
            for agent in agents {
                for (id, status) in agent.list().await {
                    *measured.entry(id).or_default() += usize::from(status.measured_by.is_empty());
                    up += usize::from(status.state() == pb::InstanceState::Up);
                }
            }
            let once = |(id, times): &(&String, &usize)| **times == 1 || *id == but_for;
            let once = measured.iter().filter(once).count();
            if once == instances && up == instances * agents.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shared = tokio::time::timeout(Duration::from_secs(180), shared).await;
    shared.expect("each instance is measured by one, and known to all");
}

#[tokio::test]
async fn each_instance_is_measured_by_one_agent_whoever_of_them_goes() {
    let postgres = Postgres::shared();
    let url = postgres.database().await;
    let engines = Engines::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let mut text = format!("[store]\nurl = {url:?}\n");
    let ids: Vec<String> = (0..INSTANCES).map(|number| format!("i{number}")).collect();
    for id in &ids {
        let url = engines.url(id);
        text += &format!(
            "\n[[instances]]\ninstance_id = {id:?}\ninstance_type = \"vllm\"\nmetrics_urls = [{url:?}]\n\
             scrape_interval = \"500ms\"\nwindow = \"2s\"\n"
        );
    }
    std::fs::write(&config, text).unwrap();
    let mut agents = Vec::new();
    for _ in 0..3 {
        agents.push(OneAgent::start(&config).await);
    }
    // one that is registered at one of them is all the same
    let request = pb::RegisterInstanceRequest {
        instance_id: "registered".to_owned(),
        metrics_url: engines.url("registered"),
        scrape_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 500_000_000,
        }),
        ..Default::default()
    };
    let registered = agents[0].instances.register_instance(request).await;
    registered.unwrap();
    until_shared(&agents, INSTANCES + 1, "").await;
    // who measured it until the others came may still be named
    let known = async {
        while !is_known(&agents).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(120), known).await;
    known.expect("each says who measures what");

    // no more scrapes than one agent alone would make
    let begin = Instant::now();
    while engines.since(begin) < 20 * (INSTANCES + 1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let scrapes = engines.since(begin) as f64;
    let of_one_agent = (INSTANCES + 1) as f64 * begin.elapsed().as_secs_f64() / 0.5;
    println!(
        "3 agents: {:.3} times the scrapes of one",
        scrapes / of_one_agent
    );
    assert!(scrapes <= 1.1 * of_one_agent, "{scrapes} of {of_one_agent}");
    // who adds up what they tell counts nothing twice
    let mut told = 0.0;
    for agent in &agents {
        told += agent.gauge("perfagent_instances_measured ").await;
    }
    assert_eq!(told, (INSTANCES + 1) as f64);

    // whoever is asked answers with numbers of its own
    for agent in &mut agents {
        let request = pb::CollectMetricsRequest {
            instance_id: "i0".to_owned(),
            ..Default::default()
        };
        let answer = agent.metrics.collect_metrics(request).await.unwrap();
        let measured = answer.into_inner().measurement.unwrap();
        assert!(is_window(Some(&measured)));
        assert!(agent.measures().await.contains(&"i0".to_owned()));
    }
    // who watches sees windows, and for as long as that it is measured there
    let of_other = agents[1].measures().await;
    let other = |id: &&String| *id != "i0" && of_other.contains(id);
    let watched = ids.iter().find(other).unwrap().clone();
    let request = pb::WatchMetricsRequest {
        instance_ids: vec![watched.clone()],
        ..Default::default()
    };
    let stream = agents[0].metrics.watch_metrics(request).await.unwrap();
    let mut stream = stream.into_inner();
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if is_window(message.measurement.as_ref()) {
            break;
        }
    }
    assert!(agents[0].measures().await.contains(&watched));
    drop(stream);
    let asleep = async {
        while agents[0].measures().await.contains(&watched) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let asleep = tokio::time::timeout(Duration::from_secs(120), asleep).await;
    asleep.expect("what nobody watches any more is left to the other");

    // one is killed: what it measured alone is taken over
    let mut killed = agents.pop().unwrap();
    let mut its_own = killed.measures().await;
    its_own.retain(|id| id != "i0");
    assert!(!its_own.is_empty());
    killed.served.child.kill().await.unwrap();
    let begin = Instant::now();
    let taken_over = async {
        while engines
            .first_after(begin, &its_own)
            .contains(&Duration::MAX)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let taken_over = tokio::time::timeout(Duration::from_secs(180), taken_over).await;
    taken_over.expect("each is measured by another");
    until_shared(&agents, INSTANCES + 1, "i0").await;
    let mut after = engines.first_after(begin, &its_own);
    after.sort();
    println!(
        "{} instances of a killed agent were measured again after {:.1?} to {:.1?}",
        its_own.len(),
        after[0],
        after[after.len() - 1],
    );
}

/// As a later version leaves it, which adds and takes nothing away.
const LATER_SCHEMA: &str = "\
ALTER TABLE workflows ADD COLUMN later TEXT;
ALTER TABLE instances ADD COLUMN later TEXT NOT NULL DEFAULT '';
CREATE TABLE later (place BIGINT PRIMARY KEY);
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
  SELECT max(version) + 1, 'later', true, 'x'::bytea, 0 FROM _sqlx_migrations;
";

#[tokio::test]
async fn an_agent_goes_on_beside_a_later_one_and_does_not_start_after_it() {
    let url = Postgres::shared().database().await;
    let engines = Engines::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, format!("[store]\nurl = {url:?}\n")).unwrap();
    let mut agents = Vec::new();
    for _ in 0..2 {
        agents.push(OneAgent::start(&config).await);
    }
    let mut database = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(LATER_SCHEMA)
        .execute(&mut database)
        .await
        .unwrap();
    let request = pb::RegisterInstanceRequest {
        instance_id: "a".to_owned(),
        metrics_url: engines.url("a"),
        ..Default::default()
    };
    let registered = agents[0].instances.register_instance(request).await;
    registered.unwrap();
    until_shared(&agents, 1, "").await;
    let mut workflows = Vec::new();
    for agent in &agents {
        let channel = Channel::from_shared(format!("http://{}", agent.served.address));
        let channel = channel.unwrap().connect().await.unwrap();
        workflows.push(WorkflowServiceClient::new(channel));
    }
    let request = pb::StartWorkflowRequest {
        instance_id: "a".to_owned(),
        workflow_type: "analysis".to_owned(),
        ..Default::default()
    };
    let started = workflows[0].start_workflow(request).await.unwrap();
    let watch = pb::WatchWorkflowRequest {
        workflow_id: started.into_inner().workflow.unwrap().workflow_id,
        ..Default::default()
    };
    // to its end, at the other
    let mut stream = workflows[1].watch_workflow(watch).await.unwrap();
    let stream = stream.get_mut();
    let told = async {
        let mut told = 0;
        while stream.message().await.unwrap().is_some() {
            told += 1;
        }
        told
    };
    let told = tokio::time::timeout(Duration::from_secs(120), told).await;
    assert!(told.expect("it ends") > 1);
    let started = crate::cli::run(&["serve", "--config", config.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success());
    assert!(said.contains("was written by a newer perfagent"), "{said}");
}

/// One agent lacks instances in its config file, some of which fall to it.
#[tokio::test]
async fn what_an_agent_lacks_another_measures_in_its_place() {
    let url = Postgres::shared().database().await;
    let engines = Engines::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (whole, empty) = (
        directory.path().join("a.toml"),
        directory.path().join("b.toml"),
    );
    let store = format!("[store]\nurl = {url:?}\n");
    std::fs::write(&empty, &store).unwrap();
    let ids: Vec<String> = (0..20).map(|number| format!("i{number}")).collect();
    let instance = |id: &String| {
        let url = engines.url(id);
        format!(
            "\n[[instances]]\ninstance_id = {id:?}\nmetrics_urls = [{url:?}]\nscrape_interval = \"1s\"\n"
        )
    };
    let instances: String = ids.iter().map(instance).collect();
    std::fs::write(&whole, store + &instances).unwrap();
    // it is there first, so that the other leaves to it from the beginning what falls to it
    let lacks = OneAgent::start(&empty).await;
    let has = OneAgent::start(&whole).await;
    let measured = async {
        // some fall to the one that lacks them
        while has.measures().await.len() == ids.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while has.measures().await.len() < ids.len() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let measured = tokio::time::timeout(Duration::from_secs(180), measured).await;
    measured.expect("all are measured by the one that has them");
    assert_eq!(has.gauge("perfagent_instances_measured ").await, 20.0);
    assert_eq!(lacks.list().await.len(), 0);
}
