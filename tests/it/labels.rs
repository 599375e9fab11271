//! The labelled set of the diagnosis: its labels are true, by the simulator's own account and by counterfactual.
//!
//! A cause is what to change so that users are served better: with the cure they are, with another cure they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::diagnosis::{Case, Part, Truth, all, cases, for_each, older};
use perfagent::engine::Version;
use perfagent::model::{FinishReason, Gauges, Quantiles};
use serde_json::Value;

/// Every cause that a diagnosis can name.
const CAUSES: [&str; 24] = [
    "STALL",
    "ERRORS",
    "ADMISSION_LIMIT",
    "ABORTS",
    "KV_CAPACITY",
    "KV_NEAR_CAPACITY",
    "SEQUENCE_CAP",
    "TOKEN_BUDGET",
    "DEFERRED",
    "CAPACITY",
    "PREFILL_BOUND",
    "HEAD_OF_LINE",
    "PREFILL_INTERFERENCE",
    "DECODE_BOUND",
    "FRONTEND",
    "HOST_BOUND",
    "GRAPH_CEILING",
    "BATCH_TOO_LARGE",
    "SPECULATION_LOSS",
    "PREFIX_CACHE_OFF",
    "COLD_PREFIX_CACHE",
    "IMBALANCE",
    "SLOW_REPLICA",
    "OVERPROVISIONED",
];

#[test]
fn the_set_is_large_and_of_every_kind() {
    let all = all();
    assert!(all.len() >= 120, "{} cases", all.len());
    let healthy = all.iter().filter(|case| case.is_healthy()).count();
    assert!(healthy * 4 >= all.len(), "{healthy} of {}", all.len());
    let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "a name twice");
    let vllm = all.iter().filter(|case| case.engine() == "vllm").count();
    let share = vllm as f64 / all.len() as f64;
    assert!((0.4..=0.6).contains(&share), "{share:.2} of vLLM");
    for case in &all {
        for cause in case.expect.iter().chain(&case.allowed) {
            assert!(CAUSES.contains(&cause.as_str()), "{}: {cause}", case.name);
        }
        assert!(!case.why.is_empty(), "{}", case.name);
        assert!(!case.cannot_tell || !case.is_healthy(), "{}", case.name);
    }
    for part in [Part::Development, Part::HeldBack] {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for case in cases(part) {
            for cause in case.expect {
                *found.entry(cause).or_default() += 1;
            }
        }
        for cause in CAUSES {
            let count = found.get(cause).copied().unwrap_or(0);
            assert!(count >= 2, "{cause}: {count} in {}", part.name());
        }
    }
}

