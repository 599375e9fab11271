//! What Prometheus makes of our metrics, and of the board and the alerts that we ship.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use perfagent::edge::grpc::pb;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::captures;
use crate::fake::{Answer, FakeEngine, TestAgent, counting_vllm, vllm_body};
use crate::http::get;
use crate::instances::configured;

/// A file that we ship.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// The tools of Prometheus.
fn tool(name: &str) -> PathBuf {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promtool");
        let output = std::process::Command::new(script)
            .output()
            .expect("tests/promtool");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    tools.join(name)
}

async fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(tool("promtool"))
        .args(arguments)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

#[tokio::test]
async fn promtool_finds_the_rules_right() {
    let rules = shipped("prometheus/alerts.yaml");
    let tests = shipped("prometheus/alerts_test.yaml");
    for arguments in [
        ["check", "rules", rules.to_str().unwrap()],
        ["test", "rules", tests.to_str().unwrap()],
    ] {
        promtool(&arguments, "").await.unwrap();
    }
    // a promtool that accepts everything would show nothing
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(&rules).unwrap();
    let other = text.replace("> 0.5\n          or", "> 5\n          or");
    assert_ne!(text, other);
    fs::write(directory.path().join("alerts.yaml"), other).unwrap();
    let copy = directory.path().join("alerts_test.yaml");
    fs::copy(tests, &copy).unwrap();
    let problem = promtool(&["test", "rules", copy.to_str().unwrap()], "")
        .await
        .unwrap_err();
    assert!(
        problem.contains("PerfagentInstanceSlowFirstToken"),
        "{problem}"
    );
}

#[tokio::test]
async fn promtool_finds_the_scrape_job_right_with_tls_and_token_or_without() {
    let plain = shipped("prometheus/scrape.yaml");
    promtool(&["check", "config", plain.to_str().unwrap()], "")
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let text = fs::read_to_string(plain).unwrap();
    let (head, rest) = text.split_once("    # scheme: https").unwrap();
    let (optional, tail) = rest.split_once("    static_configs").unwrap();
    let optional = optional.replace("    # ", "    ");
    for file in ["perfagent-ca.pem", "perfagent-token"] {
        assert!(optional.contains(file), "{optional}");
        fs::write(directory.join(file), "secret").unwrap();
    }
    let optional = optional.replace("/etc/prometheus", directory.to_str().unwrap());
    let all = format!("{head}    scheme: https{optional}    static_configs{tail}");
    let config = directory.join("scrape.yaml");
    fs::write(&config, all).unwrap();
    fs::copy(
        shipped("prometheus/alerts.yaml"),
        directory.join("alerts.yaml"),
    )
    .unwrap();
    promtool(&["check", "config", config.to_str().unwrap()], "")
        .await
        .unwrap();
}

#[tokio::test]
async fn promtool_finds_the_metrics_right() {
    let fleet = Fleet::start().await;
    let text = exposition(&fleet.agent).await;
    // it reads the older format, in which a counter's family has the suffix of its sample
    let counters: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    assert!(!counters.is_empty());
    let lines = text.lines().filter(|line| *line != "# EOF").map(|line| {
        let mut words: Vec<String> = line.splitn(4, ' ').map(str::to_owned).collect();
        match words.get_mut(2) {
            Some(name) if line.starts_with("# ") => {
                if counters.contains(name.as_str()) {
                    name.push_str("_total");
                }
                words.join(" ") + "\n"
            }
            _ => format!("{line}\n"),
        }
    });
    let classic: String = lines.collect();
    let told = promtool(&["check", "metrics"], &classic).await;
    assert_eq!(told, Ok(String::new()));
}

/// The agent with an instance of each kind that an operator sees.
struct Fleet {
    agent: TestAgent,
    _engines: Vec<FakeEngine>,
}

impl Fleet {
    async fn start() -> Self {
        let engines = vec![
            counting_vllm(|count| count as u64 * 100).await,
            busy_vllm().await,
            FakeEngine::start(|path, count| match path {
                "/metrics" => {
                    let says = "# TYPE perfagent_simulated gauge\nperfagent_simulated 1\n";
                    Answer::ok(format!("{says}{}", vllm_body(count as u64)))
                }
                _ => Answer::Plain(404, Vec::new()),
            })
            .await,
            FakeEngine::start(|path, count| match path {
                "/metrics" => Answer::ok(beyond_buckets(count)),
                _ => Answer::Plain(404, Vec::new()),
            })
            .await,
        ];
        let agent = TestAgent::with(|config| {
            let rows = ["live", "busy", "simulated", "beyond"].iter().zip(&engines);
            config.instances = rows
                .map(|(id, engine)| configured(id, &engine.url()))
                .collect();
            let dead = configured("dead", "http://127.0.0.1:1/metrics");
            config.instances.push(dead);
        })
        .await;
        Self {
            agent,
            _engines: engines,
        }
    }
}

