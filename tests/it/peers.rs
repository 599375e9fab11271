//! What other languages' tools make of the same bytes: Python's prometheus_client, and buf as a gRPC client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use perfagent::exposition::{Family, Format, Kind, Label, Options, Sample, Sink, parse};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::captures;
use crate::fake::{TestAgent, counting_vllm};

/// A Python that has what the tests need.
pub fn python() -> &'static PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
        let output = Command::new(script).output().expect("tests/python");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// Samples as both parsers know them: type, name, labels, value, timestamp.
#[derive(Default)]
struct Rows(Vec<Value>);

/// The value to the last bit; all NaNs are one.
fn bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

fn labels(labels: &[Label<'_>]) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|label| {
            (
                label.name.get().into_owned(),
                label.value.get().into_owned(),
            )
        })
        .collect()
}

impl<'a> Sink<'a> for Rows {
    fn family(&mut self, _: &Family<'a>) {}

    fn sample(&mut self, family: &Family<'a>, sample: &Sample<'_, 'a>) {
        let mut name = sample.name.get().into_owned();
        // Python's client gives every counter the suffix that OpenMetrics wants
        if family.kind == Kind::Counter && !name.ends_with("_total") && !name.ends_with("_created")
        {
            name += "_total";
        }
        self.0.push(json!([
            family.kind.as_str(),
            name,
            labels(sample.labels),
            bits(sample.value),
            sample.timestamp_seconds.map(bits),
            sample
                .exemplar
                .map(|exemplar| json!([labels(exemplar.labels), bits(exemplar.value)])),
        ]));
    }
}

fn rows(body: &[u8]) -> (Vec<Value>, Format) {
    let mut rows = Rows::default();
    let report = parse(body, &Options::default(), &mut rows).expect("valid");
    rows.0.sort_by_key(Value::to_string);
    (rows.0, report.format)
}

/// Holds our reading of each body against Python's.
fn agree(bodies: &[(String, Vec<u8>)]) {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = Vec::new();
    for (at, (_, body)) in bodies.iter().enumerate() {
        let path = dir.path().join(format!("{at}.prom"));
        std::fs::write(&path, body).unwrap();
        arguments.push(path);
    }
    let list = dir.path().join("list");
    let names: Vec<_> = arguments
        .iter()
        .map(|path| path.to_str().unwrap())
        .collect();
    std::fs::write(&list, names.join("\n")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/prometheus_rows.py");
    let output = Command::new(python())
        .arg(script)
        .arg(list)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let theirs: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(theirs.len(), bodies.len());
    for ((name, body), mut theirs) in bodies.iter().zip(theirs) {
        let (ours, _) = rows(body);
        theirs.sort_by_key(Value::to_string);
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}:\n{}", String::from_utf8_lossy(body));
        }
    }
}

#[test]
fn python_reads_every_capture_as_we_do() {
    let mut bodies = Vec::new();
    for capture in captures::all() {
        for n in 1..=capture.scrapes() {
            bodies.push((format!("{} {n}", capture.name), capture.body(n)));
        }
    }
    assert!(bodies.len() > 90);
    agree(&bodies);
}

/// A type, series of label values and value, and a timestamp in seconds.
type Generated = (Kind, Vec<(Vec<String>, f64)>, Option<i64>);

/// One family of any type with its series, valid in both formats.
fn family() -> impl Strategy<Value = Generated> {
    let kind = prop_oneof![
        Just(Kind::Counter),
        Just(Kind::Gauge),
        Just(Kind::Histogram),
        Just(Kind::Summary)
    ];
    let value = prop_oneof![
        (0u32..1_000_000).prop_map(f64::from),
        0.0f64..1e12,
        Just(1e-7)
    ];
    let text = prop_oneof![
        "[a-z0-9 ]{0,8}",
        Just("a\\b".to_owned()),
        Just("q\"q".to_owned()),
        Just("n\nn".to_owned())
    ];
    let series = prop::collection::vec((prop::collection::vec(text, 0..3), value), 1..4);
    (
        kind,
        series,
        prop::option::of(1_700_000_000i64..1_800_000_000),
    )
}

