//! What truly comes of a change: the truth engine, before and after it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use perfagent::analysis::Targets;
use perfagent::model::{FinishReason, Simulation, Summary, Tally};
use perfagent::optimization::KnobChange;
use perfagent::simulator::{Deployment, FLAGS, engine_name};
use serde_json::Value;

use super::{Scenario, Treatment};

/// When an engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// As it was measured.
    Before,
    /// After a change: other requests, and as many as they have become.
    After,
    /// A window that the agent kept: which.
    History(usize),
}

/// Flags of a change, by name without dashes: none where one is taken away.
pub(crate) type Flags = BTreeMap<String, Option<Value>>;

/// The truth engine of a scenario. It keeps what it ran.
#[derive(Debug)]
pub(crate) struct Truth<'s> {
    pub(crate) scenario: &'s Scenario,
    runs: RefCell<BTreeMap<String, Result<Summary, String>>>,
}

impl<'s> Truth<'s> {
    pub(crate) fn of(scenario: &'s Scenario) -> Self {
        Self {
            scenario,
            runs: RefCell::default(),
        }
    }

    /// What users have after a change; the text says why the engine does not start so.
    pub(crate) fn after(&self, treatment: &Treatment) -> Result<Summary, String> {
        let flags = flags(&treatment.changes)?;
        self.with(Phase::After, &flags, treatment.replicas)
    }

    /// The same of flags.
    pub(crate) fn with(
        &self,
        phase: Phase,
        flags: &Flags,
        replicas: Option<u32>,
    ) -> Result<Summary, String> {
        let key = format!("{phase:?} {flags:?} {replicas:?}");
        if let Some(known) = self.runs.borrow().get(&key) {
            return known.clone();
        }
        let found = self
            .deployment(phase, flags, replicas)
            .and_then(|deployment| self.run(&deployment, self.scenario.window_seconds));
        self.runs.borrow_mut().insert(key, found.clone());
        found
    }

    /// The deployment in a phase, changed.
    pub(crate) fn deployment(
        &self,
        phase: Phase,
        flags: &Flags,
        replicas: Option<u32>,
    ) -> Result<Deployment, String> {
        let mut written = self.scenario.base.clone();
        for (name, value) in flags {
            match value {
                Some(value) => written.settings.insert(name.clone(), value.clone()),
                None => written.settings.remove(name),
            };
        }
        if replicas.is_some() {
            written.replicas = replicas;
        }
        let load = &mut written.load;
        let times = match phase {
            Phase::Before => 1.0,
            Phase::After => load.drift.take().map_or(1.0, |drift| drift.factor),
            Phase::History(at) => {
                load.drift = None;
                self.scenario.history[at]
            }
        };
        let seed = load.seed.unwrap_or(1);
        load.seed = Some(match phase {
            Phase::Before => seed,
            Phase::After => seed + 1_000_000,
            Phase::History(at) => seed + 2_000_000 + at as u64,
        });
        load.rate = load.rate.map(|rate| rate * times);
        load.clients = load
            .clients
            .map(|clients| (f64::from(clients) * times).round().max(1.0) as u32);
        written.deployment().map_err(|error| error.to_string())
    }

    /// Counts what happens in a window after the warm-up, without pages.
    pub(crate) fn run(&self, deployment: &Deployment, seconds: f64) -> Result<Summary, String> {
        let warm = self.scenario.warm_seconds;
        let settings = deployment
            .settings(&deployment.flags)
            .map_err(|error| error.to_string())?;
        let mut tally = Tally::from(warm);
        for number in 0..deployment.replicas {
            let place = (number, deployment.replicas);
            let load = deployment.load.clone();
            let mut simulation =
                Simulation::new(settings.clone(), deployment.step_time, load, place)
                    .map_err(|error| error.to_string())?;
            simulation.run_until(warm + seconds, &mut tally);
        }
        Ok(tally.summary(warm + seconds))
    }
}

/// Flags of changes in the spelling of the simulator; the text says what it does not have.
pub(crate) fn flags(changes: &[KnobChange]) -> Result<Flags, String> {
    let mut flags = Flags::new();
    for change in changes {
        let name = change.flag.trim_start_matches('-').to_owned();
        let known = |name: &str| FLAGS.iter().any(|flag| flag.name == name);
        let (name, to) = match &change.to {
            _ if known(&name) => (name, change.to.clone()),
            // a switch that the simulator has the other way round
            Some(to) if known(&format!("no-{name}")) => {
                let on = to.eq_ignore_ascii_case("true");
                (format!("no-{name}"), (!on).then(|| "true".to_owned()))
            }
            Some(_) if name.strip_prefix("no-").is_some_and(known) => {
                (name.trim_start_matches("no-").to_owned(), None)
            }
            _ => return Err(format!("{} is not simulated", change.flag)),
        };
        let value = to.map(|to| value(&name, &to));
        // none is no guessing at all
        let none = name == "speculative-config" && value == Some(Value::from(0));
        flags.insert(name, value.filter(|_| !none));
    }
    Ok(flags)
}

fn value(name: &str, text: &str) -> Value {
    if name != "speculative-config" {
        return serde_json::from_str(text).unwrap_or_else(|_| text.into());
    }
    match text.parse::<u32>() {
        Ok(0) => 0.into(),
        Ok(tokens) => format!("{{\"num_speculative_tokens\": {tokens}}}").into(),
        Err(_) => text.into(),
    }
}

/// How well users are served: the less the violation the better, then the more the throughput.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// By how much targets are missed: the sum of the logarithms of value over target, of those above it.
    pub(crate) violation: f64,
    pub(crate) tokens_per_second: f64,
}

/// The score of what users had, by what they were promised.
pub(crate) fn score(summary: &Summary, targets: &Targets) -> Score {
    let first = summary.time_to_first_token_seconds;
    let gaps = summary.inter_token_seconds;
    // where nobody had a first token, all waited as long as was watched
    let waited = summary.seconds;
    let misses = [
        (
            first.map_or(waited, |one| one.p50),
            targets.ttft_p50_seconds,
        ),
        (
            first.map_or(waited, |one| one.p99),
            targets.ttft_p99_seconds,
        ),
        (gaps.map_or(0.0, |one| one.p99), targets.itl_p99_seconds),
        (error_ratio(summary), targets.error_ratio),
    ];
    Score {
        violation: misses
            .iter()
            .map(|(value, target)| (value / target).max(1.0).ln())
            .sum(),
        tokens_per_second: summary.tokens_per_second(),
    }
}

/// Requests that failed or were refused, of all that ended.
fn error_ratio(summary: &Summary) -> f64 {
    let failed = summary.finished.get(&FinishReason::Error).copied();
    let failed = failed.unwrap_or(0) + summary.rejected;
    let ended = summary.finished.values().sum::<u64>() + summary.rejected;
    failed as f64 / ended.max(1) as f64
}

/// Violations that differ by less are equal: one per cent of one target.
pub(crate) const EQUAL: f64 = 0.01;

impl Score {
    /// Whether it is better than another.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        if (self.violation - other.violation).abs() > EQUAL {
            return self.violation < other.violation;
        }
        self.tokens_per_second > other.tokens_per_second
    }
}

/// The engine's name.
pub(crate) fn engine(scenario: &Scenario) -> &'static str {
    engine_name(scenario.engine)
}