/// A recorded vLLM whose requests repeat: with each scrape its counts grow by what was recorded.
async fn busy_vllm() -> FakeEngine {
    let capture = captures::capture("vllm-0.32.0/h-spec-ngram");
    let recorded = String::from_utf8(capture.body(1)).unwrap();
    FakeEngine::start(move |path, count| match path {
        "/metrics" => Answer::ok(grown(&recorded, count + 1)),
        _ => Answer::Plain(404, Vec::new()),
    })
    .await
}

fn grown(recorded: &str, times: usize) -> String {
    let line = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap();
        let grows = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        match line.rsplit_once(' ') {
            Some((series, value)) if grows && !line.starts_with('#') => {
                let value: f64 = value.parse().unwrap();
                format!("{series} {}\n", value * times as f64)
            }
            _ => format!("{line}\n"),
        }
    };
    recorded.lines().map(line).collect()
}

/// A vLLM whose first tokens are slower and whose others are faster than its buckets tell.
fn beyond_buckets(count: usize) -> String {
    let histogram = |name: &str, below: usize| {
        format!(
            "# TYPE vllm:{name} histogram\nvllm:{name}_bucket{{le=\"0.5\"}} {below}\n\
             vllm:{name}_bucket{{le=\"+Inf\"}} {count}\nvllm:{name}_sum {count}\nvllm:{name}_count {count}\n"
        )
    };
    let slow = histogram("time_to_first_token_seconds", 0);
    let fast = histogram("inter_token_latency_seconds", count);
    format!("{}{slow}{fast}", vllm_body(count as u64))
}

/// What the agent shows.
async fn exposition(agent: &TestAgent) -> String {
    let answer = get(agent, "/metrics", "localhost").await;
    let kept = |line: &&str| line.starts_with("# ") || line.starts_with("perfagent_");
    let lines = answer.lines().filter(kept);
    lines.map(|line| format!("{line}\n")).collect()
}

/// Names of the series that an exposition declares.
fn declared(exposition: &str) -> BTreeSet<String> {
    let types = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    });
    names.collect()
}

/// Our metric names in a query.
fn names_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    let ours = words.filter(|word| word.starts_with("perfagent_"));
    ours.map(str::to_owned).collect()
}

