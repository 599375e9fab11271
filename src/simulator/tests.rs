//! Simulated engines against recorded ones, and against the model itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::engine::{EngineProfile, Quantity, Registry};
use crate::exposition::{self, Family, Options, Role, parse};
use crate::measure::{
    InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind, detect_engine, has_restarted,
};
use crate::model::{Summary, Tally};

macro_rules! capture {
    ($path:literal) => {
        include_str!(concat!("../../tests/fixtures/captures/", $path))
    };
}

pub(super) fn replica(scenario: &str) -> Replica {
    let scenario: Scenario = toml::from_str(scenario).unwrap();
    Replica::new(&scenario.deployment().unwrap(), 0, 1_800_000_000.0).unwrap()
}

fn profile(name: &str) -> Arc<EngineProfile> {
    Registry::builtin().get(name).unwrap().clone()
}

/// What a family looks like, whatever its values are.
#[derive(Debug, Default, PartialEq, Clone)]
struct Shape {
    kind: String,
    /// Names of labels, and values of those that say what is counted.
    labels: BTreeSet<String>,
    bounds: Vec<f64>,
}

#[derive(Default)]
struct Shapes(BTreeMap<String, Shape>);

/// Labels whose values depend on the load or the settings.
const OPEN: &[&str] = &[
    "model_name",
    "handler",
    "status",
    "endpoint",
    "status_code",
    "method",
    "err",
    "mode",
];

impl<'a> exposition::Sink<'a> for Shapes {
    fn family(&mut self, family: &Family<'a>) {
        let shape = self.0.entry(family.base_name().to_owned()).or_default();
        shape.kind = family.kind.as_str().to_owned();
    }

    fn sample(&mut self, family: &Family<'a>, sample: &exposition::Sample<'_, 'a>) {
        let shape = self.0.entry(family.base_name().to_owned()).or_default();
        let settings = family.base_name() == "vllm:cache_config_info";
        for label in sample.labels {
            let (name, value) = (label.name.get(), label.value.get());
            match name.as_ref() {
                "le" | "quantile" => {}
                open if settings || OPEN.contains(&open) => {
                    shape.labels.insert(open.to_owned());
                }
                name => {
                    shape.labels.insert(format!("{name}={value}"));
                }
            }
        }
        if let Role::Bucket { le } = sample.role
            && !shape.bounds.contains(&le)
        {
            shape.bounds.push(le);
        }
    }
}

fn shapes(bodies: &[&str]) -> BTreeMap<String, Shape> {
    let mut shapes = Shapes::default();
    for body in bodies {
        parse(body.as_bytes(), &Options::default(), &mut shapes).unwrap();
    }
    shapes.0
}

/// Every family that the profile reads and a capture has is shown just so.
fn assert_shown_as_recorded(engine: &str, simulated: &[&str], recorded: &[&str]) {
    let (simulated, recorded) = (shapes(simulated), shapes(recorded));
    let profile = profile(engine);
    let read: BTreeSet<&str> = profile
        .aliases
        .iter()
        .flat_map(|alias| &alias.terms)
        .map(|term| term.family.as_ref())
        .collect();
    let mut compared = 0;
    for (name, expected) in &recorded {
        let names = [name.clone(), format!("{name}_total")];
        if !names.iter().any(|name| read.contains(name.as_str())) {
            continue;
        }
        let shape = simulated
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!(shape.kind, expected.kind, "{name}");
        assert_eq!(shape.labels, expected.labels, "{name}");
        assert_eq!(shape.bounds.len(), expected.bounds.len(), "{name}");
        let near =
            |(one, other): (&f64, &f64)| one == other || (one - other).abs() < 1e-9 * other.abs();
        assert!(
            shape.bounds.iter().zip(&expected.bounds).all(near),
            "{name}: {:?}",
            shape.bounds
        );
        compared += 1;
    }
    let most = if engine == "tgi" { 15 } else { 20 };
    assert!(compared >= most, "{compared} families");
}

