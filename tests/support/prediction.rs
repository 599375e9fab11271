//! The proof set of the predictions: seeded engines under load, what-if changes, and what truly comes of a change.
//!
//! ```text
//! seed → scenario → truth engine, before → pages of text → measurement → prediction, recommendation
//!                 → truth engine, changed, other requests → pages → measurement → what it truly became
//! ```
//!
//! The engine that decides the truth has what no fit can express: steps that jitter and pause, padded batches, a soft
//! knee and a power of tokens, heavy tails, outputs that go with prompts, loads that drift. What predicts sees only what
//! an agent sees. The set was chosen, and committed, before any prediction was tuned: `choose.rs` says how, and a test
//! holds its digest. Scenarios with an even seed may be looked at while tuning; those with an odd one are held back.
#![allow(dead_code)]

#[path = "prediction/choose.rs"]
pub(crate) mod choose;
#[path = "prediction/dice.rs"]
mod dice;
#[path = "prediction/generate.rs"]
mod generate;
#[path = "prediction/grid.rs"]
pub(crate) mod grid;
#[path = "prediction/hardware.rs"]
mod hardware;
#[path = "prediction/kinds.rs"]
mod kinds;
#[path = "prediction/naive.rs"]
pub(crate) mod naive;
#[path = "prediction/ours.rs"]
pub(crate) mod ours;
#[path = "prediction/seen.rs"]
pub(crate) mod seen;
#[path = "prediction/tally.rs"]
pub(crate) mod tally;
#[path = "prediction/truth.rs"]
pub(crate) mod truth;

use perfagent::analysis::Targets;
use perfagent::model::Policy;
use perfagent::optimization::KnobChange;
use perfagent::simulator;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) use generate::scenario;

/// The halves of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Even seeds: may be looked at while predictions are tuned.
    Development,
    /// Odd seeds: only their figures may be looked at.
    HeldBack,
}

impl Part {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 2 {
            0 => Self::Development,
            _ => Self::HeldBack,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::HeldBack => "held-back",
        }
    }
}

/// What is wrong with a scenario; each but [`Kind::Healthy`] is treated by a lever that the model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Nothing.
    Healthy,
    /// Too few requests may run at once.
    SequenceCap,
    /// The KV cache is too small, of the memory's share or of a bound.
    KvCapacity,
    /// Prompts are computed in steps that are too small.
    BudgetTooSmall,
    /// Prompts are computed in steps that are so large that those who decode wait.
    BudgetTooLarge,
    /// Long prompts hold up short ones.
    HeadOfLine,
    /// Requests are refused that could wait.
    QueueBound,
    /// Tokens are guessed ahead, mostly wrongly.
    SpeculationLoss,
    /// So many run at once that each is slow, where users ask for speed.
    BatchTooLarge,
    /// SGLang sets aside less room than outputs need, and computes again what it has to drop.
    Conservativeness,
    /// No setting is enough: a replica more is.
    Capacity,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) engine: Policy,
    /// Model and device, in a word.
    pub(crate) hardware: &'static str,
    /// What runs, before any change.
    pub(crate) base: simulator::Scenario,
    /// What users were promised.
    pub(crate) targets: Targets,
    /// Whether endpoints tell the settings, beyond what is among the metrics.
    pub(crate) settings_known: bool,
    /// Launch arguments that the operator declared: name of the flag without dashes, and value.
    pub(crate) declared: BTreeMap<String, String>,
    pub(crate) warm_seconds: f64,
    pub(crate) window_seconds: f64,
    pub(crate) interval_seconds: f64,
    /// Windows that the agent kept from before, each with the load times this.
    pub(crate) history: Vec<f64>,
    /// What treats it, by its kind.
    pub(crate) cure: Treatment,
    /// What if? Sensible and other changes.
    pub(crate) what_ifs: Vec<Vec<KnobChange>>,
}

/// A change of settings, or of replicas.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Treatment {
    pub(crate) changes: Vec<KnobChange>,
    pub(crate) replicas: Option<u32>,
}

impl Scenario {
    pub(crate) fn part(&self) -> Part {
        Part::of(self.seed)
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.kind == Kind::Healthy
    }
}

/// A scenario of the set, with what an exhaustive search found for it.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) scenario: Scenario,
    /// Flags of the best point of the grid; none of those that keep theirs.
    pub(crate) best: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct File {
    scenario: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    seed: u64,
    #[serde(default)]
    best: BTreeMap<String, Value>,
}

/// The set as text: seeds that were chosen.
pub(crate) const SET: &str = include_str!("../fixtures/prediction/scenarios.toml");

/// Every scenario, in the order of seeds.
pub(crate) fn all() -> Vec<Chosen> {
    let file: File = toml::from_str(SET).expect("the committed set");
    file.scenario
        .into_iter()
        .map(|row| Chosen {
            scenario: scenario(row.seed),
            best: row.best,
        })
        .collect()
}

/// Digest of all that the scenarios say (FNV-1a), so that none changes unnoticed. Of fractions only the first digits count:
/// the last ones are not the same on every machine.
pub(crate) fn digest(all: &[Chosen]) -> u64 {
    const DIGITS: usize = 9;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for one in all {
        let mut after_point = None;
        for byte in format!("{:?}", one.scenario).bytes() {
            after_point = match (byte, after_point) {
                (b'.', _) => Some(0),
                (b'0'..=b'9', Some(digits)) => Some(digits + 1),
                _ => None,
            };
            if after_point.is_none_or(|digits| digits <= DIGITS) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash
}