fn render(families: &[Generated], open_metrics: bool) -> String {
    let mut out = String::new();
    for (at, (kind, series, seconds)) in families.iter().enumerate() {
        let base = format!("ns:family_{at}");
        let suffix = if *kind == Kind::Counter { "_total" } else { "" };
        let declared = if open_metrics {
            base.clone()
        } else {
            format!("{base}{suffix}")
        };
        out += &format!(
            "# HELP {declared} some help\n# TYPE {declared} {}\n",
            kind.as_str()
        );
        let timestamp = match (seconds, open_metrics) {
            (None, _) => String::new(),
            (Some(seconds), true) => format!(" {seconds}"),
            (Some(seconds), false) => format!(" {seconds}000"),
        };
        for (row, (values, value)) in series.iter().enumerate() {
            let mut labels = vec![format!("row=\"{row}\"")];
            for (index, text) in values.iter().enumerate() {
                let text = text
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n");
                labels.push(format!("l{index}=\"{text}\""));
            }
            let labels = labels.join(",");
            match kind {
                Kind::Histogram => {
                    out += &format!("{base}_bucket{{{labels},le=\"0.5\"}} 1{timestamp}");
                    if open_metrics {
                        out += " # {trace_id=\"abc\"} 0.25";
                    }
                    out += &format!("\n{base}_bucket{{{labels},le=\"+Inf\"}} 2{timestamp}\n");
                    out += &format!(
                        "{base}_count{{{labels}}} 2{timestamp}\n{base}_sum{{{labels}}} {value}{timestamp}\n"
                    );
                }
                Kind::Summary => {
                    out += &format!("{base}{{{labels},quantile=\"0.5\"}} {value}{timestamp}\n");
                    out += &format!(
                        "{base}_count{{{labels}}} 2{timestamp}\n{base}_sum{{{labels}}} {value}{timestamp}\n"
                    );
                }
                _ => out += &format!("{base}{suffix}{{{labels}}} {value}{timestamp}\n"),
            }
        }
    }
    if open_metrics {
        out += "# EOF\n";
    }
    out
}

#[test]
fn python_reads_generated_expositions_as_we_do() {
    let config = Config::default();
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = prop::collection::vec(family(), 1..6);
    let bodies: Vec<_> = (0..300)
        .map(|at| {
            let families = strategy.new_tree(&mut runner).unwrap().current();
            let body = render(&families, at % 2 == 0);
            let (_, format) = rows(body.as_bytes());
            assert_eq!(format == Format::OpenMetrics, at % 2 == 0);
            (format!("generated {at}"), body.into_bytes())
        })
        .collect();
    agree(&bodies);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_that_knows_us_by_reflection_alone() {
    let engine = counting_vllm(|_| 4_711).await;
    let agent = TestAgent::start().await;
    let buf = python().with_file_name("buf");
    let curl = |arguments: Vec<String>| {
        let buf = buf.clone();
        tokio::task::spawn_blocking(move || {
            let output = Command::new(buf)
                .args(["curl", "--protocol", "grpc", "--http2-prior-knowledge"])
                .args(arguments)
                .output()
                .unwrap();
            (
                output.status.success(),
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        })
    };
    let base = format!("http://{}", agent.address);
    for protocol in ["grpc-v1", "grpc-v1alpha"] {
        let arguments = vec![
            "--list-services".to_owned(),
            "--reflect-protocol".to_owned(),
            protocol.to_owned(),
            base.clone(),
        ];
        let (ok, listed, problem) = curl(arguments).await.unwrap();
        assert!(ok, "{protocol}: {problem}");
        for service in [
            "perfagent.v1.MetricsService",
            "perfagent.v1.AgentService",
            "grpc.health.v1.Health",
        ] {
            assert!(listed.contains(service), "{protocol}: {listed}");
        }
    }
    let call =
        |method: &str, body: String| curl(vec!["-d".to_owned(), body, format!("{base}/{method}")]);
    let request = json!({ "instance_id": "vllm-1", "instance_type": "vllm", "metrics_url": engine.url(), "window": "0s" });
    let (ok, answer, problem) = call(
        "perfagent.v1.MetricsService/CollectMetrics",
        request.to_string(),
    )
    .await
    .unwrap();
    assert!(ok, "{problem}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer["measurement"]["throughputMetrics"]["generationTokensTotal"],
        4711
    );
    let wrong = json!({ "instance_id": "vllm-1", "metrics_url": "http://169.254.169.254/metrics" });
    let (ok, _, problem) = call(
        "perfagent.v1.MetricsService/CollectMetrics",
        wrong.to_string(),
    )
    .await
    .unwrap();
    assert!(!ok);
    assert!(problem.contains("permission_denied"), "{problem}");
    assert!(problem.contains("google.rpc.ErrorInfo"), "{problem}");
    // grpcurl reads the details, since reflection describes them too
    let pool = prost_reflect::DescriptorPool::decode(perfagent::edge::grpc::DESCRIPTORS).unwrap();
    for details in ["ErrorInfo", "BadRequest", "RetryInfo"] {
        assert!(
            pool.get_message_by_name(&format!("google.rpc.{details}"))
                .is_some()
        );
    }
    let (ok, health, _) = call("grpc.health.v1.Health/Check", "{}".to_owned())
        .await
        .unwrap();
    assert!(ok && health.contains("SERVING"), "{health}");
}