#[test]
fn vllm_shows_what_a_recorded_one_shows() {
    let mut plain = replica(
        "settings = { max_num_seqs = 4, max_model_len = 4096, max_num_queued_reqs = 8 }\n\
         load = { clients = 32, shared_prefix_tokens = 64, abort_ratio = 0.1 }",
    );
    plain.run_until(60.0);
    let mut guessing = replica(
        "settings = { max_num_seqs = 32, max_model_len = 4096, speculative_config = '{\"num_speculative_tokens\": 4}' }",
    );
    guessing.run_until(10.0);
    assert_shown_as_recorded(
        "vllm",
        &[&plain.metrics(false), &guessing.metrics(false)],
        &[
            capture!("vllm-0.32.0/c-saturation/scrape-4.prom"),
            capture!("vllm-0.32.0/h-spec-ngram/scrape-3.prom"),
        ],
    );
    // all that begin at 0 are there from the start
    let fresh = shapes(&[&replica("settings = { max_model_len = 4096 }").metrics(false)]);
    let idle = shapes(&[capture!("vllm-0.32.0/a-idle/scrape-1.prom")]);
    for (name, shape) in idle.iter().filter(|(name, _)| name.starts_with("vllm:")) {
        // of features that are off
        if !name.starts_with("vllm:estimated") {
            assert_eq!(fresh.get(name), Some(shape), "{name}");
        }
    }
}

#[test]
fn sglang_shows_what_a_recorded_one_shows() {
    let mut simulated = replica(
        "engine = 'sglang'\n\
         settings = { max_running_requests = 16, max_total_tokens = 2048, context_length = 1024, schedule_conservativeness = 0.1 }\n\
         load = { clients = 24, prompt_tokens = '48..96', output_tokens = '100..300', shared_prefix_tokens = 16 }",
    );
    simulated.run_until(120.0);
    let body = simulated.metrics(false);
    assert!(
        body.contains("sglang:num_retracted_requests_total"),
        "nothing was retracted"
    );
    assert_shown_as_recorded(
        "sglang",
        &[&body],
        &[
            capture!("sglang-0.5.23/c-saturation/scrape-3.prom"),
            capture!("sglang-0.5.23/d-kv-pressure/scrape-3.prom"),
        ],
    );
    // an idle one shows no requests
    let fresh = replica("engine = 'sglang'").metrics(false);
    assert!(
        !fresh.contains("sglang:time_to_first_token_seconds"),
        "{fresh}"
    );
    assert!(fresh.contains("sglang:num_running_reqs"));
}

#[test]
fn tgi_shows_what_a_recorded_one_shows() {
    let mut simulated = replica(
        "engine = 'tgi'\n\
         settings = { max_total_tokens = 1024, max_batch_size = 6, max_concurrent_requests = 16 }\n\
         load = { clients = 32, prompt_tokens = '48..96', output_tokens = '48..96', abort_ratio = 0.1 }",
    );
    let fresh = simulated.metrics(false);
    assert_eq!(
        fresh
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<Vec<_>>(),
        ["perfagent_simulated 1"]
    );
    simulated.run_until(60.0);
    let recorded = capture!("tgi-3.3.6/c-saturation/scrape-3.prom");
    assert_shown_as_recorded("tgi", &[&simulated.metrics(false)], &[recorded]);
    // another longest request, other bounds; and requests that are refused
    let mut simulated = replica(
        "engine = 'tgi'\n\
         settings = { max_total_tokens = 2048, max_batch_size = 4, max_concurrent_requests = 8 }\n\
         load = { clients = 32, prompt_tokens = '48..96', output_tokens = '48..96', abort_ratio = 0.1 }",
    );
    simulated.run_until(60.0);
    let recorded = capture!("tgi-3.3.6/d-overload/scrape-3.prom");
    assert_shown_as_recorded("tgi", &[&simulated.metrics(false)], &[recorded]);
}