fn board() -> Value {
    let text = fs::read_to_string(shipped("grafana/perfagent.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

/// Panels with their queries, as Prometheus is asked them.
fn panels(board: &Value) -> Vec<(String, Vec<String>)> {
    let panels = array(&board["panels"]).iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    let query = |target: &Value| {
        text(&target["expr"])
            .replace("$__rate_interval", "10s")
            .replace("$instance_id", ".*")
    };
    panels
        .map(|panel| {
            let queries = array(&panel["targets"]).iter().map(query).collect();
            (text(&panel["title"]).to_owned(), queries)
        })
        .collect()
}

#[test]
fn the_board_is_laid_out_as_grafana_wants_it() {
    let board = board();
    // what Grafana 10.3 writes; later ones migrate it when they load it
    assert_eq!(board["schemaVersion"], 39);
    assert_eq!(board["id"], Value::Null);
    let variables: Vec<&str> = array(&board["templating"]["list"])
        .iter()
        .map(|variable| text(&variable["name"]))
        .collect();
    assert_eq!(variables, ["datasource", "instance_id"]);
    let instance = &board["templating"]["list"][1];
    assert!(instance["multi"] == true && instance["includeAll"] == true);
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in array(&board["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(titles.insert(title), "{title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(text(&panel["description"]).len() > 30, "{title}");
        if panel["type"] != "table" {
            text(&panel["fieldConfig"]["defaults"]["unit"]);
        }
        let mut letters = BTreeSet::new();
        for target in array(&panel["targets"]) {
            assert!(letters.insert(text(&target["refId"])), "{title}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let mut query = text(&target["expr"]).to_owned();
            for known in ["$__rate_interval", "$instance_id"] {
                query = query.replace(known, "");
            }
            assert!(!query.contains('$'), "{title}: an unknown variable");
        }
    }
}

/// A Prometheus that scrapes an agent with the rules that we ship; it is killed when this goes.
struct Prometheus {
    port: u16,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    async fn start(agent: &TestAgent) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(shipped("prometheus/scrape.yaml")).unwrap();
        let target = agent.address.to_string();
        let config = config
            .replace("127.0.0.1:8002", &target)
            .replace("_interval: 15s", "_interval: 250ms");
        assert!(config.contains(&target) && config.contains("250ms"));
        let file = directory.path().join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let rules = directory.path().join("alerts.yaml");
        fs::copy(shipped("prometheus/alerts.yaml"), rules).unwrap();
        let mut child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let mut port = None;
        while let Some(line) = log.next_line().await.unwrap() {
            let address = line.split("address=127.0.0.1:").nth(1);
            let listens = address.and_then(|rest| rest.split(' ').next()?.parse().ok());
            port = port.or(listens.filter(|port| *port != 0));
            if line.contains("Server is ready") {
                break;
            }
            said.push(line);
        }
        let port = port.unwrap_or_else(|| panic!("{}", said.join("\n")));
        // what it writes on has to go somewhere
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self {
            port,
            _child: child,
            _directory: directory,
        }
    }

    /// Asks the HTTP API; the data, or why there is none.
    async fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, String> {
        let encoded =
            |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let pairs: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let path = match pairs.is_empty() {
            true => format!("/api/v1/{path}"),
            false => format!("/api/v1/{path}?{}", pairs.join("&")),
        };
        // of HTTP/1.0, so that the answer comes in one piece
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// Series with a number, by their labels.
    async fn query(&self, query: &str) -> Vec<Value> {
        let data = self.api("query", &[("query", query)]).await;
        let data = data.unwrap_or_else(|problem| panic!("{query}: {problem}"));
        let is_number = |series: &&Value| series["value"][1] != "NaN";
        let found = array(&data["result"]).iter().filter(is_number);
        found.map(|series| series["metric"].clone()).collect()
    }

    /// The alerts that we ship, as Prometheus sees them.
    async fn alerts(&self) -> Vec<Value> {
        let data = self.api("rules", &[("type", "alert")]).await.unwrap();
        let groups = array(&data["groups"]).iter();
        let rules = groups.flat_map(|group| array(&group["rules"]).to_vec());
        rules.collect()
    }
}

/// Asks until the answer is as wanted; what was still wrong where it never is.
async fn until<T, E: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(wanted) => return wanted,
            Err(wrong) if tokio::time::Instant::now() > deadline => panic!("{wrong:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_answers_every_panel_and_watches_every_alert() {
    let fleet = Fleet::start().await;
    let prometheus = Prometheus::start(&fleet.agent).await;
    let mut client = fleet.agent.metrics().await;
    let watch = pb::WatchMetricsRequest {
        instance_ids: vec!["live".to_owned()],
        ..pb::WatchMetricsRequest::default()
    };
    let _stream = client.watch_metrics(watch).await.unwrap();
    let board = board();
    let mut names = BTreeSet::new();
    for (title, queries) in panels(&board) {
        // all of the queries are accepted, and one at least has an answer
        until(async || {
            // calls that go on, with and without success
            let _ = get(&fleet.agent, "/metrics", "localhost").await;
            let nobody = crate::fake::request("", &[], 0);
            client.collect_metrics(nobody).await.unwrap_err();
            let mut found = 0;
            for query in &queries {
                found += prometheus.query(query).await.len();
            }
            if found > 0 {
                Ok(())
            } else {
                Err((&title, &queries))
            }
        })
        .await;
        queries
            .iter()
            .for_each(|query| names.extend(names_in(query)));
    }
    let alerts = until(async || {
        let alerts = prometheus.alerts().await;
        let done = alerts.iter().all(|alert| alert["health"] != "unknown");
        if done && !alerts.is_empty() {
            Ok(alerts)
        } else {
            Err(alerts)
        }
    })
    .await;
    assert_eq!(alerts.len(), 12);
    for alert in &alerts {
        assert_eq!(alert["health"], "ok", "{alert}");
        assert!(alert["duration"].as_f64() > Some(0.0), "{alert}");
        assert!(
            ["warning", "critical"].contains(&text(&alert["labels"]["severity"])),
            "{alert}"
        );
        for annotation in ["summary", "description"] {
            assert!(
                text(&alert["annotations"][annotation]).len() > 20,
                "{alert}"
            );
        }
        let query = text(&alert["query"]);
        prometheus.api("query", &[("query", query)]).await.unwrap();
        names.extend(names_in(query));
    }
    let shown = declared(&exposition(&fleet.agent).await);
    let strange: Vec<_> = names.difference(&shown).collect();
    assert!(strange.is_empty(), "{strange:?} are not exported");
    // sums and counts go with the buckets
    let family = |name: &String| {
        let bare = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        bare.unwrap_or(name).to_owned()
    };
    let families: BTreeSet<String> = names.iter().map(family).collect();
    let unseen: Vec<_> = shown
        .iter()
        .filter(|name| !families.contains(&family(name)))
        .collect();
    assert!(
        unseen.is_empty(),
        "{unseen:?} are on no panel and in no alert"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_sees_who_is_down_and_who_is_simulated() {
    let fleet = Fleet::start().await;
    let prometheus = Prometheus::start(&fleet.agent).await;
    let ids = async |query: &str| -> BTreeSet<String> {
        let found = prometheus.query(query).await;
        let ids = found
            .iter()
            .map(|labels| text(&labels["instance_id"]).to_owned());
        ids.collect()
    };
    let of = |ids: &[&str]| -> BTreeSet<String> { ids.iter().map(|id| (*id).to_owned()).collect() };
    let expected = BTreeMap::from([
        (
            "perfagent_instance_up == 1",
            of(&["live", "busy", "simulated", "beyond"]),
        ),
        ("perfagent_instance_up == 0", of(&["dead"])),
        (
            "perfagent_instance_up{simulated=\"true\"}",
            of(&["simulated"]),
        ),
        (
            "perfagent_instance_requests_running",
            of(&["live", "busy", "simulated", "beyond"]),
        ),
        (
            "perfagent_instance_time_to_first_token_p99_seconds > 0",
            of(&["busy"]),
        ),
        (
            "perfagent_instance_info{engine=\"vllm\"}",
            of(&["live", "busy", "simulated", "beyond"]),
        ),
        (
            "perfagent_instance_time_to_first_token_p99_at_least_seconds{instance_id=\"beyond\"} == 0.5",
            of(&["beyond"]),
        ),
        (
            "perfagent_instance_inter_token_latency_p99_at_most_seconds{instance_id=\"beyond\"} == 0.5",
            of(&["beyond"]),
        ),
        (
            "perfagent_instance_time_to_first_token_p99_seconds{instance_id=\"beyond\"}",
            of(&[]),
        ),
        (
            "ALERTS{alertname=\"PerfagentInstanceSlowFirstToken\",instance_id=\"beyond\"}",
            of(&["beyond"]),
        ),
        (
            "ALERTS{alertname=\"PerfagentInstanceDown\",alertstate=\"pending\"}",
            of(&["dead"]),
        ),
    ]);
    until(async || {
        let mut found = BTreeMap::new();
        for query in expected.keys() {
            found.insert(*query, ids(query).await);
        }
        if found == expected {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
    // it took the exposition for what it is
    let targets = prometheus
        .api("targets", &[("state", "active")])
        .await
        .unwrap();
    let target = &targets["activeTargets"][0];
    assert_eq!(
        (&target["health"], &target["lastError"]),
        (&"up".into(), &"".into())
    );
    let types = prometheus.api("metadata", &[]).await.unwrap();
    for (name, kind) in [
        ("perfagent_scrape_failures", "counter"),
        ("perfagent_instance_scrapes", "counter"),
        ("perfagent_scrape_duration_seconds", "histogram"),
        ("perfagent_instance_up", "gauge"),
    ] {
        // with the suffix or without it, as the version has it
        let found = [name.to_owned(), format!("{name}_total")]
            .iter()
            .find_map(|name| types.get(name).cloned());
        let found = found.unwrap_or_else(|| panic!("{name}: {types:#}"));
        assert_eq!(found[0]["type"], kind, "{name}");
    }
    // an instance that is well alerts nobody
    assert_eq!(ids("ALERTS{instance_id=\"live\"}").await, of(&[]));
}

#[tokio::test]
async fn what_was_before_the_first_window_is_no_gauge() {
    let capture = captures::capture("vllm-0.32.0/c-saturation");
    let recorded = capture.body(capture.scrapes());
    // once, so that no window follows
    let engine = FakeEngine::start(move |path, count| match (path, count) {
        ("/metrics", 0) => Answer::ok(recorded.clone()),
        ("/metrics", _) => Answer::Hang,
        _ => Answer::Plain(404, Vec::new()),
    })
    .await;
    let agent = TestAgent::with(|config| {
        let mut row = configured("a", &engine.url());
        row.scrape_interval = Some(Duration::from_secs(60));
        row.window = None;
        config.instances = vec![row];
    })
    .await;
    let shown = until(async || {
        let shown = exposition(&agent).await;
        match shown.contains("perfagent_instance_up{instance_id=\"a\"} 1") {
            true => Ok(shown),
            false => Err(shown),
        }
    })
    .await;
    for name in ["time_to_first_token_mean_seconds", "requests_running"] {
        assert!(
            !shown.contains(&format!("perfagent_instance_{name}{{")),
            "{shown}"
        );
    }
}
