//! What Prometheus makes of our metrics, and of the board and the alerts that we ship.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use perfagent::edge::grpc::pb;
use serde_json::Value;

use crate::captures;
use crate::fake::{Answer, FakeEngine, TestAgent};
use crate::http::get;
use crate::instances::configured;
use crate::prometheus::{Fleet, Prometheus, array, exposition, promtool, shipped, text, until};

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