pub(super) fn measured(replica: &mut Replica, from: u32, to: u32) -> (Measurement, Summary) {
    let engine = engine_name(replica.settings().policy);
    let profile = profile(engine);
    let start = f64::from(from) * 10.0;
    replica.run_until(start);
    let mut tally = Tally::from(start);
    let mut samples = Vec::new();
    for tick in from..=to {
        replica.run_until_with(f64::from(tick) * 10.0, &mut tally);
        let body = replica.metrics(true);
        let (mut sample, _) =
            Sample::read(&profile, body.as_bytes(), 5.0, &Options::default()).unwrap();
        assert_eq!(
            sample.at_unix_seconds,
            1_800_000_000.0 + f64::from(tick) * 10.0
        );
        sample.tick = tick;
        samples.push(Arc::new(sample));
    }
    let instance = InstanceSamples {
        instance_id: engine.to_owned(),
        profile: &profile,
        kind: WindowKind::Interval,
        replicas: vec![ReplicaSamples {
            metrics_url: "http://127.0.0.1:1/metrics".to_owned(),
            samples,
            failed_scrapes: 0,
            last_failure: None,
            probed: Arc::default(),
        }],
    };
    (instance.measure(), tally.summary(f64::from(to) * 10.0))
}

#[track_caller]
fn assert_near(found: Option<f64>, expected: f64, tolerance: f64, what: &str) {
    let found = found.unwrap_or_else(|| panic!("{what} is not measured"));
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "{what}: {found} for {expected}"
    );
}

#[test]
fn what_is_measured_of_vllm_is_what_was_simulated() {
    let mut replica = replica(
        "settings = { max_num_seqs = 16 }\n\
         load = { rate = 4, prompt_tokens = '100..900', output_tokens = '100..300', shared_prefix_tokens = 256 }\n\
         timing = { fixed_seconds = 0.01 }",
    );
    let (measurement, summary) = measured(&mut replica, 3, 60);
    assert!(measurement.simulated);
    assert_eq!(measurement.model_name.as_deref(), Some("simulated"));
    let figures = &measurement.figures;
    let mean = |quantity| figures.distribution(quantity).and_then(|of| of.mean);
    assert_near(
        figures.value("generation_tokens_per_second"),
        summary.tokens_per_second(),
        1e-3,
        "tokens",
    );
    assert_near(
        figures.value("prompt_tokens_increase"),
        summary.prompt_tokens as f64,
        0.0,
        "prompts",
    );
    assert_near(
        figures.value("requests_finished_per_second"),
        summary.requests_per_second(),
        1e-3,
        "requests",
    );
    let first = summary.time_to_first_token_seconds.unwrap();
    assert_near(mean(Quantity::TimeToFirstToken), first.mean, 1e-9, "TTFT");
    assert_near(
        mean(Quantity::InterTokenLatency),
        summary.inter_token_seconds.unwrap().mean,
        1e-9,
        "ITL",
    );
    // the front end is on the client's way
    let end_to_end = summary.end_to_end_seconds.unwrap().mean + 2e-3;
    assert_near(mean(Quantity::EndToEndLatency), end_to_end, 1e-9, "e2e");
    // Little's law: what is inside is what comes in times how long it stays
    let gauge = |quantity| figures.gauge(quantity).unwrap().mean;
    let inside = gauge(Quantity::RequestsRunning) + gauge(Quantity::RequestsWaiting);
    assert_near(
        Some(inside),
        summary.requests_per_second() * end_to_end,
        0.1,
        "Little's law",
    );
    assert!((0.0..1.0).contains(&gauge(Quantity::KvCacheUsage)));
    assert!(measurement.notes.is_empty(), "{:?}", measurement.notes);
}