/// What is true of a case is shown by what the simulator knows, without any metric.
#[test]
fn labels_are_true() {
    let simulated: Vec<Case> = [Part::Development, Part::HeldBack]
        .into_iter()
        .flat_map(cases)
        .collect();
    let faults: Vec<String> = for_each(&simulated, |case| {
        let truth = case.truth().expect("simulated");
        let mut faults = Vec::new();
        if case.is_healthy() {
            faults.extend(unwell(&truth));
        }
        for cause in &case.expect {
            faults.extend(untrue(cause, case, &truth));
        }
        match case.truth_after_cure() {
            Some(cured) if !helps(&case.expect, &truth, &cured) => {
                faults.push(format!(
                    "the cure does not help: {} → {}",
                    told(&truth),
                    told(&cured)
                ));
            }
            None if case
                .expect
                .iter()
                .any(|cause| !WITHOUT_CURE.contains(&cause.as_str())) =>
            {
                faults.push("no cure".to_owned());
            }
            _ => {}
        }
        if let Some(other) = case.truth_after_other_cure()
            && helps(&case.expect, &truth, &other)
        {
            faults.push(format!(
                "another cure helps: {} → {}",
                told(&truth),
                told(&other)
            ));
        }
        faults
            .into_iter()
            .map(|fault| format!("{}: {fault}", case.name))
            .collect::<Vec<_>>()
    })
    .concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Risks, costs, and what clients do by themselves: there is nobody to serve better.
const WITHOUT_CURE: &[&str] = &["ABORTS", "KV_NEAR_CAPACITY", "OVERPROVISIONED"];

/// Users are served better by a quarter, or the engine gives a tenth more.
fn helps(causes: &[String], before: &Truth, after: &Truth) -> bool {
    let (before, after) = (Served::of(before), Served::of(after));
    let falls = |before: f64, after: f64| after < before * 0.75;
    // stalls between tokens do not show in the mean
    let tail = causes.iter().any(|cause| cause == "PREFILL_INTERFERENCE");
    falls(before.first_token.mean, after.first_token.mean)
        || falls(before.inter_token.mean, after.inter_token.mean)
        || tail && falls(before.inter_token.p99, after.inter_token.p99)
        || falls(before.failure_ratio, after.failure_ratio)
        || after.tokens_per_second > before.tokens_per_second * 1.1
}

fn told(truth: &Truth) -> String {
    let of = Served::of(truth);
    format!(
        "TTFT {:.3} (p50 {:.3}, p99 {:.3}), ITL {:.3} (p50 {:.3}, p99 {:.3}), failures {:.3}, {:.0} tokens/s, waiting {:.1}, running {:.0} to {:.0}, KV {:.2}",
        of.first_token.mean,
        of.first_token.p50,
        of.first_token.p99,
        of.inter_token.mean,
        of.inter_token.p50,
        of.inter_token.p99,
        of.failure_ratio,
        of.tokens_per_second,
        of.waiting.mean,
        of.running.least,
        of.running.most,
        of.kv_usage.mean,
    )
}

/// What users had.
struct Served {
    /// Seconds; 0 where nobody was served.
    first_token: Quantiles,
    inter_token: Quantiles,
    error_ratio: f64,
    rejected_ratio: f64,
    aborted_ratio: f64,
    failure_ratio: f64,
    tokens_per_second: f64,
    waiting: Level,
    running: Level,
    kv_usage: Level,
}

/// A gauge over all scrapes of all replicas.
struct Level {
    mean: f64,
    least: f64,
    most: f64,
}

impl Level {
    fn of(gauges: &[Vec<Gauges>], value: impl Fn(&Gauges) -> f64) -> Self {
        let values: Vec<f64> = gauges.iter().flatten().map(value).collect();
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl Served {
    fn of(truth: &Truth) -> Self {
        let summary = &truth.summary;
        let none = Quantiles {
            count: 0,
            mean: 0.0,
            p50: 0.0,
            p90: 0.0,
            p99: 0.0,
        };
        let all = summary.finished.values().sum::<u64>() + summary.rejected;
        let ratio = |count: u64| count as f64 / all.max(1) as f64;
        let ended = |reason| ratio(summary.finished.get(&reason).copied().unwrap_or(0));
        let (error_ratio, rejected_ratio) = (ended(FinishReason::Error), ratio(summary.rejected));
        Self {
            first_token: summary.time_to_first_token_seconds.unwrap_or(none),
            inter_token: summary.inter_token_seconds.unwrap_or(none),
            error_ratio,
            rejected_ratio,
            aborted_ratio: ended(FinishReason::Abort),
            failure_ratio: error_ratio + rejected_ratio,
            tokens_per_second: summary.tokens_per_second(),
            waiting: Level::of(&truth.gauges, |of| of.waiting.into()),
            running: Level::of(&truth.gauges, |of| of.running.into()),
            kv_usage: Level::of(&truth.gauges, |of| of.kv_usage_ratio),
        }
    }

    fn first_token_is_late(&self) -> bool {
        self.first_token.p50 > 0.1 || self.first_token.p99 > 0.5
    }
}

/// What users of a healthy engine may not see: the default objectives, and a queue.
fn unwell(truth: &Truth) -> Option<String> {
    let of = Served::of(truth);
    let well = !of.first_token_is_late()
        && of.inter_token.p99 <= 0.1
        && of.failure_ratio <= 0.01
        && of.aborted_ratio < 0.1
        && of.waiting.mean < 0.5;
    (!well).then(|| format!("is not well: {}", told(truth)))
}

/// Why a cause is not what the label says it is.
fn untrue(cause: &str, case: &Case, truth: &Truth) -> Option<String> {
    let (of, settings) = (Served::of(truth), &truth.settings);
    let cap = f64::from(settings.max_num_seqs);
    let root = case.expect[0] == cause;
    // requests are held, and for the last seconds nothing moves; of one replica is enough
    let stalled = truth.tails.iter().zip(&truth.gauges).any(|(tail, gauges)| {
        let held = |last: &Gauges| last.running + last.waiting > 0;
        tail.steps == 0 && tail.generated_tokens == 0 && gauges.last().is_some_and(held)
    });
    let in_queue = truth.summary.mean_queue_seconds.unwrap_or(0.0);
    let true_ = match cause {
        "STALL" => stalled,
        "ERRORS" => of.error_ratio >= 0.02,
        "ADMISSION_LIMIT" => of.rejected_ratio >= 0.02,
        "ABORTS" => of.aborted_ratio >= 0.1 && (!root || !of.first_token_is_late()),
        "KV_CAPACITY" => {
            of.running.most < cap
                && (truth.summary.preemptions > 0 || of.waiting.mean > 1.0)
                && of.kv_usage.mean >= 0.6
        }
        "KV_NEAR_CAPACITY" => {
            of.kv_usage.mean >= 0.92 && of.waiting.most == 0.0 && truth.summary.preemptions == 0
        }
        "SEQUENCE_CAP" => {
            of.waiting.mean >= 0.5
                && of.running.most == cap
                && of.kv_usage.mean < 0.8
                && of.inter_token.p99 <= 0.1
        }
        "CAPACITY" => {
            of.waiting.mean >= 1.0
                && of.first_token_is_late()
                && (of.kv_usage.mean >= 0.9
                    || of.inter_token.p50 > 0.1
                    || settings.max_num_batched_tokens >= 2_048)
        }
        "TOKEN_BUDGET" => settings.max_num_batched_tokens < 2_048 && of.first_token_is_late(),
        "DEFERRED" => of.first_token_is_late() && of.running.most < cap && of.kv_usage.most < 0.8,
        "PREFILL_BOUND" => {
            of.first_token_is_late()
                && in_queue < of.first_token.mean / 4.0
                && of.waiting.mean < 0.5
        }
        "HEAD_OF_LINE" => of.first_token.p99 > 0.5 && of.first_token.p50 < of.first_token.p99 / 4.0,
        "PREFILL_INTERFERENCE" => {
            of.inter_token.p99 > 0.1
                && of.inter_token.p99 > 3.0 * of.inter_token.p50
                && !of.first_token_is_late()
        }
        "DECODE_BOUND" => of.inter_token.p50 > 0.1 && of.waiting.mean < 1.0,
        "FRONTEND" => of.first_token.p50 > 0.1 && of.first_token.mean - in_queue > 0.2,
        "BATCH_TOO_LARGE" => of.inter_token.p99 > 0.1 && of.running.most > 1.5 * of.running.least,
        "PREFIX_CACHE_OFF" => !settings.prefix_caching && of.first_token_is_late(),
        "COLD_PREFIX_CACHE" => settings.prefix_caching && of.first_token_is_late(),
        "IMBALANCE" => {
            let late = truth
                .each
                .iter()
                .filter_map(|each| each.time_to_first_token_seconds.map(|seconds| seconds.mean));
            let (least, most) = late.fold((f64::INFINITY, 0.0_f64), |(least, most), mean| {
                (least.min(mean), most.max(mean))
            });
            of.first_token_is_late() && most > 2.0 * least
        }
        "SLOW_REPLICA" => truth.each.len() > 1,
        "OVERPROVISIONED" => {
            truth.summary.seconds >= 1_800.0
                && of.kv_usage.most <= 0.2
                && of.running.most <= cap / 10.0
                && of.waiting.most == 0.0
                && unwell(truth).is_none()
        }
        // told by the cure
        "HOST_BOUND" | "GRAPH_CEILING" | "SPECULATION_LOSS" => true,
        other => panic!("{other}"),
    };
    // what stalls is told by nothing else
    let true_ = true_ && (cause == "STALL" || !stalled);
    (!true_).then(|| format!("{cause} is not so: {}", told(truth)))
}

/// Every page can be read, and says what engine and version it is of.
#[test]
fn every_case_can_be_measured() {
    let wrong: Vec<String> = for_each(&all(), |case| {
        let recording = case.recording();
        let measurement = recording.measure();
        let replicas = &measurement.replicas;
        let fine = recording.scrapes() >= 2
            && measurement.engine_version.is_some()
            && measurement.engine == case.engine()
            && replicas.iter().all(|replica| replica.outcome.is_ok());
        (!fine).then(|| format!("{}: {:?}", case.name, measurement.notes))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Families of a page, by what each type adds to a name.
fn families(page: &str, prefix: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|rest| rest.split(' ').next())
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

fn newest(engine: &str, load: &str) -> String {
    let scenario = format!("engine = \"{engine}\"\n{load}");
    let scenario: perfagent::simulator::Scenario = toml::from_str(&scenario).unwrap();
    let mut replica =
        perfagent::simulator::Replica::new(&scenario.deployment().unwrap(), 0, 0.0).unwrap();
    replica.run_until(30.0);
    replica.metrics(false)
}

/// An older page has what that version has: no family that it does not know, and none less.
#[test]
fn older_pages_have_the_names_of_their_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let page = newest("vllm", "load = { clients = 8, abort_ratio = 0.1 }");
    let now = families(&page, "vllm:");
    for (text, old) in [
        ("0.10.1", "vllm:gpu_cache_usage_perc"),
        ("0.10.1", "vllm:time_per_output_token_seconds"),
        ("0.16.0", "vllm:kv_cache_usage_perc"),
        ("0.32.0", "vllm:inter_token_latency_seconds"),
    ] {
        let mut recorded = BTreeSet::new();
        for dir in fs::read_dir(root.join(format!("captures/vllm-{text}"))).unwrap() {
            for scrape in fs::read_dir(dir.unwrap().path()).unwrap().flatten() {
                if scrape.path().extension().is_some_and(|ext| ext == "prom") {
                    recorded.extend(families(
                        &fs::read_to_string(scrape.path()).unwrap(),
                        "vllm:",
                    ));
                }
            }
        }
        let older = older::as_version("vllm", text.parse().unwrap(), &page);
        let older = families(&older, "vllm:");
        let unknown: Vec<_> = older.difference(&recorded).collect();
        assert!(unknown.is_empty(), "{text}: {unknown:?}");
        let missing: Vec<_> = recorded
            .intersection(&now)
            .filter(|name| !older.contains(*name))
            .collect();
        assert!(missing.is_empty(), "{text}: {missing:?}");
        assert!(older.contains(old), "{text}: {old}");
    }
    let speculating = "settings = { speculative_config = '{\"num_speculative_tokens\": 2}' }";
    for (engine, version, package, load) in [
        ("vllm", "0.8.5", "vllm-0.8.5.json", speculating),
        ("sglang", "0.5.7", "sglang-0.5.7.json", ""),
        ("sglang", "0.4.6", "sglang-0.4.6.json", ""),
        ("sglang", "0.5.23", "sglang-0.5.23.json", ""),
    ] {
        let text = fs::read_to_string(root.join("engine-metrics").join(package)).unwrap();
        let package: Value = serde_json::from_str(&text).unwrap();
        let known: BTreeSet<&str> = package["metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["name"].as_str().unwrap())
            .collect();
        let version: Version = version.parse().unwrap();
        let older = older::as_version(engine, version, &newest(engine, load));
        let names = families(&older, &format!("{engine}:"));
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            let base = name.strip_suffix("_total").unwrap_or(&name);
            let known = known.contains(name.as_str()) || known.contains(base);
            assert!(
                known || name.ends_with("_created"),
                "{engine} {version}: {name}"
            );
        }
    }
}

/// Labels and series that came later are gone, values stay.
#[test]
fn older_pages_lack_what_came_later() {
    let page = newest("vllm", "load = { clients = 8 }");
    let older = older::as_version("vllm", Version::new(0, 12, 0), &page);
    assert!(
        page.contains("finished_reason=\"error\"") && !older.contains("finished_reason=\"error\"")
    );
    assert!(older.contains("finished_reason=\"stop\"") && !older.contains("kv_cache_size_tokens"));
    assert!(older.contains("enable_prefix_caching=\"True\""));
    let value = |page: &str, name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let oldest = older::as_version("vllm", Version::new(0, 8, 5), &page);
    for (now, then) in [
        ("vllm:kv_cache_usage_perc{", "vllm:gpu_cache_usage_perc{"),
        (
            "vllm:inter_token_latency_seconds_sum{",
            "vllm:time_per_output_token_seconds_sum{",
        ),
    ] {
        assert_eq!(value(&page, now), value(&oldest, then));
    }
    // those put off were not counted, and the cache was counted in blocks
    let put_off = newest(
        "vllm",
        "load = { rate = 20, deferred_seconds = 2, shared_prefix_tokens = 64 }",
    );
    let of = |reason| {
        format!(
            "vllm:num_requests_waiting_by_reason{{engine=\"0\",model_name=\"simulated\",reason=\"{reason}\"}}"
        )
    };
    let waiting = |page: &str| value(page, "vllm:num_requests_waiting{");
    assert!(value(&put_off, &of("deferred")) != "0.0");
    assert!(waiting(&put_off) != value(&put_off, &of("capacity")));
    let before = older::as_version("vllm", Version::new(0, 19, 0), &put_off);
    assert_eq!(waiting(&before), value(&put_off, &of("capacity")));
    let number = |text: String| text.parse::<f64>().unwrap();
    let blocks = older::as_version("vllm", Version::new(0, 8, 5), &put_off);
    let blocks = number(value(&blocks, "vllm:gpu_prefix_cache_hits_total{"));
    let tokens = number(value(&put_off, "vllm:prefix_cache_hits_total{"));
    assert!(tokens > 0.0 && blocks == (tokens / 16.0).floor());
    assert_eq!(older::as_version("tgi", Version::new(3, 0, 0), &page), page);
    let without = older::without(&page, "vllm:iteration_tokens_total");
    assert!(page.contains("vllm:iteration_tokens") && !without.contains("vllm:iteration_tokens"));
}
