//! The labelled set of the diagnosis: what is wrong in each case, and what an agent would have scraped.
//!
//! ```text
//! tests/fixtures/diagnosis/*.toml → cases → recording (pages of every replica, what its endpoints said) → measurement
//! ```
//!
//! Cases come from the simulator in virtual time, or from scrapes of real engines. `tests/it/labels.rs` holds that the
//! labels are true; nothing here knows how a diagnosis is made.
#![allow(dead_code)]

#[path = "older.rs"]
pub(crate) mod older;
#[path = "recording.rs"]
mod recording;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use perfagent::engine::{EngineProfile, Probed, Version, read_endpoint};
use perfagent::measure::Measurement;
use perfagent::model::{Gauges, Settings, Sink, Summary, Tally};
use perfagent::simulator::{Deployment, Replica, Scenario, engine_name};
use serde::Deserialize;
use serde_json::{Value, json};
use toml::Table;

pub(crate) use recording::{Page, RecordedReplica, Recording};
use recording::{engine_of_capture, fixtures, profile, recorded};

/// The halves of the set, and what real engines recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// May be looked at while rules are written.
    Development,
    /// Other engine versions, other loads, other hardware; committed before the first rule.
    HeldBack,
    /// Scrapes of real engines.
    Captures,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Development, Self::HeldBack, Self::Captures];

    /// Its file, without `.toml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::HeldBack => "held-back",
            Self::Captures => "captures",
        }
    }
}

/// One labelled case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) part: Part,
    pub(crate) name: String,
    /// What is wrong, in an operator's words.
    pub(crate) why: String,
    /// Causes that are to be found, the root first; none where all is well.
    pub(crate) expect: Vec<String>,
    /// Findings that are no false alarm beside those.
    pub(crate) allowed: Vec<String>,
    /// The engine does not export what it takes: the check of that cause abstains, and names it.
    pub(crate) cannot_tell: bool,
    /// Whether the agent sees settings beyond those in the metrics.
    pub(crate) settings_known: bool,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Simulated(Box<Simulated>),
    Recorded {
        capture: String,
        scrapes: [usize; 2],
    },
}

#[derive(Debug, Clone)]
struct Simulated {
    scenario: Table,
    cure: Option<Table>,
    not_cure: Option<Table>,
    version: Option<String>,
    warm_seconds: f64,
    window_seconds: f64,
    interval_seconds: f64,
}

/// What the simulator knows beside what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    /// What users had over the window, of all replicas.
    pub(crate) summary: Summary,
    /// Of each replica alone.
    pub(crate) each: Vec<Summary>,
    /// Of each replica alone, over the last [`TAIL_SECONDS`].
    pub(crate) tails: Vec<Summary>,
    /// Of each replica at each scrape.
    pub(crate) gauges: Vec<Vec<Gauges>>,
    /// Of the first replica, at the end.
    pub(crate) settings: Settings,
}

/// How long nothing moves when an engine stalls.
pub(crate) const TAIL_SECONDS: f64 = 20.0;

#[derive(Debug, Deserialize)]
struct File {
    case: Vec<Written>,
}

#[derive(Debug, Deserialize)]
struct Written {
    name: String,
    why: String,
    expect: Vec<String>,
    #[serde(default)]
    allowed: Vec<String>,
    #[serde(default)]
    cannot_tell: bool,
    version: Option<String>,
    warm_seconds: Option<f64>,
    window_seconds: Option<f64>,
    interval_seconds: Option<f64>,
    #[serde(default)]
    settings_known: bool,
    cure: Option<Table>,
    not_cure: Option<Table>,
    capture: Option<String>,
    scrapes: Option<[usize; 2]>,
    #[serde(flatten)]
    scenario: Table,
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    Part::ALL.into_iter().flat_map(cases).collect()
}

/// The cases of a part.
pub(crate) fn cases(part: Part) -> Vec<Case> {
    let path = fixtures().join(format!("diagnosis/{}.toml", part.name()));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read(part, &text)
}

/// The cases of a text.
pub(crate) fn read(part: Part, text: &str) -> Vec<Case> {
    let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("{part:?}: {error}"));
    file.case
        .into_iter()
        .enumerate()
        .map(|(at, written)| written.case(part, at))
        .collect()
}