#[test]
fn tokens_of_the_other_engines_are_measured_too() {
    for engine in ["sglang", "tgi"] {
        let mut replica = replica(&format!(
            "engine = '{engine}'\nload = {{ clients = 16, prompt_tokens = '100..300', output_tokens = '100..300' }}"
        ));
        let (measurement, summary) = measured(&mut replica, 3, 60);
        let figures = &measurement.figures;
        // SGLang reports each 40 steps
        assert_near(
            figures.value("generation_tokens_per_second"),
            summary.tokens_per_second(),
            2e-3,
            engine,
        );
        assert_near(
            figures.value("requests_finished_per_second"),
            summary.requests_per_second(),
            2e-3,
            engine,
        );
        let end_to_end = figures
            .distribution(Quantity::EndToEndLatency)
            .and_then(|of| of.mean);
        assert_near(
            end_to_end,
            summary.end_to_end_seconds.unwrap().mean + 2e-3,
            1e-9,
            engine,
        );
        let inside = figures.gauge(Quantity::RequestsRunning).unwrap().mean;
        assert_near(Some(inside), 16.0, 0.05, engine);
        let found = detect_engine(
            &Registry::builtin(),
            replica.metrics(false).as_bytes(),
            &Options::default(),
        )
        .unwrap()
        .name
        .clone();
        assert_eq!(found, engine);
    }
}

#[test]
fn nothing_is_taken_back() {
    // scrapes in the middle of steps, an engine that is idle now and then
    for engine in ["vllm", "sglang", "tgi"] {
        let mut replica = replica(&format!(
            "engine = '{engine}'\nload = {{ rate = 3, output_tokens = '10..40' }}"
        ));
        let profile = profile(engine);
        let sample = |replica: &Replica| {
            let body = replica.metrics(true);
            Sample::read(&profile, body.as_bytes(), 5.0, &Options::default())
                .unwrap()
                .0
        };
        let mut before = sample(&replica);
        for step in 1..500 {
            replica.run_until(f64::from(step) * 0.037);
            let after = sample(&replica);
            let restarted = has_restarted(&profile, &before, &after);
            assert!(!restarted, "{engine} at {}", replica.reached());
            before = after;
        }
    }
}

#[test]
fn a_restart_begins_anew_with_other_flags() {
    let mut replica = replica("settings = { max_num_seqs = 4 }\nload = { clients = 16 }");
    replica.run_until(50.0);
    let finished = |body: &str| {
        let line = body
            .lines()
            .find(|line| line.starts_with("vllm:generation_tokens_total{"))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(finished(&replica.metrics(false)) > 0.0);
    let how: Restart =
        serde_json::from_str("{\"settings\": {\"max_num_seqs\": 8}, \"load_seconds\": 20}")
            .unwrap();
    replica.restart(&how).unwrap();
    assert_eq!(
        (replica.settings().max_num_seqs, replica.is_up()),
        (8, false)
    );
    assert_eq!(finished(&replica.metrics(false)), 0.0);
    replica.run_until(60.0);
    assert!(!replica.is_up());
    replica.run_until(90.0);
    assert!(replica.is_up() && finished(&replica.metrics(false)) > 0.0);
    // what cannot be changes nothing
    let wrong: Restart = serde_json::from_str("{\"settings\": {\"max_num_seqs\": 0}}").unwrap();
    let error = replica.restart(&wrong).unwrap_err().to_string();
    assert!(error.contains("max_num_seqs = 0"), "{error}");
    assert_eq!(
        (replica.settings().max_num_seqs, replica.restarts()),
        (8, 1)
    );
}

#[test]
fn incidents_come_at_their_time_and_to_their_replica() {
    let scenario: Scenario = toml::from_str(
        "replicas = 2\nfaults = [{ at_seconds = 20, replica = 1, stalled = true }, { at_seconds = 40, stalled = false }]",
    )
    .unwrap();
    let deployment = scenario.deployment().unwrap();
    let stalled = |number, at| {
        let mut replica = Replica::new(&deployment, number, 0.0).unwrap();
        replica.run_until(at);
        replica.faults().stalled
    };
    assert_eq!(
        [stalled(1, 19.0), stalled(1, 21.0), stalled(1, 41.0)],
        [false, true, false]
    );
    assert!(!stalled(0, 21.0));
}
