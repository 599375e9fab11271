//! The parser beside its peers, on recorded bodies, in one run.
//!
//! `cargo bench --bench exposition`, or `benches/run`. With `--count N FILE` it only parses a file N times, for
//! callgrind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use perfagent::engine::Registry;
use perfagent::exposition::{Family, Options, Sample, Sink, parse};
use perfagent::measure;
use rustc_hash::FxHashMap;

const BODIES: [&str; 4] = [
    "vllm-0.32.0/c-saturation/scrape-3.prom",
    "vllm-0.8.5-v0/c-saturation/scrape-3.prom",
    "sglang-0.5.23/c-saturation/scrape-3.prom",
    "tgi-3.3.6/c-saturation/scrape-3.prom",
];

/// Labels split and names resolved to slots, as a reader of an engine needs them.
struct Slots {
    slots: FxHashMap<String, usize>,
    slot: Option<usize>,
}

impl Slots {
    fn of(body: &str) -> Self {
        let names = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let slots = names
            .enumerate()
            .map(|(slot, rest)| {
                let name = rest.split(' ').next().unwrap();
                (name.trim_end_matches("_total").to_owned(), slot)
            })
            .collect();
        Self { slots, slot: None }
    }
}

impl<'a> Sink<'a> for Slots {
    fn family(&mut self, family: &Family<'a>) {
        self.slot = self.slots.get(family.base_name()).copied();
    }

    fn sample(&mut self, _: &Family<'a>, sample: &Sample<'_, 'a>) {
        // everything is used, so that nothing is left out
        black_box((self.slot, sample.role, sample.value));
        for label in sample.labels {
            black_box((label.name.as_plain(), label.value.as_plain()));
        }
    }
}

/// Best time of many runs in a second, in microseconds.
fn best(mut run: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e6
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/captures")
        .join(name)
}

/// Best time of Python's prometheus_client, in microseconds.
fn python(path: &Path) -> Option<f64> {
    let found = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"))
        .output()
        .ok()?;
    let python = String::from_utf8(found.stdout).ok()?;
    let script = "import sys, time\n\
                  from prometheus_client.parser import text_string_to_metric_families as parse\n\
                  text = open(sys.argv[1]).read()\n\
                  best = 1e9\n\
                  for _ in range(30):\n\
                  \tstart = time.perf_counter()\n\
                  \tfor family in parse(text): pass\n\
                  \tbest = min(best, time.perf_counter() - start)\n\
                  print(best * 1e6)\n";
    let output = Command::new(python.trim())
        .arg("-c")
        .arg(script)
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let runs: usize = arguments[at + 1].parse().unwrap();
        let body = std::fs::read(fixture(&arguments[at + 2])).unwrap();
        let mut slots = Slots::of(std::str::from_utf8(&body).unwrap());
        for _ in 0..runs {
            parse(&body, &Options::default(), &mut slots).unwrap();
        }
        return;
    }
    println!(
        "{:<42} {:>7} {:>8} {:>8} {:>9} | {:>21} {:>18} {:>22}",
        "body",
        "bytes",
        "parse",
        "MB/s",
        "to sample",
        "prom_text_format_p.",
        "prometheus-parse",
        "Python prometheus_c."
    );
    let registry = Registry::builtin();
    for name in BODIES {
        let path = fixture(name);
        let body = std::fs::read(&path).unwrap();
        let text = String::from_utf8(body.clone()).unwrap();
        let mut slots = Slots::of(&text);
        let ours = best(|| {
            black_box(parse(&body, &Options::default(), &mut slots).unwrap());
        });
        let profile = registry.get(name.split('-').next().unwrap()).unwrap();
        let to_sample = best(|| {
            black_box(measure::Sample::read(profile, &body, 0.0, &Options::default()).unwrap());
        });
        let format_parser = best(|| {
            black_box(prom_text_format_parser::Scrape::parse(&text).ok());
        });
        // it drops every name with a colon, so it gets names without
        let plain = text.replace(':', "_");
        let prometheus_parse = best(|| {
            let lines = plain.lines().map(|line| Ok(line.to_owned()));
            black_box(prometheus_parse::Scrape::parse(lines).ok());
        });
        let python = python(&path);
        println!(
            "{name:<42} {:>7} {ours:>6.1}us {:>8.0} {to_sample:>7.1}us | {format_parser:>10.0}us = {:>5.1}x {prometheus_parse:>8.0}us = {:>4.1}x {}",
            body.len(),
            body.len() as f64 / ours,
            format_parser / ours,
            prometheus_parse / ours,
            python.map_or_else(
                || "   not to be had".to_owned(),
                |python| format!("{python:>12.0}us = {:>4.0}x", python / ours)
            ),
        );
    }
}