/// Does something with every case, on two threads; what comes out is in the order of the cases.
pub(crate) fn for_each<T: Send>(cases: &[Case], of: impl Fn(&Case) -> T + Sync) -> Vec<T> {
    on_two_threads(cases, of)
}

/// Does something with every item, on two threads; what comes out is in the order of the items.
pub(crate) fn on_two_threads<I: Sync, T: Send>(items: &[I], of: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let made = of(item);
                    done.lock().expect("no panic").push((at, made));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

impl Written {
    fn case(self, part: Part, at: usize) -> Case {
        let source = match self.capture {
            Some(capture) => Source::Recorded {
                capture,
                scrapes: self.scrapes.expect("scrapes = [first, last]"),
            },
            None => Source::Simulated(Box::new(Simulated {
                scenario: self.scenario,
                cure: self.cure,
                not_cure: self.not_cure,
                version: self.version,
                warm_seconds: self.warm_seconds.unwrap_or(20.0),
                window_seconds: self.window_seconds.unwrap_or(60.0),
                interval_seconds: self.interval_seconds.unwrap_or(if at.is_multiple_of(2) {
                    5.0
                } else {
                    15.0
                }),
            })),
        };
        Case {
            part,
            name: self.name,
            why: self.why,
            expect: self.expect,
            allowed: self.allowed,
            cannot_tell: self.cannot_tell,
            settings_known: self.settings_known,
            source,
        }
    }
}

impl Case {
    /// Its engine.
    pub(crate) fn engine(&self) -> String {
        match &self.source {
            Source::Simulated(of) => {
                let engine = of.scenario.get("engine").and_then(toml::Value::as_str);
                engine.unwrap_or("vllm").to_owned()
            }
            Source::Recorded { capture, .. } => engine_of_capture(capture),
        }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        self.expect.is_empty()
    }

    /// What an agent would have seen.
    pub(crate) fn recording(&self) -> Recording {
        match &self.source {
            Source::Simulated(of) => of.recording(&self.name, None, self.settings_known, true),
            Source::Recorded { capture, scrapes } => recorded(capture, *scrapes),
        }
    }

    /// What an agent measures.
    pub(crate) fn measurement(&self) -> Measurement {
        self.recording().measure()
    }

    /// What is true without treatment, without any page.
    pub(crate) fn truth(&self) -> Option<Truth> {
        self.with_change(|_| Some(None))
    }

    /// What is true after the change that treats the cause; none where the case names none.
    pub(crate) fn truth_after_cure(&self) -> Option<Truth> {
        self.with_change(|of| of.cure.as_ref().map(Some))
    }

    /// What is true after a change that treats another cause; none where the case names none.
    pub(crate) fn truth_after_other_cure(&self) -> Option<Truth> {
        self.with_change(|of| of.not_cure.as_ref().map(Some))
    }

    fn with_change(&self, of: impl Fn(&Simulated) -> Option<Option<&Table>>) -> Option<Truth> {
        let Source::Simulated(simulated) = &self.source else {
            return None;
        };
        let change = of(simulated)?;
        simulated.recording(&self.name, change, false, false).truth
    }
}

impl Simulated {
    fn recording(
        &self,
        name: &str,
        change: Option<&Table>,
        settings_known: bool,
        pages: bool,
    ) -> Recording {
        let mut table = self.scenario.clone();
        for (key, value) in change.into_iter().flatten() {
            merge(&mut table, key, value);
        }
        let scenario: Scenario = table
            .try_into()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let deployment = scenario
            .deployment()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let profile = profile(engine_name(deployment.engine));
        let mut recording = Recording {
            engine: profile.name.to_string(),
            replicas: Vec::new(),
            truth: None,
        };
        let end = self.warm_seconds + self.window_seconds;
        let mut all = Tally::from(self.warm_seconds);
        let (mut each, mut tails) = (Vec::new(), Vec::new());
        let (mut gauges, mut settings) = (Vec::new(), None);
        for number in 0..deployment.replicas {
            let mut own = (
                Tally::from(self.warm_seconds),
                Tally::from(end - TAIL_SECONDS),
            );
            let (replica, scraped, levels) =
                self.run(&deployment, number, pages, &mut (&mut all, &mut own));
            recording.replicas.push(RecordedReplica {
                pages: scraped,
                probed: Arc::new(probed(
                    &profile,
                    &replica,
                    self.version.as_deref(),
                    settings_known,
                )),
            });
            each.push(own.0.summary(end));
            tails.push(own.1.summary(end));
            gauges.push(levels);
            settings.get_or_insert_with(|| replica.settings().clone());
        }
        recording.truth = settings.map(|settings| Truth {
            summary: all.summary(end),
            each,
            tails,
            gauges,
            settings,
        });
        recording
    }

    fn run(
        &self,
        deployment: &Deployment,
        number: u32,
        with_pages: bool,
        sink: &mut impl Sink,
    ) -> (Replica, Vec<Page>, Vec<Gauges>) {
        let mut replica = Replica::new(deployment, number, START_UNIX_SECONDS).expect("checked");
        let engine = engine_name(deployment.engine);
        let version: Option<Version> = self
            .version
            .as_ref()
            .map(|version| version.parse().expect("a version"));
        let (mut pages, mut gauges) = (Vec::new(), Vec::new());
        let scrapes = (self.window_seconds / self.interval_seconds).round() as u32;
        for scrape in 0..=scrapes {
            let at = self.warm_seconds + f64::from(scrape) * self.interval_seconds;
            replica.run_until_with(at, sink);
            gauges.push(replica.gauges());
            if with_pages && replica.is_up() {
                let page = replica.metrics(false);
                pages.push(Page {
                    unix_seconds: replica.now_unix_seconds(),
                    text: match version {
                        Some(version) => older::as_version(engine, version, &page),
                        None => page,
                    },
                });
            }
        }
        (replica, pages, gauges)
    }
}

/// What the endpoints said, of this version where it is another than the simulator's.
pub(crate) fn probed(
    profile: &EngineProfile,
    replica: &Replica,
    written: Option<&str>,
    settings_known: bool,
) -> Probed {
    let mut probed = Probed::default();
    for endpoint in &profile.endpoints {
        let (path, query) = match endpoint.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (endpoint.path.as_ref(), None),
        };
        let Some(mut answer) = replica.answer(path, query) else {
            continue;
        };
        let version = written.map(|text| json!(text));
        let version = version.or_else(|| answer.get("version").cloned());
        if let Some(version) = &version
            && answer.get("version").is_some()
        {
            answer["version"] = version.clone();
        }
        let known = settings_known && !ignores(written, &endpoint.path);
        if !known {
            // the version is always known
            answer = match answer.get("version") {
                Some(version) => {
                    json!({ "version": version, "router": answer.get("router").cloned() })
                }
                None => Value::Null,
            };
        }
        probed.merge(read_endpoint(profile, &endpoint.path, &answer));
    }
    probed
}

/// vLLM up to 0.10 answers this path with a text that has no scheduler settings in it.
fn ignores(version: Option<&str>, path: &str) -> bool {
    let version: Option<Version> = version.and_then(|version| version.parse().ok());
    path.starts_with("/server_info?")
        && version.is_some_and(|version| version < Version::new(0, 12, 0))
}

pub(crate) const START_UNIX_SECONDS: f64 = 1_800_000_000.0;

/// A change of a table changes what it names, of another value takes its place.
fn merge(into: &mut Table, key: &str, value: &toml::Value) {
    match (into.get_mut(key), value) {
        // one kind of load takes the place of the other
        (Some(toml::Value::Table(into)), toml::Value::Table(changes)) => {
            if key == "load" {
                for (one, other) in [("rate", "clients"), ("clients", "rate")] {
                    if changes.contains_key(one) {
                        into.remove(other);
                    }
                }
            }
            for (key, value) in changes {
                // a flag that is taken away
                match value.as_str() {
                    Some("default") => into.remove(key),
                    _ => into.insert(key.clone(), value.clone()),
                };
            }
        }
        _ => {
            into.insert(key.to_owned(), value.clone());
        }
    }
}
